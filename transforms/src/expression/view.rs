//! A record as CEL sees it, converted no further than the condition looks.
//!
//! **Invariant:** scalars borrow from the record; structs and maps are looked up in place; only arrays, and whole
//! structs that are compared or iterated over, are copied.

use std::sync::OnceLock;

use aqueduct_core::{Datum, Record, Schema, Type, Value, logical};
use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator as CelIterator, Sizer};
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelNull, CelString, MAP_TYPE, Type as CelType,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;

/// The variables of a condition. What the condition looks into is decoded before.
pub(super) struct Variables<'r> {
    pub(super) record: &'r Record,
    /// What stands for the value, where it is not decoded as a whole.
    pub(super) projected: Option<&'r Value>,
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let record = self.record;
        Some(match variable {
            "value" => match self.projected {
                Some(value) => CowVal::Owned(convert(value, record.value.schema().map(|schema| &**schema))),
                None => datum(&record.value)?,
            },
            "key" => datum(&record.key)?,
            "headers" => CowVal::owned(Entries::new(Source::Headers(record))),
            "topic" => CowVal::owned(CelString::from(&*record.topic)),
            "partition" => integer(record.partition.map(i64::from)),
            "timestamp" => integer(record.timestamp),
            _ => return None,
        })
    }
}

fn integer<'b>(v: Option<i64>) -> CowVal<'b, 'b> {
    match v {
        Some(v) => CowVal::owned(CelInt::from(v)),
        None => CowVal::owned(CelNull),
    }
}

fn datum(datum: &Datum) -> Option<CowVal<'_, '_>> {
    Some(CowVal::Owned(convert(datum.decoded()?, datum.schema().map(|schema| &**schema))))
}

fn convert<'v>(value: &'v Value, schema: Option<&'v Schema>) -> Box<dyn Val + 'v> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(v) => Box::new(CelBool::from(*v)),
        Value::Int8(v) => Box::new(CelInt::from(i64::from(*v))),
        Value::Int16(v) => Box::new(CelInt::from(i64::from(*v))),
        Value::Int32(v) => Box::new(CelInt::from(i64::from(*v))),
        Value::Int64(v) => Box::new(CelInt::from(*v)),
        Value::Float32(v) => Box::new(CelDouble::from(f64::from(*v))),
        Value::Float64(v) => Box::new(CelDouble::from(*v)),
        Value::String(v) => Box::new(CelString::from(&**v)),
        Value::Bytes(v) => match schema.and_then(logical::decimal_scale) {
            Some(scale) => {
                // CEL has no decimals; comparing with a number is what people write.
                Box::new(CelDouble::from(logical::decimal_text(v, scale).parse().unwrap_or(f64::NAN)))
            }
            None => Box::new(CelBytes::from(&**v)),
        },
        Value::Array(items) => {
            let element = match schema.map(|schema| &schema.ty) {
                Some(Type::Array(element)) => Some(&**element),
                _ => None,
            };
            Box::new(CelList::from(items.iter().map(|item| convert(item, element)).collect::<Vec<_>>()))
        }
        Value::Map(_) | Value::Struct(_) => Box::new(Entries::new(Source::Value(value, schema))),
    }
}

/// A struct, a map or the headers, as a CEL map.
#[derive(Debug)]
struct Entries<'v> {
    source: Source<'v>,
    /// The keys, made when somebody iterates.
    keys: OnceLock<Vec<Box<dyn Val + 'v>>>,
}

#[derive(Clone, Copy, Debug)]
enum Source<'v> {
    Value(&'v Value, Option<&'v Schema>),
    Headers(&'v Record),
}

impl<'v> Entries<'v> {
    fn new(source: Source<'v>) -> Self {
        Self { source, keys: OnceLock::new() }
    }

    fn find(&self, key: &dyn Val) -> Option<Box<dyn Val + 'v>> {
        match self.source {
            Source::Headers(record) => {
                let header = record.headers.last(key.downcast_ref::<CelString<'_>>()?.inner())?;
                let schema = header.value.schema().map(|schema| &**schema);
                Some(
                    header
                        .value
                        .decoded()
                        .map_or_else(|| Box::new(CelNull) as Box<dyn Val>, |v| convert(v, schema)),
                )
            }
            Source::Value(Value::Struct(values), Some(schema)) => {
                let (i, field) = schema.field(key.downcast_ref::<CelString<'_>>()?.inner())?;
                Some(convert(values.get(i)?, Some(&field.schema)))
            }
            Source::Value(Value::Map(entries), schema) => {
                let (_, of_values) = map_schemas(schema);
                let (_, value) =
                    entries.iter().find(|(k, _)| match (k, key.downcast_ref::<CelString<'_>>()) {
                        (Value::String(k), Some(key)) => **k == *key.inner(),
                        (k, None) => convert(k, None).equals(key),
                        _ => false,
                    })?;
                Some(convert(value, of_values))
            }
            Source::Value(..) => None,
        }
    }

    fn keys(&self) -> &[Box<dyn Val + 'v>] {
        self.keys.get_or_init(|| match self.source {
            Source::Headers(record) => {
                let mut names: Vec<&str> = record.headers.iter().map(|header| &*header.name).collect();
                names.sort_unstable();
                names.dedup();
                names.into_iter().map(|name| Box::new(CelString::from(name)) as Box<dyn Val>).collect()
            }
            Source::Value(Value::Struct(_), Some(schema)) => {
                schema.fields().iter().map(|f| Box::new(CelString::from(&*f.name)) as Box<dyn Val>).collect()
            }
            Source::Value(Value::Map(entries), schema) => {
                entries.iter().map(|(k, _)| convert(k, map_schemas(schema).0)).collect()
            }
            Source::Value(..) => Vec::new(),
        })
    }
}

fn map_schemas(schema: Option<&Schema>) -> (Option<&Schema>, Option<&Schema>) {
    match schema.map(|schema| &schema.ty) {
        Some(Type::Map(key, value)) => (Some(&**key), Some(&**value)),
        _ => (None, None),
    }
}

impl Val for Entries<'_> {
    fn get_type(&self) -> &CelType {
        &MAP_TYPE
    }

    fn cel_type() -> &'static CelType {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_iterable<'b, 'w>(&'b self) -> Option<&'b (dyn Iterable + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    /// As many entries, and each of ours there with an equal value.
    fn equals(&self, other: &dyn Val) -> bool {
        let (Some(sizer), Some(indexer)) = (other.as_sizer(), other.as_indexer()) else { return false };
        if other.get_type() != &MAP_TYPE || *sizer.size().inner() != self.keys().len() as i64 {
            return false;
        }
        self.keys().iter().all(|key| match (self.find(&**key), indexer.get(&**key)) {
            (Some(ours), Ok(theirs)) => ours.equals(theirs.as_ref()),
            _ => false,
        })
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(Entries::new(self.source))
    }
}

impl Container for Entries<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(key).is_some())
    }
}

impl Indexer for Entries<'_> {
    fn get<'b, 'w>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        match self.find(key) {
            Some(value) => Ok(CowVal::Owned(value)),
            None => Err(no_such_key(key)),
        }
    }

    fn steal<'w>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'w>, ExecutionError>
    where
        Self: 'w,
    {
        self.find(key).ok_or_else(|| no_such_key(key))
    }
}

fn no_such_key(key: &dyn Val) -> ExecutionError {
    match key.downcast_ref::<CelString<'_>>() {
        Some(name) => ExecutionError::no_such_key(name.inner()),
        None => ExecutionError::no_such_key(&format!("{key:?}")),
    }
}

impl Iterable for Entries<'_> {
    fn iter<'b, 'w>(&'b self) -> Box<dyn CelIterator<'b, 'w> + 'b>
    where
        Self: 'w,
    {
        Box::new(Keys(self.keys().iter()))
    }
}

struct Keys<'b, 'v>(std::slice::Iter<'b, Box<dyn Val + 'v>>);

impl<'b, 'v: 'w, 'w> CelIterator<'b, 'w> for Keys<'b, 'v> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'w)> {
        self.0.next().map(|key| &**key as &(dyn Val + 'w))
    }
}

impl Sizer for Entries<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(self.keys().len() as i64)
    }
}
