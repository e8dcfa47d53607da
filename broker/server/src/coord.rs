//! Consumer groups and their offsets, kept in `__consumer_offsets`.

pub mod group;
mod records;
mod runtime;
pub mod shard;

pub(crate) use runtime::{CoordError, Coordinator};

/// The topic that holds groups and offsets, in Kafka's record formats.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
