//! Path templates of sinks that write files and objects: `{topic}/dt={timestamp:%Y-%m-%d}/country={field.country}`.
//!
//! Placeholders are `{topic}`, `{partition}`, `{timestamp:FORMAT}` (strftime, UTC), `{key}` and `{field.a.b}`.
//!
//! **Invariant:** what a record holds never adds or leaves a directory: values are percent-encoded, null is
//! [`NULL`], empty text is [`EMPTY`], and the template itself has no `.`, `..` or empty segment.

use jiff::Timestamp;
use jiff::fmt::strtime;

use crate::sink::TopicPartition;
use crate::{Datum, Error, Record, Result, Schema, Value, json};

/// What stands for a null value.
pub const NULL: &str = "__null__";
/// What stands for empty text, which would make a path with an empty segment.
pub const EMPTY: &str = "__empty__";

/// Longest value, encoded: as long as a topic name may be; file systems take 255 bytes.
const MAX_VALUE: usize = 249;

/// A parsed template. The rendered path is empty or ends with `/`.
#[derive(Clone, Debug)]
pub struct PathTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Topic,
    Partition,
    Key,
    Field(Vec<String>),
    Timestamp(TimeFormat),
}

impl PathTemplate {
    /// Parses; the error says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Err(format!("path `{text}` begins with `/`; leave it out"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            literal(&mut parts, &rest[..open])?;
            let inside = &rest[open + 1..];
            let close =
                inside.find('}').ok_or_else(|| format!("path `{text}` has a `{{` without its `}}`"))?;
            parts.push(placeholder(&inside[..close])?);
            rest = &inside[close + 1..];
        }
        literal(&mut parts, rest)?;
        if !text.is_empty() && !text.ends_with('/') {
            literal(&mut parts, "/")?;
        }
        let template = Self { parts };
        for segment in template.shape().trim_end_matches('/').split('/') {
            if matches!(segment, "." | "..") || (segment.is_empty() && !text.is_empty()) {
                return Err(format!(
                    "path `{text}` may not have the segment `{segment}`; name every directory"
                ));
            }
        }
        Ok(template)
    }

    /// The text before the first placeholder, which every rendered path begins with.
    pub fn literal_prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(text)) => text,
            _ => "",
        }
    }

    /// How many directories deep the rendered paths are.
    pub fn depth(&self) -> usize {
        self.shape().matches('/').count()
    }

    /// Appends the path of `record` to `out`. An error (a field that is missing or no scalar) is a bad record.
    pub fn render(&mut self, out: &mut String, record: &Record, origin: &TopicPartition) -> Result<()> {
        for part in &mut self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Topic => push_value(out, &record.topic)?,
                Part::Partition => out.push_str(&origin.partition.to_string()),
                Part::Key => push_datum(out, &record.key, &[])?,
                Part::Field(names) => push_datum(out, &record.value, names)?,
                Part::Timestamp(format) => match record.timestamp {
                    Some(ms) => out.push_str(format.at(ms)?),
                    None => out.push_str(NULL),
                },
            }
        }
        Ok(())
    }

    /// Whether `path` can have been rendered from this template.
    pub fn matches(&self, path: &str) -> bool {
        matches(&self.parts, path)
    }

    /// The template with a stand-in for every placeholder.
    fn shape(&self) -> String {
        let mut shape = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => shape.push_str(text),
                Part::Timestamp(format) => shape.push_str(&format.sample),
                Part::Topic | Part::Partition | Part::Key | Part::Field(_) => shape.push('x'),
            }
        }
        shape
    }
}

/// The check of a `path` key.
pub fn check_path(text: &str) -> Result<(), String> {
    PathTemplate::parse(text).map(drop)
}

fn literal(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if let Some(bad) = text.chars().find(|c| c.is_control() || matches!(c, '}' | '\\')) {
        return Err(format!("path has the character {bad:?}, which is not allowed in it"));
    }
    match parts.last_mut() {
        Some(Part::Literal(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => parts.push(Part::Literal(text.to_owned())),
    }
    Ok(())
}

fn placeholder(text: &str) -> Result<Part, String> {
    if let Some(format) = text.strip_prefix("timestamp:") {
        return TimeFormat::new(format).map(Part::Timestamp);
    }
    if let Some(names) = text.strip_prefix("field.") {
        let names: Vec<String> = names.split('.').map(str::to_owned).collect();
        if names.iter().all(|name| !name.is_empty()) {
            return Ok(Part::Field(names));
        }
    }
    match text {
        "topic" => Ok(Part::Topic),
        "partition" => Ok(Part::Partition),
        "key" => Ok(Part::Key),
        "timestamp" => Err("`{timestamp}` needs a format: `{timestamp:%Y-%m-%d}`".to_owned()),
        _ => Err(format!(
            "unknown placeholder `{{{text}}}`; known are `{{topic}}`, `{{partition}}`, `{{timestamp:%Y-%m-%d}}`, \
             `{{key}}` and `{{field.NAME}}`"
        )),
    }
}

fn matches(parts: &[Part], path: &str) -> bool {
    let Some((part, rest)) = parts.split_first() else { return path.is_empty() };
    if let Part::Literal(text) = part {
        return path.strip_prefix(text.as_str()).is_some_and(|path| matches(rest, path));
    }
    // A time format may hold slashes; nothing else may.
    let limit = match part {
        Part::Timestamp(_) => path.len(),
        _ => path.find('/').unwrap_or(path.len()),
    };
    (1..=limit).any(|end| path.is_char_boundary(end) && matches(rest, &path[end..]))
}

/// A strftime format with the last text it made, valid for a whole day, hour or minute.
#[derive(Clone, Debug)]
struct TimeFormat {
    format: String,
    sample: String,
    /// Milliseconds for which the text stays the same; 0 when unknown.
    unit: i64,
    cached: Option<(i64, String)>,
}

impl TimeFormat {
    fn new(format: &str) -> Result<Self, String> {
        let wrong =
            |why: &dyn std::fmt::Display| format!("`{{timestamp:{format}}}` is not a time format: {why}");
        let sample = strtime::format(format, Timestamp::UNIX_EPOCH).map_err(|e| wrong(&e))?;
        if sample.is_empty() || sample.starts_with('/') || sample.chars().any(|c| c.is_control() || c == '\\')
        {
            return Err(wrong(&"it makes no name of a directory"));
        }
        Ok(Self { format: format.to_owned(), sample, unit: unit(format), cached: None })
    }

    fn at(&mut self, ms: i64) -> Result<&str> {
        let bucket = if self.unit > 0 { ms.div_euclid(self.unit) } else { ms };
        if self.cached.as_ref().is_none_or(|(cached, _)| *cached != bucket) {
            let text = Timestamp::from_millisecond(ms).and_then(|at| strtime::format(&self.format, at));
            let text = text.map_err(|error| {
                Error::bad_record(format!("timestamp {ms} cannot be written into the path"))
                    .with_source(error)
            })?;
            self.cached = Some((bucket, text));
        }
        Ok(self.cached.as_ref().map_or("", |(_, text)| text))
    }
}

/// How long the text of a format stays the same; 0 when it has a directive not listed here.
fn unit(format: &str) -> i64 {
    const MINUTE: i64 = 60_000;
    let mut unit = 24 * 60 * MINUTE;
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            continue;
        }
        unit = unit.min(match chars.next() {
            Some(
                'Y' | 'y' | 'C' | 'm' | 'b' | 'B' | 'h' | 'd' | 'e' | 'j' | 'F' | 'D' | 'a' | 'A' | 'u' | 'w'
                | 'V' | 'G' | '%',
            ) => unit,
            Some('H' | 'k' | 'I' | 'l' | 'p' | 'P') => 60 * MINUTE,
            Some('M' | 'R') => MINUTE,
            _ => 0,
        });
    }
    unit
}

/// Appends text from outside as one harmless piece of a path.
pub fn push_value(out: &mut String, text: &str) -> Result<()> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if text.is_empty() {
        out.push_str(EMPTY);
        return Ok(());
    }
    let start = out.len();
    // A value of dots alone could become `.` or `..` together with what stands around it.
    let dots = text.contains("..") || text == ".";
    for byte in text.bytes() {
        match byte {
            b'.' if dots => out.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'@' | b':' | b',' => {
                out.push(char::from(byte));
            }
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
        if out.len() - start > MAX_VALUE {
            return Err(Error::bad_record(format!("a value of the path is longer than {MAX_VALUE} bytes")));
        }
    }
    Ok(())
}

fn push_datum(out: &mut String, datum: &Datum, names: &[String]) -> Result<()> {
    // Decoded on the side: the datum itself stays the bytes that were consumed.
    let mut copy;
    let value = match datum.decoded() {
        Some(value) => value,
        None => {
            copy = datum.clone();
            copy.value()?
        }
    };
    let mut value = value;
    let mut schema: Option<&Schema> = datum.schema().map(|schema| &**schema);
    for name in names {
        let missing = || {
            let path = names.join(".");
            Error::bad_record(format!(
                "field `{path}`, which the path of the file needs, is not in the value"
            ))
        };
        (value, schema) = match (value, schema) {
            (Value::Null, _) => return push_scalar(out, &Value::Null, None),
            (Value::Struct(values), Some(parent)) => {
                let (index, field) = parent.field(name).ok_or_else(missing)?;
                (values.get(index).ok_or_else(missing)?, Some(&*field.schema))
            }
            (Value::Map(_), _) => (value.get(name).ok_or_else(missing)?, None),
            _ => return Err(missing()),
        };
    }
    push_scalar(out, value, schema)
}

fn push_scalar(out: &mut String, value: &Value, schema: Option<&Schema>) -> Result<()> {
    match value {
        Value::Null => {
            out.push_str(NULL);
            Ok(())
        }
        Value::String(text) => push_value(out, text),
        Value::Array(_) | Value::Map(_) | Value::Struct(_) => Err(Error::bad_record(format!(
            "a path cannot hold a value of type {}; name a scalar field",
            value.kind()
        ))),
        _ => {
            let mut text = Vec::new();
            json::encode(&mut text, value, schema)?;
            push_value(out, String::from_utf8_lossy(&text).trim_matches('"'))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn record(json: &'static str) -> Record {
        let mut record =
            Record::new(Arc::from("orders"), Datum::json(None, Bytes::from_static(json.as_bytes())));
        record.timestamp = Some(1_767_225_599_999);
        record.key = Datum::schemaless("k/1");
        record
    }

    fn render(template: &str, record: &Record) -> Result<String> {
        let mut out = String::new();
        let origin = TopicPartition { topic: Arc::from("orders"), partition: 3 };
        PathTemplate::parse(template).expect("a valid template").render(&mut out, record, &origin)?;
        Ok(out)
    }

    fn check(template: &str, expect: &str) {
        let record = record(r#"{"a":{"b":"x/../y"},"n":null,"e":"","d":"..","i":7,"o":{}}"#);
        assert_eq!(render(template, &record).expect("it renders"), expect);
        assert!(PathTemplate::parse(template).expect("valid").matches(expect), "{template} makes {expect}");
    }

    #[test]
    fn placeholders_are_filled_in() {
        check("", "");
        check("a/b", "a/b/");
        check("{topic}/{partition}/", "orders/3/");
        check("dt={timestamp:%Y-%m-%d}/h={timestamp:%H}", "dt=2025-12-31/h=23/");
        check("{timestamp:%Y/%m/%d}/x", "2025/12/31/x/");
        check("{key}/{field.i}", "k%2F1/7/");
    }

    #[test]
    fn values_stay_within_their_segment() {
        check("{field.a.b}", "x%2F%2E%2E%2Fy/");
        check("{field.n}/{field.e}/{field.d}", "__null__/__empty__/%2E%2E/");
        check("{field.n.deeper}", "__null__/");
    }

    #[test]
    fn a_field_that_is_missing_or_no_scalar_is_a_bad_record() {
        let record = record(r#"{"o":{},"l":[1]}"#);
        for template in ["{field.x}", "{field.o}", "{field.l}", "{field.o.x}"] {
            let error = render(template, &record).expect_err(template);
            assert_eq!(error.kind(), crate::ErrorKind::BadRecord);
        }
        assert!(record.value.as_json().is_some(), "looking for a field leaves the consumed bytes alone");
    }

    #[test]
    fn templates_that_leave_their_root_are_refused() {
        for template in [
            "../x",
            "a/../b",
            "a//b",
            "/a",
            "./a",
            "{timestamp:../%Y}",
            "{nope}",
            "{topic",
            "a}b",
            "{timestamp}",
            "{timestamp:%!}",
            "a\\b",
        ] {
            assert!(PathTemplate::parse(template).is_err(), "{template}");
        }
    }

    #[test]
    fn the_cached_time_changes_with_its_unit() {
        let mut format = TimeFormat::new("%Y-%m-%d %H:%M").expect("valid");
        for ms in [0, 59_999, 60_000, -1, 3_600_000, 86_400_000, 0] {
            let fresh = strtime::format("%Y-%m-%d %H:%M", Timestamp::from_millisecond(ms).expect("in range"));
            assert_eq!(format.at(ms).expect("in range"), fresh.expect("valid"));
        }
    }

    #[test]
    fn another_template_does_not_match() {
        let template = PathTemplate::parse("lake/{topic}/dt={timestamp:%Y}/").expect("valid");
        assert!(template.matches("lake/orders/dt=2026/"));
        for other in ["lake/orders/", "lake/a/b/", "sea/orders/dt=2026/", "lake/orders/dt=2026/x", ""] {
            assert!(!template.matches(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_one_safe_segment(text in ".{0,60}") {
            let mut out = String::new();
            if push_value(&mut out, &text).is_ok() {
                prop_assert!(!out.is_empty() && out != "." && !out.contains("..") && !out.contains('/'));
                prop_assert!(out.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
