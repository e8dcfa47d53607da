//! Parsed values, and the problems found on the way.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::ByteSize;
use crate::{Error, Result};

/// Something wrong with one key. The message names the key, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key.
    pub key: String,
    /// The message.
    pub message: String,
}

impl Problem {
    /// A problem of `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }

    /// All problems as one error of kind `BadConfig`.
    pub fn error(problems: &[Problem]) -> Error {
        let lines: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        Error::bad_config(lines.join("; "))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Text that is never shown. Reach it with [`Secret::expose`] where it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[derive(Clone, Debug)]
pub(super) enum Parsed {
    Boolean(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Password(Secret),
    List(Vec<String>),
    Duration(Duration),
    Size(ByteSize),
    Json(serde_json::Value),
}

/// The parsed values of a component. A getter fails only when the component asks for a key it did not declare so.
#[derive(Clone, Default)]
pub struct Values {
    parsed: BTreeMap<&'static str, (Parsed, bool)>,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.parsed.iter().map(|(key, (value, secret))| {
            let value: &dyn fmt::Debug = if *secret { &"[hidden]" } else { value };
            (key, format!("{value:?}"))
        });
        f.debug_map().entries(shown).finish()
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident, $opt:ident, $variant:ident, $t:ty, |$v:ident| $out:expr;)*) => { $(
        $(#[$doc])*
        pub fn $name(&self, key: &str) -> Result<$t> {
            self.$opt(key)?.ok_or_else(|| Error::bad_config(format!("missing required key `{key}`")))
        }

        /// The same where the key may be absent.
        pub fn $opt(&self, key: &str) -> Result<Option<$t>> {
            match self.parsed.get(key) {
                None => Ok(None),
                Some((Parsed::$variant($v), _)) => Ok(Some($out)),
                Some(_) => Err(Error::fatal(format!("key `{key}` is read as another type than it was declared"))),
            }
        }
    )* };
}

impl Values {
    pub(super) fn insert(&mut self, key: &'static str, value: Parsed, secret: bool) {
        self.parsed.insert(key, (value, secret));
    }

    getters! {
        /// A boolean.
        boolean, opt_boolean, Boolean, bool, |v| *v;
        /// An integer.
        int, opt_int, Int, i64, |v| *v;
        /// A number.
        double, opt_double, Double, f64, |v| *v;
        /// Text, or the word of an enum.
        text, opt_text, Text, &str, |v| v;
        /// Secret text.
        password, opt_password, Password, &Secret, |v| v;
        /// A list.
        list, opt_list, List, &[String], |v| v;
        /// A duration.
        duration, opt_duration, Duration, Duration, |v| *v;
        /// A size.
        size, opt_size, Size, ByteSize, |v| *v;
        /// JSON.
        json, opt_json, Json, &serde_json::Value, |v| v;
    }
}
