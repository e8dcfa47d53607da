//! Connect's `StringConverter` and `ByteArrayConverter`.

use std::sync::{Arc, LazyLock};

use aqueduct_core::converter::{Converter, Part};
use aqueduct_core::sink::Consumed;
use aqueduct_core::{Datum, Error, Headers, Result, Schema, SchemaRef, Str, Type, Value};
use async_trait::async_trait;
use bytes::Bytes;

static OPTIONAL_STRING: LazyLock<SchemaRef> = LazyLock::new(|| Schema::new(Type::String).optional().shared());
static OPTIONAL_BYTES: LazyLock<SchemaRef> = LazyLock::new(|| Schema::new(Type::Bytes).optional().shared());

fn part_of(consumed: &Consumed, part: Part) -> Option<&Bytes> {
    match part {
        Part::Key => consumed.key.as_ref(),
        Part::Value => consumed.value.as_ref(),
    }
}

/// Text as UTF-8; everything that is not text is written as JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct StringConverter;

#[async_trait]
impl Converter for StringConverter {
    fn encode(
        &self,
        _topic: &str,
        _part: Part,
        datum: &Datum,
        _headers: &mut Headers,
    ) -> Result<Option<Bytes>> {
        match datum.decoded() {
            Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone().into_bytes())),
            _ => {
                let mut copy = datum.clone();
                match copy.value()? {
                    Value::String(text) => Ok(Some(text.clone().into_bytes())),
                    _ => datum.to_json().map(Some),
                }
            }
        }
    }

    fn decode(&self, _topic: &str, part: Part, consumed: &Consumed, _headers: &mut Headers) -> Result<Datum> {
        let Some(bytes) = part_of(consumed, part) else { return Ok(Datum::null()) };
        let text = Str::try_from(bytes.clone())
            .map_err(|e| Error::bad_record("the text is not UTF-8").with_source(e))?;
        Ok(Datum::new(Arc::clone(&OPTIONAL_STRING), text))
    }
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct BytesConverter;

#[async_trait]
impl Converter for BytesConverter {
    fn encode(
        &self,
        _topic: &str,
        _part: Part,
        datum: &Datum,
        _headers: &mut Headers,
    ) -> Result<Option<Bytes>> {
        match datum.decoded() {
            Some(Value::Null) => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes.clone())),
            Some(other) => Err(Error::bad_record(format!(
                "the converter `bytes` writes bytes, and this is a {}",
                other.kind()
            ))),
            None => Err(Error::bad_record("the converter `bytes` writes bytes, and this is JSON")),
        }
    }

    fn decode(&self, _topic: &str, part: Part, consumed: &Consumed, _headers: &mut Headers) -> Result<Datum> {
        let Some(bytes) = part_of(consumed, part) else { return Ok(Datum::null()) };
        Ok(Datum::new(Arc::clone(&OPTIONAL_BYTES), bytes.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_pass_as_they_are() {
        let bytes = Bytes::from_static("grün".as_bytes());
        let consumed = Consumed { value: Some(bytes.clone()), ..Consumed::default() };
        let converters: [&dyn Converter; 2] = [&StringConverter, &BytesConverter];
        for converter in converters {
            let datum = converter.decode("t", Part::Value, &consumed, &mut Headers::new()).expect("decodes");
            let back = converter.encode("t", Part::Value, &datum, &mut Headers::new()).expect("encodes");
            assert_eq!(back, Some(bytes.clone()));
        }
    }

    #[test]
    fn what_is_not_text_is_a_bad_record() {
        let consumed = Consumed { value: Some(Bytes::from_static(b"\xff")), ..Consumed::default() };
        let error =
            StringConverter.decode("t", Part::Value, &consumed, &mut Headers::new()).expect_err("refused");
        assert_eq!(error.kind(), aqueduct_core::ErrorKind::BadRecord);
        assert!(
            BytesConverter.encode("t", Part::Value, &Datum::schemaless(1i64), &mut Headers::new()).is_err()
        );
    }
}
