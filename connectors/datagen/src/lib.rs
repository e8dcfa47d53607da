//! `datagen`: a source of generated orders, for trying things out and for measuring.
//!
//! **Invariant:** the order with number `n` is a function of `seed` and `n` alone, so a restart continues the
//! sequence where its position stands, without a gap.

mod order;
mod pace;
mod source;

pub use source::Datagen;
