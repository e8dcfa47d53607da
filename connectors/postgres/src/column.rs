//! Columns: PostgreSQL's types as Debezium maps them, and text into values.
//!
//! **Invariant:** every value PostgreSQL can store has a value here. A type without a mapping is text; what a mapped
//! type cannot hold (a NaN in a Decimal) is null, and is reported once per column.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aqueduct_core::{Error, Field, Result, Schema, SchemaRef, Str, Type, Value, logical};
use bytes::Bytes;

use crate::civil;

/// `decimal.handling.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecimalMode {
    Precise,
    Double,
    String,
}

/// `time.precision.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeMode {
    Adaptive,
    AdaptiveTimeMicroseconds,
    Connect,
}

/// How types are mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeModes {
    pub(crate) decimal: DecimalMode,
    pub(crate) time: TimeMode,
    pub(crate) placeholder: Str,
}

/// Type of a column as the catalog tells, domains resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnType {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) typmod: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal { scale: i32, precision: i32 },
    VariableDecimal,
    Text(Option<&'static str>),
    Bytes,
    Date,
    TimeMillis,
    TimeMicros,
    TimestampMillis,
    TimestampMicros,
    TimestampZone,
    ConnectDate,
    ConnectTime,
    ConnectTimestamp,
}

/// A column of one version of a table.
#[derive(Debug)]
pub(crate) struct Column {
    name: Arc<str>,
    kind: Kind,
    lossy: AtomicBool,
}

const VARIABLE_SCALE_DECIMAL: &str = "io.debezium.data.VariableScaleDecimal";
const DEBEZIUM_TIME: &str = "io.debezium.time.Time";

impl Column {
    pub(crate) fn new(column: &ColumnType, modes: &TypeModes) -> Self {
        let name = column.name.as_str().into();
        Self { name, kind: kind_of(column.type_oid, column.typmod, modes), lossy: AtomicBool::new(false) }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn schema(&self, optional: bool) -> SchemaRef {
        let schema = match self.kind {
            Kind::Bool => Schema::new(Type::Boolean),
            Kind::Int16 => Schema::new(Type::Int16),
            Kind::Int32 => Schema::new(Type::Int32),
            Kind::Int64 => Schema::new(Type::Int64),
            Kind::Float32 => Schema::new(Type::Float32),
            Kind::Float64 => Schema::new(Type::Float64),
            Kind::Decimal { scale, precision } => {
                logical::decimal_schema(scale).parameter("connect.decimal.precision", precision.to_string())
            }
            Kind::VariableDecimal => {
                let scale = Field::new("scale", Schema::new(Type::Int32).shared());
                let value = Field::new("value", Schema::new(Type::Bytes).shared());
                Schema::structure(VARIABLE_SCALE_DECIMAL, vec![scale, value]).versioned(1)
            }
            Kind::Text(None) => Schema::new(Type::String),
            Kind::Text(Some(name)) => Schema::new(Type::String).named(name).versioned(1),
            Kind::Bytes => Schema::new(Type::Bytes),
            Kind::Date => named(Type::Int32, logical::DEBEZIUM_DATE),
            Kind::TimeMillis => named(Type::Int32, DEBEZIUM_TIME),
            Kind::TimeMicros => named(Type::Int64, logical::DEBEZIUM_MICRO_TIME),
            Kind::TimestampMillis => named(Type::Int64, logical::DEBEZIUM_TIMESTAMP),
            Kind::TimestampMicros => named(Type::Int64, logical::DEBEZIUM_MICRO_TIMESTAMP),
            Kind::TimestampZone => named(Type::String, logical::DEBEZIUM_ZONED_TIMESTAMP),
            Kind::ConnectDate => named(Type::Int32, logical::DATE),
            Kind::ConnectTime => named(Type::Int32, logical::TIME),
            Kind::ConnectTimestamp => named(Type::Int64, logical::TIMESTAMP),
        };
        if optional { schema.optional().shared() } else { schema.shared() }
    }

    /// The value of a text that lies in `owner`; text and JSON stay slices of it.
    pub(crate) fn value(&self, text: &[u8], owner: &Bytes) -> Result<Value> {
        let value = match self.kind {
            Kind::Text(_) => return Ok(Value::String(slice(text, owner))),
            Kind::Int32 => integer(text).and_then(|n| i32::try_from(n).ok()).map(Value::Int32),
            Kind::Int64 => integer(text).map(Value::Int64),
            Kind::Int16 => integer(text).and_then(|n| i16::try_from(n).ok()).map(Value::Int16),
            Kind::Bool => match text {
                b"t" => Some(Value::Bool(true)),
                b"f" => Some(Value::Bool(false)),
                _ => None,
            },
            Kind::Float32 => parse(text).map(Value::Float32),
            Kind::Float64 => parse(text).map(Value::Float64),
            Kind::Decimal { scale, .. } => self.decimal(text, scale),
            Kind::VariableDecimal => self.variable_decimal(text),
            Kind::Bytes => hex(text).map(Value::Bytes),
            Kind::Date | Kind::ConnectDate => civil::date(text).map(Value::Int32),
            Kind::TimeMillis | Kind::ConnectTime => {
                civil::time(text).map(|t| Value::Int32((t / 1000) as i32))
            }
            Kind::TimeMicros => civil::time(text).map(Value::Int64),
            Kind::TimestampMillis | Kind::ConnectTimestamp => civil::timestamp(text).map(|t| {
                Value::Int64(match t {
                    civil::INFINITY_MICROS | civil::NEGATIVE_INFINITY_MICROS => t,
                    _ => t.div_euclid(1000),
                })
            }),
            Kind::TimestampMicros => civil::timestamp(text).map(Value::Int64),
            Kind::TimestampZone => Some(match civil::zoned(text) {
                Some(iso) => Value::String(iso.into()),
                None => Value::String(slice(text, owner)),
            }),
        };
        value.ok_or_else(|| self.unreadable(text))
    }

    /// What stands for a value that the server did not send.
    pub(crate) fn placeholder(&self, modes: &TypeModes) -> Value {
        match self.kind {
            Kind::Text(_) | Kind::TimestampZone => Value::String(modes.placeholder.clone()),
            Kind::Bytes => Value::Bytes(modes.placeholder.as_bytes().clone()),
            // Only a number of thousands of digits is ever TOASTed.
            _ => {
                self.warn_lossy("an unchanged, TOASTed number");
                Value::Null
            }
        }
    }

    fn decimal(&self, text: &[u8], scale: i32) -> Option<Value> {
        if let Some((unscaled, found)) = small_decimal(text)
            && found == scale
        {
            return Some(Value::Bytes(minimal(unscaled)));
        }
        let text = std::str::from_utf8(text).ok()?;
        match logical::decimal_bytes(text, scale) {
            Ok(bytes) => Some(Value::Bytes(bytes)),
            Err(_) => self.without_number(text),
        }
    }

    fn variable_decimal(&self, text: &[u8]) -> Option<Value> {
        let (bytes, scale) = match small_decimal(text) {
            Some((unscaled, scale)) => (minimal(unscaled), scale),
            None => {
                let text = std::str::from_utf8(text).ok()?;
                match logical::decimal_parts(text) {
                    Ok(parts) => parts,
                    Err(_) => return self.without_number(text),
                }
            }
        };
        Some(Value::Struct(vec![Value::Int32(scale), Value::Bytes(bytes)]))
    }

    fn without_number(&self, text: &str) -> Option<Value> {
        if !matches!(text, "NaN" | "Infinity" | "-Infinity") {
            return None;
        }
        self.warn_lossy(text);
        Some(Value::Null)
    }

    fn warn_lossy(&self, what: &str) {
        if !self.lossy.swap(true, Ordering::Relaxed) {
            let column = &*self.name;
            tracing::warn!(
                column,
                "column `{column}` holds {what}, which its schema cannot: it becomes null; \
                 set `decimal.handling.mode` to `string` or `double` to keep it"
            );
        }
    }

    fn unreadable(&self, text: &[u8]) -> Error {
        let text: String = String::from_utf8_lossy(text).chars().take(60).collect();
        Error::fatal(format!("column `{}`: cannot read `{text}` as {:?}", self.name, self.kind))
    }
}

/// The modifier of a domain's base type, numeric's precision and scale, and so on, as `pg_attribute.atttypmod` has it.
fn kind_of(type_oid: u32, typmod: i32, modes: &TypeModes) -> Kind {
    let millis = (0..=3).contains(&typmod);
    match type_oid {
        16 => Kind::Bool,
        21 => Kind::Int16,
        23 => Kind::Int32,
        20 | 26 => Kind::Int64,
        700 => Kind::Float32,
        701 => Kind::Float64,
        1700 => match modes.decimal {
            DecimalMode::String => Kind::Text(None),
            DecimalMode::Double => Kind::Float64,
            DecimalMode::Precise if typmod < 4 => Kind::VariableDecimal,
            DecimalMode::Precise => {
                let bits = typmod - 4;
                // The scale is signed, in 11 bits.
                Kind::Decimal { precision: (bits >> 16) & 0xffff, scale: ((bits & 0x7ff) ^ 1024) - 1024 }
            }
        },
        17 => Kind::Bytes,
        114 | 3802 => Kind::Text(Some(logical::DEBEZIUM_JSON)),
        2950 => Kind::Text(Some(logical::DEBEZIUM_UUID)),
        1082 if modes.time == TimeMode::Connect => Kind::ConnectDate,
        1082 => Kind::Date,
        1083 => match modes.time {
            TimeMode::Connect => Kind::ConnectTime,
            TimeMode::Adaptive if millis => Kind::TimeMillis,
            TimeMode::Adaptive | TimeMode::AdaptiveTimeMicroseconds => Kind::TimeMicros,
        },
        1114 => match modes.time {
            TimeMode::Connect => Kind::ConnectTimestamp,
            _ if millis => Kind::TimestampMillis,
            _ => Kind::TimestampMicros,
        },
        1184 => Kind::TimestampZone,
        _ => Kind::Text(None),
    }
}

fn named(ty: Type, name: &'static str) -> Schema {
    Schema::new(ty).named(name).versioned(1)
}

/// Text as a slice of `owner`; invalid UTF-8, which only a `SQL_ASCII` database holds, is replaced.
fn slice(text: &[u8], owner: &Bytes) -> Str {
    match Str::try_from(owner.slice_ref(text)) {
        Ok(text) => text,
        Err(_) => String::from_utf8_lossy(text).into_owned().into(),
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    // Counted downwards, so that the smallest number fits.
    let mut n = 0i64;
    for digit in digits {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        n = n.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(n) } else { n.checked_neg() }
}

/// Unscaled value and scale of a decimal of at most 18 digits.
fn small_decimal(text: &[u8]) -> Option<(i64, i32)> {
    if text.len() > 18 {
        return None;
    }
    let (negative, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, text),
    };
    let (mut n, mut scale, mut point, mut any) = (0i64, 0i32, false, false);
    for byte in digits {
        match byte {
            b'0'..=b'9' => {
                n = n * 10 + i64::from(byte - b'0');
                scale += i32::from(point);
                any = true;
            }
            b'.' if !point => point = true,
            _ => return None,
        }
    }
    any.then_some((if negative { -n } else { n }, scale))
}

/// The shortest big-endian two's complement form.
fn minimal(n: i64) -> Bytes {
    let bytes = n.to_be_bytes();
    let mut start = 0;
    while start < 7 {
        let sign_only = match bytes[start] {
            0x00 => bytes[start + 1] & 0x80 == 0,
            0xff => bytes[start + 1] & 0x80 != 0,
            _ => false,
        };
        if !sign_only {
            break;
        }
        start += 1;
    }
    Bytes::copy_from_slice(&bytes[start..])
}

fn hex(text: &[u8]) -> Option<Bytes> {
    let digits = text.strip_prefix(b"\\x")?;
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    digits.chunks(2).map(pair).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn modes() -> TypeModes {
        TypeModes { decimal: DecimalMode::Precise, time: TimeMode::Adaptive, placeholder: "__missing".into() }
    }

    fn column(type_oid: u32, typmod: i32) -> Column {
        Column::new(&ColumnType { name: "c".to_owned(), type_oid, typmod }, &modes())
    }

    fn value(type_oid: u32, typmod: i32, text: &'static str) -> Value {
        let owner = Bytes::from_static(text.as_bytes());
        column(type_oid, typmod).value(&owner, &owner).expect("readable")
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
        assert!(integer(b"9223372036854775808").is_none());
        assert!(integer(b"-").is_none());
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
        let negative_scale = column(1700, numeric(5, -2)).schema(false);
        assert_eq!(logical::decimal_scale(&negative_scale), Some(-2));
        assert_eq!(value(1700, numeric(5, -2), "12300"), Value::Bytes(Bytes::from_static(&[123])));
    }

    #[test]
    fn a_number_that_is_none_becomes_null_and_stops_nothing() {
        assert_eq!(value(1700, numeric(10, 2), "NaN"), Value::Null);
        assert_eq!(value(1700, -1, "Infinity"), Value::Null);
        let want = Value::Struct(vec![Value::Int32(1), Value::Bytes(Bytes::from_static(&[15]))]);
        assert_eq!(value(1700, -1, "1.5"), want);
        assert_eq!(value(701, -1, "-Infinity"), Value::Float64(f64::NEG_INFINITY));
    }

    #[test]
    fn times_follow_the_precision_of_their_column() {
        assert_eq!(value(1114, -1, "1970-01-01 00:00:01.5"), Value::Int64(1_500_000));
        assert_eq!(value(1114, 3, "1970-01-01 00:00:01.5"), Value::Int64(1500));
        assert_eq!(value(1083, -1, "00:00:01"), Value::Int64(1_000_000));
        assert_eq!(value(1083, 0, "00:00:01"), Value::Int32(1000));
        assert_eq!(value(1082, -1, "1970-01-11"), Value::Int32(10));
        assert_eq!(value(1184, -1, "2024-01-02 03:04:05+00"), Value::from("2024-01-02T03:04:05Z"));
        assert_eq!(value(1184, -1, "infinity"), Value::from("infinity"));
    }

    #[test]
    fn unknown_types_are_text_and_bytes_are_bytes() {
        assert_eq!(value(869, -1, "10.0.0.1/8"), Value::from("10.0.0.1/8"));
        assert_eq!(value(17, -1, "\\x00ff"), Value::Bytes(Bytes::from_static(&[0, 255])));
        assert_eq!(value(17, -1, "\\x"), Value::Bytes(Bytes::new()));
        let owner = Bytes::from_static(b"a\xffb");
        assert_eq!(column(25, -1).value(&owner, &owner).expect("text"), Value::from("a\u{fffd}b"));
        assert_eq!(column(25, -1).placeholder(&modes()), Value::from("__missing"));
    }
}
