//! What of one partition is on disk, and what is not yet.
//!
//! Invariant: the flushed offset never lies above what was synced, and a cut lowers it before the log grows again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::FlushSink;
use crate::disk::DiskFile;
use crate::index::IndexBytes;
use crate::log_config::PartitionId;

/// What of one partition is on disk, and what is not yet.
pub(crate) struct FlushState {
    pub(super) id: PartitionId,
    pub(super) dir: PathBuf,
    pub(super) work: Mutex<Work>,
    /// Held during a flush, so that two of them do not overtake each other.
    pub(super) flushing: Mutex<()>,
    pub(super) flushed: AtomicI64,
    /// Segments below this base have their index files.
    pub(super) indexed_to: AtomicI64,
    pub(super) queued: AtomicBool,
    sink: RwLock<Option<Weak<dyn FlushSink>>>,
}

#[derive(Debug, Default)]
pub(super) struct Work {
    pub sealed: Vec<SealJob>,
    pub active: Option<ActiveFile>,
    pub end: i64,
    pub dirty: bool,
    pub dirty_bytes: u64,
    pub new_entries: bool,
    /// Raised when the log is cut: a flush that began before proves nothing.
    pub generation: u64,
    pub closed: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct ActiveFile {
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
    pub base: i64,
    pub size: u64,
}

/// A segment that was rolled: it is synced with the next flush, and then its indexes and the producer snapshot
/// of its end are written.
#[derive(Debug)]
pub(crate) struct SealJob {
    pub file: Arc<dyn DiskFile>,
    pub path: PathBuf,
    pub index: IndexBytes,
    pub end: i64,
    pub snapshot: Vec<u8>,
    /// The topic is compacted.
    pub compacted: bool,
}

impl std::fmt::Debug for FlushState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlushState").field("partition", &self.id.to_string()).finish_non_exhaustive()
    }
}

impl FlushState {
    /// `active` and `end` are on disk already.
    pub(crate) fn new(
        id: PartitionId,
        dir: PathBuf,
        active: ActiveFile,
        end: i64,
        new_entries: bool,
    ) -> Self {
        let indexed_to = AtomicI64::new(active.base);
        let work = Work { active: Some(active), end, new_entries, ..Work::default() };
        Self {
            id,
            dir,
            work: Mutex::new(work),
            flushing: Mutex::new(()),
            flushed: AtomicI64::new(end),
            indexed_to,
            queued: AtomicBool::new(false),
            sink: RwLock::new(None),
        }
    }

    pub(crate) fn set_sink(&self, sink: Weak<dyn FlushSink>) {
        *self.sink.write() = Some(sink);
    }

    pub(crate) fn flushed(&self) -> i64 {
        self.flushed.load(Ordering::Acquire)
    }

    pub(crate) fn indexed_to(&self) -> i64 {
        self.indexed_to.load(Ordering::Acquire)
    }

    /// Bytes were appended to the active segment.
    pub(crate) fn appended(&self, size: u64, end: i64, bytes: u64) {
        let mut work = self.work.lock();
        if let Some(active) = &mut work.active {
            active.size = size;
        }
        work.end = end;
        work.dirty = true;
        work.dirty_bytes += bytes;
    }

    /// The active segment was sealed and another one begun.
    pub(crate) fn rolled(&self, job: SealJob, active: ActiveFile) {
        let mut work = self.work.lock();
        work.sealed.push(job);
        work.active = Some(active);
        work.dirty = true;
        work.new_entries = true;
    }

    /// The log was cut and synced; `active` ends at `end`.
    pub(crate) fn truncated(&self, active: ActiveFile, end: i64) {
        let mut work = self.work.lock();
        work.generation += 1;
        work.sealed.retain(|job| job.end <= active.base);
        work.active = Some(active);
        work.end = end;
        self.flushed.fetch_min(end, Ordering::AcqRel);
    }

    /// The partition is deleted: nothing of it is flushed any more.
    pub(crate) fn close(&self) {
        let _flushing = self.flushing.lock();
        let mut work = self.work.lock();
        *work = Work { closed: true, ..Work::default() };
    }

    pub(super) fn notify(&self, message: impl FnOnce(&dyn FlushSink)) {
        let sink = self.sink.read().as_ref().and_then(Weak::upgrade);
        if let Some(sink) = sink {
            message(&*sink);
        }
    }
}
