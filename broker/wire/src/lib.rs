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
pub mod reader;
pub mod records;

pub use batch::{BatchError, BatchHeader, Batches, RecordBatch};
pub use builder::BatchBuilder;
pub use bytes::Bytes;
pub use bytestring::ByteString;
pub use compression::Compression;
pub use error::{Result, WireError};
pub use reader::Reader;
pub use records::{Header, Record, Records};
pub use uuid::Uuid;
