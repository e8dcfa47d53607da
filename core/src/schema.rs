//! Kafka Connect's schemas.
//!
//! Schemas are shared: an [`SchemaRef`] is compared by pointer first, so components make a schema once and clone
//! the reference for every record.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Value;

/// A shared schema.
pub type SchemaRef = Arc<Schema>;

/// The physical type of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// 8-bit signed integer.
    Int8,
    /// 16-bit signed integer.
    Int16,
    /// 32-bit signed integer.
    Int32,
    /// 64-bit signed integer.
    Int64,
    /// IEEE 754 single.
    Float32,
    /// IEEE 754 double.
    Float64,
    /// True or false.
    Boolean,
    /// UTF-8 text.
    String,
    /// Bytes.
    Bytes,
    /// Elements of one schema.
    Array(SchemaRef),
    /// Keys and values of one schema each.
    Map(SchemaRef, SchemaRef),
    /// Named fields in a fixed order.
    Struct(Vec<Field>),
}

impl Type {
    /// Connect's name of the type as JsonConverter writes it: `int32`, `float`, `struct`, …
    pub fn name(&self) -> &'static str {
        match self {
            Type::Int8 => "int8",
            Type::Int16 => "int16",
            Type::Int32 => "int32",
            Type::Int64 => "int64",
            Type::Float32 => "float",
            Type::Float64 => "double",
            Type::Boolean => "boolean",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Array(_) => "array",
            Type::Map(..) => "map",
            Type::Struct(_) => "struct",
        }
    }
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name, unique in its struct.
    pub name: Arc<str>,
    /// Schema of the value.
    pub schema: SchemaRef,
}

/// A schema: type, whether null is allowed, and Connect's annotations.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Physical type.
    pub ty: Type,
    /// Whether null is a value of this schema.
    pub optional: bool,
    /// Name of a struct or of a logical type, such as `org.apache.kafka.connect.data.Decimal`.
    pub name: Option<Arc<str>>,
    /// Version.
    pub version: Option<i32>,
    /// Documentation.
    pub doc: Option<Arc<str>>,
    /// Default value, of this schema.
    pub default: Option<Value>,
    /// Parameters, such as `scale` of a Decimal.
    pub parameters: BTreeMap<String, String>,
}

impl Schema {
    /// A required schema without annotations.
    pub fn new(ty: Type) -> Self {
        Self {
            ty,
            optional: false,
            name: None,
            version: None,
            doc: None,
            default: None,
            parameters: BTreeMap::new(),
        }
    }

    /// A struct of the given name and fields.
    pub fn structure(name: impl Into<Arc<str>>, fields: Vec<Field>) -> Self {
        Self::new(Type::Struct(fields)).named(name)
    }

    /// Allows null.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Sets the name.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the version.
    #[must_use]
    pub fn versioned(mut self, version: i32) -> Self {
        self.version = Some(version);
        self
    }

    /// Sets a parameter.
    #[must_use]
    pub fn parameter(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.insert(key.into(), value.into());
        self
    }

    /// Sets the default value.
    #[must_use]
    pub fn default_value(mut self, value: Value) -> Self {
        self.default = Some(value);
        self
    }

    /// Shares it.
    pub fn shared(self) -> SchemaRef {
        Arc::new(self)
    }

    /// The fields of a struct; empty for every other type.
    pub fn fields(&self) -> &[Field] {
        match &self.ty {
            Type::Struct(fields) => fields,
            _ => &[],
        }
    }

    /// Position and definition of a field.
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields().iter().enumerate().find(|(_, field)| &*field.name == name)
    }

    /// Whether two references mean the same schema; cheap when they are the same object.
    pub fn same(a: &SchemaRef, b: &SchemaRef) -> bool {
        Arc::ptr_eq(a, b) || a == b
    }
}

impl Field {
    /// A field.
    pub fn new(name: impl Into<Arc<str>>, schema: SchemaRef) -> Self {
        Self { name: name.into(), schema }
    }
}
