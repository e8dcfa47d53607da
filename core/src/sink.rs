//! Sink connectors: from topics into another system.
//!
//! # Lifecycle of a task, in order
//!
//! 1. [`SinkConnector::task`] makes the task; no IO yet.
//! 2. [`SinkTask::start`], once.
//! 3. [`SinkTask::open`] whenever partitions are assigned, before their first record. Each comes with the offset that
//!    is read first.
//! 4. [`SinkTask::put`], one batch at a time, in offset order per partition; with an empty batch at least once a second,
//!    so that what is due by age can be done. Records that a step made of one bear the same offset, side by side.
//! 5. [`SinkTask::pre_commit`] every `offset.flush.interval.ms`, when the task asked for it
//!    ([`SinkContext::request_commit`]), and before partitions are closed: the task answers with the offsets up to which
//!    everything is durable in the other system, and these are committed.
//! 6. [`SinkTask::close`] when partitions go away. After it the task knows nothing of them.
//! 7. [`SinkTask::stop`], once, also after a failed `start`.
//!
//! On an orderly stop the runtime calls `flush`, `pre_commit`, `close` and `stop`, bounded by the shutdown timeout. A
//! `put` in hand is waited for, but no longer than 2 s: then its future is dropped, none follows it, and its records are
//! read again after the next start. `flush` is dropped too when its time is over: after 1 s where `put` had to be
//! repeated, after 10 s otherwise. So a task keeps its own state consistent at every await.
//!
//! # Threading
//!
//! All calls on one task come from one owner, never two at once. `put` may wait; while it does, the runtime keeps the
//! group membership alive and reads no more, so a slow sink costs no memory.
//!
//! # Errors
//!
//! * Retriable from `put`: the same batch is put again after the pause, for ever; nothing was lost. The task must accept
//!   records that it has seen before.
//! * A single record that can never be written: [`SinkContext::refuse`] it and go on. Its dead letter is acknowledged
//!   before any offset beyond it is committed; with dead letters off, the task stops.
//! * Every other error ends the task; it restarts from the committed offsets.
//!
//! # Delivery
//!
//! At least once: offsets are committed only after `pre_commit` said that the data is durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::component::Spec;
use crate::config::{Problem, ResolvedConfig};
use crate::{Error, Record, Result, Topic};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic.
    pub topic: Topic,
    /// Partition.
    pub partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Offsets by partition: the next offset to read, as in Kafka (last done + 1).
pub type Offsets = BTreeMap<TopicPartition, i64>;

/// The bytes that were consumed; what a dead letter carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consumed {
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(crate::Str, Option<Bytes>)>,
}

/// A record on its way out of the log.
#[derive(Clone, Debug)]
pub struct SinkRecord {
    /// The record after the steps; its topic may have been changed by one.
    pub record: Record,
    /// Where in the log it was read.
    pub origin: TopicPartition,
    /// Its offset there.
    pub offset: i64,
    /// What was consumed.
    pub consumed: Arc<Consumed>,
}

/// What a task gets from the runtime.
#[derive(Clone)]
pub struct SinkContext {
    /// Name of the connector.
    pub connector: Arc<str>,
    /// Number of the task, from 0.
    pub task: usize,
    /// Bytes that the task may keep in its own buffers.
    pub buffer_bytes: usize,
    /// The runtime's side.
    pub handle: Arc<dyn SinkHandle>,
}

impl SinkContext {
    /// Hands back a record that can never be written, with the reason (kind `BadRecord`). The runtime writes its dead
    /// letter, or stops the task, before it commits any offset beyond it.
    pub fn refuse(&self, record: SinkRecord, error: Error) {
        self.handle.refuse(record, error);
    }

    /// Asks for `pre_commit` soon, because more has become durable.
    pub fn request_commit(&self) {
        self.handle.request_commit();
    }

    /// Reports an outage that the task rides out by itself, for the status; `None` when it is over. Tasks that answer
    /// `put` with a retriable error need not.
    pub fn retrying(&self, error: Option<&Error>) {
        self.handle.retrying(error);
    }
}

/// The runtime's side of a [`SinkContext`].
pub trait SinkHandle: Send + Sync {
    /// See [`SinkContext::refuse`].
    fn refuse(&self, record: SinkRecord, error: Error);

    /// See [`SinkContext::request_commit`].
    fn request_commit(&self);

    /// See [`SinkContext::retrying`].
    fn retrying(&self, _error: Option<&Error>) {}
}

/// A kind of sink.
#[async_trait]
pub trait SinkConnector: Send + Sync {
    /// What it says about itself.
    fn spec(&self) -> &Spec;

    /// Problems beyond what the declared types and checks can see. Offline: no connection is made.
    fn validate(&self, _config: &ResolvedConfig) -> Vec<Problem> {
        Vec::new()
    }

    /// The configs of the tasks. The default is `max_tasks` tasks with the connector's own config; the partitions are
    /// shared among them by the consumer group.
    fn task_configs(&self, config: &ResolvedConfig, max_tasks: usize) -> Result<Vec<ResolvedConfig>> {
        Ok(vec![config.clone(); max_tasks.max(1)])
    }

    /// Makes a task.
    fn task(&self, config: &ResolvedConfig) -> Result<Box<dyn SinkTask>>;
}

/// A running sink task; see the module for the lifecycle.
#[async_trait]
pub trait SinkTask: Send {
    /// Connects, or checks that it will be able to.
    async fn start(&mut self, context: SinkContext) -> Result<()>;

    /// Partitions are assigned, each with the offset that will be put first.
    async fn open(&mut self, _partitions: &Offsets) -> Result<()> {
        Ok(())
    }

    /// Takes a batch, which may be empty. Returning `Ok` means taken over, not yet durable.
    async fn put(&mut self, records: Vec<SinkRecord>) -> Result<()>;

    /// Makes everything taken so far durable, as far as that is cheap and sensible at a stop.
    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Answers up to which offsets everything is durable. `taken` has the offsets after the last record that was put,
    /// dropped or dead-lettered; the answer may not go beyond it. The default flushes and returns `taken`.
    async fn pre_commit(&mut self, taken: &Offsets) -> Result<Offsets> {
        self.flush().await?;
        Ok(taken.clone())
    }

    /// Partitions go away; what is not durable of them will be read again by whoever gets them.
    async fn close(&mut self, _partitions: &[TopicPartition]) -> Result<()> {
        Ok(())
    }

    /// Releases everything within a few seconds, even with the other system gone.
    async fn stop(&mut self) -> Result<()>;
}
