//! What is on the terminal: a block of live lines at the bottom, everything else scrolling above it.
//!
//! **Invariant:** the block is taken away before anything else is written, and whoever reads a pipe gets plain lines.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

/// The terminal, or what stands in for it.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    block: Mutex<Vec<String>>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), block: Mutex::new(Vec::new()) }
    }

    /// Whether lines can be redrawn.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Replaces the live lines.
    pub(crate) fn draw(&self, lines: Vec<String>) {
        let mut block = self.lock();
        print(&format!("{}{}", erase(block.len()), rejoin(&lines)));
        *block = lines;
    }

    /// Takes the live lines away for good.
    pub(crate) fn clear(&self) {
        let mut block = self.lock();
        print(&erase(block.len()));
        block.clear();
    }

    /// A line of output above the live lines.
    pub(crate) fn line(&self, line: &str) {
        let block = self.lock();
        print(&format!("{}{line}\n{}", erase(block.len()), rejoin(&block)));
    }

    /// Bytes of the log, on standard error, above the live lines.
    pub(crate) fn log(&self, text: &[u8]) {
        let block = self.lock();
        print(&erase(block.len()));
        // A log that cannot be written has nowhere to complain.
        io::stderr().lock().write_all(text).ok();
        print(&rejoin(&block));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        // A panic while drawing leaves at worst a line too many on the terminal.
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The terminal cuts what is too long: a line that wraps could not be taken away again.
fn rejoin(block: &[String]) -> String {
    if block.is_empty() {
        return String::new();
    }
    let lines: String = block.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    format!("\x1b[?7l{lines}\x1b[?7h")
}

fn erase(lines: usize) -> String {
    match lines {
        0 => String::new(),
        // Up to the first line of the block, and clear from there to the end.
        lines => format!("\x1b[{lines}A\x1b[0J"),
    }
}

fn print(text: &str) {
    if text.is_empty() {
        return;
    }
    let mut out = io::stdout().lock();
    // A reader that went away is no reason to stop moving data.
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_taken_away_line_by_line_and_never_wraps() {
        assert_eq!(erase(0), "");
        assert_eq!(erase(2), "\x1b[2A\x1b[0J");
        assert_eq!(rejoin(&[]), "");
        assert_eq!(rejoin(&["a".into(), "b".into()]), "\x1b[?7la\nb\n\x1b[?7h");
    }
}
