//! Values that are still JSON text: the masked fields are spliced into it, and nothing else is decoded.
//!
//! **Invariant:** what comes out decodes to the same as by the decoded way, and no value that stands under a masked path
//! is copied as it was. What is not plain is left to the decoded way, which also says what is wrong with it.

use std::ops::Range;

use aqueduct_core::json::{self, Paths, Splicer};
use aqueduct_core::{Datum, FieldPath, Result, Schema, SchemaRef, Slot, Str, Type, Value};
use bytes::Bytes;

use super::{Method, Plan};

/// The fields, and where they stand in the text at hand.
pub(super) struct Splice {
    paths: Option<Paths>,
    places: Vec<Slot<Range<usize>>>,
    order: Vec<usize>,
}

impl Splice {
    pub(super) fn new(fields: &[FieldPath]) -> Self {
        Self { paths: Paths::new(fields), places: Vec::new(), order: Vec::new() }
    }

    /// The masked datum; `None` leaves it to the decoded way.
    pub(super) fn mask(
        &mut self,
        plan: &Plan,
        method: &Method,
        schema: Option<&SchemaRef>,
        text: &Bytes,
        ignore_missing: bool,
    ) -> Result<Option<Datum>> {
        let Some(paths) = &self.paths else { return Ok(None) };
        if !paths.find(text, &mut self.places) {
            return Ok(None);
        }
        self.order.clear();
        for (field, place) in self.places.iter().enumerate() {
            match place {
                Slot::Found(range) if &text[range.clone()] != b"null" => self.order.push(field),
                Slot::Found(_) | Slot::NullParent => {}
                // With a schema it may have a default, which would have to be masked too.
                Slot::Missing if ignore_missing && schema.is_none() => {}
                Slot::Missing => return Ok(None),
            }
        }
        let places = &self.places;
        let start = |field: &usize| match &places[*field] {
            Slot::Found(range) => range.start,
            _ => 0,
        };
        self.order.sort_unstable_by_key(start);
        let mut splicer = Splicer::new(text, 64 * self.order.len());
        for field in &self.order {
            let Slot::Found(range) = &places[*field] else { continue };
            let leaf = plan.fields[*field].as_ref().and_then(|locator| locator.schema()).map(|leaf| &**leaf);
            let masked = method.apply(&decode(text, range.clone(), leaf)?, leaf)?;
            // What masking makes is text or null, whatever the field was.
            json::encode(splicer.replace(range), &masked, None)?;
        }
        Ok(Some(Datum::json(plan.out.clone(), splicer.finish())))
    }
}

fn decode(text: &Bytes, range: Range<usize>, schema: Option<&Schema>) -> Result<Value> {
    let text = text.slice(range);
    if let [b'"', inner @ .., b'"'] = &*text
        && schema.is_none_or(|schema| schema.ty == Type::String)
        && !inner.contains(&b'\\')
        && let Ok(plain) = Str::try_from(text.slice_ref(inner))
    {
        return Ok(Value::String(plain));
    }
    json::decode(&text, schema)
}
