//! `configs/quickstart.yaml`: records flow within a second, and what comes out is what went in: masked, filtered, counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::process::{Start, eventually};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

const COUNT: usize = 3000;

#[test]
fn the_quickstart_masks_filters_and_counts() {
    quickstart().expect("the quickstart is right");
}

fn quickstart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    super::examples(dir.path())?;
    let file = dir.path().join("configs/quickstart.yaml");
    // As it is, but with an end, so that everything can be counted.
    let text =
        std::fs::read_to_string(&file)?.replace("rate: 1000", &format!("rate: 1000\n    count: {COUNT}"));
    std::fs::write(&file, text)?;
    let start = Start::run(dir.path(), &[&file]);
    let begun = Instant::now();
    let mut process = start.start()?;
    let flowing = |output: &str| {
        output.lines().any(|line| line.starts_with("quickstart-files") && !line.contains(" 0 records"))
    };
    eventually("the sink takes records", Duration::from_secs(10), || flowing(&process.output()))?;
    let first = begun.elapsed();
    println!("first record through after {first:?}");

    let output = dir.path().join("quickstart-output");
    eventually("everything is written", Duration::from_secs(30), || {
        process.output().lines().any(|line| line.contains("3,000 records")) && !lines(&output).is_empty()
    })?;
    // A stop and a start in the middle of things lose nothing and repeat nothing that was complete.
    ensure!(process.terminate(Duration::from_secs(20))?.success(), "{}", process.output());
    drop(process);
    let mut process = start.start()?;
    let orders = read_orders(&process.kafka)?;
    ensure!(orders.len() == COUNT, "{} orders are in the log", orders.len());
    let paid = || orders.values().filter(|order| order["status"] == "paid");
    eventually("every paid order is in a file", Duration::from_secs(20), || {
        lines(&output).len() >= paid().count()
    })?;
    ensure!(process.terminate(Duration::from_secs(20))?.success(), "{}", process.output());

    let written: Vec<Value> = lines(&output);
    let mut by_id = BTreeMap::new();
    for order in &written {
        let id = order["id"].as_i64().context("an order has an id")?;
        ensure!(by_id.insert(id, order).is_none(), "order {id} was written twice");
    }
    ensure!(by_id.len() == paid().count(), "{} of {} paid orders were written", by_id.len(), paid().count());
    for order in paid() {
        let id = order["id"].as_i64().context("an order has an id")?;
        let mut masked = (*by_id.get(&id).with_context(|| format!("order {id} is missing"))?).clone();
        for field in ["email", "phone"] {
            let hash = masked[field].as_str().unwrap_or_default().to_owned();
            let hexadecimal = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
            ensure!(hexadecimal && order[field] != masked[field], "order {id}: `{field}` is `{hash}`");
            masked[field] = order[field].clone();
        }
        ensure!(masked == *order, "order {id} was changed beyond the mask: {masked} from {order}");
    }
    Ok(())
}

/// Every line of every complete file.
fn lines(dir: &Path) -> Vec<Value> {
    let mut all = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return all };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            all.extend(lines(&entry.path()));
            continue;
        }
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && let Ok(text) = std::fs::read_to_string(entry.path()) {
            all.extend(
                text.lines().map(|line| {
                    serde_json::from_str::<Value>(line).expect("a complete file has whole lines")
                }),
            );
        }
    }
    all
}

/// The orders in the log by id.
fn read_orders(kafka: &str) -> Result<BTreeMap<i64, Value>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "quickstart-check")
        .set("enable.partition.eof", "true")
        .create()?;
    let topic = "quickstart.orders";
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
    let partitions = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, i32::try_from(partition)?, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let (mut orders, mut ends) = (BTreeMap::new(), 0);
    while ends < partitions {
        match consumer.poll(Duration::from_secs(10)).context("the log answers")? {
            Ok(message) => {
                let order: Value =
                    serde_json::from_slice(message.payload().context("an order has a value")?)?;
                let id = order["id"].as_i64().context("an order has an id")?;
                ensure!(orders.insert(id, order).is_none(), "order {id} is twice in the log");
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ends += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(orders)
}
