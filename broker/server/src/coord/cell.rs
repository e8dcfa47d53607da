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
use crate::partition::{Acks, AppendError, Appending, Replica};

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
        tokio::time::timeout(LOAD_PATIENCE, self.loaded()).await.unwrap_or(Err(CoordError::Loading))
    }

    /// Waits for the shard to be read, however long that takes.
    pub(super) async fn loaded(&self) -> Result<(), CoordError> {
        let mut loaded = self.loaded.subscribe();
        let load = loaded.wait_for(|load| *load != Load::Reading).await.map(|load| *load);
        match load {
            Ok(Load::Ready) => Ok(()),
            Ok(Load::Reading) | Err(_) => Err(CoordError::Loading),
            Ok(Load::Failed) => Err(GroupError::CoordinatorNotAvailable.into()),
        }
    }

    /// Hands the changes to the log, in the order of the decisions, since the lock is held. [`Cell::finish`] waits for
    /// them.
    pub(super) fn write(&self, live: &mut Live, changes: Vec<Change>) -> Writing {
        let now = wall_ms();
        changes.iter().for_each(|change| live.shard.written(change, now));
        let batch = records::encode(&changes, now);
        let appending = batch.map(|batch| self.replica.submit(batch, Acks::All, now));
        Writing { changes, appending }
    }

    /// Decides on changes and hands them to the log at once: a commit in between would be acknowledged and then deleted
    /// by a tombstone that was decided before it.
    pub(super) fn decide(&self, decide: impl FnOnce(&Shard) -> Vec<Change>) -> Option<Writing> {
        let mut live = self.live.lock();
        let changes = decide(&live.shard);
        (!changes.is_empty()).then(|| self.write(&mut live, changes))
    }

    /// Waits until the changes are flushed and lets them take effect. Must be run to its end.
    pub(super) async fn finish(&self, writing: Writing) -> Result<(), CoordError> {
        let Writing { changes, appending } = writing;
        let written = flushed(appending).await;
        let mut live = self.live.lock();
        match written {
            Ok(base) => {
                for (log_offset, change) in (base..).zip(changes) {
                    live.shard.commit(log_offset, change);
                }
                Ok(())
            }
            Err(error) => {
                changes.iter().for_each(|change| live.shard.lost(change));
                Err(error)
            }
        }
    }
}

/// Records on their way to the log.
pub(super) struct Writing {
    changes: Vec<Change>,
    appending: Result<Appending, records::RecordError>,
}

/// The offset of the first record, once all are flushed.
async fn flushed(appending: Result<Appending, records::RecordError>) -> Result<i64, CoordError> {
    let appending = match appending {
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
        cell.live.lock().shard.replay(0, commit, 0);
        let written = cell.decide(|shard| {
            assert!(cell.live.try_lock().is_none(), "a commit could come in between");
            shard.of_topics(|topic| topic == "orders")
        });
        assert_eq!(cell.replica.log_end(), 1, "it has its place in the log already");
        assert_eq!(cell.finish(written.expect("there is something to write")).await, Ok(()));
    }
}
