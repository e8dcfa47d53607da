//! `filter`: keeps the records for which a CEL condition is true.
//!
//! ```text
//! { condition: 'value.status == "paid" && value.amount > 10' }
//! ```
//!
//! The condition sees `value`, `key`, `headers` (by name, the last of each), `topic`, `partition` and `timestamp`
//! (milliseconds; null before the log). Decimals are read as doubles. A missing field and every other error of the
//! condition is a bad record, never false; `has(value.field)` asks whether a field is there.

mod names;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use aqueduct_core::component::Spec;
use aqueduct_core::config::{ConfigDef, ConfigKey, ConfigType, Importance, Problem, ResolvedConfig};
use aqueduct_core::transform::{Outcome, Transform, TransformFactory, each};
use aqueduct_core::{Error, Record, Result};
use cel::common::types::CelBool;
use cel::{Context, Env, Program, Value as Cel};

use crate::nulls::{self, Nulls};
use view::Variables;

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
        let program =
            compile(&self.env, condition).map_err(|why| Error::bad_config(format!("`condition`: {why}")))?;
        let references = program.references();
        let uses = |name: &str| references.has_variable(name);
        let (uses_value, uses_key, uses_headers) = (uses("value"), uses("key"), uses("headers"));
        drop(references);
        Ok(FilterStep {
            program,
            env: Arc::clone(&self.env),
            uses_value,
            uses_key,
            uses_headers,
            nulls: Nulls::from(&values)?,
        })
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

fn compile(env: &Arc<Env>, condition: &str) -> Result<Program, String> {
    if condition.trim().is_empty() {
        return Err("the condition is empty".into());
    }
    // The parser is a translation from another language and is known to panic on some malformed input.
    let program = catch_unwind(AssertUnwindSafe(|| env.compile(condition)))
        .map_err(|_| format!("`{condition}` is not a CEL expression"))?
        .map_err(|errors| {
            format!("`{condition}` is not a CEL expression: {}", one_line(&errors.to_string()))
        })?;
    names::check(env, &program).map_err(|why| format!("`{condition}` {why}"))?;
    Ok(program)
}

fn one_line(text: &str) -> String {
    // The first line has the place and the reason; the rest draws the expression again.
    text.lines().next().unwrap_or_default().trim().to_owned()
}

struct FilterStep {
    program: Program,
    env: Arc<Env>,
    uses_value: bool,
    uses_key: bool,
    uses_headers: bool,
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
        // Decodes what the condition looks into, and nothing else.
        if self.uses_value {
            record.value.value()?;
        }
        if self.uses_key {
            record.key.value()?;
        }
        if self.uses_headers {
            record.headers.iter_mut().try_for_each(|header| header.value.value().map(drop))?;
        }
        let variables = Variables { record };
        let mut context = Context::with_env(Arc::clone(&self.env));
        context.set_variable_resolver(&variables);
        let result = Cel::resolve_val(self.program.expression(), &context);
        match result {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(holds) => Ok(*holds.inner()),
                None => Err(Error::bad_record(format!(
                    "the condition gives {}, not true or false",
                    value.get_type().name()
                ))),
            },
            Err(error) => Err(Error::bad_record(explain(&error))),
        }
    }
}

fn explain(error: &cel::ExecutionError) -> String {
    match error {
        cel::ExecutionError::NoSuchKey(name) => format!(
            "the condition cannot be evaluated: there is no field `{name}`; guard it with `has(…)` where it may be absent"
        ),
        other => {
            let mut text = format!("the condition cannot be evaluated: {other}");
            // The library quotes whole values.
            if let Some((end, _)) = text.char_indices().nth(300) {
                text.truncate(end);
                text.push('…');
            }
            text
        }
    }
}

#[cfg(test)]
mod tests;
