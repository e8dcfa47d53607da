//! Checks every batch from a segment on, builds its indexes, epochs and producer state again, and cuts a torn tail.

use std::path::Path;
use std::sync::Arc;

use aqueduct_wire::BatchHeader;

use super::files::remove_index;
use crate::batch_scan::{BatchScan, Step};
use crate::disk::{Disk, DiskFile, OpenMode, read_full_at, write_all_at};
use crate::epochs::LeaderEpochs;
use crate::error::{LogError, Result};
use crate::index::IndexBuilder;
use crate::log_config::{LogCounters, PartitionId};
use crate::producer_state::ProducerStates;
use crate::segment::{Active, Sealed, segment_path};

pub(super) struct Scan<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub id: &'a PartitionId,
    pub counters: &'a LogCounters,
    pub interval: usize,
    pub now_ms: i64,
    pub recovery_point: i64,
    /// Damage anywhere is a tail to be cut, because the operator said so.
    pub repair: bool,
    /// Without a checkpoint, or to repair, segments are read again that compaction may have left gaps in. Never the last
    /// one: there a base offset that jumps is damage.
    pub gaps: bool,
}

pub(super) struct Found {
    pub segments: Vec<Active>,
    pub end: i64,
    /// Something was cut.
    pub changed: bool,
}

impl Scan<'_> {
    /// Walks the segments, given by base and size.
    pub(super) fn run(
        &self,
        bases: &[(i64, u64)],
        epochs: &mut LeaderEpochs,
        producers: &mut ProducerStates,
        snapshot: i64,
    ) -> Result<Found> {
        let mut found = Found { segments: Vec::new(), end: bases[0].0, changed: false };
        let mut epoch = -1;
        for (at, (base, _)) in bases.iter().enumerate() {
            if *base != found.end && !(self.gaps && *base > found.end) {
                let what = format!("the segment begins at {base}, the log ends at {}", found.end);
                self.tolerate(&segment_path(self.dir, *base), 0, &what, found.end)?;
                self.set_aside(&bases[at..])?;
                found.changed = true;
                break;
            }
            found.end = *base;
            let mut segment = self.open(*base)?;
            let size = segment.file.len().map_err(|e| LogError::io("read", &segment.path, e))?;
            let file = Arc::clone(&segment.file);
            let mut scan = BatchScan::new(file, segment.path.clone(), 0, size, true);
            let torn = loop {
                match scan.step()? {
                    Step::Batch { header, position, bytes } => {
                        if let Some(what) = self.misfit(&header, found.end, epoch, bases.get(at + 1)) {
                            break Some((position, what));
                        }
                        epoch = header.partition_leader_epoch;
                        epochs.assign(epoch, header.base_offset);
                        if header.base_offset >= snapshot {
                            producers.record(&header, self.now_ms);
                        }
                        self.make_dirty(&segment, &header, position, bytes)?;
                        segment.note(&header, self.now_ms, self.interval);
                        found.end = header.next_offset();
                    }
                    Step::End => break None,
                    Step::Broken { position, what } => break Some((position, what)),
                }
            };
            if let Some((position, what)) = &torn {
                self.tolerate(&segment.path, *position, what, found.end)?;
                self.cut(&segment, size, what)?;
                found.changed = true;
            }
            found.segments.push(segment);
            if torn.is_some() {
                self.set_aside(&bases[at + 1..])?;
                break;
            }
        }
        if found.end < self.recovery_point && !self.repair {
            let what =
                format!("the log ends at {}, but was on disk up to {}", found.end, self.recovery_point);
            return Err(LogError::corrupt(self.dir, 0, what));
        }
        Ok(found)
    }

    fn open(&self, base: i64) -> Result<Active> {
        let path = segment_path(self.dir, base);
        // Indexes are built again; what stands in the files is not trusted.
        remove_index(self.disk, &path)?;
        let file = self.disk.open(&path, OpenMode::Write).map_err(|e| LogError::io("open", &path, e))?;
        Ok(Active { base, path, file, size: 0, index: IndexBuilder::default(), first_append: None })
    }

    /// What is found past the recovery point is written again, so that the sync that follows does write it: after a failed sync
    /// the system takes its pages for clean, and another sync succeeds without having written them.
    fn make_dirty(&self, segment: &Active, header: &BatchHeader, position: u64, bytes: &[u8]) -> Result<()> {
        if header.next_offset() <= self.recovery_point {
            return Ok(());
        }
        write_all_at(&*segment.file, &[bytes], position).map_err(|e| LogError::io("write", &segment.path, e))
    }

    /// Why a whole batch cannot be the next one, in a segment that ends where `next` begins.
    fn misfit(
        &self,
        header: &BatchHeader,
        expected: i64,
        epoch: i32,
        next: Option<&(i64, u64)>,
    ) -> Option<String> {
        let base = header.base_offset;
        let gap = self.gaps && base > expected && next.is_some_and(|(next, _)| header.next_offset() <= *next);
        if base != expected && !gap {
            return Some(format!("a batch begins at offset {base}, the log continues at {expected}"));
        }
        let found = header.partition_leader_epoch;
        (found < epoch).then(|| format!("the leader epoch falls from {epoch} to {found}"))
    }

    /// Past the recovery point damage is a torn tail, below it an error.
    fn tolerate(&self, path: &Path, position: u64, what: &str, end: i64) -> Result<()> {
        if end < self.recovery_point && !self.repair {
            return Err(LogError::corrupt(path, position, what));
        }
        Ok(())
    }

    /// Keeps what stands behind the last whole batch aside, and cuts it off.
    fn cut(&self, segment: &Active, size: u64, what: &str) -> Result<()> {
        let bytes = size - segment.size;
        let kept = self.spare_name(segment.base)?;
        self.copy(&*segment.file, &segment.path, segment.size, size, &kept)?;
        segment.file.truncate(segment.size).map_err(|e| LogError::io("truncate", &segment.path, e))?;
        self.report(bytes);
        tracing::warn!(
            partition = %self.id, segment = %segment.path.display(), position = segment.size, bytes, what,
            kept = %kept.display(), "cut a torn tail"
        );
        Ok(())
    }

    /// Segments behind a torn tail do not continue the log.
    pub(super) fn set_aside(&self, bases: &[(i64, u64)]) -> Result<()> {
        for (base, size) in bases {
            let path = segment_path(self.dir, *base);
            let kept = self.spare_name(*base)?;
            self.disk.rename(&path, &kept).map_err(|e| LogError::io("rename", &path, e))?;
            remove_index(self.disk, &path)?;
            self.report(*size);
            tracing::warn!(
                partition = %self.id, segment = %path.display(), bytes = size, kept = %kept.display(),
                "set a segment behind a torn tail aside"
            );
        }
        Ok(())
    }

    fn report(&self, bytes: u64) {
        LogCounters::add(&self.counters.torn_tails, 1);
        LogCounters::add(&self.counters.torn_bytes, bytes);
    }

    /// `<segment>.cut`, or `<segment>.cut.1` and so on when there are older ones.
    fn spare_name(&self, base: i64) -> Result<std::path::PathBuf> {
        let plain = segment_path(self.dir, base).with_extension("cut");
        let names =
            std::iter::once(plain.clone()).chain((1..).map(|i| plain.with_extension(format!("cut.{i}"))));
        for name in names {
            if !self.disk.exists(&name).map_err(|e| LogError::io("look for", &name, e))? {
                return Ok(name);
            }
        }
        Ok(plain)
    }

    fn copy(&self, from: &dyn DiskFile, path: &Path, start: u64, end: u64, to: &Path) -> Result<()> {
        let out = self.disk.open(to, OpenMode::Create).map_err(|e| LogError::io("create", to, e))?;
        let mut buf = vec![0; 1 << 20];
        let mut at = start;
        while at < end {
            let want = buf.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let n = read_full_at(from, &mut buf[..want], at).map_err(|e| LogError::io("read", path, e))?;
            if n == 0 {
                break;
            }
            write_all_at(&*out, &[&buf[..n]], at - start).map_err(|e| LogError::io("write", to, e))?;
            at += n as u64;
        }
        out.sync_data().map_err(|e| LogError::io("sync", to, e))
    }
}

/// Epochs of a segment that is not checked otherwise.
pub(super) fn read_epochs(segment: &Sealed, epochs: &mut LeaderEpochs) -> Result<()> {
    let mut scan = segment.scan(0, false)?;
    loop {
        match scan.step()? {
            Step::Batch { header, .. } => {
                epochs.assign(header.partition_leader_epoch, header.base_offset);
            }
            Step::End => return Ok(()),
            Step::Broken { position, what } => return Err(LogError::corrupt(&segment.path, position, what)),
        }
    }
}
