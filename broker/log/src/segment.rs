//! One segment of a log: a file of batches that begins at its base offset, and its indexes.
//!
//! Invariant: only the last segment of a log is written; the others change as a whole, by compaction, or go.

mod file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use file::{OpenFiles, SegmentFile};

use crate::batch_scan::{BatchScan, Step, crc_holds};
use crate::buffers::Buffers;
use crate::disk::{Disk, DiskFile, OpenMode, read_full_at};
use crate::error::{LogError, Result};
use crate::index::{IndexBuilder, SealedIndex};

use aqueduct_wire::BatchHeader;
use aqueduct_wire::batch::HEADER_LEN;

/// `<base offset, 20 digits>.log`
pub(crate) fn segment_path(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// The base offset in a file name such as `00000000000000000042.log`.
pub(crate) fn base_of(name: &str, extension: &str) -> Option<i64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A segment that is written no more. Cheap to clone, so that reads need no lock.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub base: i64,
    pub path: PathBuf,
    pub file: Arc<SegmentFile>,
    pub size: u64,
    pub index: SealedIndex,
    /// The largest timestamp and the last offset of its batch; `None` when the segment holds no batch.
    pub max_timestamp: Option<(i64, i64)>,
    /// `max_timestamp` comes from the batches, and not from an index file that nobody has checked.
    pub times_checked: bool,
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Active {
    pub base: i64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub size: u64,
    pub index: IndexBuilder,
    /// When its first batch was appended; `None` while it is empty.
    pub first_append: Option<i64>,
}

impl Active {
    /// Creates the file; it lasts after the directory was synced.
    pub(crate) fn create(disk: &dyn Disk, dir: &Path, base: i64) -> Result<Self> {
        let path = segment_path(dir, base);
        let file = disk.open(&path, OpenMode::Create).map_err(|e| LogError::io("create", &path, e))?;
        Ok(Self { base, path, file, size: 0, index: IndexBuilder::default(), first_append: None })
    }

    pub(crate) fn note(&mut self, header: &BatchHeader, now_ms: i64, interval: usize) {
        self.index.add(
            self.base,
            header.last_offset(),
            self.size,
            header.size(),
            header.max_timestamp,
            interval,
        );
        self.size += header.size() as u64;
        self.first_append.get_or_insert(now_ms);
    }

    pub(crate) fn max_timestamp(&self) -> Option<(i64, i64)> {
        self.index.max_timestamp()
    }

    /// Where to look for `offset`, as far as the index knows; see [`Extent::hint`].
    pub(crate) fn hint_for(&self, offset: i64) -> Option<(i64, u64)> {
        self.index.lookup(self.base, offset)
    }
}

impl Sealed {
    /// A finished segment of `size` bytes. Index files that are missing or cannot be right are built again from the batches.
    pub(crate) fn open(
        files: &Arc<OpenFiles>,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        (base, size): (i64, u64),
        interval: usize,
    ) -> Result<Self> {
        let path = segment_path(dir, base);
        let file = SegmentFile::closed(files, &path);
        let index = SealedIndex::open(disk, &path);
        let max_timestamp = index.as_ref().and_then(|i| i.max_timestamp(base).ok().flatten());
        let (memory, times_checked) = (SealedIndex::Memory(Default::default()), false);
        let mut segment = Self { base, path, file, size, index: memory, max_timestamp, times_checked };
        match index {
            Some(index) if size == 0 || max_timestamp.is_some() => segment.index = index,
            _ => segment.rebuild_index(interval)?,
        }
        Ok(segment)
    }

    /// The same with its file held open, so that it can be read whatever becomes of the segment meanwhile.
    pub(crate) fn pinned(&self) -> Result<Self> {
        let file = SegmentFile::pinned(&self.path, self.file.get()?);
        Ok(Self { file, ..self.clone() })
    }

    /// Builds the indexes again from the batches' headers.
    pub(crate) fn rebuild_index(&mut self, interval: usize) -> Result<()> {
        let mut index = IndexBuilder::default();
        let mut scan = self.scan(0, false)?;
        loop {
            match scan.step()? {
                Step::Batch { header: h, position, .. } => {
                    index.add(self.base, h.last_offset(), position, h.size(), h.max_timestamp, interval);
                }
                Step::End => break,
                Step::Broken { position, what } => return Err(LogError::corrupt(&self.path, position, what)),
            }
        }
        self.max_timestamp = index.max_timestamp();
        self.times_checked = true;
        self.index = SealedIndex::Memory(index.seal(self.base));
        Ok(())
    }

    /// The timestamp of the first batch.
    pub(crate) fn first_timestamp(&self) -> Result<Option<i64>> {
        match self.scan(0, false)?.with_chunk(SEEK_CHUNK).step()? {
            Step::Batch { header, .. } if header.has_delete_horizon() => Ok(Some(header.max_timestamp)),
            Step::Batch { header, .. } => Ok(Some(header.base_timestamp)),
            Step::End => Ok(None),
            Step::Broken { position, what } => Err(LogError::corrupt(&self.path, position, what)),
        }
    }

    pub(crate) fn scan(&self, position: u64, check_crc: bool) -> Result<BatchScan> {
        Ok(BatchScan::new(self.file.get()?, self.path.clone(), position, self.size, check_crc))
    }

    /// Where to look for `offset`: a position at or before its batch, where a batch does begin.
    pub(crate) fn position_for(&self, offset: i64) -> u64 {
        let hint = self.index.lookup(self.base, offset).ok().flatten();
        let holds =
            |hint: &(i64, u64)| self.file.get().is_ok_and(|file| hint_holds(&*file, &self.path, *hint));
        hint.filter(holds).map_or(0, |(_, position)| position)
    }

    /// From which offset on a record with at least this timestamp is to be looked for.
    pub(crate) fn offset_since(&self, timestamp: i64) -> i64 {
        let entry = self.index.lookup_time(self.base, timestamp).ok().flatten();
        entry.filter(|entry| self.time_holds(*entry)).map_or(self.base, |(_, offset)| offset)
    }

    /// The largest timestamp as the batches say, where the index file may be wrong: without a CRC its last entry is believed
    /// only when it names a batch with that timestamp and none behind it is newer.
    pub(crate) fn check_times(&mut self) -> Result<()> {
        let last = self.max_timestamp.filter(|last| self.time_holds(*last));
        let mut scan = self.scan(last.map_or(0, |(_, offset)| self.position_for(offset)), false)?;
        let mut max = last;
        loop {
            match scan.step()? {
                Step::Batch { header: h, .. } if max.is_none_or(|(max, _)| h.max_timestamp > max) => {
                    max = Some((h.max_timestamp, h.last_offset()));
                }
                Step::Batch { .. } => {}
                Step::End => break,
                Step::Broken { position, what } => return Err(LogError::corrupt(&self.path, position, what)),
            }
        }
        if max != self.max_timestamp {
            let segment = self.path.display();
            tracing::warn!(%segment, index = ?self.max_timestamp, batches = ?max, "the time index is wrong");
        }
        (self.max_timestamp, self.times_checked) = (max, true);
        Ok(())
    }

    /// Whether the batch that a time index names has that timestamp.
    fn time_holds(&self, (timestamp, last_offset): (i64, i64)) -> bool {
        let Ok(scan) = self.scan(self.position_for(last_offset), false) else { return false };
        let mut scan = scan.with_chunk(SEEK_CHUNK);
        while let Ok(Step::Batch { header, .. }) = scan.step() {
            if header.last_offset() >= last_offset {
                return header.last_offset() == last_offset && header.max_timestamp == timestamp;
            }
        }
        false
    }
}

/// An index entry leads to within a few KiB of the batch.
const SEEK_CHUNK: usize = 8 << 10;

/// Whether the batch that an index names by its last offset does begin at its position.
fn hint_holds(file: &dyn DiskFile, path: &Path, (batch, position): (i64, u64)) -> bool {
    let mut header = [0; HEADER_LEN];
    let whole = matches!(read_full_at(file, &mut header, position), Ok(HEADER_LEN));
    let holds = whole && BatchHeader::parse(&header).is_ok_and(|found| found.last_offset() == batch);
    if !holds {
        tracing::warn!(segment = %path.display(), position, "the index does not fit the segment, scanning it");
    }
    holds
}

/// A stretch of a segment to be read without holding the log's lock.
#[derive(Debug)]
pub(crate) struct Extent {
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub position: u64,
    pub end: u64,
}

impl Extent {
    /// Begins where an index says, if a batch does begin there.
    pub(crate) fn hint(&mut self, hint: Option<(i64, u64)>) {
        let hint = hint.filter(|hint| hint_holds(&*self.file, &self.path, *hint));
        self.position = hint.map_or(0, |(_, position)| position);
    }

    /// Whole batches from the one that holds `offset` on, below `up_to`: up to `max_bytes`, but at least one.
    /// Each is checked against its CRC. Also the offset after the last of them.
    pub(crate) fn read(
        mut self,
        buffers: &Arc<Buffers>,
        offset: i64,
        max_bytes: usize,
        up_to: i64,
    ) -> Result<(Bytes, i64)> {
        if !self.seek(offset)? {
            return Ok((Bytes::new(), offset));
        }
        let room = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let mut buffer = buffers.take(max_bytes.max(HEADER_LEN).min(room));
        self.fill(buffer.as_mut())?;
        let first = self.header(buffer.as_ref())?;
        if first.size() > buffer.as_ref().len() {
            // The first goes out whole, however large.
            buffer = buffers.take(first.size().min(room));
            self.fill(buffer.as_mut())?;
        }
        let (mut done, mut next) = (0, offset);
        let buf = buffer.as_ref();
        while buf.len() - done >= HEADER_LEN {
            let header = self.header(&buf[done..])?;
            let Some(batch) = buf.get(done..done + header.size()) else { break };
            if header.next_offset() > up_to {
                break;
            }
            if !crc_holds(&header, batch) {
                let at = self.position + done as u64;
                return Err(LogError::corrupt(&self.path, at, "the batch does not match its CRC"));
            }
            done += header.size();
            next = header.next_offset();
        }
        Ok((buffer.freeze(done), next))
    }

    /// Moves on to the batch that holds `offset`, or the first one after; `false` when there is none.
    fn seek(&mut self, offset: i64) -> Result<bool> {
        let file = Arc::clone(&self.file);
        let mut scan =
            BatchScan::new(file, self.path.clone(), self.position, self.end, false).with_chunk(SEEK_CHUNK);
        loop {
            match scan.step()? {
                Step::Batch { header, position, .. } if header.last_offset() >= offset => {
                    self.position = position;
                    return Ok(true);
                }
                Step::Batch { .. } => {}
                Step::End => return Ok(false),
                Step::Broken { position, what } => return Err(LogError::corrupt(&self.path, position, what)),
            }
        }
    }

    fn fill(&self, buf: &mut [u8]) -> Result<()> {
        match read_full_at(&*self.file, buf, self.position) {
            Ok(n) if n == buf.len() => Ok(()),
            // Truncated meanwhile: that is no damage.
            Ok(_) => Err(LogError::io("read", &self.path, io::ErrorKind::UnexpectedEof.into())),
            Err(e) => Err(LogError::io("read", &self.path, e)),
        }
    }

    fn header(&self, buf: &[u8]) -> Result<BatchHeader> {
        BatchHeader::parse(buf).map_err(|e| LogError::corrupt(&self.path, self.position, e.to_string()))
    }
}
