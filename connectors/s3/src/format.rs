//! How records become the bytes of objects: they are gathered, and from time to time a piece of what was gathered is
//! encoded.
//!
//! Compressed lines are frames (zstd) or members (gzip) of about 1 MiB end to end, which every reader takes as one
//! stream, so that a thousand open objects hold no state of a compressor.
//!
//! **Invariant:** the same pieces make the same bytes.

use std::io::Write as _;
use std::sync::Arc;

use aqueduct_core::lines::{LineFormat, Lines};
use aqueduct_core::rolling::{Buffer, Gather, Group};
use aqueduct_core::sink::SinkRecord;
use aqueduct_core::{Datum, Error, Result, Schema, SchemaRef};
use aqueduct_format_parquet::{Compression, FileWriter, Layout, Rows};

use crate::config::MIN_PART;

/// Lines compressed at once.
const FRAME: usize = 1 << 20;

/// A row group that is worth its own metadata; at the memory ceiling smaller ones are not made.
const MIN_ROW_GROUP: usize = 512 << 10;

/// Layouts remembered; a record of one that is forgotten begins a new object.
const LAYOUTS: usize = 64;

/// What objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON lines.
    Lines(Codec),
    /// Parquet, in row groups of so many bytes before encoding.
    Parquet(Compression, usize),
}

/// How lines are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Gzip,
    Zstd,
}

impl Format {
    /// The end of every object's name.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Format::Lines(Codec::None) => "jsonl",
            Format::Lines(Codec::Gzip) => "jsonl.gz",
            Format::Lines(Codec::Zstd) => "jsonl.zst",
            Format::Parquet(..) => "parquet",
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Lines(Codec::None) => "application/x-ndjson",
            Format::Lines(Codec::Gzip) => "application/gzip",
            Format::Lines(Codec::Zstd) => "application/zstd",
            Format::Parquet(..) => "application/vnd.apache.parquet",
        }
    }

    /// What is gathered is handed over at this size. `part` is the size of parts.
    pub(crate) fn piece(self, part: usize) -> usize {
        match self {
            Format::Lines(Codec::None) => part,
            Format::Lines(_) => FRAME,
            Format::Parquet(_, row_group) => row_group,
        }
    }

    /// The same at the memory ceiling; an object that has gathered less is completed instead.
    pub(crate) fn least_piece(self) -> usize {
        match self {
            Format::Lines(Codec::None) => MIN_PART,
            Format::Lines(_) => FRAME,
            Format::Parquet(_, row_group) => row_group.min(MIN_ROW_GROUP),
        }
    }
}

/// Gathers records. `schema` is that of records without one.
#[derive(Debug)]
pub(crate) enum Gathering {
    Lines(Lines),
    Rows(Box<Typed>),
}

impl Gathering {
    pub(crate) fn new(format: Format, lines: LineFormat, schema: Option<SchemaRef>) -> Self {
        match format {
            Format::Lines(_) => Gathering::Lines(Lines::new(lines)),
            Format::Parquet(..) => {
                Gathering::Rows(Box::new(Typed { lines, schema, layouts: Vec::new(), next: 0 }))
            }
        }
    }
}

impl Gather for Gathering {
    type Buffer = Piece;

    fn stage(&mut self, record: &mut SinkRecord) -> Result<Option<Group>> {
        match self {
            Gathering::Lines(lines) => lines.stage(record),
            Gathering::Rows(typed) => typed.stage(record),
        }
    }

    fn append(&mut self, piece: &mut Piece, group: Group, record: &SinkRecord) -> Result<usize> {
        match (self, piece) {
            (Gathering::Lines(lines), Piece::Lines(out)) => lines.append(out, group, record),
            (Gathering::Rows(typed), piece) => typed.append(piece, record),
            (Gathering::Lines(_), Piece::Rows(_)) => Err(Error::fatal("lines are gathered among rows")),
        }
    }
}

/// What is gathered of an object and not encoded yet.
#[derive(Debug)]
pub(crate) enum Piece {
    Lines(Vec<u8>),
    Rows(Box<Rows>),
}

impl Default for Piece {
    fn default() -> Self {
        Piece::Lines(Vec::new())
    }
}

impl Buffer for Piece {
    fn held(&self) -> usize {
        match self {
            Piece::Lines(bytes) => bytes.capacity(),
            Piece::Rows(rows) => rows.held(),
        }
    }

    fn filled(&self) -> usize {
        match self {
            Piece::Lines(bytes) => bytes.len(),
            Piece::Rows(rows) => rows.bytes(),
        }
    }
}

/// Gathers records by their schemas, each of which is a group.
#[derive(Debug)]
pub(crate) struct Typed {
    lines: LineFormat,
    schema: Option<SchemaRef>,
    /// The one used last is last.
    layouts: Vec<(SchemaRef, Group, Arc<Layout>)>,
    next: Group,
}

impl Typed {
    fn stage(&mut self, record: &mut SinkRecord) -> Result<Option<Group>> {
        let datum = &mut record.record.value;
        if datum.is_null() {
            // The config does not let nulls be written here.
            return self.lines.takes_null().map(|_| None);
        }
        let schema = match (datum.schema(), &self.schema) {
            (Some(schema), _) => Arc::clone(schema),
            (None, Some(schema)) => {
                *datum = Datum::json(Some(Arc::clone(schema)), datum.to_json()?);
                Arc::clone(schema)
            }
            (None, None) => {
                return Err(Error::bad_record(
                    "the record has no schema, which Parquet needs: name its fields in `schema` \
                     (`schema: [id:int64, name:string?]`), or use `format: json`",
                ));
            }
        };
        datum.value()?;
        self.select(schema).map(Some)
    }

    /// Makes the layout of the schema the last one; answers with its group.
    fn select(&mut self, schema: SchemaRef) -> Result<Group> {
        if let Some((known, group, _)) = self.layouts.last()
            && Schema::same(known, &schema)
        {
            return Ok(*group);
        }
        let found = match self.layouts.iter().position(|(known, ..)| Schema::same(known, &schema)) {
            Some(place) => self.layouts.remove(place),
            None => {
                let layout = Layout::new(&schema, self.lines.origin)?;
                if self.layouts.len() >= LAYOUTS {
                    self.layouts.remove(0);
                }
                self.next += 1;
                (schema, self.next, Arc::new(layout))
            }
        };
        let group = found.1;
        self.layouts.push(found);
        Ok(group)
    }

    fn append(&self, piece: &mut Piece, record: &SinkRecord) -> Result<usize> {
        let (Some((_, _, layout)), Some(value)) = (self.layouts.last(), record.record.value.decoded()) else {
            return Err(Error::fatal("a record is added that was not staged"));
        };
        if let Piece::Lines(_) = piece {
            *piece = Piece::Rows(Box::new(Rows::new(Arc::clone(layout))));
        }
        match piece {
            Piece::Rows(rows) => rows.append(value, record),
            Piece::Lines(_) => Err(Error::fatal("rows are gathered among lines")),
        }
    }
}

/// Makes the bytes of one object of its pieces.
#[derive(Debug)]
pub(crate) enum Encoder {
    Lines(Codec),
    Parquet(Compression, Option<Box<FileWriter>>),
}

impl Encoder {
    pub(crate) fn new(format: Format) -> Self {
        match format {
            Format::Lines(codec) => Encoder::Lines(codec),
            Format::Parquet(compression, _) => Encoder::Parquet(compression, None),
        }
    }

    /// The bytes of a piece that need no encoding.
    pub(crate) fn plain(&self, piece: Piece) -> Result<Vec<u8>, Piece> {
        match (self, piece) {
            (Encoder::Lines(Codec::None), Piece::Lines(bytes)) => Ok(bytes),
            (_, piece) => Err(piece),
        }
    }

    /// Encodes the next piece. An error is fatal: the object has to be made anew.
    pub(crate) fn encode(&mut self, piece: Piece) -> Result<Vec<u8>> {
        match (self, piece) {
            (Encoder::Lines(codec), Piece::Lines(lines)) => compress(*codec, lines)
                .map_err(|error| Error::fatal("cannot compress lines").with_source(error)),
            (Encoder::Parquet(compression, writer), Piece::Rows(rows)) => {
                let writer = match writer {
                    Some(writer) => writer,
                    None => writer.insert(Box::new(FileWriter::new(rows.layout(), *compression)?)),
                };
                writer.write(*rows)?;
                writer.take()
            }
            _ => Err(Error::fatal("an object is made of two formats")),
        }
    }

    /// What stands behind the last piece.
    pub(crate) fn finish(&mut self) -> Result<Vec<u8>> {
        match self {
            Encoder::Parquet(_, writer) => writer.take().map_or(Ok(Vec::new()), |writer| writer.finish()),
            Encoder::Lines(_) => Ok(Vec::new()),
        }
    }
}

fn compress(codec: Codec, lines: Vec<u8>) -> std::io::Result<Vec<u8>> {
    match codec {
        Codec::None => Ok(lines),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&lines)?;
            encoder.finish()
        }
        Codec::Zstd => zstd::stream::encode_all(&lines[..], zstd::DEFAULT_COMPRESSION_LEVEL),
    }
}
