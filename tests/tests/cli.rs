//! The command line from outside: the quickstart, wrong input of every kind, REST, signals.

mod data;
mod pipelines;
mod quickstart;
mod rest;
mod wrong_input;

use std::path::Path;

use anyhow::Result;
use aqueduct_tests::process::root;

/// A copy of the example pipelines and their plug-in under `dir`, laid out as in the repository.
fn examples(dir: &Path) -> Result<()> {
    for folder in ["configs", "plugins/prebuilt"] {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    for file in ["configs/quickstart.yaml", "configs/postgres-to-s3.yaml", "plugins/prebuilt/mask.wasm"] {
        std::fs::copy(root().join(file), dir.join(file))?;
    }
    Ok(())
}
