//! The broker: partitions, metadata, groups, network. It speaks the Kafka protocol and keeps what it acknowledges.
//!
//! - [`Broker::start`] and [`Handle`]: as a server, embedded, or in a test
//! - [`BrokerConfig`]: its settings
//! - [`meta`]: the cluster's metadata; [`coord`]: consumer groups

mod api;
mod broker;
mod clock;
pub mod config;
pub mod coord;
mod fetch_sessions;
pub mod meta;
mod metrics;
mod net;
mod node;
mod partition;
pub mod topic_config;

pub use broker::{Broker, Handle, StartError};
pub use config::{BrokerConfig, HostPort};
