//! `rename` and `drop`: which fields there are, and what they are called.
//!
//! ```text
//! rename { fields: [after.mail:email] }:   {"after":{"id":1,"mail":"x"}} → {"after":{"id":1,"email":"x"}}
//! drop   { fields: [after.email] }:        {"after":{"id":1,"email":"x"}} → {"after":{"id":1}}
//! drop   { keep: [id] }:                   {"id":1,"email":"x"} → {"id":1}
//! ```
//!
//! A new name is that of the field alone; it stays where it is. Null on the way to a field stays null.

mod rules;

use aqueduct_core::config::{ConfigKey, ConfigType};
use aqueduct_core::transform::{Outcome, Transform, each};
use aqueduct_core::{Error, FieldPath, Record, Result, SchemaCache, Slot, Value};

use crate::kind::{Kind, Missing, Side, no_field, wrong};
pub(crate) use rules::Rules;
use rules::Shape;

/// `rename`.
pub(crate) fn rename() -> Kind {
    let keys = [
        ConfigKey::new("fields", ConfigType::List, "Fields and their new names, as `after.mail:email`.")
            .aliases(&["renames"])
            .required(),
        Side::KEY,
        Missing::KEY,
    ];
    Kind::new("rename", "Gives fields new names.", keys, |values| {
        let renames = renames(values.list("fields")?, "fields", FieldPath::parse)?;
        if renames.is_empty() {
            return Err(wrong("fields", "the list is empty; write `old:new`"));
        }
        let rules = Rules::new(&[], &[], &renames).map_err(|why| wrong("fields", why))?;
        Ok(step(rules, Side::from(values)?, Missing::from(values)?))
    })
}

/// `drop`.
pub(crate) fn drop() -> Kind {
    let keys = [
        ConfigKey::new(
            "fields",
            ConfigType::List,
            "Fields to take out; a path has dots, as in `after.email`.",
        )
        .aliases(&["exclude"])
        .default(""),
        ConfigKey::new("keep", ConfigType::List, "The only fields to keep; all others are taken out.")
            .aliases(&["include"])
            .default(""),
        Side::KEY,
        Missing::KEY,
    ];
    Kind::new("drop", "Takes fields out.", keys, |values| {
        let fields = paths(values.list("fields")?, "fields", FieldPath::parse)?;
        let keep = paths(values.list("keep")?, "keep", FieldPath::parse)?;
        if fields.is_empty() && keep.is_empty() {
            return Err(wrong("fields", "name the fields to take out, or in `keep` the only ones to keep"));
        }
        let rules = Rules::new(&fields, &keep, &[]).map_err(|why| wrong("fields", why))?;
        Ok(step(rules, Side::from(values)?, Missing::from(values)?))
    })
}

pub(crate) fn step(rules: Rules, side: Side, missing: Missing) -> Box<dyn Transform> {
    Box::new(Reshape { rules, side, missing, shapes: SchemaCache::new() })
}

/// How a field is named: by a path, or as Connect does by a name in which dots are plain.
pub(crate) type Read = fn(&str) -> Result<FieldPath, String>;

pub(crate) fn paths(list: &[String], key: &str, read: Read) -> Result<Vec<FieldPath>> {
    list.iter().map(|path| read(path).map_err(|why| wrong(key, why))).collect()
}

pub(crate) fn renames(list: &[String], key: &str, read: Read) -> Result<Vec<(FieldPath, String)>> {
    let parse = |item: &String| match item.split_once(':') {
        Some((old, new)) if !new.trim().is_empty() => {
            Ok((read(old.trim()).map_err(|why| wrong(key, why))?, new.trim().to_owned()))
        }
        _ => Err(wrong(key, format_args!("`{item}` is not a rename; write `old:new`"))),
    };
    list.iter().map(parse).collect()
}

struct Reshape {
    rules: Rules,
    side: Side,
    missing: Missing,
    shapes: SchemaCache<Option<Shape>>,
}

impl Transform for Reshape {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |mut record| {
            if self.side.of(&record).is_null() {
                return Outcome::Keep(record);
            }
            match self.reshape(&mut record) {
                Ok(()) => Outcome::Keep(record),
                Err(error) => Outcome::Fail(record, error),
            }
        })
    }
}

impl Reshape {
    fn reshape(&mut self, record: &mut Record) -> Result<()> {
        let (rules, missing) = (&self.rules, self.missing);
        let datum = self.side.of_mut(record);
        let schema = datum.schema().cloned();
        let shape = self.shapes.get(schema.as_ref(), |schema| {
            let Some(schema) = schema else { return Ok(None) };
            if missing == Missing::Fail
                && let Some(path) = rules.named().find(|path| path.locate(Some(schema)).is_none())
            {
                return Err(no_field(path));
            }
            Shape::new(rules, schema).map(Some)
        })?;
        let value = datum.value_mut()?;
        match shape {
            Some(shape) => {
                let value = shape.apply(std::mem::take(value));
                datum.set(Some(std::sync::Arc::clone(shape.schema())), value);
            }
            None => {
                if !matches!(value, Value::Map(_)) {
                    let kind = value.kind();
                    return Err(Error::bad_record(format!("only structs and maps have fields, not {kind}")));
                }
                if missing == Missing::Fail
                    && let Some(path) = rules.named().find(|path| is_missing(path, value))
                {
                    return Err(no_field(path));
                }
                rules.check(value)?;
                rules.apply(value);
            }
        }
        Ok(())
    }
}

fn is_missing(path: &FieldPath, value: &Value) -> bool {
    path.locate(None).is_none_or(|locator| locator.get(value) == Slot::Missing)
}

#[cfg(test)]
mod tests;
