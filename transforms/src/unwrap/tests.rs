use aqueduct_core::config::{Config, plain};
use aqueduct_core::{ErrorKind, Field, Schema, Type};
use bytes::Bytes;

use super::*;

fn step(config: &[(&str, &str)]) -> Box<dyn Transform> {
    let config: Config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Unwrap::new().build(&plain(&config)).expect("a good config")
}

fn envelope_schema() -> SchemaRef {
    let row = vec![
        Field::new("id", Schema::new(Type::Int64).shared()),
        Field::new("name", Schema::new(Type::String).optional().shared()),
    ];
    let row = Schema::structure("p.public.t.Value", row).optional().shared();
    let source = vec![
        Field::new("table", Schema::new(Type::String).shared()),
        Field::new("lsn", Schema::new(Type::Int64).optional().shared()),
    ];
    let source = Schema::structure("io.debezium.connector.postgresql.Source", source).shared();
    Schema::structure(
        "p.public.t.Envelope",
        vec![
            Field::new("before", Arc::clone(&row)),
            Field::new("after", row),
            Field::new("source", source),
            Field::new("op", Schema::new(Type::String).shared()),
        ],
    )
    .shared()
}

const UPDATE: &str =
    r#"{"before":{"id":1,"name":"a"},"after":{"id":1,"name":"b"},"source":{"table":"t","lsn":99},"op":"u"}"#;
const DELETE: &str =
    r#"{"before":{"id":1,"name":"b"},"after":null,"source":{"table":"t","lsn":99},"op":"d"}"#;

fn check(config: &[(&str, &str)], input: &'static str, expect: Option<&str>) {
    for schema in [Some(envelope_schema()), None] {
        let value = Datum::json(schema, Bytes::from_static(input.as_bytes()));
        let outcome =
            step(config).apply(vec![Record::new("t".into(), value)]).expect("no batch error").remove(0);
        match (outcome, expect) {
            (Outcome::Keep(record), Some(text)) => {
                assert_eq!(record.value.to_json().expect("encodes"), text.as_bytes(), "{config:?}");
            }
            (Outcome::Drop, None) => {}
            (other, expect) => panic!("{config:?} {input}: {expect:?} expected, got {other:?}"),
        }
    }
}

#[test]
fn rows_come_out_of_changes() {
    check(&[], UPDATE, Some(r#"{"id":1,"name":"b"}"#));
    check(&[("deletes", "rewrite")], UPDATE, Some(r#"{"id":1,"name":"b","__deleted":"false"}"#));
    let extra = [("add.fields", "op, lsn, source.table, lsn:position")];
    let row = r#"{"id":1,"name":"b","__op":"u","__lsn":99,"__source_table":"t","__position":99}"#;
    check(&extra, UPDATE, Some(row));
}

#[test]
fn deletes_become_what_was_asked_for() {
    check(&[], DELETE, None);
    check(&[("deletes", "drop")], DELETE, None);
    check(&[("delete.tombstone.handling.mode", "delete-to-tombstone")], DELETE, Some("null"));
    check(&[("deletes", "rewrite")], DELETE, Some(r#"{"id":1,"name":"b","__deleted":"true"}"#));
    check(
        &[("deletes", "rewrite-with-tombstone")],
        DELETE,
        Some(r#"{"id":1,"name":"b","__deleted":"true"}"#),
    );
}

#[test]
fn tombstones_pass_or_go_by_the_same_setting() {
    for (deletes, passes) in [
        ("tombstone", true),
        ("drop", false),
        ("delete-to-tombstone", false),
        ("rewrite", false),
        ("rewrite-with-tombstone", true),
    ] {
        let record = Record::new("t".into(), Datum::null());
        let outcome = step(&[("deletes", deletes)]).apply(vec![record]).expect("no batch error").remove(0);
        assert_eq!(matches!(outcome, Outcome::Keep(_)), passes, "{deletes}");
    }
}

#[test]
fn what_is_no_envelope_passes_unchanged() {
    let mut step = step(&[("deletes", "rewrite")]);
    let row = Schema::structure("row", vec![Field::new("op", Schema::new(Type::String).shared())]).shared();
    for value in [
        Datum::json(Some(row), Bytes::from_static(br#"{"op":"d"}"#)),
        Datum::json(None, Bytes::from_static(br#"{"op":"d","after":1}"#)),
        Datum::json(None, Bytes::from_static(b"[1]")),
    ] {
        let given = value.to_json().expect("encodes");
        let outcome = step.apply(vec![Record::new("t".into(), value)]).expect("no batch error").remove(0);
        let Outcome::Keep(record) = outcome else { panic!("{given:?} must pass") };
        assert_eq!(record.value.to_json().expect("encodes"), given);
    }
}

#[test]
fn rows_share_one_schema_and_lose_the_optional() {
    let mut step = step(&[("deletes", "rewrite")]);
    let mut schemas = Vec::new();
    for input in [UPDATE, DELETE, UPDATE] {
        // A new object each time, as after a restart.
        let value = Datum::json(Some(envelope_schema()), Bytes::from_static(input.as_bytes()));
        let outcome = step.apply(vec![Record::new("t".into(), value)]).expect("no batch error").remove(0);
        let Outcome::Keep(record) = outcome else { panic!("kept") };
        schemas.push(Arc::clone(record.value.schema().expect("typed")));
    }
    assert!(schemas.iter().all(|schema| Arc::ptr_eq(schema, &schemas[0]) && !schema.optional));
    assert_eq!(schemas[0].name.as_deref(), Some("p.public.t.Value"));
}

#[test]
fn a_broken_event_fails_and_is_handed_back_whole() {
    for (config, input, part) in [
        (
            &[("deletes", "rewrite")][..],
            r#"{"before":null,"after":null,"source":{"table":"t"},"op":"d"}"#,
            "REPLICA",
        ),
        (&[], r#"{"before":null,"after":null,"source":{"table":"t"},"op":"u"}"#, "no row in `after`"),
        (&[], r#"{"before":null,"after":{"id":1},"source":{"table":"t"},"op":"z"}"#, "unknown `op` `z`"),
        (&[("add.fields", "nothing")], UPDATE, "no `source.nothing`"),
    ] {
        for schema in [Some(envelope_schema()), None] {
            let value = Datum::json(schema, Bytes::from_static(input.as_bytes()));
            let mut given = value.clone();
            let outcome =
                step(config).apply(vec![Record::new("t".into(), value)]).expect("no batch error").remove(0);
            let Outcome::Fail(mut back, error) = outcome else { panic!("{input} must fail") };
            assert_eq!(error.kind(), ErrorKind::BadRecord);
            assert!(error.message().contains(part), "{input}: {error}");
            assert_eq!(back.value.value().expect("decodes"), given.value().expect("decodes"));
        }
    }
}

#[test]
fn metadata_goes_into_headers() {
    let value = Datum::json(Some(envelope_schema()), Bytes::from_static(UPDATE.as_bytes()));
    let mut step = step(&[("add.headers", "op,lsn"), ("add.headers.prefix", "x-")]);
    let outcome = step.apply(vec![Record::new("t".into(), value)]).expect("no batch error").remove(0);
    let Outcome::Keep(record) = outcome else { panic!("kept") };
    let header = |name: &str| record.headers.last(name).and_then(|header| header.value.decoded()).cloned();
    assert_eq!(header("x-op"), Some("u".into()));
    assert_eq!(header("x-lsn"), Some(Value::Int64(99)));
}
