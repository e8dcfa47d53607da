//! Kafka protocol codec and record-batch view, sans-IO.
//!
//! **Invariant:** no input makes this crate panic or allocate more than a constant factor of the bytes at hand
//! (decompression is capped by the caller). Record bytes are slices of the frame they came in.
//!
//! - [`batch`], [`records`], [`builder`], [`compression`]: magic-2 record batches, seen, read and written
//! - [`reader`], [`writer`]: the bounded primitives every message is made of
//! - [`messages`]: the generated messages; `cargo xtask codec` writes them from `messages/*.txt`
//! - [`frame`]: headers, whole requests and whole responses
//! - [`error_code`]: Kafka's error codes

pub mod batch;
pub mod builder;
pub mod compression;
pub mod error;
pub mod error_code;
pub mod frame;
pub mod message;
pub mod messages;
pub mod reader;
pub mod record_set;
pub mod records;
#[cfg(test)]
mod sample;
pub mod writer;

pub use batch::{BatchError, BatchHeader, Batches, RecordBatch};
pub use builder::BatchBuilder;
pub use bytes::Bytes;
pub use bytestring::ByteString;
pub use compression::Compression;
pub use error::{Result, WireError};
pub use error_code::ErrorCode;
pub use frame::{Frame, RequestHeader};
pub use message::{Message, RequestMessage, VersionedRecord};
pub use messages::{ApiKey, Request, Response};
pub use reader::Reader;
pub use record_set::RecordSet;
pub use records::{Header, Record, Records};
pub use uuid::Uuid;
pub use writer::Writer;
