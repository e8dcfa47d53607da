//! What a guest logs, on its way to the log of the process.
//!
//! **Invariant:** a line has at most [`LINE`] bytes and no control characters, and a guest writes at most [`LINES`] lines
//! per [`WINDOW`]; how many were dropped is said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::bindings::aqueduct::transform::logging::Level;

const LINE: usize = 1024;
const LINES: u32 = 50;
const WINDOW: Duration = Duration::from_secs(10);

/// The log of one step's guest. Shared by its instances, so that a new one does not start the count again.
#[derive(Clone)]
pub(crate) struct GuestLog {
    module: Arc<str>,
    count: Arc<Mutex<Count>>,
}

struct Count {
    since: Instant,
    lines: u32,
    dropped: u64,
}

impl GuestLog {
    pub(crate) fn new(module: Arc<str>) -> Self {
        let count = Count { since: Instant::now(), lines: 0, dropped: 0 };
        Self { module, count: Arc::new(Mutex::new(count)) }
    }

    pub(crate) fn line(&self, level: Level, text: &str) {
        let Some(dropped) = self.count.lock().admit(Instant::now()) else { return };
        let module = &*self.module;
        if dropped > 0 {
            tracing::warn!(target: "aqueduct::plugin", module, "{dropped} lines of the plugin were dropped");
        }
        let text = clean(text, LINE);
        match level {
            Level::Debug => tracing::debug!(target: "aqueduct::plugin", module, "{text}"),
            Level::Info => tracing::info!(target: "aqueduct::plugin", module, "{text}"),
            Level::Warn => tracing::warn!(target: "aqueduct::plugin", module, "{text}"),
            Level::Error => tracing::error!(target: "aqueduct::plugin", module, "{text}"),
        }
    }
}

impl Count {
    /// Whether a line may pass, and how many were dropped before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WINDOW {
            self.since = now;
            self.lines = 0;
        }
        if self.lines >= LINES {
            self.dropped += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

/// A guest's text made fit for a log or an error: cut, on one line.
pub(crate) fn clean(text: &str, bytes: usize) -> String {
    let end = text.floor_char_boundary(bytes);
    let mut clean: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if end < text.len() {
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_counted() {
        assert_eq!(clean("a\nb", 10), "a b");
        assert_eq!(clean("äää", 3), "ä…");
        let start = Instant::now();
        let mut count = Count { since: start, lines: 0, dropped: 0 };
        let passed = (0..200).filter(|_| count.admit(start).is_some()).count();
        assert_eq!(passed, LINES as usize);
        assert_eq!(count.admit(start + WINDOW), Some(200 - u64::from(LINES)));
    }
}
