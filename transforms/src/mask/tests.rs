use aqueduct_core::config::{Config, plain};
use aqueduct_core::{Datum, ErrorKind, Field, Schema, Type, logical};
use bytes::Bytes;

use super::*;

fn step(config: &[(&str, &str)]) -> Box<dyn Transform> {
    let config: Config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Mask::new().build(&plain(&config)).expect("a good config")
}

fn record(text: &'static str) -> Record {
    Record::new("t".into(), Datum::json(None, Bytes::from_static(text.as_bytes())))
}

fn one(step: &mut Box<dyn Transform>, record: Record) -> Outcome {
    step.apply(vec![record]).expect("no batch error").remove(0)
}

fn text(outcome: Outcome) -> String {
    match outcome {
        Outcome::Keep(record) => {
            String::from_utf8(record.value.to_json().expect("encodes").to_vec()).expect("UTF-8")
        }
        other => panic!("kept expected, got {other:?}"),
    }
}

#[test]
fn hashes_salt_and_text() {
    let mut step = step(&[("fields", "email"), ("salt", "s")]);
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(b"sa@b.c"));
    let out = text(one(&mut step, record(r#"{"id":1,"email":"a@b.c"}"#)));
    assert_eq!(out, format!(r#"{{"id":1,"email":"{hash}"}}"#));
}

#[test]
fn other_methods() {
    let input = r#"{"card":"4111111111111111"}"#;
    let run = |config: &[(&str, &str)]| text(one(&mut step(config), record(input)));
    assert_eq!(run(&[("fields", "card"), ("method", "partial")]), r#"{"card":"************1111"}"#);
    assert_eq!(
        run(&[("fields", "card"), ("method", "partial"), ("keep", "9")]),
        r#"{"card":"****************"}"#
    );
    assert_eq!(run(&[("fields", "card"), ("method", "redact"), ("replacement", "x")]), r#"{"card":"x"}"#);
    assert_eq!(run(&[("fields", "card"), ("method", "null")]), r#"{"card":null}"#);
    assert_eq!(
        run(&[("fields", "card"), ("method", "hmac"), ("salt", "k")]).len(),
        r#"{"card":""}"#.len() + 64
    );
}

#[test]
fn a_missing_field_fails_the_record_and_leaves_it_as_it_was() {
    let mut step = step(&[("fields", "email, phone"), ("method", "redact")]);
    let given = record(r#"{"email":"a@b.c"}"#);
    let Outcome::Fail(back, error) = one(&mut step, given.clone()) else { panic!("must fail") };
    assert_eq!(error.kind(), ErrorKind::BadRecord);
    assert!(error.message().contains("`phone`"), "{error}");
    assert_eq!(back.value.to_json().expect("encodes"), given.value.to_json().expect("encodes"));
}

#[test]
fn missing_is_ignored_on_request_and_null_stays_null() {
    let mut step = step(&[("fields", "after.email"), ("method", "redact"), ("missing", "ignore")]);
    for same in [r#"{"id":1}"#, r#"{"after":{}}"#, r#"{"after":null}"#, r#"{"after":{"email":null}}"#] {
        assert_eq!(text(one(&mut step, record(same))), same);
    }
    assert_eq!(text(one(&mut step, record(r#"{"after":{"email":"x"}}"#))), r#"{"after":{"email":"***"}}"#);
}

#[test]
fn tombstones_pass_unless_dropped() {
    let tombstone = || Record::new("t".into(), Datum::null());
    assert!(matches!(one(&mut step(&[("fields", "a"), ("method", "null")]), tombstone()), Outcome::Keep(_)));
    let mut dropping = step(&[("fields", "a"), ("method", "null"), ("nulls", "drop")]);
    assert!(matches!(one(&mut dropping, tombstone()), Outcome::Drop));
}

#[test]
fn a_masked_number_becomes_text_in_the_schema_too() {
    let fields = vec![
        Field::new("id", Schema::new(Type::Int64).shared()),
        Field::new("price", logical::decimal_schema(2).optional().shared()),
    ];
    let schema = Schema::structure("row", fields).shared();
    let price = logical::decimal_bytes("12.30", 2).expect("a decimal");
    let value = Value::Struct(vec![Value::Int64(7), Value::Bytes(price)]);
    let mut step = step(&[("fields", "id,price"), ("method", "partial"), ("keep", "2")]);
    let given = || Record::new("t".into(), Datum::new(Arc::clone(&schema), value.clone()));
    let Outcome::Keep(first) = one(&mut step, given()) else { panic!("kept") };
    let Outcome::Keep(second) = one(&mut step, given()) else { panic!("kept") };
    assert_eq!(first.value.to_json().expect("encodes"), Bytes::from_static(br#"{"id":"*","price":"***30"}"#));
    let (a, b) = (first.value.schema().expect("typed"), second.value.schema().expect("typed"));
    assert!(Arc::ptr_eq(a, b), "one schema for all records");
    assert_eq!(a.field("price").expect("kept").1.schema, Schema::new(Type::String).optional().shared());
}

#[test]
fn a_wrong_config_says_what_to_do() {
    let check = |config: &[(&str, &str)], part: &str| {
        let config: Config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let error = Mask::new().build(&plain(&config)).err().expect("wrong").full();
        assert!(error.contains(part), "{error}");
    };
    check(&[("fields", "email")], "`salt`: missing");
    check(&[("fields", ""), ("method", "null")], "the list is empty");
    check(&[("fields", "a..b"), ("method", "null")], "not a path");
    check(&[("fields", "a"), ("method", "hsah")], "did you mean `hash`?");
}

/// A row with fields of every kind that masking treats apart.
fn schema() -> aqueduct_core::SchemaRef {
    let text = |optional: bool| {
        let schema = Schema::new(Type::String);
        if optional { schema.optional() } else { schema }.shared()
    };
    let inner = Schema::structure("inner", vec![Field::new("email", text(true))]).optional().shared();
    let fields = vec![
        Field::new("id", Schema::new(Type::Int64).shared()),
        Field::new("email", text(true)),
        Field::new("amount", logical::decimal_schema(2).optional().shared()),
        Field::new("inner", inner),
    ];
    Schema::structure("row", fields).shared()
}

#[test]
fn text_and_decoded_values_are_masked_alike() {
    let rows = [
        r#"{"id":1,"email":"a@b.c","amount":1.50,"inner":{"email":"d@e.f"}}"#,
        r#"{ "inner" : { "email" : "q\"\u00fc" } , "amount":-0.05,"email":"gr\u00fcn","id":1 }"#,
        r#"{"id":1,"email":null,"amount":null,"inner":null}"#,
        r#"{"id":1,"email":"","amount":12345678901234567890.10,"inner":{"email":null}}"#,
        r#"{"id":1}"#,
    ];
    for method in ["hash", "hmac", "redact", "partial", "null"] {
        let config = [
            ("fields", "email, amount, inner.email"),
            ("method", method),
            ("salt", "s"),
            ("missing", "ignore"),
        ];
        for row in rows {
            for schema in [None, Some(schema())] {
                let untouched = Datum::json(schema.clone(), Bytes::from_static(row.as_bytes()));
                let mut decoded = untouched.clone();
                decoded.value().expect("valid");
                let mask = |datum| match one(&mut step(&config), Record::new("t".into(), datum)) {
                    Outcome::Keep(record) => record.value,
                    other => panic!("kept expected, got {other:?}"),
                };
                let (mut spliced, mut expect) = (mask(untouched), mask(decoded));
                assert_eq!(spliced.schema(), expect.schema(), "{method} {row}");
                assert_eq!(spliced.value().expect("valid"), expect.value().expect("valid"), "{method} {row}");
            }
        }
    }
}

#[test]
fn a_masked_field_stays_text_only_where_it_is_plain() {
    let mut step = step(&[("fields", "email"), ("method", "redact")]);
    let Outcome::Keep(plain) = one(&mut step, record(r#"{"id":1.0,"email":"x"}"#)) else { panic!("kept") };
    assert_eq!(plain.value.as_json().map(|text| &text[..]), Some(&br#"{"id":1.0,"email":"***"}"#[..]));
    // An escape in the key, and a key that stands twice: nothing of it may come through.
    for row in [r#"{"\u0065mail":"secret"}"#, r#"{"email":"secret","email":"secret"}"#] {
        assert!(!text(one(&mut step, record(row))).contains("secret"), "{row}");
    }
}
