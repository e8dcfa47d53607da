//! `filter`: keeps the records for which a CEL condition is true.
//!
//! ```text
//! { condition: 'value.status == "paid" && value.amount > 10' }
//! ```
//!
//! The condition sees `value`, `key`, `headers` (by name, the last of each), `topic`, `partition` and `timestamp`
//! (milliseconds; null before the log). Decimals are read as doubles. A missing field and every other error of the
//! condition is a bad record, never false; `has(value.field)` asks whether a field is there.

use std::sync::Arc;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig};
use aqueduct_core::transform::{Outcome, Transform, TransformFactory, each};
use aqueduct_core::{Error, Record, Result};
use cel::Env;
use cel::common::types::CelBool;

use crate::expression::Expression;
use crate::nulls::{self, Nulls};

/// The factory of `filter`.
pub struct Filter {
    spec: Spec,
    env: Arc<Env>,
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

impl Filter {
    /// Makes it.
    pub fn new() -> Self {
        let keys = [
            ConfigKey::new(
                "condition",
                ConfigType::String,
                "CEL expression over `value`, `key`, `headers`, `topic`, `partition` and `timestamp`; records for which \
                 it is true go on.",
            )
            .aliases(&["expression", "filter"])
            .required(),
            nulls::KEY.importance(Importance::Low),
        ];
        let spec = Spec {
            name: "filter",
            aliases: &["io.debezium.transforms.Filter"],
            version: env!("CARGO_PKG_VERSION"),
            summary: "Keeps the records for which a CEL condition is true.",
            config: ConfigDef::new(keys),
        };
        Self { spec, env: Arc::new(Env::stdlib()) }
    }

    fn step(&self, config: &ResolvedConfig) -> Result<FilterStep> {
        let values = self.spec.parse(config)?;
        let condition = values.text("condition")?;
        let condition = Expression::new(&self.env, condition)
            .map_err(|why| Error::bad_config(format!("`condition`: {why}")))?;
        Ok(FilterStep { condition, nulls: Nulls::from(&values)? })
    }
}

impl TransformFactory for Filter {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        match self.spec.config.parse(config) {
            // The caller reports what the declared types show.
            Err(_) => Vec::new(),
            Ok(_) => {
                let problem = self.step(config).err().map(|error| Problem::new("condition", error.full()));
                problem.into_iter().collect()
            }
        }
    }

    fn build(&self, config: &ResolvedConfig) -> Result<Box<dyn Transform>> {
        Ok(Box::new(self.step(config)?))
    }
}

struct FilterStep {
    condition: Expression,
    nulls: Nulls,
}

impl Transform for FilterStep {
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>> {
        each(batch, |record| match self.nulls.of(record) {
            Ok(outcome) => outcome,
            Err(mut record) => match self.holds(&mut record) {
                Ok(true) => Outcome::Keep(record),
                Ok(false) => Outcome::Drop,
                Err(error) => Outcome::Fail(record, error),
            },
        })
    }
}

impl FilterStep {
    fn holds(&self, record: &mut Record) -> Result<bool> {
        self.condition.eval(record, |value| match value.downcast_ref::<CelBool>() {
            Some(holds) => Ok(*holds.inner()),
            None => Err(Error::bad_record(format!(
                "the condition gives {}, not true or false",
                value.get_type().name()
            ))),
        })
    }
}

#[cfg(test)]
mod tests;
