//! `_aqueduct_schemas`: schemas by fingerprint. Key: 32 hex digits; value: the schema as JsonConverter writes it.

use std::collections::HashMap;
use std::sync::Arc;

use aqueduct_client::{ClientSettings, LogProducer, ProducerRecord, TailRecord, TopicTail};
use aqueduct_convert::{Fingerprint, SchemaStore};
use aqueduct_core::{Error, Result, SchemaRef, Topic, json};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::Mutex;

type Known = Arc<RwLock<HashMap<Fingerprint, SchemaRef>>>;

pub(crate) struct TopicSchemaStore {
    topic: Topic,
    producer: Arc<dyn LogProducer>,
    known: Known,
    tail: Mutex<Option<TopicTail>>,
}

impl TopicSchemaStore {
    pub(super) async fn open(
        settings: &ClientSettings,
        client_id: &str,
        topic: &str,
        producer: Arc<dyn LogProducer>,
    ) -> Result<Self> {
        let known = Known::default();
        let sink = Arc::clone(&known);
        let apply = move |record: TailRecord| {
            if let Some((fingerprint, schema)) = parse(&record) {
                // The first object stays, so that its address goes on naming it in the caches.
                sink.write().entry(fingerprint).or_insert(schema);
            }
        };
        let tail = TopicTail::start(settings, client_id, &[topic.to_owned()], apply).await?;
        Ok(Self { topic: topic.into(), producer, known, tail: Mutex::new(Some(tail)) })
    }

    pub(super) async fn close(&self) {
        if let Some(tail) = self.tail.lock().await.take() {
            tail.close().await;
        }
    }
}

fn parse(record: &TailRecord) -> Option<(Fingerprint, SchemaRef)> {
    let key = std::str::from_utf8(record.key.as_deref()?).ok()?;
    let value: serde_json::Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let schema = json::schema_from_json(&value).ok()?;
    let fingerprint = Fingerprint(json::fingerprint(&schema));
    // A record that was written by hand under another name is of no use.
    (fingerprint.to_string() == key).then(|| (fingerprint, Arc::new(schema)))
}

#[async_trait]
impl SchemaStore for TopicSchemaStore {
    fn known(&self, fingerprint: &Fingerprint) -> Option<SchemaRef> {
        self.known.read().get(fingerprint).cloned()
    }

    async fn put(&self, fingerprint: Fingerprint, schema: &SchemaRef) -> Result<()> {
        let value = Bytes::from(json::schema_to_json(schema).to_string());
        let key = Bytes::from(fingerprint.to_string());
        let record = ProducerRecord::new(Arc::clone(&self.topic), Some(key), Some(value));
        self.producer.send_and_wait(record).await.map_err(|e| e.context("storing a schema"))?;
        self.known.write().entry(fingerprint).or_insert_with(|| Arc::clone(schema));
        Ok(())
    }

    async fn find(&self, fingerprint: &Fingerprint) -> Result<Option<SchemaRef>> {
        match &*self.tail.lock().await {
            Some(tail) => tail.read_to_end().await.map_err(|e| e.context("reading the schemas"))?,
            None => return Err(Error::cancelled()),
        }
        Ok(self.known(fingerprint))
    }
}
