//! What readers see: answered from memory, without asking the herder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aqueduct_client::{Admin, ClientSettings};
use aqueduct_convert::SchemaStore;
use aqueduct_core::component::{Connector, Registry};
use aqueduct_core::config::reference::resolve;
use aqueduct_core::config::{Config, Problem, ResolvedConfig};
use parking_lot::RwLock;

use super::state::HerdConnector;
use crate::config::{Origin, RuntimeConfig};
use crate::error::RuntimeError;
use crate::framework::FrameworkConfig;
use crate::metrics::{ConnectorStats, Metrics};
use crate::secrets::ReferenceResolver;
use crate::status::{
    ComponentState, ConnectorInfo, ConnectorKind, ConnectorOffset, ConnectorOffsets, ConnectorStatus, State,
    TaskId, TaskInfo, TaskStatus,
};
use crate::store::{StoredConnector, Stores};
use crate::topics::Topics;
use crate::view::ConnectorView;

/// Shared by the herder, the tasks and every handle.
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) config: RuntimeConfig,
    pub(crate) cluster_id: String,
    pub(crate) settings: ClientSettings,
    pub(crate) admin: Admin,
    pub(crate) topics: Topics,
    pub(crate) stores: Stores,
    pub(crate) metrics: Metrics,
    pub(super) connectors: RwLock<BTreeMap<String, Seen>>,
    ready: AtomicBool,
}

/// A connector as readers see it.
pub(super) struct Seen {
    pub(super) stored: StoredConnector,
    pub(super) kind: ConnectorKind,
    pub(super) stats: Arc<ConnectorStats>,
    pub(super) herd: Option<HerdConnector>,
}

impl Shared {
    pub(crate) fn new(
        config: RuntimeConfig,
        cluster_id: String,
        settings: ClientSettings,
        admin: Admin,
        stores: Stores,
    ) -> Self {
        Self {
            registry: config.registry.clone(),
            config,
            cluster_id,
            settings,
            topics: Topics::new(admin.clone()),
            admin,
            stores,
            metrics: Metrics::new(),
            connectors: RwLock::default(),
            ready: AtomicBool::new(false),
        }
    }

    pub(crate) fn client_settings(&self) -> &ClientSettings {
        &self.settings
    }

    pub(crate) fn schema_store(&self) -> Arc<dyn SchemaStore> {
        Arc::clone(&self.stores.schemas) as _
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(crate) fn resolver(&self, origin: Origin) -> ReferenceResolver {
        ReferenceResolver::new(origin, &self.config.rest_trust)
    }

    /// References looked up, now.
    pub(super) fn resolve(
        &self,
        stored: &StoredConnector,
    ) -> Result<(Connector, ResolvedConfig), Vec<Problem>> {
        let connector = self.registry.connector_of(&stored.config);
        let connector = connector.map_err(|e| vec![Problem::new("connector.class", e.full())])?;
        Ok((connector, resolve(&stored.config, &self.resolver(stored.origin))?))
    }

    pub(super) fn kind(&self, config: &Config) -> ConnectorKind {
        match self.registry.connector_of(config) {
            Ok(Connector::Source(_)) => ConnectorKind::Source,
            Ok(Connector::Sink(_)) => ConnectorKind::Sink,
            Err(_) => ConnectorKind::Unknown,
        }
    }

    pub(super) fn stats(&self, name: &str) -> Option<Arc<ConnectorStats>> {
        self.connectors.read().get(name).map(|seen| Arc::clone(&seen.stats))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.connectors.read().keys().cloned().collect()
    }

    pub(crate) fn info(&self, name: &str) -> Option<ConnectorInfo> {
        let connectors = self.connectors.read();
        let seen = connectors.get(name)?;
        let count = seen.herd.as_ref().map_or(0, |herd| herd.tasks.len());
        let tasks = (0..count).map(|task| TaskId { connector: name.to_owned(), task });
        Some(ConnectorInfo {
            name: name.to_owned(),
            config: seen.stored.config.clone(),
            tasks: tasks.collect(),
            kind: seen.kind,
        })
    }

    pub(crate) fn tasks(&self, name: &str) -> Option<Vec<TaskInfo>> {
        let info = self.info(name)?;
        let class = info.config.get("connector.class").cloned().unwrap_or_default();
        let config = |config: &Config| {
            let mut config = config.clone();
            config.insert("task.class".into(), class.clone());
            config
        };
        Some(info.tasks.iter().map(|id| TaskInfo { id: id.clone(), config: config(&info.config) }).collect())
    }

    pub(crate) fn status(&self, name: &str) -> Option<ConnectorStatus> {
        let connectors = self.connectors.read();
        let seen = connectors.get(name)?;
        let worker_id = || self.config.worker_id.clone();
        let (state, trace, tasks) = match &seen.herd {
            None => (State::Unassigned, None, &[][..]),
            Some(herd) => (herd.state, herd.trace.clone(), &herd.tasks[..]),
        };
        let tasks = tasks.iter().enumerate().map(|(id, task)| TaskStatus {
            id,
            state: task.state,
            worker_id: worker_id(),
            trace: task.trace.clone().or_else(|| seen.stats.trouble(id)),
        });
        Some(ConnectorStatus {
            name: name.to_owned(),
            connector: ComponentState { state, worker_id: worker_id(), trace },
            tasks: tasks.collect(),
            kind: seen.kind,
        })
    }

    pub(crate) fn active_topics(&self, name: &str) -> Vec<String> {
        self.stores.statuses.topics(name)
    }

    pub(crate) fn views(&self) -> Vec<ConnectorView> {
        self.connectors.read().iter().map(|(name, seen)| view(name, seen)).collect()
    }

    /// Stored positions of a source, committed offsets of a sink.
    pub(crate) async fn offsets(&self, name: &str) -> Result<ConnectorOffsets, RuntimeError> {
        let not_found = || RuntimeError::NotFound(format!("Connector {name} not found"));
        let info = self.info(name).ok_or_else(not_found)?;
        if info.kind != ConnectorKind::Sink {
            let stored = self.stores.offsets.of(name).0;
            let offsets = stored.into_iter().map(|position| ConnectorOffset {
                partition: (*position.partition).clone(),
                offset: (*position.offset).clone(),
            });
            return Ok(ConnectorOffsets { offsets: offsets.collect() });
        }
        let mut topics = self.active_topics(name);
        let listed = info.config.get("topics").map(String::as_str).unwrap_or_default();
        topics.extend(listed.split(',').map(|topic| topic.trim().to_owned()));
        let committed = self.admin.committed(&format!("connect-{name}"), &topics).await?;
        let offsets = committed.into_iter().map(|(tp, offset)| ConnectorOffset {
            partition: [
                ("kafka_topic".to_owned(), tp.topic.to_string().into()),
                ("kafka_partition".to_owned(), tp.partition.into()),
            ]
            .into_iter()
            .collect(),
            offset: [("kafka_offset".to_owned(), offset.into())].into_iter().collect(),
        });
        Ok(ConnectorOffsets { offsets: offsets.collect() })
    }

    /// Called about once a second.
    pub(crate) fn sample(&self, elapsed_ms: i64) {
        for seen in self.connectors.read().values() {
            seen.stats.sample(elapsed_ms);
        }
    }
}

fn view(name: &str, seen: &Seen) -> ConnectorView {
    let tasks = seen.herd.as_ref().map(|herd| &herd.tasks[..]).unwrap_or_default();
    let own = seen.herd.as_ref().map_or(State::Unassigned, |herd| herd.state);
    let has = |state| tasks.iter().any(|task| task.state == state);
    let state = if own == State::Running && has(State::Failed) {
        State::Failed
    } else if own == State::Running && has(State::Restarting) {
        State::Restarting
    } else {
        own
    };
    let trace = seen.herd.as_ref().and_then(|herd| herd.trace.clone());
    let stats = &seen.stats;
    ConnectorView {
        name: name.to_owned(),
        pipeline: seen.stored.config.get("aqueduct.pipeline").cloned(),
        kind: seen.kind,
        class: seen.stored.config.get("connector.class").cloned().unwrap_or_default(),
        state,
        tasks_running: tasks.iter().filter(|task| task.state == State::Running).count(),
        tasks: tasks.len(),
        records: stats.records.get(),
        bytes: stats.bytes.get(),
        rate: stats.rate(),
        errors: stats.errors.get(),
        dead_letters: stats.dead_letters.get(),
        retries: stats.retries.get(),
        restarts: stats.restarts.get(),
        lag: stats.lag(),
        last_error: trace.or_else(|| stats.last_error_text()),
        progress: stats.progress(),
        retention_warning: stats.retention_warning(),
    }
}

/// A connector that can run: its parts, with references resolved.
pub(super) struct Built {
    pub(super) connector: Connector,
    pub(super) resolved: ResolvedConfig,
    pub(super) framework: FrameworkConfig,
    pub(super) tasks: Vec<ResolvedConfig>,
}

impl Built {
    pub(super) fn new(shared: &Shared, stored: &StoredConnector) -> aqueduct_core::Result<Self> {
        let (connector, resolved) = shared.resolve(stored).map_err(|problems| Problem::error(&problems))?;
        let framework = FrameworkConfig::parse(&connector, &resolved)?;
        let tasks = match &connector {
            Connector::Source(source) => source.task_configs(&resolved, framework.max_tasks)?,
            Connector::Sink(sink) => sink.task_configs(&resolved, framework.max_tasks)?,
        };
        if tasks.len() > framework.max_tasks {
            return Err(aqueduct_core::Error::bad_config(format!(
                "the connector wants {} tasks, more than `tasks.max` = {}",
                tasks.len(),
                framework.max_tasks
            )));
        }
        Ok(Self { connector, resolved, framework, tasks })
    }
}
