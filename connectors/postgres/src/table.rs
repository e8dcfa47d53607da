//! One version of a table: its schemas, made once, and its rows as records in Debezium's envelope.
//!
//! **Invariant:** per record no schema is built and no name is copied: everything constant is shared by the table.

use std::sync::Arc;

use aqueduct_core::{
    Datum, Error, Field, Headers, Record, Result, Schema, SchemaRef, Str, Topic, Type, Value,
};
use bytes::Bytes;

use crate::column::{Column, ColumnType};
use crate::kind::TypeModes;
use crate::name::{self, Adjustment};
use crate::pgoutput::{Cell, Tuple};

/// What is the same for every table of a connector.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) prefix: Str,
    pub(crate) database: Str,
    pub(crate) modes: TypeModes,
    pub(crate) tombstones: bool,
    pub(crate) schema_names: Adjustment,
    pub(crate) field_names: Adjustment,
}

#[cfg(test)]
impl Origin {
    /// The defaults, with the prefix `p` and the database `d`.
    pub(crate) fn plain() -> Self {
        Self {
            prefix: "p".into(),
            database: "d".into(),
            modes: TypeModes::plain(),
            tombstones: true,
            schema_names: Adjustment::None,
            field_names: Adjustment::None,
        }
    }
}

/// A table as the catalog describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableShape {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<ColumnType>,
    /// Names of the key's columns, in the key's order.
    pub(crate) key: Vec<String>,
    /// Whether its changes become records.
    pub(crate) included: bool,
}

/// One version of a table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) included: bool,
    qualified: String,
    topic: Topic,
    columns: Vec<Column>,
    key: Vec<usize>,
    key_schema: Option<SchemaRef>,
    envelope: SchemaRef,
    origin: Arc<Origin>,
    schema_name: Value,
    table_name: Value,
}

/// What an event is, and when and where it happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// `source.snapshot`, and whether it is a row of one.
    pub(crate) snapshot: bool,
    pub(crate) lsn: u64,
    /// End of the transaction before, for `source.sequence`.
    pub(crate) last_commit: u64,
    pub(crate) xid: Option<u32>,
    /// Microseconds since 1970 of the commit, or of the snapshot.
    pub(crate) micros: i64,
    /// Microseconds since 1970 now.
    pub(crate) now: i64,
}

/// A decoded row, in the order of the table's columns.
pub(crate) type RowValues = Vec<Value>;

impl Table {
    pub(crate) fn new(shape: &TableShape, origin: &Arc<Origin>) -> Self {
        let topic = name::topic(&format!("{}.{}.{}", origin.prefix, shape.schema, shape.name));
        let columns: Vec<Column> = shape
            .columns
            .iter()
            .map(|column| Column::new(column, &origin.field_names.field(&column.name), &origin.modes))
            .collect();
        let position = |name: &String| shape.columns.iter().position(|c| c.name == *name);
        // A key that is not published as a whole is none.
        let key: Vec<usize> = shape.key.iter().map(position).collect::<Option<_>>().unwrap_or_default();
        let field = |c: &Column| Field::new(Arc::clone(c.name()), SchemaRef::clone(c.schema()));
        let schema_name = |end: &str| origin.schema_names.schema(&format!("{topic}.{end}"));
        let fields = columns.iter().map(field).collect();
        let row = Schema::structure(schema_name("Value"), fields).optional().shared();
        let key_schema = (!key.is_empty()).then(|| {
            let fields = key.iter().map(|i| field(&columns[*i]));
            Schema::structure(schema_name("Key"), fields.collect()).shared()
        });
        Self {
            included: shape.included,
            qualified: format!("{}.{}", shape.schema, shape.name),
            envelope: envelope_schema(&schema_name("Envelope"), row),
            topic: topic.into(),
            columns,
            key,
            key_schema,
            origin: Arc::clone(origin),
            schema_name: shape.schema.as_str().into(),
            table_name: shape.name.as_str().into(),
        }
    }

    /// `schema.table`.
    pub(crate) fn qualified(&self) -> &str {
        &self.qualified
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Decodes a row of the stream, `whole` or only its key. What it does not carry is taken from `old`, else it is the
    /// placeholder.
    pub(crate) fn row(
        &self,
        tuple: Tuple<'_>,
        whole: bool,
        old: Option<&RowValues>,
        chunk: &Bytes,
    ) -> Result<RowValues> {
        if tuple.len() != self.columns.len() {
            return Err(self.wrong_width(tuple.len()));
        }
        let mut row = Vec::with_capacity(self.columns.len());
        for (i, (cell, column)) in tuple.cells().zip(&self.columns).enumerate() {
            row.push(match cell? {
                Cell::Null if whole => column.null(&self.qualified),
                Cell::Null => column.absent().clone(),
                Cell::Text(text) => column.value(text, chunk),
                Cell::Unchanged => match old {
                    Some(old) => old[i].clone(),
                    None => column.placeholder().clone(),
                },
            });
        }
        Ok(row)
    }

    pub(crate) fn wrong_width(&self, found: usize) -> Error {
        let want = self.columns.len();
        Error::fatal(format!("table `{}` has {want} columns, and a row came with {found}", self.qualified))
    }

    /// Whether a row with only the replica identity (`old`) or a whole one has another key than `new`.
    pub(crate) fn key_changed(&self, old: &RowValues, new: &RowValues) -> bool {
        self.key.iter().any(|i| old[*i] != new[*i])
    }

    pub(crate) fn created(&self, new: RowValues, event: &Event) -> Record {
        let key = self.key(&new);
        let op = if event.snapshot { READ } else { CREATE };
        self.record(key, Value::Null, Value::Struct(new), op, event)
    }

    /// An update; a changed key is a delete, its tombstone and an insert, as compacted topics need it.
    pub(crate) fn updated(
        &self,
        old: Option<(RowValues, bool)>,
        new: RowValues,
        event: &Event,
        out: &mut Vec<Record>,
    ) {
        let Some((old, whole)) = old else {
            out.push(self.record(self.key(&new), Value::Null, Value::Struct(new), UPDATE, event));
            return;
        };
        if !self.key.is_empty() && self.key_changed(&old, &new) {
            let (old_key, new_key) = (self.key(&old), self.key(&new));
            let from = out.len();
            self.deleted(old, event, out);
            for record in &mut out[from..] {
                record.headers.push("__debezium.newkey", new_key.clone());
            }
            let mut created = self.record(self.key(&new), Value::Null, Value::Struct(new), CREATE, event);
            created.headers.push("__debezium.oldkey", old_key);
            out.push(created);
            return;
        }
        let key = self.key(&new);
        let before = if whole { Value::Struct(old) } else { Value::Null };
        out.push(self.record(key, before, Value::Struct(new), UPDATE, event));
    }

    pub(crate) fn deleted(&self, old: RowValues, event: &Event, out: &mut Vec<Record>) {
        let key = self.key(&old);
        let tombstone = self.origin.tombstones && !key.is_null();
        let tombstone = tombstone.then(|| self.bare(key.clone(), Datum::null()));
        out.push(self.record(key, Value::Struct(old), Value::Null, DELETE, event));
        out.extend(tombstone);
    }

    /// Writes another word into `source.snapshot` of a row that [`Table::created`] made.
    pub(crate) fn mark(record: &mut Record, word: &'static str) {
        if let Ok(Value::Struct(envelope)) = record.value.value_mut()
            && let Some(Value::Struct(source)) = envelope.get_mut(SOURCE)
            && let Some(snapshot) = source.get_mut(SNAPSHOT)
        {
            *snapshot = Value::String(Str::from_static(word));
        }
    }

    pub(crate) fn truncated(&self, event: &Event) -> Record {
        self.record(Datum::null(), Value::Null, Value::Null, TRUNCATE, event)
    }

    fn key(&self, row: &RowValues) -> Datum {
        match &self.key_schema {
            Some(schema) => {
                let fields = self.key.iter().map(|i| row[*i].clone()).collect();
                Datum::new(SchemaRef::clone(schema), Value::Struct(fields))
            }
            None => Datum::null(),
        }
    }

    fn record(&self, key: Datum, before: Value, after: Value, op: Str, event: &Event) -> Record {
        let value = Value::Struct(vec![
            before,
            after,
            self.source(event),
            Value::Null,
            Value::String(op),
            Value::Int64(event.now / 1000),
            Value::Int64(event.now),
            Value::Int64(event.now.saturating_mul(1000)),
        ]);
        self.bare(key, Datum::new(SchemaRef::clone(&self.envelope), value))
    }

    fn bare(&self, key: Datum, value: Datum) -> Record {
        Record {
            topic: Arc::clone(&self.topic),
            partition: None,
            key,
            value,
            headers: Headers::new(),
            timestamp: None,
        }
    }

    fn source(&self, event: &Event) -> Value {
        let sequence = if event.snapshot {
            format!("[null,\"{}\"]", event.lsn)
        } else {
            format!("[\"{}\",\"{}\"]", event.last_commit, event.lsn)
        };
        Value::Struct(vec![
            Value::String(VERSION),
            Value::String(CONNECTOR),
            Value::String(self.origin.prefix.clone()),
            Value::Int64(event.micros / 1000),
            Value::String(if event.snapshot { TRUE } else { FALSE }),
            Value::String(self.origin.database.clone()),
            Value::String(sequence.into()),
            Value::Int64(event.micros),
            Value::Int64(event.micros.saturating_mul(1000)),
            self.schema_name.clone(),
            self.table_name.clone(),
            event.xid.map_or(Value::Null, |xid| Value::Int64(xid.into())),
            Value::Int64(event.lsn as i64),
            Value::Null,
            Value::Null,
            Value::Null,
        ])
    }
}

/// Where `source` stands in the envelope, and `snapshot` in it.
const SOURCE: usize = 2;
const SNAPSHOT: usize = 4;

const VERSION: Str = Str::from_static(env!("CARGO_PKG_VERSION"));
const CONNECTOR: Str = Str::from_static("postgresql");
const TRUE: Str = Str::from_static("true");
const FALSE: Str = Str::from_static("false");
const READ: Str = Str::from_static("r");
const CREATE: Str = Str::from_static("c");
const UPDATE: Str = Str::from_static("u");
const DELETE: Str = Str::from_static("d");
const TRUNCATE: Str = Str::from_static("t");

fn envelope_schema(name: &str, row: SchemaRef) -> SchemaRef {
    let long = || Schema::new(Type::Int64).optional().shared();
    let text = || Schema::new(Type::String).shared();
    let transaction = Schema::structure(
        "event.block",
        vec![
            Field::new("id", text()),
            Field::new("total_order", Schema::new(Type::Int64).shared()),
            Field::new("data_collection_order", Schema::new(Type::Int64).shared()),
        ],
    );
    let fields = vec![
        Field::new("before", SchemaRef::clone(&row)),
        Field::new("after", row),
        Field::new("source", source_schema()),
        Field::new("transaction", transaction.versioned(1).optional().shared()),
        Field::new("op", text()),
        Field::new("ts_ms", long()),
        Field::new("ts_us", long()),
        Field::new("ts_ns", long()),
    ];
    Schema::structure(name, fields).versioned(2).shared()
}

fn source_schema() -> SchemaRef {
    let long = || Schema::new(Type::Int64).shared();
    let optional_long = || Schema::new(Type::Int64).optional().shared();
    let text = || Schema::new(Type::String).shared();
    let snapshot = Schema::new(Type::String)
        .named("io.debezium.data.Enum")
        .versioned(1)
        .parameter(
            "allowed",
            "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental",
        )
        .default_value("false".into())
        .optional();
    let fields = vec![
        Field::new("version", text()),
        Field::new("connector", text()),
        Field::new("name", text()),
        Field::new("ts_ms", long()),
        Field::new("snapshot", snapshot.shared()),
        Field::new("db", text()),
        Field::new("sequence", Schema::new(Type::String).optional().shared()),
        Field::new("ts_us", optional_long()),
        Field::new("ts_ns", optional_long()),
        Field::new("schema", text()),
        Field::new("table", text()),
        Field::new("txId", optional_long()),
        Field::new("lsn", optional_long()),
        Field::new("xmin", optional_long()),
        Field::new("origin", Schema::new(Type::String).optional().shared()),
        Field::new("origin_lsn", optional_long()),
    ];
    Schema::structure("io.debezium.connector.postgresql.Source", fields).versioned(1).shared()
}
