//! Many lives of one data directory: random work, power loss at a random operation (in recovery too), and a model of what was
//! acknowledged.

use std::collections::BTreeMap;

use aqueduct_wire::{BatchBuilder, Batches, RecordBatch};

use super::tests::{id, open};
use super::*;
use crate::disk::memory::{Fault, MemDisk};
use crate::log_config::LogConfig;
use crate::partition_log::AppendError;

/// The same seed gives the same run, up to the flusher thread's timing.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// What must be true of a partition.
#[derive(Default)]
struct Model {
    /// Every record ever written, by offset; rewritten when a lost tail was written anew.
    written: BTreeMap<i64, (u8, u64)>,
    flushed: i64,
    sequence: i32,
}

fn config(compact: bool) -> LogConfig {
    LogConfig {
        segment_bytes: 800,
        index_interval_bytes: 150,
        compact,
        delete: !compact,
        retention_bytes: 6000,
        min_cleanable_dirty_ratio: 0.3,
        ..LogConfig::default()
    }
}

fn specs() -> Vec<PartitionSpec> {
    (0..3).map(|p| PartitionSpec { id: id(p), config: config(p == 1) }).collect()
}

fn read_all(log: &PartitionLog) -> BTreeMap<i64, (u8, u64)> {
    let (mut at, mut found) = (log.start_offset(), BTreeMap::new());
    while at < log.end_offset() {
        let fetched = log.read(at, 400, log.end_offset()).unwrap();
        if fetched.next_offset == at {
            break;
        }
        for batch in fetched.chunks.into_iter().flat_map(Batches::new) {
            for record in batch.unwrap().records(1 << 20).unwrap() {
                let record = record.unwrap();
                let value = u64::from_be_bytes(record.value.unwrap()[..8].try_into().unwrap());
                found.insert(record.offset, (record.key.unwrap()[0], value));
            }
        }
        at = fetched.next_offset;
    }
    found.split_off(&log.start_offset())
}

/// After a start: nothing flushed is missing or changed, and the model goes on from what was found.
fn verify(log: &PartitionLog, model: &mut Model, compact: bool, context: &str) {
    assert!(log.end_offset() >= model.flushed, "{context}: {} < {}", log.end_offset(), model.flushed);
    let found = read_all(log);
    for (offset, record) in &found {
        assert_eq!(model.written.get(offset), Some(record), "{context}: offset {offset}");
    }
    model.written.split_off(&log.end_offset());
    if compact {
        let fold =
            |records: &BTreeMap<i64, (u8, u64)>| -> BTreeMap<u8, u64> { records.values().copied().collect() };
        assert_eq!(fold(&found), fold(&model.written), "{context}");
    } else {
        let expected: Vec<i64> = (log.start_offset()..log.end_offset()).collect();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), expected, "{context}");
    }
    model.flushed = log.end_offset();
}

fn append(log: &PartitionLog, model: &mut Model, dice: &mut Dice, epoch: i32) -> Result<()> {
    let count = 1 + dice.below(4) as i32;
    let mut builder = BatchBuilder::new().producer(11, 0, model.sequence);
    let records: Vec<(u8, u64)> =
        (0..count).map(|_| (dice.below(6) as u8, dice.below(u64::MAX >> 40))).collect();
    for (key, value) in &records {
        builder.append(1, Some(&[*key]), Some(&value.to_be_bytes()), &[]);
    }
    let batch = RecordBatch::parse(&mut builder.build().unwrap()).unwrap();
    // What a failed append leaves on a disk that then loses power may be found: it counts as written, not as flushed.
    for (offset, record) in (log.end_offset()..).zip(&records) {
        model.written.insert(offset, *record);
    }
    match log.append(batch, epoch, 0) {
        Ok(info) => assert!(!info.duplicate),
        Err(AppendError::Storage(e)) => return Err(e),
        Err(other) => panic!("{other}"),
    }
    model.sequence += count;
    Ok(())
}

fn live(dir: &LogDir, models: &mut [Model], dice: &mut Dice, life: u64, seed: u64) -> Result<()> {
    let mut logs = Vec::new();
    let mut opened = dir.load(specs(), 0)?;
    opened.sort_by_key(|o| o.id.partition);
    for (partition, one) in opened.into_iter().enumerate() {
        let log = match one.log {
            Ok(log) => log,
            Err(LogError::Io { .. }) => return Err(LogError::Invalid("power".into())),
            Err(other) => panic!("seed {seed}, life {life}, partition {partition}: {other}"),
        };
        verify(
            &log,
            &mut models[partition],
            partition == 1,
            &format!("seed {seed}, life {life}, partition {partition}"),
        );
        // The producer asks where it stands, as one does that resends its last batch.
        models[partition].sequence = log.end_offset() as i32;
        logs.push(log);
    }
    for _ in 0..dice.below(60) {
        let partition = dice.below(3) as usize;
        let (log, model) = (&logs[partition], &mut models[partition]);
        match dice.below(20) {
            0..14 => append(log, model, dice, life as i32)?,
            14..17 => {
                log.flush_blocking()?;
                model.flushed = log.flushed_offset();
            }
            17 => dir.housekeep(0),
            18 => log.request_flush(crate::Urgency::Soon),
            _ => {
                if partition == 2 && log.flushed_offset() > log.start_offset() {
                    log.delete_records_before((log.start_offset() + 3).min(log.flushed_offset()))?;
                }
            }
        }
    }
    if dice.below(3) == 0 {
        dir.stop(1)?;
        logs.iter().zip(models).for_each(|(log, model)| model.flushed = log.end_offset());
    }
    Ok(())
}

#[test]
fn nothing_flushed_is_lost_over_many_lives() {
    for seed in 0..150 {
        let mut dice = Dice(seed);
        let mut disk = MemDisk::with_dir("/");
        let mut models: Vec<Model> = (0..3).map(|_| Model::default()).collect();
        for life in 0..8 {
            let last = life == 7;
            if !last {
                disk.fault_at(disk.operations() + dice.below(150), Fault::PowerOff);
            }
            let lived = match open(&disk, LogDirOptions { tail_bytes: 0, ..LogDirOptions::default() }) {
                Ok(dir) => live(&dir, &mut models, &mut dice, life, seed),
                Err(error @ LogError::Io { .. }) => Err(error),
                Err(other) => panic!("seed {seed}, life {life}: {other}"),
            };
            assert!(!last || lived.is_ok(), "seed {seed}: {lived:?}");
            disk = disk.crash(seed * 10 + life);
        }
    }
}
