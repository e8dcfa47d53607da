//! The broker as clients see it: over sockets, across restarts and power losses.

mod client;
mod power_loss;
mod serving;
mod support;
