//! What users watch: one line per connector.

use aqueduct_core::source::Progress;
use serde::Serialize;

use crate::status::{ConnectorKind, State};

/// How far a connector is behind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lag {
    /// How much.
    pub amount: u64,
    /// Of what: `records`, `bytes`, `ms`.
    pub unit: &'static str,
}

/// A connector at a glance.
#[derive(Clone, Debug)]
pub struct ConnectorView {
    /// Name.
    pub name: String,
    /// Pipeline it belongs to.
    pub pipeline: Option<String>,
    /// Kind.
    pub kind: ConnectorKind,
    /// Component.
    pub class: String,
    /// State of the connector, `Failed` or `Restarting` when any of its tasks is.
    pub state: State,
    /// Tasks that run.
    pub tasks_running: usize,
    /// Tasks in all.
    pub tasks: usize,
    /// Records written to the log (sources) or taken over by the sink, since start.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records per second, over the last seconds.
    pub rate: f64,
    /// Errors of records and calls, since start.
    pub errors: u64,
    /// Dead letters written.
    pub dead_letters: u64,
    /// Retries of calls.
    pub retries: u64,
    /// Restarts of tasks.
    pub restarts: u64,
    /// How far behind, where known.
    pub lag: Option<Lag>,
    /// Last error.
    pub last_error: Option<String>,
    /// Long work going on.
    pub progress: Vec<Progress>,
    /// A warning that unread data comes near its retention.
    pub retention_warning: Option<String>,
}
