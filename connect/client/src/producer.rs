//! Producing: batches in order, at most a budget of bytes under way, every record's fate reported.
//!
//! **Invariant:** what is under way, queued in the library included, never exceeds the budget by more than one record;
//! `send` waits instead. After the first failed delivery the producer is finished: its owner starts over with a new
//! one from the last position.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{Error, Result, Str, Topic};
use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::{Semaphore, oneshot};

use crate::error::error;
use crate::settings::{ClientSettings, log_line};

/// Memory that the library needs for a record beside its bytes, roughly.
const RECORD_OVERHEAD: usize = 128;

/// A record to be written.
#[derive(Clone, Debug)]
pub struct ProducerRecord {
    /// Topic.
    pub topic: Topic,
    /// Partition; `None` chooses by the key.
    pub partition: Option<i32>,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(Str, Option<Bytes>)>,
    /// Milliseconds since 1970; `None` is now.
    pub timestamp: Option<i64>,
}

impl ProducerRecord {
    /// A record of key and value.
    pub fn new(topic: Topic, key: Option<Bytes>, value: Option<Bytes>) -> Self {
        Self { topic, partition: None, key, value, headers: Vec::new(), timestamp: None }
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + len(value)).sum();
        len(&self.key) + len(&self.value) + headers
    }
}

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Told of every record's fate, on a thread of the library: it must not block.
pub trait DeliveryListener: Send + Sync + 'static {
    /// The record sent with `token` is written, or will never be.
    fn delivered(&self, token: u64, result: Result<Delivered>);
}

/// A producer.
#[async_trait]
pub trait LogProducer: Send + Sync {
    /// Queues the records in order; the listener is told of each token. Waits while the budget is used up.
    async fn send(&self, batch: Vec<(u64, ProducerRecord)>) -> Result<()>;

    /// Writes one record and waits for its acknowledgement.
    async fn send_and_wait(&self, record: ProducerRecord) -> Result<Delivered>;

    /// Waits until everything queued is acknowledged or failed.
    async fn flush(&self, within: Duration) -> Result<()>;

    /// Ends the producer; what is not acknowledged is reported as failed.
    async fn close(&self);
}

/// What goes through the library with a record and comes back with its report.
enum Waiting {
    Listener(u64),
    Reply(oneshot::Sender<Result<Delivered>>),
}

struct Ticket {
    waiting: Waiting,
    permits: u32,
}

struct Context {
    listener: Arc<dyn DeliveryListener>,
    budget: Arc<Semaphore>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        self.budget.add_permits(ticket.permits as usize);
        let result = match result {
            Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
            Err((cause, message)) => {
                Err(error(format_args!("writing to topic `{}`", message.topic()), cause))
            }
        };
        match ticket.waiting {
            Waiting::Listener(token) => self.listener.delivered(token, result),
            // The one who asked may have been cancelled.
            Waiting::Reply(reply) => drop(reply.send(result)),
        }
    }
}

type Native = ThreadedProducer<Context>;

/// [`LogProducer`] over librdkafka.
pub struct KafkaProducer {
    native: parking_lot::Mutex<Option<Arc<Native>>>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
}

impl KafkaProducer {
    /// A producer with at most `buffer_bytes` under way. No connection is made yet.
    pub fn new(
        settings: &ClientSettings,
        client_id: &str,
        buffer_bytes: usize,
        overrides: &BTreeMap<String, String>,
        listener: Arc<dyn DeliveryListener>,
    ) -> Result<Self> {
        Self::with_config(&settings.producer(client_id, buffer_bytes, overrides), buffer_bytes, listener)
    }

    /// A producer for the command line: a record that is not written within `within` has failed, and the others go on.
    pub fn giving_up(
        settings: &ClientSettings,
        client_id: &str,
        buffer_bytes: usize,
        within: Duration,
        listener: Arc<dyn DeliveryListener>,
    ) -> Result<Self> {
        Self::with_config(&settings.tool_producer(client_id, within), buffer_bytes, listener)
    }

    fn with_config(
        config: &ClientConfig,
        buffer_bytes: usize,
        listener: Arc<dyn DeliveryListener>,
    ) -> Result<Self> {
        let budget_bytes = buffer_bytes.clamp(1 << 16, 1 << 30);
        let budget = Arc::new(Semaphore::new(budget_bytes));
        let context = Context { listener, budget: Arc::clone(&budget) };
        let native =
            Native::from_config_and_context(config, context).map_err(|e| error("creating a producer", &e))?;
        Ok(Self { native: parking_lot::Mutex::new(Some(Arc::new(native))), budget, budget_bytes })
    }

    fn native(&self) -> Result<Arc<Native>> {
        self.native.lock().clone().ok_or_else(Error::cancelled)
    }

    async fn queue(&self, native: &Native, record: &ProducerRecord, waiting: Waiting) -> Result<()> {
        let permits =
            u32::try_from((record.size() + RECORD_OVERHEAD).min(self.budget_bytes)).unwrap_or(u32::MAX);
        let permit = self.budget.acquire_many(permits).await.map_err(|_| Error::cancelled())?;
        // Given back by the delivery report.
        permit.forget();
        let mut ticket = Box::new(Ticket { waiting, permits });
        loop {
            match native.send(native_record(record, ticket)) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    // Only possible with many records under way at the library's own limit; it drains by itself.
                    ticket = back.delivery_opaque;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err((cause, back)) => {
                    self.budget.add_permits(back.delivery_opaque.permits as usize);
                    return Err(error(format_args!("writing to topic `{}`", record.topic), &cause));
                }
            }
        }
    }
}

fn native_record(record: &ProducerRecord, ticket: Box<Ticket>) -> BaseRecord<'_, [u8], [u8], Box<Ticket>> {
    let mut native = BaseRecord::with_opaque_to(&record.topic, ticket);
    native.partition = record.partition;
    native.key = record.key.as_deref();
    native.payload = record.value.as_deref();
    native.timestamp = record.timestamp;
    if !record.headers.is_empty() {
        let empty = OwnedHeaders::new_with_capacity(record.headers.len());
        native.headers = Some(record.headers.iter().fold(empty, |headers, (name, value)| {
            headers.insert(Header { key: name, value: value.as_deref() })
        }));
    }
    native
}

#[async_trait]
impl LogProducer for KafkaProducer {
    async fn send(&self, batch: Vec<(u64, ProducerRecord)>) -> Result<()> {
        let native = self.native()?;
        for (token, record) in &batch {
            self.queue(&native, record, Waiting::Listener(*token)).await?;
        }
        Ok(())
    }

    async fn send_and_wait(&self, record: ProducerRecord) -> Result<Delivered> {
        let (reply, answer) = oneshot::channel();
        let native = self.native()?;
        self.queue(&native, &record, Waiting::Reply(reply)).await?;
        drop(native);
        answer.await.map_err(|_| Error::cancelled())?
    }

    async fn flush(&self, within: Duration) -> Result<()> {
        let native = self.native()?;
        let flushed = tokio::task::spawn_blocking(move || native.flush(within)).await;
        match flushed {
            Ok(result) => result.map_err(|e| error("flushing the producer", &e)),
            Err(_) => Err(Error::cancelled()),
        }
    }

    async fn close(&self) {
        let native = self.native.lock().take();
        // Ending the library's threads blocks for up to half a second.
        drop(tokio::task::spawn_blocking(move || drop(native)).await);
    }
}
