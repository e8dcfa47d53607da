//! Tells that compaction has new work, as soon as it may begin with it.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rung once the recovery point above a finished segment of a compacted topic is stored.
#[derive(Default)]
pub(crate) struct Bell {
    due: AtomicBool,
    ring: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("due", &self.due).finish_non_exhaustive()
    }
}

impl Bell {
    /// Who listens; the first one stays.
    pub(crate) fn listen(&self, ring: Box<dyn Fn() + Send + Sync>) {
        drop(self.ring.set(ring));
    }

    /// A finished segment was synced; compaction waits for the next store of the recovery points.
    pub(super) fn set(&self) {
        self.due.store(true, Ordering::Release);
    }

    /// To be asked before the recovery points are stored: whether [`Self::ring`] is due after that.
    pub(super) fn take(&self) -> bool {
        self.due.swap(false, Ordering::AcqRel)
    }

    pub(super) fn ring(&self) {
        if let Some(ring) = self.ring.get() {
            ring();
        }
    }
}
