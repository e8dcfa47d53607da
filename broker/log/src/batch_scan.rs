//! Walks the batches of a segment file from a position on, in large reads.
//!
//! Invariant: a batch is handed out only when all of its bytes were read; where that fails the scan says position
//! and reason and goes no further.

use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_wire::BatchHeader;
use aqueduct_wire::batch::{HEADER_LEN, LENGTH_PREFIX};

use crate::checked_file::be_u32;
use crate::disk::{DiskFile, read_full_at};
use crate::error::{LogError, Result};

const CHUNK: usize = 256 << 10;
/// The CRC covers the batch from its attributes on.
const CRC_FROM: usize = 21;

/// Whether the bytes of the whole batch match its CRC.
pub(crate) fn crc_holds(header: &BatchHeader, batch: &[u8]) -> bool {
    batch.len() == header.size() && crc32c::crc32c(&batch[CRC_FROM..]) == header.crc
}

/// The walk.
#[derive(Debug)]
pub(crate) struct BatchScan {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    position: u64,
    end: u64,
    buf: Vec<u8>,
    /// File position of `buf[0]`.
    buf_at: u64,
    check_crc: bool,
    chunk: usize,
}

/// One step of the walk.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Batch { header: BatchHeader, position: u64, bytes: &'a [u8] },
    End,
    Broken { position: u64, what: String },
}

impl BatchScan {
    /// Walks bytes `position..end` of a file; with `check_crc` a batch that does not match its CRC is broken.
    pub(crate) fn new(
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        position: u64,
        end: u64,
        check_crc: bool,
    ) -> Self {
        Self { file, path, position, end, buf: Vec::new(), buf_at: position, check_crc, chunk: CHUNK }
    }

    /// Reads in smaller steps, where only a few batches are looked at.
    pub(crate) fn with_chunk(mut self, chunk: usize) -> Self {
        self.chunk = chunk;
        self
    }

    /// The next batch. After `Broken` it says `Broken` again.
    pub(crate) fn step(&mut self) -> Result<Step<'_>> {
        let position = self.position;
        if position >= self.end {
            return Ok(Step::End);
        }
        if !self.fill(LENGTH_PREFIX)? {
            return Ok(Step::Broken { position, what: "the batch header is cut short".into() });
        }
        let at = self.at();
        let length = be_u32(&self.buf[at + 8..at + 12]).cast_signed();
        // The size is believed only as far as the file goes, before any memory is taken for it.
        let size = usize::try_from(length).unwrap_or(0).saturating_add(LENGTH_PREFIX);
        if size < HEADER_LEN {
            return Ok(Step::Broken { position, what: "the batch length is too small".into() });
        }
        if size as u64 > self.end - position || !self.fill(size)? {
            return Ok(Step::Broken { position, what: "the batch goes beyond the end of the file".into() });
        }
        let at = self.at();
        let bytes = &self.buf[at..at + size];
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(e) => return Ok(Step::Broken { position, what: e.to_string() }),
        };
        if header.base_offset < 0 || header.next_offset() == i64::MAX {
            return Ok(Step::Broken { position, what: "the batch's offsets are out of range".into() });
        }
        if self.check_crc && !crc_holds(&header, bytes) {
            return Ok(Step::Broken { position, what: "the batch does not match its CRC".into() });
        }
        self.position += size as u64;
        Ok(Step::Batch { header, position, bytes })
    }

    fn at(&self) -> usize {
        usize::try_from(self.position - self.buf_at).expect("the position lies in the buffer")
    }

    /// Makes `need` bytes from the position on available, unless the file ends before.
    fn fill(&mut self, need: usize) -> Result<bool> {
        if self.buf.len() - self.at() >= need {
            return Ok(true);
        }
        let at = self.at();
        self.buf.drain(..at);
        self.buf_at = self.position;
        let have = self.buf.len();
        let room = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let want = need.max(self.chunk).min(room);
        if want < need {
            return Ok(false);
        }
        self.buf.resize(want, 0);
        let n = read_full_at(&*self.file, &mut self.buf[have..], self.buf_at + have as u64)
            .map_err(|e| LogError::io("read", &self.path, e))?;
        self.buf.truncate(have + n);
        Ok(self.buf.len() >= need)
    }
}
