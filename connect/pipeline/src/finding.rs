//! What is wrong with a file, and where.
//!
//! **Invariant:** a message is written from keys, types and literal text of the file, never from a resolved reference.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in a file; both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The place; `None` when it is about the file as a whole.
    pub at: Option<Position>,
    /// What is wrong and what to do.
    pub message: String,
}

impl Finding {
    /// A finding about a file as a whole.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), at: None, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{}:{}:{}: {}", self.file.display(), at.line, at.column, self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// All findings, one a line, in the order of the file.
pub fn render(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}

/// Findings of one file while they are gathered.
#[derive(Debug)]
pub(crate) struct Findings {
    file: PathBuf,
    found: Vec<Finding>,
}

impl Findings {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), found: Vec::new() }
    }

    pub(crate) fn add(&mut self, at: Position, message: impl Into<String>) {
        self.found.push(Finding { file: self.file.clone(), at: Some(at), message: message.into() });
    }

    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// In the order of the file, each once.
    pub(crate) fn finish(mut self) -> Vec<Finding> {
        self.found.sort_by_key(|finding| finding.at);
        self.found.dedup();
        self.found
    }
}
