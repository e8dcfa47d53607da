//! Messages of the library, copied into one buffer per batch: two small allocations fewer for each record.

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::sink::Consumed;
use aqueduct_core::{Str, Topic};
use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::ConsumedRecord;

/// Most records in a batch.
const MAX_RECORDS: usize = 2_000;
/// Bytes after which a batch is handed over.
const MAX_BYTES: usize = 1 << 20;
/// Memory of a record beside its bytes, roughly.
const RECORD_OVERHEAD: usize = 160;
/// Most names kept for sharing.
const MAX_NAMES: usize = 64;

#[derive(Default)]
pub(super) struct Gather {
    buffer: BytesMut,
    pending: Vec<Pending>,
    /// Of the assignment under which each was read.
    epochs: Vec<u64>,
    bytes: usize,
    topics: Vec<Topic>,
    names: Vec<Str>,
}

struct Pending {
    topic: Topic,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Vec<(Str, Option<Range<usize>>)>,
}

impl Gather {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= MAX_RECORDS || self.bytes >= MAX_BYTES
    }

    /// Bytes that count against the budget.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, message: &BorrowedMessage<'_>, epoch: u64) {
        let before = self.buffer.len();
        let key = message.key().map(|bytes| self.copy(bytes));
        let value = message.payload().map(|bytes| self.copy(bytes));
        let mut headers = Vec::new();
        if let Some(given) = message.headers() {
            headers.reserve_exact(given.count());
            for header in given.iter() {
                let value = header.value.map(|bytes| self.copy(bytes));
                headers.push((self.name(header.key), value));
            }
        }
        self.bytes += self.buffer.len() - before + RECORD_OVERHEAD;
        let topic = self.topic(message.topic());
        self.epochs.push(epoch);
        self.pending.push(Pending {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key,
            value,
            headers,
        });
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        start..self.buffer.len()
    }

    fn topic(&mut self, name: &str) -> Topic {
        if let Some(known) = self.topics.iter().find(|known| &***known == name) {
            return Arc::clone(known);
        }
        if self.topics.len() >= MAX_NAMES {
            self.topics.clear();
        }
        let topic = Topic::from(name);
        self.topics.push(Arc::clone(&topic));
        topic
    }

    fn name(&mut self, name: &str) -> Str {
        if let Some(known) = self.names.iter().find(|known| &***known == name) {
            return known.clone();
        }
        if self.names.len() >= MAX_NAMES {
            self.names.clear();
        }
        let name = Str::from(name);
        self.names.push(name.clone());
        name
    }

    /// The records so far, and the epoch of each.
    pub(super) fn take(&mut self) -> (Vec<ConsumedRecord>, Vec<u64>) {
        let buffer = std::mem::take(&mut self.buffer).freeze();
        self.bytes = 0;
        let slice = |range: Range<usize>| -> Bytes { buffer.slice(range) };
        let records = self
            .pending
            .drain(..)
            .map(|pending| ConsumedRecord {
                topic: pending.topic,
                partition: pending.partition,
                offset: pending.offset,
                timestamp: pending.timestamp,
                consumed: Arc::new(Consumed {
                    key: pending.key.map(slice),
                    value: pending.value.map(slice),
                    headers: pending
                        .headers
                        .into_iter()
                        .map(|(name, value)| (name, value.map(slice)))
                        .collect(),
                }),
            })
            .collect();
        (records, std::mem::take(&mut self.epochs))
    }
}
