//! Opening a partition's directory after a clean stop, a crash or a power loss.
//!
//! Invariants: below the recovery point any error takes the partition offline; past it the first batch that does not hold or
//! does not continue the log is a torn tail, which is cut and kept aside. What is found past the recovery point is synced
//! before it counts as flushed.

mod files;
mod scan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use files::{
    finish_swap, read_owner, remove_index, remove_old_snapshots, remove_segment, remove_snapshots, swap_name,
};

use crate::checkpoints::Checkpoint;
use crate::disk::Disk;
use crate::epochs::LeaderEpochs;
use crate::error::{LogError, Result};
use crate::flusher::write_index;
use crate::index::{IndexBuilder, SealedIndex};
use crate::log_config::{LogConfig, PartitionId};
use crate::partition_log::LogContext;
use crate::partition_log::cut_replay as replay;
use crate::producer_state::{ProducerStates, SNAPSHOT};
use crate::segment::{Active, OpenFiles, Sealed, SegmentFile, base_of, segment_path};
use scan::{Found, Scan};

/// A partition as it was found.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub sealed: Vec<Sealed>,
    pub active: Active,
    pub start: i64,
    pub end: i64,
    pub epochs: LeaderEpochs,
    pub producers: ProducerStates,
    /// The directory has entries that were not synced.
    pub new_entries: bool,
    /// What a clean stop writes is there and whole.
    pub saved: bool,
}

/// Opens, or creates, the partition's directory.
pub(crate) fn load(
    context: &LogContext,
    id: &PartitionId,
    dir: &Path,
    config: &LogConfig,
    now_ms: i64,
) -> Result<Loaded> {
    let fresh = files::prepare(&*context.disk, &context.root, dir, id)?;
    let mut found = Load { context, id, dir, config, now_ms }.run();
    if fresh && let Ok(loaded) = &mut found {
        // Once for the metadata file and the first segment, before anything is written to that: data without the
        // metadata file would be nobody's.
        context.disk.sync_dir(dir).map_err(|e| LogError::io("sync directory", dir, e))?;
        loaded.new_entries = false;
    }
    if let Ok(Loaded { sealed, active, end, .. }) = &found {
        // Those of earlier clean stops; truncation and recovery begin at segments only.
        let needed = |at: i64| at == *end || at == active.base || sealed.iter().any(|s| s.base == at);
        remove_snapshots(&*context.disk, dir, |at| {
            !needed(at) && at > sealed.first().map_or(active.base, |s| s.base)
        })?;
    }
    found.map_err(|e| match e {
        LogError::Corrupt { .. } => {
            context.counters().offline_partitions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            offline(&context.root, id, &e)
        }
        other => other,
    })
}

/// What a request to a damaged partition hears: what is wrong, and how to mend it.
pub(crate) fn offline(root: &Path, id: &PartitionId, error: &LogError) -> LogError {
    let advice = format!(
        "restore the file from a copy, or cut the log there by starting once with `aqueduct broker --data-dir {} \
         --repair-partition {id}`, which keeps what it cuts",
        root.display()
    );
    LogError::Offline { what: format!("partition `{id}`"), reason: error.with_advice(&advice).to_string() }
}

struct Load<'a> {
    context: &'a LogContext,
    id: &'a PartitionId,
    dir: &'a Path,
    config: &'a LogConfig,
    now_ms: i64,
}

impl Load<'_> {
    fn disk(&self) -> &dyn Disk {
        &*self.context.disk
    }

    fn run(&self) -> Result<Loaded> {
        files::finish_swaps(self.disk(), self.dir)?;
        let mut bases = files::segments(self.disk(), self.dir)?;
        let known = self.context.checkpoints().found(self.id.topic_id, self.id.partition);
        let checkpoint = known.unwrap_or_default();
        let start =
            checkpoint.log_start.max(if known.is_none() { bases.first().map_or(0, |b| b.0) } else { 0 });
        if bases.is_empty() {
            return self.empty(&checkpoint, start);
        }
        // Retention stored the log start before it removed these, or was about to.
        let gone = bases[1..].partition_point(|(base, _)| *base <= start);
        if gone > 0 {
            let segments =
                bases[..gone].iter().map(|segment| self.open(*segment)).collect::<Result<Vec<_>>>();
            let kept = segments.and_then(|s| keep_producers(self.disk(), self.dir, &s, bases[gone].0));
            if let Err(error @ LogError::Corrupt { .. }) = &kept {
                tracing::warn!(partition = %self.id, %error, "cannot tell what producers wrote below the log start");
            } else {
                kept?;
            }
        }
        for (base, _) in bases.drain(..gone) {
            remove_segment(self.disk(), &segment_path(self.dir, base))?;
        }
        let repair = self.context.repairs(self.id);
        if bases[0].0 > start && !repair {
            if checkpoint.recovery_point > start {
                let what = format!("the segment with offset {start} is missing");
                return Err(LogError::corrupt(self.dir, 0, what));
            }
            // The first flush was still to come: a power loss kept the name of a later file, and not that of the first.
            self.scanner(start, known.is_some(), false).set_aside(&bases)?;
            return self.empty(&checkpoint, start);
        }
        let start = start.max(bases[0].0);
        let last = bases[bases.len() - 1];
        let clean =
            (last.0, last.1) == (checkpoint.segment, checkpoint.position) && self.context.clean && !repair;
        if clean && let Some(loaded) = self.clean(&bases, &checkpoint, start)? {
            return Ok(loaded);
        }
        let recovery_point = if repair { start } else { checkpoint.recovery_point.max(start) };
        self.scan(&bases, recovery_point, start, known.is_some(), repair)
    }

    /// A new partition, or one whose files are all gone although they should not be.
    fn empty(&self, checkpoint: &Checkpoint, start: i64) -> Result<Loaded> {
        if checkpoint.recovery_point > start && !self.context.repairs(self.id) {
            let what =
                format!("all segments are missing, the log held {start} to {}", checkpoint.recovery_point);
            return Err(LogError::corrupt(self.dir, 0, what));
        }
        let base = checkpoint.recovery_point.max(start);
        let active = Active::create(self.disk(), self.dir, base)?;
        // What was written before the log start is not forgotten with the files.
        let (_, producers) = load_snapshot(self.disk(), self.dir, base, base)?;
        let mut epochs = LeaderEpochs::load(self.disk(), self.dir).ok().flatten().unwrap_or_default();
        epochs.truncate_to(base);
        epochs.trim_to(base);
        self.checkpoint(&active, base, base);
        Ok(Loaded {
            sealed: Vec::new(),
            active,
            start: base,
            end: base,
            epochs,
            producers,
            new_entries: true,
            saved: false,
        })
    }

    /// After a clean stop everything is where the checkpoint says. `None` when something is missing after all.
    fn clean(&self, bases: &[(i64, u64)], checkpoint: &Checkpoint, start: i64) -> Result<Option<Loaded>> {
        let end = checkpoint.recovery_point;
        let (Some(producers), Ok(Some(epochs))) =
            (self.snapshot(end), LeaderEpochs::load(self.disk(), self.dir))
        else {
            return Ok(None);
        };
        let (last, before) = bases.split_last().expect("there are segments");
        let sealed = before.iter().map(|segment| self.open(*segment)).collect::<Result<Vec<_>>>()?;
        let last = self.open(*last)?;
        let file = last.file.get()?;
        let Sealed { base, path, size, index, max_timestamp, .. } = last;
        let index = IndexBuilder::resume(index.load()?, base);
        let first_append = max_timestamp.map(|(timestamp, _)| timestamp.min(self.now_ms));
        let active = Active { base, path, file, size, index, first_append };
        Ok(Some(Loaded { sealed, active, start, end, epochs, producers, new_entries: false, saved: true }))
    }

    fn scan(
        &self,
        bases: &[(i64, u64)],
        recovery_point: i64,
        start: i64,
        known: bool,
        repair: bool,
    ) -> Result<Loaded> {
        let first = bases.partition_point(|(base, _)| *base <= recovery_point).saturating_sub(1);
        let first = if repair { 0 } else { first };
        let mut sealed =
            bases[..first].iter().map(|segment| self.open(*segment)).collect::<Result<Vec<_>>>()?;
        let from = bases[first].0;
        // Batches below the log start count too, as long as they are there.
        let (snapshot, mut producers) = load_snapshot(self.disk(), self.dir, bases[0].0, from)?;
        let stored = LeaderEpochs::load(self.disk(), self.dir).unwrap_or_else(|error| {
            tracing::warn!(partition = %self.id, %error, "building the epochs again from the log");
            None
        });
        let mut epochs = stored.clone().unwrap_or_default();
        for segment in &sealed {
            if snapshot < from {
                replay(segment, snapshot, &mut producers, Some(self.now_ms))?;
            }
            if stored.is_none() {
                scan::read_epochs(segment, &mut epochs)?;
            }
        }
        let scan = self.scanner(recovery_point, known, repair);
        let Found { mut segments, end, changed } =
            scan.run(&bases[first..], &mut epochs, &mut producers, snapshot)?;
        epochs.truncate_to(end);
        epochs.trim_to(start);
        if stored.unwrap_or_default() != epochs {
            epochs.store(self.disk(), self.dir)?;
        }
        remove_snapshots(self.disk(), self.dir, |at| at > end)?;
        let active = segments.pop().expect("a scan leaves at least one segment");
        // The page cache may hold what the disk does not.
        if changed || end > recovery_point {
            for segment in segments.iter().chain([&active]) {
                segment.file.sync_data().map_err(|e| LogError::io("sync", &segment.path, e))?;
            }
            self.disk().sync_dir(self.dir).map_err(|e| LogError::io("sync directory", self.dir, e))?;
        }
        for segment in segments {
            let segment = seal(segment, &self.context.open_files);
            if let SealedIndex::Memory(index) = &segment.index
                && let Err(error) = write_index(self.disk(), &segment.path, index)
            {
                tracing::warn!(%error, "could not write the index of a recovered segment");
            }
            sealed.push(segment);
        }
        self.checkpoint(&active, start.min(end), end);
        // A process that was killed may not have come to sync the name of its last segment.
        Ok(Loaded {
            sealed,
            active,
            start: start.min(end),
            end,
            epochs,
            producers,
            new_entries: true,
            saved: false,
        })
    }

    fn scanner(&self, recovery_point: i64, known: bool, repair: bool) -> Scan<'_> {
        Scan {
            disk: self.disk(),
            dir: self.dir,
            id: self.id,
            counters: self.context.counters(),
            interval: self.config.index_interval_bytes,
            now_ms: self.now_ms,
            recovery_point,
            repair,
            gaps: repair || !known,
        }
    }

    /// In memory; the directory stores it when all partitions are open.
    fn checkpoint(&self, active: &Active, start: i64, end: i64) {
        self.context.checkpoints().update(self.id.topic_id, self.id.partition, |c| {
            *c = Checkpoint {
                log_start: start,
                recovery_point: end,
                segment: active.base,
                position: active.size,
                cleaned_to: c.cleaned_to.min(end),
                tombstones_due: c.tombstones_due,
            };
        });
    }

    fn open(&self, segment: (i64, u64)) -> Result<Sealed> {
        let LogContext { open_files, disk, .. } = self.context;
        Sealed::open(open_files, disk, self.dir, segment, self.config.index_interval_bytes)
    }

    fn snapshot(&self, at: i64) -> Option<ProducerStates> {
        let (_, payload) = SNAPSHOT.read(self.disk(), &snapshot_path(self.dir, at)).ok()??;
        ProducerStates::decode(&payload)
    }
}

fn seal(mut active: Active, files: &Arc<OpenFiles>) -> Sealed {
    let max_timestamp = active.max_timestamp();
    let index = SealedIndex::Memory(active.index.seal(active.base));
    Sealed {
        base: active.base,
        file: SegmentFile::open(files, &active.path, active.file),
        path: active.path,
        size: active.size,
        index,
        max_timestamp,
        times_checked: true,
    }
}

/// The state of the producers before the offset `at`.
pub(crate) fn snapshot_path(dir: &Path, at: i64) -> PathBuf {
    dir.join(format!("{at:020}.snapshot"))
}

/// Before segments below the log start go: the snapshot at its end may be missing, when the disk was full or the power failed as
/// the last of them was finished. It is made again as long as the batches are there.
pub(crate) fn keep_producers(disk: &dyn Disk, dir: &Path, segments: &[Sealed], end: i64) -> Result<()> {
    let path = snapshot_path(dir, end);
    if matches!(SNAPSHOT.read(disk, &path), Ok(Some(_))) {
        return Ok(());
    }
    let first = segments.first().map_or(end, |s| s.base);
    let (from, mut producers) = load_snapshot(disk, dir, first, end)?;
    for segment in segments {
        replay(segment, from, &mut producers, None)?;
    }
    SNAPSHOT.write_new(disk, &path, &producers.encode())?;
    disk.sync_dir(dir).map_err(|e| LogError::io("sync directory", dir, e))
}

/// The last whole snapshot at or below `up_to`, and its offset; else an empty one where the first segment begins.
pub(crate) fn load_snapshot(
    disk: &dyn Disk,
    dir: &Path,
    first_base: i64,
    up_to: i64,
) -> Result<(i64, ProducerStates)> {
    let list = disk.list(dir).map_err(|e| LogError::io("list", dir, e))?;
    let mut offsets: Vec<i64> = list.iter().filter_map(|e| base_of(&e.name, "snapshot")).collect();
    offsets.retain(|at| *at <= up_to);
    while let Some(at) = offsets.pop() {
        let path = snapshot_path(dir, at);
        match SNAPSHOT.read(disk, &path).map(|s| s.and_then(|(_, payload)| ProducerStates::decode(&payload)))
        {
            Ok(Some(producers)) => return Ok((at, producers)),
            Ok(None) => {
                tracing::warn!(snapshot = %path.display(), "not a producer snapshot, using an older one")
            }
            Err(error) => tracing::warn!(%error, "using an older producer snapshot"),
        }
    }
    Ok((first_base, ProducerStates::default()))
}

#[cfg(test)]
mod tests;
