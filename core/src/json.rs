//! Plain JSON of values, as Connect's JsonConverter writes it with `schemas.enable=false`, and JSON of schemas.
//!
//! With a schema, Decimals are JSON numbers with all their digits (`decimal.format=NUMERIC`); base64 is accepted on
//! reading, as JsonConverter does. Bytes are base64. NaN and the infinities are strings. Decoding never recurses
//! deeper than serde_json's limit of 128, and text without escapes is a slice of the input.

mod decode;
mod encode;
mod schema;
mod slice;

pub use decode::decode;
pub use encode::{Style, encode, encode_as, encode_text};
pub use schema::{fingerprint, schema_from_json, schema_to_json};
pub use slice::{Paths, Splicer};

use bytes::Bytes;

use crate::{Error, Result};

/// Checks that `text` is one valid JSON document in UTF-8 and returns it without surrounding blanks.
pub fn validate(text: &Bytes) -> Result<Bytes> {
    match serde_json::from_slice::<&serde_json::value::RawValue>(text) {
        Ok(raw) => Ok(text.slice_ref(raw.get().as_bytes())),
        Err(error) => Err(Error::bad_record("the value is not valid JSON").with_source(error)),
    }
}

/// The envelope of JsonConverter with `schemas.enable=true`: `{"schema":…,"payload":…}`.
pub fn encode_with_schema(datum: &crate::Datum, style: Style) -> Result<Bytes> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"schema\":");
    match datum.schema() {
        Some(schema) => out.extend_from_slice(schema_to_json(schema).to_string().as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"payload\":");
    out.extend_from_slice(&datum.to_json_as(style)?);
    out.push(b'}');
    Ok(out.into())
}

#[cfg(test)]
mod tests;
