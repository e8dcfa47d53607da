//! The sink task: a lane for each partition, and what they share.

mod answer;
mod batch;
mod lane;
pub(crate) mod template;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use aqueduct_core::component::Spec;
use aqueduct_core::config::{Problem, ResolvedConfig};
use aqueduct_core::sink::{Offsets, SinkConnector, SinkContext, SinkRecord, SinkTask, TopicPartition};
use aqueduct_core::{Error, Result};
use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::config::{HttpConfig, spec};
use lane::{Lane, Shared};

static SPEC: LazyLock<Spec> = LazyLock::new(spec);

/// The `http` sink.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpSink;

#[async_trait]
impl SinkConnector for HttpSink {
    fn spec(&self) -> &Spec {
        &SPEC
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        // The caller reports what the declared types show.
        let Ok(values) = SPEC.config.parse(config) else { return Vec::new() };
        let Err(error) = HttpConfig::new(&values) else { return Vec::new() };
        let key = error.message().split('`').nth(1).unwrap_or("url").to_owned();
        vec![Problem::new(key, error.full())]
    }

    fn task(&self, config: &ResolvedConfig) -> Result<Box<dyn SinkTask>> {
        let config = HttpConfig::new(&SPEC.parse(config)?)?;
        Ok(Box::new(Task { config: Some(config), shared: None, lanes: BTreeMap::new() }))
    }
}

struct Task {
    config: Option<HttpConfig>,
    shared: Option<Arc<Shared>>,
    lanes: BTreeMap<TopicPartition, Lane>,
}

#[async_trait]
impl SinkTask for Task {
    async fn start(&mut self, context: SinkContext) -> Result<()> {
        let config = self.config.take().ok_or_else(|| Error::fatal("a task starts once"))?;
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(config.timeout)
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(config.in_flight)
            .user_agent(concat!("aqueduct/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &config.ca {
            let wrong = |why: &dyn std::fmt::Display| {
                Error::bad_config(format!("`tls.ca`: `{}` cannot be used: {why}", path.display()))
            };
            let pem = tokio::fs::read(path).await.map_err(|error| wrong(&error))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))? {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client.build().map_err(|error| Error::fatal("the HTTP client").with_source(error))?;
        let budget = u32::try_from(context.buffer_bytes).unwrap_or(u32::MAX).max(1);
        self.shared = Some(Arc::new(Shared {
            client,
            in_flight: Semaphore::new(config.in_flight),
            budget,
            buffered: Arc::new(Semaphore::new(budget as usize)),
            config,
            context,
        }));
        Ok(())
    }

    async fn open(&mut self, partitions: &Offsets) -> Result<()> {
        let shared = self.shared()?;
        for (origin, offset) in partitions {
            self.lanes.insert(origin.clone(), Lane::new(Arc::clone(&shared), origin.clone(), *offset));
        }
        Ok(())
    }

    /// Waits while as much is buffered as the task may hold; what is put counts until its answer.
    async fn put(&mut self, records: Vec<SinkRecord>) -> Result<()> {
        self.failure()?;
        let shared = self.shared()?;
        for record in records {
            let size = u32::try_from(record.record.size()).unwrap_or(u32::MAX).min(shared.budget);
            let permit = Arc::clone(&shared.buffered).acquire_many_owned(size);
            let permit =
                permit.await.map_err(|error| Error::fatal("the budget is closed").with_source(error))?;
            let Some(lane) = self.lanes.get(&record.origin) else {
                return Err(Error::fatal(format!("a record of {}, which is not open", record.origin)));
            };
            lane.push(record, permit);
        }
        self.failure()
    }

    async fn flush(&mut self) -> Result<()> {
        for lane in self.lanes.values() {
            lane.idle().await;
        }
        self.failure()
    }

    async fn pre_commit(&mut self, taken: &Offsets) -> Result<Offsets> {
        let durable = |(origin, taken): (&TopicPartition, &i64)| {
            let lane = self.lanes.get(origin)?;
            Some((origin.clone(), lane.durable(*taken)))
        };
        Ok(taken.iter().filter_map(durable).collect())
    }

    async fn close(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        for origin in partitions {
            self.lanes.remove(origin);
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        self.lanes.clear();
        Ok(())
    }
}

impl Task {
    fn shared(&self) -> Result<Arc<Shared>> {
        self.shared.clone().ok_or_else(|| Error::fatal("the task was not started"))
    }

    /// The first failure of a lane, which ends the task.
    fn failure(&self) -> Result<()> {
        self.lanes.values().find_map(Lane::failure).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
