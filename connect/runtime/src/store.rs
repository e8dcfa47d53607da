//! What the runtime remembers, in compacted topics of Kafka Connect's formats.
//!
//! **Invariant:** memory is changed only after the record is acknowledged, so that what is shown is what is stored.

mod configs;
mod offsets;
mod schemas;
mod statuses;

use std::sync::Arc;

use aqueduct_client::{
    Admin, ClientSettings, Delivered, DeliveryListener, KafkaProducer, LogProducer, NewTopic, ProducerRecord,
    TailRecord, TopicTail,
};
use aqueduct_core::{Error, Result, Topic};
use bytes::Bytes;

use crate::config::RuntimeConfig;

pub(crate) use configs::{ConfigStore, StoredConnector, StoredTarget};
pub(crate) use offsets::OffsetStore;
pub(crate) use schemas::TopicSchemaStore;
pub(crate) use statuses::StatusStore;

/// All stores of a worker.
pub(crate) struct Stores {
    pub(crate) configs: ConfigStore,
    pub(crate) offsets: OffsetStore,
    pub(crate) statuses: StatusStore,
    pub(crate) schemas: Arc<TopicSchemaStore>,
    producer: Arc<dyn LogProducer>,
}

const PRODUCER_BYTES: usize = 4 << 20;

/// Statuses are written without waiting; a lost one is written again with the next change.
struct LogFailures;

impl DeliveryListener for LogFailures {
    fn delivered(&self, _token: u64, result: Result<Delivered>) {
        if let Err(error) = result {
            tracing::warn!("a status could not be written: {}", error.full());
        }
    }
}

impl Stores {
    /// Makes the topics where they do not exist, and reads them to their end.
    pub(crate) async fn open(
        config: &RuntimeConfig,
        settings: &ClientSettings,
        admin: &Admin,
    ) -> Result<Self> {
        let topics = [&config.config_topic, &config.offset_topic, &config.status_topic, &config.schema_topic]
            .map(|topic| NewTopic {
                name: topic.clone(),
                partitions: 1,
                replication_factor: config.replication_factor,
                config: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
            });
        let created =
            admin.create_topics(&topics).await.map_err(|e| e.context("opening the internal topics"))?;
        for topic in topics.iter().filter(|topic| !created.contains(&topic.name)) {
            check_compacted(admin, &topic.name).await?;
        }
        let group = &config.group_id;
        let producer: Arc<dyn LogProducer> = Arc::new(KafkaProducer::new(
            settings,
            &format!("{group}-stores"),
            PRODUCER_BYTES,
            &Default::default(),
            Arc::new(LogFailures),
        )?);
        let (own, client_id) = (settings.clone(), format!("{group}-positions"));
        let positions = Box::new(move || {
            let producer = KafkaProducer::new(
                &own,
                &client_id,
                PRODUCER_BYTES,
                &Default::default(),
                Arc::new(LogFailures),
            )?;
            Ok(Arc::new(producer) as Arc<dyn LogProducer>)
        });
        let internal = [&config.config_topic, &config.offset_topic, &config.status_topic].map(Clone::clone);
        let (follower, reader) = (format!("{group}-schemas"), format!("{group}-reader"));
        let schemas =
            TopicSchemaStore::open(settings, &follower, &config.schema_topic, Arc::clone(&producer));
        let loaded = load(settings, &reader, &internal);
        let (schemas, loaded) = tokio::try_join!(schemas, loaded)?;
        let loaded = &loaded;
        let of = |topic: &str| {
            let topic = topic.to_owned();
            loaded.iter().filter(move |record| *record.topic == *topic)
        };
        Ok(Self {
            configs: ConfigStore::new(&config.config_topic, Arc::clone(&producer), of(&config.config_topic)),
            offsets: OffsetStore::new(&config.offset_topic, positions, of(&config.offset_topic)),
            statuses: StatusStore::new(&config.status_topic, Arc::clone(&producer), of(&config.status_topic)),
            schemas: Arc::new(schemas),
            producer,
        })
    }

    /// Ends the clients, after what is queued is written.
    pub(crate) async fn close(&self, within: std::time::Duration) {
        if let Err(error) = self.producer.flush(within).await {
            tracing::warn!("the last statuses may be missing: {}", error.full());
        }
        self.offsets.close(within).await;
        self.schemas.close().await;
        self.producer.close().await;
    }
}

/// Positions in a topic that is not compacted would be deleted with time.
async fn check_compacted(admin: &Admin, topic: &str) -> Result<()> {
    let config = admin.topic_config(topic).await?;
    match config.get("cleanup.policy").map(String::as_str) {
        None | Some("compact") => Ok(()),
        Some(other) => Err(Error::bad_config(format!(
            "topic `{topic}` has `cleanup.policy={other}`; it must be `compact`, or what the runtime remembers is lost"
        ))),
    }
}

async fn load(settings: &ClientSettings, client_id: &str, topics: &[String]) -> Result<Vec<TailRecord>> {
    let loaded = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let sink = Arc::clone(&loaded);
    // Dropped rather than closed: it ends by itself, and the start need not wait for its last long poll.
    drop(TopicTail::start(settings, client_id, topics, move |record| sink.lock().push(record)).await?);
    let records = std::mem::take(&mut *loaded.lock());
    Ok(records)
}

/// A record of an internal topic; `None` is a tombstone.
fn record(topic: &Topic, key: impl Into<Bytes>, value: Option<&serde_json::Value>) -> ProducerRecord {
    let value = value.map(|json| Bytes::from(json.to_string()));
    ProducerRecord::new(Arc::clone(topic), Some(key.into()), value)
}

/// The text of a key, and the value as JSON; `None` for what is not in the expected form.
fn parse(record: &TailRecord) -> Option<(&str, Option<serde_json::Value>)> {
    let key = std::str::from_utf8(record.key.as_deref()?).ok()?;
    let value = match &record.value {
        None => None,
        Some(bytes) => Some(serde_json::from_slice(bytes).ok()?),
    };
    Some((key, value))
}
