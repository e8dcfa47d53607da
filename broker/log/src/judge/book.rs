//! What the clients of one partition were told, and whether the log still says so.

use std::collections::{BTreeMap, BTreeSet};

use aqueduct_wire::Batches;

use super::{Verdict, demand};
use crate::log_config::LogConfig;
use crate::partition_log::PartitionLog;

/// A record; `id` is unique over the whole run and travels as a header.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sent {
    pub key: u8,
    pub value: Option<u64>,
    pub timestamp: i64,
    pub epoch: i32,
    pub id: u64,
}

/// The account of one incarnation of a partition.
#[derive(Debug)]
pub(super) struct Book {
    config: LogConfig,
    /// What the log has said it holds, compacted away or not.
    records: BTreeMap<i64, Sent>,
    /// Everything that was ever on its way to an offset that is not acknowledged.
    maybe: BTreeMap<i64, Vec<Sent>>,
    /// Below this offset records were acknowledged and could be read.
    pub acked: i64,
    /// DeleteRecords was acknowledged up to here, and asked for up to there.
    deleted: i64,
    asked_to_delete: i64,
    /// The highest log start that was seen; each rise was found to be right.
    start: i64,
}

impl Book {
    pub(super) fn new(config: LogConfig) -> Self {
        let (records, maybe) = Default::default();
        Self { config, records, maybe, acked: 0, deleted: 0, asked_to_delete: 0, start: 0 }
    }

    /// An append begins that would put these records at `base`.
    pub(super) fn sending(&mut self, base: i64, records: &[Sent]) {
        for (offset, record) in (base..).zip(records) {
            self.maybe.entry(offset).or_default().push(record.clone());
        }
    }

    pub(super) fn appended(&mut self, base: i64, records: &[Sent]) {
        self.records.extend((base..).zip(records.iter().cloned()));
    }

    /// A replay was answered with these offsets.
    pub(super) fn replayed(&self, base: i64, last: i64, records: &[Sent]) -> Verdict {
        let there: Vec<_> = self.records.range(base..=last).map(|(_, r)| r.id).collect();
        let sent: Vec<_> = records.iter().map(|r| r.id).collect();
        demand!(there == sent, "a replay of {sent:?} was told {base} to {last}, where {there:?} is");
        Ok(())
    }

    pub(super) fn delete_asked(&mut self, offset: i64) {
        self.asked_to_delete = self.asked_to_delete.max(offset);
    }

    pub(super) fn delete_done(&mut self, start: i64) {
        self.deleted = self.deleted.max(start);
    }

    /// What a living log says about itself: records become readable, old ones go.
    pub(super) fn observe(&mut self, log: &PartitionLog, now: i64) -> Verdict {
        let (start, flushed) = (log.start_offset(), log.flushed_offset());
        demand!(flushed >= self.acked, "flushed falls from {} to {flushed}", self.acked);
        demand!(flushed <= log.end_offset(), "flushed {flushed} lies above the end");
        self.acked = flushed;
        if start > self.start {
            let config = &self.config;
            let large_enough =
                config.delete && u64::try_from(config.retention_bytes).is_ok_and(|limit| log.size() >= limit);
            for (offset, record) in self.records.range(self.start..start) {
                let old =
                    config.delete && config.retention_ms >= 0 && record.timestamp < now - config.retention_ms;
                let superseded = config.compact
                    && self.records.range(offset + 1..).any(|(_, later)| later.key == record.key);
                demand!(
                    *offset < self.asked_to_delete || old || large_enough || superseded,
                    "the log start rose to {start} over {offset}, {record:?}, at {now}"
                );
            }
            self.start = start;
        }
        Ok(())
    }

    /// After a start: what was acknowledged is there, and what else is there was on its way.
    pub(super) fn restarted(&mut self, log: &PartitionLog) -> Verdict {
        let (start, end) = (log.start_offset(), log.end_offset());
        demand!(end >= self.acked, "acknowledged up to {}, found up to {end}", self.acked);
        demand!(log.flushed_offset() == end, "found up to {end}, flushed {}", log.flushed_offset());
        demand!(start >= self.deleted, "deleted up to {}, found from {start}", self.deleted);
        demand!(start <= self.start, "the log began at {} at most, now at {start}", self.start);
        let found = read(log, start, end)?;
        self.records.split_off(&self.acked);
        for offset in self.acked.max(start)..end {
            let Some(record) = found.get(&offset) else { return Err(format!("offset {offset} is missing")) };
            let sent = self.maybe.get(&offset).is_some_and(|maybe| maybe.contains(record));
            demand!(sent, "offset {offset} holds {record:?}, which was never sent there");
            self.records.insert(offset, record.clone());
        }
        self.maybe.clear();
        self.acked = end;
        self.check(log, &found, start, end)
    }

    /// What consumers can read now is what they were told.
    pub(super) fn read_back(&self, log: &PartitionLog) -> Verdict {
        let (start, end) = (log.start_offset(), log.flushed_offset());
        self.check(log, &read(log, start, end)?, start, end)
    }

    fn check(&self, log: &PartitionLog, found: &BTreeMap<i64, Sent>, start: i64, end: i64) -> Verdict {
        let mut ids = BTreeSet::new();
        for (offset, record) in found {
            let told = self.records.get(offset);
            demand!(told == Some(record), "acknowledged offset {offset} was {told:?}, now {record:?}");
            demand!(ids.insert(record.id), "{record:?} is there twice, also at {offset}");
            let epoch = log.epoch_at(*offset);
            demand!(epoch == Some(record.epoch), "offset {offset} of {record:?} is said to be of {epoch:?}");
        }
        if self.config.compact {
            let (told, now) = (fold(self.records.range(start..end)), fold(found));
            demand!(told == now, "acknowledged last values {told:?}, now {now:?}, in {start} to {end}");
        } else {
            let gap = (start..end).find(|offset| !found.contains_key(offset));
            demand!(gap.is_none(), "acknowledged offset {gap:?} is missing in {start} to {end}");
        }
        Ok(())
    }

    /// A compacted log that was left alone holds one record per key at most, and no tombstone, below `clean`.
    pub(super) fn compacted(&self, log: &PartitionLog, clean: i64) -> Verdict {
        let found = read(log, log.start_offset(), clean)?;
        let mut keys = BTreeSet::new();
        for (offset, record) in &found {
            demand!(keys.insert(record.key), "key {} is still there twice, also at {offset}", record.key);
            demand!(record.value.is_some(), "the tombstone {record:?} is still there at {offset}");
        }
        Ok(())
    }
}

/// The last value of each key and where it stands; what was deleted is gone.
fn fold<'a>(records: impl IntoIterator<Item = (&'a i64, &'a Sent)>) -> BTreeMap<u8, (i64, u64)> {
    let mut state = BTreeMap::new();
    for (offset, record) in records {
        match record.value {
            Some(value) => state.insert(record.key, (*offset, value)),
            None => state.remove(&record.key),
        };
    }
    state
}

fn read(log: &PartitionLog, start: i64, end: i64) -> Verdict<BTreeMap<i64, Sent>> {
    let (mut at, mut found) = (start, BTreeMap::new());
    let mut last = -1;
    while at < end {
        let fetched = log.read(at, 400, end).map_err(|e| format!("cannot read at {at}: {e}"))?;
        if fetched.next_offset == at {
            break;
        }
        for batch in fetched.chunks.into_iter().flat_map(Batches::new) {
            let batch = batch.map_err(|e| e.to_string())?;
            let epoch = batch.header().partition_leader_epoch;
            for record in batch.records(1 << 20).map_err(|e| e.to_string())? {
                let r = record.map_err(|e| e.to_string())?;
                demand!(r.offset > last, "offset {} follows {last}", r.offset);
                last = r.offset;
                let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_be_bytes);
                let sent = Sent {
                    key: r.key.as_ref().map_or(0, |key| key[0]),
                    value: r.value.as_deref().map(number),
                    timestamp: r.timestamp,
                    epoch,
                    id: r.headers.first().and_then(|h| h.value.as_deref()).map_or(0, number),
                };
                found.insert(r.offset, sent);
            }
        }
        at = fetched.next_offset;
    }
    Ok(found.split_off(&start))
}
