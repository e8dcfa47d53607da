//! `topic` and `on_error`: what holds for the pipeline as a whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aqueduct_core::config::{Config, ConfigDef, ConfigKey, ConfigType, Values, parse_duration, plain};

use crate::document::Document;
use crate::finding::Findings;
use crate::flatten::flatten;
use crate::yaml::Node;

const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Settings of the topics and the handling of errors.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) partitions: Option<i32>,
    pub(super) replication: Option<i16>,
    pub(super) topic_config: BTreeMap<String, String>,
    on_error: Config,
    dead_letters: bool,
}

pub(crate) fn topic_def() -> ConfigDef {
    ConfigDef::new([
        ConfigKey::new("partitions", ConfigType::Int { min: 1, max: 10_000 }, "partitions of each topic"),
        ConfigKey::new("replication", ConfigType::Int { min: 1, max: 100 }, "replicas of each partition"),
        ConfigKey::new(
            "retention",
            ConfigType::String,
            "how long records are kept, such as `7d`, or `forever`",
        )
        .check(|text| retention(text).map(|_| ())),
        ConfigKey::new("retention_size", ConfigType::Size, "how many bytes of each partition are kept"),
        ConfigKey::new(
            "cleanup",
            ConfigType::Enum(&["delete", "compact", "compact,delete"]),
            "what is cleaned up",
        ),
        ConfigKey::new("durability", ConfigType::Enum(&["durable", "os"]), "when a record counts as written"),
        ConfigKey::new("max_message", ConfigType::Size, "largest batch of records"),
        ConfigKey::new("config", ConfigType::Json, "further settings, by Kafka's names"),
    ])
}

pub(crate) fn on_error_def() -> ConfigDef {
    ConfigDef::new([
        ConfigKey::new(
            "retry.attempts",
            ConfigType::Int { min: 0, max: 1_000_000 },
            "how often a call is tried again",
        ),
        ConfigKey::new(
            "retry.backoff",
            ConfigType::Duration,
            "pause before the first retry; it grows from there",
        ),
        ConfigKey::new("then", ConfigType::Enum(&["dlq", "stop"]), "what becomes of a bad record"),
    ])
}

fn retention(text: &str) -> Result<i64, String> {
    if text == "forever" {
        return Ok(-1);
    }
    let duration = parse_duration(text).map_err(|why| format!("{why}, or `forever`"))?;
    i64::try_from(duration.as_millis()).map_err(|_| format!("`{text}` is too long; write `forever`"))
}

/// Reads both, with their findings.
pub(super) fn read(document: &Document<'_>, dir: &Path, findings: &mut Findings) -> Settings {
    let mut settings = Settings::default();
    if let Some(values) = section(document.topic, &topic_def(), dir, findings) {
        // The keys are read as they are declared above.
        topic(&values, &mut settings).unwrap_or_else(|error| findings.add(document.start, error.full()));
    }
    if let Some(values) = section(document.on_error, &on_error_def(), dir, findings) {
        on_error(&values, &mut settings).unwrap_or_else(|error| findings.add(document.start, error.full()));
    }
    settings
}

fn section(node: Option<&Node>, def: &ConfigDef, dir: &Path, findings: &mut Findings) -> Option<Values> {
    let node = node?;
    let entries = flatten(Some(node), &[def], false, dir, findings);
    match def.parse(&plain(&entries.config())) {
        Ok(values) => Some(values),
        Err(problems) => {
            entries.report(&problems, node.at, findings);
            None
        }
    }
}

fn topic(values: &Values, settings: &mut Settings) -> aqueduct_core::Result<()> {
    let narrow = |value: i64| i32::try_from(value).unwrap_or(i32::MAX);
    settings.partitions = values.opt_int("partitions")?.map(narrow);
    settings.replication =
        values.opt_int("replication")?.map(|value| i16::try_from(value).unwrap_or(i16::MAX));
    let config = &mut settings.topic_config;
    let mut set = |key: &str, text: Option<String>| {
        if let Some(text) = text {
            config.insert(key.to_owned(), text);
        }
    };
    let retention = values.opt_text("retention")?.and_then(|text| retention(text).ok());
    set("retention.ms", retention.map(|ms| ms.to_string()));
    set("retention.bytes", values.opt_size("retention_size")?.map(|size| size.0.to_string()));
    set("cleanup.policy", values.opt_text("cleanup")?.map(str::to_owned));
    set("durability", values.opt_text("durability")?.map(str::to_owned));
    set("max.message.bytes", values.opt_size("max_message")?.map(|size| size.0.to_string()));
    match values.opt_json("config")? {
        None => {}
        Some(serde_json::Value::Object(more)) => {
            for (key, value) in more {
                set(key, Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
            }
        }
        Some(_) => {
            return Err(aqueduct_core::Error::bad_config(
                "`topic.config` takes a mapping of Kafka's topic settings",
            ));
        }
    }
    Ok(())
}

/// Connect counts retries by time: the time that so many pauses take, each twice as long as the one before.
fn on_error(values: &Values, settings: &mut Settings) -> aqueduct_core::Result<()> {
    let (attempts, backoff) = (values.opt_int("retry.attempts")?, values.opt_duration("retry.backoff")?);
    if attempts.is_some() || backoff.is_some() {
        let attempts = u32::try_from(attempts.unwrap_or(3)).unwrap_or(u32::MAX);
        let first = backoff.unwrap_or(Duration::from_secs(1));
        let longest = first
            .saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1)))
            .min(LONGEST_PAUSE.max(first));
        let pauses = (0..attempts.min(64)).map(|n| first.saturating_mul(2u32.saturating_pow(n)).min(longest));
        let rest = longest.saturating_mul(attempts.saturating_sub(64));
        let total = pauses.fold(rest, Duration::saturating_add);
        settings.on_error.insert("errors.retry.timeout".into(), total.as_millis().to_string());
        settings.on_error.insert("errors.retry.delay.max.ms".into(), longest.as_millis().to_string());
    }
    settings.dead_letters = values.opt_text("then")? == Some("dlq");
    Ok(())
}

impl Settings {
    /// What the source needs to create its topics.
    pub(super) fn for_source(&self) -> Config {
        let key = |name: &str| format!("topic.creation.default.{name}");
        let mut config = Config::new();
        config.insert(key("partitions"), self.partitions.unwrap_or(-1).to_string());
        config.insert(key("replication.factor"), self.replication.unwrap_or(-1).to_string());
        config.extend(self.topic_config.iter().map(|(name, text)| (key(name), text.clone())));
        config
    }

    /// Retries and dead letters of one connector. The topic's name has no dot in front of `dlq`, so that it never looks
    /// like one more table of the source.
    pub(super) fn errors(&self, connector: &str) -> Config {
        let mut config = self.on_error.clone();
        if self.dead_letters {
            config.insert("errors.tolerance".into(), "all".into());
            config.insert("errors.deadletterqueue.topic.name".into(), format!("{connector}-dlq"));
        }
        config
    }
}
