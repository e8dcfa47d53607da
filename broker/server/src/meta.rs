//! The cluster's metadata: records, the image they make, the controller that decides, and the raft log that keeps them.
//! Invariant: a change is decided on the newest image and answered only after it is committed and applied.

pub mod controller;
mod encoding;
pub mod image;
mod raft;
pub mod records;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use aqueduct_log::{Disk, LogError};

pub use encoding::DecodeError;
pub use raft::MetaError;

use controller::Refusal;
use image::Image;
use raft::MetaRaft;
use records::Record;

/// Why a change of the metadata did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The change is decided, but the disk did not let it be carried out.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The metadata of this node and the way to change it.
pub struct Meta {
    raft: MetaRaft,
    /// One decision at a time, so that each sees the one before.
    deciding: Mutex<()>,
}

impl Meta {
    /// Opens the metadata in `dir`, which must exist.
    pub async fn open(disk: Arc<dyn Disk>, dir: &Path, address: String) -> Result<Self, MetaError> {
        let raft = MetaRaft::open(disk, dir, address).await?;
        Ok(Self { raft, deciding: Mutex::new(()) })
    }

    /// The newest image.
    pub fn image(&self) -> Arc<Image> {
        self.raft.image()
    }

    /// Gives the image that is the newest when it is called, wherever that may be.
    pub(crate) fn newest(&self) -> impl Fn() -> Arc<Image> + Send + 'static {
        self.raft.newest()
    }

    /// Commits what `decide` makes of the newest image. Without records nothing is written.
    pub async fn change<T>(
        &self,
        decide: impl FnOnce(&Image) -> Result<(T, Vec<Record>), Refusal>,
    ) -> Result<T, ChangeError> {
        let _turn = self.deciding.lock().await;
        let image = self.image();
        let (answer, records) = decide(&image)?;
        if !records.is_empty() {
            self.raft.propose(image.version, &records).await?;
        }
        Ok(answer)
    }

    /// Whether the metadata can be changed.
    pub fn check(&self) -> Result<(), MetaError> {
        self.raft.check()
    }

    /// Stops the group. Nothing can be changed afterwards.
    pub async fn shutdown(&self) {
        self.raft.shutdown().await;
    }
}
