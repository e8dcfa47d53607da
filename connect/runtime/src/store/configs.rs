//! `connect-configs`: connectors and their target states.

use std::collections::BTreeMap;
use std::sync::Arc;

use aqueduct_client::{LogProducer, TailRecord};
use aqueduct_core::config::Config;
use aqueduct_core::{Result, Topic};
use parking_lot::RwLock;
use serde_json::{Value as Json, json};

use super::{parse, record};
use crate::config::Origin;
use crate::status::TargetState;

/// A connector as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredConnector {
    pub(crate) config: Config,
    pub(crate) origin: Origin,
}

/// A target state as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredTarget {
    pub(crate) state: TargetState,
    /// Stopped because its pipeline was not given, not because a user asked.
    pub(crate) by_pipeline: bool,
}

pub(crate) struct ConfigStore {
    topic: Topic,
    producer: Arc<dyn LogProducer>,
    stored: RwLock<Stored>,
}

#[derive(Default)]
struct Stored {
    connectors: BTreeMap<String, StoredConnector>,
    targets: BTreeMap<String, StoredTarget>,
}

impl ConfigStore {
    pub(super) fn new<'a>(
        topic: &str,
        producer: Arc<dyn LogProducer>,
        records: impl Iterator<Item = &'a TailRecord>,
    ) -> Self {
        let mut stored = Stored::default();
        for (key, value) in records.filter_map(parse) {
            stored.apply(key, value.as_ref());
        }
        Self { topic: topic.into(), producer, stored: RwLock::new(stored) }
    }

    pub(crate) fn connectors(&self) -> BTreeMap<String, StoredConnector> {
        self.stored.read().connectors.clone()
    }

    pub(crate) fn target(&self, name: &str) -> StoredTarget {
        self.stored.read().targets.get(name).copied().unwrap_or_default()
    }

    pub(crate) async fn put(&self, name: &str, connector: &StoredConnector) -> Result<()> {
        let mut value = json!({ "properties": connector.config });
        // Connect ignores it.
        if connector.origin == Origin::File {
            value["aqueduct.origin"] = "file".into();
        }
        self.write(&format!("connector-{name}"), Some(&value)).await
    }

    pub(crate) async fn put_target(&self, name: &str, target: StoredTarget) -> Result<()> {
        let (v1, v2) = match target.state {
            TargetState::Started => ("STARTED", "STARTED"),
            TargetState::Paused => ("PAUSED", "PAUSED"),
            // Workers before 3.5 know no STOPPED and read the first.
            TargetState::Stopped => ("PAUSED", "STOPPED"),
        };
        let mut value = json!({ "state": v1, "state.v2": v2 });
        if target.by_pipeline {
            value["aqueduct.by"] = "pipeline".into();
        }
        self.write(&format!("target-state-{name}"), Some(&value)).await
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.write(&format!("connector-{name}"), None).await?;
        self.write(&format!("target-state-{name}"), None).await
    }

    async fn write(&self, key: &str, value: Option<&Json>) -> Result<()> {
        self.producer.send_and_wait(record(&self.topic, key.to_owned(), value)).await?;
        self.stored.write().apply(key, value);
        Ok(())
    }
}

impl Stored {
    fn apply(&mut self, key: &str, value: Option<&Json>) {
        if let Some(name) = key.strip_prefix("connector-") {
            match value.and_then(connector) {
                Some(connector) => self.connectors.insert(name.to_owned(), connector),
                None => self.connectors.remove(name),
            };
        } else if let Some(name) = key.strip_prefix("target-state-") {
            match value.and_then(target) {
                Some(target) => self.targets.insert(name.to_owned(), target),
                None => self.targets.remove(name),
            };
        }
    }
}

fn connector(value: &Json) -> Option<StoredConnector> {
    let properties = value.get("properties")?.as_object()?;
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let config = properties
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), text(value)));
    let origin = match value.get("aqueduct.origin").and_then(Json::as_str) {
        Some("file") => Origin::File,
        _ => Origin::Rest,
    };
    Some(StoredConnector { config: config.collect(), origin })
}

fn target(value: &Json) -> Option<StoredTarget> {
    let text = value.get("state.v2").or_else(|| value.get("state"))?.as_str()?;
    let state = match text {
        "PAUSED" => TargetState::Paused,
        "STOPPED" => TargetState::Stopped,
        _ => TargetState::Started,
    };
    Some(StoredTarget { state, by_pipeline: value.get("aqueduct.by").is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_an_existing_connect_cluster_are_understood() {
        let mut stored = Stored::default();
        stored.apply(
            "connector-a",
            Some(&json!({"properties": {"connector.class": "file", "tasks.max": "2"}})),
        );
        stored.apply("connector-b", Some(&json!({"properties": {"connector.class": "file"}})));
        stored.apply("task-a-0", Some(&json!({"properties": {}})));
        stored.apply("commit-a", Some(&json!({"tasks": 1})));
        stored.apply("target-state-a", Some(&json!({"state": "PAUSED", "state.v2": "STOPPED"})));
        stored.apply("target-state-b", Some(&json!({"state": "PAUSED"})));
        stored.apply("connector-b", None);
        assert_eq!(stored.connectors.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(stored.connectors["a"].config["tasks.max"], "2");
        assert_eq!(stored.connectors["a"].origin, Origin::Rest);
        assert_eq!(stored.targets["a"].state, TargetState::Stopped);
        assert_eq!(stored.targets["b"].state, TargetState::Paused);
    }
}
