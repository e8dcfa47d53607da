//! YAML pipelines: one document with `source`, `topic`, `sinks`, `on_error` and `tests`, turned into plain connectors,
//! topics and test cases.
//!
//! The way of a file: text → positioned tree ([`yaml`]) → document (its fixed keys) → flattened component configs, guided
//! by their declarations → [`Plan`]. Each stage goes on after a mistake, so that all of them are reported at once.
//!
//! **Invariant:** a finding names file, line and column, and never shows the text of a secret. References such as
//! `${env:NAME}` stand unresolved in a [`Plan`].
#![warn(missing_docs)]

mod cases;
mod components;
mod document;
mod finding;
mod flatten;
mod judge;
mod matcher;
mod plan;
mod schema;
pub mod yaml;

pub use cases::{Expect, ExpectedFailure, Given, GivenValue, RecordMatcher, Records, SchemaKey, TestCase};
pub use components::Components;
pub use finding::{Finding, Position, render};
pub use judge::{Difference, FailedInput, Outcome, Produced, judge};
pub use matcher::Matcher;
pub use plan::{ConnectorPlan, Kind, Mode, Plan, load, plan};
pub use schema::schema;
