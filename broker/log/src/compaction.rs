//! Compaction: of the records with the same key only the last one stays, at its offset.
//!
//! Invariants: only sealed segments below the stored recovery point are touched; a crash at any point leaves the old
//! segments or the new one; the last batch of each producer stays, empty if need be; a tombstone goes only after
//! `delete.retention.ms` and after everything it deletes (KIP-534).

mod clean;
mod key_map;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clean::{Cleaned, Cleaner};
use key_map::KeyMap;

use crate::error::{LogError, Result};
use crate::flusher::write_index;
use crate::index::SealedIndex;
use crate::log_config::{LogConfig, LogCounters};
use crate::partition_log::{PartitionLog, State};
use crate::recovery::{finish_swap, swap_name};
use crate::segment::{Sealed, SegmentFile, segment_path};

/// What one pass works on.
#[derive(Debug)]
struct Plan {
    /// Segments that may be rewritten, with the offset where each ends.
    segments: Vec<(Sealed, i64)>,
    dirty_start: i64,
    /// The last offset of each producer.
    producers: HashMap<i64, i64>,
    config: LogConfig,
}

/// What a pass came to.
#[derive(Debug)]
struct Pass {
    /// Everything below is clean.
    end: i64,
    /// When the next tombstone may go.
    tombstones_due: i64,
}

impl Plan {
    fn dirty(&self) -> impl Iterator<Item = &Sealed> {
        self.segments.iter().filter(|(_, end)| *end > self.dirty_start).map(|(segment, _)| segment)
    }

    fn enough_is_dirty(&self) -> bool {
        let dirty: u64 = self.dirty().map(|s| s.size).sum();
        let total: u64 = self.segments.iter().map(|(s, _)| s.size).sum();
        dirty > 0 && dirty as f64 >= self.config.min_cleanable_dirty_ratio * total as f64
    }

    /// Whether the first record of a dirty segment has waited for max.compaction.lag.ms.
    fn is_overdue(&self, now_ms: i64) -> Result<bool> {
        let lag = self.config.max_compaction_lag_ms;
        if lag == i64::MAX {
            return Ok(false);
        }
        for segment in self.dirty() {
            let first = segment.first_timestamp()?;
            if first.is_some_and(|first| now_ms.saturating_sub(first) >= lag) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl PartitionLog {
    /// Compacts until nothing is due; when the keys do not fit into `map_bytes` that takes several passes.
    pub(crate) fn compact(&self, now_ms: i64, map_bytes: usize) -> Result<()> {
        while let Some(plan) = self.plan_compaction(now_ms)? {
            let Some(pass) = self.compact_once(&plan, now_ms, map_bytes)? else { break };
            let last = plan.segments.last().map_or(pass.end, |(_, end)| *end);
            self.context.checkpoints().update_existing(self.id.topic_id, self.id.partition, |c| {
                c.cleaned_to = c.cleaned_to.max(pass.end);
                c.tombstones_due = pass.tombstones_due;
            });
            LogCounters::add(&self.context.counters().compactions, 1);
            if pass.end >= last || pass.end <= plan.dirty_start {
                break;
            }
        }
        Ok(())
    }

    /// One pass; `None` when it was interrupted: nothing counts as clean then, so the next pass sees it all again.
    fn compact_once(&self, plan: &Plan, now_ms: i64, map_bytes: usize) -> Result<Option<Pass>> {
        let map =
            KeyMap::build(&plan.segments, plan.dirty_start, map_bytes).map_err(|e| self.classify(&e))?;
        let cleaner = Cleaner {
            disk: &*self.context.disk,
            dir: &self.dir,
            map: &map,
            producers: &plan.producers,
            now_ms,
            delete_retention_ms: plan.config.delete_retention_ms,
            interval: plan.config.index_interval_bytes,
            stopping: &self.context.stopping,
            tombstones_due: Cell::new(i64::MAX),
            counters: self.context.counters(),
        };
        for group in groups(&plan.segments, map.end(), &plan.config) {
            if self.context.stopping.load(Ordering::Acquire) {
                return Ok(None);
            }
            let cleaned = cleaner.clean(group).map_err(|e| self.classify(&e))?;
            if let Some(cleaned) = cleaned {
                self.swap(group, cleaned)?;
            }
        }
        let interrupted = self.context.stopping.load(Ordering::Acquire);
        let pass = Pass { end: map.end(), tombstones_due: cleaner.tombstones_due.get() };
        Ok((!interrupted).then_some(pass))
    }

    /// `None` when too little is dirty, nothing is dirty for too long, and no tombstone is due.
    fn plan_compaction(&self, now_ms: i64) -> Result<Option<Plan>> {
        let (plan, tombstones_due) = {
            let state = self.state.lock();
            let config = &state.config;
            if !config.compact || state.failed.is_some() || self.context.health().check().is_err() {
                return Ok(None);
            }
            let checkpoints = self.context.checkpoints();
            let (topic_id, partition) = (self.id.topic_id, self.id.partition);
            let stable = checkpoints.stored_recovery_point(topic_id, partition).min(self.flushed_offset());
            let Some(checkpoint) = checkpoints.get(topic_id, partition) else { return Ok(None) };
            let dirty_start = checkpoint.cleaned_to.max(state.start);
            let plan = Plan {
                segments: cleanable(&state, stable, dirty_start, now_ms),
                dirty_start,
                producers: state.producers.last_offsets(),
                config: config.clone(),
            };
            (plan, checkpoint.tombstones_due)
        };
        let due = plan.enough_is_dirty() || tombstones_due < now_ms || plan.is_overdue(now_ms)?;
        Ok((due && !plan.segments.is_empty()).then_some(plan))
    }

    /// Puts the cleaned segment in the place of the group, on disk and in memory.
    fn swap(&self, group: &[(Sealed, i64)], cleaned: Cleaned) -> Result<()> {
        let disk = &*self.context.disk;
        let (base, end) = (group[0].0.base, group[group.len() - 1].1);
        let path = segment_path(&self.dir, base);
        {
            let closed = self.closed.lock();
            if *closed {
                return Ok(());
            }
            let mut state = self.state.lock();
            let at = state.sealed.partition_point(|s| s.base < base);
            let now = state.sealed.get(at..at + group.len());
            let same = |(now, (then, _)): (&Sealed, &(Sealed, i64))| Arc::ptr_eq(&now.file, &then.file);
            if !now.is_some_and(|now| now.iter().zip(group).all(same)) {
                // Retention, truncation or deletion came first: they are right, this is void.
                return disk.remove_file(&cleaned.path).map_err(|e| LogError::io("remove", &cleaned.path, e));
            }
            group.iter().for_each(|(segment, _)| segment.file.retire());
            let swap = self.dir.join(swap_name(base, end));
            let renamed = disk.rename(&cleaned.path, &swap).map_err(|e| LogError::io("rename", &swap, e));
            let swapped = renamed
                .and_then(|()| {
                    disk.sync_dir(&self.dir).map_err(|e| LogError::io("sync directory", &self.dir, e))
                })
                .and_then(|()| finish_swap(disk, &self.dir, base, end));
            if let Err(error) = swapped {
                // The next start finishes the swap; until then nobody may build on either side of it.
                state.failed = Some(error.clone());
                return Err(error);
            }
            let segment = Sealed {
                base,
                path: path.clone(),
                file: SegmentFile::open(&self.context.open_files, &path, cleaned.file),
                size: cleaned.size,
                index: SealedIndex::Memory(cleaned.index.clone()),
                max_timestamp: cleaned.max_timestamp,
                times_checked: true,
            };
            state.sealed.splice(at..at + group.len(), [segment]);
            state.tail.forget_below(end);
        }
        if let Err(error) = write_index(disk, &path, &cleaned.index) {
            tracing::warn!(%error, "could not write the index of a compacted segment");
        }
        Ok(())
    }
}

/// The segments from the log start on that may be rewritten, and where each ends.
fn cleanable(state: &State, stable: i64, dirty_start: i64, now_ms: i64) -> Vec<(Sealed, i64)> {
    let newest = now_ms.saturating_sub(state.config.min_compaction_lag_ms.max(0));
    let ends = state.sealed.iter().skip(1).map(|s| s.base).chain([state.active.base]);
    let lag = state.config.min_compaction_lag_ms > 0;
    state
        .sealed
        .iter()
        .zip(ends)
        .take_while(|(_, end)| *end <= stable)
        .take_while(|(s, end)| {
            !lag || *end <= dirty_start || s.max_timestamp.is_none_or(|(timestamp, _)| timestamp <= newest)
        })
        .map(|(s, end)| (s.clone(), end))
        .collect()
}

/// Neighbours that fit into one segment together; small ones left by earlier passes are merged that way.
fn groups<'a>(segments: &'a [(Sealed, i64)], map_end: i64, config: &LogConfig) -> Vec<&'a [(Sealed, i64)]> {
    let count = segments.partition_point(|(s, _)| s.base < map_end);
    let mut groups = Vec::new();
    let mut from = 0;
    while from < count {
        let (mut to, mut size) = (from + 1, segments[from].0.size);
        while to < count {
            let (next, end) = &segments[to];
            let far = end - segments[from].0.base > i64::from(i32::MAX);
            if far || size + next.size > u64::from(config.segment_bytes) {
                break;
            }
            size += next.size;
            to += 1;
        }
        groups.push(&segments[from..to]);
        from = to;
    }
    groups
}

#[cfg(test)]
mod tests;
