use aqueduct_core::transform::Outcome;

use super::*;
use crate::testing::*;

fn turned(entries: &[(&str, &str)], text: &'static str) -> String {
    let entries = [entries, &[("fields", "t")]].concat();
    out(&mut build(&timestamp(), &entries), json(text))
}

/// A config, what goes in and what comes out.
type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str);

#[test]
fn plain_json_turns_by_precision_and_format() {
    let cases: &[Case] = &[
        (&[("to", "string")], r#"{"t":1767261600123}"#, r#"{"t":"2026-01-01T10:00:00.123Z"}"#),
        (&[("to", "string"), ("precision", "seconds")], r#"{"t":0}"#, r#"{"t":"1970-01-01T00:00:00Z"}"#),
        (&[("to", "string"), ("format", "%Y/%m/%d")], r#"{"t":0}"#, r#"{"t":"1970/01/01"}"#),
        (&[("to", "timestamp")], r#"{"t":"2026-01-01T12:00:00+02:00"}"#, r#"{"t":1767261600000}"#),
        (&[("to", "timestamp")], r#"{"t":"2026-01-01 10:00:00"}"#, r#"{"t":1767261600000}"#),
        (&[("to", "timestamp")], r#"{"t":"2026-01-01"}"#, r#"{"t":1767225600000}"#),
        (&[("to", "date"), ("format", "%d.%m.%Y")], r#"{"t":"02.01.1970"}"#, r#"{"t":1}"#),
        (&[("to", "unix"), ("precision", "seconds")], r#"{"t":"1969-12-31T23:59:59.5Z"}"#, r#"{"t":-1}"#),
        (&[("to", "time")], r#"{"t":"10:00:00.5"}"#, r#"{"t":36000500}"#),
        (&[("to", "date")], r#"{"t":null}"#, r#"{"t":null}"#),
    ];
    for (entries, given, expected) in cases {
        assert_eq!(&turned(entries, given), expected, "{entries:?} of {given}");
    }
}

#[test]
fn a_schema_says_what_its_numbers_are() {
    let schema = structure(vec![
        ("t", Schema::new(Type::Int64).named("io.debezium.time.MicroTimestamp")),
        ("d", Schema::new(Type::Int32).named(logical::DEBEZIUM_DATE)),
    ]);
    let value = Value::Struct(vec![Value::Int64(1_767_261_600_123_456), Value::Int32(1)]);
    let mut to_text = build(&timestamp(), &[("fields", "t,d"), ("to", "string")]);
    assert_eq!(
        out(&mut to_text, typed(&schema, value.clone())),
        r#"{"t":"2026-01-01T10:00:00.123456Z","d":"1970-01-02"}"#
    );
    let record =
        kept(&mut build(&timestamp(), &[("fields", "t,d"), ("to", "timestamp")]), typed(&schema, value));
    assert_eq!(text(&record.value), r#"{"t":1767261600123,"d":86400000}"#);
    let schema = record.value.schema().expect("kept");
    let t = &schema.field("t").expect("kept").1.schema;
    assert_eq!((t.name.as_deref(), t.optional), (Some(logical::TIMESTAMP), true));
}

#[test]
fn what_is_no_time_is_a_bad_record() {
    let mut to_date = build(&timestamp(), &[("fields", "t"), ("to", "date")]);
    for text in
        [r#"{"t":"soon"}"#, r#"{"t":"2026-13-01"}"#, r#"{"t":true}"#, r#"{"t":"10:00"}"#, r#"{"x":1}"#]
    {
        failed(&mut to_date, json(text));
    }
    let mut to_text = build(&timestamp(), &[("fields", "t"), ("to", "string")]);
    failed(&mut to_text, json(r#"{"t":9223372036854775807}"#));
    let schema = structure(vec![("t", Schema::new(Type::Int64).named("io.debezium.time.MicroTime"))]);
    for (number, fits) in [(86_400_000_000, true), (86_400_000_001, false), (-1, false), (i64::MAX, false)] {
        for to in ["time", "string", "unix"] {
            let mut step = build(&timestamp(), &[("fields", "t"), ("to", to)]);
            let given = typed(&schema, Value::Struct(vec![Value::Int64(number)]));
            assert_eq!(matches!(one(&mut step, given), Outcome::Keep(_)), fits, "{number} to {to}");
        }
    }
}

#[test]
fn wrong_configs_say_what_to_do() {
    let entries = [("fields", "t"), ("to", "string"), ("format", "%!")];
    assert!(problem(&timestamp(), &entries).contains("`%!` is not a time format"));
    assert!(problem(&timestamp(), &[("fields", ""), ("to", "date")]).contains("name the fields"));
}
