//! Black-box tests of the real binary with real servers and real clients.

mod clients;
mod powerloss;
