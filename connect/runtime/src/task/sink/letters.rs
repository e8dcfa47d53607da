//! Dead letters of a sink task.
//!
//! **Invariant:** while letters are under way, [`SinkLoop::burying`] is set: a stop that drops them commits nothing.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_client::{
    ConsumedRecord, Delivered, DeliveryListener, KafkaProducer, LogProducer, ProducerRecord,
};
use aqueduct_core::{Error, Result};
use futures::future::try_join_all;

use super::{SinkLoop, partition_of};
use crate::task::TaskSetup;
use crate::task::dead_letter::{DeadLetters, Origin, Verdict, judge, unwritable};
use crate::task::steps::{Failure, Stage};

const LETTER_WITHIN: Duration = Duration::from_secs(60);

impl SinkLoop {
    pub(super) async fn bury_refused(&mut self, setup: &TaskSetup) -> Result<()> {
        let refused = self.refused.take();
        if refused.is_empty() {
            return Ok(());
        }
        let letters = refused.into_iter().map(|(record, error)| {
            let consumed = ConsumedRecord {
                topic: Arc::clone(&record.origin.topic),
                partition: record.origin.partition,
                offset: record.offset,
                timestamp: record.record.timestamp,
                consumed: record.consumed,
            };
            let class = setup.kind.spec().name.to_owned();
            (consumed, Failure { stage: Stage::TaskPut, step: None, class, error })
        });
        self.bury(setup, letters.collect()).await
    }

    /// Writes dead letters and waits for their acknowledgements.
    pub(super) async fn bury(
        &mut self,
        setup: &TaskSetup,
        failed: Vec<(ConsumedRecord, Failure)>,
    ) -> Result<()> {
        let mut letters = Vec::new();
        for (record, failure) in failed {
            let tp = partition_of(&record);
            if !self.lettered.insert((tp.clone(), record.offset)) {
                continue;
            }
            setup.stats.error(&failure.error);
            let what = format!("record `{tp}` at offset {}", record.offset);
            let verdict = judge(setup.framework.tolerate, self.letters.is_some(), &failure, &what)?;
            if setup.framework.log_errors {
                tracing::warn!(
                    task = setup.id(),
                    stage = failure.stage.name(),
                    "{what}: {}",
                    failure.error.full()
                );
            }
            match (verdict, &self.letters) {
                (Verdict::Letter, Some(to)) => {
                    let origin = Origin::Sink { partition: &tp, offset: record.offset };
                    letters.push(to.of_consumed(&record.consumed, &origin, &failure));
                }
                _ => drop(setup.stats.skipped.inc()),
            }
        }
        self.write_letters(setup, letters).await
    }

    async fn write_letters(&mut self, setup: &TaskSetup, letters: Vec<ProducerRecord>) -> Result<()> {
        let (Some(to), false) = (&self.letters, letters.is_empty()) else { return Ok(()) };
        self.burying = true;
        let settings = DeadLetters::settings(setup.framework.dead_letter_replication);
        setup.shared.topics.ensure(&to.topic, &settings).await.map_err(|error| unwritable(&error))?;
        let producer = match &self.letter_producer {
            Some(producer) => producer,
            None => self.letter_producer.insert(KafkaProducer::new(
                setup.shared.client_settings(),
                &format!("connector-dlq-producer-{}", setup.id()),
                setup.framework.buffer_bytes / 4,
                &setup.client_overrides("producer.override."),
                Arc::new(NoListener),
            )?),
        };
        let count = letters.len() as u64;
        let written = try_join_all(letters.into_iter().map(|letter| producer.send_and_wait(letter)));
        match tokio::time::timeout(LETTER_WITHIN, written).await {
            Ok(result) => drop(result.map_err(|error| unwritable(&error))?),
            Err(_) => {
                let text =
                    format!("writing to topic `{}`: no acknowledgement within {LETTER_WITHIN:?}", to.topic);
                return Err(unwritable(&Error::fatal(text)));
            }
        }
        self.burying = false;
        setup.stats.dead_letters.inc_by(count);
        Ok(())
    }
}

/// Dead letters are each waited for.
struct NoListener;

impl DeliveryListener for NoListener {
    fn delivered(&self, _token: u64, _result: Result<Delivered>) {}
}
