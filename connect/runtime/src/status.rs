//! States and descriptions of connectors and tasks, in the JSON shapes of Kafka Connect's REST API.

use aqueduct_core::config::Config;
use aqueduct_core::source::JsonMap;
use serde::{Deserialize, Serialize};

/// State of a connector or task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Not running yet, or handed back at shutdown.
    Unassigned,
    /// Runs.
    Running,
    /// Keeps its resources and moves nothing.
    Paused,
    /// Has no tasks; connectors only.
    Stopped,
    /// Ended with an error.
    Failed,
    /// Ended with an error and waits for its next attempt.
    Restarting,
    /// Deleted; never shown.
    Destroyed,
}

impl State {
    /// As Connect writes it.
    pub fn name(self) -> &'static str {
        match self {
            State::Unassigned => "UNASSIGNED",
            State::Running => "RUNNING",
            State::Paused => "PAUSED",
            State::Stopped => "STOPPED",
            State::Failed => "FAILED",
            State::Restarting => "RESTARTING",
            State::Destroyed => "DESTROYED",
        }
    }
}

/// What a user asked for; kept over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetState {
    /// Run.
    #[default]
    Started,
    /// Keep resources, move nothing.
    Paused,
    /// No tasks.
    Stopped,
}

/// Source or sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectorKind {
    /// Source.
    Source,
    /// Sink.
    Sink,
    /// Its class is not among the components of this binary.
    Unknown,
}

impl ConnectorKind {
    /// As Connect writes it.
    pub fn name(self) -> &'static str {
        match self {
            ConnectorKind::Source => "source",
            ConnectorKind::Sink => "sink",
            ConnectorKind::Unknown => "unknown",
        }
    }
}

/// A task by connector and number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskId {
    /// Connector.
    pub connector: String,
    /// Number, from 0.
    pub task: usize,
}

/// `GET /connectors/{c}`.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectorInfo {
    /// Name.
    pub name: String,
    /// Raw config: references are not resolved.
    pub config: Config,
    /// Tasks.
    pub tasks: Vec<TaskId>,
    /// Kind.
    #[serde(rename = "type")]
    pub kind: ConnectorKind,
}

/// One of `GET /connectors/{c}/tasks`.
#[derive(Clone, Debug, Serialize)]
pub struct TaskInfo {
    /// Which.
    pub id: TaskId,
    /// Raw config.
    pub config: Config,
}

/// State of a connector itself.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentState {
    /// State.
    pub state: State,
    /// Worker.
    pub worker_id: String,
    /// The error, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// State of a task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskStatus {
    /// Number, from 0.
    pub id: usize,
    /// State.
    pub state: State,
    /// Worker.
    pub worker_id: String,
    /// The error, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// `GET /connectors/{c}/status`.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectorStatus {
    /// Name.
    pub name: String,
    /// The connector.
    pub connector: ComponentState,
    /// Its tasks, by number.
    pub tasks: Vec<TaskStatus>,
    /// Kind.
    #[serde(rename = "type")]
    pub kind: ConnectorKind,
}

/// A position of a source, or an offset of a sink.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectorOffset {
    /// Of what.
    pub partition: JsonMap,
    /// The position.
    pub offset: JsonMap,
}

/// `GET /connectors/{c}/offsets`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConnectorOffsets {
    /// All of them.
    pub offsets: Vec<ConnectorOffset>,
}
