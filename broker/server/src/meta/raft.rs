//! The metadata log as a raft group. Nothing outside this module names openraft, and nothing openraft made is stored in
//! its own serialised form.
//! Invariant: a proposal is answered only after its entry is on disk and applied; what was decided on an outdated image
//! is not applied at all.

mod entry;
mod identity;
mod log_store;
mod network;
mod state_machine;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, Config, Raft, ServerState, SnapshotPolicy};
use serde::{Deserialize, Serialize};

use aqueduct_log::{Disk, LogError};

use crate::meta::image::Image;
use crate::meta::records::{Record, encode_all};
use log_store::LogStore;
use state_machine::StateMachine;

openraft::declare_raft_types!(
    /// The types of the metadata group.
    pub(crate) Group:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = std::io::Cursor<Vec<u8>>,
);

type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type Entry = openraft::Entry<Group>;
type Membership = openraft::Membership<u64, BasicNode>;
type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
type StorageError = openraft::StorageError<u64>;

/// Records to apply together, if the image still is what they were decided on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    based_on: u64,
    /// As [`encode_all`] writes them.
    records: Vec<u8>,
}

/// What became of a committed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Applied { index: u64 },
    Outdated,
    NoProposal,
}

/// Why the metadata cannot be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    #[error("the image changed while the change was decided")]
    Outdated,
    #[error("the disk is full: make room, and the metadata can be changed again")]
    DiskFull,
    #[error("this node does not lead the metadata group")]
    NotLeader,
    #[error("the metadata group has stopped: {0}; restart the broker")]
    Stopped(String),
    #[error(
        "the metadata of `{0}` is gone although this node was a voter; restore the directory or start with an empty one"
    )]
    VoterWithoutLog(std::path::PathBuf),
    #[error("the metadata cannot be read: {0}")]
    Decode(#[from] crate::meta::encoding::DecodeError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The running group of one.
pub(crate) struct MetaRaft {
    raft: Raft<Group>,
    image: Arc<ArcSwap<Image>>,
    /// The log waits for room on the disk.
    full: Arc<AtomicBool>,
}

/// How long a sole voter may take to lead; it needs a few writes to its own disk.
const LEAD_WITHIN: Duration = Duration::from_secs(30);

impl MetaRaft {
    /// Opens the group in `dir` and waits until this node leads it and all that was committed is applied.
    pub(crate) async fn open(disk: Arc<dyn Disk>, dir: &Path, address: String) -> Result<Self, MetaError> {
        let image = Arc::new(ArcSwap::from_pointee(Image::default()));
        let machine = StateMachine::open(Arc::clone(&disk), dir, Arc::clone(&image))?;
        let store = LogStore::open(Arc::clone(&disk), dir)?;
        let fresh = store.is_fresh() && machine.is_fresh();
        let identity = identity::Identity::load_or_draw(&*disk, dir, fresh)?;
        let id = identity.raft_id();
        let (last, full) = (store.last_index(), store.full());
        let config = Config {
            cluster_name: "aqueduct".to_owned(),
            heartbeat_interval: 200,
            election_timeout_min: 800,
            election_timeout_max: 1600,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(20_000),
            max_in_snapshot_log_to_keep: 2_000,
            ..Config::default()
        };
        let config = config.validate().map_err(|error| MetaError::Stopped(error.to_string()))?;
        let raft = Raft::new(id, Arc::new(config), network::NoPeers, store, machine);
        let raft = raft.await.map_err(|error| MetaError::Stopped(error.to_string()))?;
        if fresh {
            let members = BTreeMap::from([(id, BasicNode::new(address))]);
            let made = raft.initialize(members).await;
            made.map_err(|error| MetaError::Stopped(error.to_string()))?;
            identity.confirm(&*disk, dir)?;
        } else if raft.metrics().borrow().state != ServerState::Leader {
            // Alone, there is nobody whose heartbeat is worth waiting for.
            raft.trigger().elect().await.map_err(|error| MetaError::Stopped(error.to_string()))?;
        }
        let opened = Self { raft, image, full };
        opened.lead(last).await?;
        Ok(opened)
    }

    async fn lead(&self, last: Option<u64>) -> Result<(), MetaError> {
        let wait = || self.raft.wait(Some(LEAD_WITHIN));
        let stopped = |error: openraft::metrics::WaitError| MetaError::Stopped(error.to_string());
        wait().state(ServerState::Leader, "a sole voter leads").await.map_err(stopped)?;
        wait().applied_index_at_least(last, "all that was committed is applied").await.map_err(stopped)?;
        Ok(())
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    pub(crate) fn newest(&self) -> impl Fn() -> Arc<Image> + Send + 'static {
        let image = Arc::clone(&self.image);
        move || image.load_full()
    }

    /// Commits records decided on image version `based_on`; the entry's index when they are applied.
    pub(crate) async fn propose(&self, based_on: u64, records: &[Record]) -> Result<u64, MetaError> {
        self.check()?;
        let proposal = Proposal { based_on, records: encode_all(records) };
        match self.raft.client_write(proposal).await {
            Ok(written) => match written.data {
                Outcome::Applied { index } => Ok(index),
                Outcome::Outdated | Outcome::NoProposal => Err(MetaError::Outdated),
            },
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(MetaError::NotLeader),
            Err(error) => Err(MetaError::Stopped(error.to_string())),
        }
    }

    /// Whether anything can be committed.
    pub(crate) fn check(&self) -> Result<(), MetaError> {
        if self.full.load(Ordering::Acquire) {
            return Err(MetaError::DiskFull);
        }
        let metrics = self.raft.metrics();
        let state = metrics.borrow().running_state.clone();
        state.map_err(|fatal| MetaError::Stopped(fatal.to_string()))
    }

    /// Takes a snapshot now rather than after the next thousands of entries.
    #[cfg(test)]
    pub(crate) async fn snapshot(&self) {
        self.raft.trigger().snapshot().await.expect("the group runs");
        let last = self.raft.metrics().borrow().last_applied.expect("entries were applied");
        self.raft.wait(Some(LEAD_WITHIN)).snapshot(last, "the snapshot is made").await.expect("made in time");
        self.raft.trigger().purge_log(last.index).await.expect("the group runs");
        self.raft.wait(Some(LEAD_WITHIN)).purged(Some(last), "the log is purged").await.expect("in time");
    }

    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "the metadata group did not stop cleanly");
        }
    }
}

#[cfg(test)]
mod tests;
