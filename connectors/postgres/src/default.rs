//! Defaults of columns as constants for their schemas.
//!
//! **Invariant:** only what is a constant, or a function of time or sequence that Debezium shows as zero, is a default
//! of a schema; every other expression is none.

use aqueduct_core::{Value, logical};
use bytes::Bytes;

use crate::column;
use crate::kind::{Kind, TimeForm};
use crate::text;

/// The value of an expression as `pg_get_expr` writes it, for a column whose type has this OID.
pub(crate) fn value(expression: &str, oid: u32, kind: &Kind) -> Option<Value> {
    if !supported(oid, kind) {
        return None;
    }
    match constant(expression) {
        Constant::Null | Constant::Other => None,
        Constant::Call => called(kind),
        Constant::Text(text) => {
            let text = match kind {
                Kind::Bool => text.get(..1).unwrap_or_default().to_ascii_lowercase(),
                _ => text,
            };
            let owner = Bytes::from(normal(text, kind));
            column::value(kind, &owner, &owner)
        }
    }
}

enum Constant {
    Text(String),
    Null,
    /// A call of a function.
    Call,
    Other,
}

fn constant(expression: &str) -> Constant {
    let expression = expression.trim();
    if let Some(quoted) = expression.strip_prefix('\'') {
        // Quotes inside are doubled; a cast may follow.
        let mut text = String::new();
        let mut rest = quoted;
        while let Some((head, tail)) = rest.split_once('\'') {
            text.push_str(head);
            match tail.strip_prefix('\'') {
                Some(after) => {
                    text.push('\'');
                    rest = after;
                }
                None if tail.is_empty() || tail.starts_with("::") => return Constant::Text(text),
                None => return Constant::Other,
            }
        }
        return Constant::Other;
    }
    let bare = expression.split("::").next().unwrap_or(expression);
    let bare = bare.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(bare);
    if bare == "NULL" {
        return Constant::Null;
    }
    if matches!(bare, "true" | "false") || bare.parse::<f64>().is_ok() {
        return Constant::Text(bare.to_owned());
    }
    let name = expression.split('(').next().unwrap_or_default();
    let call = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '"'));
    if call && expression.ends_with(')') || name.starts_with("CURRENT_") || name.starts_with("LOCAL") {
        return Constant::Call;
    }
    Constant::Other
}

fn supported(oid: u32, kind: &Kind) -> bool {
    match kind {
        // text, varchar and char.
        Kind::Text(None) => matches!(oid, 25 | 1042 | 1043),
        Kind::Bool
        | Kind::Int16
        | Kind::Int32
        | Kind::Int64
        | Kind::Float32
        | Kind::Float64
        | Kind::Decimal { .. }
        | Kind::NumberText(_)
        | Kind::Text(Some(logical::DEBEZIUM_JSON | logical::DEBEZIUM_UUID | "io.debezium.data.Xml"))
        | Kind::Enum(_)
        | Kind::Date(_)
        | Kind::Time(_)
        | Kind::Timestamp(_)
        | Kind::Zoned(_)
        | Kind::Interval
        | Kind::IntervalText => true,
        _ => false,
    }
}

/// What a call shows: nothing is known of its result.
fn called(kind: &Kind) -> Option<Value> {
    match kind {
        Kind::Int16 | Kind::Int32 | Kind::Int64 => Some(kind.zero()),
        Kind::Date(_) | Kind::Time(_) | Kind::Timestamp(_) => Some(kind.zero()),
        Kind::Zoned(_) => {
            let owner = Bytes::from_static(b"1970-01-01 00:00:00+00");
            column::value(kind, &owner, &owner)
        }
        Kind::Text(Some(logical::DEBEZIUM_UUID)) => Some(Value::from("00000000-0000-0000-0000-000000000000")),
        _ => None,
    }
}

/// An expression keeps the form that it was written in; values have that of the type.
fn normal(text: String, kind: &Kind) -> String {
    match kind {
        Kind::Timestamp(
            TimeForm::Millis | TimeForm::Micros | TimeForm::Nanos | TimeForm::Connect | TimeForm::Iso,
        ) if !text.contains(' ') && text.contains('-') && !text.ends_with("infinity") => {
            format!("{text} 00:00:00")
        }
        Kind::NumberText(Some(scale)) => match text::decimal(text.as_bytes(), *scale) {
            Some(unscaled) => logical::decimal_text(&unscaled, *scale),
            None => text,
        },
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_defaults_and_expressions_are_not() {
        let text = |expression| value(expression, 25, &Kind::Text(None));
        assert_eq!(text("'it''s'::text"), Some("it's".into()));
        assert_eq!(text("''::text"), Some("".into()));
        assert_eq!(text("NULL::text"), None);
        assert_eq!(text("('a'::text || 'b'::text)"), None);
        assert_eq!(text("upper('a'::text)"), None);
        let int = |expression| value(expression, 23, &Kind::Int32);
        assert_eq!(int("'-3'::integer"), Some(Value::Int32(-3)));
        assert_eq!(int("(-3)"), Some(Value::Int32(-3)));
        assert_eq!(int("7"), Some(Value::Int32(7)));
        assert_eq!(int("(1 + 2)"), None);
        assert_eq!(int("nextval('t_s_seq'::regclass)"), Some(Value::Int32(0)));
        assert_eq!(value("true", 16, &Kind::Bool), Some(Value::Bool(true)));
        assert_eq!(value("now()", 1114, &Kind::Timestamp(TimeForm::Micros)), Some(Value::Int64(0)));
        assert_eq!(value("CURRENT_DATE", 1082, &Kind::Date(TimeForm::Millis)), Some(Value::Int32(0)));
        assert_eq!(value("'1 day'::interval", 1186, &Kind::Interval), Some(Value::Int64(86_400_000_000)));
        assert_eq!(value("'a=>1'", 90_000, &Kind::Hstore), None);
    }
}
