//! JSON lines: one record, one line.
//!
//! **Invariant:** a line is one valid JSON document and has no line break but its last byte. A value that no step
//! looked into is copied, not decoded.

use crate::rolling::{Gather, Group};
use crate::sink::SinkRecord;
use crate::{Error, Result, json};

/// What to do about a record whose value is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nulls {
    /// It is a bad record.
    Fail,
    /// It is left out.
    Ignore,
    /// It is written as `null`.
    Write,
}

impl Nulls {
    /// The words of the config key `nulls`.
    pub const WORDS: &[&str] = &["fail", "ignore", "write"];

    /// From one of [`Self::WORDS`].
    pub fn parse(word: &str) -> Result<Self> {
        match word {
            "fail" => Ok(Nulls::Fail),
            "ignore" => Ok(Nulls::Ignore),
            "write" => Ok(Nulls::Write),
            _ => Err(Error::bad_config(format!("`nulls`: `{word}` is not one of `fail, ignore, write`"))),
        }
    }
}

/// How records become lines.
#[derive(Clone, Copy, Debug)]
pub struct LineFormat {
    /// What to do about null values.
    pub nulls: Nulls,
    /// Whether `_topic`, `_partition` and `_offset` are added. A value that is no object is then written as the field
    /// `value` of one.
    pub origin: bool,
}

/// Gathers JSON lines.
#[derive(Debug)]
pub struct Lines {
    format: LineFormat,
    line: Vec<u8>,
}

impl Lines {
    /// Of this format.
    pub fn new(format: LineFormat) -> Self {
        Self { format, line: Vec::new() }
    }
}

impl Gather for Lines {
    type Buffer = Vec<u8>;

    fn stage(&mut self, record: &mut SinkRecord) -> Result<Option<Group>> {
        self.line.clear();
        Ok(self.format.write(&mut self.line, record)?.then_some(0))
    }

    fn append(&mut self, buffer: &mut Vec<u8>, _: Group, _: &SinkRecord) -> Result<usize> {
        buffer.extend_from_slice(&self.line);
        Ok(self.line.len())
    }
}

impl LineFormat {
    /// Whether a record with a null value is written, left out, or a bad record.
    pub fn takes_null(&self) -> Result<bool> {
        match self.nulls {
            Nulls::Write => Ok(true),
            Nulls::Ignore => Ok(false),
            Nulls::Fail => Err(Error::bad_record(
                "the value is null; set `nulls` to `ignore` or `write` to let such records pass",
            )),
        }
    }

    /// Appends the line of `record`; `false` when it is left out. On an error, a bad record, nothing is appended.
    pub fn write(&self, out: &mut Vec<u8>, record: &SinkRecord) -> Result<bool> {
        let datum = &record.record.value;
        if datum.is_null() && !self.takes_null()? {
            return Ok(false);
        }
        let start = out.len();
        if let Some(text) = datum.as_json() {
            push_text(out, text);
        } else if let Some(value) = datum.decoded()
            && let Err(error) = json::encode(out, value, datum.schema().map(|schema| &**schema))
        {
            out.truncate(start);
            return Err(error);
        }
        if self.origin {
            add_origin(out, start, record);
        }
        out.push(b'\n');
        Ok(true)
    }
}

/// In valid JSON a line break is only ever space between tokens, so a blank can take its place.
fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    if memchr::memchr2(b'\n', b'\r', text).is_some() {
        out.extend(text.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    } else {
        out.extend_from_slice(text);
    }
    out.truncate(out.trim_ascii_end().len());
}

/// Splices the fields in before the closing brace; being last, they win over fields of the same name.
fn add_origin(out: &mut Vec<u8>, start: usize, record: &SinkRecord) {
    if out.get(start) == Some(&b'{') && out.last() == Some(&b'}') {
        out.pop();
        out.truncate(out.trim_ascii_end().len());
        if out.last() != Some(&b'{') || out.len() > start + 1 {
            out.push(b',');
        }
    } else {
        out.splice(start..start, *b"{\"value\":");
        out.push(b',');
    }
    out.extend_from_slice(b"\"_topic\":");
    json::encode_text(out, &record.origin.topic);
    let numbers = format!(",\"_partition\":{},\"_offset\":{}}}", record.origin.partition, record.offset);
    out.extend_from_slice(numbers.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::sink::TopicPartition;
    use crate::{Datum, ErrorKind, Field, Record, Schema, Type, Value};

    fn record(value: Datum) -> SinkRecord {
        let topic: crate::Topic = Arc::from("orders");
        SinkRecord {
            record: Record::new(Arc::clone(&topic), value),
            origin: TopicPartition { topic, partition: 2 },
            offset: 41,
            consumed: Arc::default(),
        }
    }

    fn json(text: &'static str) -> Datum {
        Datum::json(None, Bytes::from_static(text.as_bytes()))
    }

    fn line(origin: bool, value: Datum) -> String {
        let mut out = Vec::new();
        let format = LineFormat { nulls: Nulls::Write, origin };
        assert!(format.write(&mut out, &record(value)).expect("it is written"));
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn untouched_json_is_copied_onto_one_line() {
        assert_eq!(line(false, json(r#"{"a": 1.10}"#)), "{\"a\": 1.10}\n");
        assert_eq!(line(false, json("{\n  \"a\": \"x\\ny\"\r\n}")), "{   \"a\": \"x\\ny\"  }\n");
    }

    #[test]
    fn the_origin_is_spliced_in_last() {
        let origin = r#""_topic":"orders","_partition":2,"_offset":41}"#;
        assert_eq!(line(true, json(r#"{"a":1}"#)), format!("{{\"a\":1,{origin}\n"));
        assert_eq!(line(true, json("{}")), format!("{{{origin}\n"));
        assert_eq!(line(true, json("{ }")), format!("{{{origin}\n"));
        assert_eq!(line(true, json("{\"a\":{}\n}")), format!("{{\"a\":{{}},{origin}\n"));
        assert_eq!(line(true, json("[1]")), format!("{{\"value\":[1],{origin}\n"));
        assert_eq!(line(true, Datum::null()), format!("{{\"value\":null,{origin}\n"));
    }

    #[test]
    fn a_typed_value_is_encoded_by_its_schema() {
        let fields = vec![Field::new("id", Schema::new(Type::Int64).shared())];
        let datum =
            Datum::new(Schema::structure("row", fields).shared(), Value::Struct(vec![Value::Int64(7)]));
        assert!(line(true, datum.clone()).starts_with(r#"{"id":7,"_topic""#));
        assert_eq!(line(false, datum), "{\"id\":7}\n");
    }

    #[test]
    fn nulls_fail_are_left_out_or_written() {
        let mut out = Vec::new();
        let mut write = |nulls| LineFormat { nulls, origin: false }.write(&mut out, &record(Datum::null()));
        assert_eq!(write(Nulls::Fail).expect_err("null").kind(), ErrorKind::BadRecord);
        assert!(!write(Nulls::Ignore).expect("left out"));
        assert!(write(Nulls::Write).expect("written"));
        assert_eq!(out, b"null\n");
    }
}
