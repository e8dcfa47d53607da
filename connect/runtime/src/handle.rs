//! [`RuntimeHandle`]: the runtime as REST and the command line see it. Reads answer from memory and never wait.

use std::sync::Arc;

use aqueduct_core::component::Registry;
use aqueduct_core::config::Config;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::config::{Applied, Origin, PipelinePlan};
use crate::error::RuntimeError;
use crate::herder::{Command, Shared};
use crate::status::{ConnectorInfo, ConnectorOffsets, ConnectorStatus, TargetState, TaskInfo};
use crate::validate::{self, ConfigInfos};
use crate::view::ConnectorView;

type Answer<T> = Result<T, RuntimeError>;

/// A cloneable handle to a running runtime.
#[derive(Clone)]
pub struct RuntimeHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) shared: Arc<Shared>,
}

impl RuntimeHandle {
    /// The components of this binary.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Id of the Kafka cluster.
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    /// Whether the runtime has started every connector it knows.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Names of all connectors, sorted.
    pub fn connectors(&self) -> Vec<String> {
        self.shared.names()
    }

    /// A connector.
    pub fn get(&self, name: &str) -> Answer<ConnectorInfo> {
        self.shared.info(name).ok_or_else(|| not_found(name))
    }

    /// Its raw config.
    pub fn config(&self, name: &str) -> Answer<Config> {
        self.get(name).map(|info| info.config)
    }

    /// Its tasks with their raw configs.
    pub fn tasks(&self, name: &str) -> Answer<Vec<TaskInfo>> {
        self.shared.tasks(name).ok_or_else(|| not_found(name))
    }

    /// Its status.
    pub fn status(&self, name: &str) -> Answer<ConnectorStatus> {
        let none = || RuntimeError::NotFound(format!("No status found for connector {name}"));
        self.shared.status(name).ok_or_else(none)
    }

    /// The statuses of all connectors, sorted by name.
    pub fn statuses(&self) -> Vec<ConnectorStatus> {
        self.connectors().iter().filter_map(|name| self.shared.status(name)).collect()
    }

    /// Topics it has written to or read from.
    pub fn topics(&self, name: &str) -> Vec<String> {
        self.shared.active_topics(name)
    }

    /// One line per connector, sorted by name.
    pub fn views(&self) -> Vec<ConnectorView> {
        self.shared.views()
    }

    /// The metrics, to be rendered beside others.
    pub fn metrics(&self) -> Arc<Mutex<prometheus_client::registry::Registry>> {
        Arc::clone(&self.shared.metrics.registry)
    }

    /// Checks a config without making anything.
    pub fn validate(&self, class: &str, config: &Config, origin: Origin) -> Answer<ConfigInfos> {
        let resolver = self.shared.resolver(origin);
        validate::infos(&self.shared.registry, class, config, &resolver)
    }

    /// Makes a connector.
    pub async fn create(
        &self,
        name: &str,
        config: Config,
        target: TargetState,
        origin: Origin,
    ) -> Answer<ConnectorInfo> {
        let name = name.to_owned();
        self.ask(|reply| Command::Create { name, config, target, origin, reply }).await
    }

    /// Makes a connector or changes its config; the answer says whether it was made.
    pub async fn put_config(
        &self,
        name: &str,
        config: Config,
        origin: Origin,
    ) -> Answer<(bool, ConnectorInfo)> {
        let name = name.to_owned();
        self.ask(|reply| Command::PutConfig { name, config, origin, reply }).await
    }

    /// Changes keys of its config; `None` removes one.
    pub async fn patch_config(
        &self,
        name: &str,
        patch: Vec<(String, Option<String>)>,
        origin: Origin,
    ) -> Answer<ConnectorInfo> {
        let mut config = self.config(name)?;
        for (key, value) in patch {
            match value {
                Some(value) => config.insert(key, value),
                None => config.remove(&key),
            };
        }
        self.put_config(name, config, origin).await.map(|(_, info)| info)
    }

    /// Deletes a connector; its offsets are kept.
    pub async fn delete(&self, name: &str) -> Answer<()> {
        let name = name.to_owned();
        self.ask(|reply| Command::Delete { name, reply }).await
    }

    /// Pauses it: tasks keep their resources.
    pub async fn pause(&self, name: &str) -> Answer<()> {
        self.target(name, TargetState::Paused).await
    }

    /// Runs it again after a pause or stop.
    pub async fn resume(&self, name: &str) -> Answer<()> {
        self.target(name, TargetState::Started).await
    }

    /// Stops it: no tasks are left.
    pub async fn stop(&self, name: &str) -> Answer<()> {
        self.target(name, TargetState::Stopped).await
    }

    async fn target(&self, name: &str, target: TargetState) -> Answer<()> {
        let name = name.to_owned();
        self.ask(|reply| Command::Target { name, target, reply }).await
    }

    /// Restarts the connector, and its tasks where asked; the answer shows what is restarted as `RESTARTING`.
    pub async fn restart(
        &self,
        name: &str,
        include_tasks: bool,
        only_failed: bool,
    ) -> Answer<ConnectorStatus> {
        let name = name.to_owned();
        self.ask(|reply| Command::Restart { name, include_tasks, only_failed, reply }).await
    }

    /// Restarts one task.
    pub async fn restart_task(&self, name: &str, task: usize) -> Answer<()> {
        let name = name.to_owned();
        self.ask(|reply| Command::RestartTask { name, task, reply }).await
    }

    /// Stored positions of a source, committed offsets of a sink.
    pub async fn offsets(&self, name: &str) -> Answer<ConnectorOffsets> {
        self.shared.offsets(name).await
    }

    /// Makes the connectors of these pipelines what their files say, and stops those of pipelines not given.
    /// Topics are created before anything starts. All files are checked before the first change.
    pub async fn apply(&self, pipelines: Vec<PipelinePlan>) -> Answer<Applied> {
        self.ask(|reply| Command::Apply { pipelines, reply }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Answer<T>>) -> Command) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| RuntimeError::Stopping)?;
        answer.await.map_err(|_| RuntimeError::Stopping)?
    }
}

fn not_found(name: &str) -> RuntimeError {
    RuntimeError::NotFound(format!("Connector {name} not found"))
}
