//! The keys that the runtime understands for every connector, whatever its class.

use std::time::Duration;

use aqueduct_core::Result;
use aqueduct_core::component::{Connector, Registry};
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig, Values};

use crate::backoff::{RestartPolicy, RetryPolicy};
use crate::secrets::ReferenceResolver;
use crate::topics::TopicSettings;

/// Largest record that the runtime writes, and the `max.message.bytes` of the topics it creates.
pub(crate) const MAX_RECORD_BYTES: usize = 16 << 20;

const PREFIXES: &[&str] = &[
    "transforms.",
    "predicates.",
    "topic.creation.",
    "key.converter.",
    "value.converter.",
    "header.converter.",
    "producer.override.",
    "consumer.override.",
    "admin.override.",
];

/// The parsed keys of the framework.
#[derive(Clone, Debug)]
pub struct FrameworkConfig {
    /// Most tasks.
    pub max_tasks: usize,
    /// Steps in order, by alias.
    pub steps: Vec<String>,
    /// Whether bad records become dead letters or are skipped (`errors.tolerance=all`).
    pub tolerate: bool,
    /// Topic of the dead letters; none is written without one.
    pub dead_letter_topic: Option<String>,
    /// Replication factor of that topic.
    pub dead_letter_replication: i32,
    /// Whether errors of records are logged.
    pub log_errors: bool,
    pub(crate) retry: RetryPolicy,
    pub(crate) restart: RestartPolicy,
    /// Bytes a task may hold in flight.
    pub buffer_bytes: usize,
    /// How often a sink commits without being asked.
    pub flush_interval: Option<Duration>,
    /// Topics of a sink.
    pub topics: Vec<String>,
    /// Pattern of a sink's topics.
    pub topics_regex: Option<String>,
    /// Pipeline that owns it.
    pub pipeline: Option<String>,
}

fn common() -> Vec<ConfigKey> {
    use ConfigType::{Boolean, Duration, Enum, Int, List, Size, String};
    let key = ConfigKey::new;
    vec![
        key("name", String, "Name of the connector, unique among all.").required(),
        key("connector.class", String, "Component to run, by name or by a class name it stands in for.").required(),
        key("tasks.max", Int { min: 1, max: 1024 }, "Most tasks to run at once.")
            .default("1")
            .importance(Importance::High),
        key("tasks.max.enforce", Boolean, "Accepted for compatibility: `tasks.max` is always enforced.").default("true"),
        key("key.converter", String, "Converter of keys: `json`, `string`, `bytes`, or one of Connect's classes.")
            .default("json"),
        key("value.converter", String, "Converter of values: `json`, `string`, `bytes`, or one of Connect's classes.")
            .default("json"),
        key("header.converter", String, "Accepted for compatibility: text and bytes of headers pass as they are."),
        key("transforms", List, "Steps by alias, in order; each has `transforms.<alias>.type`.").default(""),
        key("predicates", List, "Reserved for conditions on steps.").default(""),
        key("config.action.reload", Enum(&["restart", "none"]), "Accepted for compatibility.").default("restart"),
        key(
            "errors.retry.timeout",
            String,
            "How long a failed step, conversion or poll is tried again before it counts as failed. A number is in \
             milliseconds; `-1` is for ever.",
        )
        .default("0")
        .check(retry_timeout),
        key("errors.retry.delay.max.ms", Duration, "Longest pause between two tries.").default("60000"),
        key("errors.tolerance", Enum(&["none", "all"]), "`none`: a bad record stops the task. `all`: it goes to the \
             dead letter topic, or is skipped without one.")
        .default("none"),
        key("errors.log.enable", Boolean, "Log each error of a record.").default("true"),
        key("errors.log.include.messages", Boolean, "Accepted for compatibility: contents are never logged.")
            .default("false"),
        key("errors.deadletterqueue.topic.name", String, "Topic of the dead letters, for sources and sinks."),
        key(
            "errors.deadletterqueue.topic.replication.factor",
            Int { min: -1, max: 32_767 },
            "Replication factor of the dead letter topic; -1 is the broker's default.",
        )
        .default("-1"),
        key("errors.deadletterqueue.context.headers.enable", Boolean, "Accepted for compatibility: dead letters \
             always say where they come from.")
        .default("true"),
        key("errors.restart.enable", Boolean, "Restart failed tasks by themselves.").default("true"),
        key("errors.restart.delay", Duration, "Pause before the first restart; each further one waits twice as long.")
            .default("1s"),
        key("errors.restart.delay.max", Duration, "Longest pause before a restart.").default("60s"),
        key("task.buffer.bytes", Size, "Bytes that a task may hold between the log and the other system.")
            .default("16MiB"),
        key("offset.flush.interval.ms", Duration, "How often offsets are committed; the worker's by default."),
        key("aqueduct.pipeline", String, "Pipeline that owns the connector."),
    ]
}

fn retry_timeout(text: &str) -> std::result::Result<(), String> {
    retry_limit(text).map(|_| ())
}

/// The keys for a connector of this kind.
pub(crate) fn keys(connector: &Connector) -> ConfigDef {
    match connector {
        Connector::Source(_) => FrameworkConfig::source_keys(),
        Connector::Sink(_) => FrameworkConfig::sink_keys(),
    }
}

fn source_only() -> [ConfigKey; 5] {
    use ConfigType::{Duration, Enum, List, String};
    [
        ConfigKey::new("topic.creation.groups", List, "Groups of topics with settings of their own.")
            .default(""),
        ConfigKey::new(
            "exactly.once.support",
            Enum(&["requested", "required"]),
            "`required` is refused: records are delivered at least once.",
        )
        .default("requested"),
        ConfigKey::new("transaction.boundary", Enum(&["poll", "interval", "connector"]), "Accepted.")
            .default("poll"),
        ConfigKey::new("transaction.boundary.interval.ms", Duration, "Accepted for compatibility."),
        ConfigKey::new(
            "offsets.storage.topic",
            String,
            "Accepted for compatibility: the worker's topic is used.",
        ),
    ]
}

fn sink_only() -> [ConfigKey; 2] {
    use ConfigType::{List, String};
    [
        ConfigKey::new("topics", List, "Topics to read.").importance(Importance::High),
        ConfigKey::new("topics.regex", String, "Pattern of topics to read.").importance(Importance::High),
    ]
}

/// Whether a connector's config may hold this key although its component does not declare it.
pub(crate) fn is_framework_key(key: &str) -> bool {
    const KIND: &[&str] = &[
        "topic.creation.groups",
        "exactly.once.support",
        "transaction.boundary",
        "transaction.boundary.interval.ms",
        "offsets.storage.topic",
        "topics",
        "topics.regex",
    ];
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || KIND.contains(&key)
        || common().iter().any(|known| known.name == key)
}

/// What is wrong with the framework's part of a config, steps and converters included.
pub(crate) fn problems(
    registry: &Registry,
    connector: &Connector,
    resolved: &ResolvedConfig,
    resolver: &ReferenceResolver,
) -> Vec<Problem> {
    let mut problems = match keys(connector).parse(resolved) {
        // The name is checked by the caller, who knows it from elsewhere too.
        Err(found) => found.into_iter().filter(|problem| problem.key != "name").collect(),
        Ok(_) => Vec::new(),
    };
    for part in ["key.converter", "value.converter"] {
        if let Err(error) = aqueduct_convert::ConverterKind::from_config(part, &aliases(resolved)) {
            problems.push(Problem::new(part, format!("`{part}`: {}", error.full())));
        }
    }
    problems.extend(step_problems(registry, resolved));
    if matches!(connector, Connector::Sink(_)) {
        problems.extend(topic_problems(resolved));
    }
    problems.extend(TopicSettings::parse(resolved).err().unwrap_or_default());
    problems.extend(override_problems(resolved));
    problems.extend(path_problems(connector, resolved, resolver));
    let text = |key: &str| resolved.get(key).map(|value| value.text.trim());
    if text("errors.tolerance") == Some("all") && text("exactly.once.support") == Some("required") {
        problems.push(Problem::new(
            "exactly.once.support",
            "`exactly.once.support`: only `requested` is supported",
        ));
    }
    problems
}

/// `key.converter` and friends as plain text.
pub(crate) fn aliases(resolved: &ResolvedConfig) -> aqueduct_core::config::Config {
    let converters = resolved.iter().filter(|(key, _)| key.contains(".converter"));
    converters.map(|(key, value)| (key.clone(), value.text.clone())).collect()
}

fn topic_problems(resolved: &ResolvedConfig) -> Vec<Problem> {
    let given = |key: &str| resolved.get(key).is_some_and(|value| !value.text.trim().is_empty());
    let mut problems = Vec::new();
    match (given("topics"), given("topics.regex")) {
        (true, true) => {
            let text = "topics and topics.regex are mutually exclusive options, but both are set.";
            problems.extend(["topics", "topics.regex"].map(|key| Problem::new(key, text)));
        }
        (false, false) => {
            let text = "Must configure one of topics or topics.regex";
            problems.extend(["topics", "topics.regex"].map(|key| Problem::new(key, text)));
        }
        _ => {}
    }
    if let (Some(topics), Some(dead)) =
        (resolved.get("topics"), resolved.get("errors.deadletterqueue.topic.name"))
        && topics.text.split(',').any(|topic| topic.trim() == dead.text)
    {
        let text = format!(
            "`errors.deadletterqueue.topic.name`: the sink reads `{}` itself; name another topic",
            dead.text
        );
        problems.push(Problem::new("errors.deadletterqueue.topic.name", text));
    }
    problems
}

/// Files that a connector made over REST would read or write outside the allowed directories.
fn path_problems(
    connector: &Connector,
    resolved: &ResolvedConfig,
    resolver: &ReferenceResolver,
) -> Vec<Problem> {
    let is_file = connector.spec().name == "file";
    let own = resolved.iter().filter(|(key, _)| is_file && matches!(key.as_str(), "path" | "file"));
    let modules =
        resolved.iter().filter(|(key, _)| key.starts_with("transforms.") && key.ends_with(".module"));
    let refused = own.chain(modules).filter_map(|(key, value)| {
        let why = resolver.permits(std::path::Path::new(&value.text)).err()?;
        Some(Problem::new(key, format!("`{key}`: {why}")))
    });
    refused.collect()
}

/// Client settings that would run other code in this process, whoever made the connector.
fn override_problems(resolved: &ResolvedConfig) -> Vec<Problem> {
    let foreign = |key: &&String| {
        let overrides = ["producer.override.", "consumer.override.", "admin.override."];
        overrides.iter().any(|prefix| key.strip_prefix(prefix).is_some_and(aqueduct_client::is_foreign_code))
    };
    let problem =
        |key: &String| Problem::new(key, format!("`{key}`: it would run other code in this process"));
    resolved.keys().filter(foreign).map(problem).collect()
}

/// The config of one step: its keys without prefix, and its component.
pub(crate) fn step_config(alias: &str, resolved: &ResolvedConfig) -> (Option<String>, ResolvedConfig) {
    let prefix = format!("transforms.{alias}.");
    let mut config = ResolvedConfig::new();
    let mut component = None;
    for (key, value) in resolved.range(prefix.clone()..) {
        let Some(key) = key.strip_prefix(&prefix) else { break };
        match key {
            "type" => component = Some(value.text.clone()),
            "predicate" | "negate" => {}
            _ => {
                config.insert(key.to_owned(), value.clone());
            }
        }
    }
    (component, config)
}

fn step_problems(registry: &Registry, resolved: &ResolvedConfig) -> Vec<Problem> {
    let Some(list) = resolved.get("transforms") else { return Vec::new() };
    let aliases: Vec<&str> = list.text.split(',').map(str::trim).filter(|alias| !alias.is_empty()).collect();
    let mut problems = Vec::new();
    for (i, alias) in aliases.iter().enumerate() {
        if aliases[..i].contains(alias) {
            problems.push(Problem::new("transforms", "Duplicate alias provided."));
            continue;
        }
        let prefix = format!("transforms.{alias}.");
        let (component, config) = step_config(alias, resolved);
        if resolved.contains_key(&format!("{prefix}predicate")) {
            let key = format!("{prefix}predicate");
            let text = format!("`{key}`: predicates are not supported yet; use a `filter` step");
            problems.push(Problem::new(key, text));
        }
        let type_key = format!("{prefix}type");
        let Some(component) = component else {
            problems
                .push(Problem::new(&type_key, format!("missing required key `{type_key}`: the step to run")));
            continue;
        };
        let factory = match registry.find_transform(&component) {
            Ok(factory) => factory,
            Err(error) => {
                problems.push(Problem::new(&type_key, format!("`{type_key}`: {}", error.message())));
                continue;
            }
        };
        let mut found = factory.spec().config.parse(&config).err().unwrap_or_default();
        found.extend(factory.spec().config.unknown(config.keys(), |_| false));
        if found.is_empty() {
            found.extend(factory.validate(&config));
        }
        let named = found
            .into_iter()
            .map(|p| Problem::new(format!("{prefix}{}", p.key), format!("step `{alias}`: {}", p.message)));
        problems.extend(named);
    }
    problems
}

impl FrameworkConfig {
    /// The keys that every source connector has, whatever its class.
    pub fn source_keys() -> ConfigDef {
        ConfigDef::new(common().into_iter().chain(source_only()))
    }

    /// The keys that every sink connector has, whatever its class.
    pub fn sink_keys() -> ConfigDef {
        ConfigDef::new(common().into_iter().chain(sink_only()))
    }

    /// Parses the framework's part of a checked config.
    pub fn parse(connector: &Connector, resolved: &ResolvedConfig) -> Result<Self> {
        let values = keys(connector).parse(resolved).map_err(|problems| Problem::error(&problems))?;
        let list =
            |key: &str| -> Result<Vec<String>> { Ok(values.opt_list(key)?.unwrap_or_default().to_vec()) };
        let sink = matches!(connector, Connector::Sink(_));
        let text = |values: &Values, key: &str| -> Result<Option<String>> {
            Ok(values.opt_text(key)?.filter(|text| !text.is_empty()).map(str::to_owned))
        };
        Ok(Self {
            max_tasks: usize::try_from(values.int("tasks.max")?).unwrap_or(1),
            steps: list("transforms")?,
            tolerate: values.text("errors.tolerance")? == "all",
            dead_letter_topic: text(&values, "errors.deadletterqueue.topic.name")?,
            dead_letter_replication: i32::try_from(
                values.int("errors.deadletterqueue.topic.replication.factor")?,
            )
            .unwrap_or(-1),
            log_errors: values.boolean("errors.log.enable")?,
            retry: RetryPolicy {
                timeout: retry_limit(values.text("errors.retry.timeout")?)
                    .map_err(aqueduct_core::Error::bad_config)?,
                max_delay: values.duration("errors.retry.delay.max.ms")?,
            },
            restart: RestartPolicy {
                enabled: values.boolean("errors.restart.enable")?,
                first: values.duration("errors.restart.delay")?,
                max: values.duration("errors.restart.delay.max")?,
            },
            buffer_bytes: values.size("task.buffer.bytes")?.as_usize().max(1 << 20),
            flush_interval: values.opt_duration("offset.flush.interval.ms")?,
            topics: if sink { list("topics")? } else { Vec::new() },
            topics_regex: if sink { text(&values, "topics.regex")? } else { None },
            pipeline: text(&values, "aqueduct.pipeline")?,
        })
    }
}

fn retry_limit(text: &str) -> std::result::Result<Option<Duration>, String> {
    match text.trim() {
        "-1" => Ok(None),
        number => match number.parse::<u64>() {
            Ok(ms) => Ok(Some(Duration::from_millis(ms))),
            Err(_) => aqueduct_core::config::parse_duration(number).map(Some),
        },
    }
}

#[cfg(test)]
mod tests {
    use aqueduct_core::config::{Config, plain};

    use super::*;

    #[test]
    fn overrides_that_run_other_code_are_refused_and_others_are_not() {
        let keys = [
            "producer.override.plugin.library.paths",
            "consumer.override.sasl.kerberos.kinit.cmd",
            "admin.override.ssl.engine.location",
            "producer.override.linger.ms",
            "plugin.library.paths",
        ];
        let config: Config = keys.map(|key| (key.to_owned(), "x".to_owned())).into();
        let problems = override_problems(&plain(&config));
        let mut found: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, [keys[2], keys[1], keys[0]]);
    }
}
