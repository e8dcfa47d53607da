//! What a pipeline is planned against: the components of the binary, and the keys that the runtime adds to all of them.

use aqueduct_core::component::Registry;
use aqueduct_core::config::ConfigDef;
use aqueduct_core::config::reference::Resolver;

/// The components a pipeline may name.
#[derive(Clone, Copy)]
pub struct Components<'a> {
    /// Every connector and step.
    pub registry: &'a Registry,
    /// The runtime's keys for any source connector.
    pub source_keys: &'a ConfigDef,
    /// The runtime's keys for any sink connector.
    pub sink_keys: &'a ConfigDef,
    /// Looks references up, to check the values behind them.
    pub resolver: &'a dyn Resolver,
}

/// Keys under these prefixes belong to others (the client, a converter, the topic) and are handed on unseen.
pub(crate) const OPEN_PREFIXES: &[&str] = &[
    "key.converter.",
    "value.converter.",
    "header.converter.",
    "producer.override.",
    "consumer.override.",
    "admin.override.",
    "topic.creation.",
];
