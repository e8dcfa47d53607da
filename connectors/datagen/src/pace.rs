//! How many records are due: a steady rate, without a wake-up for every record. Pure; the clock is a parameter.

use std::time::{Duration, Instant};

/// Shortest pause between two batches.
const TICK: Duration = Duration::from_millis(10);

/// Most records of a batch.
const BATCH: u64 = 1000;

/// A rate in records per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: u64,
    since: Instant,
    /// Records made since `since`.
    made: u64,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Make so many.
    Now(u64),
    /// Wait until then.
    At(Instant),
}

impl Pace {
    /// `rate` 0 is as fast as the log takes them.
    pub(crate) fn new(rate: u64, now: Instant) -> Self {
        Self { rate, since: now, made: 0 }
    }

    /// How many are due; the first at once.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if self.rate == 0 {
            return Due::Now(BATCH);
        }
        let elapsed = now.saturating_duration_since(self.since);
        let target = (elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000) as u64 + 1;
        if target > self.made + self.rate + BATCH {
            // The log pushed back for more than a second; what was missed is not made up for in a burst.
            self.since = now;
            self.made = 0;
            return Due::Now(1);
        }
        if target > self.made {
            return Due::Now((target - self.made).min(BATCH));
        }
        let next = Duration::from_nanos(
            (u128::from(self.made) * 1_000_000_000).div_ceil(u128::from(self.rate)) as u64,
        );
        Due::At((self.since + next).max(now + TICK))
    }

    /// So many were made.
    pub(crate) fn made(&mut self, count: u64) {
        self.made += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: u64, seconds: u64) -> u64 {
        let start = Instant::now();
        let (mut now, mut total) = (start, 0);
        let mut pace = Pace::new(rate, start);
        while now < start + Duration::from_secs(seconds) {
            match pace.due(now) {
                Due::Now(count) => {
                    total += count;
                    pace.made(count);
                }
                Due::At(at) => {
                    assert!(at >= now + TICK);
                    now = at;
                }
            }
        }
        total
    }

    #[test]
    fn the_rate_is_kept() {
        for rate in [1, 3, 100, 999, 50_000] {
            let made = run(rate, 10);
            assert!(made.abs_diff(rate * 10) <= 1 + rate / 50, "{made} at {rate}/s");
        }
    }

    #[test]
    fn a_stall_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(100, start);
        assert_eq!(pace.due(start), Due::Now(1));
        pace.made(1);
        assert_eq!(pace.due(start + Duration::from_secs(3600)), Due::Now(1));
    }

    #[test]
    fn without_a_rate_batches_are_full() {
        assert_eq!(Pace::new(0, Instant::now()).due(Instant::now()), Due::Now(BATCH));
    }
}
