//! The herder: one owner of all connectors and tasks. Commands and what tasks report come to it as messages.
//!
//! **Invariant:** a change is stored before it takes effect, and one connector's change never stops another.

mod apply;
mod running;
mod shared;
pub(crate) mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::config::Config;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::config::{Applied, Origin, PipelinePlan};
use crate::error::RuntimeError;
use crate::status::{ConnectorInfo, ConnectorStatus, State, TargetState};
use crate::store::{StoredConnector, StoredTarget};
use crate::validate;
use running::{Report, Running};
pub(crate) use shared::Shared;
use shared::{Built, Seen};
use state::{Effect, Event, Herd};

type Reply<T> = oneshot::Sender<Result<T, RuntimeError>>;

/// What handles ask for.
pub(crate) enum Command {
    Create { name: String, config: Config, target: TargetState, origin: Origin, reply: Reply<ConnectorInfo> },
    PutConfig { name: String, config: Config, origin: Origin, reply: Reply<(bool, ConnectorInfo)> },
    Delete { name: String, reply: Reply<()> },
    Target { name: String, target: TargetState, reply: Reply<()> },
    Restart { name: String, include_tasks: bool, only_failed: bool, reply: Reply<ConnectorStatus> },
    RestartTask { name: String, task: usize, reply: Reply<()> },
    Apply { pipelines: Vec<PipelinePlan>, reply: Reply<Applied> },
    Shutdown { deadline: Duration, reply: oneshot::Sender<()> },
}

/// How long a task may take to end before it is abandoned.
const STOP_WITHIN: Duration = Duration::from_secs(30);

pub(crate) struct Herder {
    shared: Arc<Shared>,
    herd: Herd,
    running: Running,
}

impl Herder {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { running: Running::new(Arc::clone(&shared)), shared, herd: Herd::default() }
    }

    /// Starts what is stored, except connectors of pipelines: they wait for their files.
    pub(crate) async fn start_stored(&mut self) {
        for (name, stored) in self.shared.stores.configs.connectors() {
            self.see(&name, &stored);
            if !stored.config.contains_key("aqueduct.pipeline") {
                self.configure(&name).await;
            }
        }
        self.shared.set_ready();
    }

    /// Serves until it is shut down or every handle is gone.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut sample = tokio::time::interval(Duration::from_secs(1));
        let mut last = Instant::now();
        loop {
            tokio::select! {
                biased;
                report = self.running.next() => self.on_report(report).await,
                command = commands.recv() => match command {
                    None => return self.shutdown(STOP_WITHIN).await,
                    Some(Command::Shutdown { deadline, reply }) => {
                        self.shutdown(deadline).await;
                        if reply.send(()).is_err() {
                            tracing::debug!("nobody waits for the end of the shutdown");
                        }
                        return;
                    }
                    Some(command) => self.on_command(command).await,
                },
                _ = sample.tick() => {
                    let elapsed = std::mem::replace(&mut last, Instant::now()).elapsed();
                    self.shared.sample(i64::try_from(elapsed.as_millis()).unwrap_or(1000));
                }
            }
        }
    }

    async fn on_report(&mut self, report: Report) {
        match report {
            Report::Started { name, task, run } => self.step(Event::TaskStarted { name, task, run }).await,
            Report::Ended { name, task, run, failure } => {
                if let (Some(failed), Some(stats)) = (&failure, self.shared.stats(&name)) {
                    stats.last_error(failed.trace.clone());
                    tracing::error!(connector = name, task, "the task has failed: {}", failed.trace);
                    // A topic may have been deleted under it.
                    self.shared.topics.forget_all().await;
                }
                self.step(Event::TaskEnded { name, task, run, failure }).await;
            }
            Report::RestartDue { name, task, run } => {
                if let Some(stats) = self.shared.stats(&name) {
                    stats.restarts.inc();
                }
                self.step(Event::RestartDue { name, task, run }).await;
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Create { name, config, target, origin, reply } => {
                drop(reply.send(self.create(name, config, target, origin).await));
            }
            Command::PutConfig { name, config, origin, reply } => {
                drop(reply.send(self.put_config(name, config, origin).await));
            }
            Command::Delete { name, reply } => drop(reply.send(self.delete(name).await)),
            Command::Target { name, target, reply } => {
                let target = StoredTarget { state: target, by_pipeline: false };
                drop(reply.send(self.target(name, target).await));
            }
            Command::Restart { name, include_tasks, only_failed, reply } => {
                drop(reply.send(self.restart(name, include_tasks, only_failed).await));
            }
            Command::RestartTask { name, task, reply } => {
                drop(reply.send(self.restart_task(name, task).await))
            }
            Command::Apply { pipelines, reply } => drop(reply.send(self.apply(pipelines).await)),
            Command::Shutdown { .. } => {}
        }
    }

    async fn create(
        &mut self,
        name: String,
        config: Config,
        target: TargetState,
        origin: Origin,
    ) -> Result<ConnectorInfo, RuntimeError> {
        let name = name.trim().to_owned();
        if self.exists(&name) {
            return Err(RuntimeError::AlreadyExists(name));
        }
        let stored = self.check(&name, config, origin)?;
        // Before the config, so that it never starts in another state.
        self.shared
            .stores
            .configs
            .put_target(&name, StoredTarget { state: target, by_pipeline: false })
            .await?;
        self.store(&name, stored).await?;
        self.info(&name)
    }

    async fn put_config(
        &mut self,
        name: String,
        config: Config,
        origin: Origin,
    ) -> Result<(bool, ConnectorInfo), RuntimeError> {
        let created = !self.exists(&name);
        let stored = self.check(&name, config, origin)?;
        self.store(&name, stored).await?;
        Ok((created, self.info(&name)?))
    }

    async fn delete(&mut self, name: String) -> Result<(), RuntimeError> {
        self.must_exist(&name)?;
        self.shared.stores.configs.delete(&name).await?;
        self.step(Event::Deleted { name }).await;
        Ok(())
    }

    async fn target(&mut self, name: String, target: StoredTarget) -> Result<(), RuntimeError> {
        self.must_exist(&name)?;
        self.shared.stores.configs.put_target(&name, target).await?;
        let stopped = self.herd.get(&name).is_none_or(|connector| {
            matches!(connector.state, State::Stopped | State::Failed) || connector.tasks.is_empty()
        });
        if stopped && target.state != TargetState::Stopped {
            self.configure(&name).await;
        } else {
            self.step(Event::Target { name, target: target.state }).await;
        }
        Ok(())
    }

    async fn restart(
        &mut self,
        name: String,
        include_tasks: bool,
        only_failed: bool,
    ) -> Result<ConnectorStatus, RuntimeError> {
        self.must_exist(&name)?;
        let failed = self.herd.get(&name).is_none_or(|connector| connector.state == State::Failed);
        if failed {
            // Its tasks could not be made; everything starts anew.
            self.configure(&name).await;
        } else if include_tasks {
            self.step(Event::RestartTasks { name: name.clone(), only_failed }).await;
        }
        let none = || RuntimeError::NotFound(format!("No status found for connector {name}"));
        self.shared.status(&name).ok_or_else(none)
    }

    async fn restart_task(&mut self, name: String, task: usize) -> Result<(), RuntimeError> {
        self.must_exist(&name)?;
        if self.herd.get(&name).is_none_or(|connector| task >= connector.tasks.len()) {
            return Err(RuntimeError::NotFound(format!("Unknown task: {name}-{task}")));
        }
        self.step(Event::RestartTask { name, task }).await;
        Ok(())
    }

    fn exists(&self, name: &str) -> bool {
        self.shared.connectors.read().contains_key(name)
    }

    fn must_exist(&self, name: &str) -> Result<(), RuntimeError> {
        if self.exists(name) {
            Ok(())
        } else {
            Err(RuntimeError::NotFound(format!("Unknown connector {name}")))
        }
    }

    fn info(&self, name: &str) -> Result<ConnectorInfo, RuntimeError> {
        self.shared.info(name).ok_or_else(|| RuntimeError::NotFound(format!("Connector {name} not found")))
    }

    /// The config as it is stored, or everything that is wrong with it.
    fn check(&self, name: &str, mut config: Config, origin: Origin) -> Result<StoredConnector, RuntimeError> {
        let resolver = self.shared.resolver(origin);
        let problems = validate::problems(&self.shared.registry, name, &config, &resolver);
        if !problems.is_empty() {
            return Err(RuntimeError::Invalid(problems));
        }
        config.insert("name".into(), name.to_owned());
        Ok(StoredConnector { config, origin })
    }

    async fn store(&mut self, name: &str, stored: StoredConnector) -> Result<(), RuntimeError> {
        self.shared.stores.configs.put(name, &stored).await?;
        self.see(name, &stored);
        self.configure(name).await;
        Ok(())
    }

    /// Makes it visible to readers.
    fn see(&self, name: &str, stored: &StoredConnector) {
        let kind = self.shared.kind(&stored.config);
        let stats = self.shared.metrics.connector(name, kind.name());
        let mut connectors = self.shared.connectors.write();
        let herd = connectors.get(name).and_then(|seen| seen.herd.clone());
        let stats = connectors
            .get(name)
            .filter(|seen| seen.kind == kind)
            .map_or(stats, |seen| Arc::clone(&seen.stats));
        connectors.insert(name.to_owned(), Seen { stored: stored.clone(), kind, stats, herd });
    }

    /// Starts a connector from its stored config, in its stored target state.
    async fn configure(&mut self, name: &str) {
        let Some(stored) = self.stored(name) else { return };
        let name = name.to_owned();
        let target = self.shared.stores.configs.target(&name).state;
        let event = match Built::new(&self.shared, &stored) {
            Ok(built) => {
                Event::Configured { name, tasks: built.tasks.len(), target, restart: built.framework.restart }
            }
            Err(error) => {
                tracing::error!(connector = name, "the connector cannot start: {}", error.full());
                Event::Broken { name, trace: error.full() }
            }
        };
        self.step(event).await;
    }

    fn stored(&self, name: &str) -> Option<StoredConnector> {
        self.shared.connectors.read().get(name).map(|seen| seen.stored.clone())
    }

    async fn step(&mut self, event: Event) {
        for effect in self.herd.step(event) {
            self.perform(effect).await;
        }
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::StartTask { name, task, run, paused } => {
                let stored = self.stored(&name);
                if let (Some(stored), Some(stats)) = (stored, self.shared.stats(&name)) {
                    self.running.start((name.clone(), task), run, paused, &stored, stats);
                }
                self.publish_task(&name, task).await;
            }
            Effect::StopTasks { name, tasks } => self.running.stop(&name, &tasks, STOP_WITHIN).await,
            Effect::Pause { name, paused } => self.running.pause(&name, paused),
            Effect::ScheduleRestart { name, task, run, after } => {
                self.running.schedule(name, task, run, after)
            }
            Effect::PublishConnector { name } => {
                self.mirror(&name);
                let Some(connector) = self.herd.get(&name) else { return };
                let (store, worker) = (&self.shared.stores.statuses, &self.shared.config.worker_id);
                store.put_connector(&name, connector.state, connector.trace.as_deref(), worker, 0).await;
                store.drop_tasks(&name, connector.tasks.len()).await;
            }
            Effect::PublishTask { name, task } => self.publish_task(&name, task).await,
            Effect::Forget { name } => {
                let seen = self.shared.connectors.write().remove(&name);
                if let Some(seen) = seen {
                    self.shared.metrics.remove(&name, seen.kind.name());
                }
                self.shared.stores.statuses.delete(&name).await;
            }
        }
    }

    async fn publish_task(&self, name: &str, task: usize) {
        self.mirror(name);
        let Some(slot) = self.herd.get(name).and_then(|connector| connector.tasks.get(task)) else { return };
        let (store, worker) = (&self.shared.stores.statuses, &self.shared.config.worker_id);
        store.put_task((name, task), slot.state, slot.trace.as_deref(), worker, 0).await;
    }

    /// Shows readers what the herder knows.
    fn mirror(&self, name: &str) {
        let Some(connector) = self.herd.get(name) else { return };
        let mut counts = BTreeMap::new();
        for task in &connector.tasks {
            *counts.entry(task.state.name()).or_default() += 1;
        }
        self.shared.metrics.set_tasks(name, &counts);
        if let Some(seen) = self.shared.connectors.write().get_mut(name) {
            seen.herd = Some(connector.clone());
        }
    }

    /// Sources first, so that sinks may still take what is under way; then sinks; then the stores.
    async fn shutdown(&mut self, deadline: Duration) {
        let end = Instant::now() + deadline;
        self.running.stop_sources(deadline / 2).await;
        self.running.stop_all(end.saturating_duration_since(Instant::now())).await;
        let (store, worker) = (&self.shared.stores.statuses, &self.shared.config.worker_id);
        for name in self.herd.names() {
            let Some(connector) = self.herd.get(&name) else { continue };
            for (task, slot) in connector.tasks.iter().enumerate() {
                if slot.state != State::Failed {
                    store.put_task((&name, task), State::Unassigned, None, worker, 0).await;
                }
            }
        }
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        self.shared.stores.close(left.min(Duration::from_secs(5))).await;
    }
}
