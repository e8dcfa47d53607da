//! `aqueduct-convert`: converters between records and the bytes in the log.
//!
//! * [`JsonByReference`] (`json`, the default): plain JSON; the schema stands in the [`SchemaStore`], its fingerprint in
//!   a header.
//! * [`JsonEnvelope`]: Connect's `JsonConverter`, with the schema in every record or without one.
//! * [`StringConverter`] and [`BytesConverter`].
//!
//! [`ConverterKind::from_config`] chooses by name or by Connect's class names.
//!
//! **Invariant:** bytes that no step looked into are written as they were read.

mod by_reference;
mod choose;
mod envelope;
mod header;
mod plain;
mod schema_cache;
mod specs;
mod store;

pub use by_reference::{JsonByReference, KEY_SCHEMA_HEADER, VALUE_SCHEMA_HEADER};
pub use choose::ConverterKind;
pub use envelope::JsonEnvelope;
pub use header::{decode_header, encode_header};
pub use plain::{BytesConverter, StringConverter};
pub use specs::specs;
pub use store::{Fingerprint, MemorySchemaStore, SchemaStore};
