use super::*;
use crate::testing::*;

#[test]
fn nested_maps_become_fields() {
    let mut plain = build(&flatten(), &[]);
    let nested = json(r#"{"id":1,"geo":{"lat":1.5,"at":{"x":null}},"tags":[{"a":1}],"none":{}}"#);
    assert_eq!(out(&mut plain, nested), r#"{"id":1,"geo.lat":1.5,"geo.at.x":null,"tags":[{"a":1}]}"#);
    let mut named = build(&flatten(), &[("delimiter", "_")]);
    assert_eq!(out(&mut named, json(r#"{"a":{"b":1}}"#)), r#"{"a_b":1}"#);
}

#[test]
fn nested_structs_become_fields_that_are_optional_with_them() {
    let inner = Schema::new(Type::Struct(vec![Field::new("lat", Schema::new(Type::Float64).shared())]));
    let schema = structure(vec![("geo", inner), ("id", Schema::new(Type::Int64))]);
    let mut step = build(&flatten(), &[]);
    let there = Value::Struct(vec![Value::Struct(vec![Value::Float64(1.5)]), Value::Int64(1)]);
    let record = kept(&mut step, typed(&schema, there));
    assert_eq!(text(&record.value), r#"{"geo.lat":1.5,"id":1}"#);
    let out_schema = record.value.schema().expect("kept");
    assert!(out_schema.field("geo.lat").expect("flat").1.schema.optional);
    let absent = Value::Struct(vec![Value::Null, Value::Int64(2)]);
    assert_eq!(out(&mut step, typed(&schema, absent)), r#"{"geo.lat":null,"id":2}"#);
}

#[test]
fn two_fields_of_one_name_are_refused() {
    let error = failed(&mut build(&flatten(), &[]), json(r#"{"a.b":1,"a":{"b":2}}"#));
    assert!(error.message().contains("`a.b`"), "{error}");
    failed(&mut build(&flatten(), &[]), json("[1]"));
}
