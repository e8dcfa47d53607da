//! `cargo xtask bench [NAME…]`: builds with optimisation and runs the benchmarks.

use std::process::Command;

use anyhow::Result;

use crate::machine::{cargo, install_packages, run, target_dir};

/// `start`, `log`, `partitions`, `postgres`, `s3`, `files`, `transforms`, all of these without a name; or `peers` with its own flags.
pub(crate) fn run_named(names: &[String]) -> Result<()> {
    install_packages();
    run(cargo().args(["build", "--release", "-p", "aqueduct", "-p", "aqueduct-tests"]))?;
    let bench = || {
        let mut command = Command::new(target_dir().join("release/aqueduct-bench"));
        command.env("AQUEDUCT_BIN", target_dir().join("release/aqueduct"));
        command
    };
    if names.first().is_some_and(|name| name == "peers") {
        return run(bench().args(names));
    }
    let others: Vec<&String> = names.iter().filter(|name| *name != "transforms").collect();
    if names.is_empty() || !others.is_empty() {
        run(bench().arg("run").args(others))?;
    }
    if names.is_empty() || names.iter().any(|name| name == "transforms") {
        for (package, example) in
            [("aqueduct-transforms", "bench_transforms"), ("aqueduct-plugin-host", "bench_wasm")]
        {
            run(cargo().args(["run", "--release", "-p", package, "--example", example]))?;
        }
    }
    Ok(())
}
