//! `connect-offsets`: positions of sources. Key `["connector",{partition}]`, value `{offset}`.
//!
//! **Invariant:** positions are written with the producer of the task that reached them, after its data.

use std::collections::BTreeMap;
use std::sync::Arc;

use aqueduct_client::{LogProducer, ProducerRecord, TailRecord};
use aqueduct_core::source::{JsonMap, SourcePosition, StoredPositions};
use aqueduct_core::{Result, Topic};
use bytes::Bytes;
use parking_lot::RwLock;
use serde_json::Value as Json;

use super::record;

pub(crate) struct OffsetStore {
    topic: Topic,
    stored: RwLock<BTreeMap<String, Vec<SourcePosition>>>,
}

impl OffsetStore {
    pub(super) fn new<'a>(topic: &str, records: impl Iterator<Item = &'a TailRecord>) -> Self {
        let store = Self { topic: topic.into(), stored: RwLock::default() };
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
    pub(crate) async fn write(
        &self,
        producer: &dyn LogProducer,
        connector: &str,
        positions: &[SourcePosition],
    ) -> Result<()> {
        let records = positions.iter().map(|position| self.record(connector, position));
        futures::future::try_join_all(records.map(|record| producer.send_and_wait(record))).await?;
        for position in positions {
            self.apply(connector, Arc::clone(&position.partition), Some(Arc::clone(&position.offset)));
        }
        Ok(())
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
    use aqueduct_core::source::partition_of;

    use super::*;

    fn stored(records: &[(&str, Option<&str>)]) -> OffsetStore {
        let record = |(key, value): &(&str, Option<&str>)| TailRecord {
            topic: "connect-offsets".into(),
            key: Some(Bytes::from((*key).to_owned())),
            value: value.map(|value| Bytes::from(value.to_owned())),
        };
        let records: Vec<TailRecord> = records.iter().map(record).collect();
        OffsetStore::new("connect-offsets", records.iter())
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
