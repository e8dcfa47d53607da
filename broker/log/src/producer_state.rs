//! What idempotent producers have written: the last five batches of each producer id.
//!
//! Invariant: it is a function of the log's batches in order, so that it can be rebuilt from a snapshot plus the log and is cut
//! with the log. A batch counts only when it is in the log.

use std::collections::{HashMap, VecDeque};

use aqueduct_wire::BatchHeader;

use crate::checked_file::CheckedFile;

/// A replay of one of these many batches is recognised, because clients keep up to five in flight.
const REMEMBERED: usize = 5;
pub(crate) const SNAPSHOT: CheckedFile = CheckedFile::new(*b"AQPRODUC", 1);

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProducerStates {
    producers: HashMap<i64, Producer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    epoch: i16,
    /// When it last wrote, for expiry.
    last_seen: i64,
    /// The last offset it wrote, which compaction keeps a batch for.
    last_offset: i64,
    batches: VecDeque<Written>,
}

/// A batch that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
    pub last_offset: i64,
}

/// Why a batch of an idempotent producer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER
    #[error("producer `{producer_id}` sent sequence {found}, the log expects {expected}")]
    OutOfOrder { producer_id: i64, found: i32, expected: i32 },
    /// INVALID_PRODUCER_EPOCH
    #[error("producer `{producer_id}` sent epoch {found}, the log has seen {current}")]
    OldEpoch { producer_id: i64, found: i16, current: i16 },
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    Duplicate(Written),
}

/// Sequences run from 0 to 2³¹−1 and begin again.
pub(crate) fn sequence_after(sequence: i32, steps: i32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(steps)) & i64::from(i32::MAX);
    i32::try_from(sum).expect("masked to 31 bits")
}

impl ProducerStates {
    /// Decides about a batch before it is written. Batches without a producer id pass.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Verdict, SequenceError> {
        let Some(producer) = self.producers.get(&header.producer_id) else { return Ok(Verdict::Append) };
        let producer_id = header.producer_id;
        if header.producer_epoch < producer.epoch {
            let (found, current) = (header.producer_epoch, producer.epoch);
            return Err(SequenceError::OldEpoch { producer_id, found, current });
        }
        if header.is_control() {
            return Ok(Verdict::Append);
        }
        let found = header.base_sequence;
        if header.producer_epoch > producer.epoch {
            // A new epoch starts at 0.
            let error = SequenceError::OutOfOrder { producer_id, found, expected: 0 };
            return if found == 0 { Ok(Verdict::Append) } else { Err(error) };
        }
        let last_sequence = header.last_sequence();
        let same = |w: &&Written| w.first_sequence == found && w.last_sequence == last_sequence;
        if let Some(written) = producer.batches.iter().find(same) {
            return Ok(Verdict::Duplicate(*written));
        }
        let expected = producer.batches.back().map_or(0, |last| sequence_after(last.last_sequence, 1));
        if found == expected {
            return Ok(Verdict::Append);
        }
        Err(SequenceError::OutOfOrder { producer_id, found, expected })
    }

    /// Counts a batch that is in the log, with its final base offset.
    pub(crate) fn record(&mut self, header: &BatchHeader, seen: i64) {
        if header.producer_id < 0 {
            return;
        }
        let fresh = Producer {
            epoch: header.producer_epoch,
            last_seen: seen,
            last_offset: header.last_offset(),
            batches: VecDeque::new(),
        };
        let producer = self.producers.entry(header.producer_id).or_insert(fresh);
        if header.producer_epoch > producer.epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        producer.last_seen = producer.last_seen.max(seen);
        producer.last_offset = header.last_offset();
        if header.is_control() || header.base_sequence < 0 {
            return;
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Written {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
        });
    }

    /// The state of one producer, to restore it when a write fails.
    pub(crate) fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.producers.get(&producer_id)
    }

    pub(crate) fn restore(&mut self, producer_id: i64, before: Option<Producer>) {
        match before {
            Some(producer) => self.producers.insert(producer_id, producer),
            None => self.producers.remove(&producer_id),
        };
    }

    /// Forgets producers that have been silent since before `before`.
    pub(crate) fn expire(&mut self, before: i64) {
        self.producers.retain(|_, p| p.last_seen >= before);
    }

    /// The last offset of each producer.
    pub(crate) fn last_offsets(&self) -> HashMap<i64, i64> {
        self.producers.iter().map(|(id, p)| (*id, p.last_offset)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.producers.len()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut ids: Vec<_> = self.producers.iter().collect();
        ids.sort_by_key(|(id, _)| **id);
        let mut out = Vec::with_capacity(4 + ids.len() * 150);
        out.extend_from_slice(&(ids.len() as u64).to_be_bytes());
        for (id, producer) in ids {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&producer.epoch.to_be_bytes());
            out.extend_from_slice(&producer.last_seen.to_be_bytes());
            out.extend_from_slice(&producer.last_offset.to_be_bytes());
            out.push(u8::try_from(producer.batches.len()).expect("at most five"));
            for batch in &producer.batches {
                out.extend_from_slice(&batch.first_sequence.to_be_bytes());
                out.extend_from_slice(&batch.last_sequence.to_be_bytes());
                out.extend_from_slice(&batch.base_offset.to_be_bytes());
                out.extend_from_slice(&batch.last_offset.to_be_bytes());
            }
        }
        out
    }

    /// `None` when the bytes are no such state.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let count = u64::from_be_bytes(take(&mut bytes)?);
        let mut producers = HashMap::new();
        for _ in 0..count {
            let id = i64::from_be_bytes(take(&mut bytes)?);
            let epoch = i16::from_be_bytes(take(&mut bytes)?);
            let last_seen = i64::from_be_bytes(take(&mut bytes)?);
            let last_offset = i64::from_be_bytes(take(&mut bytes)?);
            let [written] = take(&mut bytes)?;
            let mut batches = VecDeque::new();
            for _ in 0..written {
                batches.push_back(Written {
                    first_sequence: i32::from_be_bytes(take(&mut bytes)?),
                    last_sequence: i32::from_be_bytes(take(&mut bytes)?),
                    base_offset: i64::from_be_bytes(take(&mut bytes)?),
                    last_offset: i64::from_be_bytes(take(&mut bytes)?),
                });
            }
            producers.insert(id, Producer { epoch, last_seen, last_offset, batches });
        }
        bytes.is_empty().then_some(Self { producers })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

#[cfg(test)]
mod tests;
