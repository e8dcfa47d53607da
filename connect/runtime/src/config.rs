//! What the runtime is started with, and the pipelines it is given.

use std::path::PathBuf;
use std::time::Duration;

use aqueduct_core::component::Registry;
use aqueduct_core::config::Config;

/// How a runtime is started.
#[derive(Clone)]
pub struct RuntimeConfig {
    /// `host:port`, comma-separated.
    pub bootstrap: String,
    /// Every component that connectors may name.
    pub registry: Registry,
    /// `host:port` that stands in statuses.
    pub worker_id: String,
    /// Name of the worker group; internal clients bear it.
    pub group_id: String,
    /// Compacted topic of connector configs.
    pub config_topic: String,
    /// Compacted topic of source positions.
    pub offset_topic: String,
    /// Compacted topic of statuses.
    pub status_topic: String,
    /// Compacted topic of schemas.
    pub schema_topic: String,
    /// Replication factor of the topics above and of dead letter topics; −1 is the broker's.
    pub replication_factor: i32,
    /// How often sinks commit without being asked.
    pub offset_flush_interval: Duration,
    /// What connectors made over REST may refer to.
    pub rest_trust: RestTrust,
    /// Further client settings, such as `security.protocol`.
    pub client: Config,
}

impl RuntimeConfig {
    /// Defaults for one worker on the given cluster.
    pub fn new(bootstrap: impl Into<String>, registry: Registry) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            registry,
            worker_id: "127.0.0.1:8083".into(),
            group_id: "connect".into(),
            config_topic: "connect-configs".into(),
            offset_topic: "connect-offsets".into(),
            status_topic: "connect-status".into(),
            schema_topic: "_aqueduct_schemas".into(),
            replication_factor: -1,
            offset_flush_interval: Duration::from_secs(10),
            rest_trust: RestTrust::default(),
            client: Config::new(),
        }
    }
}

/// What connectors made over REST may refer to. Nothing by default: whoever reaches REST would otherwise read the
/// worker's environment and files.
#[derive(Clone, Debug, Default)]
pub struct RestTrust {
    /// Prefixes of environment variables.
    pub env: Vec<String>,
    /// Directories, for `${file:…}`, `${dir:…}` and connectors that read or write files.
    pub paths: Vec<PathBuf>,
}

/// Who made a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file named on the command line: trusted.
    File,
    /// The REST API: references only as [`RestTrust`] allows.
    Rest,
}

/// A connector of a pipeline.
#[derive(Clone, Debug)]
pub struct ConnectorPlan {
    /// Name.
    pub name: String,
    /// Config as REST shows it; `connector.class` and `aqueduct.pipeline` are in it.
    pub config: Config,
}

/// A topic that exists before the connectors start.
#[derive(Clone, Debug)]
pub struct TopicPlan {
    /// Name.
    pub name: String,
    /// Partitions; −1 is the broker's default.
    pub partitions: i32,
    /// Replication factor; −1 is the broker's default.
    pub replication_factor: i32,
    /// Topic configs.
    pub config: Config,
}

/// A pipeline as its file describes it.
#[derive(Clone, Debug)]
pub struct PipelinePlan {
    /// Name.
    pub name: String,
    /// Its topics, as far as they are known before the source runs.
    pub topics: Vec<TopicPlan>,
    /// Its connectors.
    pub connectors: Vec<ConnectorPlan>,
}

/// What applying pipelines changed. Each names connectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Made.
    pub created: Vec<String>,
    /// Changed, because the file had changed.
    pub updated: Vec<String>,
    /// Changed back: they had been changed over REST.
    pub overwritten: Vec<String>,
    /// As they were.
    pub unchanged: Vec<String>,
    /// Stopped, because their pipeline's file is no longer given or no longer names them. Positions are kept.
    pub stopped: Vec<String>,
}
