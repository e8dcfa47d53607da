//! Topics that the runtime makes: with their settings, before the first record, never by auto-creation.

use std::collections::BTreeSet;

use aqueduct_client::{Admin, NewTopic};
use aqueduct_core::config::{Config, Problem, ResolvedConfig};
use aqueduct_core::{Error, Result};
use regex::Regex;
use tokio::sync::Mutex;

use crate::framework::MAX_RECORD_BYTES;

const PREFIX: &str = "topic.creation.";
/// The group of every topic that no other group names.
const DEFAULT: &str = "default";

/// The settings of the topics that a connector writes to: as the first group says whose patterns match the topic
/// (KIP-158), or else as they stand here.
#[derive(Clone, Debug)]
pub(crate) struct TopicSettings {
    pub(crate) partitions: i32,
    pub(crate) replication_factor: i32,
    pub(crate) config: Config,
    pub(crate) groups: Vec<Group>,
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    include: Vec<Regex>,
    exclude: Vec<Regex>,
    settings: TopicSettings,
}

impl Default for TopicSettings {
    fn default() -> Self {
        let config = Config::from([("max.message.bytes".to_owned(), MAX_RECORD_BYTES.to_string())]);
        Self { partitions: -1, replication_factor: -1, config, groups: Vec::new() }
    }
}

impl TopicSettings {
    /// From `topic.creation.groups` and `topic.creation.<group>.*`, with everything that is wrong with them.
    pub(crate) fn parse(config: &ResolvedConfig) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let text = config.get("topic.creation.groups").map_or("", |value| value.text.as_str());
        let names: Vec<&str> =
            text.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != DEFAULT).collect();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                let text = format!("`topic.creation.groups`: `{name}` stands there twice");
                problems.push(Problem::new("topic.creation.groups", text));
            }
        }
        problems.extend(unlisted(config, &names));
        let mut parsed = settings(config, DEFAULT, &Self::default(), &mut problems);
        for name in names {
            let group = Group {
                include: patterns(config, &format!("{PREFIX}{name}.include"), &mut problems),
                exclude: patterns(config, &format!("{PREFIX}{name}.exclude"), &mut problems),
                settings: settings(config, name, &parsed, &mut problems),
            };
            parsed.groups.push(group);
        }
        if problems.is_empty() { Ok(parsed) } else { Err(problems) }
    }

    /// The same of a config that was checked.
    pub(crate) fn from_config(config: &ResolvedConfig) -> Self {
        Self::parse(config).unwrap_or_default()
    }

    pub(crate) fn topic(&self, name: &str) -> NewTopic {
        let any = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(name));
        let group = self.groups.iter().find(|group| any(&group.include) && !any(&group.exclude));
        let settings = group.map_or(self, |group| &group.settings);
        NewTopic {
            name: name.to_owned(),
            partitions: settings.partitions,
            replication_factor: settings.replication_factor,
            config: settings.config.clone(),
        }
    }
}

/// Keys of groups that are not listed would have no effect.
fn unlisted(config: &ResolvedConfig, names: &[&str]) -> Vec<Problem> {
    let keys = config.keys().filter(|key| *key != "topic.creation.groups");
    let unlisted = keys.filter(|key| {
        let group =
            key.strip_prefix(PREFIX).map(|rest| rest.split_once('.').map_or(rest, |(group, _)| group));
        group.is_some_and(|group| group != DEFAULT && !names.contains(&group))
    });
    let problem =
        |key: &String| Problem::new(key, format!("`{key}`: its group is not in `topic.creation.groups`"));
    unlisted.map(problem).collect()
}

/// A group inherits partitions and replication factor, as in Connect, and nothing else.
fn settings(
    config: &ResolvedConfig,
    group: &str,
    inherited: &TopicSettings,
    problems: &mut Vec<Problem>,
) -> TopicSettings {
    let mut settings = TopicSettings {
        partitions: inherited.partitions,
        replication_factor: inherited.replication_factor,
        ..TopicSettings::default()
    };
    let prefix = format!("{PREFIX}{group}.");
    for (key, value) in config.range(prefix.clone()..) {
        let Some(name) = key.strip_prefix(&prefix) else { break };
        let text = value.text.trim();
        let mut number = |into: &mut i32| match text.parse::<i32>() {
            Ok(n) if n == -1 || n > 0 => *into = n,
            _ => {
                let text = format!("`{key}`: `{text}` is neither -1 nor a positive number");
                problems.push(Problem::new(key, text));
            }
        };
        match name {
            "partitions" => number(&mut settings.partitions),
            "replication.factor" => number(&mut settings.replication_factor),
            "include" | "exclude" => {}
            _ => {
                settings.config.insert(name.to_owned(), text.to_owned());
            }
        }
    }
    settings
}

fn patterns(config: &ResolvedConfig, key: &str, problems: &mut Vec<Problem>) -> Vec<Regex> {
    let text = config.get(key).map_or("", |value| value.text.as_str());
    let each = text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
    // The whole name must match, as in Java.
    each.filter_map(|pattern| match Regex::new(&format!("^(?:{pattern})$")) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            problems
                .push(Problem::new(key, format!("`{key}`: `{pattern}` is no regular expression: {error}")));
            None
        }
    })
    .collect()
}

/// Makes topics, and remembers which exist.
pub(crate) struct Topics {
    admin: Admin,
    known: Mutex<BTreeSet<String>>,
}

impl Topics {
    pub(crate) fn new(admin: Admin) -> Self {
        Self { admin, known: Mutex::default() }
    }

    /// Returns once the topic exists and has a leader.
    pub(crate) async fn ensure(&self, name: &str, settings: &TopicSettings) -> Result<()> {
        self.ensure_all(&[settings.topic(name)]).await
    }

    /// The same for several at once.
    pub(crate) async fn ensure_all(&self, topics: &[NewTopic]) -> Result<()> {
        // Held over the request, so that tasks that need the same topic ask once.
        let mut known = self.known.lock().await;
        let missing: Vec<NewTopic> =
            topics.iter().filter(|topic| !known.contains(&topic.name)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = missing.iter().map(|topic| topic.name.as_str()).collect();
        self.admin.create_topics(&missing).await.map_err(|error| {
            Error::new(
                error.kind(),
                format!(
                    "cannot create the topic `{}`: {}; allow this user to create topics, or create it and restart the task",
                    names.join("`, `"),
                    error.full()
                ),
            )
        })?;
        known.extend(missing.into_iter().map(|topic| topic.name));
        Ok(())
    }

    /// Forgets what is known of a topic, because writing to it failed.
    pub(crate) async fn forget_all(&self) {
        self.known.lock().await.clear();
    }
}

#[cfg(test)]
mod tests {
    use aqueduct_core::config::plain;

    use super::*;

    fn parsed(keys: &[(&str, &str)]) -> Result<TopicSettings, Vec<Problem>> {
        let config: Config =
            keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        TopicSettings::parse(&plain(&config))
    }

    #[test]
    fn settings_come_from_the_default_group() {
        let settings = parsed(&[
            ("topic.creation.default.partitions", "6"),
            ("topic.creation.default.replication.factor", "3"),
            ("topic.creation.default.retention.ms", "604800000"),
            ("topics", "x"),
        ]);
        let settings = settings.expect("valid").topic("any");
        assert_eq!((settings.partitions, settings.replication_factor), (6, 3));
        assert_eq!(settings.config.get("retention.ms").map(String::as_str), Some("604800000"));
        assert_eq!(settings.config.get("max.message.bytes").map(String::as_str), Some("16777216"));
    }

    #[test]
    fn the_first_group_whose_patterns_match_the_whole_name_decides() {
        let settings = parsed(&[
            ("topic.creation.groups", "compacted, orders"),
            ("topic.creation.default.partitions", "6"),
            ("topic.creation.default.retention.ms", "1000"),
            ("topic.creation.compacted.include", ".*\\.state, orders\\.keys"),
            ("topic.creation.compacted.exclude", "x\\..*"),
            ("topic.creation.compacted.cleanup.policy", "compact"),
            ("topic.creation.orders.include", "orders.*"),
            ("topic.creation.orders.partitions", "12"),
        ]);
        let settings = settings.expect("valid");
        let seen = |topic: &str| {
            let NewTopic { partitions, config, .. } = settings.topic(topic);
            let config = |key: &str| config.get(key).cloned();
            (partitions, config("cleanup.policy"), config("retention.ms"))
        };
        let compact = || Some("compact".to_owned());
        let second = || Some("1000".to_owned());
        assert_eq!(seen("a.state"), (6, compact(), None), "partitions are inherited, other settings are not");
        assert_eq!(seen("orders.keys"), (6, compact(), None), "the first group in the list");
        assert_eq!(seen("x.state"), (6, None, second()), "excluded");
        assert_eq!(seen("orders.public"), (12, None, None));
        assert_eq!(seen("my.orders"), (6, None, second()), "only a part of the name matches");
    }

    #[test]
    fn everything_wrong_with_the_groups_is_found_at_once() {
        let problems = parsed(&[
            ("topic.creation.groups", "a,a"),
            ("topic.creation.a.include", "("),
            ("topic.creation.a.partitions", "0"),
            ("topic.creation.b.partitions", "3"),
            ("topic.creation.default.replication.factor", "many"),
        ]);
        let mut keys: Vec<String> = problems.expect_err("wrong").into_iter().map(|p| p.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(
            keys,
            [
                "topic.creation.a.include",
                "topic.creation.a.partitions",
                "topic.creation.b.partitions",
                "topic.creation.default.replication.factor",
                "topic.creation.groups",
            ]
        );
    }
}
