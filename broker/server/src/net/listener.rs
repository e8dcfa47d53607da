//! Accepts connections up to a limit and serves each in a task of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Service;
use super::connection::{Peer, serve};
use crate::config::Limits;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Pause after a failed accept, such as one for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Opens the listening socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The two ways in which connections are ended.
#[derive(Debug, Clone)]
pub(crate) struct Stops {
    /// Answers under way are still sent.
    pub(crate) stop: CancellationToken,
    /// At once.
    pub(crate) kill: CancellationToken,
}

/// Serves until `stop` is cancelled; then nobody is accepted any more, and the connections, which live in `tasks`, send
/// the answers under way and end.
pub(crate) async fn listen(
    listener: TcpListener,
    service: Arc<dyn Service>,
    limits: Arc<Limits>,
    tasks: TaskTracker,
    stops: Stops,
) {
    let room = Arc::new(Semaphore::new(limits.max_connections));
    let mut refused = 0_u64;
    loop {
        let accepted = tokio::select! {
            () = stops.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            refused += 1;
            service.refused();
            if refused.is_power_of_two() {
                let limit = limits.max_connections;
                tracing::warn!(refused, limit, "refused a connection: raise `limits.max_connections`");
            }
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection keeps its delays");
        }
        let (service, limits, stops) = (Arc::clone(&service), Arc::clone(&limits), stops.clone());
        let place = (place, service.connected());
        tasks.spawn(async move {
            tokio::select! {
                () = stops.kill.cancelled() => {}
                () = serve(stream, Peer { address }, service, limits, stops.stop) => {}
            }
            drop(place);
        });
    }
}
