//! YAML pipelines: one document with `source`, `topic`, `sinks` and `on_error`, turned into plain connectors and topics.
//!
//! The way of a file: text → positioned tree ([`yaml`]) → document (its fixed keys) → flattened component configs, guided
//! by their declarations → [`Plan`]. Each stage goes on after a mistake, so that all of them are reported at once.
//!
//! **Invariant:** a finding names file, line and column, and never shows the text of a secret. References such as
//! `${env:NAME}` stand unresolved in a [`Plan`].
#![warn(missing_docs)]

mod components;
mod document;
mod finding;
mod flatten;
mod plan;
pub mod yaml;

pub use components::Components;
pub use finding::{Finding, Position, render};
pub use plan::{ConnectorPlan, Kind, Mode, Plan, load, plan};
