//! The magic-2 record batch: a checked view over its bytes, and the few fields that are changed in place.
//!
//! ```text
//!  0 base offset i64 │ 8 batch length i32 │ 12 leader epoch i32 │ 16 magic i8 │ 17 crc u32 │ 21 attributes i16
//! 23 last offset delta i32 │ 27 base timestamp i64 │ 35 max timestamp i64 │ 43 producer id i64
//! 51 producer epoch i16 │ 53 base sequence i32 │ 57 record count i32 │ 61 records …
//! ```
//!
//! The batch length counts from byte 12, the CRC-32C covers byte 21 to the end. Base offset and leader epoch lie
//! outside of it, so a broker stamps them without touching the rest.
//!
//! **Invariant:** a [`RecordBatch`] holds exactly one batch whose length, magic and counts fit its bytes.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::compression::Compression;
use crate::error::WireError;
use crate::records::Records;

/// Bytes before the first record.
pub const HEADER_LEN: usize = 61;
/// Bytes that the batch length does not count: base offset and the length itself.
pub const LENGTH_PREFIX: usize = 12;
/// Bytes a broker stamps: base offset, length, leader epoch.
pub const STAMP_LEN: usize = 16;
/// The only record format served.
pub const MAGIC: i8 = 2;
/// "No producer id", "no leader epoch", "no sequence", "no timestamp".
pub const NONE: i64 = -1;

const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;

/// Why bytes are not a valid record batch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The bytes end within the batch: a torn tail in a log, a cut answer in a fetch.
    #[error("batch is incomplete: `{needed}` bytes needed, `{have}` there")]
    Incomplete { needed: usize, have: usize },
    #[error("invalid batch length `{0}`")]
    Length(i32),
    #[error("record format `{0}` is not supported, only 2 is")]
    Magic(i8),
    #[error("batch is corrupt: its CRC is `{stored:08x}`, its bytes give `{computed:08x}`")]
    Crc { stored: u32, computed: u32 },
    #[error("unknown compression codec `{0}`")]
    Codec(u8),
    #[error("batch announces `{count}` records and last offset delta `{last_offset_delta}`")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("batch must not be sent by a producer: {0}")]
    NotProducible(&'static str),
    #[error("record `{index}` of the batch is corrupt: {error}")]
    Record { index: i32, error: WireError },
    #[error("{codec} data is corrupt: {reason}")]
    Decompression { codec: &'static str, reason: String },
    #[error("batch decompresses to more than `{limit}` bytes")]
    TooLarge { limit: usize },
    #[error("batch of `{0}` bytes cannot be built, its length does not fit 31 bits")]
    TooLong(usize),
}

/// The fixed fields of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Bytes of the batch after this field.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    /// Timestamp of the first record, or the delete horizon where [`Self::has_delete_horizon`].
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads and checks the header at the start of `bytes`; the records need not be there.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(h) = bytes.first_chunk::<HEADER_LEN>() else {
            // Magic 0 and 1 batches may be shorter than a magic-2 header: say what is wrong with them.
            return match bytes.get(16) {
                Some(&magic) if magic as i8 != MAGIC => Err(BatchError::Magic(magic as i8)),
                _ => Err(BatchError::Incomplete { needed: HEADER_LEN, have: bytes.len() }),
            };
        };
        let magic = h[16] as i8;
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let header = Self {
            base_offset: i64::from_be_bytes(at(h, 0)),
            batch_length: i32::from_be_bytes(at(h, 8)),
            partition_leader_epoch: i32::from_be_bytes(at(h, 12)),
            crc: u32::from_be_bytes(at(h, CRC_AT)),
            attributes: i16::from_be_bytes(at(h, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(at(h, 23)),
            base_timestamp: i64::from_be_bytes(at(h, 27)),
            max_timestamp: i64::from_be_bytes(at(h, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(at(h, 43)),
            producer_epoch: i16::from_be_bytes(at(h, 51)),
            base_sequence: i32::from_be_bytes(at(h, 53)),
            record_count: i32::from_be_bytes(at(h, 57)),
        };
        if (header.batch_length as i64) < (HEADER_LEN - LENGTH_PREFIX) as i64 {
            return Err(BatchError::Length(header.batch_length));
        }
        let (count, last_offset_delta) = (header.record_count, header.last_offset_delta);
        // Compaction leaves fewer records than offsets, never more, and may leave none.
        if count < 0 || last_offset_delta < 0 || i64::from(count) > i64::from(last_offset_delta) + 1 {
            return Err(BatchError::Count { count, last_offset_delta });
        }
        Ok(header)
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        // Positive since `parse` checked it.
        LENGTH_PREFIX + self.batch_length.max(0) as usize
    }

    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(self.last_offset_delta.into())
    }

    /// The offset after the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_id((self.attributes & CODEC_MASK) as u8)
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Control batches hold transaction markers; consumers pass over them.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Compaction put the time after which tombstones go into `base_timestamp`.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id >= 0
    }

    /// Sequence of the last record; sequences wrap from 2³¹−1 to 0. `-1` without a producer.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }
}

/// One record batch: its header and all its bytes. Clones share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl RecordBatch {
    /// Cuts one batch from the front of `buf` and checks everything but its records. `buf` stays as it was on error.
    pub fn parse(buf: &mut Bytes) -> Result<Self, BatchError> {
        let batch = Self::peek(buf)?;
        batch.check_crc()?;
        let _taken = buf.split_to(batch.size());
        Ok(batch)
    }

    /// Like [`Self::parse`], without the CRC: for bytes that were checked when they came in.
    pub fn parse_trusted(buf: &mut Bytes) -> Result<Self, BatchError> {
        let batch = Self::peek(buf)?;
        let _taken = buf.split_to(batch.size());
        Ok(batch)
    }

    fn peek(buf: &Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(buf)?;
        if buf.len() < header.size() {
            return Err(BatchError::Incomplete { needed: header.size(), have: buf.len() });
        }
        header.compression()?;
        Ok(Self { header, bytes: buf.slice(..header.size()) })
    }

    /// Whether the stored CRC fits the bytes.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(&self.bytes[CRC_FROM..]);
        if computed != self.header.crc {
            return Err(BatchError::Crc { stored: self.header.crc, computed });
        }
        Ok(())
    }

    /// The rules for a batch that a producer sends: dense offsets, not empty, no control batch, and producer fields
    /// that belong together.
    pub fn check_produced(&self) -> Result<(), BatchError> {
        let h = &self.header;
        let (count, last_offset_delta) = (h.record_count, h.last_offset_delta);
        if count < 1 || last_offset_delta != count - 1 {
            return Err(BatchError::Count { count, last_offset_delta });
        }
        if h.is_control() {
            return Err(BatchError::NotProducible("control batches are written by brokers only"));
        }
        if h.has_delete_horizon() {
            return Err(BatchError::NotProducible("only compaction sets a delete horizon"));
        }
        if h.has_producer_id() && (h.producer_epoch < 0 || h.base_sequence < 0) {
            return Err(BatchError::NotProducible("producer id without epoch or sequence"));
        }
        if h.is_transactional() && !h.has_producer_id() {
            return Err(BatchError::NotProducible("transactional without a producer id"));
        }
        Ok(())
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes of the batch, as they stand on the wire and on disk.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The first 16 bytes with base offset and leader epoch stamped, for a vectored write in front of
    /// `bytes().slice(STAMP_LEN..)`: nothing is copied although the frame is shared.
    pub fn stamped_prefix(&self, base_offset: i64, leader_epoch: i32) -> [u8; STAMP_LEN] {
        let mut prefix = [0; STAMP_LEN];
        prefix.copy_from_slice(&self.bytes[..STAMP_LEN]);
        stamp(&mut prefix, base_offset, leader_epoch);
        prefix
    }

    /// The batch with base offset and leader epoch stamped: in place when nobody else holds the bytes.
    pub fn stamped(mut self, base_offset: i64, leader_epoch: i32) -> Self {
        let mut bytes = self.bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        stamp(&mut bytes, base_offset, leader_epoch);
        self.bytes = bytes.freeze();
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = leader_epoch;
        self
    }

    /// The batch with the time of append as the timestamp of all its records.
    pub fn with_log_append_time(mut self, timestamp: i64) -> Self {
        let mut bytes = self.bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        self.header.crc = set_log_append_time(&mut bytes, timestamp);
        self.header.attributes |= LOG_APPEND_TIME;
        self.header.max_timestamp = timestamp;
        self.bytes = bytes.freeze();
        self
    }

    /// The records, decompressed into at most `limit` bytes and parsed one by one.
    pub fn records(&self, limit: usize) -> Result<Records, BatchError> {
        let payload = self.header.compression()?.decompress(&self.bytes.slice(HEADER_LEN..), limit)?;
        Ok(Records::new(&self.header, payload))
    }
}

/// Stamps base offset and leader epoch into the batch at the start of `bytes` (at least [`STAMP_LEN`] of it).
/// Both lie outside of the CRC.
pub fn stamp(bytes: &mut [u8], base_offset: i64, leader_epoch: i32) {
    bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Makes one whole batch carry its time of append, and returns its new CRC.
pub fn set_log_append_time(batch: &mut [u8], timestamp: i64) -> u32 {
    let attributes = i16::from_be_bytes([batch[ATTRIBUTES_AT], batch[ATTRIBUTES_AT + 1]]) | LOG_APPEND_TIME;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&timestamp.to_be_bytes());
    write_crc(batch)
}

/// Writes the CRC of one whole batch, and returns it.
pub(crate) fn write_crc(batch: &mut [u8]) -> u32 {
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    crc
}

/// The attributes of a batch to be written.
pub(crate) fn attributes(
    codec: Compression,
    transactional: bool,
    control: bool,
    delete_horizon: bool,
) -> i16 {
    let flag = |on: bool, bit: i16| if on { bit } else { 0 };
    codec as i16
        | flag(transactional, TRANSACTIONAL)
        | flag(control, CONTROL)
        | flag(delete_horizon, DELETE_HORIZON)
}

fn at<const N: usize>(header: &[u8; HEADER_LEN], from: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&header[from..from + N]);
    field
}

/// The batches that stand one after the other in a buffer. Ends after the first error; a last batch that is cut off,
/// as in the answer to a fetch, is [`BatchError::Incomplete`].
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = RecordBatch::parse(&mut self.rest);
        if batch.is_err() {
            self.rest.clear();
        }
        Some(batch)
    }
}

#[cfg(test)]
mod tests;
