//! Topics that the runtime makes: with their settings, before the first record, never by auto-creation.

use std::collections::BTreeSet;

use aqueduct_client::{Admin, NewTopic};
use aqueduct_core::config::{Config, ResolvedConfig};
use aqueduct_core::{Error, Result};
use tokio::sync::Mutex;

use crate::framework::MAX_RECORD_BYTES;

/// The settings of the topics that a connector writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicSettings {
    pub(crate) partitions: i32,
    pub(crate) replication_factor: i32,
    pub(crate) config: Config,
}

impl Default for TopicSettings {
    fn default() -> Self {
        let config = Config::from([("max.message.bytes".to_owned(), MAX_RECORD_BYTES.to_string())]);
        Self { partitions: -1, replication_factor: -1, config }
    }
}

impl TopicSettings {
    /// From `topic.creation.default.*`.
    pub(crate) fn from_config(config: &ResolvedConfig) -> Self {
        let mut settings = Self::default();
        const PREFIX: &str = "topic.creation.default.";
        for (key, value) in config.range(PREFIX.to_owned()..) {
            let Some(key) = key.strip_prefix(PREFIX) else { break };
            let text = value.text.trim();
            match key {
                "partitions" => settings.partitions = text.parse().unwrap_or(-1),
                "replication.factor" => settings.replication_factor = text.parse().unwrap_or(-1),
                "include" | "exclude" => {}
                _ => {
                    settings.config.insert(key.to_owned(), text.to_owned());
                }
            }
        }
        settings
    }

    pub(crate) fn topic(&self, name: &str) -> NewTopic {
        NewTopic {
            name: name.to_owned(),
            partitions: self.partitions,
            replication_factor: self.replication_factor,
            config: self.config.clone(),
        }
    }
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

    #[test]
    fn settings_come_from_the_default_group() {
        let config: Config = [
            ("topic.creation.default.partitions", "6"),
            ("topic.creation.default.replication.factor", "3"),
            ("topic.creation.default.retention.ms", "604800000"),
            ("topics", "x"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let settings = TopicSettings::from_config(&plain(&config));
        assert_eq!((settings.partitions, settings.replication_factor), (6, 3));
        assert_eq!(settings.config.get("retention.ms").map(String::as_str), Some("604800000"));
        assert_eq!(settings.config.get("max.message.bytes").map(String::as_str), Some("16777216"));
    }
}
