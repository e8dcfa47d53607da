//! Plays the runtime: polls, acknowledges, stores positions, commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aqueduct_connector_postgres::PostgresCdc;
use aqueduct_core::config::plain;
use aqueduct_core::source::{
    NoReport, SourceConnector as _, SourceContext, SourcePosition, SourceTask, StoredPositions,
};
use aqueduct_core::{Record, Result, Schema};
use serde_json::Value as Json;

/// A record in JSON, as a consumer would see it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) topic: String,
    pub(crate) key: Json,
    /// Null for a tombstone.
    pub(crate) value: Json,
    pub(crate) schema: Option<Arc<Schema>>,
}

impl Seen {
    fn new(record: &Record) -> Self {
        let json = |datum: &aqueduct_core::Datum| {
            serde_json::from_slice(&datum.to_json().expect("encodes")).expect("valid JSON")
        };
        Self {
            topic: record.topic.to_string(),
            key: json(&record.key),
            value: json(&record.value),
            schema: record.value.schema().cloned(),
        }
    }

    pub(crate) fn op(&self) -> &str {
        self.value["op"].as_str().unwrap_or("tombstone")
    }

    pub(crate) fn after(&self) -> &Json {
        &self.value["after"]
    }
}

/// A task and what the log holds of it.
pub(crate) struct Driver {
    task: Box<dyn SourceTask>,
    /// What the log has stored; survives the task.
    pub(crate) stored: Option<SourcePosition>,
    pub(crate) seen: Vec<Seen>,
    /// Whether the log accepts records.
    pub(crate) acknowledge: bool,
    /// Keeps the records as they are, not as JSON.
    pub(crate) keep_records: bool,
    pub(crate) records: Vec<Record>,
    /// Records counted only, not kept.
    pub(crate) count_only: bool,
    pub(crate) count: usize,
}

/// The configuration of most tests.
pub(crate) fn config(url: &str, tables: &str) -> BTreeMap<String, String> {
    let entries = [("url", url), ("tables", tables), ("topic.prefix", "p"), ("slot.name", "s")];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

impl Driver {
    pub(crate) async fn start(
        config: &BTreeMap<String, String>,
        stored: Option<SourcePosition>,
    ) -> Result<Self> {
        let connector = PostgresCdc::new();
        let mut task = connector.task(&plain(config))?;
        let context = SourceContext {
            connector: "p".into(),
            task: 0,
            positions: StoredPositions(stored.iter().cloned().collect()),
            buffer_bytes: 4 << 20,
            reporter: Arc::new(NoReport),
        };
        if let Err(error) = task.start(context).await {
            task.stop().await?;
            return Err(error);
        }
        Ok(Self {
            task,
            stored,
            seen: Vec::new(),
            acknowledge: true,
            keep_records: false,
            records: Vec::new(),
            count_only: false,
            count: 0,
        })
    }

    /// One poll with a limit, as the runtime may drop it; then the commit.
    pub(crate) async fn step(&mut self) -> Result<()> {
        let Ok(batch) = tokio::time::timeout(Duration::from_millis(20), self.task.poll()).await else {
            return Ok(());
        };
        let batch = batch?;
        let mut position = None;
        for record in batch {
            if let Some(record) = &record.record {
                self.count += 1;
                if self.keep_records {
                    self.records.push(record.clone());
                } else if !self.count_only {
                    self.seen.push(Seen::new(record));
                }
            }
            position = record.position.or(position);
        }
        if let Some(position) = position.filter(|_| self.acknowledge) {
            self.stored = Some(position.clone());
            self.task.commit(&[position]).await?;
        }
        Ok(())
    }

    /// Steps until the condition holds, retrying what may be retried.
    pub(crate) async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{what}: not within a minute; saw {:?}",
                self.seen.last()
            );
            match self.step().await {
                Ok(()) => {}
                Err(error) if error.is_retriable() => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{what}: {error:?}"),
            }
        }
    }

    pub(crate) async fn until_count(&mut self, count: usize) {
        self.until(&format!("{count} records"), |driver| driver.count >= count).await;
    }

    /// Steps until an error that is not retried.
    pub(crate) async fn until_error(&mut self) -> aqueduct_core::Error {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < Duration::from_secs(60), "no error within a minute");
            match self.step().await {
                Err(error) if !error.is_retriable() => return error,
                _ => {}
            }
        }
    }

    /// A clean stop; gives what the log has stored.
    pub(crate) async fn stop(mut self) -> Option<SourcePosition> {
        self.task.stop().await.expect("stops");
        self.stored
    }

    /// Forgets the task as a crash would.
    pub(crate) fn crash(self) -> Option<SourcePosition> {
        self.stored
    }

    pub(crate) fn ops(&self) -> Vec<&str> {
        self.seen.iter().map(Seen::op).collect()
    }

    /// What a consumer that folds the records by key ends up with.
    pub(crate) fn fold(&self) -> BTreeMap<String, Json> {
        let mut table = BTreeMap::new();
        for seen in &self.seen {
            match seen.op() {
                "d" | "tombstone" => table.remove(&seen.key.to_string()),
                _ => table.insert(seen.key.to_string(), seen.after().clone()),
            };
        }
        table
    }
}
