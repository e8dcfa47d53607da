//! The partitions this broker leads.

mod batch_rules;
mod purgatory;
mod replica;
mod table;

pub(crate) use batch_rules::check_batch;
pub(crate) use purgatory::Waiter;
pub(crate) use replica::{Acks, AppendError, Appended, Appending, FetchError, Read, Replica};
pub(crate) use table::{Partitions, TopicReplicas, Unmade};
