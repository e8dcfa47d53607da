//! Bad records of a sink: the bytes that were consumed, with where and why.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::guest::Poison;
use aqueduct_tests::process::eventually;
use aqueduct_tests::topic::{self, Write};
use serde_json::{Value, json};

use super::{LIMIT, end, guest_file, ids, order, start, until_written, written};

const IDS: std::ops::Range<u16> = 1000..4000;

/// Id, stage, step, and a part of the error.
const BAD: [(u16, &str, &str, &str); 7] = [
    (1500, "TRANSFORMATION", "fails", "not this one"),
    (1701, "TRANSFORMATION", "rich", "amount"),
    (2000, "TRANSFORMATION", "loops", "deadline of 1s"),
    (2201, "TRANSFORMATION", "hide", "email"),
    (2500, "TRANSFORMATION", "traps", "failed on this record"),
    (2701, "TASK_PUT", "", "null"),
    (2900, "VALUE_CONVERTER", "", "JSON"),
];

fn records() -> Vec<Write> {
    let records = IDS.map(|id| {
        let mut record = order(id, i32::from(id % 2));
        match id {
            1701 => record.value = Some(format!(r#"{{"id":{id},"email":"x"}}"#).into_bytes()),
            2201 => record.value = Some(format!(r#"{{"id":{id},"amount":1}}"#).into_bytes()),
            2701 => record.value = None,
            2900 => record.value = Some(b"\xff{not json".to_vec()),
            _ => {}
        }
        record
    });
    records.collect()
}

#[test]
fn every_bad_record_of_a_sink_becomes_one_letter_and_every_other_arrives() {
    every_bad_record().expect("letters and records are as expected");
}

fn every_bad_record() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (_, process, rest) = start(dir.path())?;
    topic::create(&process.kafka, "orders", 2, &[])?;
    let records = records();
    topic::write(&process.kafka, "orders", &records)?;
    let out = dir.path().join("out");
    rest.put_connector("lake", &config(dir.path(), &out)?)?;

    let good: Vec<u16> = IDS.filter(|id| id % 10 != 7 && BAD.iter().all(|(bad, ..)| bad != id)).collect();
    let lines = until_written(&out, good.len(), &process)?;
    for partition in 0..2 {
        let of_partition: Vec<Value> =
            lines.iter().filter(|line| line["_partition"] == partition).cloned().collect();
        let expected: Vec<u64> =
            good.iter().filter(|id| i32::from(*id % 2) == partition).map(|id| u64::from(*id)).collect();
        ensure!(ids(&of_partition) == expected, "partition {partition} is not complete, once and in order");
    }
    ensure!(
        lines.iter().all(|line| line["email"].as_str().is_some_and(|hash| hash.len() == 64)),
        "all masked"
    );
    letters(&process.kafka, &records)?;

    let status = rest.until_status("lake", LIMIT, |_| true)?;
    ensure!(status["tasks"][0]["state"] == "RUNNING", "{status}");
    ensure!(rest.metric("aqueduct_connector_dead_letters", "lake")? == BAD.len() as f64, "counted");
    let all_committed = || {
        let at = |p| topic::committed(&process.kafka, "connect-lake", "orders", p).ok().flatten();
        (at(0), at(1)) == (Some(1500), Some(1500))
    };
    eventually("the offsets pass the bad records", LIMIT, all_committed)?;
    end(process)?;
    ensure!(written(&out)?.len() == good.len(), "nothing is written twice at the stop");
    Ok(())
}

fn config(dir: &std::path::Path, out: &std::path::Path) -> Result<Value> {
    let mut config = json!({
        "connector.class": "file", "topics": "orders", "path": out, "roll.age": "300ms", "fields.origin": "true",
        "transforms": "fails,loops,traps,rich,hide",
        "transforms.rich.type": "filter", "transforms.rich.condition": "value.amount != 7",
        "transforms.hide.type": "mask", "transforms.hide.fields": "email", "transforms.hide.salt": "s",
        "errors.tolerance": "all", "errors.deadletterqueue.topic.name": "dead",
    });
    for (name, poison, id) in
        [("fails", Poison::Fail, 1500), ("loops", Poison::Loop, 2000), ("traps", Poison::Trap, 2500)]
    {
        config[format!("transforms.{name}.type")] = "wasm".into();
        config[format!("transforms.{name}.module")] = json!(guest_file(dir, name, poison, id)?);
    }
    Ok(config)
}

fn letters(kafka: &str, records: &[Write]) -> Result<()> {
    let letters = topic::read(kafka, "dead")?;
    let mut by_id = BTreeMap::new();
    for letter in &letters {
        let id = String::from_utf8(letter.key.clone().context("a key")?)?;
        ensure!(by_id.insert(id, letter).is_none(), "two letters for one record: {letters:?}");
    }
    ensure!(by_id.len() == BAD.len(), "{} letters: {:?}", by_id.len(), by_id.keys());
    for (id, stage, step, error) in BAD {
        let letter = by_id.get(&id.to_string()).with_context(|| format!("no letter for {id}"))?;
        let given = &records[usize::from(id - IDS.start)];
        ensure!(letter.value == given.value, "{id}: the letter is not what was consumed: {letter:?}");
        let offset = ((id - IDS.start) / 2).to_string();
        let partition = (id % 2).to_string();
        let task = "0";
        for (name, text) in [
            ("trace", format!("t{id}").as_str()),
            ("__connect.errors.topic", "orders"),
            ("__connect.errors.partition", &partition),
            ("__connect.errors.offset", &offset),
            ("__connect.errors.connector.name", "lake"),
            ("__connect.errors.task.id", task),
            ("__connect.errors.stage", stage),
            ("aqueduct.errors.topic", "orders"),
            ("aqueduct.errors.partition", &partition),
            ("aqueduct.errors.offset", &offset),
            ("aqueduct.errors.connector", "lake"),
            ("aqueduct.errors.task", task),
            ("aqueduct.errors.stage", stage),
            ("aqueduct.errors.step", step),
        ] {
            ensure!(letter.header(name) == text, "{id}: {name} is not `{text}`: {:?}", letter.headers);
        }
        for name in ["__connect.errors.exception.message", "aqueduct.errors.error"] {
            ensure!(
                letter.header(name).contains(error),
                "{id}: {name} lacks `{error}`: {:?}",
                letter.headers
            );
        }
    }
    Ok(())
}
