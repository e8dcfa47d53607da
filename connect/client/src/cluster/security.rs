//! TLS and SASL, by the names that the client library has for them.
//!
//! **Invariant:** what is asked for and not to be had is an error, never a connection with less protection.

use std::collections::BTreeMap;

use aqueduct_core::{Error, Result};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connection::{Connection, Stream};

/// How connections are protected.
pub(super) struct Security {}

/// How this client says who it is.
pub(super) enum Sasl {}

impl Sasl {
    pub(super) async fn authenticate(&self, _connection: &mut Connection, _deadline: Instant) -> Result<()> {
        match *self {}
    }
}

impl Security {
    /// From the library's settings.
    pub(super) fn new(settings: &BTreeMap<String, String>) -> Result<Self> {
        let protocol = settings.get("security.protocol").map_or("plaintext", String::as_str);
        if !protocol.eq_ignore_ascii_case("plaintext") {
            return Err(Error::bad_config(format!("`security.protocol={protocol}` is not supported here")));
        }
        Ok(Self {})
    }

    pub(super) fn sasl(&self) -> Option<&Sasl> {
        None
    }

    /// The stream, protected.
    pub(super) async fn wrap(&self, stream: TcpStream, _host: &str) -> Result<Box<dyn Stream>, String> {
        Ok(Box::new(stream))
    }
}
