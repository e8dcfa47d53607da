//! A damaged segment, and a disk without room.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::process::{Start, eventually};
use aqueduct_tests::require::not_run;
use aqueduct_tests::rest::{Rest, task_state, trace};
use aqueduct_tests::topic::{self, Write};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use reqwest::Method;
use serde_json::json;

use super::{LIMIT, end, named, start};

fn orders(ids: std::ops::Range<u32>) -> Vec<Write> {
    ids.map(|id| Write { value: Some(format!(r#"{{"id":{id}}}"#).into()), ..Write::default() }).collect()
}

#[test]
fn a_damaged_segment_takes_its_partition_offline_and_nothing_else() {
    damaged().expect("it is named and can be repaired");
}

fn damaged() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let start = Start::broker(dir.path());
    let mut broker = start.start()?;
    for name in ["orders", "other"] {
        topic::create(&broker.kafka, name, 1, &[])?;
        for from in (0..1000).step_by(100) {
            topic::write(&broker.kafka, name, &orders(from..from + 100))?;
        }
    }
    ensure!(broker.terminate(LIMIT)?.success(), "{}", broker.output());
    // Everything is below the recovery point now; the next start is not clean.
    start.start()?.kill()?;
    let segment = start.data.join("orders-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).with_context(|| segment.display().to_string())?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, &bytes)?;

    let mut broker = start.start()?;
    ensure!(topic::read(&broker.kafka, "other")?.len() == 1000, "the other topic is as it was");
    topic::write(&broker.kafka, "other", &orders(1000..1100))?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &broker.kafka)
        .set("log_level", "2")
        .set("message.timeout.ms", "1000")
        .create()?;
    producer.send(BaseRecord::<(), _>::to("orders").payload("x")).map_err(|(error, _)| error)?;
    // The queue is empty when the record has failed, too.
    producer.flush(LIMIT)?;
    let advice = "--repair-partition orders-0";
    eventually("the message says how to repair it", LIMIT, || broker.output().contains(advice))?;
    ensure!(broker.output().contains("00000000000000000000.log"), "{}", broker.output());
    ensure!(std::fs::read(&segment)? == bytes, "nothing is cut or overwritten unasked");
    ensure!(broker.terminate(LIMIT)?.success(), "{}", broker.output());

    // Its readers and writers say so, too, and keep nobody waiting at the stop.
    let mut run = start.clone();
    run.args = vec!["run".into(), "--allow-path".into(), dir.path().display().to_string()];
    let process = run.start()?;
    let rest = Rest::new(&process)?;
    rest.put_connector("gen", &json!({ "connector.class": "datagen", "topic": "orders" }))?;
    let out = dir.path().join("out");
    rest.put_connector("files", &json!({ "connector.class": "file", "topics": "orders", "path": out }))?;
    let stuck = |status: &serde_json::Value| {
        trace(status).contains("offline") || trace(status).contains("acknowledged nothing")
    };
    rest.until_status("gen", LIMIT, stuck)?;
    named(&rest, "files", &["orders-0", "offline"])?;
    end(process, &[])?;

    let mut repair = start.clone();
    repair.args.extend(["--repair-partition".into(), "orders-0".into()]);
    let mut broker = repair.start()?;
    let kept = topic::read(&broker.kafka, "orders")?.len();
    ensure!((1..1000).contains(&kept) && kept % 100 == 0, "{kept} records before the damage are kept");
    topic::write(&broker.kafka, "orders", &orders(0..100))?;
    ensure!(broker.terminate(LIMIT)?.success(), "{}", broker.output());
    let cut = std::fs::read_dir(start.data.join("orders-0"))?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().contains(".cut"));
    ensure!(cut, "what was cut is kept");
    let broker = start.start()?;
    ensure!(topic::read(&broker.kafka, "orders")?.len() == kept + 100, "it goes on after the repair");
    end(broker, &[])
}

/// A file system of that many MiB; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, mib: u32, test: &str) -> Result<Option<Self>> {
        std::fs::create_dir_all(at)?;
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            not_run("mount", test, "only root may mount a small tmpfs");
            return Ok(None);
        }
        Ok(Some(Self(at.to_owned())))
    }

    /// Takes all the room there is; it is free again when the file is removed.
    fn fill(&self) -> Result<PathBuf> {
        let filler = self.0.join("filler");
        let mut file = std::fs::File::create(&filler)?;
        let block = vec![0; 1 << 16];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        while std::io::Write::write_all(&mut file, &block[..1]).is_ok() {}
        Ok(filler)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the process is killed a moment before.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_log_disk_stops_producers_and_loses_nothing() {
    full_log().expect("it goes on once there is room");
}

fn full_log() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(small) =
        Small::mount(&dir.path().join("small"), 48, "a_full_log_disk_stops_producers_and_loses_nothing")?
    else {
        return Ok(());
    };
    let mut start = Start::run(dir.path(), &[]);
    start.data = dir.path().join("small/data");
    let process = start.start()?;
    let rest = Rest::new(&process)?;
    let config = json!({
        "connector.class": "datagen", "topic": "made", "rate": "2000", "count": "8000",
        "topic.creation.default.partitions": "1",
        "errors.restart.delay": "200ms", "errors.restart.delay.max": "500ms",
    });
    rest.put_connector("gen", &config)?;
    let written =
        || topic::ends(&process.kafka, "made").map(|ends| ends.iter().sum::<i64>()).unwrap_or_default();
    eventually("records flow", LIMIT, || written() > 500)?;
    let filler = small.fill()?;
    eventually("the log says that its disk is full", LIMIT, || {
        process.output().to_lowercase().contains("no space left")
    })?;
    let at = written();
    std::thread::park_timeout(Duration::from_secs(1));
    ensure!(written() - at < 4000, "records were taken without room for them");
    let shown = rest.until_status("gen", LIMIT, |status| trace(status).contains("acknowledged nothing"))?;
    let (code, health) = rest.call(Method::GET, "/health", None)?;
    let why = health["message"].as_str().unwrap_or_default();
    ensure!(
        code == 500 && health["status"] == "unhealthy" && why.contains("disk is full"),
        "{code} {health}"
    );
    std::fs::remove_file(filler)?;
    eventually("it goes on once there is room", LIMIT, || written() >= 8000)
        .with_context(|| format!("status when full: {shown}\n{}", process.output()))?;
    let mut next = 0;
    for read in topic::read(&process.kafka, "made")? {
        let value: serde_json::Value = serde_json::from_slice(read.value.as_deref().context("a value")?)?;
        let id = value["id"].as_u64().context("an id")?;
        ensure!(id <= next, "{next} is missing");
        next = next.max(id + 1);
    }
    ensure!(next == 8000, "the last is {next}");
    rest.until_status("gen", LIMIT, |status| task_state(status) == "RUNNING" && trace(status).is_empty())?;
    eventually("it is healthy again", LIMIT, || rest.get("/health").is_ok())?;
    ensure!(
        rest.metric("aqueduct_connector_records_total", "gen")? == 8000.0,
        "each is counted when acknowledged"
    );
    end(process, &[])
}

#[test]
fn a_full_disk_under_a_file_sink_leaves_no_half_file() {
    full_sink().expect("it goes on once there is room");
}

fn full_sink() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let test = "a_full_disk_under_a_file_sink_leaves_no_half_file";
    let Some(small) = Small::mount(&dir.path().join("small"), 4, test)? else { return Ok(()) };
    let (_, process, rest) = start(dir.path())?;
    topic::create(&process.kafka, "orders", 1, &[])?;
    topic::write(&process.kafka, "orders", &orders(0..5000))?;
    let filler = small.fill()?;
    let out = dir.path().join("small/out");
    let config = json!({
        "connector.class": "file", "topics": "orders", "path": out, "roll.age": "200ms",
        "errors.restart.delay": "200ms", "errors.restart.delay.max": "500ms",
    });
    rest.put_connector("files", &config)?;
    let status = rest.until_status("files", LIMIT, |status| trace(status).contains("o space left"))?;
    let lines = aqueduct_tests::lake::directory_lines(&out)?;
    ensure!(lines.is_empty(), "{} lines are taken for whole: {status}", lines.len());
    ensure!(
        topic::committed(&process.kafka, "connect-files", "orders", 0)?.is_none(),
        "nothing is committed"
    );
    std::fs::remove_file(filler)?;
    let all = || aqueduct_tests::lake::directory_lines(&out).is_ok_and(|lines| lines.len() >= 5000);
    eventually("everything arrives once there is room", LIMIT, all).with_context(|| process.output())?;
    ensure!(aqueduct_tests::lake::directory_lines(&out)?.len() == 5000, "each once");
    end(process, &[])
}

#[test]
fn a_stop_while_a_put_is_tried_again_commits_what_was_taken_before() {
    stop_when_full().expect("it is committed");
}

/// The first records are taken and not due for long; the next ones go to another file, for which there is no room.
fn stop_when_full() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let test = "a_stop_while_a_put_is_tried_again_commits_what_was_taken_before";
    let Some(small) = Small::mount(&dir.path().join("small"), 4, test)? else { return Ok(()) };
    let (start, mut process, rest) = start(dir.path())?;
    let rows = |kind: &str, ids: std::ops::Range<u32>| -> Vec<Write> {
        let row = |id| format!(r#"{{"id":{id},"kind":"{kind}"}}"#).into();
        ids.map(|id| Write { value: Some(row(id)), ..Write::default() }).collect()
    };
    topic::create(&process.kafka, "orders", 1, &[])?;
    topic::write(&process.kafka, "orders", &rows("first", 0..10))?;
    let out = dir.path().join("small/out");
    let config = json!({
        "connector.class": "file", "topics": "orders", "path": out.join("{field.kind}"), "roll.age": "1h",
        "offset.flush.interval.ms": "1h",
    });
    rest.put_connector("files", &config)?;
    let taken = || rest.metric("aqueduct_connector_records_total", "files").is_ok_and(|count| count == 10.0);
    eventually("the first records are taken", LIMIT, taken).with_context(|| process.output())?;
    let filler = small.fill()?;
    topic::write(&process.kafka, "orders", &rows("second", 10..5000))?;
    rest.until_status("files", LIMIT, |status| trace(status).contains("o space left"))?;
    let status = process.terminate(LIMIT)?;
    ensure!(status.success(), "{status}: {}", process.output());
    std::fs::remove_file(filler)?;

    let process = start.start()?;
    let lines = aqueduct_tests::lake::directory_lines(&out)?;
    let committed = topic::committed(&process.kafka, "connect-files", "orders", 0)?;
    ensure!(lines.len() >= 10 && committed == Some(10), "{} lines, committed {committed:?}", lines.len());
    let rest = Rest::new(&process)?;
    let taken =
        || rest.metric("aqueduct_connector_records_total", "files").is_ok_and(|count| count >= 4990.0);
    eventually("the others are taken", LIMIT, taken).with_context(|| process.output())?;
    end(process, &[])?;
    let lines = aqueduct_tests::lake::directory_lines(&out)?.len();
    ensure!(lines == 5000, "{lines} lines: the stop completes the rest");
    Ok(())
}
