//! What all messages have in common, for code that is generic over them.

pub(crate) mod apis;

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::error::{Result, WireError};
use crate::messages::ApiKey;
use crate::reader::Reader;
use crate::writer::Writer;

/// A message with a layout per version.
pub trait Message: Sized + Default + Clone + std::fmt::Debug + PartialEq {
    /// Kafka's name.
    const NAME: &'static str;
    /// Versions that can be read and written.
    const VERSIONS: RangeInclusive<i16>;

    /// Reads the message; unknown tagged fields are passed over.
    fn decode(r: &mut Reader, version: i16) -> Result<Self>;

    /// Writes the message; fields that the version does not have are left out.
    fn encode(&self, w: &mut Writer, version: i16) -> Result<()>;

    /// Fails for a version outside of [`Self::VERSIONS`].
    fn check_version(version: i16) -> Result<()> {
        if Self::VERSIONS.contains(&version) {
            return Ok(());
        }
        Err(WireError::UnsupportedVersion { api: Self::NAME, version })
    }
}

/// A request, and the response it gets.
pub trait RequestMessage: Message {
    const KEY: ApiKey;
    type Response: Message;
}

/// A structure that is stored or passed on as bytes with its version in front, as the records of
/// `__consumer_offsets` are.
pub trait VersionedRecord: Message {
    /// Reads version and content.
    fn from_versioned(bytes: Bytes) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let version = r.i16()?;
        Self::decode(&mut r, version)
    }

    /// Writes version and content.
    fn to_versioned(&self, version: i16) -> Result<Bytes> {
        let mut w = Writer::new();
        w.i16(version);
        self.encode(&mut w, version)?;
        Ok(w.into_bytes())
    }
}

/// Makes a generated structure a [`Message`]: the trait's methods are the inherent ones.
macro_rules! message {
    ($message:ident, $versions:expr) => {
        impl message::Message for $message {
            const NAME: &'static str = stringify!($message);
            const VERSIONS: std::ops::RangeInclusive<i16> = $versions;

            fn decode(r: &mut Reader, version: i16) -> Result<Self> {
                Self::decode(r, version)
            }

            fn encode(&self, w: &mut Writer, version: i16) -> Result<()> {
                self.encode(w, version)
            }
        }
    };
}
pub(crate) use message;

/// Ties a generated request to its API and its response.
macro_rules! request {
    ($api:ident, $request:ident, $response:ident) => {
        impl message::RequestMessage for $request {
            const KEY: crate::messages::ApiKey = crate::messages::ApiKey::$api;
            type Response = $response;
        }
    };
}
pub(crate) use request;

/// Marks a generated structure that is stored with its version in front.
macro_rules! record {
    ($record:ident) => {
        impl message::VersionedRecord for $record {}
    };
}
pub(crate) use record;

#[cfg(test)]
mod tests;
