//! `aqueduct-guest`: write a record transform in Rust and run it in Aqueduct as WebAssembly.
//!
//! Implement [`Transform`] and name the type in [`export_transform!`]:
//!
//! ```ignore
//! use aqueduct_guest::{Context, Error, Field, InRecord, Needs, Outcome, Transform, export_transform};
//!
//! #[derive(aqueduct_guest::serde::Deserialize)]
//! #[serde(crate = "aqueduct_guest::serde", deny_unknown_fields)]
//! struct Config { field: String }
//!
//! struct Upper { field: String }
//!
//! impl Transform for Upper {
//!     type Config = Config;
//!     fn configure(config: Config) -> Result<Self, String> { Ok(Upper { field: config.field }) }
//!     fn needs(&self) -> Needs { Needs::fields([self.field.clone()]) }
//!     fn record(&mut self, _: &Context, record: InRecord) -> Result<Outcome, Error> {
//!         match &record.fields[0] {
//!             Field::Text(text) => Ok(Outcome::set_field(0, text.to_uppercase())),
//!             Field::Missing => Err(Error::new("missing", format!("there is no field `{}`", self.field))),
//!             _ => Ok(Outcome::Keep),
//!         }
//!     }
//! }
//! export_transform!(Upper);
//! ```
//!
//! The crate type is `cdylib` and the target `wasm32-unknown-unknown`; the host takes the module as it is. There is no
//! network, no file, no clock and no randomness. What a transform keeps in memory is lost when the instance traps.

#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "transform-plugin",
        pub_export_macro: true,
        export_macro_name: "export_raw",
        default_bindings_module: "aqueduct_guest::bindings",
    });
}

#[doc(hidden)]
pub mod export;

use bindings::aqueduct::transform::types as wire;

pub use bindings::aqueduct::transform::logging::{Level, log};
pub use bindings::aqueduct::transform::types::{
    ChangedField, Context, FieldValue as Field, InHeader, InRecord, NewValue, OutDatum, OutHeader, OutRecord,
};
pub use serde;
pub use serde_json;

/// A record transform.
pub trait Transform: Sized + 'static {
    /// The step's `config`.
    type Config: serde::de::DeserializeOwned;

    /// Makes the transform. The error stops the pipeline from starting.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// What it wants to see of each record. Fields cost far less than the whole value.
    fn needs(&self) -> Needs {
        Needs::value()
    }

    /// Transforms one record. An error fails this record alone.
    fn record(&mut self, context: &Context, record: InRecord) -> Result<Outcome, Error>;

    /// Transforms a batch: one result for each record, in order. Override it for work on the batch as a whole.
    fn batch(
        &mut self,
        context: &Context,
        batch: Vec<InRecord>,
    ) -> Result<Vec<Result<Outcome, Error>>, BatchError> {
        Ok(batch.into_iter().map(|record| self.record(context, record)).collect())
    }
}

/// What a transform wants to see.
pub struct Needs {
    fields: Option<Vec<String>>,
    flags: wire::Needs,
}

impl Needs {
    /// The whole value as JSON text, in [`InRecord::value`].
    pub fn value() -> Self {
        Needs { fields: None, flags: wire::Needs::empty() }
    }

    /// These fields, in [`InRecord::fields`], in this order. A path has dots: `after.email`.
    pub fn fields<S: Into<String>>(paths: impl IntoIterator<Item = S>) -> Self {
        Needs { fields: Some(paths.into_iter().map(Into::into).collect()), flags: wire::Needs::empty() }
    }

    /// Also the key.
    #[must_use]
    pub fn and_key(mut self) -> Self {
        self.flags |= wire::Needs::KEY;
        self
    }

    /// Also the headers.
    #[must_use]
    pub fn and_headers(mut self) -> Self {
        self.flags |= wire::Needs::HEADERS;
        self
    }

    /// Also the timestamp.
    #[must_use]
    pub fn and_timestamp(mut self) -> Self {
        self.flags |= wire::Needs::TIMESTAMP;
        self
    }
}

/// What becomes of a record.
pub enum Outcome {
    /// Goes on as it is.
    Keep,
    /// Goes no further.
    Drop,
    /// Goes on with this JSON text as its value, without a schema.
    SetValue(Vec<u8>),
    /// Goes on with these fields changed. The schema stays.
    SetFields(Vec<ChangedField>),
    /// Goes on as these records.
    Emit(Vec<OutRecord>),
}

impl Outcome {
    /// One changed field, by its position in [`Needs::fields`].
    pub fn set_field(field: u32, value: impl Into<NewValue>) -> Self {
        Outcome::SetFields(vec![ChangedField { field, value: value.into() }])
    }
}

impl From<String> for NewValue {
    fn from(text: String) -> Self {
        NewValue::Text(text)
    }
}

impl From<i64> for NewValue {
    fn from(v: i64) -> Self {
        NewValue::Integer(v)
    }
}

impl From<f64> for NewValue {
    fn from(v: f64) -> Self {
        NewValue::Float(v)
    }
}

impl From<bool> for NewValue {
    fn from(v: bool) -> Self {
        NewValue::Boolean(v)
    }
}

/// Why a record cannot pass. It goes into the dead letter's headers: keep the data out of it.
#[derive(Debug)]
pub struct Error {
    /// A short word for metrics.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Error {
    /// An error of one record.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Error { code: code.into(), message: message.into() }
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Error::new("transform", error.to_string())
    }
}

/// Why a whole batch cannot be transformed.
#[derive(Debug)]
pub struct BatchError {
    /// For people.
    pub message: String,
    /// Whether the same batch may pass later.
    pub retriable: bool,
}
