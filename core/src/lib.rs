//! `aqueduct-core`: the data model and the contracts that every component of Aqueduct is written against.
//!
//! * Data: [`Schema`], [`Value`], [`Datum`], [`Record`], JSON in [`json`].
//! * Contracts: [`source`], [`sink`], [`transform`], [`converter`]; the list of components in [`component`].
//! * Configuration: [`config`] (one [`config::ConfigDef`] per component).
//! * For sinks of files and objects: [`lines`], [`template`], [`rolling`]; for names with wildcards: [`wildcard`].
//! * Errors: [`Error`] and [`ErrorKind`], which alone decides between retry, dead letter and stop.
//!
//! **Invariant:** this crate does no IO, has no clock and no async runtime; everything else depends on it and it
//! depends on nothing of ours.
#![warn(missing_docs)]

pub mod component;
pub mod config;
pub mod converter;
mod error;
pub mod failpoint;
pub mod json;
pub mod lines;
pub mod logical;
mod path;
mod record;
pub mod rolling;
mod schema;
mod schema_cache;
pub mod sink;
pub mod source;
pub mod template;
pub mod transform;
mod value;
pub mod wildcard;

pub use bytestring::ByteString as Str;
pub use error::{Error, ErrorKind, Result};
pub use path::{FieldPath, Locator, Slot};
pub use record::{Datum, Header, Headers, Record, Topic, check_topic};
pub use schema::{Field, Schema, SchemaRef, Type};
pub use schema_cache::SchemaCache;
pub use value::Value;
