//! Writes one cleaned segment out of a group of segments.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aqueduct_wire::{BatchBuilder, BatchHeader, Record};
use bytes::Bytes;

use super::key_map::{KeyMap, decode};
use crate::batch_scan::Step;
use crate::disk::{Disk, DiskFile, OpenMode, write_all_at};
use crate::error::{LogError, Result};
use crate::index::{IndexBuilder, IndexBytes};
use crate::log_config::LogCounters;
use crate::segment::{Sealed, segment_path};

const WRITE_CHUNK: usize = 1 << 20;

pub(super) struct Cleaner<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub map: &'a KeyMap,
    pub producers: &'a HashMap<i64, i64>,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
    pub interval: usize,
    pub counters: &'a LogCounters,
    pub stopping: &'a AtomicBool,
    /// When the next of the tombstones that stay may go.
    pub tombstones_due: Cell<i64>,
}

/// A finished segment that is not part of the log yet.
#[derive(Debug)]
pub(super) struct Cleaned {
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub size: u64,
    pub index: IndexBytes,
    pub max_timestamp: Option<(i64, i64)>,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq)]
pub(super) enum Fate {
    Keep,
    Rewrite(Bytes),
    Drop,
}

impl Cleaner<'_> {
    /// `None` when cleaning would change nothing, or was interrupted.
    pub(super) fn clean(&self, group: &[(Sealed, i64)]) -> Result<Option<Cleaned>> {
        let base = group[0].0.base;
        let mut out = Output::create(self.disk, self.dir, base, self.interval)?;
        let mut changed = group.len() > 1;
        for (segment, _) in group {
            LogCounters::add(&self.counters.compacted_bytes_read, segment.size);
            let mut scan = segment.scan(0, true)?;
            while !self.stopping.load(Ordering::Relaxed) {
                match scan.step()? {
                    Step::Batch { header, bytes, .. } => match self.fate(&header, bytes)? {
                        Fate::Keep => out.push(&header, bytes)?,
                        Fate::Drop => changed = true,
                        Fate::Rewrite(bytes) => {
                            changed = true;
                            let header = BatchHeader::parse(&bytes).map_err(|e| {
                                LogError::Invalid(format!("compaction made a bad batch: {e}"))
                            })?;
                            out.push(&header, &bytes)?;
                        }
                    },
                    Step::End => break,
                    Step::Broken { position, what } => {
                        return Err(LogError::corrupt(&segment.path, position, what));
                    }
                }
            }
        }
        if !changed || self.stopping.load(Ordering::Acquire) {
            self.disk.remove_file(&out.path).map_err(|e| LogError::io("remove", &out.path, e))?;
            return Ok(None);
        }
        let cleaned = out.finish()?;
        LogCounters::add(&self.counters.compacted_bytes_written, cleaned.size);
        Ok(Some(cleaned))
    }

    fn fate(&self, header: &BatchHeader, bytes: &[u8]) -> Result<Fate> {
        if header.is_control() {
            return Ok(Fate::Keep);
        }
        let Some(records) = decode(bytes) else { return Ok(Fate::Keep) };
        // Only where the map has seen the whole batch everything a tombstone deletes is gone after this pass.
        let seen = header.next_offset() <= self.map.end();
        let horizon = header.has_delete_horizon().then_some(header.base_timestamp);
        let tombstones_go = seen && horizon.is_some_and(|horizon| self.now_ms > horizon);
        let is_tombstone = |r: &Record| r.key.is_some() && r.value.is_none();
        let kept: Vec<&Record> = records
            .iter()
            .filter(|r| !(self.map.supersedes(r) || tombstones_go && is_tombstone(r)))
            .collect();
        if kept.is_empty() {
            return self.fate_of_empty(header, records.len());
        }
        let tombstones = seen && kept.iter().any(|r| is_tombstone(r));
        let new_horizon = tombstones && horizon.is_none();
        let horizon = horizon.unwrap_or(self.now_ms.saturating_add(self.delete_retention_ms));
        if tombstones {
            self.tombstones_due.set(self.tombstones_due.get().min(horizon));
        }
        if kept.len() == records.len() && !new_horizon {
            return Ok(Fate::Keep);
        }
        let mut builder = rewrite(header)?;
        if new_horizon {
            builder = builder.delete_horizon(horizon);
        }
        kept.into_iter().for_each(|record| builder.push(record));
        build(builder).map(Fate::Rewrite)
    }

    /// The last batch of a producer stays without its records, so that sequence and epoch are known after a restart. What
    /// was appended behind the part that is compacted does not count: it may not be on disk yet.
    fn fate_of_empty(&self, header: &BatchHeader, records: usize) -> Result<Fate> {
        let is_last = self.producers.get(&header.producer_id).is_some_and(|last| {
            match self.map.last_of(header.producer_id) {
                _ if header.next_offset() > self.map.end() => true,
                Some(last) => header.last_offset() == last,
                None => header.last_offset() == *last || *last >= self.map.end(),
            }
        });
        if !is_last {
            return Ok(Fate::Drop);
        }
        if records == 0 {
            return Ok(Fate::Keep);
        }
        rewrite(header).and_then(build).map(Fate::Rewrite)
    }
}

fn rewrite(header: &BatchHeader) -> Result<BatchBuilder> {
    BatchBuilder::rewrite(header).map_err(|e| LogError::Invalid(format!("cannot compact a batch: {e}")))
}

fn build(builder: BatchBuilder) -> Result<Bytes> {
    builder.build().map_err(|e| LogError::Invalid(format!("cannot compact a batch: {e}")))
}

/// The file being written.
struct Output {
    base: i64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    size: u64,
    buf: Vec<u8>,
    index: IndexBuilder,
    interval: usize,
}

impl Output {
    fn create(disk: &dyn Disk, dir: &Path, base: i64, interval: usize) -> Result<Self> {
        let path = segment_path(dir, base).with_extension("cleaned");
        let file = disk.open(&path, OpenMode::Create).map_err(|e| LogError::io("create", &path, e))?;
        Ok(Self { base, path, file, size: 0, buf: Vec::new(), index: IndexBuilder::default(), interval })
    }

    fn push(&mut self, header: &BatchHeader, bytes: &[u8]) -> Result<()> {
        let position = self.size + self.buf.len() as u64;
        let (offset, timestamp) = (header.last_offset(), header.max_timestamp);
        self.index.add(self.base, offset, position, header.size(), timestamp, self.interval);
        self.buf.extend_from_slice(bytes);
        if self.buf.len() >= WRITE_CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        write_all_at(&*self.file, &[&self.buf], self.size)
            .map_err(|e| LogError::io("write", &self.path, e))?;
        self.size += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Cleaned> {
        self.flush()?;
        self.file.sync_data().map_err(|e| LogError::io("sync", &self.path, e))?;
        let max_timestamp = self.index.max_timestamp();
        let index = self.index.seal(self.base);
        Ok(Cleaned { path: self.path, file: self.file, size: self.size, index, max_timestamp })
    }
}
