//! Which leader epoch begins at which offset (KIP-101, KIP-279): the truth followers and consumers truncate by.
//!
//! Invariant: epochs and their start offsets rise; the file holds an epoch before the first batch of it is written.

use std::path::Path;

use crate::checked_file::{CheckedFile, be_u32, be_u64};
use crate::disk::Disk;
use crate::error::{LogError, Result};

pub(crate) const EPOCH_FILE: &str = "leader-epoch-checkpoint";
const FILE: CheckedFile = CheckedFile::new(*b"AQEPOCHS", 1);
const ENTRY: usize = 12;

/// The epochs of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaderEpochs {
    entries: Vec<(i32, i64)>,
}

impl LeaderEpochs {
    /// `None` when there is no file.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(EPOCH_FILE);
        let Some((_, payload)) = FILE.read(disk, &path)? else { return Ok(None) };
        if payload.len() % ENTRY != 0 {
            return Err(LogError::corrupt(&path, 0, "the payload is not a list of epochs"));
        }
        let entry = |e: &[u8]| (be_u32(&e[..4]).cast_signed(), be_u64(&e[4..]).cast_signed());
        Ok(Some(Self { entries: payload.chunks_exact(ENTRY).map(entry).collect() }))
    }

    /// Durable when it returns.
    pub(crate) fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let mut payload = Vec::with_capacity(self.entries.len() * ENTRY);
        for (epoch, start) in &self.entries {
            payload.extend_from_slice(&epoch.to_be_bytes());
            payload.extend_from_slice(&start.to_be_bytes());
        }
        FILE.replace(disk, &dir.join(EPOCH_FILE), &payload)
    }

    pub(crate) fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// The epoch of the record at `offset`.
    pub(crate) fn at(&self, offset: i64) -> Option<i32> {
        self.entries.iter().rev().find(|(_, start)| *start <= offset).map(|(epoch, _)| *epoch)
    }

    /// Notes that `epoch` begins at `start`, and says whether that was news.
    pub(crate) fn assign(&mut self, epoch: i32, start: i64) -> bool {
        if self.latest().is_some_and(|latest| epoch <= latest) {
            return false;
        }
        // An epoch in which nothing was written leaves no trace.
        self.entries.retain(|(_, s)| *s < start);
        self.entries.push((epoch, start));
        true
    }

    /// The largest epoch not above the asked one and the offset where it ends (OffsetForLeaderEpoch).
    pub(crate) fn end_offset(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        let latest = self.latest()?;
        if epoch == latest {
            return Some((latest, log_end));
        }
        if epoch > latest {
            return None;
        }
        let after = self.entries.partition_point(|(e, _)| *e <= epoch);
        let end = self.entries[after].1;
        Some(after.checked_sub(1).map_or((epoch, end), |i| (self.entries[i].0, end)))
    }

    pub(crate) fn truncate_to(&mut self, end: i64) {
        self.entries.retain(|(_, start)| *start < end);
    }

    /// The log begins at `start` now; the epoch that holds there is kept.
    pub(crate) fn trim_to(&mut self, start: i64) {
        let before = self.entries.partition_point(|(_, s)| *s <= start);
        if before > 0 {
            self.entries.drain(..before - 1);
            self.entries[0].1 = start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> LeaderEpochs {
        LeaderEpochs { entries: vec![(2, 10), (4, 20), (7, 35)] }
    }

    #[test]
    fn end_offsets_follow_kip_279() {
        let check = |asked, expect| assert_eq!(epochs().end_offset(asked, 50), expect, "epoch {asked}");
        check(7, Some((7, 50)));
        check(8, None);
        check(4, Some((4, 35)));
        check(5, Some((4, 35)));
        check(1, Some((1, 10)));
        assert_eq!(LeaderEpochs::default().end_offset(0, 0), None);
    }

    #[test]
    fn truncating_and_trimming_keep_what_holds() {
        let mut cut = epochs();
        cut.truncate_to(20);
        assert_eq!(cut.entries, [(2, 10)]);
        let mut trimmed = epochs();
        trimmed.trim_to(25);
        assert_eq!(trimmed.entries, [(4, 25), (7, 35)]);
        assert!(!trimmed.assign(7, 60) && trimmed.assign(8, 60));
        assert_eq!(trimmed.at(59), Some(7));
    }
}
