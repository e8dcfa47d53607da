//! `timestamp`: turns fields between times of every kind.
//!
//! ```text
//! { fields: [after.created_at], to: timestamp }:   "2026-01-01T10:00:00Z" → 1767261600000, a Connect Timestamp
//! ```
//!
//! What a field is, its schema says: Connect's Date, Time and Timestamp, and Debezium's types down to nanoseconds. A
//! number without such a schema counts `precision`s since 1970; text is read by `format`, or as ISO 8601 (a missing
//! zone is UTC). Null stays null.
//!
//! | `to` | comes out as |
//! |---|---|
//! | `timestamp`, `date`, `time` | Connect's Timestamp (ms), Date (days), Time (ms); without a schema, that number |
//! | `unix` | an int64 of `precision`s since 1970, rounded down |
//! | `string` | text by `format`, or ISO 8601, in UTC |

mod moment;

use aqueduct_core::config::{ConfigKey, ConfigType};
use aqueduct_core::transform::Transform;
use aqueduct_core::{Error, FieldPath, Result, Schema, SchemaRef, Type, Value, logical};

use crate::kind::{Kind, Missing, Side, wrong};
use crate::leaves::{Change, Leaves};
use moment::Moment;
pub(crate) use moment::iso;

/// `timestamp`.
pub(crate) fn timestamp() -> Kind {
    let keys = [
        ConfigKey::new(
            "fields",
            ConfigType::List,
            "Fields to turn; a path has dots, as in `after.created_at`.",
        )
        .aliases(&["field"])
        .required(),
        ConfigKey::new(
            "to",
            ConfigType::Enum(&["timestamp", "date", "time", "unix", "string"]),
            "What the fields become.",
        )
        .aliases(&["target.type"])
        .required(),
        ConfigKey::new(
            "format",
            ConfigType::String,
            "How text is read and written, as strftime, such as `%Y-%m-%d %H:%M:%S`. Default: ISO 8601.",
        ),
        ConfigKey::new(
            "precision",
            ConfigType::Enum(&["seconds", "milliseconds", "microseconds", "nanoseconds"]),
            "The unit of numbers that no schema explains, read or written.",
        )
        .aliases(&["unix.precision"])
        .default("milliseconds"),
        Side::KEY,
        Missing::KEY,
    ];
    Kind::new("timestamp", "Turns fields between times of every kind.", keys, |values| {
        let to = To::parse(values.text("to")?).ok_or_else(|| wrong("to", "unknown kind"))?;
        let turn = Turn::new(to, values.opt_text("format")?, values.text("precision")?)?;
        let fields = values.list("fields")?;
        if fields.is_empty() {
            return Err(wrong("fields", "the list is empty; name the fields to turn"));
        }
        let fields = fields.iter().map(|field| FieldPath::parse(field).map_err(|why| wrong("fields", why)));
        step(fields.collect::<Result<_>>()?, turn, Side::from(values)?, Missing::from(values)?)
    })
}

pub(crate) fn step(
    fields: Vec<FieldPath>,
    turn: Turn,
    side: Side,
    missing: Missing,
) -> Result<Box<dyn Transform>> {
    Ok(Leaves::step(side, missing, fields.into_iter().map(|field| (field, turn.clone())).collect()))
}

/// What a field becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Timestamp,
    Date,
    Time,
    Unix,
    Text,
}

impl To {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "timestamp" => To::Timestamp,
            "date" => To::Date,
            "time" => To::Time,
            "unix" => To::Unix,
            "string" => To::Text,
            _ => return None,
        })
    }

    fn schema(self) -> Schema {
        match self {
            To::Timestamp => Schema::new(Type::Int64).named(logical::TIMESTAMP).versioned(1),
            To::Date => Schema::new(Type::Int32).named(logical::DATE).versioned(1),
            To::Time => Schema::new(Type::Int32).named(logical::TIME).versioned(1),
            To::Unix => Schema::new(Type::Int64),
            To::Text => Schema::new(Type::String),
        }
    }
}

/// One conversion.
#[derive(Clone)]
pub(crate) struct Turn {
    to: To,
    format: Option<String>,
    /// Nanoseconds of one unit.
    unit: i64,
}

impl Turn {
    /// `format` is strftime.
    pub(crate) fn new(to: To, format: Option<&str>, precision: &str) -> Result<Self> {
        let unit = match precision {
            "seconds" => 1_000_000_000,
            "microseconds" => 1_000,
            "nanoseconds" => 1,
            _ => 1_000_000,
        };
        if let Some(format) = format {
            moment::check_format(format).map_err(|why| wrong("format", why))?;
        }
        Ok(Self { to, format: format.map(str::to_owned), unit })
    }

    /// The text of a value without a schema.
    pub(crate) fn text(&self, value: &Value) -> Result<String> {
        let format = self.format.as_deref();
        Moment::read(value, None, self.unit, format)?.text(format)
    }
}

impl Change for Turn {
    fn schema(&self, leaf: &SchemaRef) -> Result<SchemaRef> {
        let mut schema = self.to.schema();
        schema.optional = leaf.optional;
        schema.doc.clone_from(&leaf.doc);
        schema.default = match &leaf.default {
            Some(default) if !default.is_null() => Some(self.value(default, Some(leaf))?),
            other => other.clone(),
        };
        Ok(schema.shared())
    }

    fn value(&self, value: &Value, leaf: Option<&SchemaRef>) -> Result<Value> {
        let format = self.format.as_deref();
        let moment = Moment::read(value, leaf.map(|leaf| &**leaf), self.unit, format)?;
        let beyond = || Error::bad_record("the time is out of the range of the new type");
        let days = |moment: Moment| Ok(Value::Int32(i32::try_from(moment.days()?).map_err(|_| beyond())?));
        match self.to {
            To::Timestamp => Ok(Value::Int64(moment.units(1_000_000)?)),
            To::Unix => Ok(Value::Int64(moment.units(self.unit)?)),
            To::Date => days(moment),
            // A day has fewer milliseconds than an int32 holds.
            To::Time => Ok(Value::Int32((moment.of_day()? / 1_000_000) as i32)),
            To::Text => moment.text(format).map(Value::from),
        }
    }
}

#[cfg(test)]
mod tests;
