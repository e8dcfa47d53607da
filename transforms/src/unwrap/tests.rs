use aqueduct_core::config::{Config, plain};
use aqueduct_core::{ErrorKind, Field, Schema, Type};
use bytes::Bytes;
use proptest::prelude::*;

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

/// JSON of a row; now and then there is none.
fn row() -> impl Strategy<Value = String> {
    let some = (any::<i64>(), prop::option::of(".*"), "[ \n]{0,2}").prop_map(|(id, name, blank)| {
        let name = serde_json::to_string(&name).expect("text");
        format!(r#"{{"id":{id}{blank},"name":{name}{blank}}}"#)
    });
    prop_oneof![8 => some, 1 => Just("null".to_owned()), 1 => Just("{}".to_owned()), 1 => Just("7".to_owned())]
}

fn envelope() -> impl Strategy<Value = String> {
    let op = prop_oneof![
        8 => "[curdtm]".prop_map(|op| format!("\"{op}\"")),
        1 => Just(r#""\u0063""#.to_owned()),
        1 => Just(r#""z""#.to_owned()),
        1 => Just("null".to_owned()),
    ];
    let source = prop_oneof![
        8 => any::<i64>().prop_map(|lsn| format!(r#"{{"table":"t","lsn":{lsn}}}"#)),
        1 => Just(r#"{"table":"t"}"#.to_owned()),
        1 => Just("null".to_owned()),
    ];
    let part = prop::sample::select(vec!["before", "after", "op", "source", "ts_ms", "other"]);
    (row(), row(), op, source, prop::option::weighted(0.2, part.clone()), prop::option::weighted(0.1, part))
        .prop_map(|(before, after, op, source, without, twice)| {
            let parts = [
                ("before", &*before),
                ("after", &*after),
                ("source", &*source),
                ("op", &*op),
                ("ts_ms", "5"),
                ("other", "[1]"),
            ];
            let once = parts.iter().filter(|(name, _)| Some(*name) != without);
            let again = parts.iter().filter(|(name, _)| Some(*name) == twice);
            let parts: Vec<String> =
                once.chain(again).map(|(name, part)| format!(r#" "{name}" : {part}"#)).collect();
            format!("{{{}}}", parts.join(","))
        })
}

fn config() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let deletes = vec!["tombstone", "drop", "delete-to-tombstone", "rewrite", "rewrite-with-tombstone"];
    let fields = vec!["", "op", "source.lsn, table", "nothing", "after.name", "op, ts_ms:when"];
    (prop::sample::select(deletes), prop::sample::select(fields.clone()), prop::sample::select(fields))
        .prop_map(|(deletes, fields, headers)| {
            vec![("deletes", deletes), ("add.fields", fields), ("add.headers", headers)]
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn text_and_decoded_values_give_the_same(text in envelope(), config in config(), typed: bool) {
        let schema = typed.then(envelope_schema);
        let text = Record::new("t".into(), Datum::json(schema, Bytes::from(text)));
        let mut decoded = text.clone();
        // Text that is no value of its schema need not be noticed by a step that does not look into it.
        prop_assume!(decoded.value.value().is_ok());
        let mut results = [text, decoded].map(|record| step(&config).apply(vec![record]).expect("no batch error").remove(0));
        for outcome in &mut results {
            if let Outcome::Keep(record) | Outcome::Fail(record, _) = outcome
                && record.value.value().is_err()
            {
                prop_assert!(false, "the row does not decode: {record:?}");
            }
        }
        let [text, decoded] = results.map(|outcome| format!("{outcome:?}"));
        prop_assert_eq!(text, decoded);
    }
}
