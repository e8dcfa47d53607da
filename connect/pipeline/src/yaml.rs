//! The one place that reads YAML: a tree with positions for pipelines, and serde for files with a fixed shape.
//!
//! Pipelines need the line and column of every key and value, which no serde route gives, so their tree is built from
//! parser events.
//!
//! **Invariant:** text, nesting and the number of nodes are bounded before anything is built, aliases included.

use std::collections::HashMap;
use std::path::Path;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};
use serde::de::DeserializeOwned;

use crate::finding::{Finding, Position};

/// Largest file that is read.
pub const MAX_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 50_000;

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Yaml,
}

/// The value of a [`Node`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Yaml {
    Null,
    /// `plain` scalars may be a number or boolean; quoted ones are text.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Pair>),
}

/// A key with its place, and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Node,
}

/// Broken YAML.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
}

impl Yaml {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Yaml::Null => "nothing",
            Yaml::Scalar { .. } => "a single value",
            Yaml::List(_) => "a list",
            Yaml::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// As JSON: plain scalars by YAML's core schema, quoted ones as text.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Yaml::Null => serde_json::Value::Null,
            Yaml::Scalar { text, plain: false } => text.as_str().into(),
            Yaml::Scalar { text, plain: true } => plain_scalar(text),
            Yaml::List(items) => items.iter().map(Node::to_json).collect(),
            Yaml::Map(pairs) => pairs
                .iter()
                .map(|pair| (pair.key.clone(), pair.value.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

fn plain_scalar(text: &str) -> serde_json::Value {
    match text {
        "true" | "True" | "TRUE" => return true.into(),
        "false" | "False" | "FALSE" => return false.into(),
        _ => {}
    }
    if let Ok(integer) = text.parse::<i64>() {
        return integer.into();
    }
    // `inf` and `nan` are words to YAML, and JSON has no such numbers.
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    match text.parse::<f64>() {
        Ok(number) if numeric && number.is_finite() => number.into(),
        _ => text.into(),
    }
}

/// Parses one document.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    builder.document()
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Position), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, start(span))),
            Some(Err(error)) => Err(SyntaxError {
                at: position(error.marker()),
                message: format!("broken yaml: {}", error.info()),
            }),
            None => Ok((Event::StreamEnd, Position { line: 1, column: 1 })),
        }
    }

    fn document(&mut self) -> Result<Node, SyntaxError> {
        let empty = |at| Node { at, value: Yaml::Null };
        let root = loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (Event::StreamEnd | Event::DocumentEnd, at) => return Ok(empty(at)),
                (event, at) => break self.node(event, at, 0)?,
            }
        };
        loop {
            match self.next()? {
                (Event::DocumentEnd | Event::Nothing, _) => {}
                (Event::StreamEnd, _) => return Ok(root),
                (_, at) => {
                    return Err(error(
                        at,
                        "a file holds one document; put the second one into a file of its own",
                    ));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'a>, at: Position, depth: usize) -> Result<Node, SyntaxError> {
        self.count(1, at)?;
        if depth > MAX_DEPTH {
            return Err(error(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let null = plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let scalar = || Yaml::Scalar { text: text.into_owned(), plain };
                (if null { Yaml::Null } else { scalar() }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                (self.map(depth)?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, at),
            _ => return Err(error(at, "broken yaml: a value is missing here")),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Yaml, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Yaml::List(items)),
                (event, at) => items.push(self.node(event, at, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Yaml, SyntaxError> {
        let mut pairs: Vec<Pair> = Vec::new();
        loop {
            let (key, at) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Yaml::Map(pairs)),
                (Event::Scalar(text, _, _, _), at) => (text.into_owned(), at),
                (_, at) => return Err(error(at, "a key must be a single word")),
            };
            if let Some(first) = pairs.iter().find(|pair| pair.key == key) {
                return Err(error(
                    at,
                    format!("the key `{key}` is given twice, first in line {}", first.at.line),
                ));
            }
            let (event, value_at) = self.next()?;
            let value = self.node(event, value_at, depth + 1)?;
            pairs.push(Pair { key, at, value });
        }
    }

    /// An alias stands for a copy with the place of the alias, so that findings point at where it is used.
    fn alias(&mut self, anchor: usize, at: Position) -> Result<Node, SyntaxError> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(error(at, "this alias names no anchor"));
        };
        self.count(size(&node), at)?;
        Ok(Node { at, ..node })
    }

    fn count(&mut self, nodes: usize, at: Position) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(error(at, format!("more than {MAX_NODES} values")));
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Yaml::Null | Yaml::Scalar { .. } => 1,
        Yaml::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Yaml::Map(pairs) => 1 + pairs.iter().map(|pair| size(&pair.value)).sum::<usize>(),
    }
}

fn refuse_tag(tag: Option<&saphyr_parser::Tag>, at: Position) -> Result<(), SyntaxError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => {
            Err(error(at, format!("the tag `{tag}` is not supported")))
        }
        Some(_) | None => Ok(()),
    }
}

fn start(span: Span) -> Position {
    position(&span.start)
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

fn error(at: Position, message: impl Into<String>) -> SyntaxError {
    SyntaxError { at, message: message.into() }
}

/// Reads a file of at most [`MAX_BYTES`] as text.
pub fn read(path: &Path) -> Result<String, Finding> {
    let fail = |message: String| Finding::of_file(path, message);
    let length = std::fs::metadata(path).map_err(|e| fail(format!("cannot read this file: {e}")))?.len();
    if length > MAX_BYTES {
        return Err(fail(format!(
            "{length} bytes are more than the {MAX_BYTES} that a configuration file may have"
        )));
    }
    let bytes = std::fs::read(path).map_err(|e| fail(format!("cannot read this file: {e}")))?;
    String::from_utf8(bytes).map_err(|_| fail("this is not utf-8 text".into()))
}

/// Reads a file whose shape is a serde type, such as the broker's. An empty file is the default.
pub fn settings<T: DeserializeOwned + Default>(path: &Path) -> Result<T, Finding> {
    let text = read(path)?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(T::default());
    }
    let deserializer = serde_yaml::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let at = error.inner().location();
        let at = at.map(|at| Position { line: at.line(), column: at.column() });
        Finding { file: path.to_owned(), at, message: without_location(&error.inner().to_string()) }
    })
}

/// The parser repeats the place at the end of its text; ours stands in front.
fn without_location(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
