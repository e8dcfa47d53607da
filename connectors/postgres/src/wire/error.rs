//! What can go wrong on a connection, and what the runtime shall do about it.

use std::io;

use aqueduct_core::{Error, ErrorKind};

/// An error that the server sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {code}){}", extra(.detail, .hint))]
pub(crate) struct ServerError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: String,
    pub(crate) hint: String,
}

fn extra(detail: &str, hint: &str) -> String {
    let mut text = String::new();
    for part in [detail, hint] {
        if !part.is_empty() {
            text.push_str("; ");
            text.push_str(part);
        }
    }
    text
}

impl ServerError {
    /// Reads the body of an ErrorResponse; fields it does not know are left out.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let mut error =
            Self { code: String::new(), message: String::new(), detail: String::new(), hint: String::new() };
        for field in body.split(|b| *b == 0) {
            let Some((tag, text)) = field.split_first() else { continue };
            let text = String::from_utf8_lossy(text).into_owned();
            match tag {
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = text,
                b'H' => error.hint = text,
                _ => {}
            }
        }
        error
    }
}

/// Any failure of a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PgError {
    #[error("the server answered with an error")]
    Server(#[from] ServerError),
    #[error("cannot connect to `{address}`")]
    Connect { address: String, source: io::Error },
    #[error("no answer from `{address}` within 10 s")]
    ConnectTimeout { address: String },
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("TLS: {0}")]
    Tls(String),
    #[error(
        "the server does not speak TLS; set `database.sslmode` to `prefer` or `disable`, or turn `ssl` on there"
    )]
    TlsRefused,
    #[error(
        "the server asks for authentication method {0}, which is not supported; use SCRAM-SHA-256 or md5"
    )]
    AuthMethod(i32),
    #[error("authentication failed: {0}")]
    Auth(String),
    #[error("the server sent what the protocol does not allow here: {0}")]
    Protocol(String),
}

impl PgError {
    /// The SQLSTATE, where the server gave one.
    pub(crate) fn code(&self) -> &str {
        match self {
            PgError::Server(error) => &error.code,
            _ => "",
        }
    }

    fn kind(&self) -> ErrorKind {
        let retriable = ErrorKind::Retriable { after: None };
        match self {
            PgError::Server(error) => kind_of_state(&error.code),
            PgError::Connect { .. } | PgError::ConnectTimeout { .. } | PgError::Io(_) | PgError::Closed => {
                retriable
            }
            PgError::Tls(_) | PgError::TlsRefused | PgError::AuthMethod(_) | PgError::Auth(_) => {
                ErrorKind::BadConfig
            }
            PgError::Protocol(_) => ErrorKind::Fatal,
        }
    }

    /// As the runtime wants it, with what was being done.
    pub(crate) fn during(self, doing: impl std::fmt::Display) -> Error {
        let kind = self.kind();
        let text = match &self {
            // The words of PostgreSQL 15 and 16.
            PgError::Server(error)
                if error.message.contains("walsender") || error.message.contains("WAL sender") =>
            {
                format!("{doing}: {error}; give the user that right with `ALTER ROLE … REPLICATION`")
            }
            PgError::Server(error) => format!("{doing}: {error}"),
            other => format!("{doing}: {other}"),
        };
        let error = Error::new(kind, text);
        match self {
            PgError::Connect { source, .. } | PgError::Io(source) => error.with_source(source),
            _ => error,
        }
    }
}

fn kind_of_state(code: &str) -> ErrorKind {
    match code {
        // 55006: the slot is in use; 55P03: a lock was not to be had; 57P0x: the server stops or starts.
        "55006" | "55P03" | "57P01" | "57P02" | "57P03" | "57P05" | "57014" => {
            ErrorKind::Retriable { after: None }
        }
        // No such database, no such parameter in the connection options.
        "3D000" | "42704" | "22023" => ErrorKind::BadConfig,
        // No privilege: one may be given while the task restarts, as it is told to ask for.
        "42501" => ErrorKind::Fatal,
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("40") => {
            ErrorKind::Retriable { after: None }
        }
        _ if code.starts_with("28") => ErrorKind::BadConfig,
        _ => ErrorKind::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_responses_are_read_field_by_field() {
        let body = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"x\"\0Hask\0\0";
        let error = ServerError::parse(body);
        assert_eq!(error.code, "28P01");
        let error = PgError::from(error).during("connecting");
        assert_eq!(error.kind(), ErrorKind::BadConfig);
        let want = "connecting: password authentication failed for user \"x\" (SQLSTATE 28P01); ask";
        assert_eq!(error.full(), want);
    }

    #[test]
    fn what_passes_by_itself_is_retried() {
        for code in ["57P01", "57P03", "08006", "53300", "55006", "40001"] {
            assert!(matches!(kind_of_state(code), ErrorKind::Retriable { .. }), "{code}");
        }
        assert_eq!(kind_of_state("XX000"), ErrorKind::Fatal);
    }

    #[test]
    fn what_a_grant_mends_is_no_wrong_config() {
        assert_eq!(kind_of_state("42501"), ErrorKind::Fatal);
        assert_eq!(kind_of_state("3D000"), ErrorKind::BadConfig);
    }
}
