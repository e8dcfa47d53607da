//! `mask`: replaces fields by a hash, a fixed text, their last characters or null.
//!
//! ```text
//! { fields: [email], method: hash, salt: "…" }:   {"id":1,"email":"a@b.c"} → {"id":1,"email":"5f2a…"}
//! ```
//!
//! Null stays null, also where a struct on the way is null. A masked field that was not text becomes text, in the
//! schema too.

mod method;
mod spliced;

use std::sync::Arc;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Problem, ResolvedConfig};
use aqueduct_core::transform::{Outcome, Transform, TransformFactory, each};
use aqueduct_core::{Error, FieldPath, Locator, Record, Result, SchemaCache, SchemaRef, Slot, Value};

use crate::nulls::{self, Nulls};
use method::Method;
use spliced::Splice;

/// The factory of `mask`.
pub struct Mask {
    spec: Spec,
}

impl Default for Mask {
    fn default() -> Self {
        Self::new()
    }
}

impl Mask {
    /// Makes it.
    pub fn new() -> Self {
        let keys = [
            ConfigKey::new("fields", ConfigType::List, "Fields to mask; a path has dots, as in `after.email`.")
                .required(),
            ConfigKey::new(
                "method",
                ConfigType::Enum(&["hash", "hmac", "redact", "partial", "null"]),
                "`hash`: hexadecimal SHA-256 of salt and text; `hmac`: HMAC-SHA-256 keyed with the salt; `redact`: a \
                 fixed text; `partial`: stars and the last characters; `null`: null.",
            )
            .default("hash"),
            ConfigKey::new(
                "salt",
                ConfigType::Password,
                "Secret for `hash` and `hmac`. Without one, the hashes of common values can be looked up.",
            ),
            ConfigKey::new("replacement", ConfigType::String, "The text that `redact` puts.").default("***"),
            ConfigKey::new(
                "keep",
                ConfigType::Int { min: 0, max: 64 },
                "How many characters at the end `partial` keeps; of a text at most twice as long, none.",
            )
            .default("4"),
            ConfigKey::new(
                "missing",
                ConfigType::Enum(&["fail", "ignore"]),
                "What becomes of a record that lacks a field: it fails, or the field is ignored.",
            )
            .default("fail"),
            nulls::KEY,
        ];
        let spec = Spec {
            name: "mask",
            aliases: &[],
            version: env!("CARGO_PKG_VERSION"),
            summary: "Replaces fields by a hash, a fixed text, their last characters or null.",
            config: ConfigDef::new(keys),
        };
        Self { spec }
    }

    fn step(&self, config: &ResolvedConfig) -> Result<MaskStep> {
        let values = self.spec.parse(config)?;
        let wrong = |key: &str, why: String| Error::bad_config(format!("`{key}`: {why}"));
        let fields = values.list("fields")?;
        if fields.is_empty() {
            return Err(wrong("fields", "the list is empty; name the fields to mask".into()));
        }
        let fields = fields.iter().map(|field| FieldPath::parse(field).map_err(|why| wrong("fields", why)));
        let fields = fields.collect::<Result<Vec<_>>>()?;
        Ok(MaskStep {
            splice: Splice::new(&fields),
            fields,
            method: Method::new(&values)?,
            ignore_missing: values.text("missing")? == "ignore",
            nulls: Nulls::from(&values)?,
            plans: SchemaCache::new(),
            replaced: Vec::new(),
        })
    }
}

impl TransformFactory for Mask {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        match self.spec.config.parse(config) {
            // The caller reports what the declared types show.
            Err(_) => Vec::new(),
            Ok(_) => self
                .step(config)
                .err()
                .map(|error| Problem::new("fields", error.full()))
                .into_iter()
                .collect(),
        }
    }

    fn build(&self, config: &ResolvedConfig) -> Result<Box<dyn Transform>> {
        Ok(Box::new(self.step(config)?))
    }
}

struct MaskStep {
    fields: Vec<FieldPath>,
    splice: Splice,
    method: Method,
    ignore_missing: bool,
    nulls: Nulls,
    plans: SchemaCache<Plan>,
    /// New values of the record at hand, by field; empty between records.
    replaced: Vec<Option<Value>>,
}

/// What masking means for one schema.
struct Plan {
    fields: Vec<Option<Locator>>,
    /// The schema that comes out.
    out: Option<SchemaRef>,
}

impl Transform for MaskStep {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |record| match self.nulls.of(record) {
            Ok(outcome) => outcome,
            Err(mut record) => match self.mask(&mut record) {
                Ok(()) => Outcome::Keep(record),
                Err(error) => Outcome::Fail(record, error),
            },
        })
    }
}

impl MaskStep {
    /// Masks all fields or, on an error, none.
    fn mask(&mut self, record: &mut Record) -> Result<()> {
        let (fields, method, ignore) = (&self.fields, &self.method, self.ignore_missing);
        let schema = record.value.schema().cloned();
        let plan = self.plans.get(schema.as_ref(), |schema| Plan::new(fields, method, schema, ignore))?;
        if let Some(text) = record.value.as_json()
            && let Some(masked) = self.splice.mask(plan, method, schema.as_ref(), text, ignore)?
        {
            record.value = masked;
            return Ok(());
        }
        let value = record.value.value_mut()?;
        self.replaced.clear();
        for (path, locator) in fields.iter().zip(&plan.fields) {
            let slot = locator.as_ref().map_or(Slot::Missing, |locator| locator.get(value));
            self.replaced.push(match slot {
                Slot::Found(Value::Null) | Slot::NullParent => None,
                Slot::Found(value) => {
                    Some(method.apply(value, locator.as_ref().and_then(Locator::schema).map(|s| &**s))?)
                }
                Slot::Missing if ignore => None,
                Slot::Missing => return Err(missing(path)),
            });
        }
        for (locator, replaced) in plan.fields.iter().zip(self.replaced.drain(..)) {
            if let (Some(locator), Some(replaced)) = (locator, replaced)
                && let Slot::Found(place) = locator.get_mut(value)
            {
                *place = replaced;
            }
        }
        if !same(schema.as_ref(), plan.out.as_ref()) {
            let value = std::mem::take(value);
            record.value.set(plan.out.clone(), value);
        }
        Ok(())
    }
}

fn same(a: Option<&SchemaRef>, b: Option<&SchemaRef>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

fn missing(path: &FieldPath) -> Error {
    Error::bad_record(format!(
        "there is no field `{path}` to mask; correct `fields`, or set `missing: ignore`"
    ))
}

impl Plan {
    fn new(fields: &[FieldPath], method: &Method, schema: Option<&SchemaRef>, ignore: bool) -> Result<Plan> {
        let mut out = schema.cloned();
        let mut located = Vec::with_capacity(fields.len());
        for path in fields {
            let locator = path.locate(schema);
            if locator.is_none() && !ignore {
                return Err(missing(path));
            }
            if let (Some(locator), Some(root)) = (&locator, &mut out)
                && let Some(leaf) = locator.schema()
                && let Some(changed) = method.leaf(leaf)
            {
                *root = locator.replace(root, changed).ok_or_else(|| {
                    Error::bad_record(format!("`{path}` is one entry of a map whose values are not text"))
                })?;
            }
            located.push(locator);
        }
        Ok(Plan { fields: located, out })
    }
}

#[cfg(test)]
mod tests;
