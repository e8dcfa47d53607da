//! A source task: poll → steps → converter → producer; positions after acknowledgements.
//!
//! **Invariant:** the order is data, position, commit. A position is written only when every record before it is
//! acknowledged; the task hears `commit` only when the position itself is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_client::{KafkaProducer, LogProducer, ProducerRecord};
use aqueduct_convert::encode_header;
use aqueduct_core::converter::{Converter, Part};
use aqueduct_core::source::{
    Progress, SourceContext, SourcePosition, SourceRecord, SourceReporter, SourceTask,
};
use aqueduct_core::{Datum, Error, ErrorKind, Record, Result, failpoint};
use futures::future::BoxFuture;
use tokio::time::{Instant, Interval};

use super::acks::AckQueue;
use super::dead_letter::{DeadLetters, Origin, Verdict, judge, unwritable};
use super::inputs::Inputs;
use super::steps::{Failure, Stage, Steps};
use super::tracker::AckTracker;
use super::{TaskSetup, pause};
use crate::framework::MAX_RECORD_BYTES;
use crate::metrics::{Call, ConnectorStats};
use crate::topics::TopicSettings;

/// Room for the record's framing below the topic's limit.
const MAX_PAYLOAD: usize = MAX_RECORD_BYTES - 1024;
/// How often positions are written while records flow; each costs a flush of the log.
const POSITION_INTERVAL: Duration = Duration::from_millis(200);
/// How long the log may acknowledge nothing before the status says so.
const STALL: Duration = Duration::from_secs(3);
/// How long the end of a run waits for acknowledgements.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);
/// The same where none came for long.
const STALLED_FLUSH: Duration = Duration::from_secs(1);

/// Runs a source task until it is cancelled or fails.
pub(crate) async fn run(mut setup: TaskSetup, mut task: Box<dyn SourceTask>) -> Result<()> {
    let acks = Arc::new(AckQueue::default());
    let producer: Arc<dyn LogProducer> = Arc::new(KafkaProducer::new(
        setup.shared.client_settings(),
        &format!("connector-producer-{}", setup.id()),
        setup.framework.buffer_bytes,
        &setup.client_overrides("producer.override."),
        Arc::clone(&acks) as _,
    )?);
    let result = drive(&mut setup, task.as_mut(), &producer, acks).await;
    if let Err(error) = task.stop().await {
        tracing::warn!(task = setup.id(), "stopping: {}", error.full());
    }
    producer.close().await;
    result
}

async fn drive(
    setup: &mut TaskSetup,
    task: &mut dyn SourceTask,
    producer: &Arc<dyn LogProducer>,
    acks: Arc<AckQueue>,
) -> Result<()> {
    let mut loop_ = SourceLoop::new(setup, producer, acks)?;
    let reporter = Arc::new(Reporter { stats: Arc::clone(&setup.stats), task: setup.task });
    let context = SourceContext {
        connector: Arc::clone(&setup.connector),
        task: setup.task,
        positions: setup.shared.stores.offsets.of(&setup.connector),
        buffer_bytes: setup.framework.buffer_bytes,
        reporter,
    };
    tokio::select! {
        () = setup.stop.asked() => return Ok(()),
        started = task.start(context) => started?,
    }
    std::mem::replace(&mut setup.on_started, Box::new(|| {}))();
    let stop = setup.stop.clone();
    let result = tokio::select! {
        result = loop_.run(setup, task) => result,
        () = stop.overdue() => Ok(()),
    };
    match result {
        Ok(()) => loop_.finish(setup, task).await,
        Err(error) => {
            loop_.settle(setup).await;
            Err(error)
        }
    }
}

struct SourceLoop {
    producer: Arc<dyn LogProducer>,
    acks: Arc<AckQueue>,
    tokens: Vec<u64>,
    tracker: AckTracker,
    storing: Option<BoxFuture<'static, Result<Vec<SourcePosition>>>>,
    stored_at: Instant,
    steps: Steps,
    key: Arc<dyn Converter>,
    value: Arc<dyn Converter>,
    settings: TopicSettings,
    seen_topics: BTreeSet<String>,
    letters: Option<DeadLetters>,
    stats: Arc<ConnectorStats>,
    task: usize,
    /// When the last acknowledgement came, or nothing was under way.
    acked_at: Instant,
    stalled: bool,
    tick: Interval,
}

impl SourceLoop {
    fn new(setup: &TaskSetup, producer: &Arc<dyn LogProducer>, acks: Arc<AckQueue>) -> Result<Self> {
        let framework = &setup.framework;
        let registry = &setup.shared.registry;
        let (key, value) = setup.converters()?;
        Ok(Self {
            producer: Arc::clone(producer),
            acks,
            tokens: Vec::new(),
            tracker: AckTracker::default(),
            storing: None,
            stored_at: Instant::now(),
            steps: Steps::build(&framework.steps, &setup.connector_config, registry, framework.retry)?,
            key,
            value,
            settings: TopicSettings::from_config(&setup.connector_config),
            seen_topics: BTreeSet::new(),
            letters: framework.dead_letter_topic.as_deref().map(|topic| DeadLetters {
                topic: topic.into(),
                connector: setup.connector.to_string(),
                task: setup.task,
            }),
            stats: Arc::clone(&setup.stats),
            task: setup.task,
            acked_at: Instant::now(),
            stalled: false,
            tick: tokio::time::interval(Duration::from_secs(1)),
        })
    }

    async fn run(&mut self, setup: &mut TaskSetup, task: &mut dyn SourceTask) -> Result<()> {
        let stop = setup.stop.clone();
        let mut failed_polls = 0;
        loop {
            let paused = *setup.paused.borrow();
            let wait = self.next_store();
            tokio::select! {
                biased;
                () = stop.asked() => return Ok(()),
                changed = setup.paused.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = self.acks.changed() => self.take_acks()?,
                _ = self.tick.tick() => self.watch_acks(),
                stored = stored(&mut self.storing) => self.on_stored(stored?, task).await?,
                () = tokio::time::sleep_until(wait), if self.tracker.has_ready() && self.storing.is_none() => {
                    self.store(setup);
                }
                batch = task.poll(), if !paused => match batch {
                    Ok(batch) => {
                        if failed_polls > 0 {
                            failed_polls = 0;
                            setup.stats.works(setup.task, Call::Poll);
                        }
                        match self.write(setup, batch).await {
                            Err(error) if error.kind() == ErrorKind::Cancelled => return Ok(()),
                            result => result?,
                        }
                    }
                    Err(error) => {
                        let ErrorKind::Retriable { after } = error.kind() else { return Err(error) };
                        setup.stats.trying_again(setup.task, Call::Poll, &error);
                        tracing::warn!(task = setup.id(), "polling, trying again: {}", error.full());
                        let wait = after.unwrap_or_else(|| setup.framework.retry.outage_pause(failed_polls));
                        failed_polls += 1;
                        if pause(stop.token(), wait).await.is_err() {
                            return Ok(());
                        }
                    }
                },
            }
        }
    }

    fn next_store(&self) -> Instant {
        // With nothing under way there is no reason to wait for more.
        if self.tracker.is_idle() { self.stored_at } else { self.stored_at + POSITION_INTERVAL }
    }

    fn take_acks(&mut self) -> Result<()> {
        let mut tokens = std::mem::take(&mut self.tokens);
        let result = self.acks.take(&mut tokens);
        for token in &tokens {
            self.tracker.acknowledged(token >> 1);
        }
        self.hand_receipts();
        // What is only queued does not count: the log may never take it.
        let letters = tokens.iter().filter(|token| is_letter(**token)).count() as u64;
        self.stats.dead_letters.inc_by(letters);
        self.stats.records.inc_by(tokens.len() as u64 - letters);
        if !tokens.is_empty() {
            self.acked_at = Instant::now();
            if std::mem::take(&mut self.stalled) {
                self.stats.works(self.task, Call::Write);
            }
        }
        self.tokens = tokens;
        result.map_err(|(token, error)| if is_letter(token) { unwritable(&error) } else { error })
    }

    /// Tells those who wait for their records.
    fn hand_receipts(&mut self) {
        self.tracker.take_settled().iter().for_each(|receipt| receipt.0.acknowledged());
    }

    /// The client tries for ever, so a log that takes nothing, such as one with a full disk, is no error; it must show.
    fn watch_acks(&mut self) {
        if self.tracker.is_idle() {
            self.acked_at = Instant::now();
        }
        if self.acked_at.elapsed() >= STALL && !std::mem::replace(&mut self.stalled, true) {
            let text = format!(
                "the log has acknowledged nothing for {STALL:?}; if its disk is full or broken, the broker's own log says so"
            );
            self.stats.trying_again(self.task, Call::Write, &Error::retriable(text));
        }
    }

    /// Begins to write what may be stored.
    fn store(&mut self, setup: &TaskSetup) {
        let positions = self.tracker.take_ready();
        failpoint::hit("runtime.source.after_data_ack");
        self.stored_at = Instant::now();
        let shared = Arc::clone(&setup.shared);
        let connector = Arc::clone(&setup.connector);
        self.storing = Some(Box::pin(async move {
            let written = shared.stores.offsets.write(&connector, &positions).await;
            written.map_err(|e| e.context("storing a position"))?;
            Ok(positions)
        }));
    }

    async fn on_stored(&mut self, positions: Vec<SourcePosition>, task: &mut dyn SourceTask) -> Result<()> {
        failpoint::hit("runtime.source.after_position_ack");
        task.commit(&positions).await
    }

    /// Steps, converters, topics, and into the producer. Acknowledgements are taken meanwhile.
    async fn write(&mut self, setup: &TaskSetup, batch: Vec<SourceRecord>) -> Result<()> {
        let mut inputs = Inputs::default();
        let mut records = Vec::with_capacity(batch.len());
        let mut unreadable = Vec::new();
        for (index, source) in batch.into_iter().enumerate() {
            inputs.push(source.position, source.receipt);
            match (source.record, source.failure) {
                (Some(record), None) => records.push((index, record)),
                (Some(record), Some(error)) => {
                    let class = setup.kind.spec().name.to_owned();
                    unreadable.push((
                        index,
                        record,
                        Failure { stage: Stage::TaskPoll, step: None, class, error },
                    ));
                }
                (None, _) => {}
            }
        }
        let passed = self.steps.apply(records, &setup.stats, setup.stop.token()).await?;
        let mut outputs: Vec<(usize, ProducerRecord)> = Vec::with_capacity(passed.records.len());
        for (index, record, failure) in unreadable.into_iter().chain(passed.failed) {
            let letter = self.bury(setup, &record, &mut inputs, index, failure).await?;
            outputs.extend(letter.map(|letter| (index, letter)));
        }
        // The log may be away, and a stop must not wait for it. Nothing of the batch is under way yet.
        tokio::select! {
            biased;
            () = setup.stop.asked() => return Err(Error::cancelled()),
            prepared = self.prepare(setup, &passed.records) => prepared?,
        }
        let mut bytes = 0;
        for (index, record) in passed.records {
            match self.encode(&record) {
                Ok(encoded) => {
                    bytes += encoded.size() as u64;
                    outputs.push((index, encoded));
                }
                Err(failure) => {
                    let letter = self.bury(setup, &record, &mut inputs, index, failure).await?;
                    outputs.extend(letter.map(|letter| (index, letter)));
                }
            }
        }
        // Letters were put before the records of their batch; the order of the inputs rules.
        outputs.sort_by_key(|(index, _)| *index);
        outputs.retain(|(index, _)| !inputs.is_refused(*index));
        let sent = self.number(outputs, inputs);
        // What the steps dropped needs no acknowledgement.
        self.hand_receipts();
        self.send(setup, sent).await?;
        setup.stats.bytes.inc_by(bytes);
        Ok(())
    }

    /// The dead letter of an input, or nothing when it is skipped or its whole request refused; an error when the task
    /// must stop.
    async fn bury(
        &mut self,
        setup: &TaskSetup,
        record: &Record,
        inputs: &mut Inputs,
        index: usize,
        failure: Failure,
    ) -> Result<Option<ProducerRecord>> {
        let bad = matches!(failure.error.kind(), ErrorKind::BadRecord);
        match self.letter(setup, record, inputs.position_behind(index), failure).await {
            Err(error) if bad && error.kind() == ErrorKind::BadRecord && inputs.refuse(index, &error) => {
                Ok(None)
            }
            other => other,
        }
    }

    async fn prepare(&mut self, setup: &TaskSetup, records: &[(usize, Record)]) -> Result<()> {
        let mut last: Option<&str> = None;
        for (_, record) in records {
            if last == Some(&record.topic) || self.seen_topics.contains(&*record.topic) {
                continue;
            }
            last = Some(&record.topic);
            setup.shared.topics.ensure(&record.topic, &self.settings).await?;
            self.seen_topics.insert(record.topic.to_string());
            setup.shared.stores.statuses.used(&setup.connector, setup.task, &record.topic).await;
        }
        let keys: Vec<&Datum> = records.iter().map(|(_, record)| &record.key).collect();
        self.key.prepare_encode(&keys).await?;
        let values: Vec<&Datum> = records.iter().map(|(_, record)| &record.value).collect();
        self.value.prepare_encode(&values).await
    }

    fn encode(&self, record: &Record) -> Result<ProducerRecord, Failure> {
        let failed = |stage, class: &str| {
            let class = class.to_owned();
            move |error| Failure { stage, step: None, class, error }
        };
        let mut headers = record.headers.clone();
        let topic = &record.topic;
        let key = self.key.encode(topic, Part::Key, &record.key, &mut headers);
        let key = key.map_err(failed(Stage::KeyConverter, "key.converter"))?;
        let value = self.value.encode(topic, Part::Value, &record.value, &mut headers);
        let value = value.map_err(failed(Stage::ValueConverter, "value.converter"))?;
        let mut encoded = ProducerRecord::new(Arc::clone(topic), key, value);
        for header in headers.iter() {
            let value =
                encode_header(&header.value).map_err(failed(Stage::HeaderConverter, "header.converter"))?;
            encoded.headers.push((header.name.clone(), value));
        }
        encoded.partition = record.partition;
        encoded.timestamp = record.timestamp;
        if encoded.size() > MAX_PAYLOAD {
            let key = encoded
                .key
                .as_deref()
                .map(|key| String::from_utf8_lossy(&key[..key.len().min(200)]).into_owned());
            let error = Error::bad_record(format!(
                "the record for topic `{topic}` with key `{}` has {} bytes, more than the {MAX_PAYLOAD} that a topic takes",
                key.unwrap_or_else(|| "null".into()),
                encoded.size()
            ));
            return Err(failed(Stage::KafkaProduce, "producer")(error));
        }
        Ok(encoded)
    }

    /// The dead letter, or nothing when the record is skipped; an error when the task must stop.
    async fn letter(
        &mut self,
        setup: &TaskSetup,
        record: &Record,
        position: Option<&SourcePosition>,
        failure: Failure,
    ) -> Result<Option<ProducerRecord>> {
        setup.stats.error(&failure.error);
        let what = format!("a record for topic `{}`", record.topic);
        match judge(setup.framework.tolerate, self.letters.is_some(), &failure, &what)? {
            Verdict::Skip => {
                setup.stats.skipped.inc();
                log_failure(setup, &what, &failure, "skipped");
                Ok(None)
            }
            Verdict::Letter => {
                let letters = self.letters.as_ref().expect("judged with a topic");
                let settings = DeadLetters::settings(setup.framework.dead_letter_replication);
                setup
                    .shared
                    .topics
                    .ensure(&letters.topic, &settings)
                    .await
                    .map_err(|error| unwritable(&error))?;
                log_failure(setup, &what, &failure, "written to the dead letter topic");
                let origin = Origin::Source { topic: &record.topic, position };
                Ok(Some(letters.of_record(record, &origin, &failure)))
            }
        }
    }

    /// Gives each output the token of its input, and whether it is a dead letter as the lowest bit.
    fn number(
        &mut self,
        outputs: Vec<(usize, ProducerRecord)>,
        inputs: Inputs,
    ) -> Vec<(u64, ProducerRecord)> {
        let mut outputs = outputs.into_iter().peekable();
        let mut numbered = Vec::with_capacity(outputs.len());
        for (index, (position, receipt)) in inputs.finish().enumerate() {
            let from = numbered.len();
            while let Some((_, record)) = outputs.next_if(|(of, _)| *of == index) {
                numbered.push((0, record));
            }
            let parts = u32::try_from(numbered.len() - from).unwrap_or(u32::MAX);
            let token = self.tracker.submit(parts, position, receipt);
            for (slot, record) in &mut numbered[from..] {
                let letters = self.letters.as_ref();
                let letter = letters.is_some_and(|letters| Arc::ptr_eq(&letters.topic, &record.topic));
                *slot = token << 1 | u64::from(letter);
            }
        }
        numbered
    }

    async fn send(&mut self, setup: &TaskSetup, records: Vec<(u64, ProducerRecord)>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let producer = Arc::clone(&self.producer);
        let mut sending = producer.send(records);
        loop {
            tokio::select! {
                biased;
                () = setup.stop.asked() => return Err(Error::cancelled()),
                result = &mut sending => return result,
                () = self.acks.changed() => self.take_acks()?,
                _ = self.tick.tick() => self.watch_acks(),
            }
        }
    }

    /// An orderly stop: wait for what is under way, store the position, tell the task.
    async fn finish(&mut self, setup: &TaskSetup, task: &mut dyn SourceTask) -> Result<()> {
        let most = if self.stalled { STALLED_FLUSH } else { FLUSH_WITHIN };
        if let Err(error) = self.producer.flush(setup.stop.share(most)).await {
            tracing::warn!(task = setup.id(), "what is under way will be repeated: {}", error.full());
        }
        self.take_acks()?;
        let result = setup.stop.within(most, self.store_rest(setup, task)).await;
        result.inspect_err(|error| {
            tracing::warn!(task = setup.id(), "the last position was not stored: {}", error.full());
        })
    }

    async fn store_rest(&mut self, setup: &TaskSetup, task: &mut dyn SourceTask) -> Result<()> {
        loop {
            if self.storing.is_some() {
                let positions = stored(&mut self.storing).await?;
                self.on_stored(positions, task).await?;
            } else if self.tracker.has_ready() {
                self.store(setup);
            } else {
                return Ok(());
            }
        }
    }

    /// After a failure: what is under way shall not arrive behind what the next run writes.
    async fn settle(&mut self, setup: &TaskSetup) {
        let most = if self.stalled { STALLED_FLUSH } else { FLUSH_WITHIN };
        tokio::select! {
            () = setup.stop.overdue() => {}
            flushed = self.producer.flush(most) => if let Err(error) = flushed {
                tracing::warn!(task = setup.id(), "some records may come late, as repeats: {}", error.full());
            },
        }
    }
}

/// Of what [`SourceLoop::number`] gave out.
fn is_letter(token: u64) -> bool {
    token & 1 == 1
}

/// Waits for the position under way; for ever when there is none. Cancel-safe.
async fn stored(
    storing: &mut Option<BoxFuture<'static, Result<Vec<SourcePosition>>>>,
) -> Result<Vec<SourcePosition>> {
    match storing {
        None => std::future::pending().await,
        Some(future) => {
            let result = future.await;
            *storing = None;
            result
        }
    }
}

fn log_failure(setup: &TaskSetup, what: &str, failure: &Failure, done: &str) {
    if setup.framework.log_errors {
        let stage = failure.stage.name();
        let step = failure.step.as_deref().unwrap_or_default();
        tracing::warn!(task = setup.id(), stage, step, "{what} was {done}: {}", failure.error.full());
    }
}

struct Reporter {
    stats: Arc<ConnectorStats>,
    task: usize,
}

impl SourceReporter for Reporter {
    fn progress(&self, progress: Option<Progress>) {
        self.stats.set_progress(self.task, progress);
    }

    fn lag(&self, amount: u64, unit: &'static str) {
        self.stats.set_lag(self.task, amount, unit);
    }
}
