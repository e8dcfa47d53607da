//! The only place where the broker reads a clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by the wall clock, for what is stored.
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A clock that starts as the wall clock and never jumps, for deadlines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SteadyClock {
    wall: i64,
    start: Instant,
}

impl SteadyClock {
    pub(crate) fn new() -> Self {
        Self { wall: wall_ms(), start: Instant::now() }
    }

    pub(crate) fn now(&self) -> i64 {
        self.wall.saturating_add(i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}
