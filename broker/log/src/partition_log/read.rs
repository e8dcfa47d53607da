//! Reading: recent batches from memory, older ones from the files, timestamps by way of the indexes.

use std::sync::Arc;

use aqueduct_wire::RecordBatch;
use aqueduct_wire::compression::MAX_DECOMPRESSED;
use bytes::{Bytes, BytesMut};

use super::{PartitionLog, State};
use crate::batch_scan::Step;
use crate::error::{LogError, Result};
use crate::log_config::LogCounters;
use crate::segment::{Extent, Sealed};

/// Whole batches, the first of which holds or follows the asked offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// To be sent one after the other.
    pub chunks: Vec<Bytes>,
    pub bytes: usize,
    /// The offset after the last batch; the asked offset when there is none.
    pub next_offset: i64,
}

/// More small chunks than this are copied together: a vectored write of tiny pieces costs more than the copy.
const MANY_CHUNKS: usize = 64;
const SMALL_CHUNK: usize = 1024;

enum Source {
    Active(Option<(i64, u64)>),
    Sealed(Sealed),
}

impl PartitionLog {
    /// Batches from `offset` on that end below `up_to`: up to `max_bytes`, but at least one. Answers from memory;
    /// `None` when the files must be read, with [`Self::read`].
    pub fn read_tail(&self, offset: i64, max_bytes: usize, up_to: i64) -> Result<Option<Fetched>> {
        let state = self.state.lock();
        self.check_offset(&state, offset)?;
        if offset >= up_to.min(state.end) {
            return Ok(Some(Fetched { next_offset: offset, ..Fetched::default() }));
        }
        let Some((chunks, next_offset)) = state.tail.read(offset, max_bytes, up_to) else { return Ok(None) };
        drop(state);
        let bytes = chunks.iter().map(Bytes::len).sum();
        LogCounters::add(&self.context.counters().read_bytes_tail, bytes as u64);
        Ok(Some(Fetched { chunks: join_small(chunks, bytes), bytes, next_offset }))
    }

    /// As [`Self::read_tail`], and reads the files where that has nothing.
    pub fn read(&self, offset: i64, max_bytes: usize, up_to: i64) -> Result<Fetched> {
        if let Some(fetched) = self.read_tail(offset, max_bytes, up_to)? {
            return Ok(fetched);
        }
        let mut at = offset;
        loop {
            let Some((source, mut extent, next_base)) = self.locate(at, up_to)? else {
                return Ok(Fetched { next_offset: offset, ..Fetched::default() });
            };
            extent.hint(match &source {
                Source::Active(hint) => *hint,
                Source::Sealed(segment) => segment.index.lookup(segment.base, at).ok().flatten(),
            });
            let read = extent.read(&self.context.buffers, at, max_bytes, up_to);
            let (data, next_offset) = read.map_err(|e| self.classify(&e))?;
            if !data.is_empty() {
                let bytes = data.len();
                LogCounters::add(&self.context.counters().read_bytes_disk, bytes as u64);
                return Ok(Fetched { chunks: vec![data], bytes, next_offset });
            }
            // Compaction may have left nothing of the rest of this segment.
            match next_base {
                Some(base) if base < up_to => at = base,
                _ => return Ok(Fetched { next_offset: offset, ..Fetched::default() }),
            }
        }
    }

    /// The first record with a timestamp of at least `timestamp`: its offset and timestamp (ListOffsets).
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>> {
        self.check_times(|_, _| true)?;
        for segment in self.segments_since(timestamp)? {
            let from = segment.offset_since(timestamp).max(self.start_offset());
            let mut scan = segment.scan(segment.position_for(from), false)?;
            loop {
                match scan.step()? {
                    Step::End => break,
                    Step::Broken { position, what } => {
                        return Err(self.classify(&LogError::corrupt(&segment.path, position, what)));
                    }
                    Step::Batch { header, position, bytes } => {
                        if header.max_timestamp < timestamp || header.last_offset() < from {
                            continue;
                        }
                        let found = first_since(bytes, from, timestamp)
                            .map_err(|e| LogError::corrupt(&segment.path, position, e));
                        if let Some(found) = found.map_err(|e| self.classify(&e))? {
                            return Ok(Some(found));
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    /// The offset and timestamp of the batch with the largest timestamp (ListOffsets −3).
    pub fn max_timestamp(&self) -> Result<Option<(i64, i64)>> {
        self.check_times(|_, _| true)?;
        let largest = {
            let state = self.state.lock();
            let all = state.sealed.iter().map(|s| s.max_timestamp).chain([state.active.max_timestamp()]);
            all.flatten().map(|(timestamp, _)| timestamp).max()
        };
        largest.map_or(Ok(None), |timestamp| self.offset_for_timestamp(timestamp))
    }

    fn check_offset(&self, state: &State, offset: i64) -> Result<()> {
        self.context.health().check()?;
        if let Some(failed) = &state.failed {
            return Err(failed.clone());
        }
        if offset < state.start || offset > state.end {
            return Err(LogError::OffsetOutOfRange { offset, start: state.start, end: state.end });
        }
        Ok(())
    }

    /// The segment that holds `offset`, as it is now, and where the next one begins.
    fn locate(&self, offset: i64, up_to: i64) -> Result<Option<(Source, Extent, Option<i64>)>> {
        let state = self.state.lock();
        self.check_offset(&state, offset)?;
        if offset >= up_to.min(state.end) {
            return Ok(None);
        }
        let active = &state.active;
        if offset >= active.base {
            let (path, file) = (active.path.clone(), Arc::clone(&active.file));
            let extent = Extent { path, file, position: 0, end: active.size };
            return Ok(Some((Source::Active(active.hint_for(offset)), extent, None)));
        }
        let at = state.sealed.partition_point(|s| s.base <= offset).saturating_sub(1);
        let segment = state.sealed[at].pinned()?;
        let next = state.sealed.get(at + 1).map_or(active.base, |s| s.base);
        let (path, file) = (segment.path.clone(), segment.file.get()?);
        let extent = Extent { path, file, position: 0, end: segment.size };
        Ok(Some((Source::Sealed(segment), extent, Some(next))))
    }

    /// Segments that hold something at least as new.
    fn segments_since(&self, timestamp: i64) -> Result<Vec<Sealed>> {
        let state = self.state.lock();
        self.check_offset(&state, state.start)?;
        let newer = |max: Option<(i64, i64)>| max.is_some_and(|(max, _)| max >= timestamp);
        let sealed = state.sealed.iter().filter(|segment| newer(segment.max_timestamp));
        let mut found = sealed.map(Sealed::pinned).collect::<Result<Vec<_>>>()?;
        if newer(state.active.max_timestamp()) {
            found.push(state.active.frozen());
        }
        Ok(found)
    }

    /// A corrupt file takes the partition offline; a file that cannot be read is that request's bad luck.
    pub(crate) fn classify(&self, error: &LogError) -> LogError {
        match error {
            LogError::Corrupt { .. } => self.fail(error),
            other => other.clone(),
        }
    }
}

fn join_small(chunks: Vec<Bytes>, bytes: usize) -> Vec<Bytes> {
    if chunks.len() <= MANY_CHUNKS || bytes / chunks.len() >= SMALL_CHUNK {
        return chunks;
    }
    let mut joined = BytesMut::with_capacity(bytes);
    chunks.iter().for_each(|c| joined.extend_from_slice(c));
    vec![joined.freeze()]
}

/// The first record of a batch at or after `from` with at least this timestamp.
fn first_since(batch: &[u8], from: i64, timestamp: i64) -> Result<Option<(i64, i64)>, String> {
    let batch = RecordBatch::parse(&mut Bytes::copy_from_slice(batch)).map_err(|e| e.to_string())?;
    for record in batch.records(MAX_DECOMPRESSED).map_err(|e| e.to_string())? {
        let record = record.map_err(|e| e.to_string())?;
        if record.offset >= from && record.timestamp >= timestamp {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
