use super::*;
use crate::testing::*;

#[test]
fn a_fixed_value_goes_into_every_record() {
    let mut text = build(&insert(), &[("field", "region"), ("value", "eu")]);
    assert_eq!(out(&mut text, json(r#"{"id":1}"#)), r#"{"id":1,"region":"eu"}"#);
    assert_eq!(out(&mut text, json(r#"{"region":1,"id":1}"#)), r#"{"region":"eu","id":1}"#);
    let mut number = build(&insert(), &[("field", "meta.n"), ("value", "7"), ("type", "int32")]);
    assert_eq!(out(&mut number, json(r#"{"meta":{}}"#)), r#"{"meta":{"n":7}}"#);
    let error = failed(&mut number, json(r#"{"id":1}"#));
    assert!(error.message().contains("there is no `meta`"), "{error}");
}

#[test]
fn an_expression_computes_it() {
    let config = [("field", "total"), ("expression", "value.q * value.p"), ("type", "float64")];
    let mut total = build(&insert(), &config);
    assert_eq!(out(&mut total, json(r#"{"q":2.0,"p":1.5}"#)), r#"{"q":2.0,"p":1.5,"total":3.0}"#);
    failed(&mut total, json(r#"{"q":2.0}"#));
    let mut topic = build(&insert(), &[("field", "t"), ("expression", "topic")]);
    assert_eq!(out(&mut topic, json("{}")), r#"{"t":"orders"}"#);
    let mut wrong = build(&insert(), &[("field", "t"), ("expression", "1")]);
    let error = failed(&mut wrong, json("{}"));
    assert!(error.message().contains("set `type`"), "{error}");
}

#[test]
fn a_schema_gets_the_field_too() {
    let inner = structure(vec![("a", Schema::new(Type::Int64))]);
    let schema = structure(vec![("meta", Schema::clone(&inner))]);
    let mut step = build(&insert(), &[("field", "meta.b"), ("value", "x")]);
    let value = Value::Struct(vec![Value::Struct(vec![Value::Int64(1)])]);
    let record = kept(&mut step, typed(&schema, value));
    assert_eq!(text(&record.value), r#"{"meta":{"a":1,"b":"x"}}"#);
    let null = kept(&mut step, typed(&schema, Value::Struct(vec![Value::Null])));
    assert_eq!(text(&null.value), r#"{"meta":null}"#);
    assert!(Arc::ptr_eq(null.value.schema().expect("kept"), record.value.schema().expect("kept")));
}

#[test]
fn wrong_configs_say_what_to_do() {
    assert!(problem(&insert(), &[("field", "a")]).contains("either `value` or `expression`"));
    assert!(problem(&insert(), &[("field", "a"), ("value", "x"), ("type", "int8")]).contains("`x`"));
    assert!(problem(&insert(), &[("field", "a."), ("value", "x")]).contains("not a path"));
}
