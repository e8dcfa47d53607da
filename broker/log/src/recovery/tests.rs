//! What recovery cuts, what it refuses, and what it builds again.

use std::path::Path;
use std::sync::Arc;

use crate::disk::memory::MemDisk;
use crate::disk::{Disk, OpenMode, read_full_at, write_all_at};
use crate::error::LogError;
use crate::log_config::LogConfig;
use crate::log_dir::LogDirOptions;
use crate::log_dir::tests::{batch, id, load, open, plain, records, small};
use crate::partition_log::PartitionLog;

const SEGMENT: &str = "/data/orders-0/00000000000000000000.log";

fn content(disk: &MemDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), OpenMode::Read).unwrap();
    let mut data = vec![0; file.len().unwrap() as usize];
    read_full_at(&*file, &mut data, 0).unwrap();
    data
}

fn reload(disk: &MemDisk, config: LogConfig) -> Result<Arc<PartitionLog>, LogError> {
    load(&open(disk, LogDirOptions::default()).unwrap(), config)
}

/// Where the batches of a segment end, with 0 in front.
fn ends(data: &[u8]) -> Vec<usize> {
    let batches = aqueduct_wire::Batches::new(data.to_vec().into());
    let sizes = batches.map(|b| b.unwrap().size());
    std::iter::once(0)
        .chain(sizes.scan(0, |end, size| {
            *end += size;
            Some(*end)
        }))
        .collect()
}

/// Five batches of three records, of which none was checkpointed.
fn unflushed() -> (MemDisk, Vec<u8>) {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let log = load(&dir, LogConfig::default()).unwrap();
    for i in 0..5 {
        log.append(plain(i * 3, 3), 0, 0).unwrap();
    }
    drop((dir, log));
    let data = content(&disk, SEGMENT);
    (disk, data)
}

fn put(disk: &MemDisk, bytes: &[u8]) {
    let file = disk.open(Path::new(SEGMENT), OpenMode::Create).unwrap();
    write_all_at(&*file, &[bytes], 0).unwrap();
}

#[test]
fn a_log_cut_at_any_byte_keeps_its_whole_batches_and_what_was_cut() {
    let (disk, data) = unflushed();
    let ends = ends(&data);
    for cut in 0..data.len() {
        for name in disk.list(Path::new("/data/orders-0")).unwrap().into_iter().map(|e| e.name) {
            if name.contains(".cut") {
                disk.remove_file(&Path::new("/data/orders-0").join(name)).unwrap();
            }
        }
        // Each start finds the checkpoint of the one before: the log may not be shorter than that.
        disk.remove_file(Path::new("/data/log-checkpoint")).unwrap();
        put(&disk, &data[..cut]);
        let log = reload(&disk, LogConfig::default()).unwrap();
        let whole = ends.partition_point(|end| *end <= cut) - 1;
        assert_eq!(log.end_offset(), whole as i64 * 3, "cut at {cut}");
        assert_eq!(records(&log, 0).len(), whole * 3);
        let kept = Path::new("/data/orders-0/00000000000000000000.cut");
        match cut - ends[whole] {
            0 => assert!(!disk.exists(kept).unwrap()),
            rest => assert_eq!(content(&disk, kept.to_str().unwrap()), data[cut - rest..cut]),
        }
    }
}

#[test]
fn a_flipped_byte_past_the_recovery_point_is_a_torn_tail() {
    let (disk, data) = unflushed();
    let ends = ends(&data);
    for at in (0..data.len()).step_by(13) {
        let mut damaged = data.clone();
        damaged[at] ^= 0x10;
        disk.remove_file(Path::new("/data/log-checkpoint")).unwrap();
        put(&disk, &damaged);
        let log = reload(&disk, LogConfig::default()).unwrap();
        let end = log.end_offset();
        // The leader epoch lies under no CRC; a risen one cannot be told from a true one.
        let batch = ends.partition_point(|end| *end <= at) - 1;
        let in_epoch = (12..16).contains(&(at - ends[batch]));
        assert!(end == batch as i64 * 3 || in_epoch, "byte {at}: {end}");
    }
}

#[test]
fn an_old_batch_behind_the_tail_does_not_continue_the_log() {
    let (disk, data) = unflushed();
    let ends = ends(&data);
    let mut stale = data[..ends[3]].to_vec();
    stale.extend_from_slice(&data[ends[1]..ends[2]]);
    disk.remove_file(Path::new("/data/log-checkpoint")).unwrap();
    put(&disk, &stale);
    assert_eq!(reload(&disk, LogConfig::default()).unwrap().end_offset(), 9);
}

#[test]
fn damage_below_the_recovery_point_takes_the_partition_offline_until_it_is_repaired() {
    let disk = MemDisk::with_dir("/");
    {
        let dir = open(&disk, LogDirOptions::default()).unwrap();
        let log = load(&dir, LogConfig::default()).unwrap();
        for i in 0..5 {
            log.append(batch(i * 3, 3, (8, 0, i as i32 * 3)), 0, 0).unwrap();
        }
        log.flush_blocking().unwrap();
        dir.context_for_tests().checkpoints().store().unwrap();
    }
    let damaged = ends(&content(&disk, SEGMENT))[2];
    disk.flip(Path::new(SEGMENT), damaged as u64 + 70, 1).unwrap();
    let error = reload(&disk, LogConfig::default()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, LogError::Offline { .. }), "{text}");
    assert!(
        text.contains("--repair-partition orders-0") && text.contains(&format!("byte {damaged}:")),
        "{text}"
    );
    // Nothing was touched; only the operator may let data go.
    assert!(reload(&disk, LogConfig::default()).is_err());
    let repair = LogDirOptions { repair: vec!["orders-0".into()], ..LogDirOptions::default() };
    let log = load(&open(&disk, repair).unwrap(), LogConfig::default()).unwrap();
    assert_eq!((log.end_offset(), records(&log, 0).len()), (6, 6));
    assert!(log.append(batch(3, 3, (8, 0, 3)), 0, 0).unwrap().duplicate);
    drop(log);
    assert_eq!(reload(&disk, LogConfig::default()).unwrap().end_offset(), 6);
}

#[test]
fn damage_found_by_a_reader_takes_the_partition_offline() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions { tail_bytes: 0, ..LogDirOptions::default() }).unwrap();
    let log = load(&dir, small()).unwrap();
    for i in 0..20 {
        log.append(plain(i * 3, 3), 0, 0).unwrap();
    }
    disk.flip(Path::new(SEGMENT), 80, 1).unwrap();
    assert!(log.read(0, 1000, 60).unwrap_err().to_string().contains("CRC"));
    assert!(log.append(plain(60, 3), 0, 0).is_err() && log.check_online().is_err());
    assert!(dir.check_online().is_ok());
}

#[test]
fn indexes_made_of_garbage_are_not_believed() {
    let disk = MemDisk::with_dir("/");
    {
        let dir = open(&disk, LogDirOptions::default()).unwrap();
        let log = load(&dir, small()).unwrap();
        for i in 0..20 {
            log.append(plain(i * 3, 3), 0, 0).unwrap();
        }
        dir.stop(1).unwrap();
    }
    for entry in disk.list(Path::new("/data/orders-0")).unwrap() {
        if entry.name.ends_with(".index") {
            let file = disk.open(&Path::new("/data/orders-0").join(entry.name), OpenMode::Write).unwrap();
            write_all_at(&*file, &[&[0, 0, 0, 2, 0, 0, 0, 99]], 0).unwrap();
        }
    }
    let log = reload(&disk, small()).unwrap();
    assert_eq!(log.end_offset(), 60);
    for from in 0..60 {
        assert_eq!(records(&log, from).len(), 60 - from as usize);
    }
}

#[test]
fn a_time_index_made_of_garbage_deletes_nothing_and_hides_nothing() {
    // Too old a time in the last entry, and an index that ends early.
    for cut in [false, true] {
        let disk = MemDisk::with_dir("/");
        let config = LogConfig { segment_bytes: 2500, retention_ms: 100, ..small() };
        {
            let dir = open(&disk, LogDirOptions::default()).unwrap();
            let log = load(&dir, config.clone()).unwrap();
            for i in 0..60 {
                log.append(plain(i * 3, 3), 0, 0).unwrap();
            }
            dir.stop(1).unwrap();
        }
        let path = Path::new("/data/orders-0/00000000000000000000.timeindex");
        let file = disk.open(path, OpenMode::Write).unwrap();
        let len = file.len().unwrap();
        if cut {
            file.truncate(12).unwrap();
        } else {
            write_all_at(&*file, &[&7i64.to_be_bytes()], len - 12).unwrap();
        }
        let dir = open(&disk, LogDirOptions::default()).unwrap();
        let log = load(&dir, config).unwrap();
        let last = 999 + log.state.lock().sealed[1].base;
        // The first segment's last record is not older than the retention, whatever its index says.
        dir.housekeep(last + 100);
        assert_eq!(
            (log.start_offset(), log.offset_for_timestamp(last).unwrap()),
            (0, Some((last - 1000, last)))
        );
        dir.housekeep(last + 101);
        assert!(log.start_offset() > 0);
    }
}

#[test]
fn a_truncated_log_forgets_epochs_and_producers_behind_its_end() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let log = load(&dir, small()).unwrap();
    for i in 0..20 {
        log.append(batch(i * 3, 3, (8, 0, i as i32 * 3)), i as i32 / 10, 0).unwrap();
    }
    log.flush_blocking().unwrap();
    log.truncate_to(29).unwrap();
    assert_eq!((log.end_offset(), log.latest_epoch(), log.flushed_offset()), (27, Some(0), 27));
    assert_eq!(log.epoch_end_offset(0), Some((0, 27)));
    assert!(log.append(batch(30, 3, (8, 0, 30)), 2, 0).is_err());
    assert!(log.append(batch(24, 3, (8, 0, 24)), 2, 0).unwrap().duplicate);
    log.append(batch(27, 3, (8, 0, 27)), 2, 0).unwrap();
    log.flush_blocking().unwrap();
    drop((dir, log));
    let log = reload(&disk.crash(3), small()).unwrap();
    assert_eq!((records(&log, 0).len(), log.latest_epoch()), (30, Some(2)));
    assert_eq!(log.epoch_end_offset(1), Some((0, 27)));
    assert_eq!(id(0), *log.id());
}

#[test]
fn timestamps_are_found_across_segments() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let log = load(&dir, small()).unwrap();
    for i in 0..20 {
        log.append(plain(i * 3, 3), 0, 0).unwrap();
    }
    // The records' timestamps are 1000 + offset.
    for offset in 0..60 {
        assert_eq!(log.offset_for_timestamp(1000 + offset).unwrap(), Some((offset, 1000 + offset)));
    }
    assert_eq!(log.offset_for_timestamp(0).unwrap(), Some((0, 1000)));
    assert_eq!(log.offset_for_timestamp(1060).unwrap(), None);
    assert_eq!(log.max_timestamp().unwrap(), Some((59, 1059)));
    log.flush_blocking().unwrap();
    assert_eq!(log.delete_records_before(10).unwrap(), 10);
    assert_eq!(log.offset_for_timestamp(0).unwrap(), Some((10, 1010)));
    assert!(log.read(9, 100, 60).is_err() && log.read(10, 100, 60).is_ok());
}

#[test]
fn retention_removes_whole_old_segments_by_time_and_size() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let config = LogConfig { retention_ms: 100, ..small() };
    let log = load(&dir, config).unwrap();
    for i in 0..20 {
        log.append(plain(i * 3, 3), 0, 0).unwrap();
    }
    log.flush_blocking().unwrap();
    dir.housekeep(1100);
    assert_eq!(log.start_offset(), 0);
    dir.housekeep(1130);
    let start = log.start_offset();
    assert!(start > 0 && start <= 30, "{start}");
    log.set_config(LogConfig { retention_bytes: 300, ..small() });
    dir.housekeep(1130);
    assert!(log.size() < 1000 && log.start_offset() > start);
    // Everything is old: the active segment goes too.
    log.set_config(LogConfig { retention_ms: 1, ..small() });
    dir.housekeep(2000);
    log.flush_blocking().unwrap();
    dir.housekeep(2000);
    assert_eq!((log.start_offset(), log.end_offset(), log.size()), (60, 60, 0));
    drop((dir, log));
    let log = reload(&disk.crash(0), small()).unwrap();
    assert_eq!((log.start_offset(), log.end_offset()), (60, 60));
}

#[test]
fn a_later_segment_whose_first_one_lost_its_name_before_the_first_flush_is_set_aside() {
    // Whether the checkpoint file names the partition already, or was stored before it was made.
    for named in [true, false] {
        let disk = MemDisk::with_dir("/");
        let dir = open(&disk, LogDirOptions::default()).unwrap();
        if named {
            drop(load(&dir, small()).unwrap());
        } else {
            dir.load(Vec::new(), 0).unwrap();
            let spec = crate::PartitionSpec { id: id(0), config: small() };
            drop(dir.create(spec, 0).unwrap());
        }
        drop(dir);
        // Of two files whose names were never synced the disk may keep the later one alone.
        let root = Path::new("/data/orders-0");
        let file = disk.open(&root.join("00000000000000000042.log"), OpenMode::Create).unwrap();
        write_all_at(&*file, &[&plain(42, 3).stamped(42, 0).into_bytes()], 0).unwrap();
        disk.remove_file(Path::new(SEGMENT)).unwrap();
        let log = reload(&disk, small()).unwrap();
        assert_eq!((log.start_offset(), log.end_offset()), (0, 0), "named: {named}");
        assert!(disk.exists(&root.join("00000000000000000042.cut")).unwrap());
        log.append(plain(0, 3), 1, 0).unwrap();
        log.flush_blocking().unwrap();
        drop(log);
        assert_eq!(records(&reload(&disk.crash(1), small()).unwrap(), 0).len(), 3);
    }
}

#[test]
fn a_missing_segment_below_the_recovery_point_takes_the_partition_offline() {
    let disk = MemDisk::with_dir("/");
    let dir = open(&disk, LogDirOptions::default()).unwrap();
    let log = load(&dir, small()).unwrap();
    for i in 0..20 {
        log.append(plain(i * 3, 3), 0, 0).unwrap();
    }
    log.flush_blocking().unwrap();
    dir.context_for_tests().checkpoints().store().unwrap();
    drop((dir, log));
    disk.remove_file(Path::new(SEGMENT)).unwrap();
    let error = reload(&disk, small()).unwrap_err().to_string();
    assert!(error.contains("the segment with offset 0 is missing"), "{error}");
}
