//! Records: what flows through sources, steps, converters and sinks.
//!
//! **Invariant:** a datum that no step looked into is still the bytes that were consumed; it is decoded on first use.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Error, Result, SchemaRef, Str, Value, json};

/// A topic's name, shared by the records of a batch.
pub type Topic = Arc<str>;

/// Whether a topic can have that name; the error says what names are.
pub fn check_topic(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || matches!(name, "." | "..") || !name.chars().all(legal) {
        let name: String = name.chars().take(60).collect();
        return Err(format!(
            "`{name}` cannot be the name of a topic: 1 to 249 of letters, digits, `.`, `_` and `-`"
        ));
    }
    Ok(())
}

/// A key, a value or a header's value, with its schema if it has one.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Datum {
    schema: Option<SchemaRef>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Value(Value),
    /// JSON text as consumed: valid, one document, not decoded yet.
    Json(Bytes),
}

impl Default for Body {
    fn default() -> Self {
        Body::Value(Value::Null)
    }
}

impl Datum {
    /// Null without a schema; as a record's value, a tombstone.
    pub fn null() -> Self {
        Self::default()
    }

    /// A value without a schema.
    pub fn schemaless(value: impl Into<Value>) -> Self {
        Self { schema: None, body: Body::Value(value.into()) }
    }

    /// A value of the given schema.
    pub fn new(schema: SchemaRef, value: impl Into<Value>) -> Self {
        Self { schema: Some(schema), body: Body::Value(value.into()) }
    }

    /// JSON text (as JsonConverter writes it with `schemas.enable=false`), decoded only when somebody looks.
    ///
    /// The caller has checked that `text` is one valid JSON document in UTF-8; the literal `null` becomes null here.
    pub fn json(schema: Option<SchemaRef>, text: Bytes) -> Self {
        if text.as_ref() == b"null" {
            return Self { schema, body: Body::default() };
        }
        Self { schema, body: Body::Json(text) }
    }

    /// The schema.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref()
    }

    /// Whether it is null. Never decodes.
    pub fn is_null(&self) -> bool {
        matches!(self.body, Body::Value(Value::Null))
    }

    /// The undecoded JSON text, where nobody has looked into it.
    pub fn as_json(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Json(text) => Some(text),
            Body::Value(_) => None,
        }
    }

    /// The value, decoding it on first use. An error is a bad record.
    pub fn value(&mut self) -> Result<&Value> {
        self.value_mut().map(|value| &*value)
    }

    /// The value for changing in place. Its shape must go on matching the schema; see [`Datum::set`].
    pub fn value_mut(&mut self) -> Result<&mut Value> {
        if let Body::Json(text) = &self.body {
            self.body = Body::Value(json::decode(text, self.schema.as_deref())?);
        }
        match &mut self.body {
            Body::Value(value) => Ok(value),
            Body::Json(_) => Err(Error::fatal("a decoded datum is still encoded")),
        }
    }

    /// The value if it is decoded already.
    pub fn decoded(&self) -> Option<&Value> {
        match &self.body {
            Body::Value(value) => Some(value),
            Body::Json(_) => None,
        }
    }

    /// Takes schema and value.
    pub fn into_parts(mut self) -> Result<(Option<SchemaRef>, Value)> {
        let value = std::mem::take(self.value_mut()?);
        Ok((self.schema, value))
    }

    /// Replaces schema and value.
    pub fn set(&mut self, schema: Option<SchemaRef>, value: Value) {
        *self = Self { schema, body: Body::Value(value) };
    }

    /// The datum as plain JSON text, the consumed bytes where they are untouched.
    pub fn to_json(&self) -> Result<Bytes> {
        self.to_json_as(json::Style::default())
    }

    /// The same in a style. Untouched bytes are written anew where their schema makes a difference.
    pub fn to_json_as(&self, style: json::Style) -> Result<Bytes> {
        match &self.body {
            Body::Json(text) if style == json::Style::default() || self.schema.is_none() => Ok(text.clone()),
            Body::Json(text) => {
                let value = json::decode(text, self.schema.as_deref())?;
                self.encoded(&value, style)
            }
            Body::Value(value) => self.encoded(value, style),
        }
    }

    fn encoded(&self, value: &Value, style: json::Style) -> Result<Bytes> {
        let mut out = Vec::with_capacity(256);
        json::encode_as(&mut out, value, self.schema.as_deref(), style)?;
        Ok(out.into())
    }

    /// Memory held, in bytes, roughly.
    pub fn size(&self) -> usize {
        match &self.body {
            Body::Value(value) => value.size(),
            Body::Json(text) => text.len(),
        }
    }
}

/// A header. Names may repeat; order is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Name.
    pub name: Str,
    /// Value.
    pub value: Datum,
}

/// The headers of a record, in order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Headers(Vec<Header>);

impl Headers {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one.
    pub fn push(&mut self, name: impl Into<Str>, value: Datum) {
        self.0.push(Header { name: name.into(), value });
    }

    /// The last header of that name.
    pub fn last(&self, name: &str) -> Option<&Header> {
        self.0.iter().rev().find(|header| &*header.name == name)
    }

    /// Removes every header of that name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|header| &*header.name != name);
    }

    /// Iterates in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.0.iter()
    }

    /// Iterates in order, for decoding in place.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Header> {
        self.0.iter_mut()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<I: IntoIterator<Item = Header>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Topic it goes to or comes from.
    pub topic: Topic,
    /// Partition; `None` on the source side lets the producer choose by key.
    pub partition: Option<i32>,
    /// Key.
    pub key: Datum,
    /// Value; null is a tombstone.
    pub value: Datum,
    /// Headers.
    pub headers: Headers,
    /// Milliseconds since 1970. `None` on the source side: the producer's clock.
    pub timestamp: Option<i64>,
}

impl Record {
    /// A record without key, headers or timestamp.
    pub fn new(topic: Topic, value: Datum) -> Self {
        Self { topic, partition: None, key: Datum::null(), value, headers: Headers::new(), timestamp: None }
    }

    /// Memory held, in bytes, roughly; what the byte budgets count.
    pub fn size(&self) -> usize {
        const SELF: usize = std::mem::size_of::<Record>();
        let headers: usize = self.headers.iter().map(|h| h.name.len() + h.value.size() + 48).sum();
        SELF + self.key.size() + self.value.size() + headers
    }
}
