//! `webhook`: a source that takes records by HTTP requests.
//!
//! | answer | when |
//! |---|---|
//! | 200 | every record of the request, or its dead letter, is durable in the log |
//! | 401 | the signature or the token is wrong |
//! | 413 | the body is larger than `max.body`; it is not read |
//! | 422 | a record can never pass and dead letters are off: nothing of the request was written |
//! | 429 | too much is under way; `Retry-After` says when to come again |
//! | 503 | the task stops, or the log did not acknowledge in time; the request may have been written |
//!
//! **Invariant:** signatures are checked over the bytes as they came, before anything looks into them; what is under way
//! is bounded in bytes, headers and records included.

mod config;
mod records;
mod server;
mod signature;

use std::sync::{Arc, LazyLock};

use aqueduct_core::component::Spec;
use aqueduct_core::config::{Problem, ResolvedConfig};
use aqueduct_core::source::{SourceConnector, SourceContext, SourceRecord, SourceTask};
use aqueduct_core::{Error, Result};
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use config::{WebhookConfig, spec};
use server::Intake;

/// Requests that wait to be polled; their bytes are bounded besides.
const QUEUE: usize = 1024;
/// Most records of one batch, but for a request of more.
const BATCH: usize = 2000;

static SPEC: LazyLock<Spec> = LazyLock::new(spec);

/// The `webhook` source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Webhook;

#[async_trait]
impl SourceConnector for Webhook {
    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        // The caller reports what the declared types show.
        let Ok(values) = SPEC.config.parse(config) else { return Vec::new() };
        let Err(error) = WebhookConfig::new(&values) else { return Vec::new() };
        let key = error.message().split('`').nth(1).unwrap_or("listen").to_owned();
        vec![Problem::new(key, error.full())]
    }

    fn topics(&self, config: &ResolvedConfig) -> Result<Vec<String>> {
        Ok(vec![SPEC.parse(config)?.text("topic")?.to_owned()])
    }

    fn task(&self, config: &ResolvedConfig) -> Result<Box<dyn SourceTask>> {
        let config = WebhookConfig::new(&SPEC.parse(config)?)?;
        Ok(Box::new(Task { config: Some(config), running: None }))
    }
}

struct Task {
    config: Option<WebhookConfig>,
    running: Option<Running>,
}

struct Running {
    requests: mpsc::Receiver<Vec<SourceRecord>>,
    /// Dropped, it ends the server.
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

#[async_trait]
impl SourceTask for Task {
    async fn start(&mut self, context: SourceContext) -> Result<()> {
        let config = self.config.take().ok_or_else(|| Error::fatal("a task starts once"))?;
        let listener = tokio::net::TcpListener::bind(config.listen).await.map_err(|error| {
            Error::fatal(format!("`listen`: cannot listen on {}", config.listen)).with_source(error)
        })?;
        let address =
            listener.local_addr().map_err(|error| Error::fatal("the listener").with_source(error))?;
        tracing::info!(connector = %context.connector, "webhook on http://{address}{}", config.path);
        let (sender, requests) = mpsc::channel(QUEUE);
        let (stop, stopped) = oneshot::channel::<()>();
        let intake = Arc::new(Intake::new(config, context.buffer_bytes, sender));
        let server = tokio::spawn(server::serve(listener, intake, async {
            stopped.await.ok();
        }));
        self.running = Some(Running { requests, stop, server });
        Ok(())
    }

    async fn poll(&mut self) -> Result<Vec<SourceRecord>> {
        let running = self.running.as_mut().ok_or_else(|| Error::fatal("the task was not started"))?;
        let first = running.requests.recv().await;
        let mut batch = first.ok_or_else(|| Error::fatal("the server of the webhook has ended"))?;
        while batch.len() < BATCH {
            match running.requests.try_recv() {
                Ok(request) => batch.extend(request),
                Err(_) => break,
            }
        }
        Ok(batch)
    }

    async fn stop(&mut self) -> Result<()> {
        let Some(Running { requests, stop, server }) = self.running.take() else { return Ok(()) };
        // Who still waits sees the receipts dropped, and answers 503.
        drop(requests);
        drop(stop);
        server.await.ok();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
