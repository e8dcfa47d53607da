//! A data directory: its identity, its lock, its partitions and the thread that flushes them.
//!
//! Invariants: one process owns the directory; the clean-shutdown file is gone before the first write and written after the
//! last; a directory of another incarnation of a topic is never opened as this one's.

mod identity;
mod parallel;
mod partitions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

pub use identity::DirectoryIdentity;
pub use partitions::{OpenedPartition, PartitionSpec};

use crate::checked_file::{CheckedFile, be_u64};
use crate::checkpoints::Checkpoints;
use crate::disk::{Disk, DiskLock};
use crate::error::{LogError, Result};
use crate::flusher::{Bell, DirectoryHealth, FlushContext, FlushMode, Flusher};
use crate::log_config::LogCounters;
use crate::partition_log::{Expired, LogContext, PartitionLog};
use crate::segment::OpenFiles;
use crate::tail_cache::TailBudget;

const CLEAN_FILE: &str = "clean-shutdown";
const CLEAN: CheckedFile = CheckedFile::new(*b"AQCLEANS", 1);

/// How a data directory is opened.
#[derive(Debug, Clone)]
pub struct LogDirOptions {
    /// Must match when the directory has one; `None` takes what is there, or makes one up.
    pub cluster_id: Option<String>,
    pub node_id: i32,
    pub flush_mode: FlushMode,
    /// Recently appended bytes kept in memory, all partitions together.
    pub tail_bytes: usize,
    /// And for one partition.
    pub tail_bytes_per_partition: usize,
    /// Threads that sync; more than one only helps when several partitions are written. With 0 nothing is flushed but by
    /// [`PartitionLog::flush_blocking`] and [`LogDir::flush_queued`], so that a simulation runs the same way each time.
    pub flush_threads: usize,
    /// Partitions that are opened, created or stopped at the same time, each by a thread.
    pub open_threads: usize,
    /// Files of finished segments that are open at the same time; those that are written are always open.
    pub open_segments: usize,
    /// Memory for the keys of one compaction pass.
    pub compaction_map_bytes: usize,
    /// Partitions (`orders-0`) that are cut where they are damaged, instead of staying offline.
    pub repair: Vec<String>,
}

impl Default for LogDirOptions {
    fn default() -> Self {
        Self {
            cluster_id: None,
            node_id: 1,
            flush_mode: FlushMode::Durable,
            tail_bytes: 32 << 20,
            tail_bytes_per_partition: 4 << 20,
            flush_threads: 4,
            open_threads: 16,
            open_segments: 512,
            compaction_map_bytes: 16 << 20,
            repair: Vec::new(),
        }
    }
}

impl LogDirOptions {
    /// `AQUEDUCT_UNSAFE_NO_FLUSH=1` switches the flusher off, for the power-loss test that must then fail.
    #[must_use]
    pub fn with_environment(mut self) -> Self {
        if std::env::var_os("AQUEDUCT_UNSAFE_NO_FLUSH").is_some_and(|v| v == "1") {
            self.flush_mode = FlushMode::UnsafeNoFlush;
        }
        self
    }
}

/// An open data directory.
#[derive(Debug)]
pub struct LogDir {
    root: PathBuf,
    identity: DirectoryIdentity,
    clean_epoch: Option<i64>,
    options: LogDirOptions,
    context: Arc<LogContext>,
    counters: Arc<LogCounters>,
    partitions: Mutex<BTreeMap<(String, i32), Arc<PartitionLog>>>,
    /// Held while a partition is created or deleted.
    creating: Mutex<()>,
    /// What retention took out of the logs and whose files still stand.
    expired: Mutex<Vec<(Arc<PartitionLog>, Expired)>>,
    /// Directories of deleted partitions whose files still stand.
    doomed: Mutex<Vec<PathBuf>>,
    /// Last, so that it is given back after everything else.
    _lock: Box<dyn DiskLock>,
}

impl LogDir {
    /// Takes the directory, which is created when its parent exists.
    pub fn open(disk: Arc<dyn Disk>, root: &Path, options: LogDirOptions) -> Result<Self> {
        if !disk.exists(root).map_err(|e| LogError::io("look for", root, e))? {
            disk.create_dir(root).map_err(|e| LogError::io("create", root, e))?;
        }
        let lock = take_lock(&*disk, root)?;
        let identity =
            DirectoryIdentity::load_or_create(&*disk, root, options.cluster_id.as_deref(), options.node_id)?;
        let clean_epoch = take_clean_epoch(&*disk, root)?;
        let checkpoints = Arc::new(Checkpoints::load(Arc::clone(&disk), root)?);
        let counters = Arc::new(LogCounters::default());
        let flusher = Flusher::start(
            FlushContext {
                disk: Arc::clone(&disk),
                checkpoints,
                health: Arc::new(DirectoryHealth::default()),
                counters: Arc::clone(&counters),
                compaction_bell: Bell::default(),
                mode: options.flush_mode,
            },
            options.flush_threads,
        )?;
        let context = Arc::new(LogContext {
            open_files: Arc::new(OpenFiles::new(Arc::clone(&disk), options.open_segments)),
            disk,
            root: root.to_owned(),
            flusher,
            budget: Arc::new(TailBudget::new(options.tail_bytes, options.tail_bytes_per_partition)),
            buffers: Arc::default(),
            clean: clean_epoch.is_some(),
            stopping: AtomicBool::new(false),
            repair: options.repair.clone(),
        });
        Ok(Self {
            root: root.to_owned(),
            identity,
            clean_epoch,
            options,
            context,
            counters,
            partitions: Mutex::default(),
            creating: Mutex::default(),
            expired: Mutex::default(),
            doomed: Mutex::default(),
            _lock: lock,
        })
    }

    #[cfg(test)]
    pub(crate) fn context_for_tests(&self) -> &LogContext {
        &self.context
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// For files that others keep in this directory.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.context.disk)
    }

    pub fn identity(&self) -> &DirectoryIdentity {
        &self.identity
    }

    /// The broker epoch of the last process, when it stopped cleanly. `None` after a crash and for a new directory:
    /// then the leader epochs are raised before the first append.
    pub fn clean_shutdown_epoch(&self) -> Option<i64> {
        self.clean_epoch
    }

    pub fn counters(&self) -> &Arc<LogCounters> {
        &self.counters
    }

    /// Whether the directory takes requests; a failed sync ended that until restart.
    pub fn check_online(&self) -> Result<()> {
        self.context.health().check()
    }

    /// Calls `wake` when a segment of a compacted topic is finished and a [`Self::maintain`] can compact it: on a thread of
    /// the flusher, which it must not block. Only the first listener hears it.
    pub fn on_compactable(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.context.flusher.context().compaction_bell.listen(Box::new(wake));
    }

    /// Does the flusher's work on this thread, for simulations without flusher threads.
    pub fn flush_queued(&self) {
        self.context.flusher.run_queued();
    }

    /// Makes a [`Self::housekeep`] that is under way end soon; a compaction it interrupts is done again after the next start.
    pub fn interrupt_housekeeping(&self) {
        self.context.stopping.store(true, Ordering::Release);
    }

    /// Stops cleanly: everything is flushed, and the next start need not read the logs. Nothing may be appended any more.
    pub fn stop(&self, broker_epoch: i64) -> Result<()> {
        self.interrupt_housekeeping();
        let partitions: Vec<_> = self.partitions.lock().values().cloned().collect();
        let stopped = parallel::on_all(self.options.open_threads, &partitions, |partition| {
            if partition.check_online().is_ok() { partition.stop() } else { Ok(()) }
        });
        self.context.flusher.stop();
        self.context.health().check()?;
        stopped.into_iter().collect::<Result<()>>()?;
        if self.options.flush_mode == FlushMode::UnsafeNoFlush {
            return Ok(());
        }
        self.context.checkpoints().store()?;
        CLEAN.replace(&*self.context.disk, &self.root.join(CLEAN_FILE), &broker_epoch.to_be_bytes())
    }
}

fn take_lock(disk: &dyn Disk, root: &Path) -> Result<Box<dyn DiskLock>> {
    let path = root.join(".lock");
    let pid = std::process::id().to_string();
    match disk.lock(&path, &pid).map_err(|e| LogError::io("lock", &path, e))? {
        Ok(lock) => Ok(lock),
        Err(pid) => Err(LogError::Locked { dir: root.to_owned(), pid }),
    }
}

/// Reads the clean-shutdown file and removes it, durably: from here on a stop is unclean until it says otherwise.
fn take_clean_epoch(disk: &dyn Disk, root: &Path) -> Result<Option<i64>> {
    let path = root.join(CLEAN_FILE);
    let Some((_, payload)) = CLEAN.read(disk, &path)? else { return Ok(None) };
    disk.remove_file(&path).map_err(|e| LogError::io("remove", &path, e))?;
    disk.sync_dir(root).map_err(|e| LogError::io("sync directory", root, e))?;
    Ok((payload.len() == 8).then(|| be_u64(&payload).cast_signed()))
}

#[cfg(test)]
mod chaos_tests;
#[cfg(test)]
mod many_tests;
#[cfg(test)]
pub(crate) mod tests;
