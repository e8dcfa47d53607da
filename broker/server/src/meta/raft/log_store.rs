//! Raft's log and vote on disk.
//! Invariant: all writes go through one thread in the order they were asked for; an append, a vote, a truncation or a
//! purge is reported only after its fsync. An append that finds the disk full waits for room instead of failing: a failure
//! would stop the group until restart.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, RaftLogReader, StorageIOError};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use aqueduct_log::{CheckedFile, Disk, LogError, MetaLog, MetaLogOptions};

use super::entry::{decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote};
use super::{Entry, Group, LogId, MetaError, StorageError, Vote};
use crate::meta::encoding::{Decoder, Encoder};

const VOTE: CheckedFile = CheckedFile::new(*b"AQVOTE\0\0", 1);
/// The id of the last purged entry; written before the entries go.
const PURGED: CheckedFile = CheckedFile::new(*b"AQPURGID", 1);

/// Writes that may wait for the disk thread; raft has few under way.
const QUEUE: usize = 64;
/// How often a full disk is tried again.
const FULL_AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct LogStore {
    state: Arc<Mutex<State>>,
    jobs: mpsc::Sender<Job>,
    full: Arc<AtomicBool>,
}

/// What the log holds, for reading. Snapshots keep it short.
#[derive(Default)]
struct State {
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

enum Job {
    Append { first: u64, entries: Vec<Vec<u8>>, flushed: LogFlushed<Group> },
    Vote(Vec<u8>, Done),
    Truncate(u64, Done),
    Purge(LogId, Done),
}

type Done = oneshot::Sender<Result<(), LogError>>;

impl LogStore {
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, MetaError> {
        let mut log = MetaLog::open(Arc::clone(&disk), &dir.join("log"), MetaLogOptions::default())?;
        let mut state = State::default();
        if let Some((_, payload)) = VOTE.read(&*disk, &dir.join("vote"))? {
            state.vote = Some(decode_vote(&payload)?);
        }
        if let Some((_, payload)) = PURGED.read(&*disk, &dir.join("purged-id"))? {
            let purged = decode_log_id(&mut Decoder(&payload))?;
            if log.first_index() <= purged.index {
                // A crash came between the file and the purge.
                log.purge_to(purged.index)?;
            }
            state.purged = Some(purged);
        }
        for (index, bytes) in log.read(log.first_index(), log.next_index(), usize::MAX)? {
            state.entries.insert(index, decode_entry(&bytes)?);
        }
        let (jobs, queue) = mpsc::channel(QUEUE);
        let full = Arc::new(AtomicBool::new(false));
        let writer = Writer { disk, dir: dir.to_owned(), log, queue, full: Arc::clone(&full) };
        let spawned = std::thread::Builder::new().name("aqueduct-meta".to_owned()).spawn(|| writer.run());
        spawned.map_err(|error| MetaError::Stopped(format!("the metadata thread cannot start: {error}")))?;
        Ok(Self { state: Arc::new(Mutex::new(state)), jobs, full })
    }

    /// Set while the log waits for room on the disk.
    pub(super) fn full(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.full)
    }

    /// Nothing was ever written.
    pub(super) fn is_fresh(&self) -> bool {
        let state = self.state.lock();
        state.entries.is_empty() && state.purged.is_none()
    }

    pub(super) fn last_index(&self) -> Option<u64> {
        let state = self.state.lock();
        state.entries.keys().next_back().copied().or(state.purged.map(|id| id.index))
    }

    async fn run(&self, job: impl FnOnce(Done) -> Job) -> Result<(), AnyError> {
        let gone = || AnyError::error("the metadata disk thread has ended");
        let (done, outcome) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?.map_err(|error| AnyError::new(&error))
    }
}

/// Owns the files; ends when the store is dropped.
struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log: MetaLog,
    queue: mpsc::Receiver<Job>,
    full: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self) {
        while let Some(job) = self.queue.blocking_recv() {
            match job {
                Job::Append { first, entries, flushed } => {
                    let outcome = self.append(first, &entries);
                    flushed.log_io_completed(outcome.map_err(std::io::Error::other));
                }
                Job::Vote(bytes, done) => {
                    self.answer(done, |writer| VOTE.replace(&*writer.disk, &writer.dir.join("vote"), &bytes))
                }
                Job::Truncate(index, done) => self.answer(done, |writer| writer.log.truncate_since(index)),
                Job::Purge(id, done) => self.answer(done, |writer| {
                    let mut out = Encoder::default();
                    encode_log_id(&mut out, &id);
                    PURGED.replace(&*writer.disk, &writer.dir.join("purged-id"), &out.0)?;
                    writer.log.purge_to(id.index)
                }),
            }
        }
    }

    fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), LogError> {
        loop {
            let outcome = self.log.append(first, entries);
            let full = outcome.as_ref().is_err_and(LogError::is_disk_full);
            if self.full.swap(full, Ordering::AcqRel) != full {
                tracing::warn!(full, "the disk is full: topics and producers must wait until there is room");
            }
            // A broker that stops does not wait for room.
            if !full || self.queue.is_closed() {
                return outcome;
            }
            std::thread::park_timeout(FULL_AGAIN);
        }
    }

    fn answer(&mut self, done: Done, work: impl FnOnce(&mut Self) -> Result<(), LogError>) {
        let outcome = work(self);
        if let Err(outcome) = done.send(outcome) {
            tracing::debug!(?outcome, "raft no longer waits for a metadata write");
        }
    }
}

impl RaftLogReader<Group> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.state.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Group> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Group>, StorageError> {
        let state = self.state.lock();
        let last = state.entries.values().next_back().map(|entry| entry.log_id);
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: last.or(state.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let bytes = encode_vote(vote);
        self.run(|done| Job::Vote(bytes, done)).await.map_err(StorageIOError::write_vote)?;
        self.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.state.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Group>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else {
            flushed.log_io_completed(Ok(()));
            return Ok(());
        };
        let encoded = entries.iter().map(encode_entry).collect();
        self.state.lock().entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        let job = Job::Append { first, entries: encoded, flushed };
        let gone = |_| StorageIOError::write_logs(AnyError::error("the metadata disk thread has ended"));
        self.jobs.send(job).await.map_err(gone)?;
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.run(|done| Job::Truncate(since.index, done)).await.map_err(StorageIOError::write_logs)?;
        self.state.lock().entries.split_off(&since.index);
        Ok(())
    }

    async fn purge(&mut self, up_to: LogId) -> Result<(), StorageError> {
        self.run(|done| Job::Purge(up_to, done)).await.map_err(StorageIOError::write_logs)?;
        let mut state = self.state.lock();
        state.entries = state.entries.split_off(&(up_to.index + 1));
        state.purged = Some(up_to);
        Ok(())
    }
}
