//! `postgres-cdc`: the rows of PostgreSQL tables, then every change of them, in Debezium's envelope.
//!
//! The way of a change: [`wire`] reads pieces of the replication stream into shared buffers; [`stream`] owns the
//! connection, looks tables up and tells the server what is confirmed; [`task`] takes the pieces, and [`assembler`]
//! decodes them ([`pgoutput`], [`kind`], [`column`], [`table`]) into records with positions ([`position`]). The snapshot goes
//! through [`snapshot`] and [`copy`] the same way.
//!
//! **Invariant:** data, then the stored position, then the slot: PostgreSQL forgets nothing that is not in the log.

mod assembler;
mod catalog;
mod civil;
mod clock;
mod column;
mod config;
mod copy;
mod default;
mod delivery;
mod kind;
mod marker;
mod name;
mod pattern;
mod pgoutput;
mod position;
mod snapshot;
mod stream;
mod table;
mod task;
mod text;
mod url;
mod wire;

use aqueduct_core::Result;
use aqueduct_core::component::Spec;
use aqueduct_core::config::{Problem, ResolvedConfig};
use aqueduct_core::source::{SourceConnector, SourceTask};

use config::Settings;
use task::PostgresTask;

/// The source `postgres-cdc`.
pub struct PostgresCdc {
    spec: Spec,
}

impl PostgresCdc {
    /// The connector.
    pub fn new() -> Self {
        Self { spec: config::spec() }
    }
}

impl Default for PostgresCdc {
    fn default() -> Self {
        Self::new()
    }
}

impl SourceConnector for PostgresCdc {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn validate(&self, config: &ResolvedConfig) -> Vec<Problem> {
        config::validate(&self.spec, config)
    }

    fn topics(&self, config: &ResolvedConfig) -> Result<Vec<String>> {
        Ok(Settings::read(&self.spec, config, None)?.topics())
    }

    fn task(&self, config: &ResolvedConfig) -> Result<Box<dyn SourceTask>> {
        Ok(Box::new(PostgresTask::new(Settings::read(&self.spec, config, None)?)))
    }
}
