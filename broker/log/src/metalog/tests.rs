//! The metadata log loses nothing that was acknowledged, whatever operation the power fails at.

use super::*;
use crate::disk::memory::{Fault, MemDisk};

const DIR: &str = "/d/meta";
const SMALL: MetaLogOptions = MetaLogOptions { file_bytes: 2000 };

fn open(disk: &MemDisk) -> Result<MetaLog> {
    MetaLog::open(Arc::new(disk.clone()), Path::new(DIR), SMALL)
}

fn entry(index: u64) -> Vec<u8> {
    format!("entry {index} {}", "x".repeat((index % 7) as usize * 200)).into_bytes()
}

fn contents(log: &MetaLog) -> Vec<(u64, Vec<u8>)> {
    let all = log.read(0, u64::MAX, usize::MAX).unwrap();
    all.into_iter().map(|(i, b)| (i, b.to_vec())).collect()
}

#[test]
fn entries_come_back_after_reopening() {
    let disk = MemDisk::with_dir("/d");
    let mut log = open(&disk).unwrap();
    assert_eq!((log.first_index(), log.next_index(), log.last_index()), (0, 0, None));
    for i in (1..40).step_by(3) {
        log.append(i, &[entry(i), entry(i + 1), entry(i + 2)]).unwrap();
    }
    let log = open(&disk.crash(1)).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (1, Some(39)));
    assert_eq!(contents(&log), (1..40).map(|i| (i, entry(i))).collect::<Vec<_>>());
    assert_eq!(log.read(5, 30, 1).unwrap().len(), 1);
    assert!(log.read(40, 50, 100).unwrap().is_empty());
}

#[test]
fn truncated_entries_are_replaced_and_purged_ones_stay_away() {
    let disk = MemDisk::with_dir("/d");
    let mut log = open(&disk).unwrap();
    for i in 1..40 {
        log.append(i, &[entry(i)]).unwrap();
    }
    log.truncate_since(15).unwrap();
    assert!(log.append(16, &[entry(16)]).is_err());
    log.append(15, &[b"other"]).unwrap();
    log.purge_to(9).unwrap();
    let mut log = open(&disk.crash(2)).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (10, Some(15)));
    assert_eq!(contents(&log).last().unwrap().1, b"other");
    log.purge_to(100).unwrap();
    assert_eq!((log.first_index(), log.next_index(), log.last_index()), (101, 101, None));
    log.append(101, &[b"after the snapshot"]).unwrap();
    assert_eq!(contents(&log).len(), 1);
}

#[test]
fn power_loss_at_any_operation_keeps_what_was_acknowledged() {
    let workload = |log: &mut MetaLog, acked: &mut Vec<u64>| -> Result<()> {
        for i in (1..30).step_by(2) {
            log.append(i, &[entry(i), entry(i + 1)])?;
            acked.extend([i, i + 1]);
        }
        log.purge_to(4)?;
        acked.retain(|i| *i > 4);
        Ok(())
    };
    for at in 0..90 {
        for seed in 0..4 {
            let disk = MemDisk::with_dir("/d");
            disk.fault_at(at, Fault::PowerOff);
            let mut acked = Vec::new();
            let done = open(&disk).and_then(|mut log| workload(&mut log, &mut acked));
            let log = open(&disk.crash(seed)).unwrap();
            let found: Vec<u64> = contents(&log)
                .into_iter()
                .map(|(i, data)| {
                    assert_eq!(data, entry(i));
                    i
                })
                .collect();
            acked.retain(|i| *i >= log.first_index());
            assert!(
                found.len() >= acked.len() && found[..acked.len()] == acked[..],
                "{at} {seed}: {found:?}"
            );
            assert!(log.first_index() <= 5 && (done.is_err() || found.len() == acked.len()));
        }
    }
}

#[test]
fn a_failed_write_is_cut_back_and_a_failed_sync_is_final() {
    let disk = MemDisk::with_dir("/d");
    let mut log = open(&disk).unwrap();
    log.append(1, &[entry(1)]).unwrap();
    disk.fault_next(Fault::PartWriteThenFail(std::io::ErrorKind::StorageFull));
    assert!(log.append(2, &[entry(2)]).unwrap_err().is_disk_full());
    log.append(2, &[entry(2)]).unwrap();
    disk.break_sync();
    assert!(log.append(3, &[entry(3)]).is_err());
    assert!(log.append(3, &[entry(3)]).unwrap_err().to_string().contains("restart"));
}

#[test]
fn damage_in_the_middle_is_an_error_not_a_tail() {
    let disk = MemDisk::with_dir("/d");
    let mut log = MetaLog::open(Arc::new(disk.clone()), Path::new(DIR), MetaLogOptions::default()).unwrap();
    for i in 1..6 {
        log.append(i, &[entry(i)]).unwrap();
    }
    disk.flip(Path::new("/d/meta/00000000000000000001.meta"), 70, 1).unwrap();
    let error = open(&disk.crash(0)).unwrap_err();
    assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
}
