//! A kind of step: its declaration and the function that makes it.

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Problem, ResolvedConfig, Values};
use aqueduct_core::transform::{Transform, TransformFactory};
use aqueduct_core::{Datum, Error, Record, Result};

/// Makes the step of a configuration that has the declared types.
pub(crate) type Make = Box<dyn Fn(&Values) -> Result<Box<dyn Transform>> + Send + Sync>;

/// A factory whose steps need nothing but their configuration.
pub struct Kind {
    spec: Spec,
    make: Make,
}

impl Kind {
    pub(crate) fn new(
        name: &'static str,
        summary: &'static str,
        keys: impl IntoIterator<Item = ConfigKey>,
        make: impl Fn(&Values) -> Result<Box<dyn Transform>> + Send + Sync + 'static,
    ) -> Self {
        let config = ConfigDef::new(keys);
        let spec = Spec { name, aliases: &[], version: env!("CARGO_PKG_VERSION"), summary, config };
        Self { spec, make: Box::new(make) }
    }
}

impl TransformFactory for Kind {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        // The caller reports what the declared types show.
        let Ok(values) = self.spec.config.parse(config) else { return Vec::new() };
        let Err(error) = (self.make)(&values) else { return Vec::new() };
        // The message begins with the key that is wrong.
        let message = error.full();
        let named = message.strip_prefix('`').and_then(|rest| rest.split('`').next());
        let key = named.and_then(|name| self.spec.config.find(name)).or(self.spec.config.keys().first());
        let key = key.map(|key| key.name).unwrap_or_default();
        vec![Problem::new(key, message)]
    }

    fn build(&self, config: &ResolvedConfig) -> Result<Box<dyn Transform>> {
        (self.make)(&self.spec.parse(config)?)
    }
}

/// An error that names the key.
pub(crate) fn wrong(key: &str, why: impl std::fmt::Display) -> Error {
    Error::bad_config(format!("`{key}`: {why}"))
}

/// The part of a record that a step changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Key,
    Value,
}

impl Side {
    /// The key `on`.
    pub(crate) const KEY: ConfigKey = ConfigKey::new(
        "on",
        ConfigType::Enum(&["value", "key"]),
        "Which part of the record is changed: its value or its key.",
    )
    .default("value");

    pub(crate) fn from(values: &Values) -> Result<Self> {
        Ok(if values.text("on")? == "key" { Side::Key } else { Side::Value })
    }

    pub(crate) fn of(self, record: &Record) -> &Datum {
        match self {
            Side::Key => &record.key,
            Side::Value => &record.value,
        }
    }

    pub(crate) fn of_mut(self, record: &mut Record) -> &mut Datum {
        match self {
            Side::Key => &mut record.key,
            Side::Value => &mut record.value,
        }
    }
}

/// What becomes of a record that lacks a named field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Fail,
    Ignore,
}

impl Missing {
    /// The key `missing`.
    pub(crate) const KEY: ConfigKey = ConfigKey::new(
        "missing",
        ConfigType::Enum(&["fail", "ignore"]),
        "What becomes of a record that lacks a field: it fails, or the field is ignored.",
    )
    .default("fail");

    pub(crate) fn from(values: &Values) -> Result<Self> {
        Ok(if values.text("missing")? == "ignore" { Missing::Ignore } else { Missing::Fail })
    }
}

/// The error of a field that is not there.
pub(crate) fn no_field(path: &aqueduct_core::FieldPath) -> Error {
    Error::bad_record(format!(
        "there is no field `{path}`; correct the step's configuration, or set `missing: ignore`"
    ))
}
