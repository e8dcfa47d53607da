//! A sink without its task: the converters and steps that its connector would run, on records that are given to them.
//!
//! **Invariant:** the decoder and the steps are those of a running sink, so that both come to the same result.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_client::ConsumedRecord;
use aqueduct_convert::{ConverterKind, SchemaStore, encode_header};
use aqueduct_core::component::Registry;
use aqueduct_core::config::reference::{Resolver, resolve};
use aqueduct_core::config::{Config, Problem};
use aqueduct_core::converter::{Converter, Part};
use aqueduct_core::sink::Consumed;
use aqueduct_core::{Error, Record, Result};
use tokio_util::sync::CancellationToken;

use crate::backoff::RetryPolicy;
use crate::framework;
use crate::metrics::{ConnectorStats, Metrics};
use crate::task::sink::decode::Decoder;
use crate::task::steps::{Failure, Steps};

/// Nothing is waited for: a step that wants to try again has failed.
const NO_RETRY: RetryPolicy = RetryPolicy { timeout: Some(Duration::ZERO), max_delay: Duration::ZERO };

/// The way from the log to a sink's task.
pub struct Rehearsal {
    key: Arc<dyn Converter>,
    value: Arc<dyn Converter>,
    decoder: Decoder,
    steps: Steps,
    stats: Arc<ConnectorStats>,
}

/// What came of some records; inputs count from 0.
#[derive(Debug, Default)]
pub struct Rehearsed {
    /// What would reach the task, each with its input, in order.
    pub records: Vec<(usize, Record)>,
    /// What would become a dead letter or stop the task, by input.
    pub failed: Vec<Failed>,
}

/// A record that failed.
#[derive(Debug)]
pub struct Failed {
    /// Which input.
    pub input: usize,
    /// Stage, in Connect's words.
    pub stage: &'static str,
    /// Name of the step.
    pub step: Option<String>,
    /// What is wrong.
    pub error: Error,
}

impl Rehearsal {
    /// Of a connector with this config. References are resolved only in what converters and steps need.
    pub fn new(
        registry: &Registry,
        config: &Config,
        resolver: &dyn Resolver,
        schemas: &Arc<dyn SchemaStore>,
    ) -> Result<Self> {
        let needed = |key: &str| key.starts_with("transforms") || key.contains(".converter");
        let config: Config =
            config.iter().filter(|(key, _)| needed(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let resolved = resolve(&config, resolver).map_err(|problems| Problem::error(&problems))?;
        let converters = framework::aliases(&resolved);
        let converter = |key| Ok(ConverterKind::from_config(key, &converters)?.build(schemas));
        let (key, value): (_, Arc<dyn Converter>) =
            (converter("key.converter")?, converter("value.converter")?);
        let names = resolved.get("transforms").map_or("", |names| names.text.as_str());
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(str::to_owned).collect();
        Ok(Self {
            decoder: Decoder::new(Arc::clone(&key), Arc::clone(&value)),
            key,
            value,
            steps: Steps::build(&names, &resolved, registry, NO_RETRY)?,
            stats: Metrics::new().connector("rehearsal", "sink"),
        })
    }

    /// As the connector's converters would have written it. An error is a bad record.
    pub async fn encode(&self, record: &Record) -> Result<Consumed> {
        let mut headers = record.headers.clone();
        self.key.prepare_encode(&[&record.key]).await?;
        self.value.prepare_encode(&[&record.value]).await?;
        let key = self.key.encode(&record.topic, Part::Key, &record.key, &mut headers)?;
        let value = self.value.encode(&record.topic, Part::Value, &record.value, &mut headers)?;
        let headers = headers.iter().map(|header| Ok((header.name.clone(), encode_header(&header.value)?)));
        Ok(Consumed { key, value, headers: headers.collect::<Result<_>>()? })
    }

    /// Decodes the records and applies the steps. An error speaks of all of them.
    pub async fn run(&mut self, records: &[ConsumedRecord]) -> Result<Rehearsed> {
        let (decoded, mut failed) = self.decoder.decode(records).await?;
        let passed = self.steps.apply(decoded, &self.stats, &CancellationToken::new()).await?;
        failed.extend(passed.failed.into_iter().map(|(input, _, failure)| (input, failure)));
        failed.sort_by_key(|(input, _)| *input);
        let failed = failed.into_iter().map(|(input, failure)| {
            let Failure { stage, step, error, .. } = failure;
            Failed { input, stage: stage.name(), step, error }
        });
        Ok(Rehearsed { records: passed.records, failed: failed.collect() })
    }
}
