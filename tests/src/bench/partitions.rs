//! Thousands of partitions beside one: start, memory, and the latency of a produce.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aqueduct_wire::messages::{
    CreatableTopic, CreateTopicsRequest, PartitionProduceData, ProduceRequest, TopicProduceData,
};
use aqueduct_wire::record_set::RecordSet;
use aqueduct_wire::{BatchBuilder, Bytes};
use serde_json::json;

use super::start::first_answer;
use super::{Report, percentile_ms, show};
use crate::process::{Aqueduct, Start};
use crate::raw::Raw;

/// Topics, and partitions of each.
const SHAPES: [(usize, i32); 3] = [(1, 1), (1, 5_000), (500, 10)];
/// Produces of one record that are timed, one after the other, round robin over all partitions.
const PRODUCES: usize = 2_000;
const CREATE: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(300);

/// Each shape: making it, writing to it, a clean stop and a start.
pub fn run(report: &mut Report) -> Result<()> {
    for (topics, partitions) in SHAPES {
        let dir = tempfile::tempdir()?;
        let begun = Instant::now();
        let mut broker = started(report, dir.path())?;
        first_answer(&broker.kafka, begun)?;
        let mut client = Raw::connect(&broker.kafka)?;
        client.wait_up_to(CREATE)?;
        let begun = Instant::now();
        create(&mut client, topics, partitions)?;
        let created = begun.elapsed();
        let resident = broker.resident()?;
        let times = produce(&mut client, topics, partitions)?;
        drop(client);
        let loaded = broker.resident()?;
        let begun = Instant::now();
        broker.terminate(STOP)?;
        let stopped = begun.elapsed();
        let begun = Instant::now();
        let mut broker = started(report, dir.path())?;
        first_answer(&broker.kafka, begun)?;
        let restarted = begun.elapsed();
        std::thread::park_timeout(Duration::from_secs(2));
        let (before, asleep) = (broker.cpu_seconds()?, Duration::from_secs(5));
        std::thread::park_timeout(asleep);
        let mib = |bytes: u64| bytes as f64 / 1048576.0;
        report.sample(
            &format!("partitions/{topics}x{partitions}"),
            json!({
                "create_ms": created.as_secs_f64() * 1e3,
                "created_mib": mib(resident),
                "produce_p50_ms": percentile_ms(&times, 0.5),
                "produce_p99_ms": percentile_ms(&times, 0.99),
                "loaded_mib": mib(loaded),
                "stop_ms": stopped.as_secs_f64() * 1e3,
                "restart_ms": restarted.as_secs_f64() * 1e3,
                "idle_mib": mib(broker.resident()?),
                "idle_cpu_percent": (broker.cpu_seconds()? - before) / asleep.as_secs_f64() * 100.0,
            }),
        );
        broker.terminate(STOP)?;
    }
    Ok(())
}

fn started(report: &Report, dir: &Path) -> Result<Aqueduct> {
    let start = Start::broker(dir);
    report.ran(&show(&start.command()));
    start.spawn()
}

fn create(client: &mut Raw, topics: usize, partitions: i32) -> Result<()> {
    let topic = |number: usize| CreatableTopic {
        name: name(number).into(),
        num_partitions: partitions,
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    let topics = (0..topics).map(topic).collect();
    let request = CreateTopicsRequest { topics, timeout_ms: 60_000, ..CreateTopicsRequest::default() };
    for topic in client.call(7, &request)?.topics {
        ensure!(topic.error_code == 0, "cannot create `{}`: {}", topic.name, topic.error_code);
    }
    Ok(())
}

fn produce(client: &mut Raw, topics: usize, partitions: i32) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(PRODUCES);
    let width = usize::try_from(partitions)?;
    for at in 0..PRODUCES {
        // A step that shares no factor with the counts goes through all of them.
        let place = at * 7 % (topics * width);
        let partition =
            PartitionProduceData { index: i32::try_from(place % width)?, records: Some(records()?) };
        let topic = TopicProduceData {
            name: name(place / width).into(),
            partition_data: vec![partition],
            ..TopicProduceData::default()
        };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 5_000, topic_data: vec![topic], ..Default::default() };
        let begun = Instant::now();
        let answer = client.call(9, &request)?;
        times.push(begun.elapsed());
        let one = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        let code = one.context("an answer without the partition")?.error_code;
        ensure!(code == 0, "a produce was refused: {code}");
    }
    times.sort();
    Ok(times)
}

fn records() -> Result<RecordSet> {
    let mut builder = BatchBuilder::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    builder.append(i64::try_from(now.as_millis())?, None, Some(&[b'x'; 100]), &[]);
    let batch: Bytes = builder.build()?;
    Ok(RecordSet::from(batch))
}

fn name(number: usize) -> String {
    format!("topic-{number:04}")
}
