//! The runtime from outside: kills, dead letters, holes. Every record is counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aqueduct_tests::process::{Aqueduct, Start, eventually};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn on_tokio<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn client(process: &Aqueduct) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &process.kafka)
        .set("group.id", "test-reader")
        .set("enable.auto.commit", "false");
    config
}

/// A pipeline of `count` generated orders into files under `dir/out`.
fn pipeline(dir: &Path, count: u64, rate: u64, steps: &str) -> Result<std::path::PathBuf> {
    let out = dir.join("out");
    let text = format!(
        "version: 1\npipeline: t\nsource:\n  use: datagen\n  with: {{ topic: t.orders, rate: {rate}, count: {count} }}\n\
         topic: {{ partitions: 1 }}\nsinks:\n  files:\n    use: file\n{steps}    with:\n      path: {}\n      \
         roll: {{ age: 200ms }}\n      fields.origin: true\non_error: {{ then: dlq }}\n",
        out.display()
    );
    let file = dir.join("pipeline.yaml");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Every line of every complete file, by topic, partition and offset.
fn written(dir: &Path) -> Result<BTreeMap<(String, i64, i64), Value>> {
    let mut lines = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(dir.join("out")) else { return Ok(lines) };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines() {
            let value: Value =
                serde_json::from_str(line).with_context(|| format!("in {}", path.display()))?;
            let number = |key: &str| value[key].as_i64().unwrap_or(-1);
            let topic = value["_topic"].as_str().unwrap_or_default().to_owned();
            let key = (topic, number("_partition"), number("_offset"));
            if let Some(before) = lines.insert(key.clone(), value.clone()) {
                ensure!(before == value, "two records at {key:?}");
            }
        }
    }
    Ok(lines)
}

fn ids(lines: &BTreeMap<(String, i64, i64), Value>) -> std::collections::BTreeSet<i64> {
    lines.values().filter_map(|line| line["id"].as_i64()).collect()
}

async fn rest(process: &Aqueduct, method: reqwest::Method, path: &str) -> Result<Value> {
    let answer = reqwest::Client::new().request(method, format!("{}{path}", process.rest)).send().await?;
    Ok(serde_json::from_str(&answer.text().await?).unwrap_or(Value::Null))
}

/// Asks for a status until it holds.
async fn status_until(process: &Aqueduct, name: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut last = Value::Null;
    for _ in 0..1200 {
        ticks.tick().await;
        last = rest(process, reqwest::Method::GET, &format!("/connectors/{name}/status"))
            .await
            .unwrap_or_default();
        if holds(&last) {
            return Ok(last);
        }
    }
    bail!("the status of `{name}` never became what was expected; last {last}\n{}", process.output())
}

fn produce(process: &Aqueduct, topic: &str, values: &[&[u8]]) -> Result<()> {
    let producer: BaseProducer = client(process).create()?;
    for value in values {
        producer.send(BaseRecord::<[u8], [u8]>::to(topic).payload(value)).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(Duration::from_secs(20))?)
}

/// Reads `count` records from the start of partition 0.
fn read(process: &Aqueduct, topic: &str, count: usize) -> Result<Vec<OwnedMessage>> {
    let consumer: BaseConsumer = client(process).create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    let mut messages = Vec::new();
    eventually("the dead letters are there", LIMIT, || {
        while let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            messages.push(message.detach());
        }
        messages.len() >= count
    })?;
    Ok(messages)
}

fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(header.value?).into_owned())
}

#[test]
fn every_generated_record_arrives_over_kills_at_every_stage() {
    let dir = tempfile::tempdir().expect("a directory");
    // Slow enough for each place to be passed before all is done.
    let file = pipeline(dir.path(), 60_000, 15_000, "").expect("written");
    let start = Start::run(dir.path(), &[&file]);
    for point in [
        "runtime.source.after_data_ack@2",
        "runtime.source.after_position_ack@2",
        "runtime.sink.before_offset_commit@1",
        "runtime.source.after_data_ack",
        "runtime.sink.before_offset_commit@2",
    ] {
        let mut process = start.clone().env("AQUEDUCT_FAILPOINT", point).spawn().expect("spawns");
        // A place that is not passed any more, because all is done, ends the round too.
        let done = || ids(&written(dir.path()).expect("whole lines")).len() == 60_000;
        eventually(point, LIMIT, || process.ended().expect("asked").is_some() || done())
            .expect("dies or is done");
        process.kill().expect("killed");
    }
    let mut process = start.start().expect("starts");
    assert!(
        process.output().matches("ending the process").count() >= 3,
        "the kills took place: {}",
        process.output()
    );
    let complete = || ids(&written(dir.path()).expect("whole lines")).len() == 60_000;
    eventually("every record is in a file", LIMIT, complete).expect("arrives");
    assert!(process.terminate(LIMIT).expect("ends").success(), "{}", process.output());
}

#[test]
fn a_poison_record_becomes_a_dead_letter_and_every_other_arrives() {
    let dir = tempfile::tempdir().expect("a directory");
    let steps = "    steps:\n      - { name: adults, filter: 'value.id >= 0' }\n";
    let file = pipeline(dir.path(), 50, 0, steps).expect("written");
    let mut process = Start::run(dir.path(), &[&file]).start().expect("starts");
    eventually("the generated records arrive", LIMIT, || {
        written(dir.path()).is_ok_and(|lines| lines.len() == 50)
    })
    .expect("arrives");
    let poison: [&[u8]; 3] = [b"not json", b"{\"other\":1}", b"{\"id\":1000}"];
    produce(&process, "t.orders", &poison).expect("produced");
    eventually("the good one arrives", LIMIT, || written(dir.path()).is_ok_and(|lines| lines.len() == 51))
        .expect("arrives");
    let letters =
        dead_letter_topic(&process).and_then(|topic| read(&process, &topic, 2)).expect("two letters");
    assert_eq!(letters[0].payload(), Some(&b"not json"[..]), "the consumed bytes");
    let stages: Vec<_> =
        letters.iter().filter_map(|letter| header(letter, "__connect.errors.stage")).collect();
    assert_eq!(stages, ["VALUE_CONVERTER", "TRANSFORMATION"]);
    assert_eq!(header(&letters[1], "aqueduct.errors.offset").as_deref(), Some("51"));
    assert!(header(&letters[1], "aqueduct.errors.error").is_some_and(|text| text.contains("id")));
    assert!(process.terminate(LIMIT).expect("ends").success());
}

/// The topic that the pipeline's config names.
fn dead_letter_topic(process: &Aqueduct) -> Result<String> {
    let config = on_tokio(rest(process, reqwest::Method::GET, "/connectors/t-files/config"))?;
    let topic = config["errors.deadletterqueue.topic.name"].as_str();
    topic.map(str::to_owned).with_context(|| format!("no dead letter topic in {config}"))
}

#[test]
fn a_dead_letter_that_cannot_be_written_stops_the_task_before_its_offset() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = pipeline(dir.path(), 10, 0, "").expect("written");
    let mut process = Start::run(dir.path(), &[&file]).start().expect("starts");
    eventually("the generated records arrive", LIMIT, || {
        written(dir.path()).is_ok_and(|lines| lines.len() == 10)
    })
    .expect("arrives");
    on_tokio(async {
        // Too small for any letter.
        let topic = dead_letter_topic_async(&process).await?;
        let admin: AdminClient<DefaultClientContext> = client(&process).create()?;
        let small = NewTopic::new(&topic, 1, TopicReplication::Fixed(-1)).set("max.message.bytes", "80");
        for result in admin.create_topics(&[small], &AdminOptions::new()).await? {
            result.map_err(|(topic, code)| anyhow::anyhow!("{topic}: {code}"))?;
        }
        produce(&process, "t.orders", &[b"not json", b"{\"id\":1000}"])?;
        let status =
            status_until(&process, "t-files", |status| status["tasks"][0]["trace"].is_string()).await?;
        let trace = status["tasks"][0]["trace"].as_str().unwrap_or_default().to_owned();
        ensure!(trace.contains("a dead letter cannot be written"), "{trace}");
        let offsets = rest(&process, reqwest::Method::GET, "/connectors/t-files/offsets").await?;
        let committed = offsets["offsets"][0]["offset"]["kafka_offset"].as_i64();
        ensure!(committed.is_none_or(|offset| offset <= 10), "committed beyond the bad record: {offsets}");
        Ok(())
    })
    .expect("stops and says why");
    assert!(process.terminate(LIMIT).expect("ends").success());
}

async fn dead_letter_topic_async(process: &Aqueduct) -> Result<String> {
    let config = rest(process, reqwest::Method::GET, "/connectors/t-files/config").await?;
    let topic = config["errors.deadletterqueue.topic.name"].as_str();
    topic.map(str::to_owned).with_context(|| format!("no dead letter topic in {config}"))
}

#[test]
fn a_sink_whose_unread_records_are_gone_fails_and_names_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = pipeline(dir.path(), 20, 0, "").expect("written");
    let mut process = Start::run(dir.path(), &[&file]).start().expect("starts");
    eventually("the generated records arrive", LIMIT, || {
        written(dir.path()).is_ok_and(|lines| lines.len() == 20)
    })
    .expect("arrives");
    on_tokio(async {
        rest(&process, reqwest::Method::PUT, "/connectors/t-files/stop").await?;
        status_until(&process, "t-files", |status| status["connector"]["state"] == "STOPPED").await?;
        produce(&process, "t.orders", &[&b"{\"id\":100}"[..]; 10])?;
        let admin: AdminClient<DefaultClientContext> = client(&process).create()?;
        let mut up_to = TopicPartitionList::new();
        up_to.add_partition_offset("t.orders", 0, Offset::Offset(25))?;
        admin.delete_records(&up_to, &AdminOptions::new()).await?;
        rest(&process, reqwest::Method::PUT, "/connectors/t-files/resume").await?;
        let status =
            status_until(&process, "t-files", |status| status["tasks"][0]["trace"].is_string()).await?;
        let trace = status["tasks"][0]["trace"].as_str().unwrap_or_default().to_owned();
        for part in ["`t.orders` partition 0", "20 to 24", "consumer.override.auto.offset.reset"] {
            ensure!(trace.contains(part), "`{part}` is not in: {trace}");
        }
        Ok(())
    })
    .expect("fails by name");
    assert!(process.terminate(LIMIT).expect("ends").success());
}
