//! `cargo xtask compat`: other clients' own tests against the binary and against Apache Kafka.

use std::process::Command;

use anyhow::Result;

use crate::machine::{cargo, install, install_packages, run, target_dir};

/// Arguments go to `aqueduct-compat`, whose `--help` lists them.
pub(crate) fn compat(args: &[String]) -> Result<()> {
    install_packages();
    // With these, librdkafka's tests cover zstd and the statistics, too.
    let header = |name: &str| std::path::Path::new("/usr/include").join(name).exists();
    let optional = [("zstd.h", "libzstd-dev"), ("rapidjson/schema.h", "rapidjson-dev")];
    install(
        &optional.iter().filter(|(name, _)| !header(name)).map(|(_, package)| *package).collect::<Vec<_>>(),
    );
    run(cargo().args(["build", "-p", "aqueduct", "-p", "aqueduct-tests", "--bins"]))?;
    let bins = target_dir().join("debug");
    run(Command::new(bins.join("aqueduct-compat")).args(args).env("AQUEDUCT_BIN", bins.join("aqueduct")))
}
