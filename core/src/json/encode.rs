//! Values to JSON text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{Error, Result, Schema, Type, Value, logical};

/// What JsonConverter lets its users choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// `decimal.format=BASE64`: Decimals as the base64 of their unscaled bytes instead of numbers.
    pub base64_decimals: bool,
    /// `replace.null.with.default`: a null whose schema has a default is written as that default.
    pub null_as_default: bool,
}

/// Appends `value` as JSON to `out`.
pub fn encode(out: &mut Vec<u8>, value: &Value, schema: Option<&Schema>) -> Result<()> {
    encode_as(out, value, schema, Style::default())
}

/// The same in a style.
pub fn encode_as(out: &mut Vec<u8>, value: &Value, schema: Option<&Schema>, style: Style) -> Result<()> {
    match value {
        Value::Null if style.null_as_default => match schema.and_then(|schema| schema.default.as_ref()) {
            Some(default) if !default.is_null() => return encode_as(out, default, schema, style),
            _ => out.extend_from_slice(b"null"),
        },
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int8(v) => integer(out, i64::from(*v)),
        Value::Int16(v) => integer(out, i64::from(*v)),
        Value::Int32(v) => integer(out, i64::from(*v)),
        Value::Int64(v) => integer(out, *v),
        Value::Float32(v) => float(out, f64::from(*v), v),
        Value::Float64(v) => float(out, *v, v),
        Value::String(v) => encode_text(out, v),
        Value::Bytes(v) => bytes(out, v, schema, style),
        Value::Array(items) => return array(out, items, schema, style),
        Value::Map(entries) => return map(out, entries, schema, style),
        Value::Struct(values) => return structure(out, values, schema, style),
    }
    Ok(())
}

/// Appends a JSON string.
pub fn encode_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing text to memory cannot fail");
}

fn integer(out: &mut Vec<u8>, v: i64) {
    serde_json::to_writer(out, &v).expect("writing a number to memory cannot fail");
}

fn float<T: serde::Serialize>(out: &mut Vec<u8>, wide: f64, v: &T) {
    if wide.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if wide.is_infinite() {
        out.extend_from_slice(if wide > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        serde_json::to_writer(out, v).expect("writing a finite number to memory cannot fail");
    }
}

fn bytes(out: &mut Vec<u8>, v: &[u8], schema: Option<&Schema>, style: Style) {
    if !style.base64_decimals
        && let Some(scale) = schema.and_then(logical::decimal_scale)
    {
        out.extend_from_slice(logical::decimal_text(v, scale).as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(v).as_bytes());
    out.push(b'"');
}

fn array(out: &mut Vec<u8>, items: &[Value], schema: Option<&Schema>, style: Style) -> Result<()> {
    let element = match schema.map(|s| &s.ty) {
        Some(Type::Array(element)) => Some(&**element),
        _ => None,
    };
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        encode_as(out, item, element, style)?;
    }
    out.push(b']');
    Ok(())
}

fn map(out: &mut Vec<u8>, entries: &[(Value, Value)], schema: Option<&Schema>, style: Style) -> Result<()> {
    let (key_schema, value_schema) = match schema.map(|s| &s.ty) {
        Some(Type::Map(key, value)) => (Some(&**key), Some(&**value)),
        _ => (None, None),
    };
    let object = entries.iter().all(|(key, _)| matches!(key, Value::String(_)));
    out.push(if object { b'{' } else { b'[' });
    for (i, (key, value)) in entries.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        if object {
            encode_as(out, key, key_schema, style)?;
            out.push(b':');
            encode_as(out, value, value_schema, style)?;
        } else {
            out.push(b'[');
            encode_as(out, key, key_schema, style)?;
            out.push(b',');
            encode_as(out, value, value_schema, style)?;
            out.push(b']');
        }
    }
    out.push(if object { b'}' } else { b']' });
    Ok(())
}

fn structure(out: &mut Vec<u8>, values: &[Value], schema: Option<&Schema>, style: Style) -> Result<()> {
    let fields = schema.map(Schema::fields).unwrap_or_default();
    if fields.len() != values.len() {
        return Err(Error::bad_record(format!(
            "a struct of {} values does not match its schema of {} fields",
            values.len(),
            fields.len()
        )));
    }
    out.push(b'{');
    for (i, (field, value)) in fields.iter().zip(values).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        encode_text(out, &field.name);
        out.push(b':');
        encode_as(out, value, Some(&field.schema), style)?;
    }
    out.push(b'}');
    Ok(())
}
