//! Compaction keeps what a reader of the whole log would end up with, whatever crashes in between.

use std::collections::BTreeMap;
use std::path::Path;

use aqueduct_wire::{BatchBuilder, Batches, Compression, Record, RecordBatch};
use proptest::prelude::*;

use super::*;
use crate::disk::Disk;
use crate::disk::memory::{Fault, MemDisk};
use crate::log_dir::tests::{id, load, open};
use crate::log_dir::{LogDir, LogDirOptions};

type Update = (u8, Option<u16>);

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 900,
        index_interval_bytes: 200,
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 100,
        ..LogConfig::default()
    }
}

fn batch(updates: &[Update], producer: (i64, i16, i32), compression: Compression) -> RecordBatch {
    let mut builder =
        BatchBuilder::new().producer(producer.0, producer.1, producer.2).compression(compression);
    for (key, value) in updates {
        let value = value.map(|v| format!("value {v}").into_bytes());
        builder.append(5, Some(&[b'k', *key]), value.as_deref(), &[]);
    }
    RecordBatch::parse(&mut builder.build().unwrap()).unwrap()
}

fn all(log: &PartitionLog) -> Vec<Record> {
    let (mut at, mut found) = (log.start_offset(), Vec::new());
    while at < log.end_offset() {
        let fetched = log.read(at, 500, log.end_offset()).unwrap();
        if fetched.next_offset == at {
            break;
        }
        for chunk in fetched.chunks {
            for batch in Batches::new(chunk) {
                found.extend(batch.unwrap().records(1 << 20).unwrap().map(|r| r.unwrap()));
            }
        }
        at = fetched.next_offset;
    }
    found
}

/// What a reader ends up with: the last value of each key and its offset, tombstones applied.
fn fold(records: &[Record]) -> BTreeMap<Vec<u8>, (i64, Vec<u8>)> {
    let mut state = BTreeMap::new();
    for record in records {
        let key = record.key.clone().unwrap().to_vec();
        match &record.value {
            Some(value) => state.insert(key, (record.offset, value.to_vec())),
            None => state.remove(&key),
        };
    }
    state
}

/// Everything flushed, and the recovery point stored as the flusher does after a roll.
fn settle(dir: &LogDir, log: &PartitionLog) -> Result<()> {
    log.flush_blocking()?;
    dir.context_for_tests().checkpoints().store()
}

fn updates() -> impl Strategy<Value = Vec<Vec<Update>>> {
    let update = (0..12u8, proptest::option::weighted(0.8, 0..1000u16));
    proptest::collection::vec(proptest::collection::vec(update, 1..6), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_fold_of_the_log_does_not_change(batches in updates(), passes in 1..4usize, map_bytes in prop_oneof![Just(0usize), Just(300), Just(1 << 20)]) {
        let disk = MemDisk::with_dir("/");
        let dir = open(&disk, LogDirOptions { tail_bytes: 0, ..LogDirOptions::default() }).unwrap();
        let log = load(&dir, config()).unwrap();
        let mut written = Vec::new();
        let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
        for (i, part) in batches.chunks(batches.len().div_ceil(passes)).enumerate() {
            for updates in part {
                let base = log.append(batch(updates, (-1, -1, -1), codecs[i % 3]), 0, 0).unwrap().base_offset;
                for (offset, (key, value)) in (base..).zip(updates) {
                    let value = value.map(|v| format!("value {v}").into_bytes().into());
                    let key = Some(vec![b'k', *key].into());
                    written.push(Record { offset, timestamp: 5, key, value, headers: Vec::new() });
                }
            }
            settle(&dir, &log).unwrap();
            log.compact(1000 * i as i64, map_bytes).unwrap();
            let left = all(&log);
            prop_assert_eq!(fold(&left), fold(&written));
            prop_assert!(left.iter().all(|r| written.contains(r)), "a record changed");
        }
        let left = all(&log);
        drop((dir, log));
        let log = load(&open(&disk.crash(7), LogDirOptions::default()).unwrap(), config()).unwrap();
        prop_assert_eq!(all(&log), left);
    }
}

#[test]
fn old_values_go_at_once_and_tombstones_after_their_time() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let log = load(&dir, config()).unwrap();
    let fill = |from: u16| {
        for i in 0..30 {
            log.append(batch(&[(1, Some(from + i)), (2, Some(i))], (-1, -1, -1), Compression::None), 0, 0)
                .unwrap();
        }
        settle(&dir, &log).unwrap();
    };
    fill(0);
    log.append(batch(&[(3, Some(7))], (-1, -1, -1), Compression::None), 0, 0).unwrap();
    log.append(batch(&[(3, None)], (-1, -1, -1), Compression::None), 0, 0).unwrap();
    fill(100);
    let tombstones = || all(&log).iter().filter(|r| r.key.as_deref() == Some(b"k\x03")).count();
    log.compact(1000, 1 << 20).unwrap();
    assert_eq!(tombstones(), 1, "the value goes, the tombstone stays");
    let small = log.size();
    fill(200);
    log.compact(1050, 1 << 20).unwrap();
    assert_eq!(tombstones(), 1, "its time has not come");
    fill(300);
    log.compact(1200, 1 << 20).unwrap();
    assert_eq!(tombstones(), 0);
    assert!(log.size() < small + 1000 && log.segment_count() < 8, "{} {}", log.size(), log.segment_count());
}

#[test]
fn the_last_batch_of_a_producer_stays_known() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let log = load(&dir, config()).unwrap();
    let mine = || batch(&[(1, Some(1)), (2, Some(1))], (77, 0, 0), Compression::None);
    log.append(mine(), 0, 0).unwrap();
    for i in 0..40 {
        log.append(batch(&[(1, Some(i)), (2, Some(i))], (-1, -1, -1), Compression::None), 0, 0).unwrap();
    }
    settle(&dir, &log).unwrap();
    log.compact(0, 1 << 20).unwrap();
    drop((dir, log));
    let disk = disk.crash(0);
    // Without snapshots the state comes from the log alone.
    for entry in disk.list(Path::new("/data/orders-0")).unwrap() {
        if entry.name.ends_with(".snapshot") {
            disk.remove_file(&Path::new("/data/orders-0").join(entry.name)).unwrap();
        }
    }
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let log = load(&dir, config()).unwrap();
    let replay = log.append(mine(), 1, 0).unwrap();
    assert!(replay.duplicate && replay.base_offset == 0, "{replay:?}");
}

#[test]
fn a_hundred_keys_stay_small_under_many_updates() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let ratio = LogConfig { segment_bytes: 64 << 10, min_cleanable_dirty_ratio: 0.5, ..config() };
    let log = load(&dir, ratio).unwrap();
    let mut largest = 0;
    for round in 0..100u16 {
        for _ in 0..10 {
            let updates: Vec<Update> = (0..100).map(|key| (key, Some(round))).collect();
            log.append(batch(&updates, (-1, -1, -1), Compression::None), 0, 0).unwrap();
        }
        settle(&dir, &log).unwrap();
        log.compact(0, 1 << 20).unwrap();
        largest = largest.max(log.size());
    }
    assert!(largest < 300 << 10, "{largest}");
    assert_eq!(fold(&all(&log)).len(), 100);
}

#[test]
fn power_loss_at_any_operation_of_a_compaction_changes_nothing() {
    let prepare = |disk: &MemDisk| -> Result<(LogDir, Arc<PartitionLog>)> {
        let dir = open(disk, LogDirOptions::default())?;
        let log = load(&dir, config())?;
        for i in 0..40u16 {
            let updates = [((i % 7) as u8, Some(i)), ((i % 5) as u8, (i % 9 != 0).then_some(i))];
            log.append(batch(&updates, (-1, -1, -1), Compression::None), 0, 0).unwrap();
        }
        settle(&dir, &log)?;
        Ok((dir, log))
    };
    let expect = {
        let disk = MemDisk::with_dir("/");
        fold(&all(&prepare(&disk).unwrap().1))
    };
    let mut finished = false;
    for at in 0.. {
        for seed in 0..4 {
            let disk = MemDisk::with_dir("/");
            let (dir, log) = prepare(&disk).unwrap();
            disk.fault_at(disk.operations() + at, Fault::PowerOff);
            finished = log.compact(0, 1 << 20).is_ok();
            drop((dir, log));
            let disk = disk.crash(seed);
            let dir = open(&disk, LogDirOptions::default()).unwrap();
            let log = load(&dir, config()).unwrap_or_else(|e| panic!("operation {at}, seed {seed}: {e}"));
            assert_eq!(fold(&all(&log)), expect, "operation {at}, seed {seed}");
            assert_eq!(log.end_offset(), 80);
            let names: Vec<_> =
                disk.list(Path::new("/data/orders-0")).unwrap().into_iter().map(|e| e.name).collect();
            assert!(!names.iter().any(|n| n.ends_with(".swap") || n.ends_with(".cleaned")), "{names:?}");
            assert_eq!(id(0), *log.id());
        }
        if finished {
            break;
        }
    }
    assert!(finished);
}
