//! The disk as the log sees it: every read, write, sync and directory change goes through [`Disk`].
//!
//! Invariant: nothing in this crate touches `std::fs` outside of [`real`], so that the tests can lose power at any operation.

pub(crate) mod memory;
pub(crate) mod real;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new, empty file; an existing one of that name is emptied.
    Create,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    /// Bytes in the file; 0 for a directory.
    pub len: u64,
}

/// Held as long as the process owns a data directory.
pub trait DiskLock: Send + Sync + Debug {}

/// A directory tree on a disk. A change of a directory lasts only after [`Disk::sync_dir`].
pub trait Disk: Send + Sync + Debug {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Entries whose names are UTF-8, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Creates one directory; its parent must exist. An existing one is fine.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Replaces a file of the new name, as rename(2).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock file exclusively, or answers with what its owner wrote into it.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Result<Box<dyn DiskLock>, String>>;
}

/// An open file. What is written lasts only after [`DiskFile::sync_data`].
pub trait DiskFile: Send + Sync + Debug {
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buf.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes at least one byte of `bufs`, perhaps fewer than all.
    fn write_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// fdatasync: the data and the length.
    fn sync_data(&self) -> io::Result<()>;
}

/// The most buffers one system call takes (IOV_MAX on Linux).
const MAX_SLICES: usize = 1024;

/// Writes all of `bufs` at `position`; on an error any part of them may have been written.
pub(crate) fn write_all_at(file: &dyn DiskFile, bufs: &[&[u8]], mut position: u64) -> io::Result<()> {
    let mut next = 0;
    let mut skip = 0;
    while next < bufs.len() {
        let mut slices = Vec::with_capacity((bufs.len() - next).min(MAX_SLICES));
        slices.push(IoSlice::new(&bufs[next][skip..]));
        slices.extend(bufs[next + 1..].iter().take(MAX_SLICES - 1).map(|b| IoSlice::new(b)));
        if slices.iter().all(|s| s.is_empty()) {
            next += slices.len();
            skip = 0;
            continue;
        }
        let mut written = match file.write_at(&slices, position) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took no bytes")),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        position += written as u64;
        while next < bufs.len() && written >= bufs[next].len() - skip {
            written -= bufs[next].len() - skip;
            next += 1;
            skip = 0;
        }
        skip += written;
    }
    Ok(())
}

/// Fills `buf` from `position` as far as the file goes, and says how far that was.
pub(crate) fn read_full_at(file: &dyn DiskFile, buf: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], position + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
