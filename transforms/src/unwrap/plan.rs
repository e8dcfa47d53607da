//! Where things are in the envelopes of one schema, and the schema of the rows that come out.

use std::sync::Arc;

use aqueduct_core::{Error, Field, Locator, Result, Schema, SchemaRef, Type, Value};

use super::{DELETED, Shape, extra::Extra};

/// The plan for one schema of envelopes.
pub(super) struct Plan {
    parts: Parts,
    pub(super) fields: Vec<Option<Locator>>,
    pub(super) headers: Vec<Option<Locator>>,
    pub(super) out_before: Option<SchemaRef>,
    pub(super) out_after: Option<SchemaRef>,
}

enum Parts {
    /// Positions in the struct.
    Typed { op: usize, before: Option<usize>, after: usize },
    /// A map; whether it is an envelope shows with each.
    Free,
}

impl Plan {
    /// `None` when values of this schema are no envelopes.
    pub(super) fn new(schema: Option<&SchemaRef>, shape: &Shape) -> Result<Option<Plan>> {
        let locate =
            |extras: &[Extra]| extras.iter().map(|extra| extra.path.locate(schema)).collect::<Vec<_>>();
        let (fields, headers) = (locate(&shape.fields), locate(&shape.headers));
        let Some(envelope) = schema else {
            return Ok(Some(Plan { parts: Parts::Free, fields, headers, out_before: None, out_after: None }));
        };
        // As Debezium tells them: by the name.
        if !envelope.name.as_deref().is_some_and(|name| name.ends_with("Envelope")) {
            return Ok(None);
        }
        let (Some((op, op_field)), Some((after, after_field))) =
            (envelope.field("op"), envelope.field("after"))
        else {
            return Ok(None);
        };
        if op_field.schema.ty != Type::String {
            return Ok(None);
        }
        let before = envelope.field("before");
        let row = |field: &Field| row_schema(envelope, &field.schema, shape, &fields).map(Some);
        let out_after = row(after_field)?;
        let out_before = match before {
            // Nearly always the same object, so that rows of both kinds share a schema.
            Some((_, field)) if Schema::same(&field.schema, &after_field.schema) => out_after.clone(),
            Some((_, field)) => row(field)?,
            None => None,
        };
        let parts = Parts::Typed { op, before: before.map(|(i, _)| i), after };
        Ok(Some(Plan { parts, fields, headers, out_before, out_after }))
    }

    /// The operation; `None` when this is no envelope.
    pub(super) fn op<'v>(&self, value: &'v Value) -> Option<&'v str> {
        match (&self.parts, value) {
            (Parts::Typed { op, .. }, Value::Struct(values)) => values.get(*op)?.as_str(),
            (Parts::Free, map) => {
                map.get("source")?;
                map.get("after").or_else(|| map.get("before"))?;
                map.get("op")?.as_str()
            }
            _ => None,
        }
    }

    /// Whether there is a row before the change, as far as the schema knows.
    pub(super) fn has_before(&self) -> bool {
        !matches!(self.parts, Parts::Typed { before: None, .. })
    }

    pub(super) fn before<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        match self.parts {
            Parts::Typed { before, .. } => position(value, before?),
            Parts::Free => entry(value, "before"),
        }
    }

    pub(super) fn after<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        match self.parts {
            Parts::Typed { after, .. } => position(value, after),
            Parts::Free => entry(value, "after"),
        }
    }
}

fn position(value: &mut Value, i: usize) -> Option<&mut Value> {
    match value {
        Value::Struct(values) => values.get_mut(i),
        _ => None,
    }
}

fn entry<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    match value {
        Value::Map(entries) => entries.iter_mut().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v),
        _ => None,
    }
}

/// The schema of the row with what is added; the row's own where nothing is. In the envelope a row may be null; what
/// comes out never is.
fn row_schema(
    envelope: &SchemaRef,
    row: &SchemaRef,
    shape: &Shape,
    located: &[Option<Locator>],
) -> Result<SchemaRef> {
    let Type::Struct(fields) = &row.ty else {
        return Err(Error::bad_record("the rows of the change event are not structs"));
    };
    let mut fields = fields.clone();
    for (extra, locator) in shape.fields.iter().zip(located) {
        // A missing one is an error of each record that would need it.
        let Some(schema) = locator.as_ref().and_then(|locator| locator.schema()) else { continue };
        let nullable = schema.optional || has_optional_parent(envelope, extra);
        let schema = if nullable { Schema::clone(schema).optional().shared() } else { Arc::clone(schema) };
        fields.push(Field { name: Arc::clone(&extra.name), schema });
    }
    if shape.rewrite {
        fields.push(Field::new(DELETED, Schema::new(Type::String).optional().shared()));
    }
    for (i, field) in fields.iter().enumerate() {
        if fields[..i].iter().any(|other| other.name == field.name) {
            return Err(Error::bad_record(format!(
                "the row has a field `{}` already; choose another prefix or name for what is added",
                field.name
            )));
        }
    }
    Ok(Schema { ty: Type::Struct(fields), optional: false, default: None, ..Schema::clone(row) }.shared())
}

fn has_optional_parent(envelope: &SchemaRef, extra: &Extra) -> bool {
    let parent = extra.path.as_str().split_once('.').and_then(|(parent, _)| envelope.field(parent));
    parent.is_some_and(|(_, field)| field.schema.optional)
}
