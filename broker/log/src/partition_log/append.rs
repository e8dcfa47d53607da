//! Appending: offsets are assigned, the queue goes out as one vectored write per segment, and a failure leaves no trace.

use std::collections::HashMap;

use aqueduct_wire::{BatchHeader, RecordBatch};
use bytes::Bytes;

use super::{PartitionLog, State};
use crate::disk::write_all_at;
use crate::error::{LogError, Result};
use crate::log_config::LogCounters;
use crate::producer_state::{Producer, SequenceError, Verdict};

/// Where a batch stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendInfo {
    pub base_offset: i64,
    pub last_offset: i64,
    /// It was there already: the offsets are those of the original, which may not be flushed yet.
    pub duplicate: bool,
}

/// Why a batch was not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// KAFKA_STORAGE_ERROR
    #[error(transparent)]
    Storage(#[from] LogError),
    /// The caller is no longer the leader it believes to be.
    #[error("leader epoch `{found}` is older than `{current}`, which the log has seen")]
    OldLeaderEpoch { found: i32, current: i32 },
}

/// A batch that is accepted and waits for the write.
struct Pending {
    header: BatchHeader,
    data: Bytes,
}

/// One call's worth of work.
struct Run {
    results: Vec<Result<AppendInfo, AppendError>>,
    pending: Vec<Pending>,
    pending_bytes: u64,
    /// The offset after the last pending batch.
    next: i64,
    /// Producers as they were before the pending batches.
    before: HashMap<i64, Option<Producer>>,
}

impl PartitionLog {
    /// Appends one batch; see [`Self::append_many`].
    pub fn append(
        &self,
        batch: RecordBatch,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<AppendInfo, AppendError> {
        let mut results = self.append_many(vec![batch], leader_epoch, now_ms);
        results.pop().expect("one batch gives one result")
    }

    /// Appends validated batches in order, with one vectored write. Each gets its own answer: a producer's mistake in
    /// one does not stop the others, a failed write fails all that were in it. Written is not flushed.
    pub fn append_many(
        &self,
        batches: Vec<RecordBatch>,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Vec<Result<AppendInfo, AppendError>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Err(error) = self.ready(state, leader_epoch) {
            return batches.iter().map(|_| Err(error.clone())).collect();
        }
        let mut run = Run {
            results: Vec::with_capacity(batches.len()),
            pending: Vec::with_capacity(batches.len()),
            pending_bytes: 0,
            next: state.end,
            before: HashMap::new(),
        };
        let count = batches.len();
        for batch in batches {
            if let Err(error) = self.take(state, &mut run, batch, leader_epoch, now_ms) {
                self.context.counters().append_failed(&error);
                while run.results.len() < count {
                    run.results.push(Err(error.clone().into()));
                }
                break;
            }
        }
        if let Err(error) = self.write(state, &mut run, now_ms) {
            self.context.counters().append_failed(&error);
            tracing::error!(partition = %self.id, %error, "an append failed and was cut back");
        }
        self.publish(state);
        run.results
    }

    /// Whether appends may go on; the epoch stands in its file before its first batch in the log.
    fn ready(&self, state: &mut State, leader_epoch: i32) -> Result<(), AppendError> {
        self.context.health().check()?;
        if let Some(failed) = &state.failed {
            return Err(failed.clone().into());
        }
        self.cut_back(state)?;
        match state.epochs.latest() {
            Some(current) if leader_epoch < current => {
                Err(AppendError::OldLeaderEpoch { found: leader_epoch, current })
            }
            Some(current) if leader_epoch == current => Ok(()),
            _ => {
                let mut epochs = state.epochs.clone();
                epochs.assign(leader_epoch, state.end);
                epochs.store(&*self.context.disk, &self.dir)?;
                state.epochs = epochs;
                Ok(())
            }
        }
    }

    /// Puts one batch into the run. An error is the disk's: nothing more can be taken.
    fn take(
        &self,
        state: &mut State,
        run: &mut Run,
        batch: RecordBatch,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<()> {
        match state.producers.check(batch.header()) {
            Ok(Verdict::Append) => {}
            Ok(Verdict::Duplicate(w)) => {
                LogCounters::add(&self.context.counters().duplicate_batches, 1);
                let (base_offset, last_offset) = (w.base_offset, w.last_offset);
                run.results.push(Ok(AppendInfo { base_offset, last_offset, duplicate: true }));
                return Ok(());
            }
            Err(error) => {
                run.results.push(Err(error.into()));
                return Ok(());
            }
        }
        let size = batch.size() as u64;
        if self.must_roll(state, run, size, batch.header(), now_ms) {
            self.write(state, run, now_ms)?;
            self.roll(state)?;
        }
        let batch = batch.stamped(run.next, leader_epoch);
        let header = *batch.header();
        if header.has_producer_id() {
            let producer = header.producer_id;
            run.before.entry(producer).or_insert_with(|| state.producers.get(producer).cloned());
            state.producers.record(&header, now_ms);
        }
        run.next = header.next_offset();
        run.pending_bytes += size;
        run.pending.push(Pending { header, data: batch.into_bytes() });
        let (base_offset, last_offset) = (header.base_offset, header.last_offset());
        run.results.push(Ok(AppendInfo { base_offset, last_offset, duplicate: false }));
        Ok(())
    }

    fn must_roll(&self, state: &State, run: &Run, size: u64, header: &BatchHeader, now_ms: i64) -> bool {
        let written = state.active.size + run.pending_bytes;
        if written == 0 {
            return false;
        }
        let too_large = written + size > state.config.roll_bytes();
        let too_old = state.config.segment_ms >= 0
            && state.active.first_append.is_some_and(|t| now_ms.saturating_sub(t) >= state.config.segment_ms);
        // Index entries hold offsets relative to the base in 32 bits.
        let last = run.next.saturating_add(i64::from(header.last_offset_delta));
        let too_far = last - state.active.base > i64::from(i32::MAX);
        too_large || too_old || too_far
    }

    /// Writes what is pending. On an error all of it is undone, and its results say so.
    fn write(&self, state: &mut State, run: &mut Run, now_ms: i64) -> Result<()> {
        if run.pending.is_empty() {
            return Ok(());
        }
        state.saved = None;
        let pending = std::mem::take(&mut run.pending);
        let before = std::mem::take(&mut run.before);
        let bytes = std::mem::take(&mut run.pending_bytes);
        let buffers: Vec<&[u8]> = pending.iter().map(|p| &p.data[..]).collect();
        let written = write_all_at(&*state.active.file, &buffers, state.active.size)
            .map_err(|e| LogError::io("write", &state.active.path, e));
        if let Err(error) = written {
            run.next = state.end;
            before.into_iter().for_each(|(id, producer)| state.producers.restore(id, producer));
            state.uncut = true;
            // Tried at once, so that the space is free again; insisted on before the next append.
            if let Err(error) = self.cut_back(state) {
                tracing::error!(partition = %self.id, %error, "could not cut back a failed append");
            }
            // Replays of batches that were pending point at offsets that never came to be.
            for result in &mut run.results {
                if matches!(result, Ok(info) if info.last_offset >= state.end) {
                    *result = Err(error.clone().into());
                }
            }
            return Err(error);
        }
        let counters = self.context.counters();
        LogCounters::add(&counters.appended_batches, pending.len() as u64);
        LogCounters::add(&counters.appended_bytes, bytes);
        for Pending { header, data } in pending {
            state.active.note(&header, now_ms, state.config.index_interval_bytes);
            state.tail.push(header.base_offset, header.next_offset(), data, now_ms);
        }
        state.end = run.next;
        self.flush.appended(state.active.size, state.end, bytes);
        Ok(())
    }

    /// Removes what a failed write left behind the end.
    pub(super) fn cut_back(&self, state: &mut State) -> Result<()> {
        if state.uncut {
            let (active, size) = (&state.active, state.active.size);
            active.file.truncate(size).map_err(|e| LogError::io("truncate", &active.path, e))?;
            state.uncut = false;
        }
        Ok(())
    }
}
