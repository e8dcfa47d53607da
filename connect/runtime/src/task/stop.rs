//! A stop that was asked for, and how its time is shared out.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aqueduct_core::{Error, Result};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a stop waits for the call in hand, such as a batch on its way to the other system.
const GRACE: Duration = Duration::from_secs(2);

/// A task's cancellation, and the time by which it is abandoned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    token: CancellationToken,
    by: Arc<OnceLock<Instant>>,
}

impl Stop {
    /// Asks the task to end by then.
    pub(crate) fn ask(&self, by: Instant) {
        // The first one counts.
        self.by.set(by).ok();
        self.token.cancel();
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the stop is asked for.
    pub(crate) async fn asked(&self) {
        self.token.cancelled().await;
    }

    /// Waits until the stop was asked for and the call in hand has had its time.
    pub(crate) async fn overdue(&self) {
        self.asked().await;
        tokio::time::sleep(self.share(GRACE)).await;
    }

    /// No more than `most`, and half of what is left, so that something is left for what comes after.
    pub(crate) fn share(&self, most: Duration) -> Duration {
        let left = self.by.get().map(|by| by.saturating_duration_since(Instant::now()));
        left.map_or(most, |left| most.min(left / 2))
    }

    /// Does a part of the stop within its share of the time.
    pub(crate) async fn within<T>(&self, most: Duration, part: impl Future<Output = Result<T>>) -> Result<T> {
        let share = self.share(most);
        match tokio::time::timeout(share, part).await {
            Ok(result) => result,
            Err(_) => Err(Error::retriable(format!("not done within {share:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_shared_out() {
        let stop = Stop::default();
        let second = Duration::from_secs(1);
        assert_eq!(stop.share(10 * second), 10 * second);
        stop.ask(Instant::now() + 8 * second);
        assert_eq!(stop.share(10 * second), 4 * second);
        assert_eq!(stop.share(second), second);
        let began = Instant::now();
        stop.overdue().await;
        assert_eq!(began.elapsed(), GRACE);
        let late = stop.within(10 * second, std::future::pending::<Result<()>>()).await;
        assert!(late.expect_err("too late").is_retriable());
        assert_eq!(began.elapsed(), GRACE + 3 * second);
    }
}
