//! Whole ways: PostgreSQL into the log, the log into S3, and generated records through steps into files.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{Meter, Report, quoted, show};
use crate::postgres::{Postgres, execute};
use crate::process::{Aqueduct, Start, eventually};
use crate::s3::{ACCESS_KEY, REGION, S3, SECRET_KEY};

const ROWS: u64 = 1_000_000;
/// More, so that the wait for the last object's age says little.
const S3_ROWS: u64 = 3_000_000;

/// Snapshot and stream of a table of 100-byte rows.
pub fn postgres(report: &mut Report) -> Result<()> {
    let Some(server) = Postgres::start("bench postgres") else { return Ok(()) };
    let runtime = Runtime::new()?;
    let pool = runtime.block_on(server.pool(1))?;
    let fill = |from: u64| {
        format!(
            "INSERT INTO accounts SELECT i, i % 100, i % 1000, rpad(md5(i::text), 70, 'x') FROM generate_series({from}, {}) i",
            from + 999
        )
    };
    let table = "CREATE TABLE accounts (aid bigint PRIMARY KEY, bid int, balance int, filler text)";
    let psql = |report: &Report, sql: &str| {
        report.ran(&format!("psql {} -c {}", quoted(&server.url()), quoted(sql)));
    };
    psql(report, table);
    runtime.block_on(execute(&pool, table))?;
    let all = "INSERT INTO accounts SELECT i, i % 100, i % 1000, rpad(md5(i::text), 70, 'x') FROM generate_series(1, 1000000) i";
    psql(report, all);
    runtime.block_on(execute(&pool, all))?;
    runtime.block_on(execute(&pool, "ANALYZE accounts"))?;

    let dir = tempfile::tempdir()?;
    let process = start(report, dir.path())?;
    let meter = Meter::start(process.usage());
    let config = json!({
        "connector.class": "postgres-cdc", "url": server.url(), "tables": "public.accounts", "slot.name": "bench",
        "topic.prefix": "bench", "topic.creation.default.partitions": "1",
    });
    runtime.block_on(put(report, &process, "accounts", &config))?;
    wait_for(&process, "bench.public.accounts", ROWS)?;
    report.sample("postgres/snapshot", meter.stop(ROWS));

    // A backlog of transactions of 1,000 rows, then the connector goes on.
    runtime.block_on(call(report, &process, "connectors/accounts/pause"))?;
    psql(report, &format!("{}  -- and so on, 1,000 transactions", fill(ROWS + 1)));
    runtime.block_on(async {
        for batch in 0..ROWS / 1000 {
            execute(&pool, &fill(ROWS + 1 + batch * 1000)).await?;
        }
        anyhow::Ok(())
    })?;
    let meter = Meter::start(process.usage());
    runtime.block_on(call(report, &process, "connectors/accounts/resume"))?;
    wait_for(&process, "bench.public.accounts", 2 * ROWS)?;
    report.sample("postgres/stream", meter.stop(ROWS));
    Ok(())
}

/// Generated orders → CEL filter → mask of two fields → JSON lines in files, all at once and with the log between.
pub fn files(report: &mut Report) -> Result<()> {
    let runtime = Runtime::new()?;
    let guest = crate::process::root().join("plugins/prebuilt/mask.wasm");
    let masks = [
        ("mask", json!({"type": "mask", "fields": "email,phone", "salt": "bench"})),
        (
            "wasm",
            json!({"type": "wasm", "module": guest, "config": r#"{"fields":["email","phone"],"salt":"bench"}"#}),
        ),
    ];
    for (name, mask) in masks {
        let dir = tempfile::tempdir()?;
        let process = start(report, dir.path())?;
        let source = json!({
            "connector.class": "datagen", "topic": "orders", "count": ROWS.to_string(), "rate": "0",
            "topic.creation.default.partitions": "4",
        });
        let mut sink = json!({
            "connector.class": "file", "topics": "orders", "path": dir.path().join("lines"), "roll.age": "2s",
            "transforms": "paid,mask", "transforms.paid.type": "filter",
            "transforms.paid.condition": "value.status == \"paid\"",
        });
        for (key, value) in mask.as_object().into_iter().flatten() {
            sink[format!("transforms.mask.{key}")] = value.clone();
        }
        let meter = Meter::start(process.usage());
        runtime.block_on(put(report, &process, "orders", &source))?;
        wait_for(&process, "orders", 1)?;
        runtime.block_on(put(report, &process, "files", &sink))?;
        wait_committed(&process, "connect-files", "orders", ROWS)?;
        report.sample(&format!("generate/filter/{name}/file"), meter.stop(ROWS));
    }
    Ok(())
}

/// JSON lines of about 200 bytes into a real S3 server.
pub fn s3(report: &mut Report) -> Result<()> {
    let Some(server) = S3::start("bench s3") else { return Ok(()) };
    let runtime = Runtime::new()?;
    runtime.block_on(server.create_bucket("bench"))?;
    let dir = tempfile::tempdir()?;
    let process = start(report, dir.path())?;
    let config = json!({
        "connector.class": "datagen", "topic": "orders", "count": S3_ROWS.to_string(), "rate": "0",
        "topic.creation.default.partitions": "4",
    });
    let meter = Meter::start(process.usage());
    runtime.block_on(put(report, &process, "orders", &config))?;
    wait_for(&process, "orders", S3_ROWS)?;
    report.sample("datagen/log", meter.stop(S3_ROWS));
    let config = json!({
        "connector.class": "s3", "topics": "orders", "bucket": "bench", "endpoint": server.endpoint(),
        "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "region": REGION, "path_style": "true", "path": "{topic}/",
        "roll.count": "100000", "roll.age": "2s",
    });
    let meter = Meter::start(process.usage());
    runtime.block_on(put(report, &process, "lake", &config))?;
    wait_committed(&process, "connect-lake", "orders", S3_ROWS)?;
    report.sample("log/s3", meter.stop(S3_ROWS));
    Ok(())
}

fn start(report: &Report, dir: &Path) -> Result<Aqueduct> {
    let mut start = Start::run(dir, &[]);
    // What REST may name: the files that are written, and the guests.
    for path in [dir, &crate::process::root().join("plugins")] {
        start.args.extend(["--allow-path".to_owned(), path.display().to_string()]);
    }
    report.ran(&show(&start.command()));
    start.start()
}

async fn put(report: &Report, process: &Aqueduct, name: &str, config: &Value) -> Result<()> {
    let url = format!("{}/connectors/{name}/config", process.rest);
    report.ran(&format!(
        "curl -X PUT -H content-type:application/json {url} -d {}",
        quoted(&config.to_string())
    ));
    put_connector(process, name, config).await
}

/// Creates a connector, or replaces its config.
pub async fn put_connector(process: &Aqueduct, name: &str, config: &Value) -> Result<()> {
    let url = format!("{}/connectors/{name}/config", process.rest);
    let begun = std::time::Instant::now();
    loop {
        let answer = reqwest::Client::new().put(&url).json(config).send().await?;
        let status = answer.status();
        // The log answers before the worker does.
        if status == reqwest::StatusCode::SERVICE_UNAVAILABLE && begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        ensure!(status.is_success(), "{status}: {}", answer.text().await?);
        return Ok(());
    }
}

async fn call(report: &Report, process: &Aqueduct, path: &str) -> Result<()> {
    report.ran(&format!("curl -X PUT {}/{path}", process.rest));
    let answer = reqwest::Client::new()
        .put(format!("{}/{path}", process.rest))
        .header("content-type", "application/json")
        .send()
        .await?;
    let status = answer.status();
    ensure!(status.is_success(), "{status}: {}", answer.text().await?);
    Ok(())
}

fn ends(process: &Aqueduct, topic: &str) -> Result<Vec<i64>> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &process.kafka).set("group.id", "watch").create()?;
    let limit = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(topic), limit)?;
    let partitions = metadata.topics().first().context("asked for one topic")?.partitions().len();
    (0..i32::try_from(partitions)?).map(|p| Ok(consumer.fetch_watermarks(topic, p, limit)?.1)).collect()
}

fn wait_for(process: &Aqueduct, topic: &str, records: u64) -> Result<()> {
    eventually(&format!("{topic} has {records} records"), Duration::from_secs(600), || {
        std::thread::park_timeout(Duration::from_millis(50));
        ends(process, topic).is_ok_and(|ends| ends.iter().sum::<i64>() >= records as i64)
    })
    .with_context(|| process.output())
}

fn wait_committed(process: &Aqueduct, group: &str, topic: &str, records: u64) -> Result<()> {
    let partitions = ends(process, topic)?.len();
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &process.kafka).set("group.id", group).create()?;
    eventually(&format!("{group} has committed {records}"), Duration::from_secs(600), || {
        std::thread::park_timeout(Duration::from_millis(50));
        let mut list = rdkafka::TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(topic, partition as i32);
        }
        let Ok(found) = consumer.committed_offsets(list, Duration::from_secs(5)) else { return false };
        let sum: i64 = found.elements().iter().filter_map(|e| e.offset().to_raw()).filter(|o| *o > 0).sum();
        sum >= records as i64
    })
    .with_context(|| process.output())
}
