//! `flatten`: nested structs and maps become fields of the outermost.
//!
//! ```text
//! {"id":1,"geo":{"lat":1.5,"lon":2}} → {"id":1,"geo.lat":1.5,"geo.lon":2}
//! ```
//!
//! Arrays stay as they are, and so do maps whose schema is a map's: their keys are data, not fields. A field is optional
//! if it or a struct around it is.

use aqueduct_core::config::{ConfigKey, ConfigType};
use aqueduct_core::transform::{Outcome, Transform, each};
use aqueduct_core::{Error, Field, Record, Result, Schema, SchemaCache, SchemaRef, Type, Value};

use crate::kind::{Kind, Side};

/// Deeper values are refused; JSON is decoded to this depth.
const MAX_DEPTH: usize = 128;

/// `flatten`.
pub(crate) fn flatten() -> Kind {
    let keys = [
        ConfigKey::new("delimiter", ConfigType::String, "Put between the names of a nested field.")
            .default("."),
        Side::KEY,
    ];
    Kind::new("flatten", "Makes nested fields fields of the outermost.", keys, |values| {
        Ok(step(values.text("delimiter")?, Side::from(values)?))
    })
}

pub(crate) fn step(delimiter: &str, side: Side) -> Box<dyn Transform> {
    Box::new(Flatten { delimiter: delimiter.to_owned(), side, schemas: SchemaCache::new() })
}

struct Flatten {
    delimiter: String,
    side: Side,
    /// What comes out, by schema.
    schemas: SchemaCache<Option<SchemaRef>>,
}

impl Transform for Flatten {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |mut record| {
            if self.side.of(&record).is_null() {
                return Outcome::Keep(record);
            }
            match self.flatten(&mut record) {
                Ok(()) => Outcome::Keep(record),
                Err(error) => Outcome::Fail(record, error),
            }
        })
    }
}

impl Flatten {
    fn flatten(&mut self, record: &mut Record) -> Result<()> {
        let datum = self.side.of_mut(record);
        let schema = datum.schema().cloned();
        let delimiter = &self.delimiter;
        let out = self.schemas.get(schema.as_ref(), |schema| match schema {
            Some(schema) => flat_schema(schema, delimiter).map(Some),
            None => Ok(None),
        })?;
        let value = datum.value_mut()?;
        let flat = match (&schema, &*value) {
            (Some(schema), Value::Struct(_)) => {
                let mut flat = Vec::new();
                fields(std::mem::take(value), schema, &mut flat);
                Value::Struct(flat)
            }
            (None, Value::Map(_)) => {
                // On the side: an error must leave the record as it was.
                let mut flat = Vec::new();
                entries(value, "", &self.delimiter, 0, &mut flat)?;
                let mut names: Vec<&str> = flat.iter().filter_map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Err(twice_named(twice[0]));
                }
                Value::Map(flat)
            }
            (_, other) => {
                return Err(Error::bad_record(format!(
                    "only structs and maps can be flattened, not {}",
                    other.kind()
                )));
            }
        };
        datum.set(out.clone(), flat);
        Ok(())
    }
}

fn twice_named(name: &str) -> Error {
    Error::bad_record(format!("two fields would be named `{name}`; choose another `delimiter`"))
}

fn flat_schema(schema: &SchemaRef, delimiter: &str) -> Result<SchemaRef> {
    let Type::Struct(nested) = &schema.ty else {
        return Err(Error::bad_record(format!(
            "only structs and maps can be flattened, not {}",
            schema.ty.name()
        )));
    };
    let mut flat: Vec<Field> = Vec::new();
    collect(nested, "", schema.optional, delimiter, &mut flat);
    let mut names: Vec<&str> = flat.iter().map(|field| &*field.name).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(twice_named(twice[0]));
    }
    Ok(Schema { ty: Type::Struct(flat), default: None, ..Schema::clone(schema) }.shared())
}

fn collect(nested: &[Field], prefix: &str, optional: bool, delimiter: &str, flat: &mut Vec<Field>) {
    for field in nested {
        let name = format!("{prefix}{}", field.name);
        let optional = optional || field.schema.optional;
        match &field.schema.ty {
            Type::Struct(below) => collect(below, &format!("{name}{delimiter}"), optional, delimiter, flat),
            _ if optional && !field.schema.optional => {
                flat.push(Field::new(name, Schema::clone(&field.schema).optional().shared()));
            }
            _ => flat.push(Field::new(name, SchemaRef::clone(&field.schema))),
        }
    }
}

/// The values in the order of [`collect`]; a struct that is null gives a null for each of its fields.
fn fields(value: Value, schema: &Schema, flat: &mut Vec<Value>) {
    let mut values = match value {
        Value::Struct(values) => values.into_iter(),
        _ => Vec::new().into_iter(),
    };
    for field in schema.fields() {
        let value = values.next().unwrap_or_default();
        match &field.schema.ty {
            Type::Struct(_) => fields(value, &field.schema, flat),
            _ => flat.push(value),
        }
    }
}

fn entries(
    value: &Value,
    prefix: &str,
    delimiter: &str,
    depth: usize,
    flat: &mut Vec<(Value, Value)>,
) -> Result<()> {
    let Value::Map(nested) = value else { return Ok(()) };
    if depth > MAX_DEPTH {
        return Err(Error::bad_record(format!("the value is nested more than {MAX_DEPTH} deep")));
    }
    for (key, value) in nested {
        let key = key
            .as_str()
            .ok_or_else(|| Error::bad_record("a map whose keys are no text cannot be flattened"))?;
        let name = format!("{prefix}{key}");
        match value {
            Value::Map(_) => entries(value, &format!("{name}{delimiter}"), delimiter, depth + 1, flat)?,
            _ => flat.push((Value::from(name), value.clone())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
