//! The key `schema`: what records without a schema of their own are.

use std::sync::Arc;

use aqueduct_core::{Field, Schema, SchemaRef, Type, json, logical};
use serde_json::Value as Json;

/// From a list of `name:type` (`name:type?` where null is allowed or the field may be missing), or the schema as
/// JsonConverter writes it.
pub(crate) fn parse(json: &Json) -> Result<SchemaRef, String> {
    match json {
        Json::Array(items) => {
            let field = |item: &Json| {
                let text = item.as_str().ok_or_else(|| format!("{item} is no field; write `name:type`"))?;
                field(text)
            };
            let fields = items.iter().map(field).collect::<Result<Vec<_>, _>>()?;
            if fields.is_empty() {
                return Err("a schema needs at least one field".to_owned());
            }
            Ok(Schema::new(Type::Struct(fields)).shared())
        }
        Json::Object(_) => match json::schema_from_json(json) {
            Ok(schema) if matches!(schema.ty, Type::Struct(_)) => Ok(Arc::new(schema)),
            Ok(schema) => Err(format!("a schema of type {}; it has to be a struct", schema.ty.name())),
            Err(error) => Err(error.full()),
        },
        _ => {
            Err("write a list of fields, `[\"id:int64\", \"name:string?\"]`, or the schema as Connect's JSON"
                .to_owned())
        }
    }
}

/// The check of the key.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let schema = parse(&json)?;
    // What cannot be a column is said before the first record.
    aqueduct_format_parquet::Layout::new(&schema, false).map(drop).map_err(|error| error.full())
}

fn field(text: &str) -> Result<Field, String> {
    let (name, word) = text
        .split_once(':')
        .map(|(name, word)| (name.trim(), word.trim()))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("`{text}` is no field; write `name:type`"))?;
    let (word, optional) = word.strip_suffix('?').map_or((word, false), |word| (word, true));
    let named = |ty, name: &str| Schema::new(ty).named(name).versioned(1);
    let mut schema = match word {
        "boolean" => Schema::new(Type::Boolean),
        "int8" => Schema::new(Type::Int8),
        "int16" => Schema::new(Type::Int16),
        "int32" => Schema::new(Type::Int32),
        "int64" => Schema::new(Type::Int64),
        "float" => Schema::new(Type::Float32),
        "double" => Schema::new(Type::Float64),
        "string" => Schema::new(Type::String),
        "bytes" => Schema::new(Type::Bytes),
        "date" => named(Type::Int32, logical::DATE),
        "time" => named(Type::Int32, logical::TIME),
        "timestamp" => named(Type::Int64, logical::TIMESTAMP),
        _ => decimal(word).ok_or_else(|| {
            format!(
                "`{word}` of `{name}` is no type; known are boolean, int8, int16, int32, int64, float, double, string, \
                 bytes, date, time, timestamp and decimal(PRECISION,SCALE)"
            )
        })?,
    };
    schema.optional = optional;
    Ok(Field::new(name, schema.shared()))
}

fn decimal(word: &str) -> Option<Schema> {
    let (precision, scale) = word.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale) = (precision.trim().parse::<u8>().ok()?, scale.trim().parse::<u8>().ok()?);
    (precision > 0 && precision <= 76 && scale <= precision).then(|| {
        logical::decimal_schema(scale.into()).parameter("connect.decimal.precision", precision.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_listed_or_given_as_connect_writes_them() {
        let list = serde_json::json!(["id:int64", "name: string?", "price:decimal(10,2)"]);
        let schema = parse(&list).expect("valid");
        assert_eq!(schema.fields().len(), 3);
        assert!(schema.fields()[1].schema.optional && !schema.fields()[0].schema.optional);
        assert_eq!(logical::decimal_scale(&schema.fields()[2].schema), Some(2));
        assert_eq!(*parse(&json::schema_to_json(&schema)).expect("valid"), *schema);
    }

    #[test]
    fn what_is_no_schema_is_said() {
        for text in [
            "[]",
            "7",
            r#"["id"]"#,
            r#"["id:int"]"#,
            r#"[":int64"]"#,
            r#"["p:decimal(2,3)"]"#,
            r#"["p:decimal(90,3)"]"#,
            r#"["a:int8","a:int8"]"#,
            r#"{"type":"string"}"#,
            r#"{"type":"struct","fields":[]}"#,
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }
}
