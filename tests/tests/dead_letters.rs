//! Bad records: each becomes one dead letter, every other record arrives once and in order, and what cannot be written
//! to the dead letter topic stops the task instead of getting lost.

mod off;
mod sink;
mod source;
mod unwritable;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::guest::{self, Poison};
use aqueduct_tests::process::{Aqueduct, Start};
use aqueduct_tests::rest::Rest;
use aqueduct_tests::topic::Write;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// An empty `run` that may read and write below `dir`, and its REST API.
fn start(dir: &Path) -> Result<(Start, Aqueduct, Rest)> {
    let mut start = Start::run(dir, &[]);
    start.args.extend(["--allow-path".into(), dir.display().to_string()]);
    let process = start.start()?;
    let rest = Rest::new(&process)?;
    Ok((start, process, rest))
}

/// Writes a guest with this poison beside the test's other files.
fn guest_file(dir: &Path, name: &str, poison: Poison, id: u16) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.wasm"));
    std::fs::write(&path, guest::module(poison, id)?)?;
    Ok(path)
}

/// `{"id":…,"email":…,"amount":…}` under its id, with an `amount` of 0 to 9.
fn order(id: u16, partition: i32) -> Write {
    let value = format!(r#"{{"id":{id},"email":"{id}@example.com","amount":{}}}"#, id % 10);
    Write {
        partition,
        key: Some(id.to_string().into_bytes()),
        value: Some(value.into_bytes()),
        header: Some(("trace".into(), format!("t{id}"))),
    }
}

/// A file sink of `topic` with a filter that fails on records without `amount`.
fn filtered(topic: &str, out: &Path) -> Value {
    json!({
        "connector.class": "file", "topics": topic, "path": out, "roll.age": "300ms", "fields.origin": "true",
        "transforms": "rich", "transforms.rich.type": "filter", "transforms.rich.condition": "value.amount >= 0",
        "errors.restart.delay": "200ms", "errors.restart.delay.max": "1s",
    })
}

/// The config with one more key.
fn with(config: &Value, key: &str, value: &str) -> Value {
    let mut config = config.clone();
    config[key] = value.into();
    config
}

/// The lines of all finished files, file by file in the order of their names, which is that of their first offsets.
fn written(out: &Path) -> Result<Vec<Value>> {
    let mut files = Vec::new();
    if let Ok(entries) = std::fs::read_dir(out) {
        for entry in entries {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')) {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        ensure!(text.ends_with('\n'), "{} is half written", file.display());
        for line in text.lines() {
            lines.push(serde_json::from_str(line).with_context(|| line.to_owned())?);
        }
    }
    Ok(lines)
}

/// Ids of lines or records, in their order.
fn ids(records: &[Value]) -> Vec<u64> {
    records.iter().filter_map(|record| record["id"].as_u64()).collect()
}

/// Waits until that many lines are written; then they must be all there are.
fn until_written(out: &Path, count: usize, process: &Aqueduct) -> Result<Vec<Value>> {
    let until = std::time::Instant::now() + LIMIT;
    loop {
        let lines = written(out)?;
        if lines.len() >= count {
            return Ok(lines);
        }
        let now = lines.len();
        ensure!(std::time::Instant::now() < until, "{now} of {count} lines:\n{}", process.output());
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// An orderly end without a panic.
fn end(mut process: Aqueduct) -> Result<()> {
    let status = process.terminate(LIMIT)?;
    ensure!(status.success(), "{status}: {}", process.output());
    ensure!(!process.output().contains("panicked"), "{}", process.output());
    Ok(())
}
