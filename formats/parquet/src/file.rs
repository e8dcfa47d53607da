//! A file as it is written: row groups, then the footer.

use std::sync::Arc;

use aqueduct_core::{Error, Result};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;

use crate::layout::Layout;
use crate::rows::Rows;

/// Fixed, so that an upgrade does not change the bytes of what is written again after a crash.
const CREATED_BY: &str = "aqueduct";

/// How pages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy.
    Snappy,
    /// Zstandard, level 1.
    Zstd,
}

/// A file being written. Its bytes are taken as they come.
pub struct FileWriter {
    inner: SerializedFileWriter<Vec<u8>>,
}

impl FileWriter {
    /// Begins a file.
    pub fn new(layout: &Layout, compression: Compression) -> Result<Self> {
        let codec = match compression {
            Compression::None => Codec::UNCOMPRESSED,
            Compression::Snappy => Codec::SNAPPY,
            Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
        };
        let properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(codec)
            // Per row group, as readers prune by; those of pages cost more than they save in groups of a few MiB.
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let inner = SerializedFileWriter::new(Vec::new(), Arc::clone(&layout.root), Arc::new(properties));
        Ok(Self { inner: inner.map_err(failed)? })
    }

    /// Writes a row group, unless there are no rows. An error is fatal: the file cannot go on.
    pub fn write(&mut self, rows: Rows) -> Result<()> {
        if rows.is_empty() { Ok(()) } else { self.group(rows).map_err(failed) }
    }

    fn group(&mut self, rows: Rows) -> Result<(), ParquetError> {
        let mut group = self.inner.next_row_group()?;
        for column in rows.into_columns() {
            let missing = || ParquetError::General("a row group has fewer columns than its rows".to_owned());
            let mut writer = group.next_column()?.ok_or_else(missing)?;
            column.write(writer.untyped())?;
            writer.close()?;
        }
        group.close().map(drop)
    }

    /// Takes the bytes that were made so far.
    pub fn take(&mut self) -> Result<Vec<u8>> {
        self.inner.flush().map_err(|error| failed(error.into()))?;
        Ok(std::mem::take(self.inner.inner_mut()))
    }

    /// Writes the footer; the rest of the bytes.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.inner.into_inner().map_err(failed)
    }
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter").field("bytes", &self.inner.bytes_written()).finish_non_exhaustive()
    }
}

fn failed(error: ParquetError) -> Error {
    Error::fatal("cannot write Parquet").with_source(error)
}
