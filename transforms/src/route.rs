//! `route`: sends records to another topic.
//!
//! ```text
//! { regex: 'orders\.public\.(.*)', replacement: 'lake.$1' }
//! { expression: '"orders." + value.country' }
//! ```
//!
//! A `regex` must match the whole name of the topic; other records stay where they are. In `replacement`, `$1` and `${name}`
//! are groups. An `expression` is CEL and gives the name. A name that no topic can have is a bad record.

use std::sync::Arc;

use aqueduct_core::config::{ConfigKey, ConfigType};
use aqueduct_core::transform::{Outcome, Transform, each};
use aqueduct_core::{Error, Record, Result, Topic};
use cel::Env;
use cel::common::types::CelString;
use regex::Regex;

use crate::expression::Expression;
use crate::kind::{Kind, wrong};

/// `route`.
pub(crate) fn route() -> Kind {
    let keys = [
        ConfigKey::new("regex", ConfigType::String, "What the whole name of the topic must match."),
        ConfigKey::new(
            "replacement",
            ConfigType::String,
            "The new name; `$1` and `${name}` are groups of `regex`.",
        ),
        ConfigKey::new("expression", ConfigType::String, "CEL that gives the new name, instead of `regex`."),
    ];
    let env = Arc::new(Env::stdlib());
    Kind::new("route", "Sends records to another topic.", keys, move |values| {
        match (values.opt_text("regex")?, values.opt_text("replacement")?, values.opt_text("expression")?) {
            (Some(regex), Some(replacement), None) => by_regex(regex, replacement),
            (None, None, Some(text)) => {
                let expression = Expression::new(&env, text).map_err(|why| wrong("expression", why))?;
                Ok(Box::new(Route { to: To::Expression(expression), last: None }))
            }
            (Some(_), None, None) => {
                Err(wrong("replacement", "`regex` needs a `replacement`, such as `lake.$1`"))
            }
            (None, Some(_), None) => {
                Err(wrong("regex", "`replacement` needs a `regex`, such as `orders\\.(.*)`"))
            }
            (None, None, None) => Err(wrong("regex", "write `regex` and `replacement`, or `expression`")),
            _ => Err(wrong("expression", "write either `regex` and `replacement` or `expression`, not both")),
        }
    })
}

pub(crate) fn by_regex(regex: &str, replacement: &str) -> Result<Box<dyn Transform>> {
    let whole = format!("^(?:{regex})$");
    let regex = Regex::new(&whole).map_err(|error| {
        wrong("regex", format_args!("`{regex}` is not a regular expression").to_string() + &because(&error))
    })?;
    let replacement = rust_replacement(replacement);
    Ok(Box::new(Route { to: To::Regex(regex, replacement), last: None }))
}

/// The last line of the library's drawing has the reason.
fn because(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default();
    format!(": {}", line.trim_start_matches("error: "))
}

/// Java's `$1x` is group 1 and an `x`; here it would be a group named `1x`. A backslash makes the next character plain.
fn rust_replacement(java: &str) -> String {
    let mut out = String::with_capacity(java.len() + 4);
    let mut chars = java.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('$') => out.push_str("$$"),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            '$' if chars.peek().is_some_and(char::is_ascii_digit) => {
                out.push_str("${");
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    out.push(digit);
                }
                out.push('}');
            }
            other => out.push(other),
        }
    }
    out
}

struct Route {
    to: To,
    /// The last topic and where it went: batches are of few topics.
    last: Option<(Topic, Topic)>,
}

enum To {
    Regex(Regex, String),
    Expression(Expression),
}

impl Transform for Route {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |mut record| match self.topic(&mut record) {
            Ok(topic) => {
                record.topic = topic;
                Outcome::Keep(record)
            }
            Err(error) => Outcome::Fail(record, error),
        })
    }
}

impl Route {
    fn topic(&mut self, record: &mut Record) -> Result<Topic> {
        match &self.to {
            To::Regex(regex, replacement) => {
                if let Some((from, to)) = &self.last
                    && *from == record.topic
                {
                    return Ok(Arc::clone(to));
                }
                let to: Topic = match regex.is_match(&record.topic) {
                    true => checked(&regex.replace(&record.topic, replacement.as_str()))?,
                    false => Arc::clone(&record.topic),
                };
                self.last = Some((Arc::clone(&record.topic), Arc::clone(&to)));
                Ok(to)
            }
            To::Expression(expression) => {
                expression.eval(record, |value| match value.downcast_ref::<CelString<'_>>() {
                    Some(name) => checked(name.inner()),
                    None => Err(Error::bad_record(format!(
                        "the expression gives {}, not the name of a topic",
                        value.get_type().name()
                    ))),
                })
            }
        }
    }
}

/// The name as a topic, if one can have it.
pub(crate) fn checked(name: &str) -> Result<Topic> {
    aqueduct_core::check_topic(name).map_err(Error::bad_record)?;
    Ok(Topic::from(name))
}

#[cfg(test)]
mod tests;
