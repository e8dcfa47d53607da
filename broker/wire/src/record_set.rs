//! The record batches of one partition in a Produce request or a Fetch response.
//!
//! **Invariant:** the bytes stay where they are; putting several pieces together copies nothing.

use bytes::{Bytes, BytesMut};

use crate::batch::Batches;

/// Consecutive pieces that together are whole batches (or, in a fetch answer, end within one).
#[derive(Debug, Clone)]
pub enum RecordSet {
    /// As decoded: a slice of the frame.
    One(Bytes),
    /// As served: tail-cache entries, stamped prefixes, file reads.
    Many(Vec<Bytes>),
}

impl RecordSet {
    pub const EMPTY: Self = Self::One(Bytes::new());

    /// The pieces in order.
    pub fn chunks(&self) -> &[Bytes] {
        match self {
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Many(chunks) => chunks,
        }
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.chunks().iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One contiguous piece; copies only where there are several.
    pub fn to_bytes(&self) -> Bytes {
        match self.chunks() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let mut whole = BytesMut::with_capacity(self.len());
                many.iter().for_each(|chunk| whole.extend_from_slice(chunk));
                whole.freeze()
            }
        }
    }

    /// The batches, checked one by one.
    pub fn batches(&self) -> Batches {
        Batches::new(self.to_bytes())
    }
}

impl Default for RecordSet {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Equal when the bytes are, however they are cut.
impl PartialEq for RecordSet {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.chunks().iter().flatten().eq(other.chunks().iter().flatten())
    }
}

impl From<Bytes> for RecordSet {
    fn from(bytes: Bytes) -> Self {
        Self::One(bytes)
    }
}

impl From<Vec<Bytes>> for RecordSet {
    fn from(chunks: Vec<Bytes>) -> Self {
        Self::Many(chunks)
    }
}
