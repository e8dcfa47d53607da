//! Envelopes that are still JSON text: the row is cut out of it, and none of its fields are decoded.
//!
//! **Invariant:** what comes out decodes to the same as by the decoded way. Whatever is not plainly an envelope with the
//! row it should have is left to that way, which also says what is wrong with it.

use std::fmt;
use std::sync::Arc;

use aqueduct_core::{Datum, Field, Schema, SchemaRef, Value, json};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::plan::Plan;
use super::{Change, DELETED, Deletes, Shape, extra_headers};

/// What an envelope became.
pub(super) enum Cut {
    Nothing,
    Datum(Datum, Vec<(Arc<str>, Datum)>),
}

/// `None` leaves the envelope to the decoded way.
pub(super) fn cut(
    plan: &Plan,
    shape: &Shape,
    deletes: &Deletes,
    schema: Option<&SchemaRef>,
    text: &Bytes,
) -> Option<Cut> {
    if shape.reads_rows() {
        return None;
    }
    let keep = shape.adds_metadata();
    let envelope = Envelope::read(text, keep)?;
    if schema.is_none() && !envelope.is_certain() {
        return None;
    }
    let change = deletes.change(envelope.op()?).ok()?;
    if matches!(change, Change::Nothing) {
        return Some(Cut::Nothing);
    }
    let rest = if keep { envelope.without_rows(schema, text)? } else { Value::Null };
    let headers = extra_headers(&shape.headers, plan, &rest).ok()?;
    let Change::Row { before } = change else { return Some(Cut::Datum(Datum::null(), headers)) };
    let row = if before { plan.has_before().then_some(envelope.before)?? } else { envelope.after? };
    if !row.starts_with('{') {
        return None;
    }
    let row = if shape.fields.is_empty() && !shape.rewrite {
        text.slice_ref(row.as_bytes())
    } else {
        append(row, plan, shape, &rest, before)?
    };
    let schema = if before { &plan.out_before } else { &plan.out_after };
    Some(Cut::Datum(Datum::json(schema.clone(), row), headers))
}

/// The row's text with what is added to it before its last brace.
fn append(row: &str, plan: &Plan, shape: &Shape, rest: &Value, before: bool) -> Option<Bytes> {
    let open = row.strip_suffix('}')?.trim_end();
    let mut out = Vec::with_capacity(open.len() + 24 + 48 * shape.fields.len());
    out.extend_from_slice(open.as_bytes());
    let name = |out: &mut Vec<u8>, name: &str| {
        // Only an empty object ends with its brace.
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        json::encode_text(out, name);
        out.push(b':');
    };
    for (extra, locator) in shape.fields.iter().zip(&plan.fields) {
        let value = extra.read(locator.as_ref(), rest).ok()?;
        name(&mut out, &extra.name);
        let schema = locator.as_ref().and_then(|locator| locator.schema());
        json::encode(&mut out, &value, schema.map(|schema| &**schema)).ok()?;
    }
    if shape.rewrite {
        name(&mut out, DELETED);
        json::encode_text(&mut out, if before { "true" } else { "false" });
    }
    out.push(b'}');
    Some(out.into())
}

/// The parts of an envelope, as text.
#[derive(Default)]
struct Envelope<'a> {
    op: Option<&'a str>,
    before: Option<&'a str>,
    after: Option<&'a str>,
    source: Option<&'a str>,
    /// Everything but the rows, where something of it is added.
    kept: Vec<(&'a str, &'a str)>,
}

impl<'a> Envelope<'a> {
    /// `None` for what is no object, has a key twice, or has escapes in its keys.
    fn read(text: &'a [u8], keep: bool) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let envelope = serde::Deserializer::deserialize_map(&mut reader, Parts { keep }).ok()?;
        reader.end().ok()?;
        Some(envelope)
    }

    /// Without a schema, these fields tell an envelope.
    fn is_certain(&self) -> bool {
        self.source.is_some() && (self.after.is_some() || self.before.is_some())
    }

    fn op(&self) -> Option<&'a str> {
        let op = self.op?.strip_prefix('"')?.strip_suffix('"')?;
        (!op.contains('\\')).then_some(op)
    }

    /// The envelope decoded, with null for the rows.
    fn without_rows(&self, schema: Option<&SchemaRef>, text: &Bytes) -> Option<Value> {
        let decode =
            |part: &str, schema: Option<&Schema>| json::decode(&text.slice_ref(part.as_bytes()), schema).ok();
        let Some(schema) = schema else {
            let entry = |(key, part): &(&str, &str)| Some((Value::from(*key), decode(part, None)?));
            return self.kept.iter().map(entry).collect::<Option<_>>().map(Value::Map);
        };
        let field = |field: &Field| {
            if matches!(&*field.name, "before" | "after") {
                return Some(Value::Null);
            }
            match self.kept.iter().find(|(key, _)| *key == &*field.name) {
                Some((_, part)) => decode(part, Some(&*field.schema)),
                None => field.schema.default.clone().or(field.schema.optional.then_some(Value::Null)),
            }
        };
        schema.fields().iter().map(field).collect::<Option<_>>().map(Value::Struct)
    }
}

struct Parts {
    keep: bool,
}

impl<'de> serde::de::Visitor<'de> for Parts {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a change event")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(key) = map.next_key::<&'de str>()? {
            let part = map.next_value::<&'de RawValue>()?.get();
            let place = match key {
                "before" => &mut envelope.before,
                "after" => &mut envelope.after,
                "op" => &mut envelope.op,
                "source" => &mut envelope.source,
                _ => &mut None,
            };
            let twice = place.replace(part).is_some();
            let row = matches!(key, "before" | "after");
            if twice || (self.keep && envelope.kept.iter().any(|(other, _)| *other == key)) {
                return Err(serde::de::Error::custom("a key stands twice"));
            }
            if self.keep && !row {
                envelope.kept.push((key, part));
            }
        }
        Ok(envelope)
    }
}
