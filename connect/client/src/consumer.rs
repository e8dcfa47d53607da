//! Consuming as a member of a group.
//!
//! A thread polls the library and hands batches to the owner; it goes on polling while the owner is slow, so that the
//! membership never depends on the owner's pace.
//!
//! **Invariant:** the owner learns of an assignment before its first record, and a revocation waits until the owner
//! has answered. Records that were read under an earlier assignment of their partition are never handed out.

mod gather;
mod pump;
mod start;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use aqueduct_core::sink::{Consumed, Offsets, TopicPartition};
use aqueduct_core::{Error, Result, Topic};
use async_trait::async_trait;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::admin::{list_of, watermarks};
use crate::error::error;
use crate::settings::{ClientSettings, log_line};
pub(crate) use pump::PumpContext;

/// How long leaving the group may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// A record as it was read.
#[derive(Clone, Debug)]
pub struct ConsumedRecord {
    /// Topic.
    pub topic: Topic,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// Key, value and headers.
    pub consumed: Arc<Consumed>,
}

/// Records in the order of each partition. Its bytes count against the budget until it is dropped.
#[derive(Debug)]
pub struct Batch {
    /// The records.
    pub records: Vec<ConsumedRecord>,
    /// Bytes of keys, values and headers.
    pub bytes: usize,
    /// Of the assignment under which each record was read.
    epochs: Vec<u64>,
    /// Held until the owner is done with the batch.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What the owner is told.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// Partitions were assigned, each with the offset that is read first.
    Assigned(Offsets),
    /// Partitions are taken away once `done` is answered or dropped. `lost`: they already belong to another member.
    Revoked {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// Whether committing is too late.
        lost: bool,
        /// Answered when the owner has committed and closed them.
        done: oneshot::Sender<()>,
    },
    /// Records.
    Records(Batch),
    /// The consumer cannot go on.
    Failed(Error),
}

/// A member of a group, owned by one task.
#[async_trait]
pub trait LogConsumer: Send {
    /// The next event. Cancel-safe. Changes of the assignment come before records.
    async fn next(&mut self) -> ConsumerEvent;

    /// The next change of the assignment, or failure; no records. Cancel-safe.
    async fn next_change(&mut self) -> ConsumerEvent;

    /// Commits and waits for the acknowledgement.
    async fn commit(&self, offsets: &Offsets) -> Result<()>;

    /// Reads nothing, and stays a member.
    fn pause(&self);

    /// Reads again.
    fn resume(&self);

    /// First offset and the one after the last, of each partition.
    async fn watermarks(&self, partitions: Vec<TopicPartition>) -> Result<Vec<(TopicPartition, i64, i64)>>;

    /// Leaves. Answers no event after it.
    async fn close(&mut self);
}

/// Topics of a member.
#[derive(Clone, Debug)]
pub enum Subscription {
    /// These.
    Topics(Vec<String>),
    /// All whose name matches the whole expression, also those made later.
    Pattern(String),
}

impl Subscription {
    /// As the library takes it: names that begin with `^` are patterns.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Subscription::Topics(topics) => topics.clone(),
            Subscription::Pattern(pattern) => {
                vec![format!("^({})$", pattern.trim_start_matches('^').trim_end_matches('$'))]
            }
        }
    }
}

/// How a member is made.
#[derive(Clone, Debug)]
pub struct GroupConsumerConfig {
    /// Client id.
    pub client_id: String,
    /// Group.
    pub group_id: String,
    /// Name of the static member.
    pub instance_id: String,
    /// Topics.
    pub subscription: Subscription,
    /// Bytes that may be read ahead of the owner, the library's own queue included.
    pub buffer_bytes: usize,
    /// Users' settings.
    pub overrides: BTreeMap<String, String>,
}

/// [`LogConsumer`] over librdkafka.
pub struct GroupConsumer {
    native: Weak<BaseConsumer<PumpContext>>,
    control: mpsc::Receiver<pump::Control>,
    batches: mpsc::Receiver<Batch>,
    assigned: BTreeMap<TopicPartition, u64>,
    paused: Arc<AtomicBool>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl GroupConsumer {
    /// Joins the group.
    pub fn join(settings: &ClientSettings, config: &GroupConsumerConfig) -> Result<Self> {
        let native_config = settings.group_consumer(
            &config.client_id,
            &config.group_id,
            &config.instance_id,
            config.buffer_bytes,
            &config.overrides,
        );
        let reset =
            start::Reset::from_override(config.overrides.get("auto.offset.reset").map(String::as_str));
        let (control_in, control) = mpsc::channel(16);
        let (batches_in, batches) = mpsc::channel(64);
        let closing = Arc::new(AtomicBool::new(false));
        let paused = Arc::new(AtomicBool::new(false));
        let context = PumpContext::new(&config.group_id, reset, control_in, Arc::clone(&closing));
        let native = BaseConsumer::from_config_and_context(&native_config, context)
            .map_err(|e| error(format_args!("joining group `{}`", config.group_id), &e))?;
        let names = config.subscription.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        native.subscribe(&names).map_err(|e| error(format_args!("subscribing to {names:?}"), &e))?;
        let native = Arc::new(native);
        let weak = Arc::downgrade(&native);
        let pump = pump::Pump::new(
            native,
            batches_in,
            config.buffer_bytes / 2,
            Arc::clone(&paused),
            Arc::clone(&closing),
        );
        let thread = std::thread::Builder::new()
            .name(format!("sink-{}", config.instance_id))
            .spawn(move || pump.run())
            .map_err(|e| Error::fatal("cannot start a thread").with_source(e))?;
        Ok(Self {
            native: weak,
            control,
            batches,
            assigned: BTreeMap::new(),
            paused,
            closing,
            thread: Some(thread),
        })
    }

    fn on_control(&mut self, control: pump::Control) -> ConsumerEvent {
        match control {
            pump::Control::Assigned { start, epoch } => {
                self.assigned.extend(start.keys().map(|tp| (tp.clone(), epoch)));
                ConsumerEvent::Assigned(start)
            }
            pump::Control::Revoked { partitions, lost, done } => {
                for tp in &partitions {
                    self.assigned.remove(tp);
                }
                ConsumerEvent::Revoked { partitions, lost, done }
            }
            pump::Control::Failed(error) => ConsumerEvent::Failed(error),
        }
    }

    /// Drops what was read under an earlier assignment.
    fn current(&self, mut batch: Batch) -> Batch {
        let mut epochs = std::mem::take(&mut batch.epochs).into_iter();
        let mut last: Option<(Topic, i32, Option<u64>)> = None;
        batch.records.retain(|record| {
            let since = match &last {
                Some((topic, partition, since))
                    if *partition == record.partition && Arc::ptr_eq(topic, &record.topic) =>
                {
                    *since
                }
                _ => {
                    let tp = TopicPartition { topic: Arc::clone(&record.topic), partition: record.partition };
                    let since = self.assigned.get(&tp).copied();
                    last = Some((tp.topic, tp.partition, since));
                    since
                }
            };
            let epoch = epochs.next();
            since.is_some_and(|since| epoch.is_some_and(|epoch| epoch >= since))
        });
        batch
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&BaseConsumer<PumpContext>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let native = Weak::clone(&self.native);
        let call = move || call(&*native.upgrade().ok_or_else(Error::cancelled)?);
        tokio::task::spawn_blocking(call).await.map_err(|_| Error::cancelled())?
    }
}

#[async_trait]
impl LogConsumer for GroupConsumer {
    async fn next(&mut self) -> ConsumerEvent {
        let ended = || ConsumerEvent::Failed(Error::fatal("the consumer has ended"));
        tokio::select! {
            biased;
            control = self.control.recv() => match control {
                Some(control) => self.on_control(control),
                None => ended(),
            },
            batch = self.batches.recv() => match batch {
                Some(batch) => ConsumerEvent::Records(self.current(batch)),
                None => ended(),
            },
        }
    }

    async fn next_change(&mut self) -> ConsumerEvent {
        match self.control.recv().await {
            Some(control) => self.on_control(control),
            None => ConsumerEvent::Failed(Error::fatal("the consumer has ended")),
        }
    }

    async fn commit(&self, offsets: &Offsets) -> Result<()> {
        if offsets.is_empty() {
            return Ok(());
        }
        let list = list_of(offsets)?;
        self.blocking(move |native| {
            native.commit(&list, CommitMode::Sync).map_err(|e| error("committing offsets", &e))?;
            Ok(())
        })
        .await
    }

    fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    fn resume(&self) {
        self.paused.store(false, Ordering::Release);
    }

    async fn watermarks(&self, partitions: Vec<TopicPartition>) -> Result<Vec<(TopicPartition, i64, i64)>> {
        self.blocking(move |native| {
            partitions
                .into_iter()
                .map(|tp| watermarks(native, &tp).map(|(low, high)| (tp, low, high)))
                .collect()
        })
        .await
    }

    async fn close(&mut self) {
        self.closing.store(true, Ordering::Release);
        // A thread that waits for an answer or for room goes on when the other end is gone.
        self.control.close();
        while let Ok(control) = self.control.try_recv() {
            drop(control);
        }
        self.batches.close();
        while self.batches.try_recv().is_ok() {}
        let Some(thread) = self.thread.take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(CLOSE_WITHIN, joined).await.is_err() {
            // It waits for a broker that does not answer, and ends with that. A successor takes its place in the group.
            tracing::debug!("the group is left without waiting for its coordinator");
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
    }
}

/// A context that logs, for consumers without a group.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LoggedConsumer;

impl ClientContext for LoggedConsumer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for LoggedConsumer {}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(assigned: &[(i32, u64)]) -> GroupConsumer {
        let tp = |partition| TopicPartition { topic: "t".into(), partition };
        GroupConsumer {
            native: Weak::new(),
            control: mpsc::channel(1).1,
            batches: mpsc::channel(1).1,
            assigned: assigned.iter().map(|(partition, epoch)| (tp(*partition), *epoch)).collect(),
            paused: Arc::default(),
            closing: Arc::default(),
            thread: None,
        }
    }

    /// Of records as `(partition, offset, epoch)`.
    fn handed_out(member: &GroupConsumer, read: &[(i32, i64, u64)]) -> Vec<(i32, i64)> {
        let topic = Topic::from("t");
        let record = |(partition, offset, _): &(i32, i64, u64)| ConsumedRecord {
            topic: Arc::clone(&topic),
            partition: *partition,
            offset: *offset,
            timestamp: None,
            consumed: Arc::default(),
        };
        let batch = Batch {
            records: read.iter().map(record).collect(),
            bytes: 0,
            epochs: read.iter().map(|(_, _, epoch)| *epoch).collect(),
            permit: None,
        };
        let records = member.current(batch).records;
        records.iter().map(|record| (record.partition, record.offset)).collect()
    }

    #[test]
    fn a_batch_that_spans_a_rebalance_gives_only_what_was_read_under_the_assignment() {
        // Partition 0 was given up and came back while the batch was gathered, 1 stayed, 2 went away, 3 is new.
        let member = member(&[(0, 2), (1, 1), (3, 2)]);
        let read = [(0, 50, 1), (1, 7, 1), (2, 9, 1), (0, 40, 2), (0, 41, 2), (1, 8, 2), (3, 0, 2)];
        assert_eq!(handed_out(&member, &read), [(1, 7), (0, 40), (0, 41), (1, 8), (3, 0)]);
    }
}
