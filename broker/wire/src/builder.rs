//! Writes record batches: for internal topics, control records, compaction and tests.
//!
//! **Invariant:** what [`BatchBuilder::build`] returns passes [`crate::RecordBatch::parse`] and reads back as the
//! records that were pushed.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{self, BatchError, BatchHeader, HEADER_LEN, LENGTH_PREFIX, MAGIC};
use crate::compression::Compression;
use crate::records::{Header, Record};

/// Collects the records of one batch.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    compression: Compression,
    base_offset: i64,
    leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    transactional: bool,
    control: bool,
    delete_horizon: Option<i64>,
    /// Set by compaction, which keeps the offsets of removed records.
    last_offset_delta: Option<i32>,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    /// `Some` where the original had its append time: all records carry it.
    append_time: Option<i64>,
    count: i32,
    next_delta: i32,
    records: BytesMut,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty, uncompressed batch at offset 0 without a producer.
    pub fn new() -> Self {
        Self {
            compression: Compression::None,
            base_offset: 0,
            leader_epoch: -1,
            producer_id: batch::NONE,
            producer_epoch: -1,
            base_sequence: -1,
            transactional: false,
            control: false,
            delete_horizon: None,
            last_offset_delta: None,
            base_timestamp: None,
            max_timestamp: batch::NONE,
            append_time: None,
            count: 0,
            next_delta: 0,
            records: BytesMut::new(),
        }
    }

    /// A batch that takes the place of the one with this header: same offsets, producer, epoch, codec and kind of
    /// timestamp. Push the records to keep with [`Self::push`]; offsets may be sparse, and none at all is legal.
    pub fn rewrite(header: &BatchHeader) -> Result<Self, BatchError> {
        Ok(Self {
            compression: header.compression()?,
            base_offset: header.base_offset,
            leader_epoch: header.partition_leader_epoch,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            transactional: header.is_transactional(),
            control: header.is_control(),
            delete_horizon: header.has_delete_horizon().then_some(header.base_timestamp),
            last_offset_delta: Some(header.last_offset_delta),
            append_time: header.is_log_append_time().then_some(header.max_timestamp),
            // An empty batch keeps the times of the original; records raise them anew.
            max_timestamp: if header.is_log_append_time() { header.max_timestamp } else { batch::NONE },
            ..Self::new()
        })
    }

    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    #[must_use]
    pub fn base_offset(mut self, base_offset: i64) -> Self {
        self.base_offset = base_offset;
        self
    }

    #[must_use]
    pub fn leader_epoch(mut self, leader_epoch: i32) -> Self {
        self.leader_epoch = leader_epoch;
        self
    }

    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, base_sequence);
        self
    }

    #[must_use]
    pub fn transactional(mut self, transactional: bool) -> Self {
        self.transactional = transactional;
        self
    }

    /// Makes it a control batch (transaction markers).
    #[must_use]
    pub fn control(mut self, control: bool) -> Self {
        self.control = control;
        self
    }

    /// The time after which compaction may drop this batch's tombstones.
    #[must_use]
    pub fn delete_horizon(mut self, timestamp: i64) -> Self {
        self.delete_horizon = Some(timestamp);
        self
    }

    /// How many records were pushed.
    pub fn count(&self) -> usize {
        self.count.max(0) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch so far, before compression.
    pub fn size(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    /// Adds a record at the next offset.
    pub fn append(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) {
        self.write(self.next_delta, timestamp, key, value, headers);
    }

    /// Adds a record at its own offset, which must lie after those before it and not before the base offset.
    pub fn push(&mut self, record: &Record) {
        let delta = record.offset.saturating_sub(self.base_offset);
        let delta = i32::try_from(delta).unwrap_or(if delta < 0 { 0 } else { i32::MAX });
        debug_assert!(delta >= self.next_delta, "records are pushed in the order of their offsets");
        self.write(delta, record.timestamp, record.key.as_deref(), record.value.as_deref(), &record.headers);
    }

    fn write(
        &mut self,
        delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) {
        // With a delete horizon, deltas count from it: its field is the base timestamp's.
        let first = *self.base_timestamp.get_or_insert(timestamp);
        let base = self.delete_horizon.unwrap_or(first);
        let timestamp_delta = timestamp.wrapping_sub(base);
        let len = 1
            + varlong_len(timestamp_delta)
            + varlong_len(delta.into())
            + var_bytes_len(key)
            + var_bytes_len(value)
            + varlong_len(headers.len() as i64)
            + headers
                .iter()
                .map(|h| var_bytes_len(Some(h.key.as_bytes())) + var_bytes_len(h.value.as_deref()))
                .sum::<usize>();
        self.records.reserve(len + 5);
        put_varlong(&mut self.records, len as i64);
        self.records.put_i8(0);
        put_varlong(&mut self.records, timestamp_delta);
        put_varlong(&mut self.records, delta.into());
        put_var_bytes(&mut self.records, key);
        put_var_bytes(&mut self.records, value);
        put_varlong(&mut self.records, headers.len() as i64);
        for header in headers {
            put_var_bytes(&mut self.records, Some(header.key.as_bytes()));
            put_var_bytes(&mut self.records, header.value.as_deref());
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        self.next_delta = delta.saturating_add(1);
    }

    /// The bytes of the batch, ready for the wire and the disk.
    pub fn build(self) -> Result<Bytes, BatchError> {
        let codec = if self.count == 0 { Compression::None } else { self.compression };
        let payload = codec.compress(self.records.freeze())?;
        let size = HEADER_LEN + payload.len();
        let batch_length = i32::try_from(size - LENGTH_PREFIX).map_err(|_| BatchError::TooLong(size))?;
        let attributes =
            batch::attributes(codec, self.transactional, self.control, self.delete_horizon.is_some());
        let mut out = BytesMut::with_capacity(size);
        out.put_i64(self.base_offset);
        out.put_i32(batch_length);
        out.put_i32(self.leader_epoch);
        out.put_i8(MAGIC);
        out.put_u32(0);
        out.put_i16(attributes);
        out.put_i32(self.last_offset_delta.unwrap_or((self.next_delta - 1).max(0)));
        out.put_i64(self.delete_horizon.or(self.base_timestamp).unwrap_or(batch::NONE));
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.count);
        out.put_slice(&payload);
        match self.append_time {
            Some(timestamp) => batch::set_log_append_time(&mut out, timestamp),
            None => batch::write_crc(&mut out),
        };
        Ok(out.freeze())
    }
}

fn var_bytes_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |b| varlong_len(b.len() as i64) + b.len())
}

fn put_var_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}

fn varlong_len(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varlong(out: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}
