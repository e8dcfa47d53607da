//! How a value is masked, and what that makes of its schema.

use aqueduct_core::config::Values;
use aqueduct_core::{Error, Result, Schema, SchemaRef, Type, Value, json, logical};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// A method with its settings.
pub(super) enum Method {
    /// The state after the salt, so that it is not hashed again for each value.
    Hash(Sha256),
    Hmac(Hmac<Sha256>),
    Redact(Value),
    Partial(usize),
    Null,
}

impl Method {
    pub(super) fn new(values: &Values) -> Result<Self> {
        let salt = || {
            values.opt_password("salt")?.ok_or_else(|| {
                Error::bad_config(
                    "`salt`: missing; without one, common values can be looked up by their hash (write `salt: \"\"` \
                     if you want that)",
                )
            })
        };
        Ok(match values.text("method")? {
            "hmac" => {
                let key = salt()?.expose().as_bytes();
                Method::Hmac(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
            }
            "redact" => Method::Redact(values.text("replacement")?.into()),
            "partial" => Method::Partial(usize::try_from(values.int("keep")?).expect("declared as 0 to 64")),
            "null" => Method::Null,
            _ => Method::Hash(Sha256::new_with_prefix(salt()?.expose())),
        })
    }

    /// The schema of a masked field where it differs from the given one.
    pub(super) fn leaf(&self, schema: &SchemaRef) -> Option<SchemaRef> {
        if let Method::Null = self {
            return (!schema.optional).then(|| Schema::clone(schema).optional().shared());
        }
        // A name such as `io.debezium.data.Uuid` says what the text is, which is no longer true.
        if schema.ty == Type::String && schema.name.is_none() {
            return None;
        }
        let text = Schema::new(Type::String);
        Some(if schema.optional { text.optional() } else { text }.shared())
    }

    /// The masked value; `value` is not null.
    pub(super) fn apply(&self, value: &Value, schema: Option<&Schema>) -> Result<Value> {
        Ok(match self {
            Method::Hash(salted) => {
                let mut hash = salted.clone();
                with_bytes(value, schema, |bytes| hash.update(bytes))?;
                hexadecimal(&hash.finalize())
            }
            Method::Hmac(keyed) => {
                let mut hash = keyed.clone();
                with_bytes(value, schema, |bytes| hash.update(bytes))?;
                hexadecimal(&hash.finalize().into_bytes())
            }
            Method::Redact(text) => text.clone(),
            Method::Partial(keep) => {
                let mut masked = String::new();
                with_bytes(value, schema, |bytes| masked = partial(&String::from_utf8_lossy(bytes), *keep))?;
                masked.into()
            }
            Method::Null => Value::Null,
        })
    }
}

/// By a table into a buffer of its length; the library's other way goes character by character.
fn hexadecimal(digest: &[u8]) -> Value {
    let mut text = vec![0; 2 * digest.len()];
    hex::encode_to_slice(digest, &mut text).expect("two characters for each byte");
    String::from_utf8(text).expect("digits and letters").into()
}

fn partial(text: &str, keep: usize) -> String {
    let length = text.chars().count();
    let keep = if length > 2 * keep { keep } else { 0 };
    let stars = std::iter::repeat_n('*', length - keep);
    stars.chain(text.chars().skip(length - keep)).collect()
}

/// The bytes that stand for a value: text as UTF-8, bytes as they are, everything else as its JSON text.
fn with_bytes(value: &Value, schema: Option<&Schema>, f: impl FnOnce(&[u8])) -> Result<()> {
    match value {
        Value::String(text) => f(text.as_bytes()),
        Value::Bytes(bytes) if schema.and_then(logical::decimal_scale).is_none() => f(bytes),
        other => {
            let mut text = Vec::new();
            json::encode(&mut text, other, schema)?;
            f(&text);
        }
    }
    Ok(())
}
