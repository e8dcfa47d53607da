//! The steps of a task, applied batch by batch.
//!
//! **Invariant:** every input comes out exactly once: as records (none if dropped) or as one failure, which carries
//! the record as it was before the failing step.

use std::time::Instant;

use aqueduct_core::component::Registry;
use aqueduct_core::config::ResolvedConfig;
use aqueduct_core::transform::{Outcome, Transform};
use aqueduct_core::{Error, ErrorKind, Record, Result};
use tokio_util::sync::CancellationToken;

use crate::backoff::RetryPolicy;
use crate::framework::step_config;
use crate::metrics::ConnectorStats;
use crate::task::pause;

/// Most records per call of a step that computes for long.
const MAX_BLOCKING_BATCH: usize = 500;

/// The steps, in order.
pub(crate) struct Steps {
    steps: Vec<Step>,
    retry: RetryPolicy,
}

struct Step {
    alias: String,
    class: &'static str,
    /// Away while it computes on another thread.
    transform: Option<Box<dyn Transform>>,
}

/// A record that a step, converter or sink could not handle.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    /// Alias of the step.
    pub(crate) step: Option<String>,
    pub(crate) class: String,
    pub(crate) error: Error,
}

/// Where a record failed, in Connect's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    TaskPoll,
    Transformation,
    KeyConverter,
    ValueConverter,
    HeaderConverter,
    KafkaProduce,
    TaskPut,
}

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::TaskPoll => "TASK_POLL",
            Stage::Transformation => "TRANSFORMATION",
            Stage::KeyConverter => "KEY_CONVERTER",
            Stage::ValueConverter => "VALUE_CONVERTER",
            Stage::HeaderConverter => "HEADER_CONVERTER",
            Stage::KafkaProduce => "KAFKA_PRODUCE",
            Stage::TaskPut => "TASK_PUT",
        }
    }
}

/// What the steps made of a batch: records with the index of their input, in order, and what failed.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) records: Vec<(usize, Record)>,
    pub(crate) failed: Vec<(usize, Record, Failure)>,
}

impl Steps {
    /// Makes the steps that `aliases` name.
    pub(crate) fn build(
        aliases: &[String],
        config: &ResolvedConfig,
        registry: &Registry,
        retry: RetryPolicy,
    ) -> Result<Self> {
        let steps = aliases.iter().map(|alias| {
            let (component, config) = step_config(alias, config);
            let missing = || Error::bad_config(format!("missing required key `transforms.{alias}.type`"));
            let factory = registry.find_transform(&component.ok_or_else(missing)?)?;
            let transform = factory.build(&config).map_err(|e| e.context(format_args!("step `{alias}`")))?;
            Ok(Step { alias: alias.clone(), class: factory.spec().name, transform: Some(transform) })
        });
        Ok(Self { steps: steps.collect::<Result<_>>()?, retry })
    }

    /// Applies all steps.
    pub(crate) async fn apply(
        &mut self,
        records: Vec<(usize, Record)>,
        stats: &ConnectorStats,
        cancel: &CancellationToken,
    ) -> Result<Passed> {
        let mut passed = Passed { records, failed: Vec::new() };
        for step in &mut self.steps {
            if passed.records.is_empty() {
                break;
            }
            let (indexes, batch): (Vec<usize>, Vec<Record>) =
                std::mem::take(&mut passed.records).into_iter().unzip();
            let outcomes = step.outcomes(batch, self.retry, stats, cancel).await?;
            step.sort(indexes, outcomes, &mut passed)?;
        }
        Ok(passed)
    }
}

impl Step {
    async fn outcomes(
        &mut self,
        batch: Vec<Record>,
        retry: RetryPolicy,
        stats: &ConnectorStats,
        cancel: &CancellationToken,
    ) -> Result<Vec<Outcome>> {
        let blocking = self.transform.as_ref().is_some_and(|transform| transform.may_block());
        if !blocking {
            let transform = self.transform.as_mut().ok_or_else(Error::cancelled)?;
            return transform.apply(batch).map_err(|e| e.context(format_args!("step `{}`", self.alias)));
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut rest = batch.into_iter();
        loop {
            let chunk: Vec<Record> = rest.by_ref().take(MAX_BLOCKING_BATCH).collect();
            if chunk.is_empty() {
                return Ok(outcomes);
            }
            outcomes.extend(self.blocking(chunk, retry, stats, cancel).await?);
        }
    }

    /// One call off the threads that serve others, again while the error is retriable and time is left.
    async fn blocking(
        &mut self,
        chunk: Vec<Record>,
        retry: RetryPolicy,
        stats: &ConnectorStats,
        cancel: &CancellationToken,
    ) -> Result<Vec<Outcome>> {
        let began = Instant::now();
        let mut attempt = 0;
        loop {
            let mut transform = self.transform.take().ok_or_else(Error::cancelled)?;
            let given = chunk.clone();
            let call = move || {
                let result = transform.apply(given);
                (transform, result)
            };
            let (transform, result) = tokio::task::spawn_blocking(call)
                .await
                .map_err(|_| Error::fatal(format!("step `{}` has panicked", self.alias)))?;
            self.transform = Some(transform);
            let error = match result {
                Ok(outcomes) => return Ok(outcomes),
                Err(error) => error,
            };
            match (error.kind(), retry.pause(attempt, began.elapsed())) {
                (ErrorKind::Retriable { after }, Some(wait)) => {
                    stats.retries.inc();
                    stats.error(&error);
                    attempt += 1;
                    pause(cancel, after.unwrap_or(wait)).await?;
                }
                // The step speaks of all of them.
                (ErrorKind::BadRecord | ErrorKind::Retriable { .. }, _) => {
                    let text = error.full();
                    let failed = chunk
                        .into_iter()
                        .map(|record| Outcome::Fail(record, Error::bad_record(text.clone())));
                    return Ok(failed.collect());
                }
                _ => return Err(error.context(format_args!("step `{}`", self.alias))),
            }
        }
    }

    fn sort(&self, indexes: Vec<usize>, outcomes: Vec<Outcome>, into: &mut Passed) -> Result<()> {
        if indexes.len() != outcomes.len() {
            return Err(Error::fatal(format!(
                "step `{}` answered {} outcomes for {} records",
                self.alias,
                outcomes.len(),
                indexes.len()
            )));
        }
        into.records.reserve(outcomes.len());
        for (index, outcome) in indexes.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Keep(record) => into.records.push((index, record)),
                Outcome::Drop => {}
                Outcome::Emit(records) => {
                    into.records.extend(records.into_iter().map(|record| (index, record)))
                }
                Outcome::Fail(record, error) => {
                    let failure = Failure {
                        stage: Stage::Transformation,
                        step: Some(self.alias.clone()),
                        class: self.class.to_owned(),
                        error,
                    };
                    into.failed.push((index, record, failure));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aqueduct_core::Datum;
    use aqueduct_core::transform::each;

    use super::*;
    use crate::metrics::Metrics;

    struct ByTopic {
        blocking: bool,
        failures: u32,
    }

    impl Transform for ByTopic {
        fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(Error::retriable("not now"));
            }
            each(batch, |record| match &*record.topic {
                "drop" => Outcome::Drop,
                "fail" => Outcome::Fail(record, Error::bad_record("no")),
                "twice" => Outcome::Emit(vec![record.clone(), record]),
                _ => Outcome::Keep(record),
            })
        }

        fn may_block(&self) -> bool {
            self.blocking
        }
    }

    fn steps(transform: ByTopic) -> Steps {
        let retry =
            RetryPolicy { timeout: Some(Duration::from_secs(60)), max_delay: Duration::from_millis(1) };
        let step = Step { alias: "s".into(), class: "by-topic", transform: Some(Box::new(transform)) };
        Steps { steps: vec![step], retry }
    }

    async fn run(steps: &mut Steps, topics: &[&str]) -> Passed {
        let stats = Metrics::new().connector("c", "source");
        let records =
            topics.iter().enumerate().map(|(i, topic)| (i, Record::new((*topic).into(), Datum::null())));
        steps.apply(records.collect(), &stats, &CancellationToken::new()).await.expect("applies")
    }

    #[tokio::test]
    async fn every_input_comes_out_once_under_its_index() {
        for blocking in [false, true] {
            let mut steps = steps(ByTopic { blocking, failures: 0 });
            let passed = run(&mut steps, &["keep", "drop", "twice", "fail", "keep"]).await;
            assert_eq!(passed.records.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2, 2, 4]);
            assert_eq!(passed.failed.len(), 1);
            assert_eq!(passed.failed[0].0, 3);
            assert_eq!(passed.failed[0].2.step.as_deref(), Some("s"));
        }
    }

    #[tokio::test]
    async fn a_retriable_batch_is_tried_again_with_the_same_records() {
        let mut steps = steps(ByTopic { blocking: true, failures: 3 });
        let passed = run(&mut steps, &["keep", "fail"]).await;
        assert_eq!((passed.records.len(), passed.failed.len()), (1, 1));
    }
}
