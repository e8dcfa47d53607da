//! `postgres-cdc` against a real PostgreSQL, with a driver in place of the runtime.

mod debezium;
mod driver;
mod server;

mod failures;
mod shapes;
mod way;
