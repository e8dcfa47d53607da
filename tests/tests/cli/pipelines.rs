//! `aqueduct plugins` and `aqueduct test` from outside: the examples pass, a mistake is shown and fails.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::process::{binary, root};
use serde_json::Value;

fn aqueduct(dir: &Path, args: &[&str]) -> Result<(Output, String)> {
    let output = Command::new(binary()).args(args).current_dir(dir).stdin(Stdio::null()).output()?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output, text))
}

#[test]
fn the_tests_of_the_examples_pass() {
    examples().expect("they pass");
}

fn examples() -> Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join("configs"))? {
        let path = entry?.path();
        if std::fs::read_to_string(&path)?.lines().any(|line| line == "tests:") {
            files.push(path.display().to_string());
        }
    }
    ensure!(files.len() >= 4, "{files:?}");
    let args: Vec<&str> = ["test", "--json"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let (output, text) = aqueduct(root(), &args)?;
    ensure!(output.status.success(), "{text}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["ok"] == true, "{text}");
    for file in report["files"].as_array().context("files")? {
        ensure!(file["tests"].as_array().is_some_and(|tests| !tests.is_empty()), "{text}");
    }
    Ok(())
}

const PIPELINE: &str = r#"version: 1
pipeline: p
source: { use: datagen, with: { topic: orders } }
sinks:
  out:
    use: file
    steps: [ { name: paid, filter: 'value.status == "paid"' }, { name: less, use: drop, with: { fields: [email] } } ]
    with: { path: out }
on_error: { then: dlq }
tests:
  - name: one
    given: [ { value: { id: 1, status: paid, email: a } }, { value: { id: 2, status: open, email: b } }, { value: 5 } ]
    expect: EXPECT
"#;

#[test]
fn a_difference_is_shown_field_by_field() {
    let dir = tempfile::tempdir().expect("a directory");
    let cases: [(&str, i32, &[&str]); 6] = [
        (
            "{ exactly: [ { id: 1, status: paid } ], dropped: 1, dead_letters: [ { record: 3, step: paid } ] }",
            0,
            &["ok    one", "1 passed, 0 failed"],
        ),
        (
            "{ exactly: [ { id: 2, status: paid, email: a } ], dropped: 0, dead_letters: [ {} ] }",
            1,
            &[
                "p.yaml:11:5",
                "exactly[0].id\n          expected 2\n          got      1\n",
                "exactly[0].email\n          expected \"a\"\n          got      nothing\n",
                "dropped\n          expected 0\n          got      1 (given 2)\n",
                "0 passed, 1 failed",
            ],
        ),
        ("{ dropped: 1 }", 1, &["no further dead letter", "given 3: TRANSFORMATION in step `paid`"]),
        ("{ exactly: [ { id: { matches: '(' } } ] }", 2, &["p.yaml:13:43: `(` is no regular expression"]),
        ("{ sink: lake, dropped: 1 }", 2, &["p.yaml:13:21: the pipeline has no sink `lake`"]),
        ("{ stops: {} }", 2, &["expect `dead_letters` instead of `stops`"]),
    ];
    for (expect, code, shows) in cases {
        std::fs::write(dir.path().join("p.yaml"), PIPELINE.replace("EXPECT", expect)).expect("written");
        let (output, text) = aqueduct(dir.path(), &["test", "p.yaml"]).expect("runs");
        assert_eq!(output.status.code(), Some(code), "{expect}: {text}");
        for part in shows {
            assert!(text.contains(part), "{expect} does not show {part}:\n{text}");
        }
        // What is wrong with a test, `check` says, too.
        let (checked, text) = aqueduct(dir.path(), &["check", "p.yaml"]).expect("runs");
        assert_eq!(checked.status.code(), Some(if code == 2 { 2 } else { 0 }), "{expect}: {text}");
    }
    let text = PIPELINE.split("tests:").next().expect("a head");
    std::fs::write(dir.path().join("p.yaml"), text).expect("written");
    let (output, text) = aqueduct(dir.path(), &["test", "p.yaml"]).expect("runs");
    assert!(output.status.code() == Some(1) && text.contains("have no `tests`"), "{text}");
}

#[test]
fn components_are_listed_and_described() {
    let run = |args: &[&str]| aqueduct(root(), args).expect("runs");
    let (_, text) = run(&["plugins", "ls"]);
    for name in ["SOURCES", "postgres-cdc", "SINKS", "s3", "STEPS", "unwrap", "CONVERTERS", "JsonConverter"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    let (output, text) = run(&["plugins", "describe", "sink:file", "--json"]);
    let described: Value = serde_json::from_slice(&output.stdout).expect("json");
    let keys = described[0]["keys"].as_array().expect("keys");
    let path = keys.iter().find(|key| key["name"] == "path").unwrap_or_else(|| panic!("{text}"));
    assert_eq!((path["required"].as_bool(), path["type"].as_str()), (Some(true), Some("text")), "{path}");
    let (output, text) = run(&["plugins", "describe", "datagem"]);
    assert!(output.status.code() == Some(2) && text.contains("did you mean `datagen`?"), "{text}");
    let (output, text) = run(&["plugins", "schema"]);
    let published = std::fs::read_to_string(root().join("docs/pipeline.schema.json")).expect("published");
    assert!(output.status.success() && text == published, "docs/pipeline.schema.json is not what is printed");
}
