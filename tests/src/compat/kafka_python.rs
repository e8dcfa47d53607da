//! kafka-python's integration tests, from its source distribution. SASL and TLS need brokers of their own and are not
//! run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::brokers::Brokers;
use super::{State, say, wanted};
use crate::clients::environment;
use crate::postgres::{cache_dir, run as run_command};

const VERSION: &str = "3.0.12";
const FILES: [&str; 3] = ["admin", "consumer", "producer"];

/// Every test of `FILES`, or those that are named.
pub(super) fn run(brokers: &Brokers, tests: &[String]) -> Result<BTreeMap<String, State>> {
    let (python, source) = install()?;
    let mut targets = FILES.map(|file| format!("test/integration/test_{file}_integration.py")).to_vec();
    if !tests.is_empty() {
        // pytest knows no brackets here.
        let names = tests.iter().map(|test| test.split('[').next().unwrap_or_default());
        targets.extend(["-k".to_owned(), names.collect::<Vec<_>>().join(" or ")]);
    }
    let mut outcomes = once(brokers, &python, &source, &targets)?;
    ensure!(!outcomes.is_empty() || !tests.is_empty(), "no test of kafka-python ran");
    outcomes.retain(|test, _| wanted(tests, test));
    for (test, state) in &outcomes {
        say(&format!("{}: {test}: {state:?}", brokers.name));
    }
    Ok(outcomes)
}

fn once(
    brokers: &Brokers,
    python: &Path,
    source: &Path,
    targets: &[String],
) -> Result<BTreeMap<String, State>> {
    let dir = tempfile::tempdir()?;
    let results = dir.path().join("outcomes");
    std::fs::write(&results, "")?;
    std::fs::write(dir.path().join("outcomes_plugin.py"), include_str!("outcomes.py"))?;
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "outcomes_plugin",
        "--timeout",
        "60",
    ]);
    command
        .args(targets)
        .current_dir(source)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.env("PYTHONPATH", dir.path()).env("OUTCOMES", &results).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("KAFKA_URI", format!("kafka://{}", brokers.creating)).env("KAFKA_VERSION", "4.3.0");
    // Where the suite would look for brokers to start: it only wants the directory.
    command.env("KAFKA_ROOT", dir.path());
    // It fails when a test does; what counts is what each test said.
    command.status().context("cannot start pytest")?;
    let mut outcomes = BTreeMap::new();
    for line in std::fs::read_to_string(&results)?.lines() {
        let outcome: Value = serde_json::from_str(line)?;
        let text = |key: &str| outcome[key].as_str().unwrap_or_default().to_owned();
        let state = match text("state").as_str() {
            "passed" => State::Passed,
            "skipped" => State::Skipped(text("why")),
            _ => State::Failed(last_error(&text("why"))),
        };
        outcomes.insert(text("test"), state);
    }
    Ok(outcomes)
}

/// pytest marks the lines of the error itself with an `E`.
fn last_error(why: &str) -> String {
    let error = why.lines().find_map(|line| line.strip_prefix("E   ")).or_else(|| why.lines().last());
    error.unwrap_or_default().trim().chars().take(300).collect()
}

/// A Python with what the tests import, and the unpacked source.
fn install() -> Result<(PathBuf, PathBuf)> {
    let python = environment(
        "kafka-python-tests-1",
        &[
            "pytest",
            "pytest-mock",
            "pytest-timeout",
            "py",
            "python-snappy==0.7.3",
            "lz4==4.4.5",
            "zstandard==0.25.0",
        ],
    )?;
    let home = cache_dir().join(format!("kafka-python-source-{VERSION}-1"));
    let source = home.join(format!("kafka_python-{VERSION}"));
    if !home.join("complete").exists() {
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        std::fs::create_dir_all(&home)?;
        run_command(
            Command::new(&python)
                .args(["-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d"])
                .arg(&home)
                .arg(format!("kafka-python=={VERSION}")),
        )?;
        run_command(
            Command::new("tar")
                .arg("xf")
                .arg(home.join(format!("kafka_python-{VERSION}.tar.gz")))
                .arg("-C")
                .arg(&home),
        )?;
        // Not part of the distribution: the package's mark, without which Python finds its own `test`, and this module.
        std::fs::write(source.join("test/__init__.py"), "")?;
        std::fs::write(source.join("test/service.py"), include_str!("service.py"))?;
        std::fs::write(home.join("complete"), "")?;
    }
    Ok((python, source))
}
