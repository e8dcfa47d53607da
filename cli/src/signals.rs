//! SIGINT and SIGTERM: the first asks for an orderly stop, the second stops at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

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

    /// Runs an orderly stop; another signal ends the wait.
    pub(crate) async fn or_at_once<T>(&mut self, stop: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            done = stop => Ok(done),
            name = self.next() => Err(Failure::failed(format!("stopped at once by a second {name}; the next start recovers"))),
        }
    }
}
