//! Black-box tests of the real binary with real servers and real clients.

mod adversity;
mod capture;
mod cli;
mod clients;
mod dead_letters;
mod hostile;
mod kills;
mod log_compaction;
mod log_dump;
mod log_kills;
mod powerloss;
mod runtime;
mod stops;
