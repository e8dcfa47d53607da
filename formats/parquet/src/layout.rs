//! How the values of one schema become columns.

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::{Error, Result, Schema, Type, logical};
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::schema::types::{Type as Parquet, TypePtr};

use crate::column::{Column, Kind};
use crate::decimal::Decimal;

/// Structs, arrays and maps within each other; more is a schema that refers to itself or nobody can read.
const MAX_DEPTH: usize = 64;

/// Columns that say where in the log a record was.
pub(crate) const ORIGIN: [&str; 3] = ["_topic", "_partition", "_offset"];

/// The name of the only column of values that are no structs.
const VALUE: &str = "value";

/// Columns for the values of one schema.
#[derive(Debug)]
pub struct Layout {
    pub(crate) root: TypePtr,
    pub(crate) shape: Shape,
    /// Whether the last columns are [`ORIGIN`].
    pub(crate) origin: bool,
    columns: Vec<(Kind, i16, i16)>,
}

/// A value of the tree.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) optional: bool,
    /// Definition level of a value that is there.
    pub(crate) def: i16,
    /// Its columns.
    pub(crate) columns: Range<usize>,
    pub(crate) shape: Shape,
}

#[derive(Debug)]
pub(crate) enum Shape {
    Leaf(Kind),
    /// Fields by their place in the value.
    Struct(Vec<(usize, Node)>),
    /// Elements, and their repetition level.
    List(Box<Node>, i16),
    Map(Box<[Node; 2]>, i16),
    /// The root of values that are no structs.
    Bare(Box<Node>),
}

impl Layout {
    /// Of a schema. With `origin`, the columns `_topic`, `_partition` and `_offset` are added; fields of these names
    /// give way. A value that is no struct becomes the column `value`.
    ///
    /// A Decimal has the precision that its parameter `connect.decimal.precision` says, 76 at most; without the parameter
    /// it is 38, and 76 where the scale is 38 or more. A value with more digits is a bad record.
    ///
    /// An error, a bad record, names the field and what Parquet cannot hold.
    pub fn new(schema: &Schema, origin: bool) -> Result<Self> {
        let mut builder = Builder { columns: Vec::new() };
        let wrong = |why: Wrong| Error::bad_record(format!("the schema cannot be written as Parquet: {why}"));
        let (mut types, shape) = match &schema.ty {
            Type::Struct(fields) => {
                let fields = fields.iter().map(|field| (&field.name, &*field.schema)).enumerate();
                let kept = fields.filter(|(_, (name, _))| !(origin && ORIGIN.contains(&&***name)));
                let (types, nodes) = builder.fields(kept, 0, 0, 1).map_err(wrong)?;
                (types, Shape::Struct(nodes))
            }
            _ => {
                let (ty, node) = builder.node(&Arc::from(VALUE), schema, 0, 0, 1).map_err(wrong)?;
                (vec![ty], Shape::Bare(Box::new(node)))
            }
        };
        if origin {
            for (name, ty) in ORIGIN.iter().zip([Type::String, Type::Int32, Type::Int64]) {
                types.push(builder.node(&Arc::from(*name), &Schema::new(ty), 0, 0, 1).map_err(wrong)?.0);
            }
        }
        if types.is_empty() {
            return Err(wrong(Wrong::new("a struct needs at least one field")));
        }
        let root = Parquet::group_type_builder("record").with_fields(types).build();
        let root = root.map_err(|error| wrong(Wrong::new(error.to_string())))?;
        Ok(Self { root: Arc::new(root), shape, origin, columns: builder.columns })
    }

    /// Nothing yet of each column.
    pub(crate) fn columns(&self) -> Vec<Column> {
        self.columns.iter().map(|(kind, def, rep)| Column::new(kind, *def, *rep)).collect()
    }
}

/// What is wrong with a field.
#[derive(Debug)]
pub(crate) struct Wrong {
    path: String,
    what: String,
}

impl Wrong {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { path: String::new(), what: what.into() }
    }

    /// The same, seen from the parent.
    pub(crate) fn within(mut self, name: &str) -> Self {
        self.path = if self.path.is_empty() { name.to_owned() } else { format!("{name}.{}", self.path) };
        self
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "field `{}`: {}", self.path, self.what)
        }
    }
}

struct Builder {
    columns: Vec<(Kind, i16, i16)>,
}

impl Builder {
    /// `def` and `rep` are the levels of the parent.
    fn node(
        &mut self,
        name: &Arc<str>,
        schema: &Schema,
        def: i16,
        rep: i16,
        depth: usize,
    ) -> Result<(TypePtr, Node), Wrong> {
        self.shape(name, schema, def, rep, depth).map_err(|wrong| wrong.within(name))
    }

    fn shape(
        &mut self,
        name: &Arc<str>,
        schema: &Schema,
        def: i16,
        rep: i16,
        depth: usize,
    ) -> Result<(TypePtr, Node), Wrong> {
        if depth > MAX_DEPTH {
            return Err(Wrong::new(format!("values nest deeper than {MAX_DEPTH}")));
        }
        let def = def + i16::from(schema.optional);
        let repetition = if schema.optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let first = self.columns.len();
        let group = |logical, fields| {
            let group =
                Parquet::group_type_builder(name).with_repetition(repetition).with_logical_type(logical);
            group.with_fields(fields).build().map_err(|error| Wrong::new(error.to_string()))
        };
        // The group that repeats, as the format demands it.
        let repeated = |name, fields| {
            let group =
                Parquet::group_type_builder(name).with_repetition(Repetition::REPEATED).with_fields(fields);
            group.build().map(Arc::new).map_err(|error| Wrong::new(error.to_string()))
        };
        let (ty, shape) = match &schema.ty {
            Type::Struct(fields) => {
                let fields = fields.iter().map(|field| (&field.name, &*field.schema)).enumerate();
                let (types, nodes) = self.fields(fields, def, rep, depth + 1)?;
                if types.is_empty() {
                    return Err(Wrong::new("a struct needs at least one field"));
                }
                (group(None, types)?, Shape::Struct(nodes))
            }
            Type::Array(element) => {
                let (ty, node) = self.node(&Arc::from("element"), element, def + 1, rep + 1, depth + 1)?;
                (
                    group(Some(LogicalType::List), vec![repeated("list", vec![ty])?])?,
                    Shape::List(Box::new(node), rep + 1),
                )
            }
            Type::Map(key, value) => {
                // A map of Parquet has no null keys; one in a value is a bad record.
                let key = Schema { optional: false, ..Schema::clone(key) };
                let (key_type, key) = self.node(&Arc::from("key"), &key, def + 1, rep + 1, depth + 1)?;
                let (value_type, value) =
                    self.node(&Arc::from("value"), value, def + 1, rep + 1, depth + 1)?;
                let entries = repeated("key_value", vec![key_type, value_type])?;
                (group(Some(LogicalType::Map), vec![entries])?, Shape::Map(Box::new([key, value]), rep + 1))
            }
            _ => {
                let (kind, physical, logical) = leaf(schema)?;
                let mut builder = Parquet::primitive_type_builder(name, physical)
                    .with_repetition(repetition)
                    .with_logical_type(logical);
                if let Kind::Decimal(decimal) = &kind {
                    let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
                    builder =
                        builder.with_precision(number(decimal.precision)).with_scale(number(decimal.scale));
                    if let Some(width) = decimal.width() {
                        builder = builder.with_length(i32::try_from(width).unwrap_or(i32::MAX));
                    }
                }
                self.columns.push((kind.clone(), def, rep));
                (builder.build().map_err(|error| Wrong::new(error.to_string()))?, Shape::Leaf(kind))
            }
        };
        let columns = first..self.columns.len();
        Ok((Arc::new(ty), Node { name: Arc::clone(name), optional: schema.optional, def, columns, shape }))
    }

    #[expect(clippy::type_complexity, reason = "the two halves of one thing, taken apart at once")]
    fn fields<'a>(
        &mut self,
        fields: impl Iterator<Item = (usize, (&'a Arc<str>, &'a Schema))>,
        def: i16,
        rep: i16,
        depth: usize,
    ) -> Result<(Vec<TypePtr>, Vec<(usize, Node)>), Wrong> {
        let mut types = Vec::new();
        let mut nodes: Vec<(usize, Node)> = Vec::new();
        for (place, (name, schema)) in fields {
            if nodes.iter().any(|(_, node)| node.name == *name) {
                return Err(Wrong::new(format!("two fields are named `{name}`")));
            }
            let (ty, node) = self.node(name, schema, def, rep, depth)?;
            types.push(ty);
            nodes.push((place, node));
        }
        Ok((types, nodes))
    }
}

fn leaf(schema: &Schema) -> Result<(Kind, Physical, Option<LogicalType>), Wrong> {
    let name = schema.name.as_deref().unwrap_or_default();
    Ok(match (&schema.ty, name) {
        (Type::Bytes, logical::DECIMAL) => {
            let decimal = Decimal::new(schema).map_err(Wrong::new)?;
            let physical =
                if decimal.width().is_some() { Physical::FIXED_LEN_BYTE_ARRAY } else { Physical::INT64 };
            let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
            let logical = LogicalType::decimal(number(decimal.scale), number(decimal.precision));
            (Kind::Decimal(decimal), physical, Some(logical))
        }
        (Type::Int32 | Type::Int64, name) if let Some(logical) = time(&schema.ty, name) => match schema.ty {
            Type::Int32 => (Kind::Int32, Physical::INT32, Some(logical)),
            _ => (Kind::Int64, Physical::INT64, Some(logical)),
        },
        (Type::Int8, _) => (Kind::Int8, Physical::INT32, Some(LogicalType::integer(8, true))),
        (Type::Int16, _) => (Kind::Int16, Physical::INT32, Some(LogicalType::integer(16, true))),
        (Type::Int32, _) => (Kind::Int32, Physical::INT32, None),
        (Type::Int64, _) => (Kind::Int64, Physical::INT64, None),
        (Type::Float32, _) => (Kind::Float, Physical::FLOAT, None),
        (Type::Float64, _) => (Kind::Double, Physical::DOUBLE, None),
        (Type::Boolean, _) => (Kind::Boolean, Physical::BOOLEAN, None),
        (Type::String, _) => (Kind::Text, Physical::BYTE_ARRAY, Some(LogicalType::String)),
        (Type::Bytes, _) => (Kind::Bytes, Physical::BYTE_ARRAY, None),
        (Type::Array(_) | Type::Map(..) | Type::Struct(_), _) => {
            return Err(Wrong::new("a struct, array or map is no single value"));
        }
    })
}

/// What Connect's and Debezium's names say about numbers. Connect's are instants; Debezium's have no zone.
fn time(ty: &Type, name: &str) -> Option<LogicalType> {
    Some(match (ty, name) {
        (Type::Int32, logical::DATE | logical::DEBEZIUM_DATE) => LogicalType::Date,
        (Type::Int32, logical::TIME) => LogicalType::time(true, TimeUnit::MILLIS),
        (Type::Int32, "io.debezium.time.Time") => LogicalType::time(false, TimeUnit::MILLIS),
        (Type::Int64, logical::DEBEZIUM_MICRO_TIME) => LogicalType::time(false, TimeUnit::MICROS),
        (Type::Int64, "io.debezium.time.NanoTime") => LogicalType::time(false, TimeUnit::NANOS),
        (Type::Int64, logical::TIMESTAMP) => LogicalType::timestamp(true, TimeUnit::MILLIS),
        (Type::Int64, logical::DEBEZIUM_TIMESTAMP) => LogicalType::timestamp(false, TimeUnit::MILLIS),
        (Type::Int64, logical::DEBEZIUM_MICRO_TIMESTAMP) => LogicalType::timestamp(false, TimeUnit::MICROS),
        (Type::Int64, "io.debezium.time.NanoTimestamp") => LogicalType::timestamp(false, TimeUnit::NANOS),
        _ => return None,
    })
}
