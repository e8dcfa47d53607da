//! `cast`: turns fields into another type.
//!
//! ```text
//! { fields: ["amount:string", "after.qty:int32"] }:   {"amount":12.5} → {"amount":"12.5"}
//! ```
//!
//! A value that the new type cannot hold is a bad record (floats take the nearest); `lossy: true` cuts and wraps it as Java does (300 as
//! int8 is 44, 1.9 as int32 is 1, any text but `true` is false). Null stays null.
//!
//! | to | from |
//! |---|---|
//! | `int8` … `int64`, `float32`, `float64` | numbers, decimals, booleans (1 and 0), text, dates and times (their number) |
//! | `boolean` | numbers (0 is false), text (`true`, `false`) |
//! | `string` | everything: dates and times in ISO 8601, bytes as base64, structs, maps and arrays as JSON |

mod convert;

use std::sync::Arc;

use aqueduct_core::config::{ConfigKey, ConfigType};
use aqueduct_core::transform::Transform;
use aqueduct_core::{FieldPath, Result, Schema, SchemaRef, Type, Value};

use crate::kind::{Kind, Missing, Side, wrong};
use crate::leaves::{Change, Leaves};
use crate::reshape::Read;

/// `cast`.
pub(crate) fn cast() -> Kind {
    let keys = [
        ConfigKey::new(
            "fields",
            ConfigType::List,
            "Fields and their new types, as `after.amount:string`. Types are `int8`, `int16`, `int32`, `int64`, \
             `float32`, `float64`, `boolean` and `string`. A type alone is for the whole value.",
        )
        .aliases(&["spec"])
        .required(),
        ConfigKey::new(
            "lossy",
            ConfigType::Boolean,
            "Whether a value that does not fit is cut and wrapped, as Java does it, instead of failing.",
        )
        .default("false"),
        Side::KEY,
        Missing::KEY,
    ];
    Kind::new("cast", "Turns fields into another type.", keys, |values| {
        step(
            values.list("fields")?,
            ("fields", FieldPath::parse),
            values.boolean("lossy")?,
            Side::from(values)?,
            Missing::from(values)?,
        )
    })
}

/// A step from a list such as `a:int8,b.c:string` or `string`.
pub(crate) fn step(
    spec: &[String],
    (key, read): (&str, Read),
    lossy: bool,
    side: Side,
    missing: Missing,
) -> Result<Box<dyn Transform>> {
    let mut fields = Vec::with_capacity(spec.len());
    for item in spec {
        let (path, ty) = match item.rsplit_once(':') {
            Some((path, ty)) => (read(path.trim()).map_err(|why| wrong(key, why))?, ty.trim()),
            None => (FieldPath::whole(), item.as_str()),
        };
        let target = Target::parse(ty).ok_or_else(|| {
            wrong(
                key,
                format_args!(
                    "`{item}` names no type; write `field:type` with one of `int8`, `int16`, `int32`, `int64`, \
                     `float32`, `float64`, `boolean`, `string`"
                ),
            )
        })?;
        fields.push((path, Cast { target, lossy }));
    }
    match fields.as_slice() {
        [] => return Err(wrong(key, "the list is empty; write `field:type`")),
        [_] => {}
        many if many.iter().any(|(path, _)| path.parts().is_empty()) => {
            return Err(wrong(key, "a type for the whole value cannot stand beside types for fields"));
        }
        _ => {}
    }
    Ok(Leaves::step(side, missing, fields))
}

/// A type that values are turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Int8,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Boolean,
    String,
}

impl Target {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "int8" => Target::Int8,
            "int16" => Target::Int16,
            "int32" => Target::Int32,
            "int64" => Target::Int64,
            "float32" | "float" => Target::Float32,
            "float64" | "double" => Target::Float64,
            "boolean" => Target::Boolean,
            "string" => Target::String,
            _ => return None,
        })
    }

    pub(crate) fn ty(self) -> Type {
        match self {
            Target::Int8 => Type::Int8,
            Target::Int16 => Type::Int16,
            Target::Int32 => Type::Int32,
            Target::Int64 => Type::Int64,
            Target::Float32 => Type::Float32,
            Target::Float64 => Type::Float64,
            Target::Boolean => Type::Boolean,
            Target::String => Type::String,
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Cast {
    pub(crate) target: Target,
    pub(crate) lossy: bool,
}

impl Change for Cast {
    fn schema(&self, leaf: &SchemaRef) -> Result<SchemaRef> {
        if leaf.name.is_none() && leaf.ty == self.target.ty() {
            return Ok(Arc::clone(leaf));
        }
        let mut schema = Schema::new(self.target.ty());
        schema.optional = leaf.optional;
        schema.doc.clone_from(&leaf.doc);
        schema.default = match &leaf.default {
            Some(default) if !default.is_null() => Some(self.value(default, Some(leaf))?),
            other => other.clone(),
        };
        Ok(schema.shared())
    }

    fn value(&self, value: &Value, leaf: Option<&SchemaRef>) -> Result<Value> {
        convert::convert(value, leaf.map(|leaf| &**leaf), self.target, self.lossy)
    }
}

#[cfg(test)]
mod tests;
