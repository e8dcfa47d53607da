use aqueduct_core::transform::TransformFactory;
use aqueduct_core::{Datum, Schema, SchemaRef, Type, Value};

use super::*;
use crate::testing::{build, failed, json, kept, one, out, problem, structure, text, typed};

fn kind(name: &str) -> Kind {
    let full = format!("org.apache.kafka.connect.transforms.{name}");
    kinds().into_iter().find(|kind| kind.spec().name == full).expect("a class of Connect")
}

fn run(name: &str, config: &[(&str, &str)], text: &'static str) -> String {
    out(&mut build(&kind(name), config), json(text))
}

/// A class, its config, what goes in and what comes out.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

#[test]
fn configs_of_connect_work_on_plain_json() {
    let cases: &[Case] = &[
        ("Cast$Value", &[("spec", "a:int8,b:string")], r#"{"a":300,"b":1}"#, r#"{"a":44,"b":"1"}"#),
        ("Flatten$Value", &[("delimiter", "_")], r#"{"a":{"b":1}}"#, r#"{"a_b":1}"#),
        (
            "InsertField$Value",
            &[("static.field", "s!"), ("static.value", "x"), ("topic.field", "t")],
            "{}",
            r#"{"t":"orders","s":"x"}"#,
        ),
        (
            "ReplaceField$Value",
            &[("exclude", "a"), ("renames", "b:c")],
            r#"{"a":1,"b":2,"d":3}"#,
            r#"{"c":2,"d":3}"#,
        ),
        (
            "ReplaceField$Value",
            &[("whitelist", "a,b"), ("renames", "b:c")],
            r#"{"a":1,"b":2,"d":3}"#,
            r#"{"a":1,"c":2}"#,
        ),
        (
            "TimestampConverter$Value",
            &[("field", "t"), ("target.type", "string"), ("format", "yyyy-MM-dd HH:mm:ss.SSS")],
            r#"{"t":1767261600123}"#,
            r#"{"t":"2026-01-01 10:00:00.123"}"#,
        ),
        (
            "TimestampConverter$Value",
            &[
                ("field", "t"),
                ("target.type", "unix"),
                ("format", "yyyy-MM-dd"),
                ("unix.precision", "seconds"),
            ],
            r#"{"t":"2026-01-01"}"#,
            r#"{"t":1767225600}"#,
        ),
        (
            "ReplaceField$Value",
            &[("exclude", "a.b"), ("renames", "c.d:e")],
            r#"{"a.b":1,"c.d":2}"#,
            r#"{"e":2}"#,
        ),
        ("Cast$Value", &[("spec", "a.b:string")], r#"{"a.b":1}"#, r#"{"a.b":"1"}"#),
        ("MaskField$Value", &[("fields", "a.b")], r#"{"a.b":"x"}"#, r#"{"a.b":""}"#),
        ("ExtractField$Value", &[("field", "a")], r#"{"a":{"b":1}}"#, r#"{"b":1}"#),
        ("ExtractField$Value", &[("field", "a.b"), ("field.syntax.version", "V2")], r#"{"a":{"b":1}}"#, "1"),
        ("HoistField$Value", &[("field", "line")], r#""x""#, r#"{"line":"x"}"#),
        ("MaskField$Value", &[("fields", "a,b")], r#"{"a":"x","b":7}"#, r#"{"a":"","b":0}"#),
        ("MaskField$Value", &[("fields", "a"), ("replacement", "-")], r#"{"a":"x"}"#, r#"{"a":"-"}"#),
    ];
    for (name, config, given, expected) in cases {
        assert_eq!(&run(name, config, given), expected, "{name} {config:?}");
    }
}

#[test]
fn tombstones_and_null_keys_pass() {
    for (name, config) in [
        ("Cast$Value", [("spec", "a:int8")]),
        ("InsertField$Value", [("topic.field", "t")]),
        ("ReplaceField$Value", [("exclude", "a")]),
        ("Flatten$Value", [("delimiter", ".")]),
    ] {
        let tombstone = Record::new("orders".into(), Datum::null());
        assert!(kept(&mut build(&kind(name), &config), tombstone).value.is_null(), "{name}");
    }
    let mut keys = build(&kind("Cast$Key"), &[("spec", "string")]);
    assert!(kept(&mut keys, json("{}")).key.is_null());
}

#[test]
fn keys_are_made_of_values() {
    let config = [("fields", "id,b")];
    let mut step = build(&kind("ValueToKey"), &config);
    assert_eq!(text(&kept(&mut step, json(r#"{"id":7,"a":1}"#)).key), r#"{"id":7,"b":null}"#);
    let schema = structure(vec![("id", Schema::new(Type::Int64)), ("b", Schema::new(Type::String))]);
    let value = || Value::Struct(vec![Value::Int64(7), Value::from("x")]);
    let record = kept(&mut step, typed(&schema, value()));
    assert_eq!(text(&record.key), r#"{"id":7,"b":"x"}"#);
    assert_eq!(record.key.schema().map(|schema| schema.fields().len()), Some(2));
    let mut missing = build(&kind("ValueToKey"), &[("fields", "nope")]);
    assert!(failed(&mut missing, typed(&schema, value())).message().contains("nope"));
    let mut extract = build(&kind("ExtractField$Key"), &[("field", "id")]);
    let extracted = kept(&mut extract, record);
    assert_eq!(text(&extracted.key), "7");
    assert_eq!(extracted.key.schema().map(|schema| schema.ty.clone()), Some(Type::Int64));
}

#[test]
fn headers_come_and_go() {
    let header = |record: &Record, name: &str| record.headers.last(name).map(|header| text(&header.value));
    let mut insert = build(&kind("InsertHeader"), &[("header", "h"), ("value.literal", "1")]);
    let record = kept(&mut insert, json(r#"{"a":"x","b":2}"#));
    assert_eq!(header(&record, "h").as_deref(), Some("1"));
    let config = [("fields", "a"), ("headers", "from-a"), ("operation", "move")];
    let record = kept(&mut build(&kind("HeaderFrom$Value"), &config), record);
    assert_eq!(
        (header(&record, "from-a").as_deref(), text(&record.value).as_str()),
        (Some("\"x\""), r#"{"b":2}"#)
    );
    let record = kept(&mut build(&kind("DropHeaders"), &[("headers", "h")]), record);
    assert_eq!((header(&record, "h"), record.headers.len()), (None, 1));
}

#[test]
fn topics_are_named_after_the_time() {
    let mut step = build(&kind("TimestampRouter"), &[("topic.format", "${topic}.${timestamp}")]);
    let mut record = json("1");
    record.timestamp = Some(1_767_261_600_123);
    assert_eq!(&*kept(&mut step, record).topic, "orders.20260101");
    assert!(failed(&mut step, json("1")).message().contains("timestamp"));
}

#[test]
fn schemas_are_named() {
    let schema: SchemaRef = structure(vec![("id", Schema::new(Type::Int64))]);
    let mut step = build(&kind("SetSchemaMetadata$Value"), &[("schema.name", "n"), ("schema.version", "3")]);
    let record = kept(&mut step, typed(&schema, Value::Struct(vec![Value::Int64(1)])));
    let schema = record.value.schema().expect("kept");
    assert_eq!((schema.name.as_deref(), schema.version), (Some("n"), Some(3)));
    failed(&mut step, json("{}"));
}

#[test]
fn a_filter_drops_everything() {
    assert!(matches!(one(&mut build(&kind("Filter"), &[]), json("1")), Outcome::Drop));
}

#[test]
fn wrong_configs_are_refused_with_the_key() {
    assert!(problem(&kind("InsertField$Value"), &[]).starts_with("topic.field: "));
    assert!(problem(&kind("InsertField$Value"), &[("static.field", "a")]).starts_with("static.value: "));
    assert!(problem(&kind("TimestampConverter$Value"), &[("target.type", "string")]).starts_with("format: "));
    let weeks = [("target.type", "string"), ("format", "ww")];
    assert!(problem(&kind("TimestampConverter$Value"), &weeks).contains("`ww`"));
    assert!(problem(&kind("SetSchemaMetadata$Key"), &[]).starts_with("schema.name: "));
}
