//! The converter that a config names.

use std::sync::Arc;

use aqueduct_core::config::{Config, did_you_mean};
use aqueduct_core::converter::Converter;
use aqueduct_core::json::Style;
use aqueduct_core::{Error, Result};

use crate::store::SchemaStore;
use crate::{BytesConverter, JsonByReference, JsonEnvelope, StringConverter};

/// A converter by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConverterKind {
    /// Plain JSON, schema by reference.
    Json,
    /// JsonConverter.
    JsonEnvelope {
        /// `schemas.enable`.
        schemas: bool,
        /// `decimal.format` and `replace.null.with.default`.
        style: Style,
    },
    /// Text.
    String,
    /// Bytes.
    Bytes,
}

const NAMES: &[&str] = &["json", "string", "bytes", "JsonConverter", "StringConverter", "ByteArrayConverter"];

impl ConverterKind {
    /// The converter that `key` (`key.converter` or `value.converter`) names; `json` where it names none.
    pub fn from_config(key: &str, config: &Config) -> Result<Self> {
        let name = config.get(key).map_or("json", |name| name.trim());
        let short = name.rsplit('.').next().unwrap_or(name);
        match short {
            "json" => Ok(ConverterKind::Json),
            "JsonConverter" | "Json" => {
                let get = |name: &str| config.get(&format!("{key}.{name}")).map(|text| text.trim());
                let flag = |name: &str| match get(name) {
                    None | Some("true") => Ok(true),
                    Some("false") => Ok(false),
                    Some(other) => {
                        let text = format!("`{key}.{name}`: `{other}` is neither `true` nor `false`");
                        Err(Error::bad_config(text))
                    }
                };
                let base64_decimals = match get("decimal.format").map(str::to_ascii_uppercase).as_deref() {
                    None | Some("BASE64") => true,
                    Some("NUMERIC") => false,
                    Some(other) => {
                        let text =
                            format!("`{key}.decimal.format`: `{other}` is neither `BASE64` nor `NUMERIC`");
                        return Err(Error::bad_config(text));
                    }
                };
                let style = Style { base64_decimals, null_as_default: flag("replace.null.with.default")? };
                Ok(ConverterKind::JsonEnvelope { schemas: flag("schemas.enable")?, style })
            }
            "string" | "StringConverter" | "String" => Ok(ConverterKind::String),
            "bytes" | "ByteArrayConverter" | "ByteArray" => Ok(ConverterKind::Bytes),
            _ => {
                let hint = match did_you_mean(short, NAMES.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known are `{}`", NAMES.join("`, `")),
                };
                Err(Error::bad_config(format!("unknown converter `{name}`; {hint}")))
            }
        }
    }

    /// Makes it.
    pub fn build(self, schemas: &Arc<dyn SchemaStore>) -> Arc<dyn Converter> {
        match self {
            ConverterKind::Json => Arc::new(JsonByReference::new(Arc::clone(schemas))),
            ConverterKind::JsonEnvelope { schemas, style } => Arc::new(JsonEnvelope::new(schemas, style)),
            ConverterKind::String => Arc::new(StringConverter),
            ConverterKind::Bytes => Arc::new(BytesConverter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECT: Style = Style { base64_decimals: true, null_as_default: true };

    #[test]
    fn decimals_are_numbers_on_request() {
        let class = ("value.converter", "org.apache.kafka.connect.json.JsonConverter");
        let numeric = kind(&[class, ("value.converter.decimal.format", "numeric")]).expect("numeric");
        let style = Style { base64_decimals: false, ..CONNECT };
        assert_eq!(numeric, ConverterKind::JsonEnvelope { schemas: true, style });
        let error = kind(&[class, ("value.converter.decimal.format", "hex")]).expect_err("unknown");
        assert!(error.message().contains("neither `BASE64` nor `NUMERIC`"), "{error}");
    }

    fn kind(pairs: &[(&str, &str)]) -> Result<ConverterKind> {
        let config = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ConverterKind::from_config("value.converter", &config)
    }

    #[test]
    fn names_and_class_names_are_understood() {
        let class = "org.apache.kafka.connect.json.JsonConverter";
        assert_eq!(kind(&[]).expect("default"), ConverterKind::Json);
        assert_eq!(
            kind(&[("value.converter", class)]).expect("class"),
            ConverterKind::JsonEnvelope { schemas: true, style: CONNECT }
        );
        let off = [("value.converter", class), ("value.converter.schemas.enable", "false")];
        assert_eq!(kind(&off).expect("off"), ConverterKind::JsonEnvelope { schemas: false, style: CONNECT });
        let string = "org.apache.kafka.connect.storage.StringConverter";
        assert_eq!(kind(&[("value.converter", string)]).expect("string"), ConverterKind::String);
    }

    #[test]
    fn an_unknown_name_gets_a_suggestion() {
        let error = kind(&[("value.converter", "jsno")]).expect_err("unknown");
        assert!(error.message().contains("did you mean `json`?"), "{}", error.message());
    }
}
