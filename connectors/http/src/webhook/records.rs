//! From a body to records. No IO.

use aqueduct_core::source::SourceRecord;
use aqueduct_core::{Datum, Error, Headers, Record, Slot, Topic, json};
use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::config::{Format, Split, WebhookConfig};

/// The records of a body, in order. What cannot be read is a record with its failure.
pub(super) fn of(config: &WebhookConfig, headers: &HeaderMap, body: &Bytes) -> Vec<SourceRecord> {
    let carried = carried(config, headers);
    let record = |part: Bytes| {
        let mut record = Record::new(Topic::clone(&config.topic), Datum::null());
        record.headers.clone_from(&carried);
        match fill(config, &mut record, &part) {
            Ok(()) => SourceRecord::unplaced(record),
            Err(error) => {
                record.value = Datum::schemaless(part);
                SourceRecord::unreadable(record, error)
            }
        }
    };
    match config.split {
        Split::None => vec![record(body.clone())],
        Split::Lines => lines(body).map(record).collect(),
        Split::Array => match serde_json::from_slice::<Vec<&RawValue>>(body) {
            Ok(parts) => {
                parts.into_iter().map(|part| record(body.slice_ref(part.get().as_bytes()))).collect()
            }
            Err(error) => {
                let mut record = Record::new(Topic::clone(&config.topic), Datum::schemaless(body.clone()));
                record.headers = carried;
                let error = Error::bad_record("the body is not a JSON array").with_source(error);
                vec![SourceRecord::unreadable(record, error)]
            }
        },
    }
}

/// Lines without their ends; empty ones are none.
fn lines(body: &Bytes) -> impl Iterator<Item = Bytes> {
    body.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .map(|line| body.slice_ref(line))
}

fn fill(config: &WebhookConfig, record: &mut Record, part: &Bytes) -> Result<(), Error> {
    record.value = match config.format {
        Format::Bytes => Datum::schemaless(part.clone()),
        Format::Text => match std::str::from_utf8(part) {
            Ok(text) => Datum::schemaless(text),
            Err(error) => return Err(Error::bad_record("the text is not UTF-8").with_source(error)),
        },
        Format::Json => Datum::json(None, json::validate(part)?),
    };
    let Some(path) = &config.key else { return Ok(()) };
    // Looked up on the side, so that the value stays the bytes that came.
    let mut copy = record.value.clone();
    let found = path.locate(None);
    let value = copy.value()?;
    record.key = match found.as_ref().map_or(Slot::Missing, |locator| locator.get(value)) {
        Slot::Found(value) => Datum::schemaless(value.clone()),
        Slot::NullParent | Slot::Missing => {
            return Err(Error::bad_record(format!("there is no field `{path}` to be the key")));
        }
    };
    Ok(())
}

fn carried(config: &WebhookConfig, headers: &HeaderMap) -> Headers {
    let mut carried = Headers::new();
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    for name in &config.headers {
        for value in headers.get_all(name) {
            carried.push(name.as_str(), Datum::schemaless(text(value)));
        }
    }
    if let Some(value) = config.idempotency.as_ref().and_then(|name| headers.get(name)) {
        carried.push("idempotency-key", Datum::schemaless(text(value)));
    }
    carried
}
