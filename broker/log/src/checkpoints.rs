//! The checkpoint of a log directory: log start, recovery point and cleaning point of all its partitions in one file.
//!
//! Invariant: a recovery point is stored only after the data below it was synced, and lowered before data below it is
//! cut; a log start is stored before the segments below it are removed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::checked_file::CheckedFile;
use crate::disk::Disk;
use crate::error::{LogError, Result};

pub(crate) const CHECKPOINT_FILE: &str = "log-checkpoint";
const FILE: CheckedFile = CheckedFile::new(*b"AQCHECKP", 2);
const ENTRY: usize = 16 + 4 + 6 * 8;
/// Version 1 did not have the last field.
const ENTRY_V1: usize = ENTRY - 8;

/// What is remembered of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub log_start: i64,
    /// Everything below is on disk and checked no more.
    pub recovery_point: i64,
    /// Base offset of the segment that holds the recovery point, and the position there.
    pub segment: i64,
    pub position: u64,
    /// Compaction has seen everything below.
    pub cleaned_to: i64,
    /// When the next tombstone below `cleaned_to` may go.
    pub tombstones_due: i64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        let (log_start, recovery_point, segment, position, cleaned_to) = Default::default();
        Self { log_start, recovery_point, segment, position, cleaned_to, tombstones_due: i64::MAX }
    }
}

type Key = (Uuid, i32);

/// The checkpoints of one log directory.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// There was a file, so a partition that it does not name was neither shortened nor compacted.
    found: bool,
    entries: Mutex<HashMap<Key, Checkpoint>>,
    /// What the file holds.
    stored: Mutex<HashMap<Key, Checkpoint>>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    writing: Mutex<()>,
}

impl Checkpoints {
    pub(crate) fn load(disk: Arc<dyn Disk>, root: &Path) -> Result<Self> {
        let path = root.join(CHECKPOINT_FILE);
        let mut entries = HashMap::new();
        let file = FILE.read(&*disk, &path)?;
        let found = file.is_some();
        if let Some((version, payload)) = file {
            let size = if version == 1 { ENTRY_V1 } else { ENTRY };
            if payload.len() % size != 0 {
                return Err(LogError::corrupt(&path, 0, "the payload is not a list of checkpoints"));
            }
            entries.extend(payload.chunks_exact(size).map(decode));
        }
        let stored = Mutex::new(entries.clone());
        Ok(Self { disk, path, found, entries: Mutex::new(entries), stored, writing: Mutex::new(()) })
    }

    pub(crate) fn get(&self, topic: Uuid, partition: i32) -> Option<Checkpoint> {
        self.entries.lock().get(&(topic, partition)).copied()
    }

    /// What the last process left; `None` only when all checkpoints are gone.
    pub(crate) fn found(&self, topic: Uuid, partition: i32) -> Option<Checkpoint> {
        self.get(topic, partition).or_else(|| self.found.then(Checkpoint::default))
    }

    /// The recovery point that a crash would leave.
    pub(crate) fn stored_recovery_point(&self, topic: Uuid, partition: i32) -> i64 {
        self.stored.lock().get(&(topic, partition)).map_or(0, |c| c.recovery_point)
    }

    /// Changes an entry in memory; [`Self::store`] makes it last.
    pub(crate) fn update(&self, topic: Uuid, partition: i32, change: impl FnOnce(&mut Checkpoint)) {
        change(self.entries.lock().entry((topic, partition)).or_default());
    }

    /// As [`Self::update`], but a partition that is gone stays gone.
    pub(crate) fn update_existing(&self, topic: Uuid, partition: i32, change: impl FnOnce(&mut Checkpoint)) {
        if let Some(entry) = self.entries.lock().get_mut(&(topic, partition)) {
            change(entry);
        }
    }

    pub(crate) fn remove(&self, topic: Uuid, partition: i32) {
        self.entries.lock().remove(&(topic, partition));
    }

    /// Durable when it returns.
    pub(crate) fn store(&self) -> Result<()> {
        let _writing = self.writing.lock();
        let entries = self.entries.lock().clone();
        let mut payload = Vec::with_capacity(entries.len() * ENTRY);
        for ((topic, partition), c) in &entries {
            payload.extend_from_slice(topic.as_bytes());
            payload.extend_from_slice(&partition.to_be_bytes());
            payload.extend_from_slice(&c.log_start.to_be_bytes());
            payload.extend_from_slice(&c.recovery_point.to_be_bytes());
            payload.extend_from_slice(&c.segment.to_be_bytes());
            payload.extend_from_slice(&c.position.to_be_bytes());
            payload.extend_from_slice(&c.cleaned_to.to_be_bytes());
            payload.extend_from_slice(&c.tombstones_due.to_be_bytes());
        }
        FILE.replace(&*self.disk, &self.path, &payload)?;
        *self.stored.lock() = entries;
        Ok(())
    }
}

fn decode(entry: &[u8]) -> (Key, Checkpoint) {
    let number = |at: usize| i64::from_be_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
    let topic = Uuid::from_bytes(entry[..16].try_into().expect("sixteen bytes"));
    let partition = i32::from_be_bytes(entry[16..20].try_into().expect("four bytes"));
    let checkpoint = Checkpoint {
        log_start: number(20),
        recovery_point: number(28),
        segment: number(36),
        position: number(44).cast_unsigned(),
        cleaned_to: number(52),
        // Where it is not known, one pass finds it out.
        tombstones_due: if entry.len() == ENTRY { number(60) } else { 0 },
    };
    ((topic, partition), checkpoint)
}
