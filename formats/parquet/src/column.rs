//! What is gathered of one column: values end to end, and Dremel's levels that say where nulls and lists are.

use aqueduct_core::Value;
use bytes::Bytes;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::{ParquetError, Result};

use crate::decimal::{Decimal, Stored};

/// What the values of a column are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    Float,
    Double,
    Text,
    Bytes,
    Decimal(Decimal),
}

#[derive(Clone, Debug)]
enum Values {
    Boolean(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    /// Bytes of all values, and where each ends.
    Bytes(Vec<u8>, Vec<usize>),
    /// Bytes of all values, each of this width.
    Fixed(Vec<u8>, usize),
}

/// Values of one column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    values: Values,
    /// Definition levels; empty where nothing can be null.
    defs: Vec<i16>,
    /// Repetition levels; empty where nothing repeats.
    reps: Vec<i16>,
    max_def: i16,
    max_rep: i16,
    /// Records begun.
    rows: usize,
}

impl Column {
    pub(crate) fn new(kind: &Kind, max_def: i16, max_rep: i16) -> Self {
        let values = match kind {
            Kind::Boolean => Values::Boolean(Vec::new()),
            Kind::Int8 | Kind::Int16 | Kind::Int32 => Values::Int32(Vec::new()),
            Kind::Int64 => Values::Int64(Vec::new()),
            Kind::Float => Values::Float(Vec::new()),
            Kind::Double => Values::Double(Vec::new()),
            Kind::Text | Kind::Bytes => Values::Bytes(Vec::new(), Vec::new()),
            Kind::Decimal(decimal) => match decimal.width() {
                None => Values::Int64(Vec::new()),
                Some(width) => Values::Fixed(Vec::new(), width),
            },
        };
        Self { values, defs: Vec::new(), reps: Vec::new(), max_def, max_rep, rows: 0 }
    }

    /// Appends a value; answers with its bytes. On an error nothing is appended.
    pub(crate) fn push(&mut self, kind: &Kind, value: &Value, rep: i16) -> Result<usize, String> {
        let size = match (&mut self.values, value, kind) {
            (Values::Boolean(out), Value::Bool(v), Kind::Boolean) => put(out, *v),
            (Values::Int32(out), Value::Int8(v), Kind::Int8) => put(out, i32::from(*v)),
            (Values::Int32(out), Value::Int16(v), Kind::Int16) => put(out, i32::from(*v)),
            (Values::Int32(out), Value::Int32(v), Kind::Int32) => put(out, *v),
            (Values::Int64(out), Value::Int64(v), Kind::Int64) => put(out, *v),
            (Values::Float(out), Value::Float32(v), Kind::Float) => put(out, *v),
            (Values::Double(out), Value::Float64(v), Kind::Double) => put(out, *v),
            (Values::Bytes(out, ends), Value::String(v), Kind::Text) => put_bytes(out, ends, v.as_bytes()),
            (Values::Bytes(out, ends), Value::Bytes(v), Kind::Bytes) => put_bytes(out, ends, v),
            (Values::Int64(out), Value::Bytes(v), Kind::Decimal(decimal)) => match decimal.store(v)? {
                Stored::Int64(number) => put(out, number),
                Stored::Wide(_) => return Err("a decimal is wider than its column".to_owned()),
            },
            (Values::Fixed(out, width), Value::Bytes(v), Kind::Decimal(decimal)) => match decimal.store(v)? {
                Stored::Wide(wide) => {
                    out.extend_from_slice(&wide[wide.len() - *width..]);
                    *width
                }
                Stored::Int64(_) => return Err("a decimal is narrower than its column".to_owned()),
            },
            (_, value, kind) => {
                return Err(format!("a value of type {} in a column of {kind:?}", value.kind()));
            }
        };
        self.level(rep, self.max_def);
        Ok(size)
    }

    /// Appends text that is always there, without a value around it.
    pub(crate) fn push_text(&mut self, text: &str) -> usize {
        let Values::Bytes(out, ends) = &mut self.values else { return 0 };
        let size = put_bytes(out, ends, text.as_bytes());
        self.level(0, self.max_def);
        size
    }

    /// Appends null, or an empty list, by its levels.
    pub(crate) fn null(&mut self, rep: i16, def: i16) {
        self.level(rep, def);
    }

    fn level(&mut self, rep: i16, def: i16) {
        if self.max_def > 0 {
            self.defs.push(def);
        }
        if self.max_rep > 0 {
            self.reps.push(rep);
        }
        self.rows += usize::from(rep == 0);
    }

    /// Forgets what was appended behind so many records; at most one is.
    pub(crate) fn truncate(&mut self, rows: usize) {
        while self.rows > rows {
            let rep = self.reps.pop().unwrap_or(0);
            if self.defs.pop().unwrap_or(0) == self.max_def {
                self.values.pop();
            }
            self.rows -= usize::from(rep == 0);
        }
    }

    /// Memory held.
    pub(crate) fn held(&self) -> usize {
        self.values.held() + 2 * (self.defs.capacity() + self.reps.capacity())
    }

    /// Writes it all.
    pub(crate) fn write(self, writer: &mut ColumnWriter<'_>) -> Result<()> {
        let defs = (self.max_def > 0).then_some(self.defs.as_slice());
        let reps = (self.max_rep > 0).then_some(self.reps.as_slice());
        match (self.values, writer) {
            (Values::Boolean(v), ColumnWriter::BoolColumnWriter(w)) => w.write_batch(&v, defs, reps),
            (Values::Int32(v), ColumnWriter::Int32ColumnWriter(w)) => w.write_batch(&v, defs, reps),
            (Values::Int64(v), ColumnWriter::Int64ColumnWriter(w)) => w.write_batch(&v, defs, reps),
            (Values::Float(v), ColumnWriter::FloatColumnWriter(w)) => w.write_batch(&v, defs, reps),
            (Values::Double(v), ColumnWriter::DoubleColumnWriter(w)) => w.write_batch(&v, defs, reps),
            (Values::Bytes(v, ends), ColumnWriter::ByteArrayColumnWriter(w)) => {
                let all = Bytes::from(v);
                let mut start = 0;
                let slice = |end: usize| all.slice(std::mem::replace(&mut start, end)..end);
                let values: Vec<ByteArray> = ends.into_iter().map(slice).map(ByteArray::from).collect();
                w.write_batch(&values, defs, reps)
            }
            (Values::Fixed(v, width), ColumnWriter::FixedLenByteArrayColumnWriter(w)) => {
                let all = Bytes::from(v);
                let slice = |at: usize| ByteArray::from(all.slice(at..at + width)).into();
                let values: Vec<FixedLenByteArray> = (0..all.len()).step_by(width).map(slice).collect();
                w.write_batch(&values, defs, reps)
            }
            _ => Err(ParquetError::General("a column is written as another type than it has".to_owned())),
        }
        .map(drop)
    }
}

fn put<T>(out: &mut Vec<T>, value: T) -> usize {
    out.push(value);
    size_of::<T>()
}

fn put_bytes(out: &mut Vec<u8>, ends: &mut Vec<usize>, value: &[u8]) -> usize {
    out.extend_from_slice(value);
    ends.push(out.len());
    value.len() + 4
}

impl Values {
    fn pop(&mut self) {
        match self {
            Values::Boolean(v) => drop(v.pop()),
            Values::Int32(v) => drop(v.pop()),
            Values::Int64(v) => drop(v.pop()),
            Values::Float(v) => drop(v.pop()),
            Values::Double(v) => drop(v.pop()),
            Values::Bytes(v, ends) => {
                ends.pop();
                v.truncate(ends.last().copied().unwrap_or(0));
            }
            Values::Fixed(v, width) => v.truncate(v.len().saturating_sub(*width)),
        }
    }

    fn held(&self) -> usize {
        fn of<T>(values: &Vec<T>) -> usize {
            values.capacity() * size_of::<T>()
        }
        match self {
            Values::Boolean(v) => of(v),
            Values::Int32(v) => of(v),
            Values::Int64(v) => of(v),
            Values::Float(v) => of(v),
            Values::Double(v) => of(v),
            Values::Bytes(v, ends) => of(v) + of(ends),
            Values::Fixed(v, _) => of(v),
        }
    }
}
