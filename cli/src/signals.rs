//! SIGINT and SIGTERM: the first asks for an orderly stop, the second stops at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::failure::Failure;

const SAME_WISH: Duration = Duration::from_millis(250);

/// Both signals, from the moment this is made.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next of either. Cancel-safe.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Runs an orderly stop; another signal ends the wait. What arrives right behind the first one is the same wish: a
    /// supervisor and a terminal often signal process and group.
    pub(crate) async fn or_at_once<T>(&mut self, stop: impl Future<Output = T>) -> Result<T, Failure> {
        let mut stop = std::pin::pin!(stop);
        let until = Instant::now() + SAME_WISH;
        loop {
            tokio::select! {
                done = &mut stop => return Ok(done),
                _ = self.next() => if Instant::now() > until { break },
            }
        }
        Err(Failure::failed("stopped at once by a second signal; the next start recovers"))
    }
}
