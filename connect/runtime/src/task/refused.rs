//! The runtime's side of a sink task: what it refuses and asks for.

use std::sync::Arc;

use aqueduct_core::Error;
use aqueduct_core::sink::{SinkHandle, SinkRecord};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::metrics::{Call, ConnectorStats};

/// Collects refused records until the runtime has written their dead letters. Bounded by the batch that is put and by
/// what the task itself buffers.
#[derive(Default)]
pub(crate) struct Refused {
    records: Mutex<Vec<(SinkRecord, Error)>>,
    commit: Notify,
}

impl Refused {
    /// What was refused since the last call.
    pub(crate) fn take(&self) -> Vec<(SinkRecord, Error)> {
        std::mem::take(&mut *self.records.lock())
    }

    /// Waits until the task asks for a commit. Cancel-safe.
    pub(crate) async fn commit_requested(&self) {
        self.commit.notified().await;
    }
}

/// What the task holds.
pub(crate) struct Handle {
    pub(crate) refused: Arc<Refused>,
    pub(crate) stats: Arc<ConnectorStats>,
    pub(crate) task: usize,
}

impl SinkHandle for Handle {
    fn refuse(&self, record: SinkRecord, error: Error) {
        self.refused.records.lock().push((record, error));
    }

    fn request_commit(&self) {
        self.refused.commit.notify_one();
    }

    fn retrying(&self, error: Option<&Error>) {
        match error {
            Some(error) => self.stats.trying_again(self.task, Call::Deliver, error),
            None => self.stats.works(self.task, Call::Deliver),
        }
    }
}
