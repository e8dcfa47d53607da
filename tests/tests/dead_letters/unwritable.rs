//! A dead letter topic that takes no letter: the task stops and says why, its offset or position stays before the bad
//! record, and once mended everything arrives.

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::process::Aqueduct;
use aqueduct_tests::rest::{Rest, task_state, trace};
use aqueduct_tests::topic;
use serde_json::{Value, json};

use super::{LIMIT, end, filtered, ids, order, start, until_written, with, written};

/// Waits until the task has been restarted in vain a few times, and says why.
fn stopped(rest: &Rest, name: &str) -> Result<String> {
    let status = rest.until_status(name, LIMIT, |status| {
        task_state(status) == "RESTARTING" && trace(status).contains("restart 3 follows")
    })?;
    let why = trace(&status).to_owned();
    ensure!(why.contains("dead letter") && why.contains("`narrow`"), "the status does not say why: {why}");
    ensure!(why.contains("max.message.bytes"), "the status does not say what to do: {why}");
    Ok(why)
}

#[test]
fn a_sink_waits_before_a_record_whose_letter_cannot_be_written() {
    sink().expect("nothing is lost");
}

fn sink() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (start, process, rest) = start(dir.path())?;
    topic::create(&process.kafka, "orders", 1, &[])?;
    topic::create(&process.kafka, "narrow", 1, &[("max.message.bytes", "200")])?;
    let mut records: Vec<_> = (1000..4000).map(|id| order(id, 0)).collect();
    records[1700].value = Some(br#"{"id":2700}"#.to_vec());
    topic::write(&process.kafka, "orders", &records)?;
    let out = dir.path().join("out");
    let config = with(&filtered("orders", &out), "errors.tolerance", "all");
    rest.put_connector("lake", &with(&config, "errors.deadletterqueue.topic.name", "narrow"))?;

    stopped(&rest, "lake")?;
    let committed = |process: &Aqueduct| topic::committed(&process.kafka, "connect-lake", "orders", 0);
    ensure!(committed(&process)?.is_none_or(|offset| offset <= 1700), "the offset passed the bad record");
    ensure!(topic::read(&process.kafka, "narrow")?.is_empty(), "nothing can be in there");
    // It stays so over a stop, and over a start.
    end(process)?;
    let process = start.start()?;
    let rest = Rest::new(&process)?;
    stopped(&rest, "lake")?;
    ensure!(committed(&process)?.is_none_or(|offset| offset <= 1700), "the offset passed the bad record");
    ensure!(ids(&written(&out)?).iter().all(|id| *id < 2700), "the files passed the bad record");

    rest.put_connector("lake", &with(&config, "errors.deadletterqueue.topic.name", "wide"))?;
    let lines = until_written(&out, 2999, &process)?;
    ensure!(ids(&lines) == (1000..4000).filter(|id| *id != 2700).collect::<Vec<u64>>(), "once and in order");
    let letters = topic::read(&process.kafka, "wide")?;
    ensure!(letters.len() == 1 && letters[0].value == records[1700].value, "{letters:?}");
    end(process)
}

#[test]
fn a_source_waits_before_a_record_whose_letter_cannot_be_written() {
    source().expect("nothing is lost");
}

fn source() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (_, process, rest) = start(dir.path())?;
    topic::create(&process.kafka, "narrow", 1, &[("max.message.bytes", "200")])?;
    let config = json!({
        "connector.class": "datagen", "topic": "made", "count": "3000", "rate": "0",
        "topic.creation.default.partitions": "1",
        "transforms": "rich", "transforms.rich.type": "filter",
        "transforms.rich.condition": "value.id != 1700 || value.nothing == 1",
        "errors.tolerance": "all", "errors.restart.delay": "200ms", "errors.restart.delay.max": "1s",
    });
    rest.put_connector("gen", &with(&config, "errors.deadletterqueue.topic.name", "narrow"))?;
    stopped(&rest, "gen")?;
    let position = |offsets: &Value| offsets["offsets"][0]["offset"]["next"].as_u64();
    let offsets = rest.get("/connectors/gen/offsets")?;
    ensure!(
        position(&offsets).is_none_or(|next| next <= 1700),
        "the position passed the bad record: {offsets}"
    );

    rest.put_connector("gen", &with(&config, "errors.deadletterqueue.topic.name", "wide"))?;
    let until = std::time::Instant::now() + LIMIT;
    while position(&rest.get("/connectors/gen/offsets")?) != Some(3000) {
        ensure!(std::time::Instant::now() < until, "{}", rest.get("/connectors/gen/status")?);
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    let mut next = 0;
    for read in topic::read(&process.kafka, "made")? {
        let value: Value = serde_json::from_slice(read.value.as_deref().context("a value")?)?;
        let id = value["id"].as_u64().context("an id")?;
        // Going back after a failure is a repeat and allowed; a gap is not.
        next += u64::from(next == 1700);
        ensure!(id <= next, "{id} follows {next} - 1");
        next = next.max(id + 1);
    }
    ensure!(next == 3000, "the last is {next}");
    let letters = topic::read(&process.kafka, "wide")?;
    ensure!(letters.len() == 1, "{letters:?}");
    end(process)
}
