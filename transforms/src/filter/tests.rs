use aqueduct_core::config::{Config, plain};
use aqueduct_core::{Datum, ErrorKind, Field, Schema, Type, Value, logical};
use bytes::Bytes;

use super::*;

fn step(condition: &str) -> Result<Box<dyn Transform>> {
    Filter::new().build(&plain(&Config::from([("condition".to_owned(), condition.to_owned())])))
}

fn record(value: Datum) -> Record {
    let mut record = Record::new("orders".into(), value);
    record.key = Datum::json(None, Bytes::from_static(br#"{"id":7}"#));
    record.headers.push("trace", Datum::schemaless("first"));
    record.headers.push("trace", Datum::schemaless("last"));
    record.partition = Some(3);
    record
}

fn typed() -> Datum {
    let schema = Schema::structure(
        "row",
        vec![
            Field::new("id", Schema::new(Type::Int32).shared()),
            Field::new("price", logical::decimal_schema(2).shared()),
            Field::new("status", Schema::new(Type::String).optional().shared()),
            Field::new("tags", Schema::new(Type::Array(Schema::new(Type::String).shared())).shared()),
        ],
    );
    let price = Value::Bytes(logical::decimal_bytes("12.30", 2).expect("a decimal"));
    let tags = Value::Array(vec!["a".into(), "b".into()]);
    Datum::new(schema.shared(), Value::Struct(vec![Value::Int32(1), price, "paid".into(), tags]))
}

fn free() -> Datum {
    Datum::json(
        None,
        Bytes::from_static(br#"{"id":1,"price":12.3,"status":"paid","tags":["a","b"],"sub":{"x":null}}"#),
    )
}

/// With a schema and without, decoded and as text.
fn every_form() -> [Datum; 4] {
    let text = typed().to_json().expect("encodes");
    let mut decoded = free();
    decoded.value().expect("valid");
    [typed(), Datum::json(typed().schema().cloned(), text), free(), decoded]
}

fn run(condition: &str, value: Datum) -> Outcome {
    let mut step = step(condition).expect("compiles");
    step.apply(vec![record(value)]).expect("no batch error").remove(0)
}

#[test]
fn conditions_hold_for_structs_and_for_plain_json() {
    let holding = [
        "value.status == 'paid'",
        "value.id == 1 && value.price > 12.0 && value.price < 12.5",
        "'b' in value.tags && size(value.tags) == 2",
        "value.tags.exists(t, t == 'a')",
        "has(value.status) && !has(value.nothing)",
        "key.id == 7 && topic == 'orders' && partition == 3 && timestamp == null",
        "headers.trace == 'last' && size(headers) == 1",
        "value['status'].startsWith('pa')",
        "value == value",
        "value.nothing == 1 || value.id == 1",
        "value.status.matches('^p.*d$') && type(value.status) == string && string(value.id) == '1'",
    ];
    for condition in holding {
        for datum in every_form() {
            assert!(matches!(run(condition, datum), Outcome::Keep(_)), "{condition}");
        }
    }
    assert!(matches!(run("value.id == 2", typed()), Outcome::Drop));
    assert!(matches!(run("value.id != 1", free()), Outcome::Drop));
    assert!(matches!(run("value.sub.x == null && value.sub != key", free()), Outcome::Keep(_)));
}

#[test]
fn what_cannot_be_evaluated_is_a_bad_record_never_false() {
    for (condition, part) in [
        ("value.nothing == 1", "there is no field `nothing`"),
        ("value.status > 1", "cannot be evaluated"),
        ("value.id", "gives int, not true or false"),
        ("value.nothing", "there is no field"),
        ("value.status.deep == 1", "cannot be evaluated"),
        ("value.id / 0 == 1", "cannot be evaluated"),
    ] {
        for datum in every_form() {
            let Outcome::Fail(_, error) = run(condition, datum) else { panic!("{condition} must fail") };
            assert_eq!(error.kind(), ErrorKind::BadRecord);
            assert!(error.message().contains(part), "{condition}: {error}");
        }
    }
    let broken = Datum::json(None, Bytes::from_static(b"{"));
    assert!(matches!(run("value.id == 1", broken), Outcome::Fail(..)));
}

#[test]
fn nothing_is_decoded_that_the_condition_does_not_name() {
    for condition in ["topic == 'orders'", "value.status == 'paid' && has(value.sub.x)"] {
        let Outcome::Keep(record) = run(condition, free()) else { panic!("holds") };
        assert!(record.value.as_json().is_some() && record.key.as_json().is_some());
    }
}

#[test]
fn tombstones_pass() {
    assert!(matches!(run("value.id == 2", Datum::null()), Outcome::Keep(_)));
}

#[test]
fn a_wrong_condition_is_refused_before_the_start() {
    for (condition, part) in [
        ("value.id ==", "is not a CEL expression"),
        ("value.id = 1", "is not a CEL expression"),
        ("(((", "is not a CEL expression"),
        ("'", "is not a CEL expression"),
        ("", "is empty"),
        ("status == 'paid'", "a field of the value is written `value.status`"),
        ("valeu.id == 1", "did you mean `value`?"),
        ("value.tags.exists(t, u == 'a')", "names `u`"),
        ("value.status.startWith('p')", "did you mean `startsWith`?"),
        ("lower(value.status) == 'p'", "calls `lower`"),
    ] {
        let error = step(condition).err().unwrap_or_else(|| panic!("{condition} must be refused"));
        assert_eq!(error.kind(), ErrorKind::BadConfig);
        assert!(error.message().contains(part), "{condition}: {error}");
        assert!(!error.message().contains('\n'), "{condition}: {error}");
    }
}
