//! Apache Kafka's own DumpLogSegments reads what the log writes: segments of each codec, and both indexes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::kafka::Jars;
use aqueduct_tests::process::{Start, eventually};
use aqueduct_tests::require::not_run;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const RECORDS: usize = 6000;

#[test]
fn kafkas_own_tool_reads_the_segments_and_indexes() {
    match Jars::fetch() {
        Ok(jars) => dump(&jars).expect("DumpLogSegments finds everything in order"),
        Err(error) => {
            not_run("kafka", "kafkas_own_tool_reads_the_segments_and_indexes", &format!("{error:#}"));
        }
    }
}

fn dump(jars: &Jars) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let start = Start::broker(dir.path());
    let mut broker = start.start()?;
    for codec in CODECS {
        produce(&broker.kafka, codec)?;
    }
    let segments =
        |codec: &str, extension: &str| files(&start.data.join(format!("dump-{codec}-0")), extension);
    eventually("the indexes of finished segments are written", Duration::from_secs(20), || {
        segments("none", "index").is_ok_and(|found| !found.is_empty())
    })?;
    ensure!(broker.terminate(Duration::from_secs(20))?.success(), "the stop failed:\n{}", broker.output());
    ensure!(segments("none", "log")?.len() > 1, "one segment proves little");
    for codec in CODECS {
        let logs = segments(codec, "log")?;
        let text = tool(jars, &logs)?;
        let records = text.lines().filter(|line| line.trim_start().starts_with("| offset:")).count();
        ensure!(records == RECORDS, "{codec}: {records} records in:\n{text}");
        ensure!(text.contains(&format!("compresscodec: {codec}")), "{codec} is not in:\n{text}");
        ensure!(!text.contains("isvalid: false"), "{codec}: a batch is not valid:\n{text}");
        for extension in ["index", "timeindex"] {
            let indexes = segments(codec, extension)?;
            ensure!(indexes.len() == logs.len(), "{codec}: {indexes:?} for {logs:?}");
            let text = tool(jars, &indexes)?;
            ensure!(text.contains("offset:"), "{codec}: the tool sees no entry in:\n{text}");
        }
    }
    Ok(())
}

fn produce(bootstrap: &str, codec: &str) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("compression.codec", codec)
        .set("batch.num.messages", "40")
        .set("linger.ms", "5")
        .create()?;
    aqueduct_tests::topic::create(bootstrap, &format!("dump-{codec}"), 1, &[("segment.bytes", "1048576")])?;
    for number in 0..RECORDS {
        // Words that compress somewhat.
        let value = format!("{number} {}", format!("{:x} ", number * 7_919).repeat(60));
        let topic = format!("dump-{codec}");
        let key = format!("key {}", number % 50);
        while producer.send(BaseRecord::to(&topic).key(&key).payload(&value)).is_err() {
            producer.poll(Duration::from_millis(10));
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(30))?;
    Ok(())
}

fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What the tool prints; anything it complains about is an error.
fn tool(jars: &Jars, files: &[PathBuf]) -> Result<String> {
    let list: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let output = Command::new("java")
        .args(["-Xmx256m", "-cp", &jars.class_path()])
        .args(["org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", "--files", &list.join(",")])
        .output()
        .context("java can be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the tool failed: {errors}\n{text}");
    for complaint in ["ismatch", "out of order", "onsecutive", "not found", "orrupt", "Found"] {
        ensure!(
            !text.contains(complaint),
            "the tool complains ({complaint}) about {list:?}:\n{text}\n{errors}"
        );
    }
    Ok(text)
}
