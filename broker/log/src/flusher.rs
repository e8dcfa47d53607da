//! Group commit: the flusher of a log directory syncs the files of the partitions that asked, once for all that wait.
//!
//! Invariant: an offset counts as flushed only after the data of its batch, and the directory entry of its segment, were
//! synced. A failed sync is never retried: it takes the directory offline until restart and answers everybody.

mod bell;
mod state;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

pub(crate) use bell::Bell;
pub(crate) use state::{ActiveFile, FlushState, SealJob};

use crate::checkpoints::Checkpoints;
use crate::disk::Disk;
use crate::error::{LogError, Result};
use crate::index::IndexBytes;
use crate::log_config::LogCounters;
use crate::producer_state::SNAPSHOT;

/// How long data that nobody waits for may stay unsynced.
const SOON: Duration = Duration::from_millis(5);
/// How far the stored recovery point may lie behind the flush.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Hears from the flusher, on its thread; must not block.
pub trait FlushSink: Send + Sync {
    /// Everything below `offset` is on disk.
    fn flushed(&self, offset: i64);
    /// Nothing more will be flushed: answer all waiters with KAFKA_STORAGE_ERROR.
    fn failed(&self, error: &LogError);
}

/// When a flush is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for it.
    Now,
    /// Within 5 ms, together with what is flushed before.
    Soon,
}

/// Whether the flusher syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    Durable,
    /// Says "flushed" without a sync. Loses acknowledged records on power loss; it exists to prove that the tests notice.
    UnsafeNoFlush,
}

/// What takes a log directory offline, once.
#[derive(Debug, Default)]
pub(crate) struct DirectoryHealth {
    failed: OnceLock<LogError>,
}

impl DirectoryHealth {
    pub(crate) fn check(&self) -> Result<()> {
        self.failed.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// Keeps the first reason, and gives it back.
    pub(crate) fn fail(&self, error: &LogError) -> LogError {
        let offline = || LogError::Offline {
            what: "the log directory".into(),
            reason: format!("{error}; check the disk and restart the broker"),
        };
        self.failed.get_or_init(offline).clone()
    }
}

/// What came of one partition's flush.
#[derive(Debug, Default, Clone, Copy)]
struct Flushed {
    bytes: u64,
    rolled: bool,
}

/// What a flush needs beside the partition.
#[derive(Debug)]
pub(crate) struct FlushContext {
    pub disk: Arc<dyn Disk>,
    pub checkpoints: Arc<Checkpoints>,
    pub health: Arc<DirectoryHealth>,
    pub counters: Arc<LogCounters>,
    pub compaction_bell: Bell,
    pub mode: FlushMode,
}

impl FlushContext {
    fn sync(&self, what: &Path, sync: impl FnOnce() -> std::io::Result<()>) -> Result<()> {
        if self.mode == FlushMode::UnsafeNoFlush {
            return Ok(());
        }
        let began = Instant::now();
        sync().map_err(|e| LogError::io("sync", what, e))?;
        self.counters.fsync_took(began.elapsed());
        Ok(())
    }

    fn flush(&self, state: &FlushState) -> Result<Flushed> {
        let _flushing = state.flushing.lock();
        let (jobs, active, end, generation, new_entries, bytes);
        {
            let mut work = state.work.lock();
            if work.closed || !(work.dirty || work.new_entries) {
                return Ok(Flushed::default());
            }
            jobs = std::mem::take(&mut work.sealed);
            active = work.active.clone();
            end = work.end;
            generation = work.generation;
            new_entries = std::mem::take(&mut work.new_entries);
            bytes = std::mem::take(&mut work.dirty_bytes);
            work.dirty = false;
        }
        for job in &jobs {
            self.sync(&job.path, || job.file.sync_data())?;
        }
        if let Some(active) = &active {
            self.sync(&active.path, || active.file.sync_data())?;
        }
        if new_entries {
            self.sync(&state.dir, || self.disk.sync_dir(&state.dir))?;
        }
        LogCounters::add(&self.counters.flushes, 1);
        self.mark(state, active.as_ref(), end, generation);
        if jobs.iter().any(|job| job.compacted) {
            self.compaction_bell.set();
        }
        let flushed = state.flushed();
        state.notify(|sink| sink.flushed(flushed));
        // After the waiters were answered: what can be derived from the log.
        for job in &jobs {
            self.finish(state, job);
        }
        Ok(Flushed { bytes, rolled: !jobs.is_empty() })
    }

    /// Raises the flushed offset and the recovery point, unless the log was cut meanwhile.
    fn mark(&self, state: &FlushState, active: Option<&ActiveFile>, end: i64, generation: u64) {
        let work = state.work.lock();
        let Some(active) = active.filter(|_| work.generation == generation && !work.closed) else { return };
        state.flushed.fetch_max(end, Ordering::AcqRel);
        self.checkpoints.update(state.id.topic_id, state.id.partition, |c| {
            c.recovery_point = end;
            c.segment = active.base;
            c.position = active.size;
        });
    }

    /// Index files and snapshot of a sealed segment. They are hints and can be built again, so a failure is no more
    /// than a warning.
    fn finish(&self, state: &FlushState, job: &SealJob) {
        let snapshot = crate::recovery::snapshot_path(&state.dir, job.end);
        let write = || -> Result<()> {
            write_index(&*self.disk, &job.path, &job.index)?;
            SNAPSHOT.write_new(&*self.disk, &snapshot, &job.snapshot)?;
            self.disk.sync_dir(&state.dir).map_err(|e| LogError::io("sync directory", &state.dir, e))
        };
        match write() {
            Ok(()) => {
                state.indexed_to.fetch_max(job.end, Ordering::AcqRel);
            }
            Err(error) => {
                tracing::warn!(partition = %state.id, %error, "could not write the index of a finished segment");
            }
        }
    }
}

/// Writes both index files beside a segment. Each has its name only when it is whole on disk; the directory is synced by
/// the caller, or not at all: an index that is missing is built again.
pub(crate) fn write_index(disk: &dyn Disk, segment: &Path, index: &IndexBytes) -> Result<()> {
    for (extension, bytes) in [("index", &index.offsets), ("timeindex", &index.times)] {
        let path = segment.with_extension(extension);
        let tmp = segment.with_extension(format!("{extension}.tmp"));
        crate::checked_file::write_synced(disk, &tmp, bytes)?;
        disk.rename(&tmp, &path).map_err(|e| LogError::io("rename", &tmp, e))?;
    }
    Ok(())
}

/// The threads and their queue. Each takes one partition at a time: syncs of different files share the disk's own flush, one
/// after the other they would add up.
#[derive(Debug)]
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    context: FlushContext,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Everybody who is to hear of a failure.
    partitions: Mutex<Vec<Weak<FlushState>>>,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Arc<FlushState>>,
    due: Option<Instant>,
    stop: bool,
    /// When the checkpoints are to be stored, and the bytes that were flushed since they were.
    store_due: Option<Instant>,
    unstored_bytes: u64,
}

enum Task {
    Flush(Arc<FlushState>),
    Checkpoint,
    Stop,
}

impl Flusher {
    pub(crate) fn start(context: FlushContext, threads: usize) -> Result<Self> {
        if context.mode == FlushMode::UnsafeNoFlush {
            tracing::error!(
                "AQUEDUCT_UNSAFE_NO_FLUSH is set: records are acknowledged without being on disk, a power loss loses them"
            );
        }
        let queue =
            Queue { waiting: VecDeque::new(), due: None, stop: false, store_due: None, unstored_bytes: 0 };
        let shared = Arc::new(Shared {
            context,
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            partitions: Mutex::default(),
        });
        let flusher = Self { shared, threads: Mutex::default() };
        for _ in 0..threads {
            let run = Arc::clone(&flusher.shared);
            let thread = std::thread::Builder::new()
                .name("log-flusher".into())
                .spawn(move || run.run())
                .map_err(|e| LogError::Invalid(format!("cannot start a flusher thread: {e}")))?;
            flusher.threads.lock().push(thread);
        }
        Ok(flusher)
    }

    pub(crate) fn context(&self) -> &FlushContext {
        &self.shared.context
    }

    /// Takes the directory offline and tells everybody, because of a sync elsewhere that failed.
    pub(crate) fn fail(&self, error: &LogError) -> LogError {
        self.shared.fail(error)
    }

    /// Lets the partition hear of a failure of the directory.
    pub(crate) fn register(&self, state: &Arc<FlushState>) {
        let mut partitions = self.shared.partitions.lock();
        if partitions.len() == partitions.capacity() {
            // Not each time: thousands are registered one after the other.
            partitions.retain(|p| p.strong_count() > 0);
        }
        partitions.push(Arc::downgrade(state));
    }

    pub(crate) fn request(&self, state: &Arc<FlushState>, urgency: Urgency) {
        let now = Instant::now();
        let due = if urgency == Urgency::Now { now } else { now + SOON };
        let mut queue = self.shared.queue.lock();
        if !state.queued.swap(true, Ordering::AcqRel) {
            queue.waiting.push_back(Arc::clone(state));
        }
        if queue.due.is_none_or(|d| due < d) {
            queue.due = Some(due);
            self.shared.wake.notify_one();
        }
    }

    /// Flushes on this thread and waits for it.
    pub(crate) fn flush_now(&self, state: &FlushState) -> Result<()> {
        self.shared.context.health.check()?;
        match self.shared.context.flush(state) {
            Ok(done) => {
                self.shared.note(done);
                Ok(())
            }
            Err(error) => Err(self.shared.fail(&error)),
        }
    }

    /// Does on this thread what is queued or due some time, for simulations that run without threads.
    pub(crate) fn run_queued(&self) {
        loop {
            let (flush, store) = {
                let mut queue = self.shared.queue.lock();
                queue.due = None;
                (queue.waiting.pop_front(), queue.store_due.take())
            };
            match (flush, store) {
                (Some(state), _) => {
                    if store.is_some() {
                        self.shared.queue.lock().store_due = store;
                    }
                    let done = self.shared.flush_one(&state);
                    self.shared.note(done);
                }
                (None, Some(_)) => {
                    // Tried again after the next flush.
                    self.shared.store();
                }
                (None, None) => return,
            }
        }
    }

    /// Flushes what is queued and ends the threads.
    pub(crate) fn stop(&self) {
        self.shared.queue.lock().stop = true;
        self.shared.wake.notify_all();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a flusher thread panicked");
            }
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        loop {
            match self.next_task() {
                Task::Flush(state) => {
                    let done = self.flush_one(&state);
                    self.note(done);
                }
                Task::Checkpoint => {
                    if !self.store() {
                        self.queue.lock().store_due.get_or_insert(Instant::now() + CHECKPOINT_EVERY);
                    }
                }
                Task::Stop => return,
            }
        }
    }

    /// Stores the checkpoints; `false` is to be tried again.
    fn store(&self) -> bool {
        if self.context.health.check().is_err() {
            return true;
        }
        let bell = &self.context.compaction_bell;
        let compactable = bell.take();
        // An older recovery point is as true as a newer one: more is checked after a crash.
        if let Err(error) = self.context.checkpoints.store() {
            tracing::warn!(%error, "could not store the recovery points, trying again");
            if compactable {
                bell.set();
            }
            return false;
        }
        if compactable {
            bell.ring();
        }
        true
    }

    /// The recovery points follow a flush within a second or 64 MiB, and at once after a roll.
    fn note(&self, done: Flushed) {
        if done.bytes == 0 && !done.rolled {
            return;
        }
        let now = Instant::now();
        let mut queue = self.queue.lock();
        queue.unstored_bytes += done.bytes;
        let at_once = done.rolled || queue.unstored_bytes >= CHECKPOINT_BYTES;
        let due = if at_once { now } else { now + CHECKPOINT_EVERY };
        if queue.store_due.is_none_or(|d| due < d) {
            queue.store_due = Some(due);
            self.wake.notify_one();
        }
    }

    fn flush_one(&self, state: &FlushState) -> Flushed {
        // Before the work is looked at: what is appended from here on is asked for again.
        state.queued.store(false, Ordering::Release);
        if let Err(error) = self.context.health.check() {
            state.notify(|sink| sink.failed(&error));
            return Flushed::default();
        }
        self.context.flush(state).unwrap_or_else(|e| {
            self.fail(&e);
            Flushed::default()
        })
    }

    /// Takes the directory offline and tells everybody.
    fn fail(&self, error: &LogError) -> LogError {
        let offline = self.context.health.fail(error);
        tracing::error!(%error, "a sync failed: the log directory is offline until the broker is restarted");
        let partitions: Vec<_> = self.partitions.lock().iter().filter_map(Weak::upgrade).collect();
        for state in partitions {
            state.notify(|sink| sink.failed(&offline));
        }
        offline
    }

    fn next_task(&self) -> Task {
        let mut queue = self.queue.lock();
        loop {
            let now = Instant::now();
            if queue.stop || queue.due.is_some_and(|due| due <= now) {
                if let Some(state) = queue.waiting.pop_front() {
                    if queue.waiting.is_empty() {
                        // Left in the past it would keep the next request from waking a thread.
                        queue.due = None;
                    } else {
                        self.wake.notify_one();
                    }
                    return Task::Flush(state);
                }
                queue.due = None;
            }
            if queue.stop {
                return Task::Stop;
            }
            if queue.store_due.is_some_and(|due| due <= now) {
                queue.store_due = None;
                queue.unstored_bytes = 0;
                return Task::Checkpoint;
            }
            match queue.due.into_iter().chain(queue.store_due).min() {
                Some(until) => {
                    self.wake.wait_until(&mut queue, until);
                }
                None => self.wake.wait(&mut queue),
            }
        }
    }
}
