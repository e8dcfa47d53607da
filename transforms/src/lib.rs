//! Built-in transforms: [`Unwrap`], [`Filter`] and [`Mask`].
//!
//! **Invariant:** steps fail closed. A field that is not there, a condition that cannot be evaluated and a value of
//! another kind are errors of that record; nothing passes unmasked or is dropped because of them.

mod expression;
mod filter;
mod mask;
mod nulls;
mod unwrap;

pub use filter::Filter;
pub use mask::Mask;
pub use unwrap::Unwrap;
