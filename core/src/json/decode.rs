//! JSON text to values, by schema where there is one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::{Error, Result, Schema, Str, Type, Value, logical};

/// Decodes one JSON document. An error is a bad record that names the place.
pub fn decode(text: &Bytes, schema: Option<&Schema>) -> Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Seed { input: text, schema }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|e| Error::bad_record(format!("the value is not JSON of its schema: {e}")))?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    input: &'a Bytes,
    schema: Option<&'a Schema>,
}

impl<'a> Seed<'a> {
    fn with(self, schema: Option<&'a Schema>) -> Self {
        Self { input: self.input, schema }
    }

    /// The slice of the input that holds `text`, which serde_json lent from it.
    fn lend(self, text: &str) -> Str {
        Str::try_from(self.input.slice_ref(text.as_bytes()))
            .expect("a part of valid UTF-8 at character bounds")
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        if let Some(schema) = self.schema
            && let Some(scale) = logical::decimal_scale(schema)
        {
            let raw: &RawValue = de::Deserialize::deserialize(d)?;
            return decimal(raw.get(), scale, schema.optional).map_err(de::Error::custom);
        }
        d.deserialize_any(self)
    }
}

fn decimal(raw: &str, scale: i32, optional: bool) -> Result<Value> {
    if raw == "null" && optional {
        return Ok(Value::Null);
    }
    if raw.starts_with('"') {
        let text: String = serde_json::from_str(raw).map_err(|e| Error::bad_record(e.to_string()))?;
        let bytes =
            STANDARD.decode(text).map_err(|e| Error::bad_record(format!("a decimal is not base64: {e}")))?;
        return Ok(Value::Bytes(bytes.into()));
    }
    Ok(Value::Bytes(logical::decimal_bytes(raw, scale)?))
}

impl Seed<'_> {
    fn text<E: de::Error>(self, text: Str) -> Result<Value, E> {
        let Some(schema) = self.schema else { return Ok(Value::String(text)) };
        match schema.ty {
            Type::String => Ok(Value::String(text)),
            Type::Bytes => STANDARD.decode(&*text).map(|b| Value::Bytes(b.into())).map_err(E::custom),
            Type::Float32 | Type::Float64 => {
                let v = match &*text {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => return Err(E::custom("a string where a number should be")),
                };
                Ok(if schema.ty == Type::Float32 { Value::Float32(v as f32) } else { Value::Float64(v) })
            }
            _ => Err(E::custom(format_args!("a string where {} should be", schema.ty.name()))),
        }
    }

    fn integer<E: de::Error>(self, v: i64) -> Result<Value, E> {
        let Some(schema) = self.schema else { return Ok(Value::Int64(v)) };
        let range = |_| E::custom(format_args!("{v} does not fit {}", schema.ty.name()));
        Ok(match schema.ty {
            Type::Int8 => Value::Int8(v.try_into().map_err(range)?),
            Type::Int16 => Value::Int16(v.try_into().map_err(range)?),
            Type::Int32 => Value::Int32(v.try_into().map_err(range)?),
            Type::Int64 => Value::Int64(v),
            Type::Float32 => Value::Float32(v as f32),
            Type::Float64 => Value::Float64(v as f64),
            _ => return Err(E::custom(format_args!("a number where {} should be", schema.ty.name()))),
        })
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.schema.map_or("any JSON", |schema| schema.ty.name()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        match self.schema {
            Some(schema) if !schema.optional => match &schema.default {
                Some(default) => Ok(default.clone()),
                None => Err(E::custom(format_args!("null for a required {}", schema.ty.name()))),
            },
            _ => Ok(Value::Null),
        }
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Value, E> {
        match self.schema.map(|s| &s.ty) {
            None | Some(Type::Boolean) => Ok(Value::Bool(v)),
            Some(ty) => Err(E::custom(format_args!("a boolean where {} should be", ty.name()))),
        }
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Value, E> {
        self.integer(v)
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Value, E> {
        match i64::try_from(v) {
            Ok(v) => self.integer(v),
            Err(_) => self.visit_f64(v as f64),
        }
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        match self.schema.map(|s| &s.ty) {
            None | Some(Type::Float64) => Ok(Value::Float64(v)),
            Some(Type::Float32) => Ok(Value::Float32(v as f32)),
            Some(ty) => Err(E::custom(format_args!("a fraction where {} should be", ty.name()))),
        }
    }

    fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Value, E> {
        let text = self.lend(v);
        self.text(text)
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<Value, E> {
        self.text(Str::from(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        match self.schema.map(|s| &s.ty) {
            None => Ok(Value::Array(elements(self.with(None), &mut seq)?)),
            Some(Type::Array(element)) => Ok(Value::Array(elements(self.with(Some(element)), &mut seq)?)),
            Some(Type::Map(key, value)) => {
                let mut entries = Vec::new();
                while let Some(entry) =
                    seq.next_element_seed(Pair(self.with(Some(key)), self.with(Some(value))))?
                {
                    entries.push(entry);
                }
                Ok(Value::Map(entries))
            }
            Some(ty) => Err(de::Error::custom(format_args!("an array where {} should be", ty.name()))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        match self.schema.map(|s| &s.ty) {
            None => object(self.with(None), &mut map),
            Some(Type::Map(_, value)) => object(self.with(Some(value)), &mut map),
            Some(Type::Struct(_)) => structure(self, &mut map),
            Some(ty) => Err(de::Error::custom(format_args!("an object where {} should be", ty.name()))),
        }
    }
}

fn elements<'de, A: SeqAccess<'de>>(seed: Seed<'_>, seq: &mut A) -> Result<Vec<Value>, A::Error> {
    let mut items = Vec::new();
    while let Some(item) = seq.next_element_seed(seed)? {
        items.push(item);
    }
    Ok(items)
}

/// Where a key stands twice, the last value counts, as for nearly every reader of JSON: none may see another one.
fn object<'de, A: MapAccess<'de>>(values: Seed<'_>, map: &mut A) -> Result<Value, A::Error> {
    let mut entries: Vec<(Value, Value)> = Vec::new();
    // A bit for each key seen; only where it is set already are the keys compared.
    let mut seen = 0u64;
    while let Some(key) = map.next_key_seed(values.with(None))? {
        let bit = 1u64 << (key.as_str().map_or(0, mixed) & 63);
        let value = map.next_value_seed(values)?;
        let known = if seen & bit == 0 { None } else { entries.iter_mut().find(|(other, _)| *other == key) };
        seen |= bit;
        match known {
            Some((_, earlier)) => *earlier = value,
            None => entries.push((key, value)),
        }
    }
    Ok(Value::Map(entries))
}

/// Differs for most keys.
fn mixed(key: &str) -> usize {
    let bytes = key.as_bytes();
    let at = |i: usize| bytes.get(i).copied().map_or(0, usize::from);
    bytes.len() * 5 + at(0) + 7 * at(bytes.len() / 2) + 3 * at(bytes.len().wrapping_sub(1))
}

/// A struct: fields in any order, unknown ones ignored as JsonConverter does, missing ones null or default.
fn structure<'de, A: MapAccess<'de>>(seed: Seed<'_>, map: &mut A) -> Result<Value, A::Error> {
    let fields = seed.schema.map(Schema::fields).unwrap_or_default();
    let mut values: Vec<Option<Value>> = vec![None; fields.len()];
    // Writers keep the schema's order, so the next field is nearly always the one after the last.
    let mut next = 0;
    while let Some(key) = map.next_key_seed(seed.with(None))? {
        let key = key.as_str().unwrap_or_default();
        let found = match fields.get(next) {
            Some(field) if &*field.name == key => Some(next),
            _ => fields.iter().position(|field| &*field.name == key),
        };
        let Some(i) = found else {
            map.next_value::<de::IgnoredAny>()?;
            continue;
        };
        let name = &fields[i].name;
        let value = map.next_value_seed(seed.with(Some(&fields[i].schema)));
        values[i] = Some(value.map_err(|e| de::Error::custom(format_args!("field `{name}`: {e}")))?);
        next = i + 1;
    }
    let values = values.into_iter().zip(fields).map(|(value, field)| match value {
        Some(value) => Ok(value),
        None => match &field.schema.default {
            Some(default) => Ok(default.clone()),
            None if field.schema.optional => Ok(Value::Null),
            None => Err(de::Error::custom(format_args!("required field `{}` is missing", field.name))),
        },
    });
    Ok(Value::Struct(values.collect::<Result<_, _>>()?))
}

/// An entry `[key, value]` of a map whose keys are not text.
struct Pair<'a>(Seed<'a>, Seed<'a>);

impl<'de> DeserializeSeed<'de> for Pair<'_> {
    type Value = (Value, Value);

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(Value, Value), D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Pair<'_> {
    type Value = (Value, Value);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pair of key and value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(Value, Value), A::Error> {
        let missing = || de::Error::custom("a map entry is not a pair");
        let key = seq.next_element_seed(self.0)?.ok_or_else(missing)?;
        let value = seq.next_element_seed(self.1)?.ok_or_else(missing)?;
        Ok((key, value))
    }
}
