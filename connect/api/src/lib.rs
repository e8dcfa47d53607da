//! The REST API, as Kafka Connect's: same paths, shapes and status codes; and health and metrics.
//!
//! **Invariant:** reads answer from memory and never with 409; nothing is changed by a request that [`guard`] refuses.

mod connectors;
mod error;
pub mod guard;
mod metrics;
mod plugins;
mod server;

pub use error::ApiError;
pub use metrics::{MetricsSource, render};
pub use server::{ApiConfig, LogConfig, bind, serve, serve_log};
