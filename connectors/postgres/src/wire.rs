//! A small PostgreSQL client: connect (TLS, SCRAM), simple queries, COPY out and replication (CopyBoth).
//!
//! One client for everything, because what counts here is what general clients hide: bytes handed on as slices of
//! the read buffer, a read that can be abandoned at any point, and a say in when each status update is sent.
//!
//! **Invariant:** [`Session`] never buffers more than one message beyond its read size, and refuses a message larger
//! than PostgreSQL can send.

mod error;
mod frame;
mod session;
mod tls;

pub(crate) use error::{PgError, ServerError};
pub(crate) use frame::{Chunk, CopyFrames, Frame};
pub(crate) use session::{Endpoint, Mode, Row, Session, quote_ident, quote_literal};
pub(crate) use tls::{SslMode, TlsFiles};
