//! The last offset of each key, and of each producer, in the dirty part of a log, as far as memory allows.

use std::collections::HashMap;

use aqueduct_wire::compression::MAX_DECOMPRESSED;
use aqueduct_wire::{Record, RecordBatch};
use bytes::Bytes;

use crate::batch_scan::Step;
use crate::error::{LogError, Result};
use crate::segment::Sealed;

/// What an entry costs beside its key.
const OVERHEAD: usize = 64;

#[derive(Debug)]
pub(super) struct KeyMap {
    offsets: HashMap<Box<[u8]>, i64>,
    /// The last offset of each producer in the dirty part.
    producers: HashMap<i64, i64>,
    bytes: usize,
    end: i64,
}

impl KeyMap {
    /// Reads the batches from `start` on until the keys take more than `max_bytes`, at least one batch.
    pub(super) fn build(segments: &[(Sealed, i64)], start: i64, max_bytes: usize) -> Result<Self> {
        let (offsets, producers) = Default::default();
        let mut map = Self { offsets, producers, bytes: 0, end: start };
        for (segment, segment_end) in segments.iter().filter(|(_, end)| *end > start) {
            let mut scan = segment.scan(segment.position_for(start), true)?;
            loop {
                match scan.step()? {
                    Step::Batch { header, bytes, .. } if header.last_offset() >= start => {
                        if let Some(records) = decode(bytes).filter(|_| !header.is_control()) {
                            records.into_iter().for_each(|r| map.insert(r));
                        }
                        if header.has_producer_id()
                            && map.producers.insert(header.producer_id, header.last_offset()).is_none()
                        {
                            map.bytes += OVERHEAD;
                        }
                        map.end = header.next_offset();
                        if map.bytes > max_bytes {
                            return Ok(map);
                        }
                    }
                    Step::Batch { .. } => {}
                    Step::End => break,
                    Step::Broken { position, what } => {
                        return Err(LogError::corrupt(&segment.path, position, what));
                    }
                }
            }
            map.end = *segment_end;
        }
        Ok(map)
    }

    fn insert(&mut self, record: Record) {
        let Some(key) = record.key else { return };
        match self.offsets.get_mut(&key[..]) {
            Some(offset) => *offset = record.offset,
            None => {
                self.bytes += key.len() + OVERHEAD;
                self.offsets.insert(key[..].into(), record.offset);
            }
        }
    }

    /// The map knows everything from the dirty start to here.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// The last offset of a producer between the dirty start and [`Self::end`].
    pub(super) fn last_of(&self, producer_id: i64) -> Option<i64> {
        self.producers.get(&producer_id).copied()
    }

    /// Whether a later record with the same key is known. Records without a key are never superseded.
    pub(super) fn supersedes(&self, record: &Record) -> bool {
        let last = record.key.as_ref().and_then(|key| self.offsets.get(&key[..]));
        last.is_some_and(|last| record.offset < *last)
    }
}

/// All records of a batch; `None` when they cannot be decoded: such a batch is kept as it is.
pub(super) fn decode(batch: &[u8]) -> Option<Vec<Record>> {
    let batch = RecordBatch::parse_trusted(&mut Bytes::copy_from_slice(batch)).ok()?;
    let records = batch.records(MAX_DECOMPRESSED).and_then(Iterator::collect);
    match records {
        Ok(records) => Some(records),
        Err(error) => {
            let offset = batch.header().base_offset;
            tracing::warn!(offset, %error, "compaction keeps a batch it cannot read");
            None
        }
    }
}
