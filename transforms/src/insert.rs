//! `insert`: adds a field.
//!
//! ```text
//! { field: region, value: eu }
//! { field: total, expression: "value.quantity * value.price", type: float64 }
//! { field: meta.topic, expression: topic }
//! ```
//!
//! An `expression` is CEL over `value`, `key`, `headers`, `topic`, `partition` and `timestamp`; what it gives must be of `type`,
//! or null. A field that is there already is replaced. What holds the field must be a struct or a map.

use std::sync::Arc;

use aqueduct_core::config::{ConfigKey, ConfigType};
use aqueduct_core::transform::{Outcome, Transform, each};
use aqueduct_core::{
    Error, Field, FieldPath, Locator, Record, Result, Schema, SchemaCache, SchemaRef, Slot, Str, Type, Value,
};
use cel::Env;
use cel::common::types::{CelBool, CelDouble, CelInt, CelNull, CelString, CelUInt};
use cel::common::value::Val;

use crate::cast::{Cast, Target};
use crate::expression::Expression;
use crate::kind::{Kind, Side, wrong};
use crate::leaves::Change;

/// `insert`.
pub(crate) fn insert() -> Kind {
    let keys = [
        ConfigKey::new(
            "field",
            ConfigType::String,
            "The field to add; a path has dots, as in `meta.region`.",
        )
        .required(),
        ConfigKey::new("value", ConfigType::String, "What it holds, the same in every record."),
        ConfigKey::new("expression", ConfigType::String, "CEL that gives what it holds, instead of `value`."),
        // In Connect's form of a step, `type` is the step itself.
        ConfigKey::new(
            "as",
            ConfigType::Enum(&["string", "int8", "int16", "int32", "int64", "float32", "float64", "boolean"]),
            "The type of the field.",
        )
        .default("string")
        .aliases(&["type"]),
        Side::KEY,
    ];
    let env = Arc::new(Env::stdlib());
    Kind::new("insert", "Adds a field.", keys, move |values| {
        let target = Target::parse(values.text("as")?).ok_or_else(|| wrong("as", "unknown type"))?;
        let cast = Cast { target, lossy: false };
        let what = match (values.opt_text("value")?, values.opt_text("expression")?) {
            (Some(text), None) => {
                let value = cast.value(&Value::from(text), None);
                What::Fixed(value.map_err(|error| wrong("value", error.message()))?)
            }
            (None, Some(text)) => {
                What::Expression(Expression::new(&env, text).map_err(|why| wrong("expression", why))?)
            }
            _ => return Err(wrong("value", "write either `value` or `expression`")),
        };
        let field = FieldPath::parse(values.text("field")?).map_err(|why| wrong("field", why))?;
        step(
            vec![Insertion { field, what, target: Kinded::Plain(target), required: false }],
            Side::from(values)?,
        )
    })
}

/// One field to add.
pub(crate) struct Insertion {
    pub(crate) field: FieldPath,
    pub(crate) what: What,
    pub(crate) target: Kinded,
    pub(crate) required: bool,
}

/// The schema of a new field.
pub(crate) enum Kinded {
    Plain(Target),
    Named(Schema),
}

impl Kinded {
    fn schema(&self, optional: bool) -> SchemaRef {
        let mut schema = match self {
            Kinded::Plain(target) => Schema::new(target.ty()),
            Kinded::Named(schema) => schema.clone(),
        };
        schema.optional = optional;
        schema.shared()
    }
}

/// What a new field holds.
pub(crate) enum What {
    Fixed(Value),
    Expression(Expression),
    Topic,
    Partition,
    Timestamp,
}

impl What {
    fn of(&self, record: &mut Record, target: &Kinded) -> Result<Value> {
        Ok(match self {
            What::Fixed(value) => value.clone(),
            What::Expression(expression) => {
                let Kinded::Plain(target) = target else {
                    return Err(Error::fatal("an expression has a plain type"));
                };
                expression.eval(record, |value| computed(value, *target))?
            }
            What::Topic => Value::from(&*record.topic),
            What::Partition => Value::from(record.partition),
            What::Timestamp => Value::from(record.timestamp),
        })
    }
}

/// What CEL gave, in the type asked for: integers and floats fit each other where nothing is lost.
fn computed(value: &dyn Val, target: Target) -> Result<Value> {
    let plain = if value.downcast_ref::<CelNull>().is_some() {
        return Ok(Value::Null);
    } else if let Some(v) = value.downcast_ref::<CelInt>() {
        Value::Int64(*v.inner())
    } else if let Some(v) = value.downcast_ref::<CelDouble>() {
        Value::Float64(*v.inner())
    } else if let Some(v) = value.downcast_ref::<CelString<'_>>() {
        Value::from(v.inner())
    } else if let Some(v) = value.downcast_ref::<CelBool>() {
        Value::Bool(*v.inner())
    } else if let Some(v) = value.downcast_ref::<CelUInt>() {
        let wide = i64::try_from(*v.inner());
        Value::Int64(wide.map_err(|_| Error::bad_record("the expression gives a number beyond int64"))?)
    } else {
        let ty = value.get_type().name();
        return Err(Error::bad_record(format!(
            "the expression gives {ty}, which cannot be the value of the field"
        )));
    };
    let fits = match (&plain, target) {
        (Value::String(_), Target::String) | (Value::Bool(_), Target::Boolean) => true,
        (Value::Int64(_) | Value::Float64(_), target) => !matches!(target, Target::String | Target::Boolean),
        _ => false,
    };
    if !fits {
        return Err(Error::bad_record(format!(
            "the expression gives {}, not {}; set `type`, or convert in the expression",
            plain.kind(),
            target.ty().name()
        )));
    }
    Cast { target, lossy: false }.value(&plain, None)
}

pub(crate) fn step(insertions: Vec<Insertion>, side: Side) -> Result<Box<dyn Transform>> {
    let places = insertions.iter().map(|insertion| {
        let (parent, name) = insertion.field.split_last().ok_or_else(|| wrong("field", "name the field"))?;
        let name = name.clone();
        Ok((parent, name))
    });
    let places = places.collect::<Result<_>>()?;
    Ok(Box::new(Insert { insertions, places, side, plans: SchemaCache::new() }))
}

struct Insert {
    insertions: Vec<Insertion>,
    /// What holds each field, and its name there.
    places: Vec<(FieldPath, Str)>,
    side: Side,
    plans: SchemaCache<Plan>,
}

struct Plan {
    /// What holds each field, and the index there; past the end for a new one.
    places: Vec<(Locator, usize)>,
    out: Option<SchemaRef>,
}

impl Transform for Insert {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |mut record| {
            if self.side.of(&record).is_null() {
                return Outcome::Keep(record);
            }
            match self.insert(&mut record) {
                Ok(()) => Outcome::Keep(record),
                Err(error) => Outcome::Fail(record, error),
            }
        })
    }
}

impl Insert {
    fn insert(&mut self, record: &mut Record) -> Result<()> {
        let (insertions, places, side) = (&self.insertions, &self.places, self.side);
        let schema = side.of(record).schema().cloned();
        let plan = self.plans.get(schema.as_ref(), |schema| Plan::new(insertions, places, schema))?;
        // All of them before the first is put: they see the record as it came, and an error changes nothing.
        let mut values = Vec::with_capacity(insertions.len());
        for insertion in insertions {
            let value = insertion.what.of(record, &insertion.target)?;
            if insertion.required && value.is_null() {
                return Err(Error::bad_record(format!(
                    "`{}` is required and would be null",
                    insertion.field
                )));
            }
            values.push(value);
        }
        let root = side.of_mut(record).value_mut()?;
        for (path, (locator, _)) in places.iter().zip(&plan.places) {
            match locator.get(root) {
                Slot::Found(Value::Struct(_) | Value::Map(_)) => {}
                Slot::Found(Value::Null) | Slot::NullParent if schema.is_some() => {}
                Slot::Found(other) => {
                    let (parent, kind) = (&path.0, other.kind());
                    return Err(Error::bad_record(format!("{parent} is {kind}, which has no fields")));
                }
                Slot::NullParent | Slot::Missing => return Err(no_parent(&path.0)),
            }
        }
        for (((_, name), (locator, index)), value) in places.iter().zip(&plan.places).zip(values) {
            match locator.get_mut(root) {
                Slot::Found(Value::Struct(fields)) if *index < fields.len() => fields[*index] = value,
                Slot::Found(Value::Struct(fields)) => fields.push(value),
                Slot::Found(Value::Map(entries)) => {
                    match entries.iter_mut().find(|(key, _)| key.as_str() == Some(name)) {
                        Some((_, place)) => *place = value,
                        None => entries.push((Value::String(name.clone()), value)),
                    }
                }
                // A struct that is null stays null.
                _ => {}
            }
        }
        if schema.is_some() {
            let value = std::mem::take(root);
            side.of_mut(record).set(plan.out.clone(), value);
        }
        Ok(())
    }
}

fn no_parent(parent: &FieldPath) -> Error {
    Error::bad_record(format!("there is no `{parent}` to hold the new field"))
}

impl Plan {
    fn new(
        insertions: &[Insertion],
        places: &[(FieldPath, Str)],
        schema: Option<&SchemaRef>,
    ) -> Result<Self> {
        let mut out = schema.cloned();
        let mut located = Vec::with_capacity(places.len());
        for (insertion, (parent, name)) in insertions.iter().zip(places) {
            let locator = parent.locate(out.as_ref()).ok_or_else(|| no_parent(parent))?;
            let mut index = usize::MAX;
            if let Some(root) = &mut out {
                let holder = locator.schema().ok_or_else(|| no_parent(parent))?;
                let Type::Struct(fields) = &holder.ty else {
                    let ty = holder.ty.name();
                    return Err(Error::bad_record(format!("{parent} is a {ty}, which takes no new fields")));
                };
                let mut fields = fields.clone();
                let field = Field::new(&**name, insertion.target.schema(!insertion.required));
                match holder.field(name) {
                    Some((i, _)) => {
                        fields[i] = field;
                        index = i;
                    }
                    None => fields.push(field),
                }
                let changed = Schema { ty: Type::Struct(fields), default: None, ..Schema::clone(holder) };
                *root = locator.replace(root, changed.shared()).ok_or_else(|| no_parent(parent))?;
            }
            located.push((locator, index));
        }
        Ok(Self { places: located, out })
    }
}

#[cfg(test)]
mod tests;
