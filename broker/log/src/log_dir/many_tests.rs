//! Many partitions at once: made together, stopped together, with the power going at any operation.

use super::tests::{id, open, plain, records, small};
use super::*;
use crate::disk::memory::{Fault, MemDisk};
use crate::log_config::LogConfig;

const MANY: i32 = 4;

fn options() -> LogDirOptions {
    LogDirOptions { flush_threads: 0, open_threads: 1, ..LogDirOptions::default() }
}

fn specs() -> Vec<PartitionSpec> {
    (0..MANY).map(|index| PartitionSpec { id: id(index), config: small() }).collect()
}

fn logs(opened: Vec<OpenedPartition>) -> Vec<Arc<PartitionLog>> {
    opened.into_iter().map(|one| one.log.expect("it opens")).collect()
}

/// Makes all partitions and writes to them; how many records of each were flushed.
fn make_and_write(disk: &MemDisk) -> Vec<i64> {
    let mut flushed = vec![0; MANY as usize];
    let Ok(dir) = open(disk, options()) else { return flushed };
    for (opened, flushed) in dir.create_all(&specs(), 0).into_iter().zip(&mut flushed) {
        let Ok(log) = opened.log else { continue };
        if log.append(plain(0, 3), 0, 0).is_ok() && log.flush_blocking().is_ok() {
            *flushed = log.flushed_offset();
        }
    }
    drop(dir.stop(1));
    flushed
}

#[test]
fn partitions_made_together_keep_what_was_flushed_after_a_power_loss_at_any_operation() {
    let whole = MemDisk::with_dir("/");
    assert_eq!(make_and_write(&whole), [3; MANY as usize]);
    for at in 0..whole.operations() {
        for seed in 0..4 {
            let disk = MemDisk::with_dir("/");
            disk.fault_at(at, Fault::PowerOff);
            let flushed = make_and_write(&disk);
            let dir = open(&disk.crash(seed), options()).expect("it opens");
            for (log, flushed) in logs(dir.load(specs(), 0).expect("it loads")).iter().zip(flushed) {
                assert!(records(log, 0).len() as i64 >= flushed, "operation {at}, seed {seed}: {}", log.id());
            }
        }
    }
}

#[test]
fn a_root_whose_sync_failed_takes_no_partitions() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, options()).unwrap();
    drop(dir.create_all(&specs()[..1], 0));
    let before = disk.operations();
    drop(dir.create_all(&specs()[1..2], 0));
    // The sync of the root is the last operation of a creation.
    disk.fault_at(2 * disk.operations() - before - 1, Fault::Fail(std::io::ErrorKind::Other));
    assert!(dir.create_all(&specs()[2..3], 0)[0].log.is_err());
    assert!(dir.get("orders", 2).is_none());
    // A second attempt would find the directory and think it durable.
    assert!(
        dir.check_online().is_err() && dir.create_all(&specs()[2..], 0).iter().all(|one| one.log.is_err())
    );
}

#[test]
fn a_full_disk_is_asked_once() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, options()).unwrap();
    disk.fault_next(Fault::Fail(std::io::ErrorKind::StorageFull));
    let refused = dir.create_all(&specs(), 0);
    assert!(refused.iter().all(|one| one.log.as_ref().is_err_and(LogError::is_disk_full)));
    assert_eq!(logs(dir.create_all(&specs(), 0)).len(), MANY as usize);
}

#[test]
fn a_stop_writes_what_changed_and_the_next_start_finds_everything() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, options()).unwrap();
    let made = logs(dir.create_all(&specs(), 0));
    made[1].append(plain(0, 5), 0, 0).unwrap();
    made[2].append(plain(0, 7), 0, 0).unwrap();
    dir.stop(1).unwrap();
    let names = |index: i32| -> Vec<String> {
        let list = disk.list(&Path::new("/data").join(id(index).dir_name())).unwrap();
        list.into_iter().map(|entry| entry.name).collect()
    };
    let has_index = |index: i32| names(index).iter().any(|name| name.ends_with(".timeindex"));
    assert!(!has_index(0) && has_index(1) && has_index(2) && !has_index(3));
    drop((dir, made));

    let dir = open(&disk, options()).unwrap();
    let found = logs(dir.load(specs(), 0).unwrap());
    let ends: Vec<i64> = found.iter().map(|log| log.end_offset()).collect();
    assert_eq!(ends, [0, 5, 7, 0]);
    found[2].append(plain(7, 1), 0, 0).unwrap();
    let before = names(1);
    disk.remove_file(
        &Path::new("/data/orders-1").join(before.iter().find(|n| n.ends_with(".timeindex")).unwrap()),
    )
    .unwrap();
    dir.stop(2).unwrap();
    assert!(!has_index(1), "it did not change, so nothing of it is written");
    drop((dir, found));

    let dir = open(&disk, options()).unwrap();
    let found = logs(dir.load(specs(), 0).unwrap());
    let sizes: Vec<usize> = found.iter().map(|log| records(log, 0).len()).collect();
    assert_eq!(sizes, [0, 5, 8, 0]);
    assert_eq!(found[1].offset_for_timestamp(1004).unwrap(), Some((4, 1004)));
}

#[test]
fn retention_waits_for_its_turn_and_deleted_records_do_not() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, options()).unwrap();
    let spec = PartitionSpec { id: id(0), config: LogConfig { retention_ms: 100, ..small() } };
    let log = dir.create(spec, 0).unwrap();
    for i in 0..20 {
        log.append(plain(i * 3, 3), 0, 0).unwrap();
    }
    log.flush_blocking().unwrap();
    dir.maintain(1_000_000);
    assert_eq!(log.start_offset(), 0, "everything is old, and nobody asked for retention");
    let segments = log.segment_count();
    log.delete_records_before(30).unwrap();
    dir.maintain(1_000_000);
    assert!(log.segment_count() < segments);
    dir.housekeep(1_000_000);
    log.flush_blocking().unwrap();
    dir.housekeep(1_000_000);
    assert_eq!((log.start_offset(), log.end_offset()), (60, 60));
}

#[test]
fn compaction_hears_of_a_finished_segment_once_it_may_begin() {
    use std::sync::atomic::AtomicUsize;
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, options()).unwrap();
    let rings = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&rings);
    dir.on_compactable(move || {
        heard.fetch_add(1, Ordering::Relaxed);
    });
    let compacted = LogConfig { compact: true, delete: false, min_cleanable_dirty_ratio: 0.0, ..small() };
    let [kept, other] = [(0, compacted), (1, small())]
        .map(|(index, config)| dir.create(PartitionSpec { id: id(index), config }, 0).unwrap());
    for log in [&other, &kept] {
        while log.segment_count() < 3 {
            log.append(plain(0, 3), 0, 0).unwrap();
        }
        assert_eq!(rings.load(Ordering::Relaxed), 0);
        log.request_flush(crate::Urgency::Now);
        dir.flush_queued();
    }
    assert_eq!(rings.load(Ordering::Relaxed), 1, "for the compacted one alone");
    let before = kept.size();
    dir.maintain(0);
    assert!(kept.size() < before);
}
