//! The broker: partitions, metadata, coordinators, network.

pub mod config;
pub mod coord;
pub mod meta;
pub mod topic_config;
