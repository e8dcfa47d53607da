//! Compaction: of the records with the same key only the last one stays, at its offset.
//!
//! Invariants: only sealed segments below the stored recovery point are touched; a crash at any point leaves the old
//! segments or the new one; the last batch of each producer stays, empty if need be; a tombstone goes only after
//! `delete.retention.ms` and after everything it deletes (KIP-534).

mod clean;
mod key_map;

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
use crate::segment::{Sealed, segment_path};

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

impl PartitionLog {
    /// Compacts until nothing is due; when the keys do not fit into `map_bytes` that takes several passes.
    pub(crate) fn compact(&self, now_ms: i64, map_bytes: usize) -> Result<()> {
        while let Some(plan) = self.plan_compaction(now_ms) {
            let end = self.compact_once(&plan, now_ms, map_bytes)?;
            let last = plan.segments.last().map_or(end, |(_, end)| *end);
            self.context.checkpoints().update(self.id.topic_id, self.id.partition, |c| {
                c.cleaned_to = c.cleaned_to.max(end);
            });
            LogCounters::add(&self.context.counters().compactions, 1);
            if end >= last || end <= plan.dirty_start {
                break;
            }
        }
        Ok(())
    }

    /// One pass; everything below the offset it returns is clean.
    fn compact_once(&self, plan: &Plan, now_ms: i64, map_bytes: usize) -> Result<i64> {
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
            counters: self.context.counters(),
        };
        for group in groups(&plan.segments, map.end(), &plan.config) {
            if self.context.stopping.load(Ordering::Acquire) {
                // Nothing counts as clean yet, so the next pass sees it all again.
                return Ok(plan.dirty_start);
            }
            let cleaned = cleaner.clean(group).map_err(|e| self.classify(&e))?;
            if let Some(cleaned) = cleaned {
                self.swap(group, cleaned)?;
            }
        }
        let interrupted = self.context.stopping.load(Ordering::Acquire);
        Ok(if interrupted { plan.dirty_start } else { map.end() })
    }

    /// `None` when too little is dirty.
    fn plan_compaction(&self, now_ms: i64) -> Option<Plan> {
        let state = self.state.lock();
        let config = &state.config;
        if !config.compact || state.failed.is_some() || self.context.health().check().is_err() {
            return None;
        }
        let checkpoints = self.context.checkpoints();
        let (topic_id, partition) = (self.id.topic_id, self.id.partition);
        let stable = checkpoints.stored_recovery_point(topic_id, partition).min(self.flushed_offset());
        let dirty_start = checkpoints.get(topic_id, partition)?.cleaned_to.max(state.start);
        let segments = cleanable(&state, stable, now_ms);
        let dirty: Vec<_> = segments.iter().filter(|(_, end)| *end > dirty_start).collect();
        let dirty_bytes: u64 = dirty.iter().map(|(s, _)| s.size).sum();
        let total: u64 = segments.iter().map(|(s, _)| s.size).sum();
        let oldest =
            dirty.iter().filter_map(|(s, _)| s.max_timestamp).map(|(timestamp, _)| timestamp).min()?;
        let overdue = now_ms.saturating_sub(oldest) >= config.max_compaction_lag_ms;
        let enough = dirty_bytes as f64 >= config.min_cleanable_dirty_ratio * total as f64;
        (overdue || enough).then(|| Plan {
            segments,
            dirty_start,
            producers: state.producers.last_offsets(),
            config: config.clone(),
        })
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
                file: cleaned.file,
                size: cleaned.size,
                index: SealedIndex::Memory(cleaned.index.clone()),
                max_timestamp: cleaned.max_timestamp,
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
fn cleanable(state: &State, stable: i64, now_ms: i64) -> Vec<(Sealed, i64)> {
    let newest = now_ms.saturating_sub(state.config.min_compaction_lag_ms.max(0));
    let ends = state.sealed.iter().skip(1).map(|s| s.base).chain([state.active.base]);
    let lag = state.config.min_compaction_lag_ms > 0;
    state
        .sealed
        .iter()
        .zip(ends)
        .take_while(|(_, end)| *end <= stable)
        .take_while(|(s, _)| !lag || s.max_timestamp.is_none_or(|(timestamp, _)| timestamp <= newest))
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
