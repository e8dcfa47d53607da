//! Sockets: frames in, answers out, in order and within limits.

mod connection;
mod frame;
mod listener;

pub(crate) use connection::{Answer, Peer, Reply};
pub(crate) use listener::{Stops, bind, listen};

/// Turns a request into its answer. Called in the order in which requests arrive; what must happen in that order (an
/// append) happens in the call, the rest in the future it returns.
pub(crate) trait Service: Send + Sync + 'static {
    /// `arrived` is when its last byte did.
    fn call(&self, frame: bytes::Bytes, peer: &Peer, arrived: std::time::Instant) -> Answer;

    /// A client has connected; what is given lives as long as its connection.
    fn connected(&self) -> crate::metrics::Held;

    /// There was no room for a client.
    fn refused(&self);
}
