//! `cargo xtask test` and `cargo xtask ci`.

use anyhow::Result;

use crate::machine::{cargo, install_packages, run, target_dir};
use crate::{codec, guests, tidy};

/// Every test. Arguments go to `cargo test`, as a filter for example.
pub(crate) fn test(args: &[String]) -> Result<()> {
    install_packages();
    let list = target_dir().join("not-run.txt");
    std::fs::create_dir_all(target_dir())?;
    std::fs::write(&list, "")?;
    // The black-box tests run the binary, which `cargo test` alone does not build.
    run(cargo().args(["build", "--workspace", "--bins"]))?;
    let guests = guests::run(&["--check".to_owned()]);
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).args(args).env("AQUEDUCT_NOT_RUN", &list);
    let tests = run(&mut command);
    let not_run = std::fs::read_to_string(&list)?;
    for line in not_run.lines() {
        eprintln!("{line}");
    }
    if let Err(error) = &guests {
        let line = format!("NOT RUN: guests from source: {error:#}");
        eprintln!("{line}");
        let required = std::env::var("AQUEDUCT_REQUIRE").unwrap_or_default();
        if required.split(',').any(|item| item.trim() == "guests") {
            anyhow::bail!("{line} (and AQUEDUCT_REQUIRE lists guests)");
        }
    }
    if not_run.is_empty() && guests.is_ok() && args.is_empty() {
        eprintln!("everything ran");
    }
    tests
}

/// Everything a change must pass.
pub(crate) fn ci() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    codec::run(&["--check".to_owned()])?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    test(&[])
}
