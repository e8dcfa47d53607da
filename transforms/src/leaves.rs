//! Steps that replace single fields by something computed from each alone: `cast` and `timestamp`.
//!
//! **Invariant:** all fields are changed or, on an error, none. Null stays null, also where a struct on the way is null.

use std::sync::Arc;

use aqueduct_core::transform::{Outcome, Transform, each};
use aqueduct_core::{Error, FieldPath, Locator, Record, Result, SchemaCache, SchemaRef, Slot, Value};

use crate::kind::{Missing, Side, no_field};

/// What is done to one field.
pub(crate) trait Change: Send + 'static {
    /// The schema of the field afterwards, from the one it has.
    fn schema(&self, leaf: &SchemaRef) -> Result<SchemaRef>;

    /// The new value. Never called for null.
    fn value(&self, value: &Value, leaf: Option<&SchemaRef>) -> Result<Value>;
}

/// The step.
pub(crate) struct Leaves<C> {
    side: Side,
    missing: Missing,
    fields: Vec<(FieldPath, C)>,
    plans: SchemaCache<Plan>,
    /// New values of the record at hand, by field; empty between records.
    replaced: Vec<Option<Value>>,
}

struct Plan {
    fields: Vec<Option<Locator>>,
    /// The schema that comes out.
    out: Option<SchemaRef>,
}

impl<C: Change> Leaves<C> {
    pub(crate) fn step(side: Side, missing: Missing, fields: Vec<(FieldPath, C)>) -> Box<dyn Transform> {
        Box::new(Self { side, missing, fields, plans: SchemaCache::new(), replaced: Vec::new() })
    }

    fn change(&mut self, record: &mut Record) -> Result<()> {
        let (fields, missing) = (&self.fields, self.missing);
        let datum = self.side.of_mut(record);
        let schema = datum.schema().cloned();
        let plan = self.plans.get(schema.as_ref(), |schema| Plan::new(fields, schema, missing))?;
        let root = datum.value_mut()?;
        self.replaced.clear();
        for ((path, change), locator) in fields.iter().zip(&plan.fields) {
            let slot = locator.as_ref().map_or(Slot::Missing, |locator| locator.get(root));
            self.replaced.push(match slot {
                Slot::Found(Value::Null) | Slot::NullParent => None,
                Slot::Found(value) => {
                    let leaf = locator.as_ref().and_then(Locator::schema);
                    Some(change.value(value, leaf).map_err(|error| at(path, error))?)
                }
                Slot::Missing if missing == Missing::Ignore => None,
                Slot::Missing => return Err(no_field(path)),
            });
        }
        for (locator, replaced) in plan.fields.iter().zip(self.replaced.drain(..)) {
            if let (Some(locator), Some(replaced)) = (locator, replaced)
                && let Slot::Found(place) = locator.get_mut(root)
            {
                *place = replaced;
            }
        }
        if schema.is_some() {
            let value = std::mem::take(root);
            datum.set(plan.out.clone(), value);
        }
        Ok(())
    }
}

impl<C: Change> Transform for Leaves<C> {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |mut record| {
            if self.side.of(&record).is_null() {
                return Outcome::Keep(record);
            }
            match self.change(&mut record) {
                Ok(()) => Outcome::Keep(record),
                Err(error) => Outcome::Fail(record, error),
            }
        })
    }
}

fn at(path: &FieldPath, error: Error) -> Error {
    Error::new(error.kind(), format!("`{path}`: {}", error.message()))
}

impl Plan {
    fn new<C: Change>(
        fields: &[(FieldPath, C)],
        schema: Option<&SchemaRef>,
        missing: Missing,
    ) -> Result<Self> {
        let mut out = schema.cloned();
        let mut located = Vec::with_capacity(fields.len());
        for (path, change) in fields {
            let locator = path.locate(schema);
            if locator.is_none() && missing == Missing::Fail {
                return Err(no_field(path));
            }
            if let (Some(locator), Some(root)) = (&locator, &mut out)
                && let Some(leaf) = locator.schema()
            {
                let changed = change.schema(leaf).map_err(|error| at(path, error))?;
                if !Arc::ptr_eq(leaf, &changed) {
                    *root = locator.replace(root, changed).ok_or_else(|| {
                        Error::bad_record(format!(
                            "`{path}` is one entry of a map whose values share one type; it cannot change alone"
                        ))
                    })?;
                }
            }
            located.push(locator);
        }
        Ok(Self { fields: located, out })
    }
}
