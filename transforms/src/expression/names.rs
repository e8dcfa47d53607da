//! The names in a condition, checked before the start: a slip of the keyboard must not become a dead letter per record.

use std::collections::BTreeSet;
use std::sync::Arc;

use aqueduct_core::config::did_you_mean;
use cel::common::ast::{EntryExpr, Expr};
use cel::{Context, Env, ExecutionError, IdedExpr, Program};

/// What a condition may name.
const VARIABLES: &[&str] = &["value", "key", "headers", "topic", "partition", "timestamp"];

/// Names of types, for `type(value.x) == string`.
const TYPES: &[&str] =
    &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// The functions worth suggesting.
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "int",
    "map",
    "matches",
    "max",
    "min",
    "all",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];

/// Says what is wrong with the names, if anything is.
pub(super) fn check(env: &Arc<Env>, program: &Program) -> Result<(), String> {
    let mut bound = BTreeSet::new();
    collect_bound(program.expression(), &mut bound);
    let references = program.references();
    let known = |name: &&str| VARIABLES.contains(name) || TYPES.contains(name) || bound.contains(*name);
    if let Some(unknown) = references.variables().into_iter().filter(|name| !known(name)).min() {
        let hint = match did_you_mean(unknown, VARIABLES.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("a field of the value is written `value.{unknown}`"),
        };
        return Err(format!("names `{unknown}`, which is not known; {hint}"));
    }
    let functions = references.functions();
    let names = functions.into_iter().filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()));
    if let Some(unknown) = names.filter(|name| !has_function(env, name)).min() {
        let hint = match did_you_mean(unknown, FUNCTIONS.iter().copied()) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        return Err(format!("calls `{unknown}`, which is no function of CEL here{hint}"));
    }
    Ok(())
}

/// The library does not list its functions, but tells an unknown one from a wrong call of a known one.
fn has_function(env: &Arc<Env>, name: &str) -> bool {
    let known = |call: String| {
        let Ok(program) = env.compile(&call) else { return true };
        let result = program.execute(&Context::with_env(Arc::clone(env)));
        !matches!(result, Err(ExecutionError::UndeclaredReference(_)))
    };
    known(format!("{name}()")) || known(format!("'x'.{name}()"))
}

/// The variables that macros such as `exists` bind.
fn collect_bound<'e>(expression: &'e IdedExpr, bound: &mut BTreeSet<&'e str>) {
    let mut all = |parts: &[&'e IdedExpr]| parts.iter().for_each(|part| collect_bound(part, bound));
    match &expression.expr {
        Expr::Call(call) => {
            all(&call.args.iter().chain(call.target.as_deref()).collect::<Vec<_>>());
        }
        Expr::Comprehension(c) => {
            all(&[&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result]);
            bound.insert(&c.iter_var);
            bound.insert(&c.accu_var);
            bound.extend(c.iter_var2.as_deref());
        }
        Expr::List(list) => all(&list.elements.iter().collect::<Vec<_>>()),
        Expr::Select(select) => all(&[&select.operand]),
        Expr::Map(map) => map.entries.iter().for_each(|entry| collect_entry(&entry.expr, bound)),
        Expr::Struct(of) => of.entries.iter().for_each(|entry| collect_entry(&entry.expr, bound)),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

fn collect_entry<'e>(entry: &'e EntryExpr, bound: &mut BTreeSet<&'e str>) {
    match entry {
        EntryExpr::StructField(field) => collect_bound(&field.value, bound),
        EntryExpr::MapEntry(entry) => {
            collect_bound(&entry.key, bound);
            collect_bound(&entry.value, bound);
        }
    }
}
