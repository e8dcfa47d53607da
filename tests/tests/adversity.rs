//! What surrounds the process is wrong or breaks: unreachable servers, wrong credentials, missing rights, damaged
//! files, a full disk. Each gets one clear message, where a user looks, and nothing is lost or half written.

mod disk;
mod postgres;
mod s3;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use aqueduct_tests::process::{Aqueduct, Start};
use aqueduct_tests::rest::{Rest, trace};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

/// An empty `run` that may read and write below `dir`, and its REST API.
fn start(dir: &Path) -> Result<(Start, Aqueduct, Rest)> {
    let mut start = Start::run(dir, &[]);
    start.args.extend(["--allow-path".into(), dir.display().to_string()]);
    let process = start.start()?;
    let rest = Rest::new(&process)?;
    Ok((start, process, rest))
}

/// Waits until the status of a connector names the cause, and returns it.
fn named(rest: &Rest, connector: &str, parts: &[&str]) -> Result<Value> {
    rest.until_status(connector, LIMIT, |status| parts.iter().all(|part| trace(status).contains(part)))
}

/// An orderly end without a panic, and without any of these words in what was printed.
fn end(mut process: Aqueduct, secrets: &[&str]) -> Result<()> {
    let status = process.terminate(LIMIT)?;
    let output = process.output();
    ensure!(status.success(), "{status}: {output}");
    for word in secrets.iter().chain(&["panicked"]) {
        ensure!(!output.contains(word), "`{word}` stands in the output: {output}");
    }
    Ok(())
}
