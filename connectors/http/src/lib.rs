//! `http`, a sink that sends records to an HTTP server, and `webhook`, a source that takes them by requests.
//!
//! The sink:
//!
//! * One request at a time per partition, in the order of the log, also while one is tried again. Partitions do not wait
//!   for each other.
//! * 408, 425, 429, 5xx, broken connections and timeouts are tried again for as long as it takes, with jitter and as
//!   `Retry-After` asks.
//! * A batch that the server refuses is split until the record that it refuses stands alone; only that one becomes a dead
//!   letter.
//! * Redirects are answers, not directions: nothing is sent to a place that the configuration does not name.
//!
//! **Invariant:** an offset counts as durable when every record up to it was answered with 2xx, was handed back as
//! refused, or was left out by configuration.
//!
//! The source answers 2xx only when every record of a request, or its dead letter, is durable in the log; see
//! [`Webhook`].

mod config;
mod sink;
mod webhook;

pub use sink::HttpSink;
pub use webhook::Webhook;
