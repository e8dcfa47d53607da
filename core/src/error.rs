//! The one error of component code, and the kind that decides what the runtime does about it.
//!
//! **Invariant:** retry, dead letter or stop is chosen by [`ErrorKind`] alone, in one `match` in the runtime.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// Shorthand for results of component code.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the runtime does about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try the same call again, after the given pause or the runtime's back-off. For outages of the other system.
    Retriable {
        /// Pause the other system asked for, such as `Retry-After`.
        after: Option<Duration>,
    },
    /// This record can never pass. It becomes a dead letter, or stops the task where dead letters are off.
    BadRecord,
    /// The configuration is wrong. The task fails and is not restarted until the configuration changes.
    BadConfig,
    /// The task cannot go on. It fails, and is restarted with back-off from its last position.
    Fatal,
    /// The call was abandoned because the task is stopping. Never reported.
    Cancelled,
}

/// An error with its kind, a message for the user and its cause.
///
/// Messages are lower case, name the key, file, line or record, and say what to do.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// [`ErrorKind::Retriable`] with the runtime's own back-off.
    pub fn retriable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Retriable { after: None }, message)
    }

    /// [`ErrorKind::BadRecord`].
    pub fn bad_record(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRecord, message)
    }

    /// [`ErrorKind::BadConfig`].
    pub fn bad_config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadConfig, message)
    }

    /// [`ErrorKind::Fatal`].
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fatal, message)
    }

    /// [`ErrorKind::Cancelled`].
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the task is stopping")
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts what was being done in front of the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the runtime may try the same call again.
    pub fn is_retriable(&self) -> bool {
        matches!(self.kind, ErrorKind::Retriable { .. })
    }

    /// The message followed by every cause, `: `-separated, for status and logs.
    pub fn full(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let part = error.to_string();
            // Some libraries repeat their cause in their own message.
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.full())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_text_carries_every_cause_once() {
        let io = std::io::Error::other("connection refused");
        let error = Error::retriable("cannot reach `db:5432`").with_source(io).context("task `orders-0`");
        assert_eq!(error.full(), "task `orders-0`: cannot reach `db:5432`: connection refused");
        assert!(error.is_retriable());
    }
}
