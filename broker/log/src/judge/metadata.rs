//! What the metadata quorum was told about its log.

use std::collections::BTreeMap;

use super::{Verdict, demand};
use crate::error::Result;
use crate::metalog::MetaLog;

#[derive(Debug, Default)]
pub(super) struct MetaBook {
    /// Acknowledged entries.
    entries: BTreeMap<u64, Vec<u8>>,
    /// What appends that failed were about to write.
    maybe: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Truncation that did not succeed: entries from here on may be gone.
    cut: Option<u64>,
    purged: u64,
    purge_asked: u64,
}

impl MetaBook {
    pub(super) fn append(&mut self, log: &mut MetaLog, count: u64, number: u64) -> Result<()> {
        let first = log.next_index().max(1);
        let entries: Vec<Vec<u8>> =
            (0..count).map(|i| format!("{number}/{i} {}", "x".repeat(120)).into_bytes()).collect();
        for (index, entry) in (first..).zip(&entries) {
            self.maybe.entry(index).or_default().push(entry.clone());
        }
        log.append(first, &entries)?;
        self.entries.extend((first..).zip(entries));
        Ok(())
    }

    pub(super) fn truncate(&mut self, log: &mut MetaLog, back: u64) -> Result<()> {
        let index = (log.next_index().saturating_sub(back)).max(self.purge_asked + 1);
        self.cut = Some(self.cut.map_or(index, |cut| cut.min(index)));
        log.truncate_since(index)?;
        self.entries.split_off(&index);
        self.maybe.clear();
        self.cut = None;
        Ok(())
    }

    pub(super) fn purge(&mut self, log: &mut MetaLog, keep: u64) -> Result<()> {
        let index = log.next_index().saturating_sub(keep);
        if index <= self.purge_asked || self.cut.is_some() {
            return Ok(());
        }
        self.purge_asked = index;
        log.purge_to(index)?;
        self.purged = index;
        self.entries = self.entries.split_off(&(index + 1));
        Ok(())
    }

    pub(super) fn restarted(&mut self, log: &MetaLog) -> Verdict {
        let (first, next) = (log.first_index(), log.next_index());
        let (purged, asked) = (self.purged, self.purge_asked);
        demand!(self.purged == 0 || first > purged, "purged to {purged}, begins at {first}");
        demand!(first <= asked + 1, "asked to purge to {asked}, begins at {first}");
        let last = self.entries.last_key_value().map_or(0, |(index, _)| *index);
        let acked = self.cut.map_or(last + 1, |cut| cut.min(last + 1)).max(first);
        demand!(next >= acked || acked <= 1, "acknowledged metadata up to {acked}, found up to {next}");
        let read = log.read(0, u64::MAX, usize::MAX).map_err(|e| e.to_string())?;
        let found: BTreeMap<u64, Vec<u8>> = read.into_iter().map(|(i, b)| (i, b.to_vec())).collect();
        for (index, entry) in &found {
            let told = self.entries.get(index) == Some(entry)
                || self.maybe.get(index).is_some_and(|maybe| maybe.contains(entry));
            demand!(told, "acknowledged metadata entry {index} became another one");
        }
        self.entries = found;
        self.maybe.clear();
        self.cut = None;
        // A purge that was under way may be undone.
        self.purge_asked = first.saturating_sub(1).max(self.purged);
        Ok(())
    }
}
