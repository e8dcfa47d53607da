//! Built-in transforms: [`Unwrap`], [`Filter`], [`Mask`], and the [`simple`] ones.
//!
//! **Invariant:** steps fail closed. A field that is not there, a condition that cannot be evaluated and a value of
//! another kind are errors of that record; nothing passes unmasked or is dropped because of them.

mod cast;
mod connect;
mod expression;
mod filter;
mod flatten;
mod insert;
mod kind;
mod leaves;
mod mask;
mod nulls;
mod reshape;
mod route;
#[cfg(test)]
mod testing;
mod time;
mod unwrap;

pub use filter::Filter;
pub use kind::Kind;
pub use mask::Mask;
pub use unwrap::Unwrap;

/// The steps that need nothing but their configuration, Kafka Connect's classes among them.
pub fn simple() -> Vec<Kind> {
    let mut kinds = vec![
        cast::cast(),
        flatten::flatten(),
        insert::insert(),
        reshape::drop(),
        reshape::rename(),
        route::route(),
        time::timestamp(),
    ];
    kinds.extend(connect::kinds());
    kinds
}
