//! `connect-offsets`: positions of sources. Key `["connector",{partition}]`, value `{offset}`.
//!
//! **Invariant:** one producer writes the positions of all runs of all tasks, so what a run that failed left under way
//! comes before what the next run writes, never behind it. It is replaced only after a write has failed for good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_client::{LogProducer, ProducerRecord, TailRecord};
use aqueduct_core::source::{JsonMap, SourcePosition, StoredPositions};
use aqueduct_core::{Result, Topic};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde_json::Value as Json;

use super::record;

/// Makes a producer.
pub(super) type MakeProducer = Box<dyn Fn() -> Result<Arc<dyn LogProducer>> + Send + Sync>;

pub(crate) struct OffsetStore {
    topic: Topic,
    make: MakeProducer,
    producer: Mutex<Option<Arc<dyn LogProducer>>>,
    stored: RwLock<BTreeMap<String, Vec<SourcePosition>>>,
}

impl OffsetStore {
    pub(super) fn new<'a>(
        topic: &str,
        make: MakeProducer,
        records: impl Iterator<Item = &'a TailRecord>,
    ) -> Self {
        let store = Self { topic: topic.into(), make, producer: Mutex::default(), stored: RwLock::default() };
        for record in records {
            if let Some((connector, partition)) = record.key.as_ref().and_then(parse_key) {
                store.apply(&connector, partition, record.value.as_ref().and_then(parse_map));
            }
        }
        store
    }

    /// Positions of a connector.
    pub(crate) fn of(&self, connector: &str) -> StoredPositions {
        StoredPositions(self.stored.read().get(connector).cloned().unwrap_or_default())
    }

    /// Writes positions and waits for their acknowledgement.
    pub(crate) async fn write(&self, connector: &str, positions: &[SourcePosition]) -> Result<()> {
        let producer = self.producer()?;
        let records = positions.iter().map(|position| self.record(connector, position));
        let written = futures::future::try_join_all(records.map(|record| producer.send_and_wait(record)));
        if let Err(error) = written.await {
            self.retire(&producer).await;
            return Err(error);
        }
        for position in positions {
            self.apply(connector, Arc::clone(&position.partition), Some(Arc::clone(&position.offset)));
        }
        Ok(())
    }

    fn producer(&self) -> Result<Arc<dyn LogProducer>> {
        let mut producer = self.producer.lock();
        Ok(Arc::clone(match &mut *producer {
            Some(producer) => producer,
            none => none.insert((self.make)()?),
        }))
    }

    /// One that failed is of no more use to anyone.
    async fn retire(&self, failed: &Arc<dyn LogProducer>) {
        let retired = self.producer.lock().take_if(|current| Arc::ptr_eq(current, failed));
        if let Some(producer) = retired {
            producer.close().await;
        }
    }

    /// Ends the producer.
    pub(super) async fn close(&self, within: Duration) {
        let producer = self.producer.lock().take();
        if let Some(producer) = producer {
            if let Err(error) = producer.flush(within).await {
                tracing::warn!("the last positions may be missing: {}", error.full());
            }
            producer.close().await;
        }
    }

    fn record(&self, connector: &str, position: &SourcePosition) -> ProducerRecord {
        let key = Json::Array(vec![connector.into(), Json::Object((*position.partition).clone())]);
        record(&self.topic, key.to_string(), Some(&Json::Object((*position.offset).clone())))
    }

    fn apply(&self, connector: &str, partition: Arc<JsonMap>, offset: Option<Arc<JsonMap>>) {
        let mut stored = self.stored.write();
        let positions = stored.entry(connector.to_owned()).or_default();
        positions.retain(|position| position.partition != partition);
        positions.extend(offset.map(|offset| SourcePosition { partition, offset }));
    }
}

fn parse_key(bytes: &Bytes) -> Option<(String, Arc<JsonMap>)> {
    let (connector, partition) = serde_json::from_slice::<(String, JsonMap)>(bytes).ok()?;
    Some((connector, Arc::new(partition)))
}

fn parse_map(bytes: &Bytes) -> Option<Arc<JsonMap>> {
    serde_json::from_slice::<JsonMap>(bytes).ok().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use aqueduct_client::Delivered;
    use aqueduct_core::Error;
    use aqueduct_core::source::partition_of;
    use async_trait::async_trait;
    use futures::FutureExt as _;

    use super::*;

    fn stored(records: &[(&str, Option<&str>)]) -> OffsetStore {
        let record = |(key, value): &(&str, Option<&str>)| TailRecord {
            topic: "connect-offsets".into(),
            key: Some(Bytes::from((*key).to_owned())),
            value: value.map(|value| Bytes::from(value.to_owned())),
        };
        let records: Vec<TailRecord> = records.iter().map(record).collect();
        OffsetStore::new("connect-offsets", Box::new(|| Err(Error::cancelled())), records.iter())
    }

    #[test]
    fn the_last_position_of_each_partition_counts_and_tombstones_delete() {
        let store = stored(&[
            (r#"["orders",{"server":"a"}]"#, Some(r#"{"lsn":1}"#)),
            (r#"["orders",{"server":"b"}]"#, Some(r#"{"lsn":5}"#)),
            (r#"["orders",{"server":"a"}]"#, Some(r#"{"lsn":2}"#)),
            (r#"["orders",{"server":"b"}]"#, None),
            ("not json", Some("{}")),
        ]);
        let positions = store.of("orders");
        assert_eq!(positions.0.len(), 1);
        assert_eq!(positions.get(&partition_of("server", "a")).expect("stored")["lsn"], 2);
        assert!(store.of("others").0.is_empty());
    }

    /// Takes every record at once and acknowledges none before it is told to, or fails all.
    struct Slow {
        taken: Arc<Mutex<Vec<String>>>,
        acknowledge: tokio::sync::Notify,
        fails: bool,
    }

    #[async_trait]
    impl LogProducer for Slow {
        async fn send(&self, _: Vec<(u64, ProducerRecord)>) -> Result<()> {
            Ok(())
        }

        async fn send_and_wait(&self, record: ProducerRecord) -> Result<Delivered> {
            let value = record.value.unwrap_or_default();
            self.taken.lock().push(String::from_utf8_lossy(&value).into_owned());
            if self.fails {
                return Err(Error::fatal("fenced"));
            }
            self.acknowledge.notified().await;
            Ok(Delivered { partition: 0, offset: 0 })
        }

        async fn flush(&self, _: Duration) -> Result<()> {
            Ok(())
        }

        async fn close(&self) {
            self.taken.lock().push("closed".into());
        }
    }

    fn at(lsn: i64) -> [SourcePosition; 1] {
        let offset = Arc::new(JsonMap::from_iter([("lsn".to_owned(), lsn.into())]));
        [SourcePosition { partition: partition_of("server", "a"), offset }]
    }

    #[tokio::test]
    async fn what_a_failed_run_left_under_way_comes_before_what_the_next_one_writes() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let made = Arc::new(Mutex::new(Vec::<Arc<Slow>>::new()));
        let (records, producers) = (Arc::clone(&taken), Arc::clone(&made));
        let make = move || -> Result<Arc<dyn LogProducer>> {
            let fails = producers.lock().len() == 1;
            let producer = Slow { taken: Arc::clone(&records), acknowledge: Default::default(), fails };
            let producer = Arc::new(producer);
            producers.lock().push(Arc::clone(&producer));
            Ok(producer)
        };
        let store = OffsetStore::new("connect-offsets", Box::new(make), [].iter());
        // The run ends before the acknowledgement.
        assert!(store.write("orders", &at(1)).now_or_never().is_none());
        let next = at(2);
        let write = store.write("orders", &next);
        tokio::pin!(write);
        assert!(write.as_mut().now_or_never().is_none());
        assert_eq!(made.lock().len(), 1, "the same producer, which keeps the order");
        made.lock()[0].acknowledge.notify_waiters();
        write.await.expect("acknowledged");
        assert_eq!(*taken.lock(), [r#"{"lsn":1}"#, r#"{"lsn":2}"#]);
        assert_eq!(store.of("orders").get(&partition_of("server", "a")).expect("stored")["lsn"], 2);

        // One that fails is not used again.
        store.close(Duration::ZERO).await;
        store.write("orders", &at(3)).await.expect_err("fails");
        assert!(store.write("orders", &at(4)).now_or_never().is_none());
        assert_eq!(made.lock().len(), 3);
        assert_eq!(taken.lock()[2..], ["closed", r#"{"lsn":3}"#, "closed", r#"{"lsn":4}"#]);
    }

    #[test]
    fn keys_are_those_of_connect() {
        let store = stored(&[]);
        let offset = Arc::new(JsonMap::from_iter([("lsn".to_owned(), Json::from(7))]));
        let record =
            store.record("orders", &SourcePosition { partition: partition_of("server", "a"), offset });
        assert_eq!(record.key.as_deref(), Some(&br#"["orders",{"server":"a"}]"#[..]));
        assert_eq!(record.value.as_deref(), Some(&br#"{"lsn":7}"#[..]));
    }
}
