//! Source connectors: from another system into topics.
//!
//! # Lifecycle of a task, in order
//!
//! 1. [`SourceConnector::validate`] and [`SourceConnector::task_configs`] are pure of the task: they may be called at
//!    any time, by `check`, REST or the worker.
//! 2. [`SourceConnector::task`] makes the task; no IO yet.
//! 3. [`SourceTask::start`], once, with the stored positions. It connects, and fails with a useful error.
//! 4. [`SourceTask::poll`], again and again, one at a time. Each answer is one batch.
//! 5. [`SourceTask::commit`], between polls: every record up to these positions is durable in the log, and so are the
//!    positions themselves. Only now may the other system forget.
//! 6. [`SourceTask::stop`], once, also after a failed `start`. Nothing is called after it.
//!
//! # Threading and cancellation
//!
//! All calls on one task come from one owner, never two at once. `poll` must be cancel-safe: the runtime drops its
//! future when it has something to commit or the task stops, and calls it again. In practice: own the connection in a
//! background task that the `SourceTask` joins in `stop`, and let `poll` wait on a bounded channel. Keep-alives must
//! not depend on `poll`, which is not called while the log pushes back.
//!
//! # Delivery
//!
//! At least once. The runtime writes records in the order of `poll`; positions are stored after every record before
//! them is acknowledged (or its dead letter is, or a step dropped it): data first, then the position (both `acks=all`),
//! then `commit`. After a crash the task starts from the last stored position and may repeat records after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value as Json;

use crate::component::Spec;
use crate::config::{Problem, ResolvedConfig};
use crate::{Error, Record, Result};

/// A JSON object, as positions are stored: `{"lsn":23480,"snapshot":false}`.
pub type JsonMap = serde_json::Map<String, Json>;

/// Where in the other system a record came from.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcePosition {
    /// What the position is of, such as `{"server":"orders"}`. One position is stored for each.
    pub partition: Arc<JsonMap>,
    /// The position itself.
    pub offset: Arc<JsonMap>,
}

/// A record on its way into the log.
#[derive(Debug, Default)]
pub struct SourceRecord {
    /// The record; `None` advances the position without one (an idle heartbeat, or everything filtered).
    pub record: Option<Record>,
    /// The position that is reached once this and every earlier record is acknowledged. `None` for all but the last
    /// of several records that come from one change.
    pub position: Option<SourcePosition>,
    /// Why the record could not be read; `record` holds what there is of it. It goes the way of a record that fails in
    /// a step: a dead letter, or the end of the task.
    pub failure: Option<Error>,
    /// Who waits for what becomes of the records since the last receipt: those of one request.
    pub receipt: Option<Receipt>,
}

impl SourceRecord {
    /// A record with its position.
    pub fn new(record: Record, position: SourcePosition) -> Self {
        Self { record: Some(record), position: Some(position), ..Self::default() }
    }

    /// One of several records that come from one change, but for the last.
    pub fn unplaced(record: Record) -> Self {
        Self { record: Some(record), ..Self::default() }
    }

    /// A position without a record. It is stored once everything before it is acknowledged.
    pub fn position_only(position: SourcePosition) -> Self {
        Self { position: Some(position), ..Self::default() }
    }

    /// A record that could not be read, with what there is of it.
    pub fn unreadable(record: Record, failure: Error) -> Self {
        Self { record: Some(record), failure: Some(failure), ..Self::default() }
    }
}

/// Somebody who waits for what becomes of records, such as the sender of an HTTP request. All records of one request
/// come in one batch, the receipt with the last of them.
///
/// Exactly one of the two is called, or neither when the task ends before: then whoever waits sees the receipt dropped.
pub trait Settle: Send + Sync {
    /// Every record of the request, and every one before it, is durable in the log or dropped by a step; or its dead
    /// letter is durable.
    fn acknowledged(&self);

    /// A record of the request can never pass, and dead letters are off. Nothing of the request was written; the task
    /// goes on.
    fn refused(&self, error: &Error);
}

/// A shared [`Settle`].
#[derive(Clone)]
pub struct Receipt(pub Arc<dyn Settle>);

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("receipt")
    }
}

/// The positions stored for a connector.
#[derive(Clone, Debug, Default)]
pub struct StoredPositions(pub Vec<SourcePosition>);

impl StoredPositions {
    /// The stored offset of a partition.
    pub fn get(&self, partition: &JsonMap) -> Option<&Arc<JsonMap>> {
        self.0.iter().find(|position| *position.partition == *partition).map(|position| &position.offset)
    }
}

/// How far long work has come, such as a snapshot; shown live and in metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is going on: `snapshot of public.orders`.
    pub what: String,
    /// Rows done.
    pub done: u64,
    /// Estimated rows in all.
    pub total: Option<u64>,
}

/// What a task gets from the runtime.
#[derive(Clone)]
pub struct SourceContext {
    /// Name of the connector.
    pub connector: Arc<str>,
    /// Number of the task, from 0.
    pub task: usize,
    /// Positions stored for this connector.
    pub positions: StoredPositions,
    /// Bytes that the task may keep in its own buffers.
    pub buffer_bytes: usize,
    /// Where the task reports progress and its lag.
    pub reporter: Arc<dyn SourceReporter>,
}

/// Where a source task reports what users want to see. Cheap; call as often as you like.
pub trait SourceReporter: Send + Sync {
    /// Long work goes on, or (`None`) is over.
    fn progress(&self, progress: Option<Progress>);

    /// How far the task is behind the other system: bytes of WAL, records, whatever `unit` says.
    fn lag(&self, amount: u64, unit: &'static str);
}

/// A reporter that forgets, for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoReport;

impl SourceReporter for NoReport {
    fn progress(&self, _progress: Option<Progress>) {}

    fn lag(&self, _amount: u64, _unit: &'static str) {}
}

/// A kind of source.
#[async_trait]
pub trait SourceConnector: Send + Sync {
    /// What it says about itself.
    fn spec(&self) -> &Spec;

    /// Problems beyond what the declared types and checks can see. Offline: no connection is made.
    fn validate(&self, _config: &ResolvedConfig) -> Vec<Problem> {
        Vec::new()
    }

    /// The configs of the tasks, at most `max_tasks`. The default is one task with the connector's own config.
    fn task_configs(&self, config: &ResolvedConfig, _max_tasks: usize) -> Result<Vec<ResolvedConfig>> {
        Ok(vec![config.clone()])
    }

    /// The topics it will write to, as far as the config tells; they exist before the sinks of its pipeline start.
    fn topics(&self, _config: &ResolvedConfig) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Makes a task.
    fn task(&self, config: &ResolvedConfig) -> Result<Box<dyn SourceTask>>;
}

/// A running source task; see the module for the lifecycle.
#[async_trait]
pub trait SourceTask: Send {
    /// Connects and gets ready to continue from `context.positions`.
    async fn start(&mut self, context: SourceContext) -> Result<()>;

    /// Waits for records and returns them, in order, at most a few thousand and a few MiB at once. Cancel-safe.
    ///
    /// An empty batch is allowed. A retriable error is followed by another `poll` after a pause; every other one
    /// ends the task.
    async fn poll(&mut self) -> Result<Vec<SourceRecord>>;

    /// Everything up to these positions is durable. At most the last per source partition is given.
    async fn commit(&mut self, _positions: &[SourcePosition]) -> Result<()> {
        Ok(())
    }

    /// Releases everything within a few seconds, even with the other system gone.
    async fn stop(&mut self) -> Result<()>;
}

/// The partition map with one entry, the usual case.
pub fn partition_of(key: &str, value: &str) -> Arc<JsonMap> {
    Arc::new(BTreeMap::from([(key.to_owned(), Json::from(value))]).into_iter().collect())
}
