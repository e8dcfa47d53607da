//! `aqueduct-runtime`: what runs connectors. It needs nothing but a cluster that speaks the Kafka protocol.
//!
//! [`Runtime::start`] opens the stores (compacted topics in Kafka Connect's formats) and starts what they describe;
//! [`RuntimeHandle`] is what REST and the command line use.
//!
//! **Invariant:** a position or offset is stored only after every record before it is acknowledged by the log or the
//! sink, is a written dead letter, or was dropped by a step.

mod backoff;
mod config;
mod error;
mod framework;
mod handle;
mod herder;
mod metrics;
mod rehearsal;
mod runtime;
mod secrets;
mod status;
mod store;
mod task;
mod topics;
mod validate;
mod view;

pub use aqueduct_client::ConsumedRecord;
pub use aqueduct_convert::{MemorySchemaStore, SchemaStore, specs as converters};
pub use config::{Applied, ConnectorPlan, Origin, PipelinePlan, RestTrust, RuntimeConfig, TopicPlan};
pub use error::RuntimeError;
pub use framework::FrameworkConfig;
pub use handle::RuntimeHandle;
pub use rehearsal::{Failed, Rehearsal, Rehearsed};
pub use runtime::Runtime;
pub use secrets::ReferenceResolver;
pub use status::{
    ComponentState, ConnectorInfo, ConnectorKind, ConnectorOffset, ConnectorOffsets, ConnectorStatus, State,
    TargetState, TaskId, TaskInfo, TaskStatus,
};
pub use validate::{ConfigInfo, ConfigInfos, ConfigKeyInfo, ConfigValueInfo};
pub use view::{ConnectorView, Lag};
