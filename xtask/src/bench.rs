//! `cargo xtask bench [NAME…]`: builds with optimisation and runs the benchmarks.

use anyhow::Result;

use crate::machine::{cargo, install_packages, run, target_dir};

/// `start`, `log`, `postgres`, `s3`, `transforms`; all without a name.
pub(crate) fn run_named(names: &[String]) -> Result<()> {
    install_packages();
    run(cargo().args(["build", "--release", "-p", "aqueduct", "-p", "aqueduct-tests"]))?;
    let others: Vec<&String> = names.iter().filter(|name| *name != "transforms").collect();
    if names.is_empty() || !others.is_empty() {
        let bench = target_dir().join("release/aqueduct-bench");
        run(std::process::Command::new(bench)
            .args(others)
            .env("AQUEDUCT_BIN", target_dir().join("release/aqueduct")))?;
    }
    if names.is_empty() || names.iter().any(|name| name == "transforms") {
        run(cargo().args([
            "run",
            "--release",
            "-p",
            "aqueduct-plugin-host",
            "--example",
            "bench_transforms",
        ]))?;
    }
    Ok(())
}
