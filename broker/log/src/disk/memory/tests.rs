//! The disk in memory keeps what was synced, and is no kinder than a real one with the rest.

use super::*;
use crate::disk::{read_full_at, write_all_at};

#[test]
fn what_was_synced_survives_and_what_was_not_may_go() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..50 {
        let disk = MemDisk::with_dir("/d");
        let file = disk.open(Path::new("/d/a"), OpenMode::Create).unwrap();
        write_all_at(&*file, &[b"synced"], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        write_all_at(&*file, &[b" not"], 6).unwrap();
        disk.open(Path::new("/d/b"), OpenMode::Create).unwrap();
        let after = disk.crash(seed);
        let mut data = [0; 16];
        let n = read_full_at(&*after.open(Path::new("/d/a"), OpenMode::Read).unwrap(), &mut data, 0).unwrap();
        assert!(n >= 6 && &data[..6] == b"synced");
        if after.exists(Path::new("/d/b")).unwrap() {
            kept += 1
        } else {
            lost += 1
        }
        assert!(disk.list(Path::new("/d")).is_err());
    }
    assert!(kept > 0 && lost > 0);
}

#[test]
fn short_writes_are_completed() {
    let disk = MemDisk::with_dir("/d");
    let file = disk.open(Path::new("/d/a"), OpenMode::Create).unwrap();
    disk.fault_next(Fault::ShortWrite);
    write_all_at(&*file, &[b"abc", b"", b"defgh"], 0).unwrap();
    let mut data = [0; 16];
    assert_eq!(read_full_at(&*file, &mut data, 0).unwrap(), 8);
    assert_eq!(&data[..8], b"abcdefgh");
}
