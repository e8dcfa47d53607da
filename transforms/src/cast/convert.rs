//! One value into one type.

use aqueduct_core::{Error, Result, Schema, Value, json, logical};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Target;
use crate::time;

/// A value as a number or text, before it becomes the target.
enum Plain<'v> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(std::borrow::Cow<'v, str>),
}

pub(super) fn convert(value: &Value, schema: Option<&Schema>, target: Target, lossy: bool) -> Result<Value> {
    if target == Target::String {
        return text(value, schema).map(Value::from);
    }
    let plain = plain(value, schema)?;
    if target == Target::Boolean {
        return boolean(&plain, lossy).map(Value::Bool);
    }
    if matches!(target, Target::Float32 | Target::Float64) {
        let number = float(&plain)?;
        return Ok(match target {
            Target::Float32 => Value::Float32(single(number, lossy)?),
            _ => Value::Float64(number),
        });
    }
    let number = integer(&plain, lossy)?;
    let fits = |min: i64, max: i64| {
        if lossy || (min..=max).contains(&number) {
            return Ok(());
        }
        Err(Error::bad_record(format!("{number} does not fit {}", name(target))))
    };
    // Wrapping is what `lossy` asks for, and what `fits` has excluded otherwise.
    Ok(match target {
        Target::Int8 => fits(i8::MIN.into(), i8::MAX.into()).map(|()| Value::Int8(number as i8))?,
        Target::Int16 => fits(i16::MIN.into(), i16::MAX.into()).map(|()| Value::Int16(number as i16))?,
        Target::Int32 => fits(i32::MIN.into(), i32::MAX.into()).map(|()| Value::Int32(number as i32))?,
        _ => Value::Int64(number),
    })
}

fn name(target: Target) -> &'static str {
    target.ty().name()
}

fn plain<'v>(value: &'v Value, schema: Option<&Schema>) -> Result<Plain<'v>> {
    Ok(match value {
        Value::Bool(v) => Plain::Bool(*v),
        Value::Float32(v) => Plain::Float((*v).into()),
        Value::Float64(v) => Plain::Float(*v),
        Value::String(v) => Plain::Text(std::borrow::Cow::Borrowed(v)),
        Value::Bytes(v) => match schema.and_then(logical::decimal_scale) {
            Some(scale) => Plain::Text(logical::decimal_text(v, scale).into()),
            None => return Err(refused(value)),
        },
        other => Plain::Int(other.as_i64().ok_or_else(|| refused(other))?),
    })
}

fn refused(value: &Value) -> Error {
    Error::bad_record(format!("{} cannot be cast to that type", value.kind()))
}

fn unreadable(text: &str, what: &str) -> Error {
    Error::bad_record(format!("`{}` is not {what}", text.chars().take(40).collect::<String>()))
}

fn boolean(plain: &Plain<'_>, lossy: bool) -> Result<bool> {
    Ok(match plain {
        Plain::Bool(v) => *v,
        Plain::Int(v) => *v != 0,
        // Java's longValue() drops the fraction first.
        Plain::Float(v) if lossy => *v as i64 != 0,
        Plain::Float(v) => *v != 0.0,
        Plain::Text(v) if v.eq_ignore_ascii_case("true") => true,
        Plain::Text(v) if lossy || v.eq_ignore_ascii_case("false") => false,
        Plain::Text(v) => return Err(unreadable(v, "`true` or `false`")),
    })
}

fn float(plain: &Plain<'_>) -> Result<f64> {
    Ok(match plain {
        Plain::Bool(v) => f64::from(u8::from(*v)),
        Plain::Int(v) => *v as f64,
        Plain::Float(v) => *v,
        Plain::Text(v) => v.trim().parse().map_err(|_| unreadable(v, "a number"))?,
    })
}

/// A float that a single cannot come near is refused; rounding to the nearest is what singles are.
fn single(number: f64, lossy: bool) -> Result<f32> {
    let single = number as f32;
    if single.is_infinite() && number.is_finite() && !lossy {
        return Err(Error::bad_record(format!("{number} does not fit float")));
    }
    Ok(single)
}

fn integer(plain: &Plain<'_>, lossy: bool) -> Result<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let whole = |v: f64| {
        if lossy || (v.fract() == 0.0 && (-LIMIT..LIMIT).contains(&v)) {
            // Saturates, as Java does.
            return Ok(v as i64);
        }
        Err(Error::bad_record(format!("{v} is not an integer of 64 bits")))
    };
    match plain {
        Plain::Bool(v) => Ok((*v).into()),
        Plain::Int(v) => Ok(*v),
        Plain::Float(v) => whole(*v),
        Plain::Text(v) => match v.trim().parse::<i64>() {
            Ok(v) => Ok(v),
            Err(_) => match v.trim().strip_suffix(|c: char| c == '0' || c == '.') {
                // `12.00` of a decimal column is an integer still.
                Some(_) if !v.contains(['e', 'E']) && v.contains('.') => {
                    let cut = v.trim().trim_end_matches('0').trim_end_matches('.');
                    match cut.parse::<i64>() {
                        Err(_) if lossy => truncated(v),
                        whole => whole.map_err(|_| unreadable(v, "an integer of 64 bits")),
                    }
                }
                _ if lossy => truncated(v),
                _ => Err(unreadable(v, "an integer of 64 bits")),
            },
        },
    }
}

/// Without what stands behind the point.
fn truncated(text: &str) -> Result<i64> {
    text.trim().parse::<f64>().map(|number| number as i64).map_err(|_| unreadable(text, "a number"))
}

fn text(value: &Value, schema: Option<&Schema>) -> Result<String> {
    if let Some(text) = schema.and_then(|schema| time::iso(value, schema)) {
        return text;
    }
    Ok(match value {
        Value::String(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::Float32(v) => v.to_string(),
        Value::Float64(v) => v.to_string(),
        Value::Bytes(v) => match schema.and_then(logical::decimal_scale) {
            Some(scale) => logical::decimal_text(v, scale),
            None => STANDARD.encode(v),
        },
        other => match other.as_i64() {
            Some(v) => v.to_string(),
            None => {
                let mut out = Vec::new();
                json::encode(&mut out, other, schema)?;
                String::from_utf8(out)
                    .map_err(|error| Error::fatal("JSON is not UTF-8").with_source(error))?
            }
        },
    })
}
