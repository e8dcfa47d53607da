//! The tasks that run, and the restarts that wait.
//!
//! **Invariant:** a task is started only after the run before it has ended or was abandoned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::component::Connector;
use aqueduct_core::{Error, ErrorKind};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::shared::{Built, Shared};
use super::state::Failed;
use crate::metrics::ConnectorStats;
use crate::store::StoredConnector;
use crate::task::TaskSetup;
use crate::task::stop::Stop;

/// What the herder hears.
pub(crate) enum Report {
    Started { name: String, task: usize, run: u64 },
    Ended { name: String, task: usize, run: u64, failure: Option<Failed> },
    RestartDue { name: String, task: usize, run: u64 },
}

type Key = (String, usize);

struct Slot {
    run: u64,
    is_source: bool,
    stop: Stop,
    paused: watch::Sender<bool>,
    abort: AbortHandle,
    ended: watch::Receiver<bool>,
}

pub(crate) struct Running {
    shared: Arc<Shared>,
    slots: BTreeMap<Key, Slot>,
    tasks: JoinSet<Report>,
    started: mpsc::Receiver<Report>,
    started_in: mpsc::Sender<Report>,
}

impl Running {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (started_in, started) = mpsc::channel(1024);
        Self { shared, slots: BTreeMap::new(), tasks: JoinSet::new(), started, started_in }
    }

    /// The next report; for ever pending while there is none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Report {
        loop {
            tokio::select! {
                biased;
                Some(report) = self.started.recv() => return report,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => match ended {
                    Ok(report) => {
                        self.forget(&report);
                        return report;
                    }
                    // Abandoned at a stop; nobody waits for it any more.
                    Err(_) => continue,
                },
            }
        }
    }

    fn forget(&mut self, report: &Report) {
        if let Report::Ended { name, task, run, .. } = report {
            let key = (name.clone(), *task);
            if self.slots.get(&key).is_some_and(|slot| slot.run == *run) {
                self.slots.remove(&key);
            }
        }
    }

    pub(crate) fn start(
        &mut self,
        (name, task): Key,
        run: u64,
        paused: bool,
        stored: &StoredConnector,
        stats: Arc<ConnectorStats>,
    ) {
        let stop = Stop::default();
        let (paused_in, paused) = watch::channel(paused);
        let (ended_in, ended) = watch::channel(false);
        let started = self.started_in.clone();
        let report = Report::Started { name: name.clone(), task, run };
        // A full channel only delays the status.
        let on_started = Box::new(move || drop(started.try_send(report)));
        // References are resolved for every run, so that a rotated secret is picked up.
        let built = Built::new(&self.shared, stored);
        let is_source = matches!(&built, Ok(built) if matches!(built.connector, Connector::Source(_)));
        let setup = built.and_then(|built| {
            let config = built.tasks.get(task).cloned();
            Ok(TaskSetup {
                connector: name.as_str().into(),
                task,
                kind: built.connector,
                config: config.ok_or_else(|| Error::fatal("the connector makes fewer tasks than before"))?,
                connector_config: built.resolved,
                framework: built.framework,
                stats: Arc::clone(&stats),
                shared: Arc::clone(&self.shared),
                stop: stop.clone(),
                paused,
                on_started,
            })
        });
        let key = (name.clone(), task);
        let stopping = stop.clone();
        let abort = self.tasks.spawn(async move {
            let began = Instant::now();
            let result = match setup {
                // A task of its own, so that a panic is a failure like any other.
                Ok(setup) => match AbortOnDrop(tokio::spawn(setup.run())).await {
                    Ok(result) => result,
                    Err(panic) => Err(Error::fatal(format!("the task has panicked: {panic}"))),
                },
                Err(error) => Err(error),
            };
            stats.task_ended(task);
            let failure = result.err().filter(|_| !stopping.is_asked()).map(|error| Failed {
                trace: error.full(),
                restartable: error.kind() != ErrorKind::BadConfig,
                ran: began.elapsed(),
            });
            // A source or sink that ends without an error and without being asked has nothing left to do.
            drop(ended_in);
            Report::Ended { name, task, run, failure }
        });
        self.slots.insert(key, Slot { run, is_source, stop, paused: paused_in, abort, ended });
    }

    pub(crate) fn pause(&self, name: &str, paused: bool) {
        for ((of, _), slot) in &self.slots {
            if of == name {
                slot.paused.send_replace(paused);
            }
        }
    }

    pub(crate) fn schedule(&mut self, name: String, task: usize, run: u64, after: Duration) {
        self.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            Report::RestartDue { name, task, run }
        });
    }

    /// Stops these tasks; those that have not ended in time are abandoned.
    pub(crate) async fn stop(&mut self, name: &str, tasks: &[usize], within: Duration) {
        let slots = tasks.iter().filter_map(|task| self.slots.remove(&(name.to_owned(), *task))).collect();
        end(slots, within).await;
    }

    pub(crate) async fn stop_sources(&mut self, within: Duration) {
        let keys: Vec<Key> =
            self.slots.iter().filter(|(_, slot)| slot.is_source).map(|(key, _)| key.clone()).collect();
        let slots = keys.iter().filter_map(|key| self.slots.remove(key)).collect();
        end(slots, within).await;
    }

    pub(crate) async fn stop_all(&mut self, within: Duration) {
        let slots = std::mem::take(&mut self.slots).into_values().collect();
        end(slots, within).await;
        self.tasks.shutdown().await;
    }
}

async fn end(mut slots: Vec<Slot>, within: Duration) {
    let deadline = Instant::now() + within;
    for slot in &slots {
        slot.stop.ask(deadline);
    }
    for slot in &mut slots {
        // The sender is dropped when the task has ended.
        let ended = async { while slot.ended.changed().await.is_ok() {} };
        if tokio::time::timeout_at(deadline, ended).await.is_err() {
            tracing::warn!("a task has not stopped within {within:?} and is abandoned");
            slot.abort.abort();
        }
    }
}

/// Ends the task with its parent.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
