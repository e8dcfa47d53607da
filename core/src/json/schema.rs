//! Schemas as the JSON that JsonConverter puts into its envelope, and their fingerprints.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::{decode, encode};
use crate::{Error, Field, Result, Schema, Type};

/// JsonConverter's form of a schema.
pub fn schema_to_json(schema: &Schema) -> Json {
    let mut out = Map::new();
    out.insert("type".into(), schema.ty.name().into());
    match &schema.ty {
        Type::Array(items) => {
            out.insert("items".into(), schema_to_json(items));
        }
        Type::Map(keys, values) => {
            out.insert("keys".into(), schema_to_json(keys));
            out.insert("values".into(), schema_to_json(values));
        }
        Type::Struct(fields) => {
            let fields = fields.iter().map(|field| {
                let mut json = schema_to_json(&field.schema);
                json["field"] = field.name.as_ref().into();
                json
            });
            out.insert("fields".into(), fields.collect());
        }
        _ => {}
    }
    out.insert("optional".into(), schema.optional.into());
    if let Some(name) = &schema.name {
        out.insert("name".into(), name.as_ref().into());
    }
    if let Some(version) = schema.version {
        out.insert("version".into(), version.into());
    }
    if let Some(doc) = &schema.doc {
        out.insert("doc".into(), doc.as_ref().into());
    }
    if !schema.parameters.is_empty() {
        out.insert("parameters".into(), json!(schema.parameters));
    }
    if let Some(default) = &schema.default {
        let mut text = Vec::new();
        if encode(&mut text, default, Some(schema)).is_ok() {
            out.insert("default".into(), serde_json::from_slice(&text).unwrap_or(Json::Null));
        }
    }
    Json::Object(out)
}

/// Reads JsonConverter's form of a schema.
pub fn schema_from_json(json: &Json) -> Result<Schema> {
    let bad = |what: &str| Error::bad_record(format!("a schema is not valid: {what}"));
    let part = |key: &str| -> Result<Arc<Schema>> {
        let part = json.get(key).ok_or_else(|| bad(&format!("`{key}` is missing")))?;
        schema_from_json(part).map(Arc::new)
    };
    let text = |key: &str| json.get(key).and_then(Json::as_str).map(Arc::<str>::from);
    let ty = match json.get("type").and_then(Json::as_str).ok_or_else(|| bad("`type` is missing"))? {
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "float" => Type::Float32,
        "double" => Type::Float64,
        "boolean" => Type::Boolean,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "array" => Type::Array(part("items")?),
        "map" => Type::Map(part("keys")?, part("values")?),
        "struct" => {
            let fields =
                json.get("fields").and_then(Json::as_array).ok_or_else(|| bad("`fields` is missing"))?;
            let field = |field: &Json| -> Result<Field> {
                let name =
                    field.get("field").and_then(Json::as_str).ok_or_else(|| bad("`field` is missing"))?;
                Ok(Field::new(name, Arc::new(schema_from_json(field)?)))
            };
            Type::Struct(fields.iter().map(field).collect::<Result<_>>()?)
        }
        other => return Err(bad(&format!("unknown type `{other}`"))),
    };
    let mut schema = Schema::new(ty);
    schema.optional = json.get("optional").and_then(Json::as_bool).unwrap_or(false);
    schema.name = text("name");
    schema.doc = text("doc");
    schema.version = json.get("version").and_then(Json::as_i64).and_then(|v| i32::try_from(v).ok());
    if let Some(parameters) = json.get("parameters").and_then(Json::as_object) {
        let pair = |(k, v): (&String, &Json)| v.as_str().map(|v| (k.clone(), v.to_owned()));
        schema.parameters = parameters.iter().filter_map(pair).collect::<BTreeMap<_, _>>();
    }
    if let Some(default) = json.get("default").filter(|default| !default.is_null()) {
        schema.default = Some(decode(&Bytes::from(default.to_string()), Some(&schema))?);
    }
    Ok(schema)
}

/// The 16 bytes that name a schema: the head of the SHA-256 of its JSON, whose keys have a fixed order.
pub fn fingerprint(schema: &Schema) -> [u8; 16] {
    let digest = Sha256::digest(schema_to_json(schema).to_string().as_bytes());
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    head
}
