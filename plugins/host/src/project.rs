//! Values of records to the fields a guest sees, and its new values back.
//!
//! | value | guest |
//! |---|---|
//! | boolean, integers, floats, text, bytes | the same |
//! | Decimal | JSON text of the number, with all its digits |
//! | struct, map, array | JSON text |
//!
//! **Invariant:** where a record has a schema, what the guest sets fits it, or the record fails unchanged.

use aqueduct_core::{Error, Result, Schema, Slot, Type, Value, json, logical};
use bytes::Bytes;

use crate::bindings::aqueduct::transform::types::{FieldValue, NewValue};

/// The JSON text of a value that has no shape of its own for a guest.
pub(crate) fn json_text(slot: &Slot<&Value>, schema: Option<&Schema>) -> Result<Option<String>> {
    let Slot::Found(value) = slot else { return Ok(None) };
    let shapeless = match value {
        Value::Array(_) | Value::Map(_) | Value::Struct(_) => true,
        Value::Bytes(_) => schema.and_then(logical::decimal_scale).is_some(),
        _ => false,
    };
    if !shapeless {
        return Ok(None);
    }
    let mut text = Vec::new();
    json::encode(&mut text, value, schema)?;
    String::from_utf8(text).map(Some).map_err(|_| Error::bad_record("a field is not UTF-8"))
}

/// What the guest sees; `text` is what [`json_text`] gave.
pub(crate) fn lower<'v>(slot: &Slot<&'v Value>, text: Option<&'v str>) -> FieldValue<'v> {
    if let Some(text) = text {
        return FieldValue::Json(text);
    }
    let value = match slot {
        Slot::Missing => return FieldValue::Missing,
        Slot::NullParent => return FieldValue::Null,
        Slot::Found(value) => *value,
    };
    match value {
        Value::Bool(v) => FieldValue::Boolean(*v),
        Value::Int8(v) => FieldValue::Integer(i64::from(*v)),
        Value::Int16(v) => FieldValue::Integer(i64::from(*v)),
        Value::Int32(v) => FieldValue::Integer(i64::from(*v)),
        Value::Int64(v) => FieldValue::Integer(*v),
        Value::Float32(v) => FieldValue::Float(f64::from(*v)),
        Value::Float64(v) => FieldValue::Float(*v),
        Value::String(v) => FieldValue::Text(v),
        Value::Bytes(v) => FieldValue::Bytes(v),
        // The last three have had their text above.
        Value::Null | Value::Array(_) | Value::Map(_) | Value::Struct(_) => FieldValue::Null,
    }
}

/// How many bytes it is to the guest, roughly.
pub(crate) fn size(field: &FieldValue<'_>) -> usize {
    8 + match field {
        FieldValue::Text(text) | FieldValue::Json(text) => text.len(),
        FieldValue::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// The value that a guest set, of the field's schema.
pub(crate) fn lift(new: NewValue, schema: Option<&Schema>) -> Result<Value> {
    let Some(schema) = schema else { return free(new) };
    let kind = kind(&new);
    let range = |v: i64| move |_| Error::bad_record(format!("{v} does not fit {}", schema.ty.name()));
    Ok(match (new, &schema.ty) {
        (NewValue::Null, _) if schema.optional => Value::Null,
        (NewValue::Null, _) => return Err(Error::bad_record("null for a required field")),
        (NewValue::Json(text), _) => json::decode(&text.into(), Some(schema))?,
        (NewValue::Boolean(v), Type::Boolean) => Value::Bool(v),
        (NewValue::Integer(v), Type::Int8) => Value::Int8(v.try_into().map_err(range(v))?),
        (NewValue::Integer(v), Type::Int16) => Value::Int16(v.try_into().map_err(range(v))?),
        (NewValue::Integer(v), Type::Int32) => Value::Int32(v.try_into().map_err(range(v))?),
        (NewValue::Integer(v), Type::Int64) => Value::Int64(v),
        (NewValue::Float(v), Type::Float32) => Value::Float32(v as f32),
        (NewValue::Float(v), Type::Float64) => Value::Float64(v),
        (NewValue::Text(text), Type::String) => text.into(),
        (NewValue::Bytes(bytes), Type::Bytes) if logical::decimal_scale(schema).is_none() => {
            Value::Bytes(Bytes::from(bytes))
        }
        (_, ty) => {
            return Err(Error::bad_record(format!(
                "{kind} for a field of type {}; the schema stays",
                ty.name()
            )));
        }
    })
}

fn free(new: NewValue) -> Result<Value> {
    Ok(match new {
        NewValue::Null => Value::Null,
        NewValue::Boolean(v) => v.into(),
        NewValue::Integer(v) => v.into(),
        NewValue::Float(v) => v.into(),
        NewValue::Text(text) => text.into(),
        NewValue::Bytes(bytes) => Bytes::from(bytes).into(),
        NewValue::Json(text) => json::decode(&text.into(), None)?,
    })
}

fn kind(new: &NewValue) -> &'static str {
    match new {
        NewValue::Null => "null",
        NewValue::Boolean(_) => "a boolean",
        NewValue::Integer(_) => "an integer",
        NewValue::Float(_) => "a float",
        NewValue::Text(_) => "text",
        NewValue::Bytes(_) => "bytes",
        NewValue::Json(_) => "JSON",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(new: NewValue, schema: &Schema, expect: Option<Value>) {
        let shown = format!("{new:?} as {}", schema.ty.name());
        assert_eq!(lift(new, Some(schema)).ok(), expect, "{shown}");
    }

    #[test]
    fn new_values_fit_the_schema_or_are_refused() {
        let (int8, text) = (Schema::new(Type::Int8), Schema::new(Type::String));
        check(NewValue::Integer(5), &int8, Some(Value::Int8(5)));
        check(NewValue::Integer(500), &int8, None);
        check(NewValue::Text("5".into()), &int8, None);
        check(NewValue::Null, &text, None);
        check(NewValue::Null, &text.clone().optional(), Some(Value::Null));
        check(NewValue::Json("[1]".into()), &text, None);
        let price = logical::decimal_schema(2);
        let unscaled = logical::decimal_bytes("12.30", 2).expect("a decimal");
        check(NewValue::Json("12.30".into()), &price, Some(Value::Bytes(unscaled)));
        check(NewValue::Bytes(vec![1]), &price, None);
    }

    #[test]
    fn decimals_and_structs_cross_as_json() {
        let price = Value::Bytes(logical::decimal_bytes("12.30", 2).expect("a decimal"));
        let text = json_text(&Slot::Found(&price), Some(&logical::decimal_schema(2))).expect("encodes");
        assert_eq!(text.as_deref(), Some("12.30"));
        let map = Value::Map(vec![("a".into(), Value::Int64(1))]);
        assert_eq!(json_text(&Slot::Found(&map), None).expect("encodes").as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(json_text(&Slot::Found(&Value::Int64(1)), None).expect("encodes"), None);
    }
}
