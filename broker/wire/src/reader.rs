//! A bounded reader of Kafka's primitive types over one frame.
//!
//! **Invariant:** a read either stays within the frame or is an error; strings and bytes are slices of the frame;
//! an array never reserves more memory up front than there are bytes left, and all arrays of a frame together hold no
//! more than the largest frame does.

use bytes::{Buf, Bytes};
use bytestring::ByteString;
use uuid::Uuid;

use crate::error::{Result, WireError};

/// The most that the elements of all arrays of a frame may take once they are read. An element of two bytes on the wire
/// can take a hundred in memory; real messages stay far below.
pub const MAX_ELEMENT_BYTES: usize = 100 << 20;

/// Reads the fields of one message in order.
#[derive(Debug, Clone)]
pub struct Reader {
    buf: Bytes,
    /// What further elements may take.
    room: usize,
}

impl Reader {
    /// Reads from the start of `frame`.
    pub fn new(frame: Bytes) -> Self {
        Self { buf: frame, room: MAX_ELEMENT_BYTES }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.buf.len()
    }

    /// The bytes left, without copying.
    pub fn into_rest(self) -> Bytes {
        self.buf
    }

    /// Fails when bytes are left over.
    pub fn finish(&self) -> Result<()> {
        if self.buf.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.buf.len())) }
    }

    fn need(&self, n: usize) -> Result<()> {
        if self.buf.len() < n {
            return Err(WireError::Truncated { needed: n, left: self.buf.len() });
        }
        Ok(())
    }

    /// The next `n` bytes as a slice of the frame.
    pub fn take(&mut self, n: usize) -> Result<Bytes> {
        self.need(n)?;
        Ok(self.buf.split_to(n))
    }

    /// Passes over `n` bytes.
    pub fn skip(&mut self, n: usize) -> Result<()> {
        self.need(n)?;
        self.buf.advance(n);
        Ok(())
    }

    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    pub fn i8(&mut self) -> Result<i8> {
        self.need(1)?;
        Ok(self.buf.get_i8())
    }

    pub fn i16(&mut self) -> Result<i16> {
        self.need(2)?;
        Ok(self.buf.get_i16())
    }

    pub fn u16(&mut self) -> Result<u16> {
        self.need(2)?;
        Ok(self.buf.get_u16())
    }

    pub fn i32(&mut self) -> Result<i32> {
        self.need(4)?;
        Ok(self.buf.get_i32())
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.need(4)?;
        Ok(self.buf.get_u32())
    }

    pub fn i64(&mut self) -> Result<i64> {
        self.need(8)?;
        Ok(self.buf.get_i64())
    }

    pub fn f64(&mut self) -> Result<f64> {
        self.need(8)?;
        Ok(self.buf.get_f64())
    }

    pub fn uuid(&mut self) -> Result<Uuid> {
        self.need(16)?;
        Ok(Uuid::from_u128(self.buf.get_u128()))
    }

    /// An unsigned varint of at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32> {
        let value = self.uvarlong_of(5)?;
        u32::try_from(value).map_err(|_| WireError::VarintTooLong)
    }

    /// A zigzag varint of at most 32 bits.
    pub fn varint(&mut self) -> Result<i32> {
        let v = self.uvarint()?;
        Ok((v >> 1) as i32 ^ -((v & 1) as i32))
    }

    /// A zigzag varint of at most 64 bits.
    pub fn varlong(&mut self) -> Result<i64> {
        let v = self.uvarlong_of(10)?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }

    fn uvarlong_of(&mut self, max_bytes: usize) -> Result<u64> {
        let mut value = 0u64;
        for (i, &byte) in self.buf.iter().take(max_bytes).enumerate() {
            // The tenth byte of a 64-bit value has room for one bit.
            if i == 9 && byte > 1 {
                return Err(WireError::VarintTooLong);
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.buf.advance(i + 1);
                return Ok(value);
            }
        }
        if self.buf.len() < max_bytes {
            return Err(WireError::Truncated { needed: self.buf.len() + 1, left: self.buf.len() });
        }
        Err(WireError::VarintTooLong)
    }

    /// The length of a string, bytes or array in its compact or its classic form; `None` is null.
    fn compact_len(&mut self) -> Result<Option<usize>> {
        Ok(self.uvarint()?.checked_sub(1).map(|n| n as usize))
    }

    fn classic_len(len: i64) -> Result<Option<usize>> {
        match len {
            -1 => Ok(None),
            n => usize::try_from(n).map(Some).map_err(|_| WireError::InvalidLength(n)),
        }
    }

    /// A string that may be null. `flexible` picks the compact form.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<ByteString>> {
        let len = if flexible { self.compact_len()? } else { Self::classic_len(self.i16()?.into())? };
        let Some(len) = len else { return Ok(None) };
        let bytes = self.take(len)?;
        ByteString::try_from(bytes).map(Some).map_err(|_| WireError::NotUtf8)
    }

    /// A string; null is an error that names `field`.
    pub fn string(&mut self, flexible: bool, field: &'static str) -> Result<ByteString> {
        self.nullable_string(flexible)?.ok_or(WireError::UnexpectedNull(field))
    }

    /// Bytes that may be null, as a slice of the frame.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>> {
        let len = if flexible { self.compact_len()? } else { Self::classic_len(self.i32()?.into())? };
        len.map(|len| self.take(len)).transpose()
    }

    /// Bytes; null is an error that names `field`.
    pub fn bytes(&mut self, flexible: bool, field: &'static str) -> Result<Bytes> {
        self.nullable_bytes(flexible)?.ok_or(WireError::UnexpectedNull(field))
    }

    /// Takes the memory of `len` elements from what the frame may hold.
    pub(crate) fn claim<T>(&mut self, len: usize) -> Result<()> {
        let room = len.checked_mul(size_of::<T>()).and_then(|bytes| self.room.checked_sub(bytes));
        self.room = room.ok_or(WireError::TooManyElements { limit: MAX_ELEMENT_BYTES })?;
        Ok(())
    }

    /// An array that may be null, element by element.
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let len = if flexible { self.compact_len()? } else { Self::classic_len(self.i32()?.into())? };
        let Some(len) = len else { return Ok(None) };
        let left = self.remaining();
        // Every element takes at least one byte.
        if len > left {
            return Err(WireError::ArrayTooLong { len, left });
        }
        self.claim::<T>(len)?;
        let mut elements = Vec::with_capacity(len.min(left / size_of::<T>().max(1)));
        for _ in 0..len {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// An array; null is an error that names `field`.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        field: &'static str,
        element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.nullable_array(flexible, element)?.ok_or(WireError::UnexpectedNull(field))
    }

    /// A structure that may be null.
    pub fn nullable_struct<T>(
        &mut self,
        structure: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<Option<T>> {
        if self.i8()? < 0 { Ok(None) } else { structure(self).map(Some) }
    }

    /// The tagged fields at the end of a flexible structure. `field` is given each tag with a reader over its bytes
    /// and returns without reading when it does not know the tag.
    pub fn tagged_fields(&mut self, mut field: impl FnMut(u32, &mut Self) -> Result<()>) -> Result<()> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let len = self.uvarint()? as usize;
            let mut value = Self { buf: self.take(len)?, room: self.room };
            field(tag, &mut value)?;
            self.room = value.room;
        }
        Ok(())
    }

    /// Passes over all tagged fields.
    pub fn skip_tagged_fields(&mut self) -> Result<()> {
        self.tagged_fields(|_, _| Ok(()))
    }
}
