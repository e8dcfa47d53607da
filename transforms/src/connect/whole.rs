//! Classes that make a new key or value of the old: `ExtractField`, `HoistField`, `ValueToKey`, `SetSchemaMetadata` and
//! `MaskField`.

use aqueduct_core::config::{ConfigKey, ConfigType};
use aqueduct_core::{
    Error, Field, FieldPath, Record, Result, Schema, SchemaCache, SchemaRef, Slot, Type, Value, logical,
};

use super::NULL_DEFAULT;
use super::headers::Each;
use crate::kind::{Kind, Missing, Side, wrong};
use crate::leaves::{Change, Leaves};
use crate::reshape::paths;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        extract("org.apache.kafka.connect.transforms.ExtractField$Value", Side::Value),
        extract("org.apache.kafka.connect.transforms.ExtractField$Key", Side::Key),
        hoist("org.apache.kafka.connect.transforms.HoistField$Value", Side::Value),
        hoist("org.apache.kafka.connect.transforms.HoistField$Key", Side::Key),
        value_to_key(),
        metadata("org.apache.kafka.connect.transforms.SetSchemaMetadata$Value", Side::Value),
        metadata("org.apache.kafka.connect.transforms.SetSchemaMetadata$Key", Side::Key),
        mask("org.apache.kafka.connect.transforms.MaskField$Value", Side::Value),
        mask("org.apache.kafka.connect.transforms.MaskField$Key", Side::Key),
    ]
}

fn extract(name: &'static str, side: Side) -> Kind {
    let keys = [
        ConfigKey::new("field", ConfigType::String, "The field that takes the place of the whole.")
            .required(),
        ConfigKey::new("field.syntax.version", ConfigType::Enum(&["V1", "V2"]), "V2 reads dots as a path.")
            .default("V1"),
        NULL_DEFAULT,
    ];
    Kind::new(name, "Puts one field in the place of the whole.", keys, move |values| {
        let text = values.text("field")?;
        let path = if values.text("field.syntax.version")? == "V2" {
            FieldPath::parse(text)
        } else {
            FieldPath::field(text)
        };
        let path = path.map_err(|why| wrong("field", why))?;
        Ok(Box::new(Each(move |record: &mut Record| {
            let datum = side.of_mut(record);
            let schema = datum.schema().cloned();
            let Some(locator) = path.locate(schema.as_ref()) else {
                return Err(Error::bad_record(format!("Unknown field: {path}")));
            };
            let value = match locator.get(datum.value()?) {
                Slot::Found(value) => value.clone(),
                Slot::NullParent | Slot::Missing => Value::Null,
            };
            datum.set(locator.schema().cloned(), value);
            Ok(())
        })))
    })
}

fn hoist(name: &'static str, side: Side) -> Kind {
    let field =
        ConfigKey::new("field", ConfigType::String, "The field that holds the whole afterwards.").required();
    Kind::new(name, "Puts the whole into a field of a new struct.", [field], move |values| {
        let name = values.text("field")?.to_owned();
        let mut schemas: SchemaCache<Option<SchemaRef>> = SchemaCache::new();
        Ok(Box::new(Each(move |record: &mut Record| {
            let datum = side.of_mut(record);
            let out = schemas.get(datum.schema(), |schema| {
                let field = |schema: &SchemaRef| Field::new(name.as_str(), SchemaRef::clone(schema));
                Ok(schema.map(|schema| Schema::new(Type::Struct(vec![field(schema)])).shared()))
            })?;
            let out = out.clone();
            let value = std::mem::take(datum.value_mut()?);
            let value = match out {
                Some(_) => Value::Struct(vec![value]),
                None => Value::Map(vec![(Value::from(name.as_str()), value)]),
            };
            datum.set(out, value);
            Ok(())
        })))
    })
}

fn value_to_key() -> Kind {
    let fields =
        ConfigKey::new("fields", ConfigType::List, "Fields of the value that make the key.").required();
    let name = "org.apache.kafka.connect.transforms.ValueToKey";
    Kind::new(name, "Makes the key of fields of the value.", [fields, NULL_DEFAULT], |values| {
        let names = values.list("fields")?.to_vec();
        if names.is_empty() {
            return Err(wrong("fields", "the list is empty; name the fields that make the key"));
        }
        let mut schemas: SchemaCache<Option<(SchemaRef, Vec<usize>)>> = SchemaCache::new();
        Ok(Box::new(Each(move |record: &mut Record| {
            let plan = schemas.get(record.value.schema(), |schema| match schema {
                Some(schema) => key_plan(&names, schema).map(Some),
                None => Ok(None),
            })?;
            let value = record.value.value()?;
            let (schema, key) = match (plan, value) {
                (Some((schema, at)), Value::Struct(values)) => {
                    let of = |i: &usize| values.get(*i).cloned().unwrap_or_default();
                    (Some(SchemaRef::clone(schema)), Value::Struct(at.iter().map(of).collect()))
                }
                (None, Value::Map(_)) => {
                    let of = |name: &String| {
                        (Value::from(name.as_str()), value.get(name).cloned().unwrap_or_default())
                    };
                    (None, Value::Map(names.iter().map(of).collect()))
                }
                (_, other) => {
                    let kind = other.kind();
                    return Err(Error::bad_record(format!("{kind} has no fields to make the key of")));
                }
            };
            record.key.set(schema, key);
            Ok(())
        })))
    })
}

fn key_plan(names: &[String], schema: &SchemaRef) -> Result<(SchemaRef, Vec<usize>)> {
    let mut fields = Vec::with_capacity(names.len());
    let mut at = Vec::with_capacity(names.len());
    for name in names {
        let (i, field) =
            schema.field(name).ok_or_else(|| Error::bad_record(format!("Field does not exist: {name}")))?;
        fields.push(field.clone());
        at.push(i);
    }
    Ok((Schema::new(Type::Struct(fields)).shared(), at))
}

fn metadata(name: &'static str, side: Side) -> Kind {
    let keys = [
        ConfigKey::new("schema.name", ConfigType::String, "The schema's new name."),
        ConfigKey::new(
            "schema.version",
            ConfigType::Int { min: i32::MIN as i64, max: i32::MAX as i64 },
            "The schema's new version.",
        ),
        NULL_DEFAULT,
    ];
    Kind::new(name, "Names the schema, or gives it a version.", keys, move |values| {
        let name = values.opt_text("schema.name")?.map(str::to_owned);
        let version = values.opt_int("schema.version")?;
        if name.is_none() && version.is_none() {
            return Err(wrong("schema.name", "set `schema.name`, `schema.version` or both"));
        }
        let mut schemas: SchemaCache<Option<SchemaRef>> = SchemaCache::new();
        Ok(Box::new(Each(move |record: &mut Record| {
            let datum = side.of_mut(record);
            let out = schemas.get(datum.schema(), |schema| {
                let Some(schema) = schema else { return Ok(None) };
                let mut schema = Schema::clone(schema);
                if let Some(name) = &name {
                    schema = schema.named(name.as_str());
                }
                // The key's bounds are those of an int32.
                schema.version = version.map(|version| version as i32).or(schema.version);
                Ok(Some(schema.shared()))
            })?;
            match (out.clone(), datum.is_null()) {
                (None, true) => Ok(()),
                (None, false) => Err(Error::bad_record("there is no schema to name")),
                (out, _) => {
                    let value = std::mem::take(datum.value_mut()?);
                    datum.set(out, value);
                    Ok(())
                }
            }
        })))
    })
}

fn mask(name: &'static str, side: Side) -> Kind {
    let keys = [
        ConfigKey::new("fields", ConfigType::List, "Fields to mask.").required(),
        ConfigKey::new(
            "replacement",
            ConfigType::String,
            "What numbers and text become; default: 0 and empty text.",
        ),
        NULL_DEFAULT,
    ];
    Kind::new(name, "Masks fields with an empty value or a fixed one.", keys, move |values| {
        let fields = paths(values.list("fields")?, "fields", FieldPath::field)?;
        if fields.is_empty() {
            return Err(wrong("fields", "the list is empty; name the fields to mask"));
        }
        let replacement = values.opt_text("replacement")?.map(str::to_owned);
        if replacement.as_deref() == Some("") {
            return Err(wrong("replacement", "it is empty; leave it out for empty values"));
        }
        let blank = fields.into_iter().map(|field| (field, Blank { replacement: replacement.clone() }));
        // Connect lets a field pass that is not there. What hides data fails closed here.
        Ok(Leaves::step(side, Missing::Fail, blank.collect()))
    })
}

/// Connect's value for a masked field.
struct Blank {
    replacement: Option<String>,
}

impl Change for Blank {
    fn schema(&self, leaf: &SchemaRef) -> Result<SchemaRef> {
        Ok(SchemaRef::clone(leaf))
    }

    fn value(&self, value: &Value, leaf: Option<&SchemaRef>) -> Result<Value> {
        let scale = leaf.and_then(|leaf| logical::decimal_scale(leaf));
        if let Some(text) = &self.replacement {
            let wrong = || {
                let kind = value.kind();
                Error::bad_record(format!("Cannot mask value of type {kind} with custom replacement value"))
            };
            return Ok(match value {
                Value::String(_) => Value::from(text.as_str()),
                Value::Int8(_) => Value::Int8(text.parse().map_err(|_| wrong())?),
                Value::Int16(_) => Value::Int16(text.parse().map_err(|_| wrong())?),
                Value::Int32(_) => Value::Int32(text.parse().map_err(|_| wrong())?),
                Value::Int64(_) => Value::Int64(text.parse().map_err(|_| wrong())?),
                Value::Float32(_) => Value::Float32(text.parse().map_err(|_| wrong())?),
                Value::Float64(_) => Value::Float64(text.parse().map_err(|_| wrong())?),
                Value::Bytes(_) => match scale {
                    Some(scale) => Value::Bytes(logical::decimal_bytes(text, scale)?),
                    None => return Err(wrong()),
                },
                _ => return Err(wrong()),
            });
        }
        Ok(match value {
            Value::Bool(_) => Value::Bool(false),
            Value::Int8(_) => Value::Int8(0),
            Value::Int16(_) => Value::Int16(0),
            Value::Int32(_) => Value::Int32(0),
            Value::Int64(_) => Value::Int64(0),
            Value::Float32(_) => Value::Float32(0.0),
            Value::Float64(_) => Value::Float64(0.0),
            Value::String(_) => Value::from(""),
            Value::Array(_) => Value::Array(Vec::new()),
            Value::Map(_) => Value::Map(Vec::new()),
            Value::Bytes(_) if scale.is_some() => Value::Bytes(bytes::Bytes::from_static(&[0])),
            other => {
                return Err(Error::bad_record(format!("Cannot mask value of type {}", other.kind())));
            }
        })
    }
}
