//! Values of Connect's data model.
//!
//! Logical types (Decimal, Date, Timestamp and Debezium's semantic types) have no variants of their own: a value is
//! its physical type, and the name in its schema says what it means. [`crate::logical`] reads and writes them.

use std::fmt;

use bytes::Bytes;

use crate::Str;

/// A value. Text and bytes are slices of a shared buffer, so cloning never copies them.
#[derive(Clone, PartialEq, Default)]
pub enum Value {
    /// Null; as a record's value, a tombstone.
    #[default]
    Null,
    /// Boolean.
    Bool(bool),
    /// 8-bit integer.
    Int8(i8),
    /// 16-bit integer.
    Int16(i16),
    /// 32-bit integer.
    Int32(i32),
    /// 64-bit integer.
    Int64(i64),
    /// Single.
    Float32(f32),
    /// Double.
    Float64(f64),
    /// Text.
    String(Str),
    /// Bytes.
    Bytes(Bytes),
    /// Elements.
    Array(Vec<Value>),
    /// Entries in order. Without a schema this is a JSON object, with [`Value::String`] keys.
    Map(Vec<(Value, Value)>),
    /// The fields of a struct, in the order of its schema.
    Struct(Vec<Value>),
}

impl Value {
    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// Any integer, widened.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::Int8(v) => Some(v.into()),
            Value::Int16(v) => Some(v.into()),
            Value::Int32(v) => Some(v.into()),
            Value::Int64(v) => Some(v),
            _ => None,
        }
    }

    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// The entry of a map with text keys.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int8(_) => "int8",
            Value::Int16(_) => "int16",
            Value::Int32(_) => "int32",
            Value::Int64(_) => "int64",
            Value::Float32(_) => "float",
            Value::Float64(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Array(_) => "array",
            Value::Map(_) => "map",
            Value::Struct(_) => "struct",
        }
    }

    /// Memory held, in bytes, roughly; what the byte budgets count.
    pub fn size(&self) -> usize {
        const SELF: usize = std::mem::size_of::<Value>();
        SELF + match self {
            Value::String(s) => s.len(),
            Value::Bytes(b) => b.len(),
            Value::Array(items) | Value::Struct(items) => items.iter().map(Value::size).sum(),
            Value::Map(entries) => entries.iter().map(|(k, v)| k.size() + v.size()).sum(),
            _ => 0,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::Int8(v) => write!(f, "{v}i8"),
            Value::Int16(v) => write!(f, "{v}i16"),
            Value::Int32(v) => write!(f, "{v}i32"),
            Value::Int64(v) => write!(f, "{v}"),
            Value::Float32(v) => write!(f, "{v}f32"),
            Value::Float64(v) => write!(f, "{v}f64"),
            Value::String(v) => write!(f, "{:?}", &**v),
            Value::Bytes(v) => write!(f, "{v:?}"),
            Value::Array(v) => f.debug_list().entries(v).finish(),
            Value::Map(v) => f.debug_map().entries(v.iter().map(|(k, v)| (k, v))).finish(),
            Value::Struct(v) => f.debug_tuple("struct").field(v).finish(),
        }
    }
}

macro_rules! from {
    ($($t:ty => $v:ident),*) => { $(impl From<$t> for Value { fn from(v: $t) -> Self { Value::$v(v) } })* };
}
from!(bool => Bool, i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64, f32 => Float32, f64 => Float64, Str => String, Bytes => Bytes);

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Value::String(Str::from(v))
    }
}

impl From<String> for Value {
    fn from(v: String) -> Self {
        Value::String(Str::from(v))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Value::Null, Into::into)
    }
}
