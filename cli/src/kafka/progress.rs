//! How far a long command is, on standard error, where that is a terminal and nobody types into it.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(250);

/// A line that is written again and again.
pub(super) struct Progress {
    shown: bool,
    enabled: bool,
    begun: Instant,
    last: Instant,
}

impl Progress {
    pub(super) fn new(enabled: bool) -> Self {
        let now = Instant::now();
        Self { shown: false, enabled: enabled && io::stderr().is_terminal(), begun: now, last: now }
    }

    /// Shows the counts when it is time to.
    pub(super) fn tell(&mut self, records: u64, bytes: u64) {
        if !self.enabled || self.last.elapsed() < EVERY {
            return;
        }
        self.last = Instant::now();
        self.shown = true;
        let rate = records as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        eprint!("\r\x1b[2K{records} records, {}, {rate:.0}/s", size(bytes));
        // Nobody can be told of what the terminal refuses.
        io::stderr().flush().ok();
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[2K");
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `1 record`, `2 records`.
pub(super) fn records(count: u64) -> String {
    if count == 1 { "1 record".into() } else { format!("{count} records") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_are_for_people() {
        assert_eq!((size(0), size(1023), size(1536)), ("0 B".into(), "1023 B".into(), "1.5 KiB".into()));
        assert_eq!(size(3 << 40), "3.0 TiB");
        assert_eq!((records(1), records(2)), ("1 record".into(), "2 records".into()));
    }
}
