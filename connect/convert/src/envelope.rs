//! Connect's `JsonConverter`: `{"schema":…,"payload":…}`, or plain JSON with `schemas.enable=false`.

use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::converter::{Converter, Part};
use aqueduct_core::sink::Consumed;
use aqueduct_core::{Datum, Error, Headers, Result, SchemaRef, json};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::value::RawValue;

const BOTH_FIELDS: &str = "JsonConverter with schemas.enable requires \"schema\" and \"payload\" fields and may not \
    contain additional fields. If you are trying to deserialize plain JSON data, set schemas.enable=false in your \
    converter configuration.";

/// The converter of that class.
#[derive(Debug)]
pub struct JsonEnvelope {
    schemas: bool,
    style: json::Style,
    /// The schema read last, by its text: all records of a topic usually bear the same.
    last: Mutex<Option<(Bytes, Option<SchemaRef>)>>,
}

impl JsonEnvelope {
    /// With `schemas.enable`, `decimal.format` and `replace.null.with.default`.
    pub fn new(schemas: bool, style: json::Style) -> Self {
        Self { schemas, style, last: Mutex::new(None) }
    }

    fn schema(&self, text: &str) -> Result<Option<SchemaRef>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, schema)) = &*last
            && known.as_ref() == text.as_bytes()
        {
            return Ok(schema.clone());
        }
        let parsed: serde_json::Value = serde_json::from_str(text)
            .map_err(|e| Error::bad_record("the schema is not valid JSON").with_source(e))?;
        let schema = match parsed {
            serde_json::Value::Null => None,
            parsed => Some(Arc::new(json::schema_from_json(&parsed)?)),
        };
        *last = Some((Bytes::copy_from_slice(text.as_bytes()), schema.clone()));
        Ok(schema)
    }

    fn open(&self, bytes: &Bytes) -> Result<Datum> {
        let malformed = |e: serde_json::Error| {
            Error::bad_record("Converting byte[] to Kafka Connect data failed due to serialization error")
                .with_source(e)
        };
        let fields: std::collections::BTreeMap<&str, &RawValue> =
            serde_json::from_slice(bytes).map_err(malformed)?;
        let (Some(schema), Some(payload), 2) = (fields.get("schema"), fields.get("payload"), fields.len())
        else {
            return Err(Error::bad_record(BOTH_FIELDS));
        };
        let schema = self.schema(schema.get())?;
        Ok(Datum::json(schema, bytes.slice_ref(payload.get().as_bytes())))
    }
}

#[async_trait]
impl Converter for JsonEnvelope {
    fn encode(
        &self,
        _topic: &str,
        _part: Part,
        datum: &Datum,
        _headers: &mut Headers,
    ) -> Result<Option<Bytes>> {
        if datum.is_null() && datum.schema().is_none() {
            return Ok(None);
        }
        if self.schemas {
            json::encode_with_schema(datum, self.style).map(Some)
        } else {
            datum.to_json_as(self.style).map(Some)
        }
    }

    fn decode(&self, _topic: &str, part: Part, consumed: &Consumed, _headers: &mut Headers) -> Result<Datum> {
        let bytes = match part {
            Part::Key => &consumed.key,
            Part::Value => &consumed.value,
        };
        match bytes {
            None => Ok(Datum::null()),
            Some(bytes) if self.schemas => self.open(bytes),
            Some(bytes) => Ok(Datum::json(None, json::validate(bytes)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use aqueduct_core::{Field, Schema, Type, Value};

    use super::*;

    const CONNECT: json::Style = json::Style { base64_decimals: true, null_as_default: true };

    #[test]
    fn decimals_and_nulls_are_written_as_connect_does() {
        let decimal = aqueduct_core::logical::decimal_schema(2);
        let price = Field::new("price", decimal.shared());
        let with_default = Schema::new(Type::String).optional().default_value(Value::from("new"));
        let state = Field::new("state", with_default.shared());
        let schema = Schema::structure("o", vec![price, state]).shared();
        let value = Value::Struct(vec![Value::Bytes(Bytes::from_static(&[0x04, 0xd2])), Value::Null]);
        let plain =
            Datum::json(Some(Arc::clone(&schema)), Bytes::from_static(br#"{"price":12.34,"state":null}"#));
        for datum in [Datum::new(schema, value), plain] {
            let write = |style| {
                let bytes =
                    JsonEnvelope::new(false, style).encode("t", Part::Value, &datum, &mut Headers::new());
                String::from_utf8(bytes.expect("encodes").expect("no null").to_vec()).expect("UTF-8")
            };
            assert_eq!(write(CONNECT), r#"{"price":"BNI=","state":"new"}"#);
            assert_eq!(write(json::Style::default()), r#"{"price":12.34,"state":null}"#);
        }
    }

    fn read(converter: &JsonEnvelope, text: &'static str) -> Result<Datum> {
        let consumed = Consumed { value: Some(Bytes::from_static(text.as_bytes())), ..Consumed::default() };
        converter.decode("t", Part::Value, &consumed, &mut Headers::new())
    }

    #[test]
    fn an_envelope_survives() {
        let converter = JsonEnvelope::new(true, CONNECT);
        let id = Field::new("id", Schema::new(Type::Int32).shared());
        let datum =
            Datum::new(Schema::structure("o", vec![id]).shared(), Value::Struct(vec![Value::Int32(5)]));
        let bytes = converter.encode("t", Part::Value, &datum, &mut Headers::new()).expect("encodes");
        let consumed = Consumed { value: bytes, ..Consumed::default() };
        let mut back = converter.decode("t", Part::Value, &consumed, &mut Headers::new()).expect("decodes");
        assert_eq!(back.value().expect("decodes"), &Value::Struct(vec![Value::Int32(5)]));
        assert_eq!(back.schema().map(|s| (**s).clone()), datum.schema().map(|s| (**s).clone()));
    }

    #[test]
    fn plain_json_in_place_of_an_envelope_is_told_apart() {
        let error = read(&JsonEnvelope::new(true, CONNECT), r#"{"id":5}"#).expect_err("no envelope");
        assert!(error.message().contains("schemas.enable=false"));
        let mut datum = read(&JsonEnvelope::new(false, CONNECT), r#"{"id":5}"#).expect("plain");
        assert_eq!(datum.value().expect("decodes").get("id"), Some(&Value::Int64(5)));
    }

    #[test]
    fn an_empty_schema_is_none() {
        let datum =
            read(&JsonEnvelope::new(true, CONNECT), r#"{"schema":null,"payload":"x"}"#).expect("decodes");
        assert!(datum.schema().is_none());
    }
}
