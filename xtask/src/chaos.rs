//! `cargo xtask chaos [SEEDS]`: the fault tests with more seeds than a normal run has.

use anyhow::{Context as _, Result};

use crate::machine::{self, cargo, install_packages};

/// Runs them; the seeds are numbers from 0, so a failure is repeated with the same count.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let seeds: u64 = match args.first() {
        Some(text) => text.parse().with_context(|| format!("`{text}` is not a number of seeds"))?,
        None => 50,
    };
    install_packages();
    machine::run(cargo().args(["build", "--workspace", "--bins"]))?;
    machine::run(
        cargo()
            .args([
                "test",
                "-p",
                "aqueduct-tests",
                "--test",
                "blackbox",
                "--",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .args(["power_loss", "kill"])
            .env("AQUEDUCT_SEEDS", seeds.to_string()),
    )
}
