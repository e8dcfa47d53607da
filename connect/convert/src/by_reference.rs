//! `json`: plain JSON, as JsonConverter writes it with `schemas.enable=false`, and the schema by reference.
//!
//! **Invariant:** a schema is stored before the first record that names it, and a record whose schema cannot be found
//! is a bad record, never one without a schema.

use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::converter::{Converter, Part};
use aqueduct_core::sink::Consumed;
use aqueduct_core::{Datum, Error, Headers, Result, SchemaRef, Value, json};
use async_trait::async_trait;
use bytes::Bytes;

use crate::schema_cache::FingerprintCache;
use crate::store::{Fingerprint, SchemaStore};

/// Header with the 16 bytes that name the key's schema.
pub const KEY_SCHEMA_HEADER: &str = "aqueduct.key.schema";
/// Header with the 16 bytes that name the value's schema.
pub const VALUE_SCHEMA_HEADER: &str = "aqueduct.value.schema";

fn header_of(part: Part) -> &'static str {
    match part {
        Part::Key => KEY_SCHEMA_HEADER,
        Part::Value => VALUE_SCHEMA_HEADER,
    }
}

/// The converter `json`.
pub struct JsonByReference {
    store: Arc<dyn SchemaStore>,
    fingerprints: FingerprintCache,
    /// What the last record named; records of one schema follow each other.
    latest: Mutex<Option<(Fingerprint, SchemaRef)>>,
}

impl JsonByReference {
    /// Over a store of schemas.
    pub fn new(store: Arc<dyn SchemaStore>) -> Self {
        Self { store, fingerprints: FingerprintCache::default(), latest: Mutex::default() }
    }
}

impl JsonByReference {
    fn known(&self, fingerprint: Fingerprint) -> Option<SchemaRef> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, schema)) = latest.as_ref().filter(|(known, _)| *known == fingerprint) {
            return Some(Arc::clone(schema));
        }
        let schema = self.store.known(&fingerprint)?;
        *latest = Some((fingerprint, Arc::clone(&schema)));
        Some(schema)
    }
}

fn named_in(consumed: &Consumed, part: Part) -> Option<Result<Fingerprint>> {
    let name = header_of(part);
    let (_, value) = consumed.headers.iter().rev().find(|(header, _)| &**header == name)?;
    let bytes = value.as_deref().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    Some(
        bytes
            .map(Fingerprint)
            .ok_or_else(|| Error::bad_record(format!("header `{name}` does not hold 16 bytes"))),
    )
}

#[async_trait]
impl Converter for JsonByReference {
    async fn prepare_encode(&self, data: &[&Datum]) -> Result<()> {
        let mut last: Option<&SchemaRef> = None;
        for schema in data.iter().filter_map(|datum| datum.schema()) {
            if last.is_some_and(|last| Arc::ptr_eq(last, schema)) {
                continue;
            }
            last = Some(schema);
            let fingerprint = self.fingerprints.of(schema);
            if self.store.known(&fingerprint).is_none() {
                self.store.put(fingerprint, schema).await?;
            }
        }
        Ok(())
    }

    fn encode(
        &self,
        _topic: &str,
        part: Part,
        datum: &Datum,
        headers: &mut Headers,
    ) -> Result<Option<Bytes>> {
        headers.remove(header_of(part));
        if datum.is_null() {
            return Ok(None);
        }
        let text = datum.to_json()?;
        if let Some(schema) = datum.schema() {
            let name = self.fingerprints.bytes_of(schema);
            headers.push(
                aqueduct_core::Str::from_static(header_of(part)),
                Datum::schemaless(Value::Bytes(name)),
            );
        }
        Ok(Some(text))
    }

    async fn prepare_decode(&self, consumed: &[&Consumed]) -> Result<()> {
        for part in [Part::Key, Part::Value] {
            let mut last = None;
            for consumed in consumed {
                let Some(Ok(fingerprint)) = named_in(consumed, part) else { continue };
                if last == Some(fingerprint) {
                    continue;
                }
                last = Some(fingerprint);
                if self.store.known(&fingerprint).is_none() {
                    // What is not found now makes bad records of those that name it.
                    self.store.find(&fingerprint).await?;
                }
            }
        }
        Ok(())
    }

    fn decode(&self, _topic: &str, part: Part, consumed: &Consumed, headers: &mut Headers) -> Result<Datum> {
        let bytes = match part {
            Part::Key => &consumed.key,
            Part::Value => &consumed.value,
        };
        let schema = match named_in(consumed, part).transpose()? {
            None => None,
            Some(fingerprint) => {
                headers.remove(header_of(part));
                Some(self.known(fingerprint).ok_or_else(|| {
                    Error::bad_record(format!(
                        "the schema `{fingerprint}` that the record names is not stored"
                    ))
                })?)
            }
        };
        let Some(bytes) = bytes else { return Ok(Datum::null()) };
        let text = json::validate(bytes).map_err(|error| match part {
            Part::Key => Error::bad_record(error.full().replace("the value", "the key")),
            Part::Value => error,
        })?;
        Ok(Datum::json(schema, text))
    }
}

#[cfg(test)]
mod tests {
    use aqueduct_core::{Field, Header, Schema, Str, Type};
    use proptest::prelude::*;

    use super::*;
    use crate::MemorySchemaStore;
    use crate::header::{decode_header, encode_header};

    fn order() -> SchemaRef {
        let field = |name: &str, ty: Type| Field::new(name, Schema::new(ty).optional().shared());
        Schema::structure("order", vec![field("id", Type::Int64), field("note", Type::String)]).shared()
    }

    /// As the log would hand it back.
    fn consumed(value: Option<Bytes>, headers: &Headers) -> Consumed {
        let headers = headers
            .iter()
            .map(|Header { name, value }| (name.clone(), encode_header(value).expect("encodes")));
        Consumed { key: None, value, headers: headers.collect() }
    }

    fn received(consumed: &Consumed) -> Headers {
        consumed
            .headers
            .iter()
            .map(|(name, value)| Header { name: name.clone(), value: decode_header(value.as_ref()) })
            .collect()
    }

    async fn round_trip(writer: &JsonByReference, reader: &JsonByReference, datum: &Datum) -> Result<Datum> {
        let mut headers = Headers::new();
        writer.prepare_encode(&[datum]).await?;
        let bytes = writer.encode("t", Part::Value, datum, &mut headers)?;
        let consumed = consumed(bytes, &headers);
        reader.prepare_decode(&[&consumed]).await?;
        let mut headers = received(&consumed);
        let datum = reader.decode("t", Part::Value, &consumed, &mut headers)?;
        assert!(headers.is_empty(), "the converter takes its own header away");
        Ok(datum)
    }

    #[tokio::test]
    async fn a_reader_gets_the_typed_value_back() {
        let store: Arc<dyn SchemaStore> = Arc::new(MemorySchemaStore::default());
        let (writer, reader) = (JsonByReference::new(Arc::clone(&store)), JsonByReference::new(store));
        let value = Value::Struct(vec![Value::Int64(7), Value::Null]);
        let mut back =
            round_trip(&writer, &reader, &Datum::new(order(), value.clone())).await.expect("passes");
        assert_eq!(back.schema().map(|schema| (**schema).clone()), Some((*order()).clone()));
        assert_eq!(
            back.as_json().map(Bytes::as_ref),
            Some(&br#"{"id":7,"note":null}"#[..]),
            "not decoded before use"
        );
        assert_eq!(back.value().expect("decodes"), &value);
    }

    #[tokio::test]
    async fn a_schema_that_is_not_stored_makes_a_bad_record() {
        let writer = JsonByReference::new(Arc::new(MemorySchemaStore::default()));
        let reader = JsonByReference::new(Arc::new(MemorySchemaStore::default()));
        let datum = Datum::new(order(), Value::Struct(vec![Value::Int64(7), Value::Null]));
        let error = round_trip(&writer, &reader, &datum).await.expect_err("unknown");
        assert_eq!(error.kind(), aqueduct_core::ErrorKind::BadRecord);
        assert!(error.message().contains("is not stored"), "{}", error.message());
    }

    #[tokio::test]
    async fn tombstones_and_plain_json_carry_no_header() {
        let converter = JsonByReference::new(Arc::new(MemorySchemaStore::default()));
        assert!(round_trip(&converter, &converter, &Datum::null()).await.expect("passes").is_null());
        let plain = Datum::schemaless(Value::Map(vec![(Value::from("a"), Value::Int64(1))]));
        let mut headers = Headers::new();
        converter.encode("t", Part::Value, &plain, &mut headers).expect("encodes");
        assert!(headers.is_empty());
    }

    #[test]
    fn what_is_not_json_is_a_bad_record() {
        let converter = JsonByReference::new(Arc::new(MemorySchemaStore::default()));
        for bytes in [&b"{\"a\":"[..], b"", b"\xff", b"{} {}"] {
            let consumed = Consumed { value: Some(Bytes::copy_from_slice(bytes)), ..Consumed::default() };
            let error =
                converter.decode("t", Part::Value, &consumed, &mut Headers::new()).expect_err("refused");
            assert_eq!(error.kind(), aqueduct_core::ErrorKind::BadRecord);
        }
        let bad_header = Consumed {
            value: Some(Bytes::from_static(b"{}")),
            headers: vec![(Str::from_static(VALUE_SCHEMA_HEADER), Some(Bytes::from_static(b"short")))],
            ..Consumed::default()
        };
        let error =
            converter.decode("t", Part::Value, &bad_header, &mut Headers::new()).expect_err("refused");
        assert!(error.message().contains(VALUE_SCHEMA_HEADER));
    }

    proptest! {
        #[test]
        fn any_struct_survives(id in proptest::option::of(any::<i64>()), note in proptest::option::of(".*")) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let store: Arc<dyn SchemaStore> = Arc::new(MemorySchemaStore::default());
            let converter = JsonByReference::new(store);
            let value = Value::Struct(vec![id.into(), note.into()]);
            let datum = Datum::new(order(), value.clone());
            let mut back = runtime.block_on(round_trip(&converter, &converter, &datum)).expect("passes");
            prop_assert_eq!(back.value().expect("decodes"), &value);
        }
    }
}
