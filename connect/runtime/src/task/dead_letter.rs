//! Dead letters: what is written, and whether.
//!
//! **Invariant:** a dead letter holds what was consumed (sinks) or the record before the failing step (sources), and
//! says where it came from and why. What is cut says so.

use std::collections::BTreeMap;

use aqueduct_client::ProducerRecord;
use aqueduct_convert::encode_header;
use aqueduct_core::sink::{Consumed, TopicPartition};
use aqueduct_core::source::SourcePosition;
use aqueduct_core::{Datum, Error, ErrorKind, Record, Result, Str, Topic, json};
use bytes::Bytes;
use serde_json::Value as Json;

use crate::framework::MAX_RECORD_BYTES;
use crate::task::steps::Failure;
use crate::topics::TopicSettings;

/// What is kept of a key or value that is too large.
const CUT_BYTES: usize = 64 << 10;
/// Room for headers below the largest record.
const LETTER_BYTES: usize = MAX_RECORD_BYTES - (256 << 10);
/// Longest text in a header.
const MAX_TEXT: usize = 16 << 10;

/// Where a bad record came from.
pub(crate) enum Origin<'a> {
    Source { topic: &'a str, position: Option<&'a SourcePosition> },
    Sink { partition: &'a TopicPartition, offset: i64 },
}

/// Writes the letters of one task.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetters {
    pub(crate) topic: Topic,
    pub(crate) connector: String,
    pub(crate) task: usize,
}

impl DeadLetters {
    /// The topic's settings: one partition, so that letters keep their order.
    pub(crate) fn settings(replication_factor: i32) -> TopicSettings {
        TopicSettings { partitions: 1, replication_factor, ..TopicSettings::default() }
    }

    /// The letter of a record that a sink consumed: its bytes as they are.
    pub(crate) fn of_consumed(
        &self,
        consumed: &Consumed,
        origin: &Origin<'_>,
        failure: &Failure,
    ) -> ProducerRecord {
        let mut letter =
            ProducerRecord::new(Topic::clone(&self.topic), consumed.key.clone(), consumed.value.clone());
        letter.headers.clone_from(&consumed.headers);
        self.finish(letter, origin, failure)
    }

    /// The letter of a record from a source: JSON with its schema, as JsonConverter writes it.
    pub(crate) fn of_record(
        &self,
        record: &Record,
        origin: &Origin<'_>,
        failure: &Failure,
    ) -> ProducerRecord {
        let mut letter =
            ProducerRecord::new(Topic::clone(&self.topic), envelope(&record.key), envelope(&record.value));
        for header in record.headers.iter() {
            letter.headers.push((header.name.clone(), encode_header(&header.value).unwrap_or_default()));
        }
        self.finish(letter, origin, failure)
    }

    fn finish(&self, mut letter: ProducerRecord, origin: &Origin<'_>, failure: &Failure) -> ProducerRecord {
        if letter.size() > LETTER_BYTES {
            cut(&mut letter);
        }
        let error = failure.error.full();
        let kind = format!("{:?}", failure.error.kind());
        let mut put = |name: &'static str, text: String| {
            let text = shorten(text);
            letter.headers.push((Str::from_static(name), Some(Bytes::from(text))));
        };
        match origin {
            Origin::Sink { partition, offset } => {
                put("__connect.errors.topic", partition.topic.to_string());
                put("__connect.errors.partition", partition.partition.to_string());
                put("__connect.errors.offset", offset.to_string());
                put("aqueduct.errors.topic", partition.topic.to_string());
                put("aqueduct.errors.partition", partition.partition.to_string());
                put("aqueduct.errors.offset", offset.to_string());
            }
            Origin::Source { topic, position } => {
                put("__connect.errors.topic", (*topic).to_owned());
                put("aqueduct.errors.topic", (*topic).to_owned());
                if let Some(position) = position {
                    put(
                        "aqueduct.errors.source.partition",
                        Json::Object((*position.partition).clone()).to_string(),
                    );
                    put(
                        "aqueduct.errors.source.offset",
                        Json::Object((*position.offset).clone()).to_string(),
                    );
                }
            }
        }
        put("__connect.errors.connector.name", self.connector.clone());
        put("__connect.errors.task.id", self.task.to_string());
        put("__connect.errors.stage", failure.stage.name().to_owned());
        put("__connect.errors.class.name", failure.class.clone());
        put("__connect.errors.exception.class.name", kind);
        put("__connect.errors.exception.message", error.clone());
        put("__connect.errors.exception.stacktrace", error.clone());
        put("aqueduct.errors.connector", self.connector.clone());
        put("aqueduct.errors.task", self.task.to_string());
        put("aqueduct.errors.stage", failure.stage.name().to_owned());
        if let Some(step) = &failure.step {
            put("aqueduct.errors.step", step.clone());
        }
        put("aqueduct.errors.error", error);
        letter
    }
}

/// Null stays null; what cannot be encoded says why in its place.
fn envelope(datum: &Datum) -> Option<Bytes> {
    if datum.is_null() && datum.schema().is_none() {
        return None;
    }
    match json::encode_with_schema(datum, json::Style::default()) {
        Ok(bytes) => Some(bytes),
        Err(error) => Some(Bytes::from(format!("not encodable as JSON: {}", error.full()))),
    }
}

fn cut(letter: &mut ProducerRecord) {
    let mut sizes = BTreeMap::new();
    for (name, part) in [("key", &mut letter.key), ("value", &mut letter.value)] {
        if let Some(bytes) = part
            && bytes.len() > CUT_BYTES
        {
            sizes.insert(name.to_owned(), bytes.len());
            *bytes = bytes.slice(..CUT_BYTES);
        }
    }
    let mut room = CUT_BYTES;
    letter.headers.retain(|(name, value)| {
        let size = name.len() + value.as_ref().map_or(0, Bytes::len);
        let keep = size <= room;
        room = if keep { room - size } else { room };
        if !keep {
            sizes.insert(format!("header {name}"), size);
        }
        keep
    });
    let text = Json::Object(sizes.into_iter().map(|(name, size)| (name, size.into())).collect()).to_string();
    letter.headers.push((Str::from_static("aqueduct.errors.truncated"), Some(Bytes::from(shorten(text)))));
}

fn shorten(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Why the task stops when a letter is lost: neither the record nor its letter may be passed over.
pub(crate) fn unwritable(error: &Error) -> Error {
    Error::fatal(format!("a dead letter cannot be written: {}", error.full()))
}

/// What happens to a bad record.
pub(crate) enum Verdict {
    /// It becomes a dead letter.
    Letter,
    /// It is skipped: tolerated, and there is no topic for it.
    Skip,
}

/// Whether the task goes on after a failure: the one place where `errors.tolerance` decides.
pub(crate) fn judge(tolerate: bool, has_topic: bool, failure: &Failure, what: &str) -> Result<Verdict> {
    if !tolerate {
        let step = failure.step.as_deref().map(|step| format!(" in step `{step}`")).unwrap_or_default();
        // Tried again in place it would be bad again.
        let kind = match failure.error.kind() {
            ErrorKind::Retriable { .. } | ErrorKind::Cancelled => ErrorKind::BadRecord,
            kind @ (ErrorKind::BadRecord | ErrorKind::BadConfig | ErrorKind::Fatal) => kind,
        };
        let text = format!(
            "{what}: {}{step}: {}; set `errors.tolerance=all` and `errors.deadletterqueue.topic.name` to go on",
            failure.stage.name(),
            failure.error.full()
        );
        return Err(Error::new(kind, text));
    }
    Ok(if has_topic { Verdict::Letter } else { Verdict::Skip })
}

#[cfg(test)]
mod tests {
    use aqueduct_core::source::{JsonMap, partition_of};
    use aqueduct_core::{Schema, Type, Value};

    use super::*;
    use crate::task::steps::Stage;

    fn letters() -> DeadLetters {
        DeadLetters { topic: "dead".into(), connector: "lake".into(), task: 1 }
    }

    fn failure() -> Failure {
        let error = Error::bad_record("no such field `email`");
        Failure { stage: Stage::Transformation, step: Some("mask".into()), class: "mask".into(), error }
    }

    fn header(letter: &ProducerRecord, name: &str) -> Option<String> {
        let (_, value) = letter.headers.iter().find(|(header, _)| &**header == name)?;
        Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
    }

    #[test]
    fn a_sinks_letter_is_what_was_consumed_and_says_where() {
        let consumed = Consumed {
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"\xff not json")),
            headers: vec![(Str::from_static("trace"), Some(Bytes::from_static(b"1")))],
        };
        let partition = TopicPartition { topic: "orders".into(), partition: 3 };
        let letter =
            letters().of_consumed(&consumed, &Origin::Sink { partition: &partition, offset: 42 }, &failure());
        assert_eq!((letter.key.clone(), letter.value.clone()), (consumed.key, consumed.value));
        for (name, text) in [
            ("trace", "1"),
            ("__connect.errors.topic", "orders"),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "42"),
            ("__connect.errors.connector.name", "lake"),
            ("__connect.errors.task.id", "1"),
            ("__connect.errors.stage", "TRANSFORMATION"),
            ("__connect.errors.exception.message", "no such field `email`"),
            ("aqueduct.errors.step", "mask"),
            ("aqueduct.errors.error", "no such field `email`"),
        ] {
            assert_eq!(header(&letter, name).as_deref(), Some(text), "{name}");
        }
    }

    #[test]
    fn a_sources_letter_is_json_with_its_schema_and_position() {
        let schema = Schema::new(Type::String).shared();
        let record = Record::new("orders".into(), Datum::new(schema, Value::from("x")));
        let offset = std::sync::Arc::new(JsonMap::from_iter([("lsn".to_owned(), 7.into())]));
        let position = SourcePosition { partition: partition_of("server", "a"), offset };
        let origin = Origin::Source { topic: "orders", position: Some(&position) };
        let letter = letters().of_record(&record, &origin, &failure());
        let value = letter.value.as_deref().map(String::from_utf8_lossy);
        assert_eq!(value.as_deref(), Some(r#"{"schema":{"type":"string","optional":false},"payload":"x"}"#));
        assert_eq!(letter.key, None);
        assert_eq!(header(&letter, "aqueduct.errors.source.offset").as_deref(), Some(r#"{"lsn":7}"#));
    }

    #[test]
    fn one_that_is_too_large_keeps_its_head_and_says_so() {
        let consumed =
            Consumed { value: Some(Bytes::from(vec![b'x'; MAX_RECORD_BYTES])), ..Consumed::default() };
        let partition = TopicPartition { topic: "orders".into(), partition: 0 };
        let letter =
            letters().of_consumed(&consumed, &Origin::Sink { partition: &partition, offset: 1 }, &failure());
        assert_eq!(letter.value.as_ref().map(Bytes::len), Some(CUT_BYTES));
        assert_eq!(header(&letter, "aqueduct.errors.truncated").as_deref(), Some(r#"{"value":16777216}"#));
    }

    #[test]
    fn without_tolerance_the_task_stops_and_says_how_to_go_on() {
        let error = judge(false, true, &failure(), "record 5").err().expect("stops");
        assert!(error.message().contains("errors.tolerance=all"), "{}", error.message());
        assert!(matches!(judge(true, false, &failure(), "r"), Ok(Verdict::Skip)));
        assert!(matches!(judge(true, true, &failure(), "r"), Ok(Verdict::Letter)));
    }
}
