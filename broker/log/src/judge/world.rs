//! A broker's life on a disk that fails: topics, producers, housekeeping, stops and starts.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use aqueduct_wire::{BatchBuilder, Compression, Header, RecordBatch};
use uuid::Uuid;

use super::book::{Book, Sent};
use super::metadata::MetaBook;
use super::{Verdict, demand};
use crate::disk::memory::MemDisk;
use crate::error::{LogError, Result};
use crate::flusher::{FlushMode, Urgency};
use crate::log_config::{LogConfig, PartitionId};
use crate::log_dir::{LogDir, LogDirOptions, PartitionSpec};
use crate::metalog::{MetaLog, MetaLogOptions};
use crate::partition_log::{AppendError, PartitionLog};

const ROOT: &str = "/data";
const TOPICS: [&str; 4] = ["plain", "table", "both", "brief"];

pub(super) struct World {
    disk: MemDisk,
    mode: FlushMode,
    dice: Dice,
    now: i64,
    epoch: i32,
    number: u64,
    running: Option<Running>,
    topics: Vec<Topic>,
    metadata: MetaBook,
}

struct Running {
    dir: LogDir,
    meta: MetaLog,
}

struct Topic {
    name: &'static str,
    incarnation: u128,
    log: Option<Arc<PartitionLog>>,
    book: Book,
    producers: [Producer; 2],
}

/// An idempotent producer with up to three batches in flight.
#[derive(Default)]
struct Producer {
    next_sequence: i32,
    /// Not acknowledged yet.
    in_flight: VecDeque<Batch>,
    acked: Option<Batch>,
}

#[derive(Clone)]
struct Batch {
    sequence: i32,
    records: Vec<Sent>,
    /// Where it stands, as far as this process knows.
    base: Option<i64>,
}

impl Batch {
    fn last(&self) -> Option<i64> {
        self.base.map(|base| base + self.records.len() as i64 - 1)
    }
}

/// The same seed gives the same run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn config(name: &str) -> LogConfig {
    let base = LogConfig {
        segment_bytes: 800,
        index_interval_bytes: 150,
        segment_ms: 900,
        retention_ms: -1,
        min_cleanable_dirty_ratio: 0.3,
        delete_retention_ms: 100,
        max_compaction_lag_ms: 600,
        ..LogConfig::default()
    };
    match name {
        "plain" => LogConfig { retention_bytes: 3000, retention_ms: 2500, ..base },
        "table" => LogConfig { compact: true, delete: false, ..base },
        "both" => LogConfig { compact: true, retention_ms: 1500, ..base },
        _ => base,
    }
}

impl Topic {
    fn new(name: &'static str, incarnation: u128) -> Self {
        Self { name, incarnation, log: None, book: Book::new(config(name)), producers: Default::default() }
    }

    fn spec(&self) -> PartitionSpec {
        let topic_id = Uuid::from_u128(self.incarnation);
        let id = PartitionId { topic: self.name.into(), topic_id, partition: 0 };
        PartitionSpec { id, config: config(self.name) }
    }

    fn observe(&mut self, now: i64) -> Verdict {
        let Some(log) = &self.log else { return Ok(()) };
        self.book.observe(log, now)?;
        for producer in &mut self.producers {
            while producer.in_flight.front().is_some_and(|b| b.last().is_some_and(|l| l < self.book.acked)) {
                producer.acked = producer.in_flight.pop_front();
            }
        }
        Ok(())
    }
}

impl World {
    pub(super) fn new(seed: u64, mode: FlushMode) -> Self {
        let topics = (1..).zip(TOPICS).map(|(i, name)| Topic::new(name, i)).collect();
        Self {
            disk: MemDisk::with_dir("/"),
            mode,
            dice: Dice(seed),
            now: 1000,
            epoch: 0,
            number: 0,
            running: None,
            topics,
            metadata: MetaBook::default(),
        }
    }

    pub(super) fn disk(&self) -> &MemDisk {
        &self.disk
    }

    pub(super) fn is_off(&self) -> bool {
        self.disk.is_off()
    }

    /// Starts the log, again where a failing disk kept it from starting. Without power there is nothing to be seen.
    pub(super) fn start(&mut self) -> Verdict {
        for attempt in 0.. {
            match self.try_start() {
                Ok(true) => break,
                Ok(false) if self.is_off() => return Ok(()),
                Ok(false) if attempt < 3 => self.kill()?,
                Ok(false) => return Err("does not start although the disk works".into()),
                Err(e) => return Err(format!("at a start: {e}")),
            }
        }
        self.resend()
    }

    /// `false` when the disk did not let it.
    fn try_start(&mut self) -> Verdict<bool> {
        self.epoch += 1;
        let running = match self.open() {
            Ok(running) => running,
            Err(LogError::Io { .. }) => return Ok(false),
            Err(other) => return Err(other.to_string()),
        };
        let specs = self.topics.iter().map(Topic::spec).collect();
        let opened = match running.dir.load(specs, self.now) {
            Ok(opened) => opened,
            Err(LogError::Io { .. }) => return Ok(false),
            Err(other) => return Err(other.to_string()),
        };
        let mut logs = Vec::new();
        for one in opened {
            match one.log {
                Ok(log) => logs.push(log),
                Err(LogError::Io { .. }) => return Ok(false),
                Err(other) => return Err(format!("{}: {other}", one.id)),
            }
        }
        for topic in &mut self.topics {
            let log = logs.iter().find(|log| log.id() == &topic.spec().id).ok_or("a partition is missing")?;
            topic.book.restarted(log).map_err(|e| format!("{}: {e}", topic.name))?;
            topic.log = Some(Arc::clone(log));
        }
        self.metadata.restarted(&running.meta)?;
        self.running = Some(running);
        Ok(true)
    }

    fn open(&self) -> Result<Running> {
        let options = LogDirOptions {
            flush_mode: self.mode,
            flush_threads: 0,
            open_threads: 1,
            compaction_map_bytes: 500,
            tail_bytes: if self.epoch % 2 == 0 { 0 } else { 1500 },
            ..LogDirOptions::default()
        };
        let dir = LogDir::open(Arc::new(self.disk.clone()), Path::new(ROOT), options)?;
        let path = Path::new(ROOT).join("meta");
        let meta = MetaLog::open(Arc::new(self.disk.clone()), &path, MetaLogOptions { file_bytes: 700 })?;
        Ok(Running { dir, meta })
    }

    /// What producers do when the broker is back: the last acknowledged batch is known, what was in flight is sent again.
    fn resend(&mut self) -> Verdict {
        for at in 0..self.topics.len() {
            for producer in 0..2 {
                let state = &mut self.topics[at].producers[producer];
                let batches = std::mem::take(&mut state.in_flight);
                if let Some(acked) = state.acked.clone() {
                    let there = self.send(at, producer, acked.clone())?;
                    let same = there.as_ref().is_none_or(|now| now.base == acked.base);
                    demand!(same, "{}: an acknowledged batch was taken for new", self.topics[at].name);
                }
                for mut batch in batches {
                    batch.base = None;
                    let sent = self.send(at, producer, batch.clone())?;
                    self.topics[at].producers[producer].in_flight.push_back(sent.unwrap_or(batch));
                }
            }
        }
        Ok(())
    }

    /// The power fails; what `seed` says of the unsynced survives.
    pub(super) fn lose_power(&mut self, seed: u64) -> Verdict {
        self.observe()?;
        self.end();
        self.disk = self.disk.crash(seed);
        Ok(())
    }

    /// The process ends at once; what it wrote stays.
    pub(super) fn kill(&mut self) -> Verdict {
        self.observe()?;
        self.end();
        self.disk = self.disk.restart();
        Ok(())
    }

    fn end(&mut self) {
        self.running = None;
        self.topics.iter_mut().for_each(|topic| topic.log = None);
    }

    fn observe(&mut self) -> Verdict {
        let now = self.now;
        self.topics.iter_mut().try_for_each(|t| t.observe(now).map_err(|e| format!("{}: {e}", t.name)))
    }

    /// One piece of work.
    pub(super) fn step(&mut self, step: u64) -> Verdict {
        self.now += self.dice.below(40) as i64;
        let topic = self.dice.below(4) as usize;
        match self.dice.below(100) {
            _ if step % 55 == 40 => self.stop_cleanly()?,
            _ if step % 55 == 54 => self.kill()?,
            0..55 => self.append(topic)?,
            55..65 => self.flush(topic),
            65..72 => self.with(|running| running.dir.flush_queued()),
            72..80 => {
                let now = self.now;
                self.with(|running| running.dir.housekeep(now));
            }
            80..83 => self.delete_records()?,
            83..85 => self.recreate(),
            85..94 => self.metadata_work(),
            94..97 => self.now += 300,
            _ => self.read_back()?,
        }
        if self.is_off() {
            return Ok(());
        }
        self.observe()?;
        let sound = |running: &Running| running.dir.check_online().is_ok();
        let logs = self.topics.iter().all(|t| t.log.as_ref().is_some_and(|log| log.check_online().is_ok()));
        if !logs || !self.running.as_ref().is_some_and(sound) {
            // What an operator does with a broker whose disk failed.
            self.kill()?;
            self.start()?;
        }
        Ok(())
    }

    fn with(&mut self, work: impl FnOnce(&mut Running)) {
        if let Some(running) = &mut self.running {
            work(running);
        }
    }

    fn stop_cleanly(&mut self) -> Verdict {
        let stopped = self.running.as_ref().is_none_or(|running| running.dir.stop(self.epoch.into()).is_ok());
        self.observe()?;
        let nothing_waits =
            |t: &Topic| t.producers.iter().all(|p| p.in_flight.iter().all(|batch| batch.base.is_none()));
        if stopped && !self.topics.iter().all(nothing_waits) {
            return Err("a clean stop left something unflushed".into());
        }
        self.kill()
    }

    fn append(&mut self, topic: usize) -> Verdict {
        let producer = self.dice.below(2) as usize;
        if self.topics[topic].producers[producer].in_flight.len() >= 3 {
            self.flush(topic);
            return Ok(());
        }
        // What failed before goes first.
        let state = &mut self.topics[topic].producers[producer];
        if let Some(failed) = state.in_flight.pop_back_if(|batch| batch.base.is_none()) {
            let sent = self.send(topic, producer, failed.clone())?;
            self.topics[topic].producers[producer].in_flight.push_back(sent.unwrap_or(failed));
            return Ok(());
        }
        let count = 1 + self.dice.below(4);
        let records: Vec<Sent> = (0..count).map(|_| self.record()).collect();
        let state = &mut self.topics[topic].producers[producer];
        let batch = Batch { sequence: state.next_sequence, records, base: None };
        state.next_sequence += count as i32;
        let sent = self.send(topic, producer, batch.clone())?;
        self.topics[topic].producers[producer].in_flight.push_back(sent.unwrap_or(batch));
        Ok(())
    }

    fn record(&mut self) -> Sent {
        self.number += 1;
        let value = (self.dice.below(4) > 0).then_some(self.number * 3);
        let key = self.dice.below(7) as u8;
        Sent { key, value, timestamp: self.now, epoch: self.epoch, id: self.number }
    }

    /// Appends a batch, or hears that it is there; `None` when the disk refused.
    fn send(&mut self, topic: usize, producer: usize, mut batch: Batch) -> Verdict<Option<Batch>> {
        let Topic { log: Some(log), book, name, .. } = &mut self.topics[topic] else { return Ok(None) };
        // The epoch is the leader's at the time of the append, not of the first attempt.
        let fresh = batch.base.is_none();
        if fresh {
            batch.records.iter_mut().for_each(|r| r.epoch = self.epoch);
            book.sending(log.end_offset(), &batch.records);
        }
        match log.append(encode(producer, &batch), self.epoch, self.now) {
            Ok(info) if info.duplicate => {
                book.replayed(info.base_offset, info.last_offset, &batch.records)
                    .map_err(|e| format!("{name}: {e}"))?;
                batch.base = Some(info.base_offset);
            }
            Ok(info) => {
                demand!(fresh, "{name}: acknowledged sequence {} was appended again", batch.sequence);
                book.appended(info.base_offset, &batch.records);
                batch.base = Some(info.base_offset);
            }
            Err(AppendError::Storage(_)) => return Ok(None),
            Err(other) => return Err(format!("{name}: {other}")),
        }
        log.request_flush(Urgency::Soon);
        Ok(Some(batch))
    }

    fn flush(&mut self, topic: usize) {
        if let Some(log) = &self.topics[topic].log {
            // A failure shows in the health of the directory.
            drop(log.flush_blocking());
        }
    }

    fn delete_records(&mut self) -> Verdict {
        let Topic { log: Some(log), book, .. } = &mut self.topics[0] else { return Ok(()) };
        let offset = (log.start_offset() + 1 + self.dice.below(9) as i64).min(log.flushed_offset());
        book.delete_asked(offset);
        if let Ok(start) = log.delete_records_before(offset) {
            book.delete_done(start);
        }
        Ok(())
    }

    /// The topic is deleted and made again under its old name.
    fn recreate(&mut self) {
        let Some(running) = &self.running else { return };
        let topic = &mut self.topics[3];
        let old = topic.spec().id;
        *topic = Topic::new(topic.name, topic.incarnation + 100);
        if running.dir.delete(&old).is_ok() {
            topic.log = running.dir.create(topic.spec(), self.now).ok();
        }
    }

    fn metadata_work(&mut self) {
        let (what, count) = (self.dice.below(8), 1 + self.dice.below(3));
        self.number += 1;
        let Some(running) = &mut self.running else { return };
        let done = match what {
            0 => self.metadata.truncate(&mut running.meta, count),
            1 => self.metadata.purge(&mut running.meta, 6 + count),
            _ => self.metadata.append(&mut running.meta, count, self.number),
        };
        if done.is_err() && !self.disk.is_off() {
            // Its owner stops and starts again.
            self.running = None;
        }
    }

    fn read_back(&self) -> Verdict {
        for topic in &self.topics {
            if let Some(log) = &topic.log {
                topic.book.read_back(log).map_err(|e| format!("{}: {e}", topic.name))?;
            }
        }
        Ok(())
    }

    /// Once everything is quiet: what is there is right, and what was to go has gone.
    pub(super) fn finish(&mut self) -> Verdict {
        self.read_back()?;
        for round in 0..4 {
            self.now += 1000;
            for topic in 0..self.topics.len() {
                if round == 0 {
                    self.append(topic)?;
                }
                self.flush(topic);
            }
            let now = self.now;
            self.with(|running| {
                running.dir.flush_queued();
                running.dir.housekeep(now);
                running.dir.flush_queued();
                running.dir.housekeep(now);
            });
            self.observe()?;
            self.read_back()?;
        }
        let table = &self.topics[1];
        let log = table.log.as_ref().ok_or("the log does not run at the end")?;
        table.book.compacted(log, log.end_offset()).map_err(|e| format!("{}: {e}", table.name))
    }
}

fn encode(producer: usize, batch: &Batch) -> RecordBatch {
    let codec = [Compression::None, Compression::Lz4, Compression::Zstd][batch.sequence as usize % 3];
    let mut builder =
        BatchBuilder::new().producer(11 + producer as i64, 0, batch.sequence).compression(codec);
    for record in &batch.records {
        let value = record.value.map(u64::to_be_bytes);
        let id = Header { key: "id".into(), value: Some(record.id.to_be_bytes().to_vec().into()) };
        let value = value.as_ref().map(<[u8; 8]>::as_slice);
        builder.append(record.timestamp, Some(&[record.key]), value, &[id]);
    }
    let mut bytes = builder.build().expect("a small batch can be built");
    RecordBatch::parse(&mut bytes).expect("what was built can be parsed")
}
