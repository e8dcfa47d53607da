//! `http`: a sink that sends records to an HTTP server.
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

mod config;
mod sink;

pub use sink::HttpSink;
