//! Applies committed entries to the image and publishes it; keeps the snapshot file.
//! Invariant: the published image is always one that committed entries made, and the snapshot file is old or new, whole.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{AnyError, BasicNode, EntryPayload, RaftSnapshotBuilder, SnapshotMeta, StorageIOError};

use aqueduct_log::{CheckedFile, Disk};

use super::entry::{decode_log_id, decode_stored_membership, encode_log_id, encode_stored_membership};
use super::{Entry, Group, LogId, MetaError, Outcome, Proposal, StorageError, StoredMembership};
use crate::meta::encoding::{DecodeError, Decoder, Encoder};
use crate::meta::image::Image;
use crate::meta::records::{decode_all, encode_all};

const FILE: CheckedFile = CheckedFile::new(*b"AQMETASN", 1);

pub(super) struct StateMachine {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    state: State,
    published: Arc<ArcSwap<Image>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    image: Image,
}

impl State {
    fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.option(self.applied.as_ref(), encode_log_id);
        encode_stored_membership(&mut out, &self.membership);
        out.u64(self.image.version);
        out.bytes(&encode_all(&self.image.to_records()));
        out.0
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder(bytes);
        let applied = input.option(decode_log_id)?;
        let membership = decode_stored_membership(&mut input)?;
        let version = input.u64()?;
        let mut image = Image::default();
        image.apply(applied.map_or(0, |id| id.index), &decode_all(input.bytes()?)?)?;
        image.version = version;
        input.finish()?;
        Ok(Self { applied, membership, image })
    }

    fn meta(&self) -> SnapshotMeta<u64, BasicNode> {
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: self.applied.map_or_else(|| "empty".to_owned(), |id| id.to_string()),
        }
    }

    fn apply(&mut self, proposal: &Proposal, index: u64) -> Result<Outcome, DecodeError> {
        if proposal.based_on != self.image.version {
            return Ok(Outcome::Outdated);
        }
        let mut next = self.image.clone();
        next.apply(index, &decode_all(&proposal.records)?)?;
        self.image = next;
        Ok(Outcome::Applied { index })
    }
}

impl StateMachine {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        published: Arc<ArcSwap<Image>>,
    ) -> Result<Self, MetaError> {
        let path = dir.join("snapshot");
        let state = match FILE.read(&*disk, &path)? {
            Some((_, payload)) => State::decode(&payload)?,
            None => State::default(),
        };
        let machine = Self { disk, path, state, published };
        machine.publish();
        Ok(machine)
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.state.applied.is_none()
    }

    fn publish(&self) {
        self.published.store(Arc::new(self.state.image.clone()));
    }
}

impl RaftStateMachine<Group> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.state.applied, self.state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut outcomes = Vec::new();
        for entry in entries {
            let outcome = match &entry.payload {
                EntryPayload::Blank => Outcome::NoProposal,
                EntryPayload::Membership(membership) => {
                    self.state.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Outcome::NoProposal
                }
                EntryPayload::Normal(proposal) => {
                    let applied = self.state.apply(proposal, entry.log_id.index);
                    applied.map_err(|error| StorageIOError::apply(entry.log_id, AnyError::new(&error)))?
                }
            };
            self.state.applied = Some(entry.log_id);
            outcomes.push(outcome);
        }
        self.publish();
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { disk: Arc::clone(&self.disk), path: self.path.clone(), state: self.state.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = snapshot.into_inner();
        let refused = |error: AnyError| StorageIOError::read_snapshot(Some(meta.signature()), error);
        let state = State::decode(&bytes).map_err(|error| refused(AnyError::new(&error)))?;
        FILE.replace(&*self.disk, &self.path, &bytes).map_err(|error| refused(AnyError::new(&error)))?;
        self.state = state;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Group>>, StorageError> {
        let failed = |error: AnyError| StorageIOError::read_snapshot(None, error);
        let found = FILE.read(&*self.disk, &self.path).map_err(|error| failed(AnyError::new(&error)))?;
        let Some((_, bytes)) = found else { return Ok(None) };
        let meta = State::decode(&bytes).map_err(|error| failed(AnyError::new(&error)))?.meta();
        Ok(Some(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// Writes the state it was made with.
pub(super) struct Builder {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    state: State,
}

impl RaftSnapshotBuilder<Group> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Group>, StorageError> {
        let bytes = self.state.encode();
        let meta = self.state.meta();
        let written = FILE.replace(&*self.disk, &self.path, &bytes);
        written
            .map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(&error)))?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}
