//! Making the log shorter: at its end (truncation) and at its start (DeleteRecords).
//!
//! Invariant: the stored recovery point is lowered before the end is cut, and the stored log start raised before segments
//! go, so that a crash in between leaves a log that opens.

use std::sync::Arc;

use super::{PartitionLog, State, active_file};
use crate::batch_scan::Step;
use crate::error::{LogError, Result};
use crate::index::IndexBuilder;
use crate::producer_state::ProducerStates;
use crate::recovery;
use crate::segment::{Active, Sealed, SegmentFile};

impl PartitionLog {
    /// Removes all batches that end above `offset`, durably; epochs and producer state are cut with the log.
    pub fn truncate_to(&self, offset: i64) -> Result<()> {
        let mut state = self.state.lock();
        let state = &mut *state;
        self.context.health().check()?;
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        if offset >= state.end {
            return Ok(());
        }
        if offset < state.start {
            let (start, end) = (state.start, state.end);
            return Err(LogError::OffsetOutOfRange { offset, start, end });
        }
        let cut = self.cut_end(state, offset);
        if let Err(error) = &cut {
            // Half a cut cannot be gone on with; the next start finishes or undoes it.
            state.failed = Some(error.clone());
        }
        self.publish(state);
        cut
    }

    fn cut_end(&self, state: &mut State, offset: i64) -> Result<()> {
        let (disk, checkpoints) = (&*self.context.disk, self.context.checkpoints());
        state.saved = None;
        // Flushes that are under way must not raise the recovery point again.
        self.flush.truncated(active_file(&state.active), offset);
        let target_base = segment_for(state, offset);
        checkpoints.update(self.id.topic_id, self.id.partition, |c| {
            if c.recovery_point > offset {
                (c.recovery_point, c.segment, c.position) = (target_base, target_base, 0);
            }
            c.cleaned_to = c.cleaned_to.min(offset);
        });
        checkpoints.store()?;
        state.tail.truncate_to(offset);
        while state.active.base > offset {
            let Some(last) = state.sealed.pop() else { break };
            recovery::remove_segment(disk, &state.active.path)?;
            state.active = reopen(last)?;
            // They would tell of batches that are cut now.
            recovery::remove_index(disk, &state.active.path)?;
        }
        let (size, end) = self.cut_active(state, offset)?;
        state.end = end;
        state.epochs.truncate_to(end);
        state.epochs.store(disk, &self.dir)?;
        recovery::remove_snapshots(disk, &self.dir, |at| at > end)?;
        state.active.file.sync_data().map_err(|e| LogError::io("sync", &state.active.path, e))?;
        disk.sync_dir(&self.dir).map_err(|e| LogError::io("sync directory", &self.dir, e))?;
        state.active.size = size;
        self.rebuild_producers(state)?;
        self.flush.truncated(active_file(&state.active), end);
        Ok(())
    }

    /// Cuts the active segment after its last batch that ends at or below `offset`.
    fn cut_active(&self, state: &mut State, offset: i64) -> Result<(u64, i64)> {
        let interval = state.config.index_interval_bytes;
        let active = &mut state.active;
        let (mut size, mut end) = (0, active.base.max(state.start));
        let mut index = IndexBuilder::default();
        let mut scan = active.frozen().scan(0, false)?;
        loop {
            match scan.step()? {
                Step::Batch { header: h, position, .. } if h.next_offset() <= offset => {
                    index.add(active.base, h.last_offset(), position, h.size(), h.max_timestamp, interval);
                    size = position + h.size() as u64;
                    end = h.next_offset();
                }
                Step::Batch { .. } | Step::End => break,
                Step::Broken { position, what } => {
                    return Err(LogError::corrupt(&active.path, position, what));
                }
            }
        }
        active.file.truncate(size).map_err(|e| LogError::io("truncate", &active.path, e))?;
        active.index = index;
        active.size = size;
        if size == 0 {
            active.first_append = None;
        }
        Ok((size, end))
    }

    /// Producer state again from the last snapshot at or below the end, plus the log.
    fn rebuild_producers(&self, state: &mut State) -> Result<()> {
        let first = state.sealed.first().map_or(state.active.base, |s| s.base);
        let (from, mut producers) =
            recovery::load_snapshot(&*self.context.disk, &self.dir, first, state.end)?;
        let frozen = state.active.frozen();
        for segment in state.sealed.iter().chain([&frozen]) {
            replay(segment, from, &mut producers, None)?;
        }
        state.producers = producers;
        Ok(())
    }

    /// Raises the log start (DeleteRecords), durably. Segments below it go with the next housekeeping.
    pub fn delete_records_before(&self, offset: i64) -> Result<i64> {
        {
            let mut state = self.state.lock();
            self.context.health().check()?;
            if offset > self.flush.flushed() {
                let (start, end) = (state.start, self.flush.flushed());
                return Err(LogError::OffsetOutOfRange { offset, start, end });
            }
            self.raise_start(&mut state, offset);
        }
        self.context.checkpoints().store()?;
        Ok(self.start_offset())
    }

    /// In memory; the caller stores the checkpoint before anything is removed.
    pub(super) fn raise_start(&self, state: &mut State, offset: i64) {
        if offset <= state.start {
            return;
        }
        state.start = offset;
        state.epochs.trim_to(offset);
        self.context.checkpoints().update(self.id.topic_id, self.id.partition, |c| c.log_start = offset);
        self.publish(state);
    }
}

fn segment_for(state: &State, offset: i64) -> i64 {
    let bases = state.sealed.iter().map(|s| s.base).chain([state.active.base]);
    bases.take_while(|base| *base <= offset).last().unwrap_or(state.start)
}

fn reopen(sealed: Sealed) -> Result<Active> {
    let index = IndexBuilder::resume(sealed.index.load()?, sealed.base);
    let first_append = sealed.max_timestamp.map(|(timestamp, _)| timestamp);
    let file = sealed.file.get()?;
    sealed.file.retire();
    let Sealed { base, path, size, .. } = sealed;
    Ok(Active { base, path, file, size, index, first_append })
}

/// Counts the batches from `from` on, as seen at `seen` or else when their records say.
pub(crate) fn replay(
    segment: &Sealed,
    from: i64,
    producers: &mut ProducerStates,
    seen: Option<i64>,
) -> Result<()> {
    let mut scan = segment.scan(segment.position_for(from), false)?;
    loop {
        match scan.step()? {
            Step::Batch { header, .. } if header.base_offset >= from => {
                producers.record(&header, seen.unwrap_or(header.max_timestamp));
            }
            Step::Batch { .. } => {}
            Step::End => return Ok(()),
            Step::Broken { position, what } => return Err(LogError::corrupt(&segment.path, position, what)),
        }
    }
}

impl Active {
    /// The segment as it is now, to be scanned.
    pub(crate) fn frozen(&self) -> Sealed {
        Sealed {
            base: self.base,
            path: self.path.clone(),
            file: SegmentFile::pinned(&self.path, Arc::clone(&self.file)),
            size: self.size,
            index: crate::index::SealedIndex::Memory(self.index.snapshot(self.base)),
            max_timestamp: self.max_timestamp(),
            times_checked: true,
        }
    }
}
