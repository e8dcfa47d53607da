//! Topic settings under Kafka's names: one table that parsing, validation and DescribeConfigs all use.
//! Invariant: a [`TopicConfig`] exists only for values that passed the table, so the log never sees a wrong one.

use std::collections::BTreeMap;

use aqueduct_wire::Compression;

/// How a setting is written, with its limits; also Kafka's type number in DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Long { least: i64 },
    Int { least: i32 },
    Ratio,
    Boolean,
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
}

impl Kind {
    /// Kafka's `ConfigDef.Type` number, as DescribeConfigs v3 sends it.
    pub fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::OneOf(_) => 2,
            Self::Int { .. } => 3,
            Self::Long { .. } => 5,
            Self::Ratio => 6,
            Self::ListOf(_) => 7,
        }
    }

    fn check(self, value: &str) -> Result<(), String> {
        let ok = match self {
            Self::Long { least } => value.parse::<i64>().is_ok_and(|number| number >= least),
            Self::Int { least } => value.parse::<i32>().is_ok_and(|number| number >= least),
            Self::Ratio => value.parse::<f64>().is_ok_and(|number| (0.0..=1.0).contains(&number)),
            Self::Boolean => matches!(value, "true" | "false"),
            Self::OneOf(allowed) => allowed.contains(&value),
            Self::ListOf(allowed) => list(value).all(|item| allowed.contains(&item)),
        };
        if ok { Ok(()) } else { Err(self.expected()) }
    }

    fn expected(self) -> String {
        match self {
            Self::Long { least } => format!("expected an integer of at least {least}"),
            Self::Int { least } => format!("expected a 32-bit integer of at least {least}"),
            Self::Ratio => "expected a number between 0 and 1".to_owned(),
            Self::Boolean => "expected `true` or `false`".to_owned(),
            Self::OneOf(allowed) => format!("expected one of {}", allowed.join(", ")),
            Self::ListOf(allowed) => format!("expected a comma-separated list of {}", allowed.join(", ")),
        }
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub doc: &'static str,
}

const fn define(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Definition {
    Definition { name, kind, default, doc }
}

const MAX: &str = "9223372036854775807";

/// Every setting a topic can have, by name.
pub const DEFINITIONS: &[Definition] = &[
    define(
        "cleanup.policy",
        Kind::ListOf(&["delete", "compact"]),
        "delete",
        "What happens to old data: `delete` it, `compact` it to the last record per key, or both.",
    ),
    define(
        "compression.type",
        Kind::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "producer",
        "`producer`: batches are kept as the producer compressed them. Any other: they are compressed anew where it differs.",
    ),
    define(
        "delete.retention.ms",
        Kind::Long { least: 0 },
        "86400000",
        "How long a compacted topic keeps a tombstone.",
    ),
    define(
        "durability",
        Kind::OneOf(&["durable", "os"]),
        "durable",
        "`durable`: acknowledged and readable only after fsync. `os`: after the write, as Kafka does.",
    ),
    define(
        "file.delete.delay.ms",
        Kind::Long { least: 0 },
        "60000",
        "How long the files of a removed segment stay.",
    ),
    define(
        "flush.messages",
        Kind::Long { least: 1 },
        MAX,
        "Accepted for Kafka's sake; `durability` decides.",
    ),
    define("flush.ms", Kind::Long { least: 0 }, MAX, "Accepted for Kafka's sake; `durability` decides."),
    define(
        "max.compaction.lag.ms",
        Kind::Long { least: 1 },
        MAX,
        "A record is compacted at the latest after this time.",
    ),
    define("max.message.bytes", Kind::Int { least: 0 }, "1048588", "The largest record batch."),
    define(
        "message.timestamp.after.max.ms",
        Kind::Long { least: 0 },
        "3600000",
        "How far in the future a record's timestamp may lie.",
    ),
    define(
        "message.timestamp.before.max.ms",
        Kind::Long { least: 0 },
        MAX,
        "How far in the past a record's timestamp may lie.",
    ),
    define(
        "message.timestamp.type",
        Kind::OneOf(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Whose clock stamps the records.",
    ),
    define(
        "min.cleanable.dirty.ratio",
        Kind::Ratio,
        "0.5",
        "The share of uncompacted data from which a topic is compacted.",
    ),
    define(
        "min.compaction.lag.ms",
        Kind::Long { least: 0 },
        "0",
        "A record stays uncompacted for at least this time.",
    ),
    define(
        "min.insync.replicas",
        Kind::Int { least: 1 },
        "1",
        "Replicas that must have a record before `acks=all` is answered.",
    ),
    define("preallocate", Kind::Boolean, "false", "Accepted for Kafka's sake."),
    define("retention.bytes", Kind::Long { least: -1 }, "-1", "Bytes a partition keeps; -1 for no limit."),
    define("retention.ms", Kind::Long { least: -1 }, "604800000", "How long a record is kept; -1 for ever."),
    define("segment.bytes", Kind::Int { least: 1 << 20 }, "1073741824", "Size of one segment file."),
    define("segment.index.bytes", Kind::Int { least: 4 }, "10485760", "Accepted for Kafka's sake."),
    define("segment.jitter.ms", Kind::Long { least: 0 }, "0", "Accepted for Kafka's sake."),
    define(
        "segment.ms",
        Kind::Long { least: 1 },
        "604800000",
        "Age at which a segment is closed even if it is not full.",
    ),
    define("index.interval.bytes", Kind::Int { least: 0 }, "4096", "Accepted for Kafka's sake."),
    define(
        "unclean.leader.election.enable",
        Kind::OneOf(&["false"]),
        "false",
        "Never: it would lose acknowledged records.",
    ),
];

/// The definition of `name`, if topics have such a setting.
pub fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name == name)
}

/// A topic setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("unknown topic config name: `{0}`")]
    Unknown(String),
    #[error("invalid value `{value}` for configuration `{name}`: {reason}")]
    Value { name: String, value: String, reason: String },
}

/// Checks one setting.
pub fn check(name: &str, value: &str) -> Result<(), InvalidConfig> {
    let definition = definition(name).ok_or_else(|| InvalidConfig::Unknown(name.to_owned()))?;
    definition.kind.check(value).map_err(|reason| InvalidConfig::Value {
        name: name.to_owned(),
        value: value.to_owned(),
        reason,
    })
}

/// The broker's defaults for topics: the table's, overlaid by the broker's configuration.
#[derive(Debug, Clone, Default)]
pub struct TopicDefaults {
    overlay: BTreeMap<String, String>,
}

impl TopicDefaults {
    /// Checks the overlay.
    pub fn new(overlay: &BTreeMap<String, String>) -> Result<Self, InvalidConfig> {
        for (name, value) in overlay {
            check(name, value)?;
        }
        Ok(Self { overlay: overlay.clone() })
    }

    /// The default of one setting, and whether the broker's configuration gave it.
    pub fn get(&self, definition: &Definition) -> (&str, bool) {
        match self.overlay.get(definition.name) {
            Some(value) => (value, true),
            None => (definition.default, false),
        }
    }

    /// The settings in force for a topic with these overrides.
    pub fn resolve(&self, overrides: &BTreeMap<String, String>) -> Result<TopicConfig, InvalidConfig> {
        for (name, value) in overrides {
            check(name, value)?;
        }
        let text = |name: &str| -> &str {
            let definition = definition(name).expect("only names of the table are looked up");
            overrides.get(name).map_or_else(|| self.get(definition).0, String::as_str)
        };
        let long = |name: &str| text(name).parse::<i64>().expect("the table checked every number");
        let limited = |name: &str| Some(long(name)).filter(|number| *number >= 0);
        let unsigned =
            |name: &str| u64::try_from(long(name)).expect("the table allows no negative value here");
        let policies: Vec<&str> = list(text("cleanup.policy")).collect();
        Ok(TopicConfig {
            delete: policies.contains(&"delete"),
            compact: policies.contains(&"compact"),
            compression: compression(text("compression.type")),
            retention_ms: limited("retention.ms"),
            retention_bytes: limited("retention.bytes").map(i64::unsigned_abs),
            segment_bytes: unsigned("segment.bytes"),
            segment_ms: long("segment.ms"),
            max_message_bytes: unsigned("max.message.bytes"),
            min_cleanable_dirty_ratio: text("min.cleanable.dirty.ratio")
                .parse()
                .expect("the table checked it"),
            delete_retention_ms: long("delete.retention.ms"),
            min_compaction_lag_ms: long("min.compaction.lag.ms"),
            max_compaction_lag_ms: long("max.compaction.lag.ms"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            file_delete_delay_ms: long("file.delete.delay.ms"),
            min_insync_replicas: long("min.insync.replicas"),
            durable: text("durability") == "durable",
        })
    }
}

/// `None`: as the producer sent it.
fn compression(name: &str) -> Option<Compression> {
    let name = if name == "uncompressed" { Compression::None.name() } else { name };
    Compression::ALL.into_iter().find(|codec| codec.name() == name)
}

/// The settings of one topic, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    pub delete: bool,
    pub compact: bool,
    /// How batches are compressed on disk; `None`: as the producer sent them.
    pub compression: Option<Compression>,
    /// `None`: for ever.
    pub retention_ms: Option<i64>,
    /// `None`: no limit.
    pub retention_bytes: Option<u64>,
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub max_message_bytes: u64,
    pub min_cleanable_dirty_ratio: f64,
    pub delete_retention_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub log_append_time: bool,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub file_delete_delay_ms: i64,
    pub min_insync_replicas: i64,
    /// Whether the high watermark is the flushed offset rather than the log end.
    pub durable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_default_passes_its_own_check() {
        for definition in DEFINITIONS {
            assert_eq!(check(definition.name, definition.default), Ok(()), "{}", definition.name);
        }
        TopicDefaults::default().resolve(&BTreeMap::new()).expect("the defaults resolve");
    }

    #[test]
    fn a_topic_override_beats_the_broker_and_the_broker_beats_the_table() {
        let defaults =
            TopicDefaults::new(&overrides(&[("retention.ms", "5"), ("segment.ms", "7")])).expect("valid");
        let config = defaults.resolve(&overrides(&[("retention.ms", "-1")])).expect("valid");
        assert_eq!((config.retention_ms, config.segment_ms, config.max_message_bytes), (None, 7, 1_048_588));
    }

    #[test]
    fn both_policies_can_stand_together() {
        let config = TopicDefaults::default().resolve(&overrides(&[("cleanup.policy", "compact, delete")]));
        let config = config.expect("valid");
        assert!(config.compact && config.delete);
    }

    #[test]
    fn unknown_names_and_wrong_values_are_refused() {
        assert_eq!(check("retention", "1"), Err(InvalidConfig::Unknown("retention".to_owned())));
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "a week"),
            ("cleanup.policy", "keep"),
            ("durability", "maybe"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("segment.bytes", "10"),
            ("compression.type", "lzma"),
        ] {
            assert!(matches!(check(name, value), Err(InvalidConfig::Value { .. })), "{name}={value}");
        }
    }
}
