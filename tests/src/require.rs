//! Naming what could not run.
//!
//! A test whose server is missing calls [`not_run`] and returns. The line goes to standard output and to the file that
//! `AQUEDUCT_NOT_RUN` names, which `cargo xtask test` prints at its end. With the requirement listed in
//! `AQUEDUCT_REQUIRE` a missing one is a failure.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Says that `test` did not run because `requirement` is not to be had; fails where it is required.
#[expect(clippy::print_stdout, reason = "this is how a test that could not run says so")]
pub fn not_run(requirement: &str, test: &str, why: &str) {
    let line = format!("NOT RUN: {test}: needs {requirement}: {why}");
    println!("{line}");
    if let Ok(path) = std::env::var("AQUEDUCT_NOT_RUN")
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path)
    {
        writeln!(file, "{line}").expect("the list of tests that did not run can be written");
    }
    assert!(!required(requirement), "{line} (and AQUEDUCT_REQUIRE lists it)");
}

/// Whether `AQUEDUCT_REQUIRE` lists it.
pub fn required(requirement: &str) -> bool {
    std::env::var("AQUEDUCT_REQUIRE").is_ok_and(|list| list.split(',').any(|item| item.trim() == requirement))
}
