//! The sink against a real S3 server.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their harness too")]

#[path = "server/faults.rs"]
mod faults;
#[path = "server/harness.rs"]
mod harness;
#[path = "server/objects.rs"]
mod objects;
#[path = "server/parquet.rs"]
mod parquet;
#[path = "server/proxy.rs"]
mod proxy;
