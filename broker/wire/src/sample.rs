//! A deterministic source of values for the tests of the messages.

use bytes::Bytes;
use bytestring::ByteString;
use uuid::Uuid;

use crate::record_set::RecordSet;

/// A message, or a part of one, with only the fields of a version filled in.
pub(crate) trait Sample {
    fn sample(s: &mut Source, version: i16) -> Self;
}

/// Implements [`Sample`] for a structure: the versions of its fields, and those in which they may be null, where these
/// are not all.
macro_rules! sample {
    ($name:ident { $($field:ident $(in $present:expr)? $(; null in $null:expr)?),* }) => {
        impl Sample for $name {
            fn sample(s: &mut Source, _version: i16) -> Self {
                let default = Self::default();
                Self {
                    $($field: if true $(&& ($present).contains(&_version))? {
                        s.may_be_null(true $(&& ($null).contains(&_version))?);
                        Sample::sample(s, _version)
                    } else {
                        default.$field
                    },)*
                }
            }
        }
    };
}
pub(crate) use sample;

/// Values that follow from a seed (splitmix64).
#[derive(Debug)]
pub(crate) struct Source {
    state: u64,
    /// Whether the field that comes may be null.
    null: bool,
}

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, null: true }
    }

    pub(crate) fn may_be_null(&mut self, null: bool) {
        self.null = null;
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Small values and extremes are more likely than chance would have them.
    fn number(&mut self) -> i64 {
        match self.below(6) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => self.below(300) as i64,
            _ => self.next() as i64,
        }
    }

    fn len(&mut self) -> u64 {
        if self.below(10) == 0 { self.below(300) } else { self.below(6) }
    }
}

macro_rules! numbers {
    ($($number:ident)*) => {
        $(impl Sample for $number {
            fn sample(s: &mut Source, _version: i16) -> Self {
                s.number() as Self
            }
        })*
    };
}
numbers!(i8 i16 i32 i64);

impl Sample for bool {
    fn sample(s: &mut Source, _version: i16) -> Self {
        s.below(2) == 0
    }
}

impl Sample for Uuid {
    fn sample(s: &mut Source, _version: i16) -> Self {
        if s.below(4) == 0 { Self::nil() } else { Self::from_u64_pair(s.next(), s.next()) }
    }
}

impl Sample for Bytes {
    fn sample(s: &mut Source, _version: i16) -> Self {
        (0..s.len()).map(|_| s.next() as u8).collect()
    }
}

impl Sample for ByteString {
    fn sample(s: &mut Source, _version: i16) -> Self {
        let text: String = (0..s.len()).map(|_| ['a', 'Z', '-', 'ß', '水'][s.below(5) as usize]).collect();
        text.into()
    }
}

impl Sample for RecordSet {
    fn sample(s: &mut Source, version: i16) -> Self {
        let mut bytes = || Bytes::sample(s, version);
        let (one, two, three) = (bytes(), bytes(), bytes());
        if one.len() % 2 == 0 { one.into() } else { vec![one, two, three].into() }
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(s: &mut Source, version: i16) -> Self {
        (0..s.below(4)).map(|_| T::sample(s, version)).collect()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(s: &mut Source, version: i16) -> Self {
        if s.null && s.below(3) == 0 { None } else { Some(T::sample(s, version)) }
    }
}
