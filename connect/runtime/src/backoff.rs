//! How long to wait before a call is tried again, and before a failed task is restarted. Pure: the clock is a parameter.

use std::time::Duration;

/// `errors.retry.*`: retries of a call within a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// How long a call may fail before it counts as failed; `None` is for ever.
    pub(crate) timeout: Option<Duration>,
    /// Longest pause.
    pub(crate) max_delay: Duration,
}

impl RetryPolicy {
    const FIRST: Duration = Duration::from_millis(300);

    /// The pause before try `attempt` + 1, or `None` when the time is used up after `elapsed`.
    pub(crate) fn pause(&self, attempt: u32, elapsed: Duration) -> Option<Duration> {
        if self.timeout.is_some_and(|timeout| elapsed >= timeout) {
            return None;
        }
        Some(self.outage_pause(attempt))
    }

    /// The pause between tries of a call that is tried for ever, such as a put while the other system is down.
    pub(crate) fn outage_pause(&self, attempt: u32) -> Duration {
        doubled(Self::FIRST, attempt, self.max_delay)
    }
}

/// `errors.restart.*`: restarts of failed tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestartPolicy {
    /// Whether failed tasks restart by themselves.
    pub(crate) enabled: bool,
    /// Pause before the first restart.
    pub(crate) first: Duration,
    /// Longest pause.
    pub(crate) max: Duration,
}

/// Counts the restarts of one task. A run that lasted longer than the longest pause starts the count anew.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RestartCount {
    attempt: u32,
}

impl RestartCount {
    /// The pause before the next restart after a run of that length, or `None` when restarts are off.
    pub(crate) fn next(&mut self, policy: &RestartPolicy, ran: Duration) -> Option<Duration> {
        if !policy.enabled {
            return None;
        }
        if ran > policy.max {
            self.attempt = 0;
        }
        let pause = doubled(policy.first, self.attempt, policy.max);
        self.attempt = self.attempt.saturating_add(1);
        Some(pause)
    }

    /// How many restarts in a row.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempt
    }
}

fn doubled(first: Duration, attempt: u32, max: Duration) -> Duration {
    first.saturating_mul(2u32.saturating_pow(attempt.min(20))).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestartPolicy =
        RestartPolicy { enabled: true, first: Duration::from_secs(1), max: Duration::from_secs(60) };

    #[test]
    fn restarts_wait_twice_as_long_each_time_up_to_the_longest_pause() {
        let mut count = RestartCount::default();
        let pauses: Vec<u64> =
            (0..8).filter_map(|_| count.next(&POLICY, Duration::ZERO)).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_long_run_starts_the_count_anew() {
        let mut count = RestartCount::default();
        for _ in 0..5 {
            count.next(&POLICY, Duration::ZERO);
        }
        assert_eq!(count.next(&POLICY, Duration::from_secs(61)), Some(Duration::from_secs(1)));
        assert_eq!(count.attempts(), 1);
    }

    #[test]
    fn restarts_can_be_switched_off() {
        let policy = RestartPolicy { enabled: false, ..POLICY };
        assert_eq!(RestartCount::default().next(&policy, Duration::ZERO), None);
    }

    #[test]
    fn retries_end_with_the_timeout_and_never_end_without_one() {
        let max_delay = Duration::from_secs(60);
        let none = RetryPolicy { timeout: Some(Duration::ZERO), max_delay };
        assert_eq!(none.pause(0, Duration::ZERO), None);
        let some = RetryPolicy { timeout: Some(Duration::from_secs(1)), max_delay };
        assert_eq!(some.pause(0, Duration::ZERO), Some(Duration::from_millis(300)));
        assert_eq!(some.pause(2, Duration::from_secs(1)), None);
        let ever = RetryPolicy { timeout: None, max_delay };
        assert_eq!(ever.pause(1000, Duration::from_secs(1 << 30)), Some(max_delay));
    }
}
