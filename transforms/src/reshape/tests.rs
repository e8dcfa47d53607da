use aqueduct_core::{Schema, Type};

use super::*;
use crate::testing::*;

#[test]
fn fields_are_renamed_where_they_are() {
    let mut step = build(&rename(), &[("fields", "after.mail:email, id:key")]);
    assert_eq!(
        out(&mut step, json(r#"{"id":1,"after":{"mail":"x","n":2}}"#)),
        r#"{"key":1,"after":{"email":"x","n":2}}"#
    );
    assert_eq!(out(&mut step, json(r#"{"id":1,"after":null}"#)), r#"{"key":1,"after":null}"#);
    let error = failed(&mut step, json(r#"{"id":1,"after":{}}"#));
    assert!(error.message().contains("`after.mail`"), "{error}");
    let twice = failed(&mut step, json(r#"{"id":1,"key":2,"after":{"mail":"x"}}"#));
    assert!(twice.message().contains("two fields would be named `key`"), "{twice}");
}

#[test]
fn fields_are_taken_out_or_kept_alone() {
    let given = r#"{"id":1,"after":{"mail":"x","n":2},"op":"c"}"#;
    assert_eq!(
        out(&mut build(&drop(), &[("fields", "after.mail,op")]), json(given)),
        r#"{"id":1,"after":{"n":2}}"#
    );
    assert_eq!(
        out(&mut build(&drop(), &[("keep", "after.n,op")]), json(given)),
        r#"{"after":{"n":2},"op":"c"}"#
    );
    assert_eq!(
        out(&mut build(&drop(), &[("keep", "after"), ("fields", "after.n")]), json(given)),
        r#"{"after":{"mail":"x"}}"#
    );
}

#[test]
fn a_schema_loses_what_its_values_lose() {
    let row = structure(vec![("mail", Schema::new(Type::String)), ("n", Schema::new(Type::Int32))]);
    let schema = structure(vec![("id", Schema::new(Type::Int64)), ("after", Schema::clone(&row))]);
    let value = |after| Value::Struct(vec![Value::Int64(1), after]);
    let mut dropping = build(&drop(), &[("fields", "after.mail")]);
    let full = value(Value::Struct(vec![Value::from("x"), Value::Int32(2)]));
    let record = kept(&mut dropping, typed(&schema, full.clone()));
    assert_eq!(text(&record.value), r#"{"id":1,"after":{"n":2}}"#);
    let after =
        record.value.schema().and_then(|s| s.field("after").map(|(_, f)| std::sync::Arc::clone(&f.schema)));
    assert_eq!(after.expect("kept").fields().len(), 1);
    assert_eq!(out(&mut dropping, typed(&schema, value(Value::Null))), r#"{"id":1,"after":null}"#);
    let mut renaming = build(&rename(), &[("fields", "after.mail:email")]);
    assert_eq!(out(&mut renaming, typed(&schema, full)), r#"{"id":1,"after":{"email":"x","n":2}}"#);
    let error = failed(&mut build(&drop(), &[("fields", "after.phone")]), typed(&schema, value(Value::Null)));
    assert!(error.message().contains("`after.phone`"), "{error}");
}

#[test]
fn wrong_configs_say_what_to_do() {
    assert!(problem(&rename(), &[("fields", "a")]).contains("`a` is not a rename; write `old:new`"));
    assert!(problem(&drop(), &[]).contains("name the fields to take out"));
    assert!(problem(&drop(), &[("keep", "a,a.b")]).contains("`a` is kept whole"));
}
