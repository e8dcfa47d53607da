//! A sink task: consumer → converter → steps → put; offsets after `pre_commit`.
//!
//! **Invariant:** an offset is committed only when the task says that everything before it is durable, and every dead
//! letter before it is acknowledged.

pub(crate) mod decode;
mod letters;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_client::{
    Batch, ConsumedRecord, ConsumerEvent, GroupConsumer, GroupConsumerConfig, KafkaProducer, LogConsumer,
    LogProducer, Subscription,
};
use aqueduct_core::sink::{Offsets, SinkContext, SinkRecord, SinkTask, TopicPartition};
use aqueduct_core::{Error, ErrorKind, Record, Result, failpoint};
use tokio::time::Instant;

use self::decode::Decoder;
use super::TaskSetup;
use super::dead_letter::DeadLetters;
use super::refused::{Handle, Refused};
use super::steps::Steps;
use super::watch::{Positions, watch};
use crate::metrics::Call;

/// How often an idle task gets an empty batch.
const TICK: Duration = Duration::from_millis(500);
/// How long a stop waits until what was taken is durable.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);
/// The same where the other system did not take what was put last.
const HURRIED_FLUSH: Duration = Duration::from_secs(1);

/// Runs a sink task until it is cancelled or fails.
pub(crate) async fn run(mut setup: TaskSetup, mut task: Box<dyn SinkTask>) -> Result<()> {
    let refused = Arc::new(Refused::default());
    let context = SinkContext {
        connector: Arc::clone(&setup.connector),
        task: setup.task,
        buffer_bytes: setup.framework.buffer_bytes,
        handle: Arc::new(Handle {
            refused: Arc::clone(&refused),
            stats: Arc::clone(&setup.stats),
            task: setup.task,
        }),
    };
    let started = tokio::select! {
        () = setup.stop.asked() => Err(Error::cancelled()),
        started = task.start(context) => started,
    };
    let result = match started {
        Ok(()) => drive(&mut setup, task.as_mut(), refused).await,
        Err(error) => Err(error),
    };
    if let Err(error) = task.stop().await {
        tracing::warn!(task = setup.id(), "stopping: {}", error.full());
    }
    match result {
        Err(error) if error.kind() == ErrorKind::Cancelled => Ok(()),
        result => result,
    }
}

async fn drive(setup: &mut TaskSetup, task: &mut dyn SinkTask, refused: Arc<Refused>) -> Result<()> {
    let framework = &setup.framework;
    let subscription = match &framework.topics_regex {
        Some(pattern) => Subscription::Pattern(pattern.clone()),
        None => Subscription::Topics(framework.topics.clone()),
    };
    let consumer = GroupConsumer::join(
        setup.shared.client_settings(),
        &GroupConsumerConfig {
            client_id: format!("connector-consumer-{}", setup.id()),
            group_id: format!("connect-{}", setup.connector),
            instance_id: setup.id(),
            subscription,
            buffer_bytes: framework.buffer_bytes,
            overrides: setup.client_overrides("consumer.override."),
        },
    )?;
    let mut loop_ = SinkLoop::new(setup, Box::new(consumer), refused)?;
    std::mem::replace(&mut setup.on_started, Box::new(|| {}))();
    let positions = Arc::clone(&loop_.positions);
    let (admin, stats) = (setup.shared.admin.clone(), Arc::clone(&setup.stats));
    let (number, stop) = (setup.task, setup.stop.clone());
    let result = tokio::select! {
        result = loop_.run(setup, task) => result,
        () = watch(admin, stats, number, positions) => Ok(()),
        () = stop.overdue() => Err(Error::cancelled()),
    };
    let result = match result {
        Ok(()) => loop_.finish(setup, task, FLUSH_WITHIN).await,
        // What is in hand is read again; what was taken before it need not be.
        Err(error) if error.kind() == ErrorKind::Cancelled && stop.is_asked() => {
            loop_.finish(setup, task, HURRIED_FLUSH).await
        }
        error => error,
    };
    loop_.consumer.close().await;
    if let Some(producer) = loop_.letter_producer.take() {
        producer.close().await;
    }
    result
}

struct SinkLoop {
    consumer: Box<dyn LogConsumer>,
    refused: Arc<Refused>,
    assigned: BTreeSet<TopicPartition>,
    /// Offsets after the last record put, dropped or dead-lettered.
    taken: Offsets,
    committed: Offsets,
    commit_due: Instant,
    flush_interval: Duration,
    steps: Steps,
    decoder: Decoder,
    letters: Option<DeadLetters>,
    letter_producer: Option<KafkaProducer>,
    /// Dead-lettered records of the batch in hand: putting it again writes no second letter.
    lettered: BTreeSet<(TopicPartition, i64)>,
    /// Letters are under way; if that was cut short, nothing more may be committed.
    burying: bool,
    seen_topics: BTreeSet<String>,
    positions: Arc<Positions>,
}

impl SinkLoop {
    fn new(setup: &TaskSetup, consumer: Box<dyn LogConsumer>, refused: Arc<Refused>) -> Result<Self> {
        let framework = &setup.framework;
        let (key, value) = setup.converters()?;
        let flush_interval = framework.flush_interval.unwrap_or(setup.shared.config.offset_flush_interval);
        Ok(Self {
            consumer,
            refused,
            assigned: BTreeSet::new(),
            taken: Offsets::new(),
            committed: Offsets::new(),
            commit_due: Instant::now() + flush_interval,
            flush_interval,
            steps: Steps::build(
                &framework.steps,
                &setup.connector_config,
                &setup.shared.registry,
                framework.retry,
            )?,
            decoder: Decoder::new(key, value),
            letters: framework.dead_letter_topic.as_deref().map(|topic| DeadLetters {
                topic: topic.into(),
                connector: setup.connector.to_string(),
                task: setup.task,
            }),
            letter_producer: None,
            lettered: BTreeSet::new(),
            burying: false,
            seen_topics: BTreeSet::new(),
            positions: Arc::default(),
        })
    }

    async fn run(&mut self, setup: &mut TaskSetup, task: &mut dyn SinkTask) -> Result<()> {
        let stop = setup.stop.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.hold(*setup.paused.borrow_and_update());
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => return Ok(()),
                changed = setup.paused.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let paused = *setup.paused.borrow_and_update();
                    self.hold(paused);
                    if paused {
                        self.commit(setup, task).await?;
                    }
                }
                () = self.refused.commit_requested() => self.commit(setup, task).await?,
                _ = tick.tick() => {
                    if !self.assigned.is_empty() {
                        self.put(setup, task, Vec::new()).await?;
                    }
                    if Instant::now() >= self.commit_due {
                        self.commit(setup, task).await?;
                    }
                }
                event = self.consumer.next() => match event {
                    ConsumerEvent::Records(batch) => self.take(setup, task, batch).await?,
                    change => self.change(setup, task, change).await?,
                },
            }
        }
    }

    fn hold(&self, paused: bool) {
        if paused { self.consumer.pause() } else { self.consumer.resume() }
    }

    async fn change(
        &mut self,
        setup: &TaskSetup,
        task: &mut dyn SinkTask,
        event: ConsumerEvent,
    ) -> Result<()> {
        match event {
            ConsumerEvent::Records(_) => Ok(()),
            ConsumerEvent::Failed(error) => Err(error),
            ConsumerEvent::Assigned(start) => {
                self.assigned.extend(start.keys().cloned());
                for (tp, offset) in &start {
                    self.taken.insert(tp.clone(), *offset);
                    self.committed.remove(tp);
                }
                self.show_positions();
                task.open(&start).await
            }
            ConsumerEvent::Revoked { partitions, lost, done } => {
                let result = self.revoke(setup, task, &partitions, lost).await;
                if done.send(()).is_err() {
                    tracing::debug!(task = setup.id(), "the consumer has ended meanwhile");
                }
                result
            }
        }
    }

    async fn revoke(
        &mut self,
        setup: &TaskSetup,
        task: &mut dyn SinkTask,
        partitions: &[TopicPartition],
        lost: bool,
    ) -> Result<()> {
        // They are read again by whoever gets them, if this fails; the task then starts over.
        let committed = if lost { Ok(()) } else { self.commit(setup, task).await };
        for tp in partitions {
            self.assigned.remove(tp);
            self.taken.remove(tp);
            self.committed.remove(tp);
        }
        self.show_positions();
        let closed = task.close(partitions).await;
        committed.and(closed)
    }

    fn show_positions(&self) {
        self.positions
            .lock()
            .clone_from(&self.taken.iter().map(|(tp, offset)| (tp.clone(), (*offset, None))).collect());
    }

    /// A batch on its way to the task. Retriable errors repeat it for ever; assignments may change meanwhile.
    async fn take(&mut self, setup: &TaskSetup, task: &mut dyn SinkTask, mut batch: Batch) -> Result<()> {
        let permit = batch.permit.take();
        let bytes: usize = batch.bytes;
        let mut records = std::mem::take(&mut batch.records);
        skip_taken(&self.taken, &mut records);
        if records.is_empty() {
            return Ok(());
        }
        self.note_topics(setup, &records).await;
        let count = records.len() as u64;
        self.lettered.clear();
        let mut attempt = 0;
        loop {
            let ready = self.prepare(setup, &records).await;
            let result = match ready {
                Ok(ready) => self.put(setup, task, ready).await,
                Err(error) => Err(error),
            };
            let error = match result {
                Ok(()) => break,
                Err(error) => error,
            };
            let ErrorKind::Retriable { after } = error.kind() else { return Err(error) };
            setup.stats.trying_again(setup.task, Call::Put, &error);
            if attempt == 0 {
                tracing::warn!(task = setup.id(), "trying again until it works: {}", error.full());
            }
            let wait = after
                .unwrap_or_else(|| setup.framework.retry.outage_pause(attempt).min(Duration::from_secs(5)));
            attempt += 1;
            self.wait_out(setup, task, wait, &mut records).await?;
        }
        if attempt > 0 {
            setup.stats.works(setup.task, Call::Put);
            tracing::info!(task = setup.id(), "works again after {attempt} tries");
        }
        self.advance(&records);
        drop(permit);
        setup.stats.records.inc_by(count);
        setup.stats.bytes.inc_by(bytes as u64);
        Ok(())
    }

    /// Waits before the next try and follows changes of the assignment; records of lost partitions are dropped.
    async fn wait_out(
        &mut self,
        setup: &TaskSetup,
        task: &mut dyn SinkTask,
        wait: Duration,
        records: &mut Vec<ConsumedRecord>,
    ) -> Result<()> {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                () = setup.stop.asked() => return Err(Error::cancelled()),
                event = self.consumer.next_change() => {
                    self.change(setup, task, event).await?;
                    // At once: a lost partition may come back before the wait is over, from an earlier offset.
                    skip_taken(&self.taken, records);
                }
                () = tokio::time::sleep_until(until) => return Ok(()),
            }
        }
    }

    fn advance(&mut self, records: &[ConsumedRecord]) {
        let mut positions = self.positions.lock();
        for (i, record) in records.iter().enumerate() {
            let last = records
                .get(i + 1)
                .is_none_or(|next| next.partition != record.partition || next.topic != record.topic);
            if last {
                let tp = partition_of(record);
                if self.assigned.contains(&tp) {
                    positions.insert(tp.clone(), (record.offset + 1, record.timestamp));
                    self.taken.insert(tp, record.offset + 1);
                }
            }
        }
    }

    async fn note_topics(&mut self, setup: &TaskSetup, records: &[ConsumedRecord]) {
        let mut last = "";
        for record in records {
            if last != &*record.topic && self.seen_topics.insert(record.topic.to_string()) {
                setup.shared.stores.statuses.used(&setup.connector, setup.task, &record.topic).await;
            }
            last = &record.topic;
        }
    }

    /// Converters and steps; bad records become dead letters here.
    async fn prepare(&mut self, setup: &TaskSetup, records: &[ConsumedRecord]) -> Result<Vec<SinkRecord>> {
        let (decoded, mut failed) = self.decoder.decode(records).await?;
        let passed = self.steps.apply(decoded, &setup.stats, setup.stop.token()).await?;
        failed.extend(passed.failed.into_iter().map(|(index, _, failure)| (index, failure)));
        let letters = failed.into_iter().map(|(index, failure)| (records[index].clone(), failure)).collect();
        self.bury(setup, letters).await?;
        let sink = |(index, record): (usize, Record)| {
            let origin: &ConsumedRecord = &records[index];
            SinkRecord {
                record,
                origin: partition_of(origin),
                offset: origin.offset,
                consumed: Arc::clone(&origin.consumed),
            }
        };
        Ok(passed.records.into_iter().map(sink).collect())
    }

    /// Puts, and buries what the task refused, whether the put succeeded or not: a record is refused once.
    async fn put(
        &mut self,
        setup: &TaskSetup,
        task: &mut dyn SinkTask,
        records: Vec<SinkRecord>,
    ) -> Result<()> {
        let empty = records.is_empty();
        let result = task.put(records).await;
        self.bury_refused(setup).await?;
        match result {
            // There is nothing to put again; the next tick comes soon.
            Err(error) if empty && error.is_retriable() => {
                setup.stats.trying_again(setup.task, Call::Put, &error);
                Ok(())
            }
            Ok(()) if empty => {
                setup.stats.works(setup.task, Call::Put);
                Ok(())
            }
            result => result,
        }
    }

    /// Asks the task what is durable and commits that.
    async fn commit(&mut self, setup: &TaskSetup, task: &mut dyn SinkTask) -> Result<()> {
        self.commit_due = Instant::now() + self.flush_interval;
        let answered = match task.pre_commit(&self.taken).await {
            Ok(offsets) => offsets,
            Err(error) if error.is_retriable() => {
                setup.stats.trying_again(setup.task, Call::Commit, &error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.bury_refused(setup).await?;
        let due = due(&answered, &self.taken, &self.committed);
        if due.is_empty() {
            setup.stats.works(setup.task, Call::Commit);
            return Ok(());
        }
        failpoint::hit("runtime.sink.before_offset_commit");
        match self.consumer.commit(&due).await {
            Ok(()) => {
                self.committed.extend(due);
                setup.stats.works(setup.task, Call::Commit);
            }
            // Committed again with the next one.
            Err(error) if error.is_retriable() => {
                setup.stats.trying_again(setup.task, Call::Commit, &error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// An orderly stop.
    async fn finish(&mut self, setup: &TaskSetup, task: &mut dyn SinkTask, flush: Duration) -> Result<()> {
        if self.assigned.is_empty() {
            return Ok(());
        }
        let stop = &setup.stop;
        if let Err(error) = stop.within(flush, task.flush()).await {
            tracing::warn!(task = setup.id(), "flushing before the stop: {}", error.full());
        }
        if self.burying {
            tracing::warn!(task = setup.id(), "dead letters are not acknowledged; nothing more is committed");
        } else if let Err(error) = stop.within(FLUSH_WITHIN, self.commit(setup, task)).await {
            tracing::warn!(task = setup.id(), "committing before the stop: {}", error.full());
        }
        let partitions: Vec<TopicPartition> = std::mem::take(&mut self.assigned).into_iter().collect();
        stop.within(FLUSH_WITHIN, task.close(&partitions)).await
    }
}

/// Keeps what is assigned and not taken yet.
fn skip_taken(taken: &Offsets, records: &mut Vec<ConsumedRecord>) {
    let mut tp = None;
    records.retain(|record| {
        let current = tp.take().filter(|(tp, _): &(TopicPartition, i64)| {
            tp.partition == record.partition && *tp.topic == *record.topic
        });
        let (key, next) = current.unwrap_or_else(|| {
            let key = partition_of(record);
            let next = taken.get(&key).copied().unwrap_or(i64::MAX);
            (key, next)
        });
        let keep = record.offset >= next;
        tp = Some((key, next));
        keep
    });
}

fn partition_of(record: &ConsumedRecord) -> TopicPartition {
    TopicPartition { topic: Arc::clone(&record.topic), partition: record.partition }
}

/// What is to be committed: never beyond what was taken, never what is committed already.
fn due(answered: &Offsets, taken: &Offsets, committed: &Offsets) -> Offsets {
    let limited = answered.iter().filter_map(|(tp, offset)| Some((tp, *offset.min(taken.get(tp)?))));
    limited
        .filter(|(tp, offset)| committed.get(*tp).is_none_or(|before| offset > before))
        .map(|(tp, offset)| (tp.clone(), offset))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(pairs: &[(i32, i64)]) -> Offsets {
        let each = pairs.iter().map(|(partition, offset)| {
            (TopicPartition { topic: "t".into(), partition: *partition }, *offset)
        });
        each.collect()
    }

    #[test]
    fn nothing_beyond_what_was_taken_or_twice_is_committed() {
        let taken = offsets(&[(0, 10), (1, 20), (2, 30)]);
        let answered = offsets(&[(0, 12), (1, 20), (2, 25), (3, 5)]);
        let committed = offsets(&[(1, 20), (2, 20)]);
        assert_eq!(due(&answered, &taken, &committed), offsets(&[(0, 10), (2, 25)]));
    }

    #[test]
    fn what_is_in_hand_of_a_lost_partition_does_not_come_back_with_it() {
        let read = |partition, offset| ConsumedRecord {
            topic: "t".into(),
            partition,
            offset,
            timestamp: None,
            consumed: Arc::default(),
        };
        let mut hand = vec![read(0, 50), read(0, 51), read(1, 6), read(1, 7)];
        // Partition 0 is lost, and comes back from where its group committed.
        for taken in [offsets(&[(1, 7)]), offsets(&[(0, 40), (1, 7)])] {
            skip_taken(&taken, &mut hand);
        }
        let left: Vec<_> = hand.iter().map(|record| (record.partition, record.offset)).collect();
        assert_eq!(left, [(1, 7)]);
    }
}
