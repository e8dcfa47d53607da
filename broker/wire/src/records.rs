//! The records within a batch, parsed lazily.
//!
//! **Invariant:** keys, values and headers are slices of the (decompressed) batch; the iterator yields exactly the
//! announced number of records, or ends with an error.

use bytes::Bytes;
use bytestring::ByteString;

use crate::batch::{BatchError, BatchHeader};
use crate::error::{Result, WireError};
use crate::reader::Reader;

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    pub offset: i64,
    /// Milliseconds since 1970; the time of append where the batch says so.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

/// One header of a record. Keys may repeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    pub key: ByteString,
    pub value: Option<Bytes>,
}

impl Record {
    /// The last header with this key.
    pub fn header(&self, key: &str) -> Option<&Header> {
        self.headers.iter().rev().find(|h| &*h.key == key)
    }
}

/// Iterates over the records of one batch.
#[derive(Debug, Clone)]
pub struct Records {
    reader: Reader,
    base_offset: i64,
    base_timestamp: i64,
    /// The timestamp of every record, where the broker set it.
    append_time: Option<i64>,
    last_offset_delta: i32,
    next_index: i32,
    count: i32,
}

impl Records {
    /// Over the decompressed `payload` of the batch with this header.
    pub(crate) fn new(header: &BatchHeader, payload: Bytes) -> Self {
        Self {
            reader: Reader::new(payload),
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time: header.is_log_append_time().then_some(header.max_timestamp),
            last_offset_delta: header.last_offset_delta,
            next_index: 0,
            count: header.record_count,
        }
    }

    fn record(&mut self) -> Result<Record> {
        let len = self.reader.varint()?;
        let len = usize::try_from(len).map_err(|_| WireError::InvalidLength(len.into()))?;
        let mut r = Reader::new(self.reader.take(len)?);
        let _attributes = r.i8()?;
        let timestamp_delta = r.varlong()?;
        let offset_delta = r.varint()?;
        if !(0..=self.last_offset_delta).contains(&offset_delta) {
            return Err(WireError::InvalidLength(offset_delta.into()));
        }
        let key = var_bytes(&mut r)?;
        let value = var_bytes(&mut r)?;
        let headers = headers(&mut r)?;
        r.finish()?;
        Ok(Record {
            offset: self.base_offset.saturating_add(offset_delta.into()),
            timestamp: self.append_time.unwrap_or(self.base_timestamp.saturating_add(timestamp_delta)),
            key,
            value,
            headers,
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next_index;
        if index >= self.count {
            return None;
        }
        self.next_index += 1;
        let mut record = self.record();
        if self.next_index == self.count && record.is_ok() {
            record = self.reader.finish().and(record);
        }
        if record.is_err() {
            self.next_index = self.count;
        }
        Some(record.map_err(|error| BatchError::Record { index, error }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, usize::try_from(self.count - self.next_index).ok())
    }
}

fn var_bytes(r: &mut Reader) -> Result<Option<Bytes>> {
    match r.varint()? {
        -1 => Ok(None),
        len => {
            let len = usize::try_from(len).map_err(|_| WireError::InvalidLength(len.into()))?;
            r.take(len).map(Some)
        }
    }
}

fn headers(r: &mut Reader) -> Result<Vec<Header>> {
    let len = r.varint()?;
    let len = usize::try_from(len).map_err(|_| WireError::InvalidLength(len.into()))?;
    // A header takes at least two bytes.
    if len > r.remaining() / 2 {
        return Err(WireError::ArrayTooLong { len, left: r.remaining() });
    }
    r.claim::<Header>(len)?;
    let mut headers = Vec::new();
    for _ in 0..len {
        let key = var_bytes(r)?.ok_or(WireError::UnexpectedNull("header key"))?;
        let key = ByteString::try_from(key).map_err(|_| WireError::NotUtf8)?;
        headers.push(Header { key, value: var_bytes(r)? });
    }
    Ok(headers)
}
