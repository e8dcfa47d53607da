//! Reading records one by one, for the command line: from given offsets, or as a plain member of a group.
//!
//! **Invariant:** as a member of a group only what [`RecordReader::done`] was told of is committed, and before a
//! partition goes to another member.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::sink::{Offsets, TopicPartition};
use aqueduct_core::{Error, Result};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message, Timestamp};

use crate::admin::list_of;
use crate::consumer::Subscription;
use crate::error::error;
use crate::settings::{ClientSettings, log_line};

/// Records of one partition in a row, while others have some, too.
const TURN: usize = 500;

type Native = BaseConsumer<Context>;

/// A record as it was read; its bytes stay in the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since 1970, if it has a time.
    pub timestamp: Option<i64>,
    /// Whether the time is that of the append, not of the producer.
    pub appended: bool,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// What a look for the next record brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// A record, which was handed over.
    Record,
    /// The end of a partition; with the number alone as a member of a group.
    End(i32),
    /// All partitions were read to their end.
    AllEnded,
    /// Nothing came in time.
    Nothing,
    /// No broker can be reached; the library goes on trying.
    Down,
}

/// A reader.
pub struct RecordReader {
    native: Arc<Native>,
    /// One for each partition that has an end, those that wait longest first.
    queues: VecDeque<Queue>,
    bounded: bool,
    turn: usize,
}

struct Queue {
    tp: TopicPartition,
    native: PartitionQueue<Context>,
    end: i64,
}

/// What is done and not yet committed.
#[derive(Default)]
struct Context {
    done: Mutex<Offsets>,
}

impl Context {
    fn commit(&self, native: &Native, mode: CommitMode) -> Result<()> {
        let done = std::mem::take(&mut *self.done.lock());
        if done.is_empty() {
            return Ok(());
        }
        native.commit(&list_of(&done)?, mode).map_err(|e| error("committing offsets", &e))
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, native: &Native, what: &Rebalance<'_>) {
        if !matches!(what, Rebalance::Revoke(_)) {
            return;
        }
        if let Err(error) = self.commit(native, CommitMode::Sync) {
            tracing::warn!("{}; the next member reads these records again", error.full());
        }
    }
}

impl RecordReader {
    /// Reads each partition from an offset on; with `ends`, up to but not including these.
    pub fn from_offsets(
        settings: &ClientSettings,
        client_id: &str,
        starts: &Offsets,
        ends: Option<&Offsets>,
    ) -> Result<Self> {
        let end_of = |tp: &TopicPartition| ends.and_then(|ends| ends.get(tp)).copied();
        let mut starts = starts.clone();
        if ends.is_some() {
            starts.retain(|tp, start| end_of(tp).is_some_and(|end| *start < end));
        }
        let queues = if ends.is_some() { starts.len() } else { 1 };
        let native = native(settings, client_id, client_id, None, queues)?;
        native.assign(&list_of(&starts)?).map_err(|e| error("reading from the given offsets", &e))?;
        let mut queues = VecDeque::new();
        for tp in starts.keys() {
            let Some(end) = end_of(tp) else { continue };
            let queue = native.split_partition_queue(&tp.topic, tp.partition);
            let queue = queue.ok_or_else(|| Error::fatal(format!("`{tp}` cannot be read on its own")))?;
            queues.push_back(Queue { tp: tp.clone(), native: queue, end });
        }
        Ok(Self { native, queues, bounded: ends.is_some(), turn: 0 })
    }

    /// Reads as a member of a group; without a committed offset from the first or from the end on.
    pub fn member(
        settings: &ClientSettings,
        client_id: &str,
        group: &str,
        subscription: &Subscription,
        from_end: bool,
    ) -> Result<Self> {
        let native = native(settings, client_id, group, Some(from_end), 1)?;
        let names = subscription.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        native.subscribe(&names).map_err(|e| error(format_args!("subscribing to {names:?}"), &e))?;
        Ok(Self { native, queues: VecDeque::new(), bounded: false, turn: 0 })
    }

    /// Hands over the next record, waiting for one no longer than `within`.
    pub fn poll(&mut self, within: Duration, take: impl FnMut(&ReadRecord<'_>)) -> Result<Polled> {
        if self.bounded { self.poll_queues(within, take) } else { self.poll_all(within, take) }
    }

    fn poll_all(&self, within: Duration, mut take: impl FnMut(&ReadRecord<'_>)) -> Result<Polled> {
        match self.native.poll(within) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => {
                take(&record(&message));
                Ok(Polled::Record)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Polled::End(partition)),
            Some(Err(cause)) => trouble(&cause),
        }
    }

    /// A queue for each partition, because the library does not say of which topic an end is.
    fn poll_queues(&mut self, within: Duration, mut take: impl FnMut(&ReadRecord<'_>)) -> Result<Polled> {
        for _ in 0..self.queues.len() {
            if self.turn >= TURN {
                self.turn = 0;
                self.queues.rotate_left(1);
            }
            let Some(queue) = self.queues.front() else { break };
            let (ended, polled) = match queue.native.poll(Duration::ZERO) {
                None => (false, None),
                Some(Ok(message)) if message.offset() >= queue.end => (true, None),
                Some(Ok(message)) => {
                    take(&record(&message));
                    (message.offset() + 1 >= queue.end, Some(Polled::Record))
                }
                // Its last offsets may hold no records.
                Some(Err(KafkaError::PartitionEOF(partition))) => (true, Some(Polled::End(partition))),
                Some(Err(cause)) => (false, Some(trouble(&cause)?)),
            };
            self.turn += 1;
            if ended {
                self.finish()?;
            } else if polled.is_none() {
                self.turn = 0;
                self.queues.rotate_left(1);
            }
            if let Some(polled) = polled {
                return Ok(polled);
            }
        }
        if self.queues.is_empty() {
            return Ok(Polled::AllEnded);
        }
        // Errors come this way, and records that came before their partition had its own queue.
        let native = Arc::clone(&self.native);
        match native.poll(within.min(Duration::from_millis(5))) {
            None => Ok(Polled::Nothing),
            Some(Err(cause)) => trouble(&cause),
            Some(Ok(message)) => {
                let record = record(&message);
                let is_same =
                    |tp: &TopicPartition| &*tp.topic == record.topic && tp.partition == record.partition;
                match self.queues.iter().find(|queue| is_same(&queue.tp)) {
                    Some(queue) if record.offset < queue.end => take(&record),
                    _ => return Ok(Polled::Nothing),
                }
                Ok(Polled::Record)
            }
        }
    }

    /// The partition whose turn it is has ended: nothing more of it is fetched.
    fn finish(&mut self) -> Result<()> {
        let Some(queue) = self.queues.pop_front() else { return Ok(()) };
        self.turn = 0;
        let list = list_of(&Offsets::from([(queue.tp, 0)]))?;
        self.native.pause(&list).map_err(|e| error("ending a partition", &e))
    }

    /// Everything before these offsets may be committed.
    pub fn done(&self, offsets: impl IntoIterator<Item = (TopicPartition, i64)>) {
        self.native.context().done.lock().extend(offsets);
    }

    /// Commits what is done; with `wait`, until that is acknowledged.
    pub fn commit(&self, wait: bool) -> Result<()> {
        let mode = if wait { CommitMode::Sync } else { CommitMode::Async };
        self.native.context().commit(&self.native, mode)
    }

    /// Partitions that the group gave to this member.
    pub fn assigned(&self) -> Result<Vec<TopicPartition>> {
        let list = self.native.assignment().map_err(|e| error("reading the assignment", &e))?;
        let elements = list.elements().into_iter();
        let name = |topic: &str, partition| TopicPartition { topic: topic.into(), partition };
        Ok(elements.map(|element| name(element.topic(), element.partition())).collect())
    }
}

fn native(
    settings: &ClientSettings,
    client_id: &str,
    group: &str,
    from_end: Option<bool>,
    queues: usize,
) -> Result<Arc<Native>> {
    let config = settings.tool_consumer(client_id, group, from_end, queues);
    let native = Native::from_config_and_context(&config, Context::default());
    Ok(Arc::new(native.map_err(|e| error("creating a consumer", &e))?))
}

fn record<'a>(message: &'a BorrowedMessage<'_>) -> ReadRecord<'a> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    ReadRecord {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        appended: matches!(message.timestamp(), Timestamp::LogAppendTime(_)),
        key: message.key(),
        value: message.payload(),
        headers: headers.map(|header| (header.key, header.value)).collect(),
    }
}

/// Goes on where the library tries again by itself.
fn trouble(cause: &KafkaError) -> Result<Polled> {
    match cause.rdkafka_error_code() {
        Some(Code::AllBrokersDown) => Ok(Polled::Down),
        Some(Code::OffsetOutOfRange | Code::AutoOffsetReset) => Err(Error::fatal(
            "the next offset is no longer in the log: its records were deleted while they were read",
        )),
        _ => {
            let failed = error("reading", cause);
            if !failed.is_retriable() {
                return Err(failed);
            }
            tracing::debug!(%cause, "kafka consumer");
            Ok(Polled::Nothing)
        }
    }
}
