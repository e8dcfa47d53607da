//! URLs with placeholders.
//!
//! **Invariant:** what a record holds is percent-encoded, so that it never changes the host, adds a path segment or a
//! parameter; and never shown in a message is what the configuration has behind the path, or before the host.

use aqueduct_core::{Datum, Error, FieldPath, Record, Result, Slot, Value};
use reqwest::Url;

/// A parsed URL.
#[derive(Clone, Debug)]
pub(crate) struct UrlTemplate {
    parts: Vec<Part>,
    /// Scheme, host and path, for messages.
    shown: String,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Topic,
    Partition,
    Key,
    Field(FieldPath),
}

impl UrlTemplate {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text.trim();
        while let Some(open) = rest.find('{') {
            // `${topic}` is how other sinks write it.
            parts.push(Part::Literal(rest[..open].trim_end_matches('$').to_owned()));
            let inside = &rest[open + 1..];
            let close = inside.find('}').ok_or("it has a `{` without its `}`")?;
            parts.push(match &inside[..close] {
                "topic" => Part::Topic,
                "partition" => Part::Partition,
                "key" => Part::Key,
                name => match name.strip_prefix("field.").map(FieldPath::parse) {
                    Some(Ok(path)) => Part::Field(path),
                    _ => {
                        return Err(format!(
                            "unknown placeholder `{{{name}}}`; known are `{{topic}}`, `{{partition}}`, `{{key}}` and \
                             `{{field.NAME}}`"
                        ));
                    }
                },
            });
            rest = &inside[close + 1..];
        }
        parts.push(Part::Literal(rest.to_owned()));
        let shape: String = parts
            .iter()
            .map(|part| if let Part::Literal(text) = part { text.as_str() } else { "x" })
            .collect();
        let url = Url::parse(&shape).map_err(|error| format!("it is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("it is not a URL such as `https://example.com/orders`".to_owned());
        }
        let origin = url.origin().ascii_serialization();
        let fixed = match parts.first() {
            Some(Part::Literal(first)) if parts.len() > 1 => {
                first.split_once("://").is_some_and(|(_, rest)| rest.contains('/'))
            }
            _ => true,
        };
        if !fixed {
            return Err(
                "a placeholder may not be part of the host; begin with `https://example.com/`".to_owned()
            );
        }
        let shown = format!("{origin}{}", url.path());
        Ok(Self { parts, shown })
    }

    /// Scheme, host and path.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The URL of a record. An error, such as a field that is missing, is a bad record.
    pub(crate) fn render(&self, record: &mut Record, partition: i32) -> Result<Url> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Topic => encode(&mut out, &record.topic),
                Part::Partition => out.push_str(&partition.to_string()),
                Part::Key => scalar(&mut out, &mut record.key, &FieldPath::whole())
                    .map_err(|why| Error::bad_record(format!("the key {why}, so the URL cannot be made")))?,
                Part::Field(path) => scalar(&mut out, &mut record.value, path)
                    .map_err(|why| Error::bad_record(format!("`{path}` {why}, so the URL cannot be made")))?,
            }
        }
        Url::parse(&out)
            .map_err(|error| Error::bad_record("the URL of the record is not valid").with_source(error))
    }
}

fn scalar(out: &mut String, datum: &mut Datum, path: &FieldPath) -> Result<(), String> {
    let schema = datum.schema().cloned();
    let value = datum.value().map_err(|error| error.full())?;
    let locator = path.locate(schema.as_ref()).ok_or("is not there")?;
    match locator.get(value) {
        Slot::Found(Value::String(text)) if !text.is_empty() => encode(out, text),
        Slot::Found(Value::Bool(v)) => out.push_str(if *v { "true" } else { "false" }),
        Slot::Found(other) => match other.as_i64() {
            Some(number) => out.push_str(&number.to_string()),
            None => return Err(format!("is {}, not text or an integer", other.kind())),
        },
        Slot::NullParent => return Err("is null".to_owned()),
        Slot::Missing => return Err("is not there".to_owned()),
    }
    Ok(())
}

/// Everything but unreserved characters; dots too where they could make `..`.
fn encode(out: &mut String, text: &str) {
    let dots = text.chars().all(|c| c == '.');
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(char::from(byte)),
            b'.' if !dots => out.push('.'),
            // A URL parser undoes `%2E%2E`; a value of dots alone becomes something else.
            b'.' => out.push_str("%252E"),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(text: &'static str) -> Record {
        let mut record =
            Record::new("or/ders".into(), Datum::json(None, Bytes::from_static(text.as_bytes())));
        record.key = Datum::schemaless("a b");
        record
    }

    fn url(template: &str, text: &'static str) -> Result<String> {
        let template = UrlTemplate::parse(template).expect("a template");
        template.render(&mut record(text), 3).map(String::from)
    }

    #[test]
    fn what_a_record_holds_stays_in_its_place() {
        assert_eq!(
            url("https://h/{topic}/{partition}/{key}?x={field.a.b}", r#"{"a":{"b":"1&y=2/../#"}}"#)
                .expect("renders"),
            "https://h/or%2Fders/3/a%20b?x=1%26y%3D2%2F..%2F%23"
        );
        assert_eq!(url("https://h/x/${topic}", "1").expect("renders"), "https://h/x/or%2Fders");
        assert!(
            url("https://h/x/{field.a}/y", r#"{"a":".."}"#).expect("renders").contains("/x/%252E%252E/y")
        );
    }

    #[test]
    fn what_cannot_stand_in_a_url_is_a_bad_record() {
        for text in ["{}", r#"{"a":null}"#, r#"{"a":[1]}"#, r#"{"a":""}"#] {
            assert!(url("https://h/{field.a}", text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_urls_are_refused() {
        for text in [
            "",
            "localhost/x",
            "ftp://h/",
            "https://{key}/x",
            "https://h{topic}/",
            "https://h/{nope}",
            "https://h/{",
        ] {
            assert!(UrlTemplate::parse(text).is_err(), "{text}");
        }
        assert_eq!(UrlTemplate::parse("http://u:p@h:1/a?token=t").expect("valid").shown(), "http://h:1/a");
    }
}
