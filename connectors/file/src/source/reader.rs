//! The blocking half: finds the files, reads what is new in them.
//!
//! **Invariant:** a position never passes a line that was not handed on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aqueduct_core::source::{SourceRecord, StoredPositions};
use aqueduct_core::{Datum, Error, Record, Result, Topic, json, wildcard};

use super::lines::{Line, Lines};
use super::tracked::{FileKey, Tracked};
use super::{Format, SourceConfig};

/// Bounds of a batch.
const BATCH_RECORDS: usize = 1000;
const BATCH_BYTES: usize = 1 << 20;

/// Which files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    dir: PathBuf,
    /// May have `*` and `?`.
    name: String,
}

impl Pattern {
    pub(crate) fn new(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| format!("`{shown}` names no file"))?.to_owned();
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if dir.to_string_lossy().contains(['*', '?']) {
            return Err(format!(
                "`{shown}` has `*` or `?` in a directory; they may stand in the last part only"
            ));
        }
        Ok(Self { dir: dir.to_owned(), name })
    }

    fn matches(&self, name: &str) -> bool {
        wildcard::matches(&self.name, name)
    }

    /// Whether one name is meant, which may come to be later.
    fn is_one(&self) -> bool {
        !self.name.contains(['*', '?'])
    }
}

/// A file that is being read, kept open so that it can be read to its end whatever becomes of its name.
struct Open {
    file: File,
    tracked: Tracked,
    /// Its length and time of change when there was nothing more to read.
    seen: Option<(u64, Option<SystemTime>)>,
}

pub(super) struct Reader {
    config: SourceConfig,
    /// Stored positions of files that were not found yet.
    stored: BTreeMap<FileKey, Tracked>,
    open: BTreeMap<FileKey, Open>,
}

/// Takes a batch; `false` when the task stops.
type Out<'o> = dyn FnMut(Result<Vec<SourceRecord>>) -> bool + 'o;

impl Reader {
    /// Looks at what is there where `from: end` leaves that out.
    pub(super) fn new(config: SourceConfig, positions: &StoredPositions) -> Self {
        let stored: BTreeMap<FileKey, Tracked> = positions.0.iter().filter_map(Tracked::parse).collect();
        let fresh = stored.is_empty();
        let mut reader = Self { config, stored, open: BTreeMap::new() };
        if fresh && reader.config.from_end {
            // What cannot be read now is not there yet; the rounds tell.
            for (key, path, metadata) in reader.find().unwrap_or_default() {
                reader.begin(key, &path, &metadata, true).ok();
            }
        }
        reader
    }

    /// Reads everything that is there; `false` when the task stops.
    pub(super) fn round(&mut self, out: &mut Out<'_>) -> bool {
        let found = match self.find() {
            Ok(found) => found,
            Err(error) => return out(Err(error)),
        };
        for (key, path, metadata) in &found {
            if !self.open.contains_key(key)
                && let Err(error) = self.begin(*key, path, metadata, false)
                && !out(Err(error))
            {
                return false;
            }
        }
        let names: BTreeSet<FileKey> = found.iter().map(|(key, ..)| *key).collect();
        // A file that lost its name holds what came before those that have one.
        let mut order: Vec<FileKey> = self.open.keys().copied().filter(|key| !names.contains(key)).collect();
        order.extend(found.iter().map(|(key, ..)| *key));
        for key in order {
            let replaced = !names.contains(&key);
            match self.read(key, replaced, out) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    if !out(Err(error)) {
                        return false;
                    }
                }
            }
            if replaced {
                self.open.remove(&key);
            }
        }
        true
    }

    /// The files of the pattern, and those that a stored position knows under another name, the oldest first.
    fn find(&mut self) -> Result<Vec<(FileKey, PathBuf, Metadata)>> {
        let pattern = &self.config.pattern;
        let cannot = |error: io::Error| {
            Error::retriable(format!("`path`: cannot list `{}`", pattern.dir.display())).with_source(error)
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&pattern.dir).map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let path = entry.path();
            // Gone between the two calls: it is not there.
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            if !metadata.is_file() {
                continue;
            }
            let key = FileKey::of(&metadata);
            let named = entry.file_name().to_str().is_some_and(|name| pattern.matches(name));
            if named || (self.stored.contains_key(&key) && self.is_known(key, &path)) {
                found.push((key, path, metadata));
            }
        }
        if found.is_empty() && pattern.is_one() && !self.config.follow {
            let missing = pattern.dir.join(&pattern.name);
            return Err(Error::retriable(format!("`path`: there is no file `{}`", missing.display())));
        }
        // Times of change are coarse: of two that are equal, the file that was begun before is the older one.
        let age = |(key, path, metadata): &(FileKey, PathBuf, Metadata)| {
            let begun = self.open.contains_key(key) || self.is_known(*key, path);
            (metadata.modified().ok(), !begun, path.clone())
        };
        found.sort_by_cached_key(age);
        found.dedup_by_key(|(key, ..)| *key);
        Ok(found)
    }

    /// Whether a file is the one that a stored position is of, and not another that got its inode.
    fn is_known(&self, key: FileKey, path: &Path) -> bool {
        let Some(stored) = self.stored.get(&key) else { return false };
        File::open(path).and_then(|file| stored.is_same(&file)).unwrap_or(false)
    }

    fn begin(&mut self, key: FileKey, path: &Path, metadata: &Metadata, at_end: bool) -> Result<()> {
        let file = File::open(path).map_err(|error| cannot_read(path, error))?;
        let mut tracked = self.stored.remove(&key).unwrap_or_else(|| {
            let mut tracked = Tracked::new(path);
            if at_end && codec(path).is_none() {
                tracked.position = metadata.len();
            }
            tracked
        });
        tracked.path = path.to_owned();
        if at_end {
            tracked.know(&file).map_err(|error| cannot_read(path, error))?;
        }
        self.open.insert(key, Open { file, tracked, seen: None });
        Ok(())
    }

    /// Reads what is new in one file; `false` when the task stops.
    fn read(&mut self, key: FileKey, replaced: bool, out: &mut Out<'_>) -> Result<bool> {
        let config = &self.config;
        let Some(open) = self.open.get_mut(&key) else { return Ok(true) };
        let path = open.tracked.path.clone();
        let cannot = |error| cannot_read(&path, error);
        let metadata = open.file.metadata().map_err(cannot)?;
        let state = (metadata.len(), metadata.modified().ok());
        // A last line without an end counts once the file is complete.
        let complete = replaced || !config.follow;
        if open.seen == Some(state) && !replaced {
            return Ok(true);
        }
        let compression = codec(&path);
        let shrunk = compression.is_none() && metadata.len() < open.tracked.position;
        if shrunk || !open.tracked.is_same(&open.file).map_err(cannot)? {
            tracing::warn!(path = %path.display(), "the file was cut or written anew; it is read from its beginning");
            open.tracked = Tracked::new(&path);
        }
        if open.tracked.done {
            open.seen = Some(state);
            return Ok(true);
        }
        let complete = complete || compression.is_some();
        let from = decoder(&open.file, compression, open.tracked.position).map_err(cannot)?;
        let mut lines = Lines::new(from, config.max_line);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            let line = match lines.next().map_err(cannot)? {
                Some(line) => Some(line),
                None if complete => lines.rest(),
                None => None,
            };
            let last = line.is_none();
            if let Some(line) = line {
                let (record, taken) = record(config, line);
                bytes += record.record.as_ref().map_or(0, Record::size);
                open.tracked.position += taken;
                batch.push(record);
            }
            if last && compression.is_some() {
                open.tracked.done = true;
            }
            if last || batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
                open.tracked.know(&open.file).map_err(cannot)?;
                match batch.last_mut() {
                    Some(last) => last.position = Some(open.tracked.stored(key)),
                    None if open.tracked.done => {
                        batch.push(SourceRecord::position_only(open.tracked.stored(key)));
                    }
                    None => {}
                }
                if !batch.is_empty() && !out(Ok(std::mem::take(&mut batch))) {
                    return Ok(false);
                }
                bytes = 0;
            }
            if last {
                // What was written meanwhile changes the state again.
                open.seen = Some(state);
                return Ok(true);
            }
        }
    }
}

fn cannot_read(path: &Path, error: io::Error) -> Error {
    Error::retriable(format!("`path`: cannot read `{}`", path.display())).with_source(error)
}

fn record(config: &SourceConfig, line: Line) -> (SourceRecord, u64) {
    let new = |value| Record::new(Topic::clone(&config.topic), value);
    match line {
        Line::Long(kept, taken) => {
            let error = Error::bad_record(format!(
                "the line has {taken} bytes, more than the {} of `max.line`",
                config.max_line
            ));
            (SourceRecord::unreadable(new(Datum::schemaless(kept)), error), taken)
        }
        Line::Whole(bytes, taken) => {
            let value = match config.format {
                Format::Json => json::validate(&bytes).map(|text| Datum::json(None, text)),
                Format::Text => aqueduct_core::Str::try_from(bytes.clone())
                    .map(Datum::schemaless)
                    .map_err(|error| Error::bad_record("the line is not UTF-8").with_source(error)),
            };
            let record = match value {
                Ok(value) => SourceRecord::unplaced(new(value)),
                Err(error) => SourceRecord::unreadable(new(Datum::schemaless(bytes)), error),
            };
            (record, taken)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Gzip,
    Zstd,
}

fn codec(path: &Path) -> Option<Codec> {
    match path.extension()?.to_str()? {
        "gz" => Some(Codec::Gzip),
        "zst" => Some(Codec::Zstd),
        _ => None,
    }
}

/// The bytes of a file from a position on.
fn decoder<'f>(file: &'f File, codec: Option<Codec>, position: u64) -> io::Result<Box<dyn Read + 'f>> {
    let mut file = file;
    file.seek(SeekFrom::Start(if codec.is_some() { 0 } else { position }))?;
    let mut from: Box<dyn Read + 'f> = match codec {
        None => return Ok(Box::new(file)),
        Some(Codec::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(file))),
        Some(Codec::Zstd) => {
            let mut decoder = zstd::stream::read::Decoder::new(file)?;
            // 128 MiB: what the command line of zstd takes without being asked.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
    };
    io::copy(&mut from.by_ref().take(position), &mut io::sink())?;
    Ok(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_in_the_last_part_only() {
        assert!(Pattern::new(Path::new("/var/*/x.log")).is_err());
        assert!(Pattern::new(Path::new("/")).is_err());
    }
}
