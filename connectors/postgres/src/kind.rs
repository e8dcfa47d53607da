//! PostgreSQL's types as Debezium maps them, in each of its modes.
//!
//! **Invariant:** every type has a kind. One that Debezium does not know is text (it leaves the column out), or opaque
//! bytes with `include.unknown.datatypes`.

use std::sync::Arc;

use aqueduct_core::{Field, Schema, Str, Type, Value, logical};
use bytes::Bytes;

use crate::text;

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
    IsoString,
    Microseconds,
    Nanoseconds,
}

/// `binary.handling.mode`, beside bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryText {
    Base64,
    Base64UrlSafe,
    Hex,
}

/// How types are mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeModes {
    pub(crate) decimal: DecimalMode,
    pub(crate) time: TimeMode,
    /// `interval.handling.mode=string`.
    pub(crate) interval_text: bool,
    /// `hstore.handling.mode=map`.
    pub(crate) hstore_map: bool,
    /// `None` leaves bytes as they are.
    pub(crate) binary: Option<BinaryText>,
    /// `money.fraction.digits`.
    pub(crate) money_digits: i32,
    /// `include.unknown.datatypes`.
    pub(crate) unknown_as_bytes: bool,
    /// `unavailable.value.placeholder`.
    pub(crate) placeholder: Bytes,
}

#[cfg(test)]
impl TypeModes {
    /// The defaults, with the placeholder `missing`.
    pub(crate) fn plain() -> Self {
        Self {
            decimal: DecimalMode::Precise,
            time: TimeMode::Adaptive,
            interval_text: false,
            hstore_map: false,
            binary: None,
            money_digits: 2,
            unknown_as_bytes: false,
            placeholder: Bytes::from_static(b"missing"),
        }
    }
}

/// A type as the catalog tells, with the domains around it taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PgType {
    pub(crate) oid: u32,
    pub(crate) typmod: i32,
    pub(crate) family: Family,
}

/// What the OID alone does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// One of [`KNOWN`].
    Known,
    /// Labels in their order.
    Enum(Vec<String>),
    /// Of these elements.
    Array(Box<PgType>),
    /// Any other, by its name.
    Named(String),
}

#[cfg(test)]
impl PgType {
    /// A type that its OID describes.
    pub(crate) fn known(oid: u32, typmod: i32) -> Self {
        Self { oid, typmod, family: Family::Known }
    }
}

/// OIDs that need no look into the catalog.
pub(crate) const KNOWN: &[u32] = &[
    16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 142, 600, 650, 700, 701, 774, 790, 829, 869, 1042, 1043, 1082,
    1083, 1114, 1184, 1186, 1266, 1560, 1562, 1700, 2950, 3614, 3802, 3904, 3906, 3908, 3910, 3912, 3926,
];

/// How times of day and moments are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeForm {
    Millis,
    Micros,
    Nanos,
    Connect,
    Iso,
}

/// What a value becomes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal {
        scale: i32,
        precision: i32,
    },
    VariableDecimal,
    Money {
        digits: i32,
    },
    MoneyDouble,
    MoneyText {
        digits: i32,
    },
    Text(Option<&'static str>),
    /// A numeric as text, with so many digits after the point where that is known.
    NumberText(Option<i32>),
    Enum(Arc<str>),
    Bytes,
    BinaryText(BinaryText),
    Bit,
    Bits {
        length: i32,
    },
    Date(TimeForm),
    Time(TimeForm),
    Timestamp(TimeForm),
    /// With so many digits of a second's fraction.
    Zoned(usize),
    ZonedTime,
    Interval,
    IntervalText,
    Hstore,
    HstoreMap,
    Point,
    /// The text of a type nobody knows, as bytes.
    Opaque,
    /// Elements, and what stands between them.
    Array(Box<Kind>, u8),
}

impl Kind {
    pub(crate) fn of(ty: &PgType, modes: &TypeModes) -> Self {
        match &ty.family {
            Family::Known => known(ty.oid, ty.typmod, modes),
            Family::Enum(labels) => Kind::Enum(labels.join(",").into()),
            Family::Array(element) => {
                // Boxes have commas inside.
                let between = if element.oid == 603 { b';' } else { b',' };
                Kind::Array(Box::new(Kind::of(element, modes)), between)
            }
            Family::Named(name) => match name.as_str() {
                "hstore" if modes.hstore_map => Kind::HstoreMap,
                "hstore" => Kind::Hstore,
                "citext" | "isbn" => Kind::Text(None),
                "ltree" => Kind::Text(Some("io.debezium.data.Ltree")),
                _ if modes.unknown_as_bytes => Kind::Opaque,
                _ => Kind::Text(None),
            },
        }
    }

    pub(crate) fn schema(&self) -> Schema {
        use TimeForm::{Connect, Iso, Micros, Millis, Nanos};
        match self {
            Kind::Bool | Kind::Bit => Schema::new(Type::Boolean),
            Kind::Int16 => Schema::new(Type::Int16),
            Kind::Int32 => Schema::new(Type::Int32),
            Kind::Int64 => Schema::new(Type::Int64),
            Kind::Float32 => Schema::new(Type::Float32),
            Kind::Float64 | Kind::MoneyDouble => Schema::new(Type::Float64),
            Kind::Decimal { scale, precision } => {
                logical::decimal_schema(*scale).parameter("connect.decimal.precision", precision.to_string())
            }
            Kind::Money { digits } => logical::decimal_schema(*digits),
            Kind::VariableDecimal => variable_decimal(),
            Kind::Text(None) | Kind::NumberText(_) | Kind::MoneyText { .. } | Kind::BinaryText(_) => {
                Schema::new(Type::String)
            }
            Kind::Text(Some(name)) => named(Type::String, name),
            Kind::Enum(labels) => {
                named(Type::String, "io.debezium.data.Enum").parameter("allowed", &**labels)
            }
            Kind::Bytes | Kind::Opaque => Schema::new(Type::Bytes),
            Kind::Bits { length } => {
                named(Type::Bytes, "io.debezium.data.Bits").parameter("length", length.to_string())
            }
            Kind::Date(Connect) => named(Type::Int32, logical::DATE),
            Kind::Date(Iso) => named(Type::String, "io.debezium.time.IsoDate"),
            Kind::Date(Millis | Micros | Nanos) => named(Type::Int32, logical::DEBEZIUM_DATE),
            Kind::Time(Millis) => named(Type::Int32, "io.debezium.time.Time"),
            Kind::Time(Micros) => named(Type::Int64, logical::DEBEZIUM_MICRO_TIME),
            Kind::Time(Nanos) => named(Type::Int64, "io.debezium.time.NanoTime"),
            Kind::Time(Connect) => named(Type::Int32, logical::TIME),
            Kind::Time(Iso) => named(Type::String, "io.debezium.time.IsoTime"),
            Kind::Timestamp(Millis) => named(Type::Int64, logical::DEBEZIUM_TIMESTAMP),
            Kind::Timestamp(Micros) => named(Type::Int64, logical::DEBEZIUM_MICRO_TIMESTAMP),
            Kind::Timestamp(Nanos) => named(Type::Int64, "io.debezium.time.NanoTimestamp"),
            Kind::Timestamp(Connect) => named(Type::Int64, logical::TIMESTAMP),
            Kind::Timestamp(Iso) => named(Type::String, "io.debezium.time.IsoTimestamp"),
            Kind::Zoned(_) => named(Type::String, logical::DEBEZIUM_ZONED_TIMESTAMP),
            Kind::ZonedTime => named(Type::String, "io.debezium.time.ZonedTime"),
            Kind::Interval => named(Type::Int64, "io.debezium.time.MicroDuration"),
            Kind::IntervalText => named(Type::String, "io.debezium.time.Interval"),
            Kind::Hstore => named(Type::String, logical::DEBEZIUM_JSON),
            Kind::HstoreMap => Schema::new(Type::Map(
                Schema::new(Type::String).shared(),
                Schema::new(Type::String).optional().shared(),
            )),
            Kind::Point => point(),
            Kind::Array(element, _) => Schema::new(Type::Array(element.schema().optional().shared())),
        }
    }

    /// What a required column shows where there is no value, such as in the old row of a delete.
    pub(crate) fn zero(&self) -> Value {
        use TimeForm::{Connect, Iso, Micros, Millis, Nanos};
        match self {
            Kind::Bool | Kind::Bit => Value::Bool(false),
            Kind::Int16 => Value::Int16(0),
            Kind::Int32 | Kind::Date(Connect | Millis | Micros | Nanos) | Kind::Time(Millis | Connect) => {
                Value::Int32(0)
            }
            Kind::Int64
            | Kind::Interval
            | Kind::Time(Micros | Nanos)
            | Kind::Timestamp(Connect | Millis | Micros | Nanos) => Value::Int64(0),
            Kind::Float32 => Value::Float32(0.0),
            Kind::Float64 | Kind::MoneyDouble => Value::Float64(0.0),
            Kind::Decimal { .. } | Kind::Money { .. } => Value::Bytes(text::minimal(0)),
            Kind::VariableDecimal => Value::Struct(vec![Value::Int32(0), Value::Bytes(text::minimal(0))]),
            Kind::NumberText(scale) => Value::from(logical::decimal_text(&[0], scale.unwrap_or(0))),
            Kind::MoneyText { digits } => Value::from(logical::decimal_text(&[0], *digits)),
            Kind::Text(_) | Kind::BinaryText(_) | Kind::Enum(_) => Value::from(""),
            Kind::Bytes | Kind::Opaque | Kind::Bits { .. } => Value::Bytes(Bytes::new()),
            Kind::Date(Iso) => Value::from("1970-01-01Z"),
            Kind::Time(Iso) | Kind::ZonedTime => Value::from("00:00:00Z"),
            Kind::Timestamp(Iso) | Kind::Zoned(_) => Value::from("1970-01-01T00:00:00Z"),
            Kind::IntervalText => Value::from("P0Y0M0DT0H0M0S"),
            Kind::Hstore => Value::from("{}"),
            Kind::HstoreMap => Value::Map(Vec::new()),
            Kind::Point => text::point(b"(0,0)").unwrap_or_default(),
            Kind::Array(..) => Value::Array(Vec::new()),
        }
    }

    /// What stands for a value that the server did not send; null where the type has no room for it.
    pub(crate) fn placeholder(&self, placeholder: &Bytes) -> Value {
        let words = || Str::from(String::from_utf8_lossy(placeholder).into_owned());
        match self {
            Kind::Text(_)
            | Kind::NumberText(_)
            | Kind::MoneyText { .. }
            | Kind::BinaryText(_)
            | Kind::Enum(_)
            | Kind::Zoned(_)
            | Kind::ZonedTime => Value::String(words()),
            Kind::Bytes | Kind::Opaque => Value::Bytes(placeholder.clone()),
            Kind::Hstore => Value::from(text::json_object(&[(words(), Some(words()))])),
            Kind::HstoreMap => Value::Map(vec![(Value::String(words()), Value::String(words()))]),
            Kind::Array(element, _) => match &**element {
                // Debezium's own habit: the bytes of the placeholder, one number each.
                Kind::Int32 | Kind::Date(TimeForm::Millis | TimeForm::Micros | TimeForm::Nanos) => {
                    Value::Array(placeholder.iter().map(|b| Value::Int32(i32::from(*b as i8))).collect())
                }
                Kind::Int64 => {
                    Value::Array(placeholder.iter().map(|b| Value::Int64(i64::from(*b as i8))).collect())
                }
                Kind::Text(Some(logical::DEBEZIUM_UUID)) => {
                    Value::Array(vec![Value::from(text::named_uuid(placeholder))])
                }
                element => match element.placeholder(placeholder) {
                    Value::Null => Value::Null,
                    value => Value::Array(vec![value]),
                },
            },
            _ => Value::Null,
        }
    }
}

/// The typmod is that of `pg_attribute.atttypmod`: numeric's precision and scale, the digits of a second, a length.
fn known(oid: u32, typmod: i32, modes: &TypeModes) -> Kind {
    let form = |millis: bool, fine: bool| match modes.time {
        TimeMode::Connect => TimeForm::Connect,
        TimeMode::IsoString => TimeForm::Iso,
        TimeMode::Nanoseconds => TimeForm::Nanos,
        TimeMode::Microseconds => TimeForm::Micros,
        TimeMode::AdaptiveTimeMicroseconds if fine => TimeForm::Micros,
        TimeMode::Adaptive | TimeMode::AdaptiveTimeMicroseconds if millis => TimeForm::Millis,
        TimeMode::Adaptive | TimeMode::AdaptiveTimeMicroseconds => TimeForm::Micros,
    };
    let millis = (0..=3).contains(&typmod);
    match oid {
        16 => Kind::Bool,
        21 => Kind::Int16,
        23 => Kind::Int32,
        20 | 26 => Kind::Int64,
        700 => Kind::Float32,
        701 => Kind::Float64,
        1700 => {
            // The scale is signed, in 11 bits.
            let given = (typmod >= 4)
                .then(|| (((typmod - 4) >> 16) & 0xffff, (((typmod - 4) & 0x7ff) ^ 1024) - 1024));
            match (modes.decimal, given) {
                (DecimalMode::String, given) => Kind::NumberText(given.map(|(_, scale)| scale)),
                (DecimalMode::Double, _) => Kind::Float64,
                (DecimalMode::Precise, None) => Kind::VariableDecimal,
                (DecimalMode::Precise, Some((precision, scale))) => Kind::Decimal { precision, scale },
            }
        }
        790 => match modes.decimal {
            DecimalMode::Precise => Kind::Money { digits: modes.money_digits },
            DecimalMode::Double => Kind::MoneyDouble,
            DecimalMode::String => Kind::MoneyText { digits: modes.money_digits },
        },
        17 => modes.binary.map_or(Kind::Bytes, Kind::BinaryText),
        114 | 3802 => Kind::Text(Some(logical::DEBEZIUM_JSON)),
        2950 => Kind::Text(Some(logical::DEBEZIUM_UUID)),
        142 => Kind::Text(Some("io.debezium.data.Xml")),
        3614 => Kind::Text(Some("io.debezium.data.Tsvector")),
        1560 | 1562 if typmod == 1 => Kind::Bit,
        1560 | 1562 => Kind::Bits { length: if typmod > 0 { typmod } else { i32::MAX } },
        1082 => Kind::Date(match modes.time {
            TimeMode::Connect => TimeForm::Connect,
            TimeMode::IsoString => TimeForm::Iso,
            _ => TimeForm::Millis,
        }),
        1083 => Kind::Time(form(millis, true)),
        1114 => Kind::Timestamp(form(millis, false)),
        1184 => Kind::Zoned(usize::try_from(typmod).unwrap_or(6)),
        1266 => Kind::ZonedTime,
        1186 if modes.interval_text => Kind::IntervalText,
        1186 => Kind::Interval,
        600 => Kind::Point,
        _ => Kind::Text(None),
    }
}

fn named(ty: Type, name: &'static str) -> Schema {
    Schema::new(ty).named(name).versioned(1)
}

fn documented(mut schema: Schema, doc: &str) -> Schema {
    schema.doc = Some(doc.into());
    schema
}

fn variable_decimal() -> Schema {
    let scale = Field::new("scale", Schema::new(Type::Int32).shared());
    let value = Field::new("value", Schema::new(Type::Bytes).shared());
    let schema = Schema::structure("io.debezium.data.VariableScaleDecimal", vec![scale, value]).versioned(1);
    documented(schema, "Variable scaled decimal")
}

fn point() -> Schema {
    let double = || Schema::new(Type::Float64).shared();
    let fields = vec![
        Field::new("x", double()),
        Field::new("y", double()),
        Field::new("wkb", Schema::new(Type::Bytes).optional().shared()),
        Field::new("srid", Schema::new(Type::Int32).optional().shared()),
    ];
    documented(Schema::structure("io.debezium.data.geometry.Point", fields).versioned(1), "Geometry (POINT)")
}
