//! The sparse indexes of a segment: offset → position (8-byte entries) and timestamp → offset (12-byte entries), as Kafka's.
//!
//! Invariant: an index is a hint. Its files carry no CRC; whoever uses an entry checks that the batch it names stands at
//! its position, and otherwise scans.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::checked_file::{be_u32, be_u64};
use crate::disk::{Disk, DiskFile, OpenMode, read_full_at};
use crate::error::{LogError, Result};

const OFFSET_ENTRY: usize = 8;
const TIME_ENTRY: usize = 12;

/// The indexes of a segment that is being written, in memory.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    offsets: Vec<u8>,
    times: Vec<u8>,
    bytes_since_entry: usize,
    /// The largest timestamp, and the last offset of the first batch that has it.
    max_timestamp: Option<(i64, i64)>,
    indexed_timestamp: Option<i64>,
}

impl IndexBuilder {
    /// Notes the batch with the last offset `batch`, which stands at `position`.
    pub(crate) fn add(
        &mut self,
        segment: i64,
        batch: i64,
        position: u64,
        size: usize,
        timestamp: i64,
        interval: usize,
    ) {
        if self.max_timestamp.is_none_or(|(max, _)| timestamp > max) {
            self.max_timestamp = Some((timestamp, batch));
        }
        if self.bytes_since_entry >= interval {
            if let (Ok(relative), Ok(position)) = (u32::try_from(batch - segment), u32::try_from(position)) {
                self.offsets.extend_from_slice(&relative.to_be_bytes());
                self.offsets.extend_from_slice(&position.to_be_bytes());
            }
            self.add_time(segment);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += size;
    }

    fn add_time(&mut self, segment: i64) {
        let Some((timestamp, batch)) = self.max_timestamp else { return };
        if self.indexed_timestamp.is_some_and(|indexed| indexed >= timestamp) {
            return;
        }
        if let Ok(relative) = u32::try_from(batch - segment) {
            self.times.extend_from_slice(&timestamp.to_be_bytes());
            self.times.extend_from_slice(&relative.to_be_bytes());
            self.indexed_timestamp = Some(timestamp);
        }
    }

    pub(crate) fn max_timestamp(&self) -> Option<(i64, i64)> {
        self.max_timestamp
    }

    /// Last offset and position of a batch at or before `offset`.
    pub(crate) fn lookup(&self, segment: i64, offset: i64) -> Option<(i64, u64)> {
        search_offsets(self.offsets.len() / OFFSET_ENTRY, segment, offset, |i| Ok(entry(&self.offsets, i)))
            .ok()
            .flatten()
    }

    /// A copy for a clean stop; the segment goes on being written.
    pub(crate) fn snapshot(&self, segment: i64) -> IndexBytes {
        let mut copy = Self {
            offsets: self.offsets.clone(),
            times: self.times.clone(),
            bytes_since_entry: 0,
            max_timestamp: self.max_timestamp,
            indexed_timestamp: self.indexed_timestamp,
        };
        copy.seal(segment)
    }

    /// The finished indexes. The last time entry is always the segment's largest timestamp.
    pub(crate) fn seal(&mut self, segment: i64) -> IndexBytes {
        self.add_time(segment);
        let (offsets, times) = (std::mem::take(&mut self.offsets), std::mem::take(&mut self.times));
        IndexBytes { offsets: offsets.into(), times: times.into() }
    }

    /// Goes on where a clean stop left off.
    pub(crate) fn resume(index: IndexBytes, segment: i64) -> Self {
        let max = last_time(&index.times, segment);
        Self {
            offsets: index.offsets.to_vec(),
            times: index.times.to_vec(),
            bytes_since_entry: 0,
            max_timestamp: max,
            indexed_timestamp: max.map(|(t, _)| t),
        }
    }
}

/// The finished indexes of a segment, as they stand in its files.
#[derive(Debug, Clone, Default)]
pub(crate) struct IndexBytes {
    pub offsets: Bytes,
    pub times: Bytes,
}

/// The indexes of a segment that is written no more.
#[derive(Debug, Clone)]
pub(crate) enum SealedIndex {
    Memory(IndexBytes),
    Files(Arc<IndexFiles>),
}

/// Index files, opened where they are searched: thousands of segments must not hold thousands of descriptors.
#[derive(Debug)]
pub(crate) struct IndexFiles {
    disk: Arc<dyn Disk>,
    segment: PathBuf,
    offset_entries: usize,
    time_entries: usize,
}

impl IndexFiles {
    fn open(&self, extension: &str) -> Result<(Arc<dyn DiskFile>, PathBuf)> {
        let path = self.segment.with_extension(extension);
        let file = self.disk.open(&path, OpenMode::Read).map_err(|e| LogError::io("open", &path, e))?;
        Ok((file, path))
    }

    fn load(&self, extension: &str, len: usize) -> Result<Bytes> {
        let (file, path) = self.open(extension)?;
        let mut buf = vec![0; len];
        let n = read_full_at(&*file, &mut buf, 0).map_err(|e| LogError::io("read", &path, e))?;
        buf.truncate(n);
        Ok(Bytes::from(buf))
    }
}

impl SealedIndex {
    /// Uses the files beside a segment; `None` when they are not there or cannot be index files.
    pub(crate) fn open(disk: &Arc<dyn Disk>, segment_path: &Path) -> Option<Self> {
        let entries = |extension: &str, size: usize| {
            let file = disk.open(&segment_path.with_extension(extension), OpenMode::Read).ok()?;
            let len = usize::try_from(file.len().ok()?).ok()?;
            len.is_multiple_of(size).then_some(len / size)
        };
        Some(Self::Files(Arc::new(IndexFiles {
            offset_entries: entries("index", OFFSET_ENTRY)?,
            time_entries: entries("timeindex", TIME_ENTRY)?,
            disk: Arc::clone(disk),
            segment: segment_path.to_owned(),
        })))
    }

    /// Last offset and position of a batch at or before `offset`.
    pub(crate) fn lookup(&self, segment: i64, offset: i64) -> Result<Option<(i64, u64)>> {
        match self {
            Self::Memory(IndexBytes { offsets, .. }) => {
                search_offsets(offsets.len() / OFFSET_ENTRY, segment, offset, |i| Ok(entry(offsets, i)))
            }
            Self::Files(f) => {
                let (file, path) = f.open("index")?;
                search_offsets(f.offset_entries, segment, offset, |i| read(&*file, &path, i))
            }
        }
    }

    /// Timestamp and last offset of the batch from which on a record with at least this timestamp is to be looked for.
    pub(crate) fn lookup_time(&self, segment: i64, timestamp: i64) -> Result<Option<(i64, i64)>> {
        match self {
            Self::Memory(IndexBytes { times, .. }) => {
                search_times(times.len() / TIME_ENTRY, segment, timestamp, |i| Ok(entry(times, i)))
            }
            Self::Files(f) => {
                let (file, path) = f.open("timeindex")?;
                search_times(f.time_entries, segment, timestamp, |i| read(&*file, &path, i))
            }
        }
    }

    /// The largest timestamp and the last offset of its batch.
    pub(crate) fn max_timestamp(&self, segment: i64) -> Result<Option<(i64, i64)>> {
        match self {
            Self::Memory(index) => Ok(last_time(&index.times, segment)),
            Self::Files(f) if f.time_entries == 0 => Ok(None),
            Self::Files(f) => {
                let (file, path) = f.open("timeindex")?;
                let last: [u8; TIME_ENTRY] = read(&*file, &path, f.time_entries - 1)?;
                Ok(last_time(&last, segment))
            }
        }
    }

    /// The whole index, to go on writing it.
    pub(crate) fn load(&self) -> Result<IndexBytes> {
        match self {
            Self::Memory(index) => Ok(index.clone()),
            Self::Files(f) => Ok(IndexBytes {
                offsets: f.load("index", f.offset_entries * OFFSET_ENTRY)?,
                times: f.load("timeindex", f.time_entries * TIME_ENTRY)?,
            }),
        }
    }
}

fn entry<const N: usize>(bytes: &[u8], i: usize) -> [u8; N] {
    bytes[i * N..(i + 1) * N].try_into().expect("the entry lies in the index")
}

fn read<const N: usize>(file: &dyn DiskFile, path: &Path, i: usize) -> Result<[u8; N]> {
    let mut buf = [0; N];
    match read_full_at(file, &mut buf, (i * N) as u64) {
        Ok(n) if n == N => Ok(buf),
        Ok(_) => Err(LogError::corrupt(path, (i * N) as u64, "an index became shorter")),
        Err(e) => Err(LogError::io("read the index of", path, e)),
    }
}

fn last_time(times: &[u8], segment: i64) -> Option<(i64, i64)> {
    let last = times.len().checked_sub(TIME_ENTRY)?;
    Some(time_entry(&entry(&times[last..], 0), segment))
}

fn time_entry(bytes: &[u8; TIME_ENTRY], segment: i64) -> (i64, i64) {
    (be_u64(&bytes[..8]).cast_signed(), segment + i64::from(be_u32(&bytes[8..])))
}

fn search_offsets(
    count: usize,
    segment: i64,
    offset: i64,
    mut entry: impl FnMut(usize) -> Result<[u8; OFFSET_ENTRY]>,
) -> Result<Option<(i64, u64)>> {
    let decode = |e: [u8; OFFSET_ENTRY]| (segment + i64::from(be_u32(&e[..4])), u64::from(be_u32(&e[4..])));
    let at = partition_point(count, |i| Ok(decode(entry(i)?).0 <= offset))?;
    at.checked_sub(1).map(|i| entry(i).map(decode)).transpose()
}

fn search_times(
    count: usize,
    segment: i64,
    timestamp: i64,
    mut entry: impl FnMut(usize) -> Result<[u8; TIME_ENTRY]>,
) -> Result<Option<(i64, i64)>> {
    // Nothing up to the batch of an entry is newer than the entry says.
    let at = partition_point(count, |i| Ok(time_entry(&entry(i)?, segment).0 < timestamp))?;
    at.checked_sub(1).map(|i| Ok(time_entry(&entry(i)?, segment))).transpose()
}

fn partition_point(count: usize, mut before: impl FnMut(usize) -> Result<bool>) -> Result<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if before(middle)? { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_name_the_last_entry_at_or_before() {
        let mut index = IndexBuilder::default();
        // Batches of ten offsets and 100 bytes each; an entry for every second one.
        for i in 0..10i64 {
            index.add(1000, 1000 + i * 10, i as u64 * 100, 100, 5000 + i, 200);
        }
        assert_eq!(index.lookup(1000, 1019), None);
        assert_eq!(index.lookup(1000, 1020), Some((1020, 200)));
        assert_eq!(index.lookup(1000, 1059), Some((1040, 400)));
        let sealed = SealedIndex::Memory(index.seal(1000));
        assert_eq!(sealed.lookup(1000, 1085).unwrap(), Some((1080, 800)));
        assert_eq!(sealed.max_timestamp(1000).unwrap(), Some((5009, 1090)));
        assert_eq!(sealed.lookup_time(1000, 5000).unwrap(), None);
        assert_eq!(sealed.lookup_time(1000, 5005).unwrap(), Some((5004, 1040)));
        assert_eq!(sealed.lookup_time(1000, 6000).unwrap(), Some((5009, 1090)));
    }
}
