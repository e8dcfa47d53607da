//! The slow-request log: which request took long, and where the time went.
//! Invariant: at most one line a second, however many requests are slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use aqueduct_wire::messages::ApiKey;

use crate::api::Ask;

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the time of one request goes.
#[derive(Debug)]
pub(crate) struct Trace {
    ask: Ask,
    /// When all of its bytes were there.
    arrived: Instant,
    /// How long it waited for its turn on its connection.
    queued: Duration,
    /// Time in which something was done for it, as opposed to waited.
    local: Duration,
    ended: Option<Instant>,
}

impl Trace {
    pub(crate) fn new(ask: Ask, arrived: Instant) -> Self {
        Self { ask, arrived, queued: arrived.elapsed(), local: Duration::ZERO, ended: None }
    }

    pub(crate) fn api(&self) -> ApiKey {
        self.ask.api
    }

    /// Does a part of the work.
    pub(crate) fn work<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        let ended = Instant::now();
        self.local += ended - begun;
        self.ended = Some(ended);
        done
    }

    /// From its last byte to its answer.
    pub(crate) fn total(&self) -> Duration {
        self.ended.map_or(Duration::ZERO, |ended| ended - self.arrived)
    }

    /// What counts as slow: these APIs wait because they are asked to.
    fn judged(&self) -> Duration {
        match self.ask.api {
            ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup => self.queued + self.local,
            _ => self.total(),
        }
    }
}

/// Counts slow requests and names some of them.
#[derive(Debug)]
pub(crate) struct SlowRequests {
    threshold: Duration,
    begun: Instant,
    slow: Counter,
    /// Milliseconds after `begun` from which on a line may be written.
    next: AtomicU64,
    unnamed: AtomicU64,
}

impl SlowRequests {
    /// Zero turns it off.
    pub(super) fn new(threshold: Duration) -> Self {
        Self {
            threshold,
            begun: Instant::now(),
            slow: Counter::default(),
            next: AtomicU64::new(0),
            unnamed: AtomicU64::new(0),
        }
    }

    pub(super) fn counter(&self) -> &Counter {
        &self.slow
    }

    pub(super) fn look_at(&self, trace: &Trace) {
        if self.threshold.is_zero() || trace.judged() < self.threshold {
            return;
        }
        self.slow.inc();
        let Some(unnamed) = self.may_write(self.begun.elapsed()) else { return };
        let wait = trace.total().saturating_sub(trace.queued + trace.local);
        tracing::warn!(
            api = trace.ask.api.name(),
            version = trace.ask.version,
            client = %trace.ask.client_id,
            peer = %trace.ask.peer.address,
            total = ?trace.total(),
            queue = ?trace.queued,
            local = ?trace.local,
            remote = ?wait,
            unnamed,
            "a slow request",
        );
    }

    /// How many went unnamed since the last line, if it is time for one.
    fn may_write(&self, now: Duration) -> Option<u64> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (now, pause) = (millis(now), millis(PAUSE));
        let next = self.next.load(Ordering::Relaxed);
        let free = now >= next
            && self.next.compare_exchange(next, now + pause, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if free {
            return Some(self.unnamed.swap(0, Ordering::Relaxed));
        }
        self.unnamed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_there_were_in_between() {
        let slow = SlowRequests::new(Duration::from_millis(1));
        let at = |ms| slow.may_write(Duration::from_millis(ms));
        assert_eq!([at(0), at(1), at(999), at(1_000), at(2_500)], [Some(0), None, None, Some(2), Some(0)]);
    }
}
