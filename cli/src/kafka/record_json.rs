//! Records as JSON, one object a line: what `consume --json` writes and `produce --input json` reads.
//!
//! **Invariant:** nothing is lost. Bytes that are UTF-8 are a string under `key`, `value`; others are Base64 under
//! `key_base64`, `value_base64`. Null is null. Headers keep their order and their repetitions.

use std::collections::BTreeMap;

use aqueduct_client::{ProducerRecord, ReadRecord};
use aqueduct_core::config::did_you_mean;
use aqueduct_core::{Str, Topic};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::position::Position;

/// Writes a record as one line.
pub(super) fn write(record: &ReadRecord<'_>, into: &mut Vec<u8>) {
    let headers = record.headers.iter().map(|(name, value)| {
        let mut header = json!({ "name": name });
        if let Value::Object(header) = &mut header {
            put(header, "value", *value);
        }
        header
    });
    let mut object = Map::new();
    object.insert("topic".into(), record.topic.into());
    object.insert("partition".into(), record.partition.into());
    object.insert("offset".into(), record.offset.into());
    object.insert("timestamp".into(), record.timestamp.into());
    let kind = if record.appended { "append" } else { "create" };
    object.insert("timestamp_type".into(), record.timestamp.map(|_| kind).into());
    put(&mut object, "key", record.key);
    put(&mut object, "value", record.value);
    object.insert("headers".into(), headers.collect());
    into.extend_from_slice(Value::Object(object).to_string().as_bytes());
    into.push(b'\n');
}

fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((Ok(text), _)) => object.insert(name.to_owned(), text.into()),
        Some((Err(_), bytes)) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

const FIELDS: &[&str] = &["key", "key_base64", "value", "value_base64", "headers", "partition", "timestamp"];
/// What `consume` writes and a producer cannot set.
const PASSED_OVER: &[&str] = &["topic", "offset", "timestamp_type"];

/// Reads a record from one line.
pub(super) fn read(topic: &Topic, line: &[u8]) -> Result<ProducerRecord, String> {
    let object: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(line).map_err(|error| format!("no JSON object: {error}"))?;
    for name in object.keys().map(String::as_str) {
        if !FIELDS.contains(&name) && !PASSED_OVER.contains(&name) {
            return Err(match did_you_mean(name, FIELDS.iter().copied()) {
                Some(near) => format!("unknown field `{name}`; did you mean `{near}`?"),
                None => format!("unknown field `{name}`; there are `{}`", FIELDS.join("`, `")),
            });
        }
    }
    let field = |name: &str| object.get(name).map(|raw| &**raw);
    if field("value").is_none() && field("value_base64").is_none() {
        return Err("it has no `value`; write `null` for a tombstone".into());
    }
    let mut record = ProducerRecord::new(Topic::clone(topic), bytes("key", &field)?, bytes("value", &field)?);
    if let Some(raw) = field("headers") {
        record.headers = headers(raw)?;
    }
    if let Some(raw) = field("partition").filter(|raw| raw.get() != "null") {
        record.partition = Some(raw.get().parse().map_err(|_| format!("`partition`: `{raw}` is no number"))?);
    }
    if let Some(raw) = field("timestamp").filter(|raw| raw.get() != "null") {
        record.timestamp = Some(timestamp(raw)?);
    }
    Ok(record)
}

fn bytes<'a>(name: &str, field: &impl Fn(&str) -> Option<&'a RawValue>) -> Result<Option<Bytes>, String> {
    let encoded = format!("{name}_base64");
    match (field(name), field(&encoded)) {
        (Some(_), Some(_)) => Err(format!("`{name}` and `{encoded}` are the same; give one")),
        (Some(raw), None) => Ok(text_or_json(raw)),
        (None, None) => Ok(None),
        (None, Some(raw)) => {
            let text: String =
                serde_json::from_str(raw.get()).map_err(|_| format!("`{encoded}` is no string"))?;
            let bytes = STANDARD.decode(&text).map_err(|error| format!("`{encoded}`: {error}"))?;
            Ok(Some(bytes.into()))
        }
    }
}

/// A string is its text, null is null, everything else its own JSON.
fn text_or_json(raw: &RawValue) -> Option<Bytes> {
    match raw.get() {
        "null" => None,
        text => Some(match serde_json::from_str::<String>(text) {
            Ok(text) => text.into(),
            Err(_) => text.to_owned().into(),
        }),
    }
}

fn headers(raw: &RawValue) -> Result<Vec<(Str, Option<Bytes>)>, String> {
    let wrong = |error: serde_json::Error| {
        format!(
            "`headers`: {error}; write `{{\"NAME\": \"VALUE\"}}` or a list of `{{\"name\": …, \"value\": …}}`"
        )
    };
    if raw.get().starts_with('{') {
        let object: BTreeMap<String, Box<RawValue>> = serde_json::from_str(raw.get()).map_err(wrong)?;
        return Ok(object.iter().map(|(name, raw)| (name.as_str().into(), text_or_json(raw))).collect());
    }
    let list: Vec<BTreeMap<String, Box<RawValue>>> = serde_json::from_str(raw.get()).map_err(wrong)?;
    let header = |header: &BTreeMap<String, Box<RawValue>>| {
        let field = |name: &str| header.get(name).map(|raw| &**raw);
        let name = field("name").and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        let name = name.ok_or_else(|| "`headers`: one has no `name`".to_owned())?;
        let value = bytes("value", &field).map_err(|error| format!("`headers`: `{name}`: {error}"))?;
        Ok((name.as_str().into(), value))
    };
    list.iter().map(header).collect()
}

fn timestamp(raw: &RawValue) -> Result<i64, String> {
    if let Ok(number) = raw.get().parse::<i64>()
        && number >= 0
    {
        return Ok(number);
    }
    let text: String = serde_json::from_str(raw.get()).unwrap_or_default();
    match Position::parse_time(&text) {
        Ok(Position::Time(time)) => Ok(time),
        _ => Err(format!("`timestamp`: `{}` is no time; write milliseconds since 1970 or a date", raw.get())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<ProducerRecord, String> {
        read(&Topic::from("t"), line.as_bytes())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let record = ReadRecord {
            topic: "t",
            partition: 3,
            offset: 9,
            timestamp: Some(1_769_846_400_000),
            appended: false,
            key: Some(b"\xff\x00"),
            value: None,
            headers: vec![("a", Some(b"1")), ("a", None), ("b", Some(b"\xfe")), ("c", Some(b""))],
        };
        let mut line = Vec::new();
        write(&record, &mut line);
        assert!(line.ends_with(b"\n") && line.iter().filter(|byte| **byte == b'\n').count() == 1);
        let back = read(&Topic::from("t"), &line).expect("reads");
        assert_eq!((back.key.as_deref(), back.value.as_deref()), (record.key, record.value));
        assert_eq!((back.partition, back.timestamp), (Some(3), record.timestamp));
        let headers: Vec<(&str, Option<&[u8]>)> =
            back.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        assert_eq!(headers, record.headers);
    }

    #[test]
    fn values_that_are_no_strings_are_their_json() {
        let value = |line: &str| check(line).expect("reads").value.expect("a value");
        assert_eq!(value(r#"{"value": {"a": 1.50}}"#), r#"{"a": 1.50}"#);
        assert_eq!(value(r#"{"value": 17}"#), "17");
        assert_eq!(value(r#"{"value": "null"}"#), "null");
        assert_eq!(value(r#"{"value": ""}"#), "");
        let record = check(r#"{"value": 1, "headers": {"h": "x", "n": null}}"#).expect("reads");
        assert_eq!(record.headers, [("h".into(), Some(Bytes::from("x"))), ("n".into(), None)]);
    }

    #[test]
    fn wrong_lines_are_refused_with_what_to_do() {
        let cases = [
            ("", "no JSON object"),
            ("[1]", "no JSON object"),
            ("{\"value\": 1", "no JSON object"),
            ("{}", "no `value`"),
            ("{\"valeu\": 1}", "did you mean `value`"),
            ("{\"colour\": 1}", "there are `key`"),
            ("{\"value\": 1, \"value_base64\": \"\"}", "give one"),
            ("{\"value_base64\": \"?\"}", "value_base64"),
            ("{\"value\": 1, \"partition\": \"x\"}", "`partition`"),
            ("{\"value\": 1, \"timestamp\": \"x\"}", "`timestamp`"),
            ("{\"value\": 1, \"headers\": [{\"value\": 1}]}", "no `name`"),
            ("{\"value\": 1, \"headers\": 1}", "`headers`"),
        ];
        for (line, expect) in cases {
            let error = check(line).expect_err(line);
            assert!(error.contains(expect), "{line}: {error}");
        }
    }
}
