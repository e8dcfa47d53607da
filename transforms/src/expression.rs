//! CEL over one record: what `filter`, `insert` and `route` have in common.
//!
//! An expression sees `value`, `key`, `headers` (by name, the last of each), `topic`, `partition` and `timestamp`
//! (milliseconds; null before the log). Decimals are read as doubles. A missing field and every other error of the
//! expression is a bad record; `has(value.field)` asks whether a field is there.

mod names;
mod projection;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use aqueduct_core::{Error, Record, Result};
use cel::common::value::Val;
use cel::{Context, Env, Program, Value as Cel};

use projection::Projection;
use view::Variables;

/// A checked expression.
pub(crate) struct Expression {
    program: Program,
    env: Arc<Env>,
    uses_value: bool,
    uses_key: bool,
    uses_headers: bool,
    /// What of the value is looked into, where that is less than all.
    projection: Option<Projection>,
}

impl Expression {
    /// Compiles and checks the names in it; the error says what is wrong.
    pub(crate) fn new(env: &Arc<Env>, text: &str) -> std::result::Result<Self, String> {
        let program = compile(env, text)?;
        let references = program.references();
        let uses = |name: &str| references.has_variable(name);
        let (uses_value, uses_key, uses_headers) = (uses("value"), uses("key"), uses("headers"));
        drop(references);
        let projection = Projection::of(program.expression());
        Ok(Self { program, env: Arc::clone(env), uses_value, uses_key, uses_headers, projection })
    }

    /// What it gives for this record, as `read` takes it.
    pub(crate) fn eval<T>(&self, record: &mut Record, read: impl FnOnce(&dyn Val) -> Result<T>) -> Result<T> {
        // Decodes what the expression looks into, and nothing else.
        let projected = self.projection.as_ref().and_then(|projection| projection.read(&record.value));
        if self.uses_value && projected.is_none() {
            record.value.value()?;
        }
        if self.uses_key {
            record.key.value()?;
        }
        if self.uses_headers {
            record.headers.iter_mut().try_for_each(|header| header.value.value().map(drop))?;
        }
        let variables = Variables { record, projected: projected.as_ref() };
        let mut context = Context::with_env(Arc::clone(&self.env));
        context.set_variable_resolver(&variables);
        match Cel::resolve_val(self.program.expression(), &context) {
            Ok(value) => read(value.as_ref()),
            Err(error) => Err(Error::bad_record(explain(&error))),
        }
    }
}

fn compile(env: &Arc<Env>, text: &str) -> std::result::Result<Program, String> {
    if text.trim().is_empty() {
        return Err("the expression is empty".into());
    }
    // The parser is a translation from another language and is known to panic on some malformed input.
    let program = catch_unwind(AssertUnwindSafe(|| env.compile(text)))
        .map_err(|_| format!("`{text}` is not a CEL expression"))?
        .map_err(|errors| format!("`{text}` is not a CEL expression: {}", one_line(&errors.to_string())))?;
    names::check(env, &program).map_err(|why| format!("`{text}` {why}"))?;
    Ok(program)
}

fn one_line(text: &str) -> String {
    // The first line has the place and the reason; the rest draws the expression again.
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn explain(error: &cel::ExecutionError) -> String {
    match error {
        cel::ExecutionError::NoSuchKey(name) => format!(
            "the expression cannot be evaluated: there is no field `{name}`; guard it with `has(…)` where it may be absent"
        ),
        other => {
            let mut text = format!("the expression cannot be evaluated: {other}");
            // The library quotes whole values.
            if let Some((end, _)) = text.char_indices().nth(300) {
                text.truncate(end);
                text.push('…');
            }
            text
        }
    }
}
