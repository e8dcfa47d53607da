//! Acknowledgements on their way from the client's thread to the task.

use aqueduct_client::{Delivered, DeliveryListener};
use aqueduct_core::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Collects them. Bounded by what the producer has under way.
#[derive(Default)]
pub(crate) struct AckQueue {
    inner: Mutex<Inner>,
    notify: Notify,
}

#[derive(Default)]
struct Inner {
    tokens: Vec<u64>,
    /// The first record that will never be written.
    failed: Option<(u64, Error)>,
}

impl AckQueue {
    /// Waits until there is something to take. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Takes the tokens acknowledged since the last call; the first failure, with its token, ends the epoch.
    pub(crate) fn take(&self, into: &mut Vec<u64>) -> Result<(), (u64, Error)> {
        into.clear();
        let mut inner = self.inner.lock();
        std::mem::swap(&mut inner.tokens, into);
        match inner.failed.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

impl DeliveryListener for AckQueue {
    fn delivered(&self, token: u64, result: Result<Delivered>) {
        let mut inner = self.inner.lock();
        let waiting = !inner.tokens.is_empty();
        match result {
            Ok(_) => inner.tokens.push(token),
            Err(error) if inner.failed.is_none() => inner.failed = Some((token, error)),
            Err(_) => return,
        }
        drop(inner);
        if !waiting {
            self.notify.notify_one();
        }
    }
}
