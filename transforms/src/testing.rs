//! What the tests of the steps have in common.

use aqueduct_core::config::{Config, plain};
use aqueduct_core::transform::{Outcome, Transform, TransformFactory};
use aqueduct_core::{Datum, Error, Field, Record, Schema, SchemaRef, Type, Value};
use bytes::Bytes;

use crate::Kind;

fn config(entries: &[(&str, &str)]) -> Config {
    entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub(crate) fn build(kind: &Kind, entries: &[(&str, &str)]) -> Box<dyn Transform> {
    kind.build(&plain(&config(entries))).expect("a good config")
}

/// The one problem of a wrong config: its key and message.
pub(crate) fn problem(kind: &Kind, entries: &[(&str, &str)]) -> String {
    let problems = kind.validate(&plain(&config(entries)));
    assert_eq!(problems.len(), 1, "{problems:?}");
    format!("{}: {}", problems[0].key, problems[0].message)
}

pub(crate) fn json(text: &'static str) -> Record {
    Record::new("orders".into(), Datum::json(None, Bytes::from_static(text.as_bytes())))
}

pub(crate) fn typed(schema: &SchemaRef, value: Value) -> Record {
    Record::new("orders".into(), Datum::new(SchemaRef::clone(schema), value))
}

/// A struct schema of fields that may be null.
pub(crate) fn structure(fields: Vec<(&str, Schema)>) -> SchemaRef {
    let field = |(name, schema): (&str, Schema)| Field::new(name, schema.optional().shared());
    Schema::new(Type::Struct(fields.into_iter().map(field).collect())).shared()
}

pub(crate) fn one(step: &mut Box<dyn Transform>, record: Record) -> Outcome {
    step.apply(vec![record]).expect("no batch error").remove(0)
}

pub(crate) fn kept(step: &mut Box<dyn Transform>, record: Record) -> Record {
    match one(step, record) {
        Outcome::Keep(record) => record,
        other => panic!("kept expected, got {other:?}"),
    }
}

/// The value that comes out, as JSON.
pub(crate) fn out(step: &mut Box<dyn Transform>, record: Record) -> String {
    text(&kept(step, record).value)
}

pub(crate) fn text(datum: &Datum) -> String {
    String::from_utf8(datum.to_json().expect("encodes").to_vec()).expect("UTF-8")
}

/// The error of a record that fails, which is handed back as it was given.
pub(crate) fn failed(step: &mut Box<dyn Transform>, record: Record) -> Error {
    let before = (record.topic.to_string(), text(&record.value), text(&record.key));
    match one(step, record) {
        Outcome::Fail(record, error) => {
            assert_eq!((record.topic.to_string(), text(&record.value), text(&record.key)), before);
            error
        }
        other => panic!("failure expected, got {other:?}"),
    }
}
