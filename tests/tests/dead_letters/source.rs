//! Bad records of a source: JSON with its schema, as the record was before the failing step.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::guest::Poison;
use aqueduct_tests::process::Start;
use aqueduct_tests::topic::{self, Read};
use serde_json::Value;

use super::{end, guest_file, ids, until_written};

const COUNT: u64 = 4000;

const PIPELINE: &str = "
version: 1
pipeline: made
source:
  use: datagen
  with: { topic: made.orders, rate: 0, count: 4000 }
  steps:
    - { name: fails, use: wasm, with: { module: fails.wasm } }
    - { name: loops, use: wasm, with: { module: loops.wasm } }
    - { name: traps, use: wasm, with: { module: traps.wasm } }
    - { name: rich, filter: 'value.id != 2701 || value.nothing == 1' }
    - { name: hide, use: mask, with: { fields: [email], salt: s } }
topic: { partitions: 1, retention: 1d }
sinks:
  files: { use: file, with: { path: out, roll: { age: 300ms }, fields: { origin: true } } }
on_error: { then: dlq }
";

const BAD: [(u64, &str, &str); 4] = [
    (1500, "fails", "not this one"),
    (2000, "loops", "deadline of 1s"),
    (2500, "traps", "failed on this record"),
    (2701, "rich", "nothing"),
];

#[test]
fn every_bad_record_of_a_source_becomes_one_letter_and_every_other_arrives() {
    every_bad_record().expect("letters and records are as expected");
}

fn every_bad_record() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (name, poison, id) in
        [("fails", Poison::Fail, 1500), ("loops", Poison::Loop, 2000), ("traps", Poison::Trap, 2500)]
    {
        guest_file(dir.path(), name, poison, id)?;
    }
    let file = dir.path().join("made.yaml");
    std::fs::write(&file, PIPELINE)?;
    let process = Start::run(dir.path(), &[&file]).start()?;
    let good: Vec<u64> = (0..COUNT).filter(|id| BAD.iter().all(|(bad, ..)| bad != id)).collect();
    let lines = until_written(&dir.path().join("out"), good.len(), &process)?;
    ensure!(ids(&lines) == good, "every other record arrives once and in order");
    let log = topic::read(&process.kafka, "made.orders")?;
    let offsets: Vec<i64> = log.iter().map(|read| read.offset).collect();
    ensure!(offsets.iter().copied().eq(0..good.len() as i64), "the log holds each once");

    let letters = topic::read(&process.kafka, "made-dlq")?;
    let mut by_id = BTreeMap::new();
    for letter in &letters {
        let value: Value = serde_json::from_slice(letter.value.as_deref().context("a value")?)?;
        let id = value["payload"]["id"].as_u64().context("an id")?;
        ensure!(by_id.insert(id, (value, letter)).is_none(), "two letters for {id}");
    }
    ensure!(by_id.len() == BAD.len(), "letters for {:?}", by_id.keys());
    for (id, step, error) in BAD {
        let (value, letter) = by_id.get(&id).with_context(|| format!("no letter for {id}"))?;
        letter_of(id, step, error, value, letter)?;
    }
    end(process)
}

fn letter_of(id: u64, step: &str, error: &str, value: &Value, letter: &Read) -> Result<()> {
    ensure!(value["schema"]["type"] == "struct", "{id}: no schema: {value}");
    let email = value["payload"]["email"].as_str().unwrap_or_default();
    ensure!(email.contains('@'), "{id}: not the record before the mask: {value}");
    let key: Value = serde_json::from_slice(letter.key.as_deref().context("a key")?)?;
    ensure!(key["payload"] == id, "{id}: {key}");
    for (name, text) in [
        ("__connect.errors.topic", "made.orders"),
        ("__connect.errors.connector.name", "made"),
        ("__connect.errors.stage", "TRANSFORMATION"),
        ("aqueduct.errors.stage", "TRANSFORMATION"),
        ("aqueduct.errors.step", step),
        ("aqueduct.errors.source.partition", r#"{"topic":"made.orders"}"#),
    ] {
        ensure!(letter.header(name) == text, "{id}: {name} is not `{text}`: {:?}", letter.headers);
    }
    // Orders carry their position by the batch, so it may lie some way behind.
    let position: Value = serde_json::from_str(letter.header("aqueduct.errors.source.offset"))?;
    ensure!(position["next"].as_u64().is_some_and(|next| next > id), "{id}: {position}");
    ensure!(letter.header("aqueduct.errors.error").contains(error), "{id}: {:?}", letter.headers);
    Ok(())
}
