//! One partition: its log, its single writer, its high watermark and those who wait for it.
//! Invariants: batches are appended by one owner at a time in the order in which they were submitted; the high watermark
//! is the flushed offset (or the log end where the topic says `durability=os`) and only rises; below it alone is anything
//! read, acknowledged to `acks=all`, or the answer to a duplicate.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use aqueduct_log::{
    AppendError as LogAppendError, AppendInfo, Fetched, FlushSink, LogError, PartitionId, PartitionLog,
    SequenceError, Urgency,
};
use aqueduct_wire::RecordBatch;
use aqueduct_wire::record_set::RecordSet;

use super::purgatory::{Purgatory, Waiter};
use crate::topic_config::TopicConfig;

/// Batches and bytes that go out in one write.
const RUN_BATCHES: usize = 256;
const RUN_BYTES: usize = 1 << 20;

/// When a producer wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    None,
    Leader,
    All,
}

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    /// -1 unless the broker stamps the records.
    pub(crate) log_append_time: i64,
    pub(crate) log_start: i64,
}

/// Why a batch was not taken; each is one Kafka error code.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    Storage(LogError),
    #[error("{0}")]
    OutOfOrderSequence(SequenceError),
    #[error("{0}")]
    InvalidProducerEpoch(SequenceError),
    #[error("the topic wants `{0}` replicas in sync and has one")]
    NotEnoughReplicas(i64),
    #[error("the batch has `{size}` bytes, the topic takes `{limit}`: raise `max.message.bytes`")]
    TooLarge { size: usize, limit: u64 },
    #[error("{0}")]
    Corrupt(aqueduct_wire::BatchError),
    #[error("{0}")]
    InvalidRecord(String),
    #[error("{0}")]
    InvalidTimestamp(String),
    #[error("record format `{0}` is not supported: the client must write format 2")]
    OldFormat(i8),
    #[error("transactions are not supported")]
    Transactional,
}

/// Why nothing can be read.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("offset `{0}` is not in the log")]
    OutOfRange(i64),
    #[error("the client's leader epoch is older than the partition's")]
    FencedEpoch,
    #[error("the client's leader epoch is newer than the partition's")]
    UnknownEpoch,
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    Storage(LogError),
}

impl From<LogError> for FetchError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::OffsetOutOfRange { offset, .. } => Self::OutOfRange(offset),
            error => Self::Storage(error),
        }
    }
}

/// The end of a leader epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) epoch: i32,
    pub(crate) end_offset: i64,
}

/// What a read found in memory.
pub(crate) enum Read {
    Found(Vec<Bytes>),
    /// The files must be read; [`Replica::read_files`] may block.
    Cold,
}

pub(crate) struct Replica {
    id: PartitionId,
    name: String,
    /// `Err` when the partition could not be opened; it serves nothing, the others do.
    log: Result<Arc<PartitionLog>, LogError>,
    leader_epoch: AtomicI32,
    config: ArcSwap<TopicConfig>,
    /// Submitted and not yet appended. Bounded by what the connections may have under way.
    queue: Mutex<VecDeque<Submitted>>,
    /// Held by whoever appends at the moment.
    owner: Mutex<()>,
    high_watermark: AtomicI64,
    /// Answers that wait for the high watermark, by the offset it must reach.
    waiting: Mutex<VecDeque<Unanswered>>,
    purgatory: Purgatory,
    /// The topic is gone.
    retired: AtomicBool,
    /// Stands in for a partition that could not be made yet.
    unmade: bool,
}

struct Submitted {
    batch: RecordBatch,
    acks: Acks,
    now: i64,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Appended, AppendError>>;

struct Unanswered {
    above: i64,
    appended: Appended,
    reply: Reply,
}

/// The outcome of a submitted batch, to be awaited.
pub(crate) struct Appending(oneshot::Receiver<Result<Appended, AppendError>>);

impl Future for Appending {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender goes only when the partition does.
        Pin::new(&mut self.0).poll(context).map(|outcome| outcome.unwrap_or(Err(AppendError::NotLeader)))
    }
}

impl Appending {
    /// An outcome that is known without an append.
    pub(crate) fn settled(outcome: Result<Appended, AppendError>) -> Self {
        let (reply, receiver) = oneshot::channel();
        answer(reply, outcome);
        Self(receiver)
    }

    /// One that is settled through the sender.
    #[cfg(test)]
    pub(crate) fn pending() -> (Self, impl Sized) {
        let (reply, receiver) = oneshot::channel();
        let _: &Reply = &reply;
        (Self(receiver), reply)
    }
}

fn answer(reply: Reply, outcome: Result<Appended, AppendError>) {
    // A producer that left does not read its answer; the batch is in the log all the same.
    if reply.send(outcome).is_err() {
        tracing::trace!("nobody waits for an append any more");
    }
}

impl Replica {
    pub(crate) fn new(
        id: PartitionId,
        log: Result<Arc<PartitionLog>, LogError>,
        leader_epoch: i32,
        config: TopicConfig,
    ) -> Arc<Self> {
        Self::build(id, log, leader_epoch, config, false)
    }

    /// One that could not be made for now: it answers with the reason until it is replaced.
    pub(crate) fn unmade(
        id: PartitionId,
        why: LogError,
        leader_epoch: i32,
        config: TopicConfig,
    ) -> Arc<Self> {
        Self::build(id, Err(why), leader_epoch, config, true)
    }

    fn build(
        id: PartitionId,
        log: Result<Arc<PartitionLog>, LogError>,
        leader_epoch: i32,
        config: TopicConfig,
        unmade: bool,
    ) -> Arc<Self> {
        // After recovery everything in the log is on disk.
        let end = log.as_ref().map_or(0, |log| log.end_offset());
        let replica = Arc::new(Self {
            name: id.to_string(),
            id,
            log,
            leader_epoch: AtomicI32::new(leader_epoch),
            config: ArcSwap::from_pointee(config),
            queue: Mutex::default(),
            owner: Mutex::default(),
            high_watermark: AtomicI64::new(end),
            waiting: Mutex::default(),
            purgatory: Purgatory::default(),
            retired: AtomicBool::new(false),
            unmade,
        });
        if let Ok(log) = &replica.log {
            let sink: Weak<Self> = Arc::downgrade(&replica);
            log.set_flush_sink(sink);
        }
        replica
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it only stands in for a partition that is still to be made.
    pub(crate) fn is_unmade(&self) -> bool {
        self.unmade
    }

    pub(crate) fn topic(&self) -> &str {
        &self.id.topic
    }

    pub(crate) fn topic_id(&self) -> Uuid {
        self.id.topic_id
    }

    pub(crate) fn partition(&self) -> i32 {
        self.id.partition
    }

    pub(crate) fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    pub(crate) fn set_config(&self, config: TopicConfig) {
        self.config.store(Arc::new(config));
    }

    pub(crate) fn log(&self) -> Option<&Arc<PartitionLog>> {
        self.log.as_ref().ok()
    }

    /// Whether the partition can be read and written.
    pub(crate) fn check_online(&self) -> Result<&Arc<PartitionLog>, LogError> {
        let log = self.log.as_ref().map_err(Clone::clone)?;
        log.check_online()?;
        Ok(log)
    }

    pub(crate) fn leader_epoch(&self) -> i32 {
        self.leader_epoch.load(Ordering::Acquire)
    }

    pub(crate) fn set_leader_epoch(&self, epoch: i32) {
        self.leader_epoch.store(epoch, Ordering::Release);
    }

    pub(crate) fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    pub(crate) fn log_start(&self) -> i64 {
        self.log.as_ref().map_or(0, |log| log.start_offset())
    }

    pub(crate) fn log_end(&self) -> i64 {
        self.log.as_ref().map_or(0, |log| log.end_offset())
    }

    /// Batches that wait to be appended, and those that wait for their flush.
    pub(crate) fn under_way(&self) -> (usize, usize) {
        (self.queue.lock().len(), self.waiting.lock().len())
    }

    /// Hands a batch to the partition's writer. It has its place in the log's order when this returns.
    pub(crate) fn submit(&self, batch: RecordBatch, acks: Acks, now: i64) -> Appending {
        if acks == Acks::All {
            let wanted = self.config.load().min_insync_replicas;
            if wanted > 1 {
                return Appending::settled(Err(AppendError::NotEnoughReplicas(wanted)));
            }
        }
        let (reply, receiver) = oneshot::channel();
        self.queue.lock().push_back(Submitted { batch, acks, now, reply });
        self.drain();
        Appending(receiver)
    }

    /// Appends what is queued, unless somebody is at it; then that one takes ours along.
    fn drain(&self) {
        loop {
            let Some(owner) = self.owner.try_lock() else { return };
            loop {
                let run = self.next_run();
                if run.is_empty() {
                    break;
                }
                self.append(run);
            }
            drop(owner);
            // What came between the last look and the unlock found the owner busy: it is ours.
            if self.queue.lock().is_empty() {
                return;
            }
        }
    }

    fn next_run(&self) -> Vec<Submitted> {
        let mut queue = self.queue.lock();
        let mut bytes = 0;
        let fits = |submitted: &Submitted| {
            bytes += submitted.batch.size();
            bytes <= RUN_BYTES
        };
        let count = queue.iter().take(RUN_BATCHES).take_while({
            let mut fits = fits;
            move |submitted| fits(submitted)
        });
        let count = count.count().max(1).min(queue.len());
        queue.drain(..count).collect()
    }

    fn append(&self, run: Vec<Submitted>) {
        let log = match &self.log {
            Ok(log) => log,
            Err(error) => {
                for submitted in run {
                    answer(submitted.reply, Err(AppendError::Storage(error.clone())));
                }
                return;
            }
        };
        let config = self.config.load();
        let now = run.last().map_or(0, |submitted| submitted.now);
        let stamp = if config.log_append_time { now } else { -1 };
        let mut batches = Vec::with_capacity(run.len());
        let mut replies = Vec::with_capacity(run.len());
        for Submitted { batch, acks, reply, .. } in run {
            let batch = if config.log_append_time { batch.with_log_append_time(stamp) } else { batch };
            batches.push(batch);
            replies.push((acks, reply));
        }
        let results = log.append_many(batches, self.leader_epoch(), now);
        let log_start = log.start_offset();
        let mut somebody_waits = false;
        for (result, (acks, reply)) in results.into_iter().zip(replies) {
            let appended = |info: &AppendInfo| Appended {
                base_offset: info.base_offset,
                log_append_time: stamp,
                log_start,
            };
            match result {
                // Only what is flushed may be the answer to a replay, whatever the producer asks for.
                Ok(info) if acks == Acks::All || info.duplicate => {
                    somebody_waits = true;
                    self.wait(Unanswered { above: info.last_offset, appended: appended(&info), reply });
                }
                Ok(info) => answer(reply, Ok(appended(&info))),
                Err(error) => answer(reply, Err(error.into())),
            }
        }
        if config.durable {
            let now = somebody_waits || self.purgatory.is_watched();
            log.request_flush(if now { Urgency::Now } else { Urgency::Soon });
            // The flush may have come before the waiters were listed.
            self.settle();
        } else {
            self.raise(log.end_offset());
        }
        if self.retired.load(Ordering::Acquire) {
            // No flush comes any more.
            self.answer_all(&AppendError::NotLeader);
        }
    }

    fn wait(&self, unanswered: Unanswered) {
        let mut waiting = self.waiting.lock();
        // Almost always the largest so far; a replay lies lower.
        let at = waiting.partition_point(|other| other.above <= unanswered.above);
        waiting.insert(at, unanswered);
    }

    fn raise(&self, high_watermark: i64) {
        let before = self.high_watermark.fetch_max(high_watermark, Ordering::AcqRel);
        self.settle();
        if before < high_watermark {
            self.purgatory.wake();
        }
    }

    /// Answers all that the high watermark has passed.
    fn settle(&self) {
        let high_watermark = self.high_watermark();
        let mut passed = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            let count = waiting.partition_point(|unanswered| unanswered.above < high_watermark);
            passed.extend(waiting.drain(..count));
        }
        for unanswered in passed {
            answer(unanswered.reply, Ok(unanswered.appended));
        }
    }

    /// Whether the client's idea of the leader epoch is the partition's; -1 for none.
    pub(crate) fn check_epoch(&self, epoch: i32) -> Result<(), FetchError> {
        let own = self.leader_epoch();
        match epoch {
            -1 => Ok(()),
            epoch if epoch < own => Err(FetchError::FencedEpoch),
            epoch if epoch > own => Err(FetchError::UnknownEpoch),
            _ => Ok(()),
        }
    }

    /// Reads below the high watermark from memory. Never blocks on a disk.
    pub(crate) fn read(&self, offset: i64, max_bytes: usize) -> Result<Read, FetchError> {
        let log = self.log.as_ref().map_err(|error| FetchError::Storage(error.clone()))?;
        let high_watermark = self.high_watermark();
        match log.read_tail(offset, max_bytes, high_watermark)? {
            Some(Fetched { chunks, .. }) => Ok(Read::Found(chunks)),
            None => Ok(Read::Cold),
        }
    }

    /// Reads below the high watermark, from the files if need be.
    pub(crate) fn read_files(&self, offset: i64, max_bytes: usize) -> Result<Vec<Bytes>, FetchError> {
        let log = self.log.as_ref().map_err(|error| FetchError::Storage(error.clone()))?;
        Ok(log.read(offset, max_bytes, self.high_watermark())?.chunks)
    }

    /// Reads for this broker's own use, up to the log end.
    pub(crate) fn read_all(&self, offset: i64, max_bytes: usize) -> Result<RecordSet, FetchError> {
        let log = self.log.as_ref().map_err(|error| FetchError::Storage(error.clone()))?;
        Ok(RecordSet::from(log.read(offset, max_bytes, log.end_offset())?.chunks))
    }

    /// A fetch waits for this partition from now on.
    pub(crate) fn watch(&self, waiter: &Arc<Waiter>) {
        self.purgatory.watch(waiter);
        if let Ok(log) = &self.log
            && self.config.load().durable
            && log.end_offset() > self.high_watermark()
        {
            log.request_flush(Urgency::Now);
        }
    }

    pub(crate) fn unwatch(&self, waiter: &Arc<Waiter>) {
        self.purgatory.unwatch(waiter);
    }

    /// Where a leader epoch ends.
    pub(crate) fn epoch_end(&self, epoch: i32) -> Result<Option<Epoch>, FetchError> {
        let log = self.log.as_ref().map_err(|error| FetchError::Storage(error.clone()))?;
        Ok(log.epoch_end_offset(epoch).map(|(epoch, end_offset)| Epoch { epoch, end_offset }))
    }

    /// The topic is gone: nobody waits for it any longer.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.answer_all(&AppendError::NotLeader);
    }

    fn answer_all(&self, error: &AppendError) {
        for submitted in self.queue.lock().drain(..) {
            answer(submitted.reply, Err(error.clone()));
        }
        for unanswered in self.waiting.lock().drain(..) {
            answer(unanswered.reply, Err(error.clone()));
        }
        self.purgatory.wake();
    }
}

impl FlushSink for Replica {
    fn flushed(&self, offset: i64) {
        self.raise(offset);
    }

    fn failed(&self, error: &LogError) {
        self.answer_all(&AppendError::Storage(error.clone()));
    }
}

impl From<LogAppendError> for AppendError {
    fn from(error: LogAppendError) -> Self {
        match error {
            LogAppendError::Sequence(error @ SequenceError::OldEpoch { .. }) => {
                Self::InvalidProducerEpoch(error)
            }
            LogAppendError::Sequence(error) => Self::OutOfOrderSequence(error),
            LogAppendError::Storage(error) => Self::Storage(error),
            LogAppendError::OldLeaderEpoch { .. } => Self::NotLeader,
        }
    }
}
