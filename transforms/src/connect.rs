//! The transforms that Kafka Connect brings, under its class names, with its keys and its semantics.
//!
//! The steps of this crate do the work; here are Connect's names, defaults and leniencies: fields that are not there are
//! ignored, numbers wrap. A field is named as it is called, dots and all, as after `Flatten`. `replace.null.with.default` is accepted and null stays null.

mod headers;
mod java_time;
mod whole;

use std::sync::Arc;

use aqueduct_core::config::{ConfigKey, ConfigType, Values};
use aqueduct_core::transform::{Outcome, Transform, each};
use aqueduct_core::{Error, FieldPath, Record, Result, Schema, Topic, Type, Value, logical};

use crate::insert::{Insertion, Kinded, What};
use crate::kind::{Kind, Missing, Side, wrong};
use crate::reshape::{Rules, paths, renames};
use crate::time::{To, Turn};
use crate::{cast, flatten, insert, reshape, route, time};

/// Every class.
pub(crate) fn kinds() -> Vec<Kind> {
    let mut kinds = vec![regex_router(), timestamp_router(), filter()];
    kinds.extend(headers::kinds());
    kinds.extend(whole::kinds());
    kinds.extend([
        cast_fields("org.apache.kafka.connect.transforms.Cast$Value", Side::Value),
        cast_fields("org.apache.kafka.connect.transforms.Cast$Key", Side::Key),
        flattened("org.apache.kafka.connect.transforms.Flatten$Value", Side::Value),
        flattened("org.apache.kafka.connect.transforms.Flatten$Key", Side::Key),
        insert_field("org.apache.kafka.connect.transforms.InsertField$Value", Side::Value),
        insert_field("org.apache.kafka.connect.transforms.InsertField$Key", Side::Key),
        replace_field("org.apache.kafka.connect.transforms.ReplaceField$Value", Side::Value),
        replace_field("org.apache.kafka.connect.transforms.ReplaceField$Key", Side::Key),
        timestamp_converter("org.apache.kafka.connect.transforms.TimestampConverter$Value", Side::Value),
        timestamp_converter("org.apache.kafka.connect.transforms.TimestampConverter$Key", Side::Key),
    ]);
    kinds
}

/// Accepted wherever Connect has it.
const NULL_DEFAULT: ConfigKey = ConfigKey::new(
    "replace.null.with.default",
    ConfigType::Boolean,
    "Accepted for compatibility; a null field stays null.",
)
.default("true");

fn cast_fields(name: &'static str, side: Side) -> Kind {
    let spec = ConfigKey::new(
        "spec",
        ConfigType::List,
        "`field:type` pairs, or one type for the whole; types are int8, int16, int32, int64, float32, float64, boolean, \
         string. Numbers that do not fit wrap, as in Java.",
    );
    Kind::new(name, "Casts fields, as Kafka Connect does.", [spec.required(), NULL_DEFAULT], move |values| {
        cast::step(values.list("spec")?, ("spec", FieldPath::field), true, side, Missing::Ignore)
    })
}

fn flattened(name: &'static str, side: Side) -> Kind {
    let delimiter =
        ConfigKey::new("delimiter", ConfigType::String, "Put between the names of a nested field.");
    Kind::new(name, "Flattens nested fields.", [delimiter.default(".")], move |values| {
        Ok(flatten::step(values.text("delimiter")?, side))
    })
}

fn insert_field(name: &'static str, side: Side) -> Kind {
    const MARK: &str = "A trailing `!` makes it required, `?` optional (the default).";
    let keys = [
        ConfigKey::new(
            "topic.field",
            ConfigType::String,
            "The field for the topic. A trailing `!` makes it required.",
        ),
        ConfigKey::new("partition.field", ConfigType::String, "The field for the partition."),
        ConfigKey::new("timestamp.field", ConfigType::String, "The field for the record's timestamp."),
        ConfigKey::new("static.field", ConfigType::String, MARK),
        ConfigKey::new("static.value", ConfigType::String, "What the static field holds."),
        NULL_DEFAULT,
    ];
    Kind::new(name, "Adds fields of the record's metadata, or a fixed one.", keys, move |values| {
        let text = || Kinded::Plain(cast::Target::String);
        let mut insertions = Vec::new();
        let mut add = |key: &'static str, what: What, target: Kinded| -> Result<()> {
            if let Some(name) = values.opt_text(key)? {
                let required = name.ends_with('!');
                let field =
                    FieldPath::field(name.trim_end_matches(['!', '?'])).map_err(|why| wrong(key, why))?;
                insertions.push(Insertion { field, what, target, required });
            }
            Ok(())
        };
        add("topic.field", What::Topic, text())?;
        add("partition.field", What::Partition, Kinded::Plain(cast::Target::Int32))?;
        let timestamp = Schema::new(Type::Int64).named(logical::TIMESTAMP).versioned(1);
        add("timestamp.field", What::Timestamp, Kinded::Named(timestamp))?;
        match (values.opt_text("static.field")?, values.opt_text("static.value")?) {
            (Some(_), None) => return Err(wrong("static.value", "No value specified for static field")),
            (_, value) => add("static.field", What::Fixed(value.into()), text())?,
        }
        if insertions.is_empty() {
            return Err(wrong("topic.field", "No field insertion configured"));
        }
        insert::step(insertions, side)
    })
}

fn replace_field(name: &'static str, side: Side) -> Kind {
    let keys = [
        ConfigKey::new("exclude", ConfigType::List, "Fields to take out.")
            .aliases(&["blacklist"])
            .default(""),
        ConfigKey::new("include", ConfigType::List, "The only fields to keep.")
            .aliases(&["whitelist"])
            .default(""),
        ConfigKey::new("renames", ConfigType::List, "Fields and their new names, as `old:new`.").default(""),
        NULL_DEFAULT,
    ];
    Kind::new(name, "Takes out, keeps and renames fields.", keys, move |values| {
        let exclude = paths(values.list("exclude")?, "exclude", FieldPath::field)?;
        let include = paths(values.list("include")?, "include", FieldPath::field)?;
        let renames = renames(values.list("renames")?, "renames", FieldPath::field)?;
        let rules = Rules::new(&exclude, &include, &renames).map_err(|why| wrong("include", why))?;
        Ok(reshape::step(rules, side, Missing::Ignore))
    })
}

fn timestamp_converter(name: &'static str, side: Side) -> Kind {
    let keys = [
        ConfigKey::new("field", ConfigType::String, "The field; empty for the whole.").default(""),
        ConfigKey::new(
            "target.type",
            ConfigType::Enum(&["string", "unix", "Date", "Time", "Timestamp"]),
            "What it becomes.",
        )
        .required(),
        ConfigKey::new("format", ConfigType::String, "Java's SimpleDateFormat, in UTC.").default(""),
        ConfigKey::new(
            "unix.precision",
            ConfigType::Enum(&["seconds", "milliseconds", "microseconds", "nanoseconds"]),
            "The unit of unix times.",
        )
        .default("milliseconds"),
        NULL_DEFAULT,
    ];
    Kind::new(name, "Turns a field between times of every kind.", keys, move |values| {
        let to =
            To::parse(values.text("target.type")?).ok_or_else(|| wrong("target.type", "unknown type"))?;
        let format = match values.text("format")? {
            "" if to == To::Text => {
                return Err(wrong("format", "a target of `string` needs the format, such as `yyyy-MM-dd`"));
            }
            "" => None,
            java => Some(java_time::strftime(java).map_err(|why| wrong("format", why))?),
        };
        let turn = Turn::new(to, format.as_deref(), values.text("unix.precision")?)?;
        let field = match values.text("field")? {
            "" => FieldPath::whole(),
            name => FieldPath::field(name).map_err(|why| wrong("field", why))?,
        };
        time::step(vec![field], turn, side, Missing::Ignore)
    })
}

fn regex_router() -> Kind {
    let keys = [
        ConfigKey::new("regex", ConfigType::String, "What the whole name of the topic must match.")
            .required(),
        ConfigKey::new("replacement", ConfigType::String, "The new name; `$1` is a group.").required(),
    ];
    let name = "org.apache.kafka.connect.transforms.RegexRouter";
    Kind::new(name, "Sends records to another topic by its name.", keys, |values: &Values| {
        route::by_regex(values.text("regex")?, values.text("replacement")?)
    })
}

fn timestamp_router() -> Kind {
    let keys = [
        ConfigKey::new("topic.format", ConfigType::String, "The new name, of `${topic}` and `${timestamp}`.")
            .default("${topic}-${timestamp}"),
        ConfigKey::new("timestamp.format", ConfigType::String, "Java's SimpleDateFormat, in UTC.")
            .default("yyyyMMdd"),
    ];
    let name = "org.apache.kafka.connect.transforms.TimestampRouter";
    Kind::new(name, "Sends records to a topic named after their time.", keys, |values: &Values| {
        let java = values.text("timestamp.format")?;
        let format = java_time::strftime(java).map_err(|why| wrong("timestamp.format", why))?;
        Ok(Box::new(TimestampRouter {
            topic: values.text("topic.format")?.to_owned(),
            time: Turn::new(To::Text, Some(&format), "milliseconds")?,
            last: None,
        }))
    })
}

struct TimestampRouter {
    topic: String,
    time: Turn,
    /// The last name made; neighbours mostly go to the same topic.
    last: Option<Topic>,
}

impl Transform for TimestampRouter {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |mut record| match self.topic(&record) {
            Ok(topic) => {
                record.topic = topic;
                Outcome::Keep(record)
            }
            Err(error) => Outcome::Fail(record, error),
        })
    }
}

impl TimestampRouter {
    fn topic(&mut self, record: &Record) -> Result<Topic> {
        let ms = record.timestamp.ok_or_else(|| {
            Error::bad_record("the record has no timestamp yet, so that no topic can be named after it")
        })?;
        let time = self.time.text(&Value::Int64(ms))?;
        let name = self.topic.replace("${topic}", &record.topic).replace("${timestamp}", &time);
        match &self.last {
            Some(last) if **last == *name => Ok(Arc::clone(last)),
            _ => {
                let topic = route::checked(&name)?;
                self.last = Some(Arc::clone(&topic));
                Ok(topic)
            }
        }
    }
}

/// Drops every record it is applied to; useful with a predicate.
fn filter() -> Kind {
    struct DropAll;
    impl Transform for DropAll {
        fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
            each(batch, |_| Outcome::Drop)
        }
    }
    let name = "org.apache.kafka.connect.transforms.Filter";
    Kind::new(name, "Drops every record for which its predicate holds.", [], |_| Ok(Box::new(DropAll)))
}

#[cfg(test)]
mod tests;
