//! Replaces fields by the salted SHA-256 of their text, in hexadecimal: `sha256(salt ‖ text)`.
//!
//! ```yaml
//! use: wasm
//! with: { module: plugins/prebuilt/mask.wasm, allow: [email], config: { fields: [email], salt: "${env:SALT}" } }
//! ```
//!
//! Null stays null. A field that is not there fails the record: masking fails closed.

use aqueduct_guest::serde::Deserialize;
use aqueduct_guest::{
    ChangedField, Context, Error, Field, InRecord, Needs, NewValue, Outcome, Transform, export_transform,
};
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
#[serde(crate = "aqueduct_guest::serde", deny_unknown_fields)]
struct Config {
    /// Paths of the fields, such as `after.email`.
    fields: Vec<String>,
    /// Hashed before the text, so that the hashes of common values cannot be looked up.
    salt: String,
}

struct Mask {
    fields: Vec<String>,
    /// The state after the salt, so that it is not hashed again for each field.
    salted: Sha256,
}

impl Transform for Mask {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if config.fields.is_empty() {
            return Err("`fields` is empty; name the fields to mask".into());
        }
        if config.salt.is_empty() {
            return Err("`salt` is empty; without one, common values can be looked up by their hash".into());
        }
        Ok(Mask { fields: config.fields, salted: Sha256::new_with_prefix(config.salt) })
    }

    fn needs(&self) -> Needs {
        Needs::fields(self.fields.clone())
    }

    fn record(&mut self, _: &Context, record: InRecord) -> Result<Outcome, Error> {
        let mut changed = Vec::with_capacity(record.fields.len());
        for (i, field) in record.fields.iter().enumerate() {
            let hash = match field {
                Field::Null => continue,
                Field::Missing => {
                    return Err(Error::new("missing", format!("there is no field `{}`", self.fields[i])));
                }
                Field::Text(text) | Field::Json(text) => self.hash(text.as_bytes()),
                Field::Bytes(bytes) => self.hash(bytes),
                Field::Boolean(v) => self.hash(if *v { b"true" } else { b"false" }),
                Field::Integer(v) => self.hash(v.to_string().as_bytes()),
                Field::Float(v) => self.hash(v.to_string().as_bytes()),
            };
            changed.push(ChangedField { field: i as u32, value: NewValue::Text(hash) });
        }
        Ok(Outcome::SetFields(changed))
    }
}

impl Mask {
    fn hash(&self, bytes: &[u8]) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digest = self.salted.clone().chain_update(bytes).finalize();
        let mut text = String::with_capacity(64);
        for byte in digest {
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        text
    }
}

export_transform!(Mask);
