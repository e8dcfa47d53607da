use aqueduct_core::logical;
use bytes::Bytes;

use super::*;
use crate::testing::*;

fn cast_to(ty: &str, text: &'static str) -> String {
    out(&mut build(&cast(), &[("fields", &format!("a:{ty}"))]), json(text))
}

#[test]
fn plain_json_fields_change_their_type() {
    assert_eq!(cast_to("string", r#"{"a":12.5}"#), r#"{"a":"12.5"}"#);
    assert_eq!(cast_to("int32", r#"{"a":"12"}"#), r#"{"a":12}"#);
    assert_eq!(cast_to("int32", r#"{"a":"12.00"}"#), r#"{"a":12}"#);
    assert_eq!(cast_to("float64", r#"{"a":"1.5"}"#), r#"{"a":1.5}"#);
    assert_eq!(cast_to("boolean", r#"{"a":"TRUE"}"#), r#"{"a":true}"#);
    assert_eq!(cast_to("int8", r#"{"a":true}"#), r#"{"a":1}"#);
    assert_eq!(cast_to("string", r#"{"a":{"b":[1]}}"#), r#"{"a":"{\"b\":[1]}"}"#);
    assert_eq!(cast_to("int8", r#"{"a":null}"#), r#"{"a":null}"#);
}

#[test]
fn what_does_not_fit_is_a_bad_record_unless_lossy() {
    for (ty, text) in [
        ("int8", r#"{"a":300}"#),
        ("int32", r#"{"a":1.5}"#),
        ("int32", r#"{"a":"x"}"#),
        ("boolean", r#"{"a":"yes"}"#),
        ("int8", r#"{"a":[1]}"#),
    ] {
        let error = failed(&mut build(&cast(), &[("fields", &format!("a:{ty}"))]), json(text));
        assert!(error.message().starts_with("`a`: "), "{error}");
    }
    let lossy = |ty: &str, text| {
        out(&mut build(&cast(), &[("fields", &format!("a:{ty}")), ("lossy", "true")]), json(text))
    };
    assert_eq!(lossy("int8", r#"{"a":300}"#), r#"{"a":44}"#);
    assert_eq!(lossy("int32", r#"{"a":1.9}"#), r#"{"a":1}"#);
    assert_eq!(lossy("int32", r#"{"a":"1.50"}"#), r#"{"a":1}"#);
    assert_eq!(lossy("int32", r#"{"a":"1.55"}"#), r#"{"a":1}"#);
    assert_eq!(lossy("boolean", r#"{"a":0.5}"#), r#"{"a":false}"#);
    assert_eq!(lossy("boolean", r#"{"a":"yes"}"#), r#"{"a":false}"#);
}

#[test]
fn a_schema_changes_with_its_values() {
    let row = structure(vec![
        ("price", logical::decimal_schema(2)),
        ("day", Schema::new(Type::Int32).named(logical::DATE)),
    ]);
    let schema = structure(vec![("after", Schema::clone(&row))]);
    let price = Value::Bytes(Bytes::from_static(&[0x04, 0xd2]));
    let value = Value::Struct(vec![Value::Struct(vec![price, Value::Int32(20_454)])]);
    let mut step = build(&cast(), &[("fields", "after.price:float64, after.day:string")]);
    let record = kept(&mut step, typed(&schema, value));
    assert_eq!(text(&record.value), r#"{"after":{"price":12.34,"day":"2026-01-01"}}"#);
    let schema = record.value.schema().expect("kept");
    let (_, after) = schema.field("after").expect("kept");
    let price = &after.schema.field("price").expect("kept").1.schema;
    assert_eq!((price.ty.clone(), price.optional, price.name.clone()), (Type::Float64, true, None));
    // A row that is null has nothing to cast.
    assert_eq!(out(&mut step, typed(schema, Value::Struct(vec![Value::Null]))), r#"{"after":null}"#);
}

#[test]
fn a_whole_value_and_a_key_can_be_cast() {
    assert_eq!(out(&mut build(&cast(), &[("fields", "string")]), json("12")), r#""12""#);
    let mut on_key = build(&cast(), &[("fields", "id:string"), ("on", "key")]);
    let mut record = json("{}");
    record.key = json(r#"{"id":7}"#).value;
    assert_eq!(text(&kept(&mut on_key, record).key), r#"{"id":"7"}"#);
}

#[test]
fn missing_fields_fail_unless_ignored() {
    let error = failed(&mut build(&cast(), &[("fields", "b:int8")]), json(r#"{"a":1}"#));
    assert!(error.message().contains("no field `b`"), "{error}");
    let mut ignoring = build(&cast(), &[("fields", "b:int8"), ("missing", "ignore")]);
    assert_eq!(out(&mut ignoring, json(r#"{"a":1}"#)), r#"{"a":1}"#);
}

#[test]
fn wrong_configs_say_what_to_do() {
    assert!(problem(&cast(), &[("fields", "a:decimal")]).contains("`a:decimal` names no type"));
    assert!(problem(&cast(), &[("fields", "a:int8,string")]).contains("cannot stand beside"));
    assert!(problem(&cast(), &[("fields", "")]).contains("write `field:type`"));
}
