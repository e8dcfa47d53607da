//! A deterministic source of values for the tests of the messages.

use bytes::Bytes;
use bytestring::ByteString;
use uuid::Uuid;

use crate::record_set::RecordSet;

/// A message, or a part of one, with only the fields of a version filled in.
pub(crate) trait Sample {
    fn sample(s: &mut Source, version: i16) -> Self;
}

/// Values that follow from a seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Source(u64);

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Small values and extremes are more likely than chance would have them.
    pub(crate) fn i64(&mut self) -> i64 {
        match self.below(6) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => self.below(300) as i64,
            _ => self.next() as i64,
        }
    }

    pub(crate) fn i8(&mut self) -> i8 {
        self.i64() as i8
    }

    pub(crate) fn i16(&mut self) -> i16 {
        self.i64() as i16
    }

    pub(crate) fn i32(&mut self) -> i32 {
        self.i64() as i32
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        if self.below(4) == 0 { Uuid::nil() } else { Uuid::from_u64_pair(self.next(), self.next()) }
    }

    pub(crate) fn bytes(&mut self) -> Bytes {
        let len = if self.below(10) == 0 { self.below(300) } else { self.below(6) };
        (0..len).map(|_| self.next() as u8).collect()
    }

    pub(crate) fn string(&mut self) -> ByteString {
        let len = if self.below(10) == 0 { self.below(300) } else { self.below(6) };
        let text: String = (0..len).map(|_| ['a', 'Z', '-', 'ß', '水'][self.below(5) as usize]).collect();
        text.into()
    }

    pub(crate) fn records(&mut self) -> RecordSet {
        if self.bool() { self.bytes().into() } else { vec![self.bytes(), self.bytes(), self.bytes()].into() }
    }

    pub(crate) fn array<T>(&mut self, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| element(self)).collect()
    }

    pub(crate) fn optional<T>(&mut self, may_be_null: bool, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if may_be_null && self.below(3) == 0 { None } else { Some(value(self)) }
    }
}
