//! `connect-status`: states of connectors and tasks, and the topics they use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aqueduct_client::{LogProducer, TailRecord};
use aqueduct_core::Topic;
use parking_lot::RwLock;
use serde_json::{Value as Json, json};

use super::{parse, record};
use crate::status::State;

pub(crate) struct StatusStore {
    topic: Topic,
    producer: Arc<dyn LogProducer>,
    topics: RwLock<BTreeMap<String, BTreeSet<String>>>,
    /// Tasks with a status record, to be deleted with their connector.
    tasks: RwLock<BTreeMap<String, usize>>,
}

impl StatusStore {
    pub(super) fn new<'a>(
        topic: &str,
        producer: Arc<dyn LogProducer>,
        records: impl Iterator<Item = &'a TailRecord>,
    ) -> Self {
        let mut topics: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut tasks: BTreeMap<String, usize> = BTreeMap::new();
        for (key, value) in records.filter_map(parse) {
            if let Some((used, connector)) =
                key.strip_prefix("status-topic-").and_then(|rest| rest.split_once(":connector-"))
            {
                match value {
                    Some(_) => topics.entry(connector.to_owned()).or_default().insert(used.to_owned()),
                    None => topics.entry(connector.to_owned()).or_default().remove(used),
                };
            } else if let Some((connector, task)) =
                key.strip_prefix("status-task-").and_then(|rest| rest.rsplit_once('-'))
                && let (Ok(task), Some(_)) = (task.parse::<usize>(), value)
            {
                let count = tasks.entry(connector.to_owned()).or_default();
                *count = (*count).max(task + 1);
            }
        }
        Self { topic: topic.into(), producer, topics: RwLock::new(topics), tasks: RwLock::new(tasks) }
    }

    /// Topics a connector has used.
    pub(crate) fn topics(&self, connector: &str) -> Vec<String> {
        self.topics.read().get(connector).map(|topics| topics.iter().cloned().collect()).unwrap_or_default()
    }

    pub(crate) async fn put_connector(
        &self,
        name: &str,
        state: State,
        trace: Option<&str>,
        worker: &str,
        generation: u64,
    ) {
        self.write(format!("status-connector-{name}"), Some(status(state, trace, worker, generation))).await;
    }

    pub(crate) async fn put_task(
        &self,
        (name, task): (&str, usize),
        state: State,
        trace: Option<&str>,
        worker: &str,
        generation: u64,
    ) {
        {
            let mut tasks = self.tasks.write();
            let count = tasks.entry(name.to_owned()).or_default();
            *count = (*count).max(task + 1);
        }
        self.write(format!("status-task-{name}-{task}"), Some(status(state, trace, worker, generation)))
            .await;
    }

    /// Tasks from `count` on exist no longer.
    pub(crate) async fn drop_tasks(&self, name: &str, count: usize) {
        let known = {
            let mut tasks = self.tasks.write();
            let known = tasks.get(name).copied().unwrap_or_default();
            tasks.insert(name.to_owned(), count.min(known));
            known
        };
        for task in count..known {
            self.write(format!("status-task-{name}-{task}"), None).await;
        }
    }

    /// Everything of a deleted connector.
    pub(crate) async fn delete(&self, name: &str) {
        self.drop_tasks(name, 0).await;
        self.write(format!("status-connector-{name}"), None).await;
        self.reset_topics(name).await;
    }

    /// Remembers that a connector uses a topic.
    pub(crate) async fn used(&self, connector: &str, task: usize, topic: &str) {
        if !self.topics.write().entry(connector.to_owned()).or_default().insert(topic.to_owned()) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let at = u64::try_from(now).unwrap_or(u64::MAX);
        let value = json!({
            "topic": { "name": topic, "connector": connector, "task": task, "discoverTimestamp": at }
        });
        self.write(format!("status-topic-{topic}:connector-{connector}"), Some(value)).await;
    }

    /// Forgets the topics a connector used.
    pub(crate) async fn reset_topics(&self, connector: &str) {
        let topics = self.topics.write().remove(connector).unwrap_or_default();
        for topic in topics {
            self.write(format!("status-topic-{topic}:connector-{connector}"), None).await;
        }
    }

    async fn write(&self, key: String, value: Option<Json>) {
        let record = record(&self.topic, key, value.as_ref());
        if let Err(error) = self.producer.send(vec![(0, record)]).await {
            tracing::warn!("a status could not be written: {}", error.full());
        }
    }
}

fn status(state: State, trace: Option<&str>, worker: &str, generation: u64) -> Json {
    json!({ "state": state.name(), "trace": trace, "worker_id": worker, "generation": generation })
}
