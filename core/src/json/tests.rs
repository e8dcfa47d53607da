use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{Datum, Field, Schema, Type, Value, logical};

fn row() -> Arc<Schema> {
    let optional = |ty| Schema::new(ty).optional().shared();
    Schema::structure(
        "row",
        vec![
            Field::new("id", Schema::new(Type::Int64).shared()),
            Field::new("name", optional(Type::String)),
            Field::new("price", Arc::new(logical::decimal_schema(2).optional())),
            Field::new("blob", optional(Type::Bytes)),
            Field::new("ratio", optional(Type::Float64)),
            Field::new("tags", optional(Type::Array(optional(Type::String)))),
        ],
    )
    .shared()
}

fn decode_row(text: &str) -> Result<Value> {
    decode(&Bytes::copy_from_slice(text.as_bytes()), Some(&row()))
}

#[test]
fn a_struct_is_written_in_field_order_with_exact_decimals() {
    let value = Value::Struct(vec![
        Value::Int64(7),
        Value::from("a\"b"),
        Value::Bytes(logical::decimal_bytes("12345678901234567890.10", 2).expect("valid")),
        Value::Bytes(Bytes::from_static(b"\x00\xff")),
        Value::Float64(f64::NAN),
        Value::Array(vec![Value::from("x"), Value::Null]),
    ]);
    let text = Datum::new(row(), value.clone()).to_json().expect("encodes");
    assert_eq!(
        text,
        r#"{"id":7,"name":"a\"b","price":12345678901234567890.10,"blob":"AP8=","ratio":"NaN","tags":["x",null]}"#
    );
    let back = decode(&text, Some(&row())).expect("decodes");
    assert_eq!(format!("{back:?}"), format!("{value:?}"));
}

#[test]
fn missing_required_fields_and_wrong_types_name_the_field() {
    let message = |text| decode_row(text).expect_err("refused").full();
    assert!(message(r#"{"name":"x"}"#).contains("required field `id` is missing"));
    assert!(message(r#"{"id":"x"}"#).contains("field `id`: a string where int64 should be"));
    assert!(message(r#"{"id":1,"price":0.125}"#).contains("`price`"));
}

#[test]
fn unknown_fields_are_ignored_and_order_does_not_matter() {
    let value = decode_row(r#"{"more":[1,{"a":2}],"name":"n","id":3}"#).expect("decodes");
    let Value::Struct(values) = value else { panic!("a struct") };
    assert_eq!(values[..2], [Value::Int64(3), Value::from("n")]);
}

#[test]
fn of_a_key_that_stands_twice_the_last_value_counts() {
    let value = decode(&Bytes::from_static(br#"{"a":1,"b":2,"a":3}"#), None).expect("decodes");
    assert_eq!(value, Value::Map(vec![("a".into(), Value::Int64(3)), ("b".into(), Value::Int64(2))]));
}

#[test]
fn schemas_survive_their_json_form() {
    let schema = row();
    let back = schema_from_json(&schema_to_json(&schema)).expect("reads");
    assert_eq!(back, *schema);
    assert_eq!(fingerprint(&back), fingerprint(&schema));
}

#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    let text = Bytes::from("[".repeat(100_000));
    assert!(decode(&text, None).is_err());
    assert!(validate(&text).is_err());
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        drop(decode(&bytes, None));
        drop(decode(&bytes, Some(&row())));
    }

    #[test]
    fn text_survives(text: String) {
        let datum = Datum::schemaless(text.as_str());
        let json = datum.to_json().expect("encodes");
        prop_assert_eq!(decode(&json, None).expect("decodes"), Value::from(text));
    }
}
