//! A running task, and what its parts share.

pub(crate) mod acks;
pub(crate) mod dead_letter;
mod inputs;
pub(crate) mod refused;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod steps;
pub(crate) mod stop;
pub(crate) mod tracker;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_convert::ConverterKind;
use aqueduct_core::component::Connector;
use aqueduct_core::config::ResolvedConfig;
use aqueduct_core::converter::Converter;
use aqueduct_core::{Error, Result};
use tokio::sync::watch as signal;
use tokio_util::sync::CancellationToken;

use crate::framework::{self, FrameworkConfig};
use crate::herder::Shared;
use crate::metrics::ConnectorStats;
use crate::task::stop::Stop;

/// Told once the task has started.
pub(crate) type OnStarted = Box<dyn FnOnce() + Send + Sync>;

/// Everything a task is given.
pub(crate) struct TaskSetup {
    pub(crate) connector: Arc<str>,
    pub(crate) task: usize,
    pub(crate) kind: Connector,
    /// Config of the task.
    pub(crate) config: ResolvedConfig,
    /// Config of its connector, for the framework's keys.
    pub(crate) connector_config: ResolvedConfig,
    pub(crate) framework: FrameworkConfig,
    pub(crate) stats: Arc<ConnectorStats>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: Stop,
    pub(crate) paused: signal::Receiver<bool>,
    pub(crate) on_started: OnStarted,
}

impl TaskSetup {
    /// Runs the task to its end.
    pub(crate) async fn run(self) -> Result<()> {
        match self.kind.clone() {
            Connector::Source(source) => {
                let task = source.task(&self.config)?;
                source::run(self, task).await
            }
            Connector::Sink(sink) => {
                let task = sink.task(&self.config)?;
                sink::run(self, task).await
            }
        }
    }

    /// `orders-0`.
    pub(crate) fn id(&self) -> String {
        format!("{}-{}", self.connector, self.task)
    }

    /// Converters of keys and values.
    pub(crate) fn converters(&self) -> Result<(Arc<dyn Converter>, Arc<dyn Converter>)> {
        let config = framework::aliases(&self.connector_config);
        let schemas = self.shared.schema_store();
        let key = ConverterKind::from_config("key.converter", &config)?.build(&schemas);
        let value = ConverterKind::from_config("value.converter", &config)?.build(&schemas);
        Ok((key, value))
    }

    /// `producer.override.*` and friends, without the prefix.
    pub(crate) fn client_overrides(&self, prefix: &str) -> BTreeMap<String, String> {
        let all = self.connector_config.range(prefix.to_owned()..);
        let own =
            all.map_while(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.text.clone())));
        own.collect()
    }
}

/// Waits, unless the task is stopped meanwhile.
pub(crate) async fn pause(cancel: &CancellationToken, pause: Duration) -> Result<()> {
    tokio::select! {
        () = cancel.cancelled() => Err(Error::cancelled()),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}
