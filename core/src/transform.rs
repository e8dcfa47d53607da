//! Single-message transforms: the steps between a connector and a converter.
//!
//! A step is made once per task and called batch by batch, in order, by one owner. It answers with one [`Outcome`] per
//! input, in the order of the input. Steps fail closed: what a step cannot do is an error of that record, never a
//! record let through.

use crate::component::Spec;
use crate::config::{Problem, ResolvedConfig};
use crate::{Error, Record, Result};

/// What became of one record.
#[derive(Debug)]
pub enum Outcome {
    /// Goes on, changed or not.
    Keep(Record),
    /// Goes no further; counts as acknowledged.
    Drop,
    /// Goes on as several, in this order.
    Emit(Vec<Record>),
    /// Failed. The record is handed back **as it was given**, for its dead letter.
    Fail(Record, Error),
}

/// A step of one task.
pub trait Transform: Send {
    /// Transforms a batch; one outcome per input, in order. An `Err` is about the whole batch: retriable ones are tried
    /// again by the runtime with the same records, so such a step works on clones or hands nothing out before.
    fn apply(&mut self, batch: Vec<Record>) -> Result<Vec<Outcome>>;

    /// Whether `apply` may compute for more than a few milliseconds, so that the runtime keeps it off the threads
    /// that serve others.
    fn may_block(&self) -> bool {
        false
    }
}

/// A kind of step.
pub trait TransformFactory: Send + Sync {
    /// What it says about itself.
    fn spec(&self) -> &Spec;

    /// Problems beyond what the declared types and checks can see, such as an expression that does not compile.
    fn validate(&self, _config: &ResolvedConfig) -> Vec<Problem> {
        Vec::new()
    }

    /// Makes the step.
    fn build(&self, config: &ResolvedConfig) -> Result<Box<dyn Transform>>;
}

/// A condition on records, for `predicate` in a step's config.
pub trait Predicate: Send {
    /// Whether it holds. An error is a bad record, never `false`.
    fn test(&mut self, record: &mut Record) -> Result<bool>;
}

/// Applies `f` to each record on its own.
pub fn each(batch: Vec<Record>, mut f: impl FnMut(Record) -> Outcome) -> Result<Vec<Outcome>> {
    Ok(batch.into_iter().map(&mut f).collect())
}
