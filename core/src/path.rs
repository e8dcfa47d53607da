//! Paths to fields inside a value, such as `after.email`, resolved once per schema.
//!
//! **Invariant:** a field that is not there is never taken for one that is null; see [`Slot`].

use std::fmt;
use std::sync::Arc;

use crate::{Field, Schema, SchemaRef, Str, Type, Value};

/// A path of field names, written with dots. Names that hold dots cannot be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    text: Str,
    parts: Vec<Str>,
}

impl FieldPath {
    /// Parses `after.email`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let parts: Vec<Str> = text.split('.').map(Str::from).collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("`{text}` is not a path of fields; write `email` or `after.email`"));
        }
        Ok(Self { text: Str::from(text), parts })
    }

    /// The path to the field of that name, in which dots are part of the name.
    pub fn field(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("the name of the field is empty".to_owned());
        }
        Ok(Self { text: Str::from(name), parts: vec![Str::from(name)] })
    }

    /// The path of no steps: the value itself.
    pub fn whole() -> Self {
        Self { text: Str::from_static("the value"), parts: Vec::new() }
    }

    /// The names, from the outermost.
    pub fn parts(&self) -> &[Str] {
        &self.parts
    }

    /// The path to what holds the last field, and the name of that field; `None` for [`FieldPath::whole`].
    pub fn split_last(&self) -> Option<(Self, &Str)> {
        let (last, parents) = self.parts.split_last()?;
        if parents.is_empty() {
            return Some((Self::whole(), last));
        }
        Some((Self { text: Str::from(parents.join(".")), parts: parents.to_vec() }, last))
    }

    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is `prefix` or lies below it.
    pub fn starts_with(&self, prefix: &FieldPath) -> bool {
        self.parts.starts_with(&prefix.parts)
    }

    /// Finds the way through values of this schema; `None` when the schema has no such field. Without a schema, values
    /// are maps, and whether the field is there shows with each of them.
    pub fn locate(&self, schema: Option<&SchemaRef>) -> Option<Locator> {
        let mut steps = Vec::with_capacity(self.parts.len());
        let mut schema = schema;
        for part in &self.parts {
            match schema.map(|schema| &schema.ty) {
                None => steps.push(Step::Key(part.clone())),
                Some(Type::Map(key, value)) if key.ty == Type::String => {
                    steps.push(Step::Key(part.clone()));
                    schema = Some(value);
                }
                Some(Type::Struct(fields)) => {
                    let i = fields.iter().position(|field| *field.name == **part)?;
                    steps.push(Step::Index(i));
                    schema = Some(&fields[i].schema);
                }
                Some(_) => return None,
            }
        }
        Some(Locator { steps, schema: schema.cloned() })
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is found at the end of a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Slot<T> {
    /// The value, which may be null.
    Found(T),
    /// The field exists by its schema or may exist, but a value on the way to it is null.
    NullParent,
    /// There is no such field.
    Missing,
}

/// A path through values of one schema.
#[derive(Clone, Debug)]
pub struct Locator {
    steps: Vec<Step>,
    schema: Option<SchemaRef>,
}

#[derive(Clone, Debug)]
enum Step {
    Index(usize),
    Key(Str),
}

impl Locator {
    /// The schema of what it leads to.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// The value at its end.
    pub fn get<'v>(&self, root: &'v Value) -> Slot<&'v Value> {
        let mut current = root;
        for step in &self.steps {
            let next = match (step, current) {
                (_, Value::Null) => return Slot::NullParent,
                (Step::Index(i), Value::Struct(values)) => values.get(*i),
                (Step::Key(key), Value::Map(entries)) => {
                    entries.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
                }
                _ => None,
            };
            let Some(next) = next else { return Slot::Missing };
            current = next;
        }
        Slot::Found(current)
    }

    /// The value at its end, for changing. What is put there must fit the schema of the whole.
    pub fn get_mut<'v>(&self, root: &'v mut Value) -> Slot<&'v mut Value> {
        let mut current = root;
        for step in &self.steps {
            let next = match (step, current) {
                (_, Value::Null) => return Slot::NullParent,
                (Step::Index(i), Value::Struct(values)) => values.get_mut(*i),
                (Step::Key(key), Value::Map(entries)) => {
                    entries.iter_mut().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
                }
                _ => None,
            };
            let Some(next) = next else { return Slot::Missing };
            current = next;
        }
        Slot::Found(current)
    }

    /// `root` with another schema at the end of this path; `None` where the path leads through a map, whose values
    /// share one schema.
    pub fn replace(&self, root: &SchemaRef, leaf: SchemaRef) -> Option<SchemaRef> {
        replace(&self.steps, root, leaf)
    }
}

fn replace(steps: &[Step], schema: &SchemaRef, leaf: SchemaRef) -> Option<SchemaRef> {
    let Some((step, rest)) = steps.split_first() else { return Some(leaf) };
    let (Step::Index(i), Type::Struct(fields)) = (step, &schema.ty) else { return None };
    let mut fields = fields.clone();
    let field = fields.get(*i)?;
    fields[*i] = Field { name: Arc::clone(&field.name), schema: replace(rest, &field.schema, leaf)? };
    // A default of the old type would not fit.
    Some(Arc::new(Schema { ty: Type::Struct(fields), default: None, ..Schema::clone(schema) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> SchemaRef {
        let row = Schema::structure("row", vec![Field::new("email", Schema::new(Type::String).shared())]);
        Schema::structure("envelope", vec![Field::new("after", row.optional().shared())]).shared()
    }

    #[test]
    fn a_missing_field_is_not_a_null_one() {
        let path = FieldPath::parse("after.email").expect("a path");
        let locator = path.locate(Some(&schema())).expect("the schema has it");
        let row = |email: Value| Value::Struct(vec![Value::Struct(vec![email])]);
        assert_eq!(locator.get(&row(Value::Null)), Slot::Found(&Value::Null));
        assert_eq!(locator.get(&Value::Struct(vec![Value::Null])), Slot::NullParent);
        assert!(FieldPath::parse("after.mail").expect("a path").locate(Some(&schema())).is_none());
        let free = path.locate(None).expect("without a schema everything may be there");
        assert_eq!(free.get(&Value::Map(vec![("after".into(), Value::Map(vec![]))])), Slot::Missing);
    }

    #[test]
    fn replacing_a_leaf_leaves_the_rest() {
        let locator =
            FieldPath::parse("after.email").expect("a path").locate(Some(&schema())).expect("found");
        let new = locator.replace(&schema(), Schema::new(Type::Int64).shared()).expect("no map on the way");
        let (_, after) = new.field("after").expect("kept");
        assert!(after.schema.optional);
        assert_eq!(after.schema.field("email").expect("kept").1.schema.ty, Type::Int64);
    }

    #[test]
    fn empty_parts_are_refused() {
        assert!(FieldPath::parse("").is_err());
        assert!(FieldPath::parse("a..b").is_err());
    }
}
