//! A shard as it runs: its state, its partition, and the requests that wait for its groups.
//! Invariant: a deadline that is listed may be early but is never late, so no group is looked at too seldom.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::group::{GroupError, ReplyTo, Synced};
use super::records;
use super::runtime::{CoordError, JoinReply};
use super::shard::{Change, Shard};
use crate::clock::wall_ms;
use crate::partition::{Acks, AppendError, Replica};

/// How long a request waits for a shard that is still being read from the log.
const LOAD_PATIENCE: Duration = Duration::from_secs(3);

/// A shard, the partition it lives in and the requests that wait for its groups.
pub(super) struct Cell {
    pub(super) replica: Arc<Replica>,
    pub(super) loaded: watch::Sender<Load>,
    pub(super) live: Mutex<Live>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    Reading,
    Ready,
    Failed,
}

#[derive(Default)]
pub(super) struct Live {
    pub(super) shard: Shard,
    pub(super) joins: HashMap<ReplyTo, oneshot::Sender<JoinReply>>,
    pub(super) syncs: HashMap<ReplyTo, oneshot::Sender<Result<Synced, CoordError>>>,
    next_reply: u64,
    /// When to look at which group; an entry may be early, never late.
    pub(super) deadlines: BTreeSet<(i64, String)>,
    pub(super) scheduled: HashMap<String, i64>,
}

impl Live {
    pub(super) fn reply(&mut self) -> ReplyTo {
        self.next_reply += 1;
        ReplyTo(self.next_reply)
    }

    /// Notes when the group needs time again. `true` if that is before everything known.
    pub(super) fn schedule(&mut self, group: &str) -> bool {
        let next = self.shard.slot(group).and_then(|slot| slot.group.next_deadline());
        let known = self.scheduled.get(group).copied();
        let Some(next) = next else { return false };
        if known.is_some_and(|known| known <= next) {
            return false;
        }
        let first = self.deadlines.first().is_none_or(|(first, _)| next < *first);
        if let Some(known) = known {
            self.deadlines.remove(&(known, group.to_owned()));
        }
        self.deadlines.insert((next, group.to_owned()));
        self.scheduled.insert(group.to_owned(), next);
        first
    }
}

impl Cell {
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        let (loaded, _) = watch::channel(Load::Reading);
        Self { replica, loaded, live: Mutex::default() }
    }

    /// Waits a while for the shard to be read.
    pub(super) async fn wait_loaded(&self) -> Result<(), CoordError> {
        let mut loaded = self.loaded.subscribe();
        let ready = loaded.wait_for(|load| *load != Load::Reading);
        let load = match tokio::time::timeout(LOAD_PATIENCE, ready).await {
            Ok(Ok(load)) => *load,
            Ok(Err(_)) | Err(_) => Load::Reading,
        };
        match load {
            Load::Ready => Ok(()),
            Load::Reading => Err(CoordError::Loading),
            Load::Failed => Err(GroupError::CoordinatorNotAvailable.into()),
        }
    }

    /// Hands the changes to the log. Called under the lock where their order matters.
    pub(super) fn write(&self, changes: &[Change]) -> Writing {
        let batch = records::encode(changes, wall_ms());
        Writing(batch.map(|batch| self.replica.submit(batch, Acks::All, wall_ms())))
    }

    /// Decides on changes and hands them to the log at once: a commit in between would be acknowledged and then deleted
    /// by a tombstone that was decided before it.
    pub(super) fn decide(
        &self,
        decide: impl FnOnce(&Shard) -> Vec<Change>,
    ) -> (Vec<Change>, Option<Writing>) {
        let live = self.live.lock();
        let changes = decide(&live.shard);
        let written = (!changes.is_empty()).then(|| self.write(&changes));
        (changes, written)
    }

    /// The changes, whose records begin at `base`, are flushed.
    pub(super) fn apply(&self, base: i64, changes: Vec<Change>, now: i64) {
        let mut live = self.live.lock();
        for (log_offset, change) in (base..).zip(changes) {
            live.shard.commit(log_offset, change, now);
        }
    }
}

/// A record on its way to the log.
pub(super) struct Writing(Result<crate::partition::Appending, records::RecordError>);

impl Writing {
    /// The offset of the first record, once all are flushed.
    pub(super) async fn done(self) -> Result<i64, CoordError> {
        let appending = match self.0 {
            Ok(appending) => appending,
            Err(error) => {
                tracing::error!(%error, "a group's record cannot be written");
                return Err(GroupError::Storage.into());
            }
        };
        match appending.await {
            Ok(appended) => Ok(appended.base_offset),
            Err(AppendError::NotLeader) => Err(CoordError::NotCoordinator),
            Err(error) => {
                tracing::warn!(%error, "a group's record was not written");
                Err(GroupError::Storage.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use aqueduct_log::{LogConfig, LogDir, LogDirOptions, MemDisk, PartitionId, PartitionSpec};

    use super::super::shard::{Committed, TopicPartition};
    use super::*;
    use crate::topic_config::TopicDefaults;

    #[tokio::test]
    async fn a_commit_never_comes_between_a_decision_and_its_record() {
        let disk = Arc::new(MemDisk::with_dir("/"));
        let dir = LogDir::open(disk, Path::new("/data"), LogDirOptions::default()).expect("opens");
        let id = PartitionId { topic: "offsets".into(), topic_id: uuid::Uuid::from_u128(1), partition: 0 };
        let log = dir.create(PartitionSpec { id: id.clone(), config: LogConfig::default() }, 0);
        let defaults = TopicDefaults::new(&BTreeMap::new()).expect("no defaults are changed");
        let config = defaults.resolve(&BTreeMap::new()).expect("the defaults are valid");
        let cell = Cell::new(Replica::new(id, log, 0, config));
        let at = TopicPartition { topic: "orders".to_owned(), partition: 0 };
        let committed = Committed { offset: 5, leader_epoch: -1, metadata: String::new(), commit_time: 0 };
        let commit = Change::Offset { group: "g".to_owned(), at, committed: Some(committed) };
        cell.live.lock().shard.commit(0, commit, 0);
        let (changes, written) = cell.decide(|shard| {
            assert!(cell.live.try_lock().is_none(), "a commit could come in between");
            shard.of_topics(|topic| topic == "orders")
        });
        assert_eq!((changes.len(), cell.replica.log_end()), (1, 1), "it has its place in the log already");
        assert_eq!(written.expect("there is something to write").done().await, Ok(0));
    }
}
