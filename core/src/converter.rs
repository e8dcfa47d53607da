//! Converters: between records and the bytes in the log.
//!
//! The runtime calls `prepare_encode` for a batch and then `encode` for each key and value of it; likewise for
//! decoding. Only the prepare calls may wait, for example until a new schema is stored.

use async_trait::async_trait;
use bytes::Bytes;

use crate::sink::Consumed;
use crate::{Datum, Headers, Result};

/// Which part of a record is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The key.
    Key,
    /// The value.
    Value,
}

/// A converter for keys, values or both. Shared by the tasks of a worker.
#[async_trait]
pub trait Converter: Send + Sync {
    /// Makes everything known that encoding these needs; after it, [`Self::encode`] of them does not fail for want of it.
    async fn prepare_encode(&self, _data: &[&Datum]) -> Result<()> {
        Ok(())
    }

    /// To bytes; `None` is null. May add headers. Errors are bad records.
    fn encode(&self, topic: &str, part: Part, datum: &Datum, headers: &mut Headers) -> Result<Option<Bytes>>;

    /// Makes everything known that decoding these needs.
    async fn prepare_decode(&self, _consumed: &[&Consumed]) -> Result<()> {
        Ok(())
    }

    /// From bytes. May take headers away that are its own. Errors are bad records.
    fn decode(&self, topic: &str, part: Part, consumed: &Consumed, headers: &mut Headers) -> Result<Datum>;
}
