//! Writes Kafka's primitive types into a frame, and keeps record bytes out of it.
//!
//! **Invariant:** record bytes given to [`Writer::records`] are never copied: the frame remembers where they belong
//! and hands everything out as a list of chunks for one vectored write.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::error::{Result, WireError};
use crate::record_set::RecordSet;

/// Collects one message.
#[derive(Debug, Default)]
pub struct Writer {
    buf: BytesMut,
    /// Chunks to be put in before the byte of `buf` at the given position.
    inserts: Vec<(usize, Bytes)>,
    inserted: usize,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes written so far, records included.
    pub fn len(&self) -> usize {
        self.buf.len() + self.inserted
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bool(&mut self, value: bool) {
        self.buf.put_u8(value.into());
    }

    pub fn i8(&mut self, value: i8) {
        self.buf.put_i8(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.buf.put_i16(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.buf.put_u16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.buf.put_i32(value);
    }

    pub fn u32(&mut self, value: u32) {
        self.buf.put_u32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.buf.put_i64(value);
    }

    pub fn f64(&mut self, value: f64) {
        self.buf.put_f64(value);
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.buf.put_u128(value.as_u128());
    }

    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buf.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    fn compact_len(&mut self, len: usize) -> Result<()> {
        let len = u32::try_from(len).ok().and_then(|n| n.checked_add(1)).ok_or(WireError::TooLong(len))?;
        self.uvarint(len);
        Ok(())
    }

    /// The length of bytes or an array.
    fn long_len(&mut self, len: usize, flexible: bool) -> Result<()> {
        if flexible {
            return self.compact_len(len);
        }
        self.i32(i32::try_from(len).map_err(|_| WireError::TooLong(len))?);
        Ok(())
    }

    pub fn string(&mut self, value: &str, flexible: bool) -> Result<()> {
        if flexible {
            self.compact_len(value.len())?;
        } else {
            self.i16(i16::try_from(value.len()).map_err(|_| WireError::TooLong(value.len()))?);
        }
        self.buf.put_slice(value.as_bytes());
        Ok(())
    }

    pub fn bytes(&mut self, value: &[u8], flexible: bool) -> Result<()> {
        self.long_len(value.len(), flexible)?;
        self.buf.put_slice(value);
        Ok(())
    }

    /// The mark of a null string.
    pub fn null_string(&mut self, flexible: bool) {
        if flexible { self.uvarint(0) } else { self.i16(-1) }
    }

    /// The mark of null bytes, records or array.
    pub fn null(&mut self, flexible: bool) {
        if flexible { self.uvarint(0) } else { self.i32(-1) }
    }

    /// The mark of a null structure.
    pub fn null_struct(&mut self) {
        self.i8(-1);
    }

    /// The mark before a structure that could have been null.
    pub fn some_struct(&mut self) {
        self.i8(1);
    }

    /// Record batches, kept as the chunks they are.
    pub fn records(&mut self, value: &RecordSet, flexible: bool) -> Result<()> {
        self.long_len(value.len(), flexible)?;
        for chunk in value.chunks().iter().filter(|c| !c.is_empty()) {
            self.inserted += chunk.len();
            self.inserts.push((self.buf.len(), chunk.clone()));
        }
        Ok(())
    }

    pub fn array<T>(
        &mut self,
        elements: &[T],
        flexible: bool,
        mut element: impl FnMut(&mut Self, &T) -> Result<()>,
    ) -> Result<()> {
        self.long_len(elements.len(), flexible)?;
        elements.iter().try_for_each(|e| element(self, e))
    }

    /// One tagged field: its tag, its size, its bytes.
    pub fn tagged(&mut self, tag: u32, value: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut inner = Self::new();
        value(&mut inner)?;
        self.uvarint(tag);
        let len = inner.len();
        self.uvarint(u32::try_from(len).map_err(|_| WireError::TooLong(len))?);
        // No tagged field of Kafka's holds records; if one did, they would be copied here.
        for chunk in inner.into_chunks() {
            self.buf.put_slice(&chunk);
        }
        Ok(())
    }

    /// Everything written, in order.
    pub fn into_chunks(mut self) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(2 * self.inserts.len() + 1);
        let mut done = 0;
        for (at, records) in std::mem::take(&mut self.inserts) {
            if at > done {
                chunks.push(self.buf.split_to(at - done).freeze());
                done = at;
            }
            chunks.push(records);
        }
        if !self.buf.is_empty() {
            chunks.push(self.buf.freeze());
        }
        chunks
    }

    /// Everything written, as one piece.
    pub fn into_bytes(self) -> Bytes {
        if self.inserts.is_empty() {
            return self.buf.freeze();
        }
        let mut whole = BytesMut::with_capacity(self.len());
        for chunk in self.into_chunks() {
            whole.put_slice(&chunk);
        }
        whole.freeze()
    }

    /// Overwrites four bytes written before any records, as the size in front of a frame.
    pub(crate) fn patch_i32(&mut self, at: usize, value: i32) {
        self.buf[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
}
