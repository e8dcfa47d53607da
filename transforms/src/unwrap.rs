//! `unwrap`: the row out of a Debezium envelope, as `ExtractNewRecordState` does it.
//!
//! ```text
//! {"op":"u","before":{…},"after":{"id":1,"total":5},"source":{…}} → {"id":1,"total":5}
//! ```
//!
//! | `deletes` | delete event | tombstone |
//! |---|---|---|
//! | `tombstone` (default) | dropped | passes |
//! | `drop` | dropped | dropped |
//! | `delete-to-tombstone` | becomes a tombstone | dropped |
//! | `rewrite` | the row before, with `__deleted: "true"` | dropped |
//! | `rewrite-with-tombstone` | the row before, with `__deleted: "true"` | passes |
//!
//! Under the last two every other row carries `__deleted: "false"`. What is no envelope passes unchanged. Truncations
//! and messages have no row; they are dropped.

mod extra;
mod plan;
mod sliced;

use std::sync::Arc;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig};
use aqueduct_core::transform::{Outcome, Transform, TransformFactory, each};
use aqueduct_core::{Datum, Error, Record, Result, SchemaCache, SchemaRef, Value};

use extra::Extra;
use plan::Plan;
use sliced::Cut;

/// The field that tells deleted rows.
const DELETED: &str = "__deleted";

/// The factory of `unwrap`.
pub struct Unwrap {
    spec: Spec,
}

impl Default for Unwrap {
    fn default() -> Self {
        Self::new()
    }
}

impl Unwrap {
    /// Makes it.
    pub fn new() -> Self {
        let keys = [
            ConfigKey::new(
                "deletes",
                ConfigType::Enum(&["tombstone", "drop", "delete-to-tombstone", "rewrite", "rewrite-with-tombstone"]),
                "What becomes of delete events and of the tombstones after them. `rewrite` keeps the row as it was \
                 before, marked by `__deleted`.",
            )
            .default("tombstone")
            .importance(Importance::High)
            .aliases(&["delete.tombstone.handling.mode"]),
            ConfigKey::new(
                "add.fields",
                ConfigType::List,
                "Metadata to add to the row, such as `op`, `source.ts_ms`, `table` (of the source) or `lsn:position` \
                 with a name of its own.",
            )
            .default(""),
            ConfigKey::new("add.fields.prefix", ConfigType::String, "Put before the names of added fields.")
                .default("__")
                .importance(Importance::Low),
            ConfigKey::new("add.headers", ConfigType::List, "Metadata to add as headers, named as in `add.fields`.")
                .default(""),
            ConfigKey::new("add.headers.prefix", ConfigType::String, "Put before the names of added headers.")
                .default("__")
                .importance(Importance::Low),
        ];
        let spec = Spec {
            name: "unwrap",
            aliases: &["io.debezium.transforms.ExtractNewRecordState"],
            version: env!("CARGO_PKG_VERSION"),
            summary: "Takes the row out of a change event.",
            config: ConfigDef::new(keys),
        };
        Self { spec }
    }

    fn step(&self, config: &ResolvedConfig) -> Result<UnwrapStep> {
        let values = self.spec.parse(config)?;
        let deletes = match values.text("deletes")? {
            "drop" => Deletes { event: Event::Drop, tombstones: false },
            "delete-to-tombstone" => Deletes { event: Event::Tombstone, tombstones: false },
            "rewrite" => Deletes { event: Event::Rewrite, tombstones: false },
            "rewrite-with-tombstone" => Deletes { event: Event::Rewrite, tombstones: true },
            _ => Deletes { event: Event::Drop, tombstones: true },
        };
        let extras = |key: &'static str, prefix: &str| -> Result<Vec<Extra>> {
            let prefix = values.text(prefix)?;
            let parse = |text: &String| {
                Extra::parse(text, prefix).map_err(|why| Error::bad_config(format!("`{key}`: {why}")))
            };
            values.list(key)?.iter().map(parse).collect()
        };
        Ok(UnwrapStep {
            shape: Shape {
                rewrite: deletes.event == Event::Rewrite,
                fields: extras("add.fields", "add.fields.prefix")?,
                headers: extras("add.headers", "add.headers.prefix")?,
            },
            deletes,
            plans: SchemaCache::new(),
        })
    }
}

impl TransformFactory for Unwrap {
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
                .map(|error| Problem::new("add.fields", error.full()))
                .into_iter()
                .collect(),
        }
    }

    fn build(&self, config: &ResolvedConfig) -> Result<Box<dyn Transform>> {
        Ok(Box::new(self.step(config)?))
    }
}

struct Deletes {
    event: Event,
    /// Whether the tombstones after delete events pass.
    tombstones: bool,
}

impl Deletes {
    fn change(&self, op: &str) -> Result<Change> {
        Ok(match op {
            "c" | "u" | "r" => Change::Row { before: false },
            "d" => match self.event {
                Event::Drop => Change::Nothing,
                Event::Tombstone => Change::Tombstone,
                Event::Rewrite => Change::Row { before: true },
            },
            "t" | "m" => Change::Nothing,
            other => {
                return Err(Error::bad_record(format!("the change event has the unknown `op` `{other}`")));
            }
        })
    }
}

#[derive(PartialEq, Eq)]
enum Event {
    Drop,
    Tombstone,
    Rewrite,
}

/// What is added to each row.
struct Shape {
    /// Whether `__deleted` is.
    rewrite: bool,
    fields: Vec<Extra>,
    headers: Vec<Extra>,
}

impl Shape {
    fn adds_metadata(&self) -> bool {
        !self.fields.is_empty() || !self.headers.is_empty()
    }

    /// Whether something that is added stands in one of the rows.
    fn reads_rows(&self) -> bool {
        self.fields.iter().chain(&self.headers).any(Extra::is_of_a_row)
    }
}

struct UnwrapStep {
    shape: Shape,
    deletes: Deletes,
    /// By schema of the envelope; `None` for what is no envelope.
    plans: SchemaCache<Option<Plan>>,
}

/// What a change event becomes.
enum Change {
    Row { before: bool },
    Tombstone,
    Nothing,
}

impl Transform for UnwrapStep {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |mut record| {
            if record.value.is_null() {
                return if self.deletes.tombstones { Outcome::Keep(record) } else { Outcome::Drop };
            }
            match self.unwrap(&mut record) {
                Ok(true) => Outcome::Keep(record),
                Ok(false) => Outcome::Drop,
                Err(error) => Outcome::Fail(record, error),
            }
        })
    }
}

impl UnwrapStep {
    /// Changes the record in place; `false` drops it. On an error it is as it was.
    fn unwrap(&mut self, record: &mut Record) -> Result<bool> {
        let schema = record.value.schema().cloned();
        let shape = &self.shape;
        let plan = self.plans.get(schema.as_ref(), |schema| Plan::new(schema, shape))?;
        let Some(plan) = plan else { return Ok(true) };
        if let Some(text) = record.value.as_json()
            && let Some(cut) = sliced::cut(plan, shape, &self.deletes, schema.as_ref(), text)
        {
            let Cut::Datum(value, headers) = cut else { return Ok(false) };
            record.value = value;
            add_headers(record, headers);
            return Ok(true);
        }
        let value = record.value.value_mut()?;
        let Some(op) = plan.op(value) else { return Ok(true) };
        let change = self.deletes.change(op)?;
        let headers = match change {
            Change::Nothing => return Ok(false),
            _ => extra_headers(&shape.headers, plan, value)?,
        };
        match change {
            Change::Row { before } => {
                let (schema, row) = row(plan, shape, value, before)?;
                record.value.set(schema, row);
            }
            _ => record.value = Datum::null(),
        }
        add_headers(record, headers);
        Ok(true)
    }
}

fn add_headers(record: &mut Record, headers: Vec<(Arc<str>, Datum)>) {
    for (name, datum) in headers {
        record.headers.push(&*name, datum);
    }
}

/// The row with what is added to it. On an error nothing is taken.
fn row(plan: &Plan, shape: &Shape, envelope: &mut Value, before: bool) -> Result<(Option<SchemaRef>, Value)> {
    let mut added = Vec::with_capacity(shape.fields.len() + usize::from(shape.rewrite));
    for (extra, locator) in shape.fields.iter().zip(&plan.fields) {
        added.push((&extra.name, extra.read(locator.as_ref(), envelope)?));
    }
    let taken = if before { plan.before(envelope) } else { plan.after(envelope) };
    let name = if before { "before" } else { "after" };
    let mut row = match taken {
        Some(row) if !row.is_null() => std::mem::take(row),
        _ if before => {
            return Err(Error::bad_record(
                "the delete event has no row in `before`; set the table's REPLICA IDENTITY, or `deletes: tombstone`",
            ));
        }
        _ => return Err(Error::bad_record(format!("the change event has no row in `{name}`"))),
    };
    let deleted = shape.rewrite.then(|| Value::from(if before { "true" } else { "false" }));
    let out = match &mut row {
        Value::Struct(values) => {
            values.extend(added.into_iter().map(|(_, value)| value).chain(deleted));
            if before { &plan.out_before } else { &plan.out_after }
        }
        Value::Map(entries) => {
            entries.extend(added.into_iter().map(|(name, value)| (Value::from(&**name), value)));
            entries.extend(deleted.map(|deleted| (Value::from(DELETED), deleted)));
            &None
        }
        other => {
            let error =
                Error::bad_record(format!("`{name}` of the change event is {}, not a row", other.kind()));
            // Back to where it was, for the dead letter.
            let place = if before { plan.before(envelope) } else { plan.after(envelope) };
            if let Some(place) = place {
                *place = row;
            }
            return Err(error);
        }
    };
    Ok((out.clone(), row))
}

fn extra_headers(extras: &[Extra], plan: &Plan, envelope: &Value) -> Result<Vec<(Arc<str>, Datum)>> {
    let read = |(extra, locator): (&Extra, &Option<aqueduct_core::Locator>)| {
        let value = extra.read(locator.as_ref(), envelope)?;
        let schema = locator.as_ref().and_then(|locator| locator.schema()).cloned();
        let mut datum = Datum::null();
        datum.set(schema, value);
        Ok((Arc::clone(&extra.name), datum))
    };
    extras.iter().zip(&plan.headers).map(read).collect()
}

#[cfg(test)]
mod tests;
