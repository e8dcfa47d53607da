//! Fetches that wait for data: woken when a high watermark rises, without a timer per partition.
//! Invariant: a waiter is registered before the partition is looked at, so a rise in between is never missed, and it is
//! gone from every list once its fetch ends.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One waiting fetch.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    notify: Notify,
}

impl Waiter {
    /// Returns at once when a wake came since the last call.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// The fetches that wait for one partition.
#[derive(Debug, Default)]
pub(crate) struct Purgatory {
    waiters: Mutex<Vec<Arc<Waiter>>>,
}

impl Purgatory {
    pub(crate) fn watch(&self, waiter: &Arc<Waiter>) {
        self.waiters.lock().push(Arc::clone(waiter));
    }

    pub(crate) fn unwatch(&self, waiter: &Arc<Waiter>) {
        self.waiters.lock().retain(|other| !Arc::ptr_eq(other, waiter));
    }

    /// There is something new.
    pub(crate) fn wake(&self) {
        for waiter in &*self.waiters.lock() {
            waiter.notify.notify_one();
        }
    }

    pub(crate) fn is_watched(&self) -> bool {
        !self.waiters.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wake_before_the_wait_is_not_lost() {
        let (purgatory, waiter) = (Purgatory::default(), Arc::new(Waiter::default()));
        purgatory.watch(&waiter);
        purgatory.wake();
        waiter.woken().await;
        purgatory.unwatch(&waiter);
        assert!(!purgatory.is_watched());
    }
}
