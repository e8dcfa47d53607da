//! The broker as clients see it: over sockets, across restarts and power losses.

mod admin;
mod client;
mod metrics;
mod power_loss;
mod serving;
mod sessions;
mod support;
