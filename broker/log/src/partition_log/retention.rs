//! Retention by time and size, and the other work that is due now and then.
//!
//! Invariant: only sealed segments go, oldest first, never one with data that is not flushed; the log start is stored
//! before the first file is removed.

use std::sync::Arc;

use super::{PartitionLog, State};
use crate::error::Result;
use crate::index::SealedIndex;
use crate::log_config::{LogConfig, LogCounters};
use crate::recovery;
use crate::segment::Sealed;

/// Segments that retention took out of the log and whose files go once the checkpoint is stored.
#[derive(Debug)]
pub(crate) struct Expired {
    segments: Vec<Sealed>,
    start: i64,
}

/// Tail caches of partitions that were silent for so long are given back.
const IDLE_MS: i64 = 10_000;

impl PartitionLog {
    /// What is due at `now_ms`: rolls an old active segment, forgets old producers and idle memory, and takes segments out that
    /// are below the log start or, with `retention`, past that. The caller stores the checkpoints, then calls [`Self::remove`].
    pub(crate) fn housekeep(&self, now_ms: i64, retention: bool) -> Result<Option<Expired>> {
        if retention {
            self.check_times(|config, segment| too_old(config, segment, now_ms))?;
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.failed.is_some() || self.context.health().check().is_err() {
            return Ok(None);
        }
        let producer_expiry = state.config.producer_expiry_ms;
        if producer_expiry >= 0 {
            let before = state.producers.len();
            state.producers.expire(now_ms.saturating_sub(producer_expiry));
            if state.producers.len() < before {
                state.saved = None;
            }
        }
        state.tail.clear_idle(now_ms.saturating_sub(IDLE_MS));
        self.adopt_index_files(state);
        if self.active_is_due(state, now_ms, retention) {
            self.roll(state)?;
        }
        let gone = self.count_expired(state, now_ms, retention);
        if gone == 0 {
            return Ok(None);
        }
        let start = state.sealed.get(gone).map_or(state.active.base, |s| s.base);
        let segments = state.sealed.drain(..gone).collect();
        self.raise_start(state, start);
        Ok(Some(Expired { segments, start }))
    }

    /// Checks the largest timestamps that came from index files, oldest segment first, where `wanted`; each only once.
    pub(super) fn check_times(&self, wanted: impl Fn(&LogConfig, &Sealed) -> bool) -> Result<()> {
        loop {
            let unchecked = {
                let state = self.state.lock();
                let wanted = |s: &&Sealed| !s.times_checked && wanted(&state.config, s);
                let next = state.sealed.iter().find(wanted);
                next.map(|segment| Ok((segment.clone(), segment.pinned()?))).transpose()?
            };
            let Some((segment, mut pinned)) = unchecked else { return Ok(()) };
            pinned.check_times().map_err(|e| self.classify(&e))?;
            let mut state = self.state.lock();
            if let Some(now) = state.sealed.iter_mut().find(|s| Arc::ptr_eq(&s.file, &segment.file)) {
                (now.max_timestamp, now.times_checked) = (pinned.max_timestamp, true);
            }
        }
    }

    /// Removes the files of expired segments.
    pub(crate) fn remove(&self, expired: Expired) -> Result<()> {
        let closed = self.closed.lock();
        if *closed {
            return Ok(());
        }
        let disk = &*self.context.disk;
        recovery::keep_producers(disk, &self.dir, &expired.segments, expired.start)?;
        for segment in &expired.segments {
            recovery::remove_segment(disk, &segment.path)?;
            tracing::info!(partition = %self.id, segment = %segment.path.display(), bytes = segment.size, "removed a segment");
        }
        LogCounters::add(&self.context.counters().deleted_segments, expired.segments.len() as u64);
        recovery::remove_old_snapshots(disk, &self.dir, expired.start)
    }

    /// A segment that is written no more is compacted or deleted only once it is sealed.
    fn active_is_due(&self, state: &State, now_ms: i64, retention: bool) -> bool {
        let config = &state.config;
        let Some(first_append) = state.active.first_append.filter(|_| state.active.size > 0) else {
            return false;
        };
        let rolls = config.segment_ms >= 0 && now_ms.saturating_sub(first_append) >= config.segment_ms;
        let newest = state.active.max_timestamp().map_or(i64::MAX, |(timestamp, _)| timestamp);
        let expired = retention
            && config.delete
            && config.retention_ms >= 0
            && newest >= 0
            && newest < now_ms.saturating_sub(config.retention_ms);
        let uncompacted =
            config.compact && now_ms.saturating_sub(first_append) >= config.max_compaction_lag_ms;
        rolls || expired || uncompacted
    }

    fn count_expired(&self, state: &State, now_ms: i64, retention: bool) -> usize {
        let config = &state.config;
        let flushed = self.flush.flushed();
        let mut size = state.sealed.iter().map(|s| s.size).sum::<u64>() + state.active.size;
        let mut gone = 0;
        for (at, segment) in state.sealed.iter().enumerate() {
            let end = state.sealed.get(at + 1).map_or(state.active.base, |s| s.base);
            if end > flushed {
                break;
            }
            let limit = u64::try_from(config.retention_bytes).ok();
            let too_large = config.delete && limit.is_some_and(|limit| size - segment.size >= limit);
            let too_old = too_old(config, segment, now_ms) && segment.times_checked;
            if !(retention && (too_large || too_old) || end <= state.start) {
                break;
            }
            size -= segment.size;
            gone = at + 1;
        }
        gone
    }

    /// Indexes of finished segments are read from their files from now on.
    fn adopt_index_files(&self, state: &mut State) {
        let indexed = self.flush.indexed_to();
        let bases: Vec<i64> =
            state.sealed.iter().skip(1).map(|s| s.base).chain([state.active.base]).collect();
        for (segment, end) in state.sealed.iter_mut().zip(bases) {
            if end <= indexed
                && matches!(segment.index, SealedIndex::Memory(_))
                && let Some(files) = SealedIndex::open(&self.context.disk, &segment.path)
            {
                segment.index = files;
            }
        }
    }
}

/// Whether everything in the segment is older than retention.ms.
fn too_old(config: &LogConfig, segment: &Sealed, now_ms: i64) -> bool {
    let old = |(timestamp, _)| timestamp >= 0 && timestamp < now_ms.saturating_sub(config.retention_ms);
    // Compaction may have left nothing in it.
    config.delete && config.retention_ms >= 0 && segment.max_timestamp.is_none_or(old)
}
