//! A data directory as a whole: identity, clean and unclean starts, power loss at every operation.

use std::io;

use aqueduct_wire::{BatchBuilder, RecordBatch};
use uuid::Uuid;

use super::*;
use crate::disk::OpenMode;
use crate::disk::memory::{Fault, MemDisk};
use crate::disk::real::RealDisk;
use crate::log_config::{LogConfig, PartitionId};
use crate::partition_log::{AppendError, AppendInfo};

const ROOT: &str = "/data";

pub(crate) fn batch(first: i64, count: i64, producer: (i64, i16, i32)) -> RecordBatch {
    let mut builder = BatchBuilder::new().producer(producer.0, producer.1, producer.2);
    for i in first..first + count {
        builder.append(
            1000 + i,
            Some(format!("key {i}").as_bytes()),
            Some(format!("value {i}").as_bytes()),
            &[],
        );
    }
    RecordBatch::parse(&mut builder.build().unwrap()).unwrap()
}

pub(crate) fn plain(first: i64, count: i64) -> RecordBatch {
    batch(first, count, (-1, -1, -1))
}

pub(crate) fn id(partition: i32) -> PartitionId {
    PartitionId { topic: "orders".into(), topic_id: Uuid::from_u128(7), partition }
}

pub(crate) fn small() -> LogConfig {
    LogConfig { segment_bytes: 700, index_interval_bytes: 200, ..LogConfig::default() }
}

pub(crate) fn open(disk: &MemDisk, options: LogDirOptions) -> Result<LogDir> {
    LogDir::open(Arc::new(disk.clone()), Path::new(ROOT), options)
}

pub(crate) fn load(dir: &LogDir, config: LogConfig) -> Result<Arc<PartitionLog>> {
    let opened = dir.load(vec![PartitionSpec { id: id(0), config }], 0)?;
    opened.into_iter().next().unwrap().log
}

/// Offsets and values of all records from `from` on.
pub(crate) fn records(log: &PartitionLog, from: i64) -> Vec<(i64, String)> {
    try_records(log, from).unwrap()
}

fn try_records(log: &PartitionLog, from: i64) -> Result<Vec<(i64, String)>> {
    let (mut at, mut found) = (from, Vec::new());
    while at < log.end_offset() {
        let fetched = log.read(at, 300, log.end_offset())?;
        assert!(fetched.next_offset > at, "no progress at {at}");
        for chunk in fetched.chunks {
            for batch in aqueduct_wire::Batches::new(chunk) {
                for record in batch.unwrap().records(1 << 20).unwrap() {
                    let record = record.unwrap();
                    let value =
                        record.value.map(|v| String::from_utf8(v.to_vec()).unwrap()).unwrap_or_default();
                    found.push((record.offset, value));
                }
            }
        }
        at = fetched.next_offset;
    }
    found.retain(|(offset, _)| *offset >= from);
    Ok(found)
}

fn expected(range: std::ops::Range<i64>) -> Vec<(i64, String)> {
    range.map(|i| (i, format!("value {i}"))).collect()
}

fn fill(log: &PartitionLog, batches: i64) {
    for i in 0..batches {
        log.append(plain(i * 3, 3), 0, 0).unwrap();
    }
}

#[test]
fn appended_records_are_read_back_from_memory_and_from_disk() {
    for tail_bytes in [0, 500, 1 << 20] {
        let disk = MemDisk::with_dir("/");
        let dir = open(&disk, LogDirOptions { tail_bytes, ..LogDirOptions::default() }).unwrap();
        let log = load(&dir, small()).unwrap();
        fill(&log, 40);
        assert_eq!(records(&log, 0), expected(0..120));
        assert_eq!(records(&log, 64), expected(64..120));
        assert!(log.segment_count() > 5);
        assert!(log.read(121, 100, 1000).is_err());
        assert!(log.read(120, 100, 1000).unwrap().chunks.is_empty());
        // Only what ends below the high watermark.
        assert_eq!(log.read(0, 1 << 20, 7).unwrap().next_offset, 6);
    }
}

#[test]
fn a_clean_stop_is_found_again_and_only_once() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    assert_eq!(dir.clean_shutdown_epoch(), None);
    let identity = dir.identity().clone();
    let log = load(&dir, small()).unwrap();
    fill(&log, 10);
    log.append(batch(30, 2, (5, 0, 0)), 1, 0).unwrap();
    dir.stop(42).unwrap();
    drop((dir, log));
    let disk = disk.crash(0);
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    assert_eq!((dir.clean_shutdown_epoch(), dir.identity()), (Some(42), &identity));
    let log = load(&dir, small()).unwrap();
    assert_eq!((log.end_offset(), log.flushed_offset(), log.latest_epoch()), (32, 32, Some(1)));
    assert_eq!(records(&log, 0), expected(0..32));
    assert!(log.append(batch(30, 2, (5, 0, 0)), 1, 0).unwrap().duplicate);
    drop((dir, log));
    assert_eq!(open(&disk.crash(0), LogDirOptions::default()).unwrap().clean_shutdown_epoch(), None);
}

#[test]
fn a_second_owner_a_foreign_cluster_and_a_newer_format_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let open = |options| LogDir::open(Arc::new(RealDisk), temp.path(), options).map_err(|e| e.to_string());
    let named = |name: &str| LogDirOptions { cluster_id: Some(name.into()), ..LogDirOptions::default() };
    let dir = open(named("mine")).unwrap();
    let error = open(LogDirOptions::default()).unwrap_err();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(dir);
    assert!(open(named("other")).unwrap_err().contains("belongs to cluster `mine`"));
    assert!(open(LogDirOptions { node_id: 3, ..named("mine") }).unwrap_err().contains("node `1`"));
    let file = temp.path().join("meta.properties");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("version=1", "version=7")).unwrap();
    let error = open(named("mine")).unwrap_err();
    assert!(error.contains("version 7") && error.contains("up to 1"), "{error}");
}

#[test]
fn a_recreated_topic_does_not_see_the_old_ones_files() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    fill(&load(&dir, small()).unwrap(), 10);
    dir.stop(1).unwrap();
    drop(dir);
    let disk = disk.crash(0);
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let new = PartitionId { topic_id: Uuid::from_u128(8), ..id(0) };
    let spec = PartitionSpec { id: new.clone(), config: small() };
    let log = dir.load(vec![spec.clone()], 0).unwrap().remove(0).log.unwrap();
    assert_eq!((log.start_offset(), log.end_offset()), (0, 0));
    dir.housekeep(0);
    let names: Vec<_> = disk.list(Path::new(ROOT)).unwrap().into_iter().map(|e| e.name).collect();
    assert!(
        names.contains(&"orders-0".to_owned()) && !names.iter().any(|n| n.ends_with("-delete")),
        "{names:?}"
    );
    // Deleting works the same way.
    dir.delete(&new).unwrap();
    assert!(log.append(plain(0, 1), 0, 0).is_err());
    assert_eq!(dir.create(spec, 0).unwrap().end_offset(), 0);
}

#[test]
fn a_failed_or_short_write_leaves_nothing_behind() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let log = load(&dir, LogConfig::default()).unwrap();
    let append = |first, sequence| log.append(batch(first, 3, (9, 0, sequence)), 0, 0);
    append(0, 0).unwrap();
    disk.fault_next(Fault::PartWriteThenFail(io::ErrorKind::StorageFull));
    assert!(dir.counters().no_room(std::time::Duration::MAX).is_none());
    let error = append(3, 3).unwrap_err();
    assert!(matches!(&error, AppendError::Storage(e) if e.is_disk_full()), "{error}");
    assert!(dir.counters().no_room(std::time::Duration::MAX).is_some_and(|e| e.is_disk_full()));
    // The producer state forgot it too: the same batch is no duplicate.
    let info = append(3, 3).unwrap();
    assert_eq!(info, AppendInfo { base_offset: 3, last_offset: 5, duplicate: false });
    disk.fault_next(Fault::ShortWrite);
    append(6, 6).unwrap();
    assert_eq!(append(6, 6).unwrap(), AppendInfo { base_offset: 6, last_offset: 8, duplicate: true });
    log.flush_blocking().unwrap();
    drop((dir, log));
    let log = load(&open(&disk.crash(0), LogDirOptions::default()).unwrap(), LogConfig::default()).unwrap();
    assert_eq!(records(&log, 0), expected(0..9));
}

#[test]
fn a_segment_is_sealed_without_what_a_failed_write_left() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let config = LogConfig { segment_ms: 10, ..LogConfig::default() };
    let log = load(&dir, config.clone()).unwrap();
    log.append(plain(0, 3), 0, 0).unwrap();
    // The write fails half way, and so does cutting it back at once.
    let next = disk.operations();
    disk.fault_at(next, Fault::PartWriteThenFail(io::ErrorKind::StorageFull));
    disk.fault_at(next + 1, Fault::Fail(io::ErrorKind::Other));
    log.append(plain(3, 3), 0, 0).unwrap_err();
    dir.housekeep(100);
    assert_eq!(log.segment_count(), 2);
    let sealed = disk.open(&log.dir.join("00000000000000000000.log"), OpenMode::Read).unwrap();
    assert_eq!(sealed.len().unwrap(), log.size());
    log.append(plain(3, 3), 0, 100).unwrap();
    log.flush_blocking().unwrap();
    drop((dir, log));
    let log = load(&open(&disk.crash(0), LogDirOptions::default()).unwrap(), config).unwrap();
    assert_eq!(records(&log, 0), expected(0..6));
}

#[test]
fn a_failed_sync_takes_the_directory_offline_and_is_not_retried() {
    struct Sink(Mutex<Vec<String>>, parking_lot::Condvar);
    impl crate::FlushSink for Sink {
        fn flushed(&self, _: i64) {}
        fn failed(&self, error: &LogError) {
            self.0.lock().push(error.to_string());
            self.1.notify_all();
        }
    }
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let log = load(&dir, LogConfig::default()).unwrap();
    let sink = Arc::new(Sink(Mutex::default(), parking_lot::Condvar::new()));
    let weak: std::sync::Weak<Sink> = Arc::downgrade(&sink);
    log.set_flush_sink(weak);
    log.append(plain(0, 3), 0, 0).unwrap();
    disk.break_sync();
    log.request_flush(crate::Urgency::Now);
    let mut heard = sink.0.lock();
    while heard.is_empty() {
        sink.1.wait(&mut heard);
    }
    assert!(heard[0].contains("restart the broker"), "{heard:?}");
    drop(heard);
    assert_eq!(log.flushed_offset(), 0);
    assert!(log.append(plain(3, 3), 0, 0).is_err() && log.read(0, 100, 3).is_err());
    assert!(log.flush_blocking().is_err() && dir.stop(1).is_err());
}

/// Appends, rolls, retention and checkpoints, noting what was acknowledged as flushed.
fn workload(disk: &MemDisk, mode: FlushMode, acknowledged: &mut i64) -> Result<()> {
    let options = LogDirOptions { flush_mode: mode, ..LogDirOptions::default() };
    let dir = open(disk, options)?;
    let log = load(&dir, small())?;
    for i in 0..30 {
        log.append(batch(i * 3, 3, (4, 0, i as i32 * 3)), i as i32 / 8, 0).map_err(|e| match e {
            AppendError::Storage(e) => e,
            other => LogError::Invalid(other.to_string()),
        })?;
        if i % 2 == 1 {
            log.flush_blocking()?;
            *acknowledged = log.flushed_offset();
        }
        if i == 20 {
            log.set_config(LogConfig { retention_bytes: 2000, ..small() });
            dir.housekeep(0);
        }
    }
    dir.stop(3)
}

/// What is wrong after the power failed at operation `at`, if anything.
fn after_power_loss(at: u64, seed: u64, mode: FlushMode) -> Result<(), String> {
    let disk = MemDisk::with_dir("/");
    disk.fault_at(at, Fault::PowerOff);
    let mut acknowledged = 0;
    let done = workload(&disk, mode, &mut acknowledged);
    let disk = disk.crash(seed);
    let dir = open(&disk, LogDirOptions::default()).map_err(|e| e.to_string())?;
    let log = load(&dir, small()).map_err(|e| e.to_string())?;
    if log.end_offset() < acknowledged {
        return Err(format!("acknowledged up to {acknowledged}, found up to {}", log.end_offset()));
    }
    if done.is_ok() && log.end_offset() != 90 {
        return Err(format!("stopped at 90, found {}", log.end_offset()));
    }
    let (start, end) = (log.start_offset(), log.end_offset());
    let found = try_records(&log, start).map_err(|e| e.to_string())?;
    if found != expected(start..end) || log.flushed_offset() != end {
        return Err(format!("wrong records in {start}..{end}"));
    }
    // The producer goes on where the log ends, and a replay of its last batch is known.
    if end > start {
        let replay =
            log.append(batch(end - 3, 3, (4, 0, end as i32 - 3)), 9, 0).map_err(|e| e.to_string())?;
        if !replay.duplicate || replay.base_offset != end - 3 {
            return Err(format!("a replay was taken for new: {replay:?}"));
        }
    }
    log.append(batch(end, 3, (4, 0, end as i32)), 9, 0).map_err(|e| e.to_string())?;
    log.flush_blocking().map_err(|e| e.to_string())?;
    let again = disk.crash(seed + 1);
    drop((dir, log));
    let dir = open(&again, LogDirOptions::default()).map_err(|e| e.to_string())?;
    let log = load(&dir, small()).map_err(|e| e.to_string())?;
    (log.end_offset() == end + 3)
        .then_some(())
        .ok_or_else(|| "lost what was written after recovery".to_owned())
}

fn operations(mode: FlushMode) -> u64 {
    let disk = MemDisk::with_dir("/");
    workload(&disk, mode, &mut 0).unwrap();
    disk.operations()
}

#[test]
fn power_loss_at_any_operation_loses_nothing_acknowledged() {
    let operations = operations(FlushMode::Durable);
    assert!(operations > 100);
    for at in 0..=operations + 5 {
        for seed in 0..6 {
            after_power_loss(at, seed, FlushMode::Durable)
                .unwrap_or_else(|e| panic!("operation {at}, seed {seed}: {e}"));
        }
    }
}

#[test]
fn without_the_flusher_the_power_loss_test_fails() {
    let mut failures = 0;
    for at in 0..=operations(FlushMode::UnsafeNoFlush) {
        for seed in 0..6 {
            failures += usize::from(after_power_loss(at, seed, FlushMode::UnsafeNoFlush).is_err());
        }
    }
    assert!(failures > 20, "only {failures}");
}

/// Reads to the end of what is flushed, until `done`.
fn follow(log: &PartitionLog, done: &AtomicBool) {
    let mut at = 0;
    while !done.load(Ordering::Acquire) || at < log.flushed_offset() {
        match log.read(at, 5000, log.flushed_offset()) {
            Ok(fetched) if fetched.next_offset == at => std::thread::yield_now(),
            Ok(fetched) => {
                for batch in fetched.chunks.into_iter().flat_map(aqueduct_wire::Batches::new) {
                    assert!(batch.unwrap().header().next_offset() > at);
                }
                at = fetched.next_offset;
            }
            // Retention was faster.
            Err(LogError::OffsetOutOfRange { start, .. }) => at = start,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn writers_readers_and_housekeeping_get_along_on_a_real_disk() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("data");
    let open = || LogDir::open(Arc::new(RealDisk), &root, LogDirOptions::default()).unwrap();
    let dir = open();
    let config = |p: i32| LogConfig {
        segment_bytes: 20_000,
        compact: p % 2 == 1,
        delete: p % 2 == 0,
        retention_bytes: 100_000,
        min_cleanable_dirty_ratio: 0.1,
        ..LogConfig::default()
    };
    let specs = || (0..4).map(|p| PartitionSpec { id: id(p), config: config(p) }).collect::<Vec<_>>();
    let logs: Vec<_> = dir.load(specs(), 0).unwrap().into_iter().map(|o| o.log.unwrap()).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = logs
            .iter()
            .map(|log| {
                scope.spawn(move || {
                    for i in 0..2000i64 {
                        log.append_many(vec![plain(i % 50, 2), plain(i % 50, 2)], 0, 0).into_iter().for_each(
                            |r| {
                                r.unwrap();
                            },
                        );
                        log.request_flush(if i % 7 == 0 {
                            crate::Urgency::Now
                        } else {
                            crate::Urgency::Soon
                        });
                    }
                })
            })
            .collect();
        for log in &logs {
            let done = &done;
            scope.spawn(move || {
                follow(log, done);
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                dir.housekeep(0);
            }
        });
        writers.into_iter().for_each(|w| w.join().unwrap());
        logs.iter().for_each(|log| log.flush_blocking().unwrap());
        done.store(true, Ordering::Release);
    });
    dir.housekeep(0);
    for log in &logs {
        assert_eq!((log.end_offset(), log.flushed_offset()), (8000, 8000));
        assert!(log.size() < 250_000, "{} {}", log.id(), log.size());
    }
    dir.stop(1).unwrap();
    drop((dir, logs));
    let dir = open();
    assert!(dir.load(specs(), 0).unwrap().into_iter().all(|o| o.log.unwrap().end_offset() == 8000));
}
