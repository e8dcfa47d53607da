//! The errors of the log. They are cheap to clone, because one failed write or fsync answers every waiter.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of a log operation.
pub type Result<T, E = LogError> = std::result::Result<T, E>;

/// What can go wrong below the partition.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The operating system refused an operation.
    #[error("cannot {op} `{}`: {source}", path.display())]
    Io { op: &'static str, path: PathBuf, source: Arc<io::Error> },
    /// A file of ours does not hold what was written to it.
    #[error("`{}` is corrupt at byte {position}: {what}; {advice}", path.display())]
    Corrupt { path: PathBuf, position: u64, what: String, advice: String },
    /// A file was written by a later version.
    #[error(
        "`{}` has format version {found}, this build reads up to {supported}; start the newer version again",
        path.display()
    )]
    NewerFormat { path: PathBuf, found: u32, supported: u32 },
    /// Another process owns the data directory.
    #[error(
        "data directory `{}` is in use by process {pid}; stop it or choose another `--data-dir`",
        dir.display()
    )]
    Locked { dir: PathBuf, pid: String },
    /// The data directory belongs to another cluster or node.
    #[error("data directory `{}` {what}; choose another `--data-dir`", dir.display())]
    WrongDirectory { dir: PathBuf, what: String },
    /// The log directory or the partition takes no more requests (KAFKA_STORAGE_ERROR).
    #[error("{what} is offline: {reason}")]
    Offline { what: String, reason: String },
    /// The offset is neither in the log nor its end.
    #[error("offset {offset} is outside of the log, which holds {start} to {end}")]
    OffsetOutOfRange { offset: i64, start: i64, end: i64 },
    /// The caller asked for what cannot be.
    #[error("{0}")]
    Invalid(String),
}

impl LogError {
    /// Wraps what the operating system said about `path`.
    pub fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { op, path: path.to_owned(), source: Arc::new(source) }
    }

    /// A corrupt file that the program cannot mend alone.
    pub(crate) fn corrupt(path: &Path, position: u64, what: impl Into<String>) -> Self {
        let advice = "restore the file from a copy".to_owned();
        Self::Corrupt { path: path.to_owned(), position, what: what.into(), advice }
    }

    /// The same error with other advice, where the caller knows better what to do.
    pub(crate) fn with_advice(&self, advice: &str) -> Self {
        let mut error = self.clone();
        if let Self::Corrupt { advice: a, .. } = &mut error {
            advice.clone_into(a);
        }
        error
    }

    /// Whether the disk is full: what was asked for may succeed after space was made.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
