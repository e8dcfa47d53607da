//! The fields of a record that its guest sees. Of a value that is still JSON text only they are decoded, and what the
//! guest sets is spliced in.

use std::ops::Range;

use aqueduct_core::json::{self, Paths, Splicer};
use aqueduct_core::{Datum, Locator, Result, Schema, Slot, Value};
use bytes::Bytes;

use super::Located;

/// Where the fields of one record are.
#[derive(Default)]
pub(super) struct Seen {
    located: Located,
    /// Of a text, in the order of the view; `None`: the value is decoded.
    sliced: Option<Vec<Slot<Sliced>>>,
}

struct Sliced {
    place: Range<usize>,
    value: Value,
}

impl Seen {
    /// Looks at a value; what is no plain text is decoded.
    pub(super) fn of(value: &mut Datum, located: Located, paths: Option<&Paths>) -> Result<Self> {
        let sliced = match (value.as_json(), paths) {
            (Some(text), Some(paths)) => slice(text, value.schema().is_some(), &located, paths),
            _ => None,
        };
        if sliced.is_none() {
            value.value()?;
        }
        Ok(Self { located, sliced })
    }

    /// How many fields the view has.
    pub(super) fn len(&self) -> usize {
        self.located.len()
    }

    /// A field of `value`, which is the one that was looked at.
    pub(super) fn get<'v>(&'v self, field: usize, value: &'v Datum) -> Slot<&'v Value> {
        match &self.sliced {
            Some(sliced) => match &sliced[field] {
                Slot::Found(found) => Slot::Found(&found.value),
                Slot::NullParent => Slot::NullParent,
                Slot::Missing => Slot::Missing,
            },
            None => {
                let value = value.decoded().unwrap_or(&Value::Null);
                self.located[field].as_ref().map_or(Slot::Missing, |locator| locator.get(value))
            }
        }
    }

    /// A field's schema.
    pub(super) fn schema(&self, field: usize) -> Option<&Schema> {
        self.located[field].as_ref().and_then(Locator::schema).map(|schema| &**schema)
    }

    /// Puts new values of their schemas where [`Seen::get`] found values; each field at most once.
    pub(super) fn put(&self, datum: &mut Datum, mut new: Vec<(usize, Value)>) -> Result<()> {
        let (Some(sliced), Some(text)) = (&self.sliced, datum.as_json()) else {
            let value = datum.value_mut()?;
            for (field, new) in new {
                if let Some(Slot::Found(place)) = self.located[field].as_ref().map(|at| at.get_mut(value)) {
                    *place = new;
                }
            }
            return Ok(());
        };
        let place = |field: usize| match &sliced[field] {
            Slot::Found(found) => found.place.clone(),
            Slot::NullParent | Slot::Missing => 0..0,
        };
        new.sort_unstable_by_key(|(field, _)| place(*field).start);
        let mut splicer = Splicer::new(text, new.iter().map(|(_, value)| value.size()).sum());
        for (field, value) in &new {
            json::encode(splicer.replace(&place(*field)), value, self.schema(*field))?;
        }
        *datum = Datum::json(datum.schema().cloned(), splicer.finish());
        Ok(())
    }
}

fn slice(text: &Bytes, typed: bool, located: &Located, paths: &Paths) -> Option<Vec<Slot<Sliced>>> {
    let mut places = Vec::with_capacity(located.len());
    if !paths.find(text, &mut places) {
        return None;
    }
    let each = places.into_iter().zip(located.iter()).map(|(place, locator)| {
        let Some(locator) = locator else { return Some(Slot::Missing) };
        match place {
            Slot::Found(place) => {
                // Whole decoding says what is wrong.
                let value =
                    json::decode(&text.slice(place.clone()), locator.schema().map(|schema| &**schema))
                        .ok()?;
                Some(Slot::Found(Sliced { place, value }))
            }
            Slot::NullParent => Some(Slot::NullParent),
            // It may have a default.
            Slot::Missing if typed => None,
            Slot::Missing => Some(Slot::Missing),
        }
    });
    each.collect()
}
