//! Consumer groups and their offsets, kept in `__consumer_offsets`.

mod cell;
pub mod group;
mod records;
mod replay;
mod runtime;
pub mod shard;

pub(crate) use runtime::{CoordError, Coordinator};

/// The topic that holds groups and offsets, in Kafka's record formats.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
