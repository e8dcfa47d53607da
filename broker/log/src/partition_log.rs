//! The log of one partition: batches in segments, appended by one owner, read by many.
//!
//! Invariants: offsets are consecutive where nothing was compacted away; a batch that is not wholly written is cut back before
//! the next append; producer state and epochs say what is in the log, no more and no less. All methods take `&self`; reads do
//! their file IO outside of the lock.

mod append;
mod cut;
mod read;
mod retention;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub use append::{AppendError, AppendInfo};
pub(crate) use cut::replay as cut_replay;
pub use read::Fetched;
pub(crate) use retention::Expired;

use crate::buffers::Buffers;
use crate::checked_file::CheckedFile;
use crate::disk::Disk;
use crate::epochs::LeaderEpochs;
use crate::error::{LogError, Result};
use crate::flusher::{
    ActiveFile, DirectoryHealth, FlushSink, FlushState, Flusher, SealJob, Urgency, write_index,
};
use crate::log_config::{LogConfig, LogCounters, PartitionId};
use crate::producer_state::{ProducerStates, SNAPSHOT};
use crate::recovery::{self, Loaded};
use crate::segment::{Active, OpenFiles, Sealed, SegmentFile};
use crate::tail_cache::{TailBudget, TailCache};

/// What all partitions of a directory share.
#[derive(Debug)]
pub(crate) struct LogContext {
    pub disk: Arc<dyn Disk>,
    pub root: PathBuf,
    pub flusher: Flusher,
    pub budget: Arc<TailBudget>,
    pub buffers: Arc<Buffers>,
    pub open_files: Arc<OpenFiles>,
    /// The directory was stopped cleanly.
    pub clean: bool,
    /// Long work is to end soon, because the directory is being stopped.
    pub stopping: AtomicBool,
    /// Names of partitions whose damaged end the operator lets go.
    pub repair: Vec<String>,
}

impl LogContext {
    pub(crate) fn repairs(&self, id: &PartitionId) -> bool {
        self.repair.contains(&id.dir_name())
    }

    pub(crate) fn health(&self) -> &DirectoryHealth {
        &self.flusher.context().health
    }

    pub(crate) fn counters(&self) -> &LogCounters {
        &self.flusher.context().counters
    }

    pub(crate) fn checkpoints(&self) -> &crate::checkpoints::Checkpoints {
        &self.flusher.context().checkpoints
    }
}

/// The log of one partition.
#[derive(Debug)]
pub struct PartitionLog {
    pub(crate) id: PartitionId,
    pub(crate) dir: PathBuf,
    pub(crate) context: Arc<LogContext>,
    flush: Arc<FlushState>,
    pub(crate) state: Mutex<State>,
    /// Whether the partition was deleted; held while files are removed or renamed, because another partition may get the
    /// same directory name right after. Taken before `state`.
    pub(crate) closed: Mutex<bool>,
    /// Copies of the state's, to be read without the lock.
    start: AtomicI64,
    end: AtomicI64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: LogConfig,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) active: Active,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) epochs: LeaderEpochs,
    pub(crate) producers: ProducerStates,
    pub(crate) tail: TailCache,
    /// A failed write left bytes behind the end that could not be cut off yet.
    pub(crate) uncut: bool,
    /// The end for which the active segment's index and the producer snapshot are on disk, after a clean stop.
    pub(crate) saved: Option<i64>,
    /// Why this partition alone takes no more requests.
    pub(crate) failed: Option<LogError>,
}

impl PartitionLog {
    /// Opens the partition's directory, creating what is missing, and recovers what a crash left.
    pub(crate) fn open(
        context: Arc<LogContext>,
        id: PartitionId,
        config: LogConfig,
        now_ms: i64,
    ) -> Result<Arc<Self>> {
        let dir = context.root.join(id.dir_name());
        let loaded = recovery::load(&context, &id, &dir, &config, now_ms)?;
        let Loaded { sealed, active, start, end, epochs, producers, new_entries, saved } = loaded;
        let flush = FlushState::new(id.clone(), dir.clone(), active_file(&active), end, new_entries);
        let flush = Arc::new(flush);
        context.flusher.register(&flush);
        let tail = TailCache::new(Arc::clone(&context.budget));
        let state = State {
            config,
            sealed,
            active,
            start,
            end,
            epochs,
            producers,
            tail,
            uncut: false,
            saved: saved.then_some(end),
            failed: None,
        };
        Ok(Arc::new(Self {
            id,
            dir,
            context,
            flush,
            state: Mutex::new(state),
            closed: Mutex::new(false),
            start: AtomicI64::new(start),
            end: AtomicI64::new(end),
        }))
    }

    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    /// The offset of the first record that may be read.
    pub fn start_offset(&self) -> i64 {
        self.start.load(Ordering::Acquire)
    }

    /// The offset the next record gets.
    pub fn end_offset(&self) -> i64 {
        self.end.load(Ordering::Acquire)
    }

    /// Everything below is on disk.
    pub fn flushed_offset(&self) -> i64 {
        self.flush.flushed()
    }

    /// Who hears of flushes. The log holds no strong reference to it.
    pub fn set_flush_sink(&self, sink: Weak<dyn FlushSink>) {
        self.flush.set_sink(sink);
    }

    /// Asks the flusher to sync what was appended so far; the sink hears of it.
    pub fn request_flush(&self, urgency: Urgency) {
        self.context.flusher.request(&self.flush, urgency);
    }

    /// Syncs on this thread. For shutdown and tests; the flusher does it for everybody else.
    pub fn flush_blocking(&self) -> Result<()> {
        self.context.flusher.flush_now(&self.flush)
    }

    /// New settings of the topic; they hold from the next append or housekeeping on.
    pub fn set_config(&self, config: LogConfig) {
        self.state.lock().config = config;
    }

    /// The latest leader epoch in the log.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.state.lock().epochs.latest()
    }

    /// The leader epoch of the record at `offset`.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.state.lock().epochs.at(offset)
    }

    /// Answers OffsetForLeaderEpoch: the largest epoch not above `epoch`, and the offset where it ends.
    pub fn epoch_end_offset(&self, epoch: i32) -> Option<(i32, i64)> {
        let state = self.state.lock();
        state.epochs.end_offset(epoch, state.end)
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        let state = self.state.lock();
        state.sealed.iter().map(|s| s.size).sum::<u64>() + state.active.size
    }

    pub fn segment_count(&self) -> usize {
        self.state.lock().sealed.len() + 1
    }

    pub fn producer_count(&self) -> usize {
        self.state.lock().producers.len()
    }

    /// Whether the partition takes appends.
    pub fn check_online(&self) -> Result<()> {
        self.context.health().check()?;
        self.state.lock().failed.clone().map_or(Ok(()), Err)
    }

    /// Everything on disk, and what a start needs to find it without reading the log.
    pub(crate) fn stop(&self) -> Result<()> {
        {
            let state = self.state.lock();
            // A log without a batch is found as quickly without them.
            let empty = state.sealed.is_empty() && state.active.size == 0 && state.producers.len() == 0;
            if (empty && !state.uncut) || state.saved == Some(state.end) {
                return Ok(());
            }
        }
        self.flush_blocking()?;
        let disk = &*self.context.disk;
        let state = self.state.lock();
        write_index(disk, &state.active.path, &state.active.index.snapshot(state.active.base))?;
        let snapshot = recovery::snapshot_path(&self.dir, state.end);
        SNAPSHOT.write_new(disk, &snapshot, &state.producers.encode())?;
        disk.sync_dir(&self.dir).map_err(|e| LogError::io("sync directory", &self.dir, e))
    }

    /// Ends flushing: the partition is deleted.
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
        self.flush.close();
        let mut state = self.state.lock();
        state.tail.clear();
        state.sealed.iter().for_each(|segment| segment.file.retire());
        state.failed.get_or_insert_with(|| LogError::Offline {
            what: format!("partition `{}`", self.id),
            reason: "it was deleted".into(),
        });
    }

    /// Takes this partition offline: what was read from it cannot be right.
    fn fail(&self, error: &LogError) -> LogError {
        let offline = recovery::offline(&self.context.root, &self.id, error);
        let mut state = self.state.lock();
        if state.failed.is_none() {
            LogCounters::add(&self.context.counters().offline_partitions, 1);
            tracing::error!(partition = %self.id, error = %offline, "the partition is offline");
            state.failed = Some(offline.clone());
        }
        offline
    }

    fn publish(&self, state: &State) {
        self.start.store(state.start, Ordering::Release);
        self.end.store(state.end, Ordering::Release);
    }

    /// Seals the active segment and begins the next one. An empty one stays.
    fn roll(&self, state: &mut State) -> Result<()> {
        if state.active.size == 0 {
            return Ok(());
        }
        // What a failed write left would stay in the sealed segment for good.
        self.cut_back(state)?;
        let next = Active::create(&*self.context.disk, &self.dir, state.end)?;
        state.saved = None;
        let mut old = std::mem::replace(&mut state.active, next);
        let max_timestamp = old.max_timestamp();
        let index = old.index.seal(old.base);
        let job = SealJob {
            file: Arc::clone(&old.file),
            path: old.path.clone(),
            index: index.clone(),
            end: state.end,
            snapshot: state.producers.encode(),
            compacted: state.config.compact,
        };
        self.flush.rolled(job, active_file(&state.active));
        state.sealed.push(Sealed {
            base: old.base,
            file: SegmentFile::open(&self.context.open_files, &old.path, old.file),
            path: old.path,
            size: old.size,
            index: crate::index::SealedIndex::Memory(index),
            max_timestamp,
            times_checked: true,
        });
        LogCounters::add(&self.context.counters().rolled_segments, 1);
        self.context.flusher.request(&self.flush, Urgency::Soon);
        Ok(())
    }
}

pub(crate) fn active_file(active: &Active) -> ActiveFile {
    ActiveFile {
        file: Arc::clone(&active.file),
        path: active.path.clone(),
        base: active.base,
        size: active.size,
    }
}

/// `partition.metadata`: which incarnation of the topic a directory belongs to.
pub(crate) const METADATA_FILE: &str = "partition.metadata";
pub(crate) const METADATA: CheckedFile = CheckedFile::new(*b"AQPARTMD", 1);
