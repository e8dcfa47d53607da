//! An append-only log of small entries with consecutive indexes, for the metadata quorum.
//!
//! Invariant: what [`MetaLog::append`] has returned for is on disk and is found again by [`MetaLog::open`]; an unfinished
//! last append is cut, damage anywhere else is an error. A failed sync is final: the log takes nothing more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::checked_file::{CheckedFile, be_u32, be_u64};
use crate::disk::{Disk, DiskFile, OpenMode, read_full_at, write_all_at};
use crate::error::{LogError, Result};

const MAGIC: [u8; 8] = *b"AQMETLOG";
const VERSION: u32 = 1;
/// Magic 8, version 4, first index 8, CRC of these 4.
const FILE_HEADER: u64 = 24;
/// Length 4, CRC 4, index 8, first index of the append it came with 8.
const ENTRY_HEADER: usize = 24;
const MAX_ENTRY: usize = 64 << 20;
const SUFFIX: &str = ".meta";
const FLOOR: CheckedFile = CheckedFile::new(*b"AQPURGED", 1);

/// How the log is kept.
#[derive(Debug, Clone, Copy)]
pub struct MetaLogOptions {
    /// A new file is begun when the last one is larger.
    pub file_bytes: u64,
}

impl Default for MetaLogOptions {
    fn default() -> Self {
        Self { file_bytes: 4 << 20 }
    }
}

/// The log: entry `i` is followed by entry `i + 1`.
#[derive(Debug)]
pub struct MetaLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: MetaLogOptions,
    files: Vec<MetaFile>,
    /// Entries below are purged, even where their file still stands.
    floor: u64,
    /// Why the log takes no more writes.
    failed: Option<LogError>,
}

#[derive(Debug)]
struct MetaFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    first: u64,
    /// Position of each entry, and the end of the last.
    positions: Vec<u64>,
}

impl MetaFile {
    fn count(&self) -> u64 {
        self.positions.len() as u64 - 1
    }

    fn next_index(&self) -> u64 {
        self.first + self.count()
    }

    fn end(&self) -> u64 {
        *self.positions.last().expect("a file has at least the position of its end")
    }
}

impl MetaLog {
    /// Opens or creates the log in `dir`, which is created when its parent exists.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: MetaLogOptions) -> Result<Self> {
        if !disk.exists(dir).map_err(|e| LogError::io("look for", dir, e))? {
            disk.create_dir(dir).map_err(|e| LogError::io("create", dir, e))?;
        }
        // What a killed process created or wrote is found below, whether it was synced or not.
        for dir in [dir.parent().unwrap_or_else(|| Path::new(".")), dir] {
            disk.sync_dir(dir).map_err(|e| LogError::io("sync directory", dir, e))?;
        }
        let floor = match FLOOR.read(&*disk, &dir.join("purged"))? {
            Some((_, payload)) if payload.len() == 8 => be_u64(&payload),
            Some(_) => {
                return Err(LogError::corrupt(&dir.join("purged"), 0, "the payload is not one number"));
            }
            None => 0,
        };
        let mut log = Self { disk, dir: dir.to_owned(), options, files: Vec::new(), floor, failed: None };
        log.load()?;
        Ok(log)
    }

    /// The lowest index that is kept, or would be the first.
    pub fn first_index(&self) -> u64 {
        self.files.first().map_or(self.floor, |f| f.first.max(self.floor))
    }

    /// The index the next entry gets. An empty log that never purged begins where the first append says.
    pub fn next_index(&self) -> u64 {
        self.files.last().map_or(self.floor, |f| f.next_index().max(self.floor))
    }

    /// The index of the last entry.
    pub fn last_index(&self) -> Option<u64> {
        (self.next_index() > self.first_index()).then(|| self.next_index() - 1)
    }

    /// Appends entries of which the first has index `first`; they are on disk when this returns.
    pub fn append<E: AsRef<[u8]>>(&mut self, first: u64, entries: &[E]) -> Result<()> {
        self.usable()?;
        if entries.is_empty() {
            return Ok(());
        }
        let empty = self.last_index().is_none();
        if first != self.next_index() && !(empty && first >= self.floor) {
            let next = self.next_index();
            return Err(LogError::Invalid(format!(
                "entry `{first}` does not continue the metadata log at `{next}`"
            )));
        }
        if let Some(large) = entries.iter().find(|e| e.as_ref().len() > MAX_ENTRY) {
            let len = large.as_ref().len();
            return Err(LogError::Invalid(format!(
                "a metadata entry of {len} bytes is larger than {MAX_ENTRY}"
            )));
        }
        if self.files.last().is_none_or(|f| f.end() > self.options.file_bytes || f.next_index() != first) {
            self.begin_file(first)?;
        }
        self.write(first, entries)
    }

    /// Entries `from..to`, fewer when they exceed `max_bytes`, but at least one.
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<(u64, Bytes)>> {
        let to = to.min(self.next_index());
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in from.max(self.first_index())..to {
            let entry = self.read_one(index)?;
            bytes += entry.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push((index, entry));
        }
        Ok(found)
    }

    /// Removes entry `index` and all later ones, durably.
    pub fn truncate_since(&mut self, index: u64) -> Result<()> {
        self.usable()?;
        let result = self.cut(index);
        self.note(result)
    }

    /// Forgets all entries up to `index`, itself included, durably. Beyond the end it empties the log, which then goes
    /// on at `index + 1`.
    pub fn purge_to(&mut self, index: u64) -> Result<()> {
        self.usable()?;
        if index < self.floor {
            return Ok(());
        }
        FLOOR.replace(&*self.disk, &self.dir.join("purged"), &(index + 1).to_be_bytes())?;
        self.floor = index + 1;
        let gone = self.files.iter().take_while(|f| f.next_index() <= self.floor).count();
        for file in self.files.drain(..gone) {
            self.disk.remove_file(&file.path).map_err(|e| LogError::io("remove", &file.path, e))?;
        }
        Ok(())
    }

    fn usable(&self) -> Result<()> {
        self.failed.as_ref().map_or(Ok(()), |e| {
            Err(LogError::Offline {
                what: "the metadata log".into(),
                reason: format!("{e}; restart the broker"),
            })
        })
    }

    fn note<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(e) = &result {
            self.failed = Some(e.clone());
        }
        result
    }

    fn begin_file(&mut self, first: u64) -> Result<()> {
        let path = self.dir.join(format!("{first:020}{SUFFIX}"));
        let file = self.disk.open(&path, OpenMode::Create).map_err(|e| LogError::io("create", &path, e))?;
        let mut header = Vec::with_capacity(FILE_HEADER as usize);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_be_bytes());
        header.extend_from_slice(&first.to_be_bytes());
        header.extend_from_slice(&crc32c::crc32c(&header).to_be_bytes());
        write_all_at(&*file, &[&header], 0).map_err(|e| LogError::io("write", &path, e))?;
        let synced = file.sync_data().and_then(|()| self.disk.sync_dir(&self.dir));
        self.note(synced.map_err(|e| LogError::io("sync", &path, e)))?;
        self.files.push(MetaFile { path, file, first, positions: vec![FILE_HEADER] });
        Ok(())
    }

    fn write<E: AsRef<[u8]>>(&mut self, first: u64, entries: &[E]) -> Result<()> {
        let last = self.files.last().expect("append has begun a file");
        let (path, file, start) = (last.path.clone(), Arc::clone(&last.file), last.end());
        let mut out = Vec::new();
        let mut ends = Vec::with_capacity(entries.len());
        for (index, entry) in (first..).zip(entries) {
            encode_entry(&mut out, index, first, entry.as_ref());
            ends.push(start + out.len() as u64);
        }
        if let Err(e) = write_all_at(&*file, &[&out], start) {
            // Nothing of it may stand before the next append; when the cut fails too, nothing more is taken.
            let cut = file.truncate(start).map_err(|e| LogError::io("truncate", &path, e));
            self.note(cut)?;
            return Err(LogError::io("write", &path, e));
        }
        self.note(file.sync_data().map_err(|e| LogError::io("sync", &path, e)))?;
        self.files.last_mut().expect("append has begun a file").positions.extend(ends);
        Ok(())
    }

    fn read_one(&self, index: u64) -> Result<Bytes> {
        let at = self.files.partition_point(|f| f.first <= index);
        let file = at.checked_sub(1).and_then(|at| self.files.get(at));
        let Some(file) = file.filter(|f| index < f.next_index()) else {
            return Err(LogError::Invalid(format!("the metadata log has no entry `{index}`")));
        };
        let slot = usize::try_from(index - file.first).expect("positions are in memory");
        let (start, end) = (file.positions[slot], file.positions[slot + 1]);
        let mut buf = vec![0; usize::try_from(end - start).expect("an entry is below the cap")];
        let n =
            read_full_at(&*file.file, &mut buf, start).map_err(|e| LogError::io("read", &file.path, e))?;
        match decode_entry(&buf[..n], index) {
            Some(len) if len + ENTRY_HEADER == buf.len() => Ok(Bytes::from(buf).slice(ENTRY_HEADER..)),
            _ => Err(LogError::corrupt(&file.path, start, format!("entry {index} does not match its CRC"))),
        }
    }

    fn cut(&mut self, index: u64) -> Result<()> {
        // Newest first, so that a crash in between leaves a log without holes.
        while let Some(file) = self.files.last().filter(|f| f.first >= index) {
            self.disk.remove_file(&file.path).map_err(|e| LogError::io("remove", &file.path, e))?;
            self.disk.sync_dir(&self.dir).map_err(|e| LogError::io("sync directory", &self.dir, e))?;
            self.files.pop();
        }
        let Some(file) = self.files.last_mut().filter(|f| f.next_index() > index) else { return Ok(()) };
        let keep = usize::try_from(index - file.first).expect("positions are in memory");
        file.file.truncate(file.positions[keep]).map_err(|e| LogError::io("truncate", &file.path, e))?;
        file.file.sync_data().map_err(|e| LogError::io("sync", &file.path, e))?;
        file.positions.truncate(keep + 1);
        Ok(())
    }

    fn load(&mut self) -> Result<()> {
        let list = self.disk.list(&self.dir).map_err(|e| LogError::io("list", &self.dir, e))?;
        let names: Vec<_> = list.into_iter().map(|e| e.name).filter(|n| n.ends_with(SUFFIX)).collect();
        for (at, name) in names.iter().enumerate() {
            let path = self.dir.join(name);
            let is_last = at + 1 == names.len();
            let Some(file) = self.load_file(&path, name, is_last)? else { continue };
            if file.next_index() <= self.floor && !is_last {
                self.disk.remove_file(&path).map_err(|e| LogError::io("remove", &path, e))?;
                continue;
            }
            if self
                .files
                .last()
                .is_some_and(|before| before.next_index() != file.first && file.first > self.floor)
            {
                return Err(LogError::corrupt(
                    &path,
                    0,
                    "the file before it does not end where this one begins",
                ));
            }
            self.files.push(file);
        }
        // A file left from before a purge past its end is of no more use.
        if self.files.last().is_some_and(|f| f.next_index() < self.floor) {
            for file in self.files.drain(..) {
                self.disk.remove_file(&file.path).map_err(|e| LogError::io("remove", &file.path, e))?;
            }
        }
        Ok(())
    }

    /// `None` when the file was never finished and has been removed.
    fn load_file(&self, path: &Path, name: &str, is_last: bool) -> Result<Option<MetaFile>> {
        let file = self.disk.open(path, OpenMode::Write).map_err(|e| LogError::io("open", path, e))?;
        let len = file.len().map_err(|e| LogError::io("read", path, e))?;
        let mut data =
            vec![0; usize::try_from(len).map_err(|_| LogError::corrupt(path, 0, "the file is too large"))?];
        let n = read_full_at(&*file, &mut data, 0).map_err(|e| LogError::io("read", path, e))?;
        data.truncate(n);
        if is_last && !header_is_whole(&data) && data.len() <= FILE_HEADER as usize {
            self.disk.remove_file(path).map_err(|e| LogError::io("remove", path, e))?;
            return Ok(None);
        }
        let first = check_header(path, &data)?;
        if name != format!("{first:020}{SUFFIX}") {
            return Err(LogError::corrupt(path, 12, format!("the file says it begins at {first}")));
        }
        let mut positions = vec![FILE_HEADER];
        let mut at = FILE_HEADER as usize;
        let mut index = first;
        while let Some(len) = decode_entry(&data[at..], index) {
            at += ENTRY_HEADER + len;
            index += 1;
            positions.push(at as u64);
        }
        if at < data.len() {
            if !is_last || holds_entry(&data[at + 1..], index) {
                return Err(LogError::corrupt(
                    path,
                    at as u64,
                    format!("entry {index} does not match its CRC"),
                ));
            }
            tracing::warn!(file = %path.display(), from = at, bytes = data.len() - at, "cut an unfinished metadata entry");
            file.truncate(at as u64).map_err(|e| LogError::io("truncate", path, e))?;
        }
        if is_last {
            // Written again, because after a failed sync the system takes the pages for clean.
            write_all_at(&*file, &[&data[..at]], 0).map_err(|e| LogError::io("write", path, e))?;
            file.sync_data().map_err(|e| LogError::io("sync", path, e))?;
        }
        Ok(Some(MetaFile { path: path.to_owned(), file, first, positions }))
    }
}

fn encode_entry(out: &mut Vec<u8>, index: u64, append: u64, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("append has checked the size");
    let mut checked = [0; 16];
    checked[..8].copy_from_slice(&index.to_be_bytes());
    checked[8..].copy_from_slice(&append.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&checked), payload);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(&checked);
    out.extend_from_slice(payload);
}

/// The payload's length when a whole entry with this index begins here.
fn decode_entry(data: &[u8], index: u64) -> Option<usize> {
    let header = data.get(..ENTRY_HEADER)?;
    if be_u64(&header[8..16]) != index {
        return None;
    }
    let len = be_u32(&header[..4]) as usize;
    let payload = data.get(ENTRY_HEADER..ENTRY_HEADER.checked_add(len)?)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[8..24]), payload);
    (crc == be_u32(&header[4..8])).then_some(len)
}

/// Whether a whole entry of a later append stands anywhere in `data`: that append came after entry `damaged` had been
/// synced, so the hole before it is damage and no torn tail.
fn holds_entry(data: &[u8], damaged: u64) -> bool {
    (0..data.len().saturating_sub(ENTRY_HEADER)).any(|at| {
        let (index, append) = (be_u64(&data[at + 8..at + 16]), be_u64(&data[at + 16..at + 24]));
        index >= append
            && append > damaged
            && append - damaged < 1 << 20
            && decode_entry(&data[at..], index).is_some()
    })
}

fn header_is_whole(data: &[u8]) -> bool {
    data.len() >= FILE_HEADER as usize && crc32c::crc32c(&data[..20]) == be_u32(&data[20..24])
}

fn check_header(path: &Path, data: &[u8]) -> Result<u64> {
    if data.len() < FILE_HEADER as usize || data[..8] != MAGIC {
        return Err(LogError::corrupt(path, 0, "the file does not begin with its magic bytes"));
    }
    let version = be_u32(&data[8..12]);
    if version > VERSION {
        return Err(LogError::NewerFormat { path: path.to_owned(), found: version, supported: VERSION });
    }
    if !header_is_whole(data) {
        return Err(LogError::corrupt(path, 20, "the header's CRC does not match"));
    }
    Ok(be_u64(&data[12..20]))
}

#[cfg(test)]
mod tests;
