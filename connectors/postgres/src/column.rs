//! Columns: a schema each, and text into values of it.
//!
//! **Invariant:** no value stops a table. What a column's schema cannot hold (a NaN in a Decimal, an array of two
//! dimensions) is null, as in Debezium, and is reported once for each column.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aqueduct_core::{SchemaRef, Value};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;

use crate::civil;
use crate::default;
use crate::kind::{BinaryText, Kind, PgType, TimeForm, TypeModes};
use crate::text;

/// A column as the catalog tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnType {
    pub(crate) name: String,
    pub(crate) ty: PgType,
    /// NOT NULL, as far as known.
    pub(crate) required: bool,
    /// The expression of its default.
    pub(crate) default: Option<String>,
}

#[cfg(test)]
impl ColumnType {
    /// Without anything but its type.
    pub(crate) fn new(name: impl Into<String>, ty: PgType) -> Self {
        Self { name: name.into(), ty, required: false, default: None }
    }
}

/// A column of one version of a table.
#[derive(Debug)]
pub(crate) struct Column {
    name: Arc<str>,
    kind: Kind,
    schema: SchemaRef,
    /// What null becomes.
    absent: Value,
    placeholder: Value,
    warned: AtomicBool,
}

impl Column {
    /// `name` is the field's, which may differ from the column's.
    pub(crate) fn new(column: &ColumnType, name: &str, modes: &TypeModes) -> Self {
        let kind = Kind::of(&column.ty, modes);
        let default = column.default.as_deref().and_then(|expr| default::value(expr, column.ty.oid, &kind));
        let mut schema = kind.schema();
        if !column.required {
            schema = schema.optional();
        }
        if let Some(default) = &default {
            schema = schema.default_value(default.clone());
        }
        let absent = if column.required { default.unwrap_or_else(|| kind.zero()) } else { Value::Null };
        let placeholder = match kind.placeholder(&modes.placeholder) {
            Value::Null => absent.clone(),
            value => value,
        };
        let warned = AtomicBool::new(false);
        Self { name: name.into(), kind, schema: schema.shared(), absent, placeholder, warned }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What stands for null: null itself, or what a required column shows where the server sent nothing.
    pub(crate) fn absent(&self) -> &Value {
        &self.absent
    }

    /// The value of a null that the server did send. One in a NOT NULL column is from before it was NOT NULL.
    pub(crate) fn null(&self, table: &str) -> Value {
        if !self.absent.is_null() && !self.warned.swap(true, Ordering::Relaxed) {
            let column = &*self.name;
            tracing::warn!(
                column,
                "column `{column}` of `{table}` is NOT NULL now, but a change from before shows null: such nulls become \
                 {:?}",
                self.absent
            );
        }
        self.absent.clone()
    }

    /// What stands for a value that the server did not send.
    pub(crate) fn placeholder(&self) -> &Value {
        &self.placeholder
    }

    /// The value of a text that lies in `owner`; text and JSON stay slices of it.
    pub(crate) fn value(&self, text: &[u8], owner: &Bytes) -> Value {
        match value(&self.kind, text, owner) {
            Some(value) => value,
            None => {
                self.warn(text);
                self.absent.clone()
            }
        }
    }

    #[cold]
    fn warn(&self, text: &[u8]) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let column = &*self.name;
            let text: String = String::from_utf8_lossy(text).chars().take(60).collect();
            let hint = match self.kind {
                Kind::Decimal { .. } | Kind::VariableDecimal => {
                    "; set `decimal.handling.mode` to `string` or `double` to keep it"
                }
                _ => "",
            };
            tracing::warn!(
                column,
                "column `{column}` holds `{text}`, which its schema cannot: such values become null{hint}"
            );
        }
    }
}

pub(crate) fn value(kind: &Kind, text: &[u8], owner: &Bytes) -> Option<Value> {
    match kind {
        Kind::Text(_) | Kind::Enum(_) | Kind::NumberText(_) => Some(Value::String(text::slice(text, owner))),
        Kind::Int32 => text::integer(text).and_then(|n| i32::try_from(n).ok()).map(Value::Int32),
        Kind::Int64 => text::integer(text).map(Value::Int64),
        Kind::Int16 => text::integer(text).and_then(|n| i16::try_from(n).ok()).map(Value::Int16),
        Kind::Bool => match text {
            b"t" => Some(Value::Bool(true)),
            b"f" => Some(Value::Bool(false)),
            _ => None,
        },
        Kind::Float32 => text::parse(text).map(Value::Float32),
        Kind::Float64 => text::parse(text).map(Value::Float64),
        Kind::Decimal { scale, .. } => text::decimal(text, *scale).map(Value::Bytes),
        Kind::VariableDecimal => text::variable_decimal(text),
        Kind::Bytes => text::hex(text).map(Value::Bytes),
        Kind::Date(TimeForm::Iso) => civil::iso_date(text).map(Value::from),
        Kind::Date(_) => civil::date(text).map(Value::Int32),
        Kind::Time(form) => time(*form, text),
        Kind::Timestamp(form) => timestamp(*form, text),
        Kind::Zoned(digits) => match text {
            b"infinity" | b"-infinity" => Some(Value::String(text::slice(text, owner))),
            _ => civil::zoned(text, *digits).map(Value::from),
        },
        Kind::Array(element, between) => {
            let items = text::elements(text, *between)?;
            let value = |item: Option<Bytes>| match item {
                None => Some(Value::Null),
                Some(item) => value(element, &item, &item),
            };
            items.into_iter().map(value).collect::<Option<_>>().map(Value::Array)
        }
        rare => self::rare(rare, text, owner),
    }
}

fn rare(kind: &Kind, text: &[u8], owner: &Bytes) -> Option<Value> {
    match kind {
        Kind::Money { digits } => {
            let unscaled = text::money_unscaled(text::money(text)?, *digits)?;
            text::decimal(unscaled.to_string().as_bytes(), 0).map(Value::Bytes)
        }
        Kind::MoneyDouble => Some(Value::Float64(text::money(text)? as f64 / 100.0)),
        Kind::MoneyText { digits } => {
            let unscaled = text::money_unscaled(text::money(text)?, *digits)?;
            let bytes = text::decimal(unscaled.to_string().as_bytes(), 0)?;
            Some(Value::from(aqueduct_core::logical::decimal_text(&bytes, *digits)))
        }
        Kind::BinaryText(form) => {
            let bytes = text::hex(text)?;
            Some(match form {
                BinaryText::Base64 => Value::from(STANDARD.encode(bytes)),
                BinaryText::Base64UrlSafe => Value::from(URL_SAFE.encode(bytes)),
                BinaryText::Hex => Value::String(text::slice(text.get(2..)?, owner)),
            })
        }
        Kind::Bit => match text {
            b"1" => Some(Value::Bool(true)),
            b"0" => Some(Value::Bool(false)),
            _ => None,
        },
        Kind::Bits { .. } => text::bits(text).map(Value::Bytes),
        Kind::ZonedTime => civil::zoned_time(text).map(Value::from),
        Kind::Interval => civil::interval(text).map(Value::Int64),
        Kind::IntervalText => civil::interval_iso(text).map(Value::from),
        Kind::Hstore => text::hstore(text).map(|pairs| Value::from(text::json_object(&pairs))),
        Kind::HstoreMap => {
            let entry = |(key, value): text::Pair| (Value::String(key), Value::from(value));
            text::hstore(text).map(|pairs| Value::Map(pairs.into_iter().map(entry).collect()))
        }
        Kind::Point => text::point(text),
        Kind::Opaque => Some(Value::Bytes(owner.slice_ref(text))),
        _ => None,
    }
}

fn time(form: TimeForm, text: &[u8]) -> Option<Value> {
    let micros = civil::time(text)?;
    Some(match form {
        TimeForm::Millis | TimeForm::Connect => Value::Int32((micros / 1000) as i32),
        TimeForm::Micros => Value::Int64(micros),
        TimeForm::Nanos => Value::Int64(micros * 1000),
        TimeForm::Iso => Value::from(civil::iso_time(text)?),
    })
}

fn timestamp(form: TimeForm, text: &[u8]) -> Option<Value> {
    if form == TimeForm::Iso {
        return civil::iso_timestamp(text).map(Value::from);
    }
    let stamp = civil::timestamp(text)?;
    Some(Value::Int64(match form {
        TimeForm::Millis | TimeForm::Connect => stamp.millis(),
        TimeForm::Nanos => stamp.nanos()?,
        TimeForm::Micros | TimeForm::Iso => stamp.micros(),
    }))
}

#[cfg(test)]
mod tests {
    use aqueduct_core::logical;

    use super::*;
    use crate::kind::{Family, TimeMode};

    fn column(oid: u32, typmod: i32) -> Column {
        Column::new(&ColumnType::new("c", PgType::known(oid, typmod)), "c", &TypeModes::plain())
    }

    fn value(oid: u32, typmod: i32, text: &'static str) -> Value {
        let owner = Bytes::from_static(text.as_bytes());
        column(oid, typmod).value(&owner, &owner)
    }

    fn numeric(precision: i32, scale: i32) -> i32 {
        (precision << 16 | scale & 0x7ff) + 4
    }

    #[test]
    fn integers_keep_their_width_and_their_smallest_value() {
        assert_eq!(value(23, -1, "-2147483648"), Value::Int32(i32::MIN));
        assert_eq!(value(20, -1, "-9223372036854775808"), Value::Int64(i64::MIN));
        assert_eq!(value(21, -1, "7"), Value::Int16(7));
        assert_eq!(value(26, -1, "4294967295"), Value::Int64(4_294_967_295));
    }

    #[test]
    fn decimals_agree_with_the_general_way_of_reading_them() {
        for text in ["0.00", "1.27", "1.28", "-1.28", "-1.29", "327.67", "327.68", "-99999999.99", "0.01"] {
            let want = logical::decimal_bytes(text, 2).expect("valid");
            assert_eq!(value(1700, numeric(10, 2), text), Value::Bytes(want), "{text}");
        }
        let long = "12345678901234567890123456789.50";
        let want = logical::decimal_bytes(long, 2).expect("valid");
        assert_eq!(value(1700, numeric(40, 2), long), Value::Bytes(want));
        assert_eq!(logical::decimal_scale(column(1700, numeric(5, -2)).schema()), Some(-2));
        assert_eq!(value(1700, numeric(5, -2), "12300"), Value::Bytes(Bytes::from_static(&[123])));
    }

    #[test]
    fn what_a_schema_cannot_hold_becomes_null_and_stops_nothing() {
        assert_eq!(value(1700, numeric(10, 2), "NaN"), Value::Null);
        assert_eq!(value(1700, -1, "Infinity"), Value::Null);
        assert_eq!(value(23, -1, "no number"), Value::Null);
        let want = Value::Struct(vec![Value::Int32(1), Value::Bytes(Bytes::from_static(&[15]))]);
        assert_eq!(value(1700, -1, "1.5"), want);
        assert_eq!(value(701, -1, "-Infinity"), Value::Float64(f64::NEG_INFINITY));
        let required = ColumnType { required: true, ..ColumnType::new("c", PgType::known(23, -1)) };
        let required = Column::new(&required, "c", &TypeModes::plain());
        let owner = Bytes::from_static(b"x");
        assert_eq!(required.value(&owner, &owner), Value::Int32(0));
    }

    #[test]
    fn times_follow_the_precision_of_their_column() {
        assert_eq!(value(1114, -1, "1970-01-01 00:00:01.5"), Value::Int64(1_500_000));
        assert_eq!(value(1114, 3, "1970-01-01 00:00:01.5"), Value::Int64(1500));
        assert_eq!(value(1083, -1, "00:00:01"), Value::Int64(1_000_000));
        assert_eq!(value(1083, 0, "00:00:01"), Value::Int32(1000));
        assert_eq!(value(1082, -1, "1970-01-11"), Value::Int32(10));
        assert_eq!(value(1184, -1, "2024-01-02 03:04:05+00"), Value::from("2024-01-02T03:04:05.000000Z"));
        assert_eq!(value(1184, 0, "2024-01-02 03:04:05+00"), Value::from("2024-01-02T03:04:05Z"));
        assert_eq!(value(1184, -1, "infinity"), Value::from("infinity"));
    }

    #[test]
    fn nanoseconds_hold_the_years_1677_to_2262() {
        let modes = TypeModes { time: TimeMode::Nanoseconds, ..TypeModes::plain() };
        let column = Column::new(&ColumnType::new("c", PgType::known(1114, 3)), "c", &modes);
        let value = |text: &'static str| {
            let owner = Bytes::from_static(text.as_bytes());
            column.value(&owner, &owner)
        };
        assert_eq!(value("1970-01-01 00:00:00.001"), Value::Int64(1_000_000));
        assert_eq!(value("2500-01-01 00:00:00"), Value::Null);
    }

    #[test]
    fn unknown_types_are_text_and_bytes_are_bytes() {
        assert_eq!(value(869, -1, "10.0.0.1/8"), Value::from("10.0.0.1/8"));
        assert_eq!(value(17, -1, "\\x00ff"), Value::Bytes(Bytes::from_static(&[0, 255])));
        assert_eq!(value(17, -1, "\\x"), Value::Bytes(Bytes::new()));
        let owner = Bytes::from_static(b"a\xffb");
        assert_eq!(column(25, -1).value(&owner, &owner), Value::from("a\u{fffd}b"));
        assert_eq!(column(25, -1).placeholder(), &Value::from("missing"));
        let pair = PgType { oid: 99_999, typmod: -1, family: Family::Named("pair".to_owned()) };
        let modes = TypeModes { unknown_as_bytes: true, ..TypeModes::plain() };
        let opaque = Column::new(&ColumnType::new("c", pair), "c", &modes);
        let owner = Bytes::from_static(b"(1,2)");
        assert_eq!(opaque.value(&owner, &owner), Value::Bytes(owner.clone()));
    }

    #[test]
    fn arrays_have_nulls_and_one_dimension() {
        let array = |element| PgType { oid: 0, typmod: -1, family: Family::Array(Box::new(element)) };
        let column = |ty| Column::new(&ColumnType::new("c", ty), "c", &TypeModes::plain());
        let numbers = column(array(PgType::known(23, -1)));
        let read = |column: &Column, text: &'static str| {
            let owner = Bytes::from_static(text.as_bytes());
            column.value(&owner, &owner)
        };
        assert_eq!(read(&numbers, "{1,NULL}"), Value::Array(vec![Value::Int32(1), Value::Null]));
        assert_eq!(read(&numbers, "{{1},{2}}"), Value::Null);
        let boxes = PgType { oid: 603, typmod: -1, family: Family::Named("box".to_owned()) };
        let want = Value::Array(vec!["(1,1),(0,0)".into(), "(2,2),(0,0)".into()]);
        assert_eq!(read(&column(array(boxes)), "{(1,1),(0,0);(2,2),(0,0)}"), want);
    }
}
