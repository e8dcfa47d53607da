//! Values gathered for one row group.
//!
//! **Invariant:** a record is in all columns or in none.

use std::sync::Arc;

use aqueduct_core::sink::SinkRecord;
use aqueduct_core::{Error, Result, Value};

use crate::column::{Column, Kind};
use crate::layout::{Layout, Node, ORIGIN, Shape, Wrong};

const NULL: &Value = &Value::Null;

/// Records as columns.
#[derive(Debug)]
pub struct Rows {
    layout: Arc<Layout>,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    held: usize,
}

impl Rows {
    /// None yet.
    pub fn new(layout: Arc<Layout>) -> Self {
        let columns = layout.columns();
        let mut rows = Self { layout, columns, rows: 0, bytes: 0, held: 0 };
        rows.held = rows.count_held();
        rows
    }

    /// Their layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Records in it.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of the values, before any encoding.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory held, in bytes.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Appends `value`, the record's own, whose schema is the layout's; answers with its bytes. On an error, a bad
    /// record that names the field, nothing is appended.
    pub fn append(&mut self, value: &Value, record: &SinkRecord) -> Result<usize> {
        let layout = Arc::clone(&self.layout);
        match self.record(&layout, value, record) {
            Ok(bytes) => {
                self.rows += 1;
                self.bytes += bytes;
                self.held = self.count_held();
                Ok(bytes)
            }
            Err(wrong) => {
                let rows = self.rows;
                self.columns.iter_mut().for_each(|column| column.truncate(rows));
                Err(Error::bad_record(format!("the value does not fit its schema: {wrong}")))
            }
        }
    }

    fn count_held(&self) -> usize {
        self.columns.iter().map(|column| size_of::<Column>() + column.held()).sum()
    }

    fn record(&mut self, layout: &Layout, value: &Value, record: &SinkRecord) -> Result<usize, Wrong> {
        let mut bytes = match (&layout.shape, value) {
            (Shape::Struct(fields), Value::Struct(values)) => self.fields(fields, values, 0)?,
            (Shape::Bare(node), value) => self.value(node, value, 0)?,
            (_, value) => return Err(Wrong::new(format!("a {} where a struct should be", value.kind()))),
        };
        if layout.origin {
            let first = self.columns.len() - ORIGIN.len();
            let [topic, partition, offset] = &mut self.columns[first..] else {
                return Err(Wrong::new("the columns of the origin are missing"));
            };
            bytes += topic.push_text(&record.origin.topic);
            let partition = partition.push(&Kind::Int32, &Value::Int32(record.origin.partition), 0);
            let offset = offset.push(&Kind::Int64, &Value::Int64(record.offset), 0);
            bytes += partition.and_then(|a| offset.map(|b| a + b)).map_err(Wrong::new)?;
        }
        Ok(bytes)
    }

    fn fields(&mut self, fields: &[(usize, Node)], values: &[Value], rep: i16) -> Result<usize, Wrong> {
        let mut bytes = 0;
        for (place, node) in fields {
            bytes += self.value(node, values.get(*place).unwrap_or(NULL), rep)?;
        }
        Ok(bytes)
    }

    fn value(&mut self, node: &Node, value: &Value, rep: i16) -> Result<usize, Wrong> {
        self.shape(node, value, rep).map_err(|wrong| wrong.within(&node.name))
    }

    fn shape(&mut self, node: &Node, value: &Value, rep: i16) -> Result<usize, Wrong> {
        match (&node.shape, value) {
            (_, Value::Null) if node.optional => {
                self.null(node, rep, node.def - 1);
                Ok(1)
            }
            (_, Value::Null) => Err(Wrong::new("null, which the schema does not allow")),
            (Shape::Leaf(kind), value) => {
                self.columns[node.columns.start].push(kind, value, rep).map_err(Wrong::new)
            }
            (Shape::Struct(fields), Value::Struct(values)) => self.fields(fields, values, rep),
            (Shape::List(element, own), Value::Array(items)) => {
                let mut bytes = 1;
                for (i, item) in items.iter().enumerate() {
                    bytes += self.value(element, item, if i == 0 { rep } else { *own })?;
                }
                if items.is_empty() {
                    self.null(node, rep, node.def);
                }
                Ok(bytes)
            }
            (Shape::Map(entry, own), Value::Map(entries)) => {
                let mut bytes = 1;
                for (i, (key, value)) in entries.iter().enumerate() {
                    let rep = if i == 0 { rep } else { *own };
                    bytes += self.value(&entry[0], key, rep)? + self.value(&entry[1], value, rep)?;
                }
                if entries.is_empty() {
                    self.null(node, rep, node.def);
                }
                Ok(bytes)
            }
            (_, value) => {
                Err(Wrong::new(format!("a value of type {}, which its schema is not", value.kind())))
            }
        }
    }

    fn null(&mut self, node: &Node, rep: i16, def: i16) {
        self.columns[node.columns.clone()].iter_mut().for_each(|column| column.null(rep, def));
    }

    /// The columns, in order.
    pub(crate) fn into_columns(self) -> Vec<Column> {
        self.columns
    }
}
