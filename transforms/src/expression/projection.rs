//! Which fields of the value an expression looks into, so that nothing else of a JSON text is decoded.

use std::ops::Range;

use aqueduct_core::json::{self, Paths};
use aqueduct_core::{Datum, FieldPath, Slot, Type, Value};
use bytes::Bytes;
use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr};

/// The outermost fields of `value` that are named.
pub(super) struct Projection {
    names: Vec<String>,
    paths: Paths,
}

impl Projection {
    /// `None` where the value is used as a whole, or under a computed name.
    pub(super) fn of(expression: &IdedExpr) -> Option<Self> {
        let mut names = Vec::new();
        if !collect(expression, &mut names) || names.is_empty() {
            return None;
        }
        let paths = names.iter().map(|name| FieldPath::parse(name).ok());
        let paths = Paths::new(&paths.collect::<Option<Vec<_>>>()?)?;
        Some(Self { names, paths })
    }

    /// The value with the named fields and, in a struct, null for the others. `None`: decode it all.
    pub(super) fn read(&self, datum: &Datum) -> Option<Value> {
        let text = datum.as_json()?;
        let mut places = Vec::with_capacity(self.names.len());
        if !self.paths.find(text, &mut places) {
            return None;
        }
        let found = |place: &Slot<Range<usize>>, schema| match place {
            Slot::Found(range) => Some(decode(text, range.clone(), schema)),
            _ => None,
        };
        let Some(schema) = datum.schema() else {
            let mut entries = Vec::with_capacity(self.names.len());
            for (name, place) in self.names.iter().zip(&places) {
                if let Some(value) = found(place, None) {
                    entries.push((Value::from(name.as_str()), value?));
                }
            }
            return Some(Value::Map(entries));
        };
        let Type::Struct(fields) = &schema.ty else { return None };
        let mut values = vec![Value::Null; fields.len()];
        for (name, place) in self.names.iter().zip(&places) {
            let Some((i, field)) = schema.field(name) else { continue };
            values[i] = match found(place, Some(&*field.schema)) {
                Some(value) => value?,
                None => match &field.schema.default {
                    Some(default) => default.clone(),
                    None if field.schema.optional => Value::Null,
                    None => return None,
                },
            };
        }
        Some(Value::Struct(values))
    }
}

fn decode(text: &Bytes, range: Range<usize>, schema: Option<&aqueduct_core::Schema>) -> Option<Value> {
    // Whole decoding says what is wrong.
    json::decode(&text.slice(range), schema).ok()
}

/// Whether every use of `value` names a field.
fn collect(expression: &IdedExpr, names: &mut Vec<String>) -> bool {
    match &expression.expr {
        Expr::Ident(name) => name != "value",
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(name) if name == "value" => {
                if !names.contains(&select.field) {
                    names.push(select.field.clone());
                }
                true
            }
            _ => collect(&select.operand, names),
        },
        Expr::Call(call) => call.args.iter().chain(call.target.as_deref()).all(|part| collect(part, names)),
        // Such as `exists(value, …)`, which binds a name of its own.
        Expr::Comprehension(c) => {
            let named = [Some(&c.iter_var), Some(&c.accu_var), c.iter_var2.as_ref()];
            named.into_iter().flatten().all(|name| name != "value")
                && [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result]
                    .into_iter()
                    .all(|part| collect(part, names))
        }
        Expr::List(list) => list.elements.iter().all(|part| collect(part, names)),
        Expr::Map(map) => map.entries.iter().all(|entry| collect_entry(&entry.expr, names)),
        Expr::Struct(of) => of.entries.iter().all(|entry| collect_entry(&entry.expr, names)),
        Expr::Unspecified | Expr::Literal(_) => true,
    }
}

fn collect_entry(entry: &EntryExpr, names: &mut Vec<String>) -> bool {
    match entry {
        EntryExpr::StructField(field) => collect(&field.value, names),
        EntryExpr::MapEntry(entry) => collect(&entry.key, names) && collect(&entry.value, names),
    }
}
