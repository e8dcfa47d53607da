//! The load: one process per measurement, the same for every broker, so that each can be run again by its command line.
//!
//! `produce` and `latency` are librdkafka. `fetch` reads whole batches over a plain connection and counts records by
//! the batches' headers, so that it is the broker that is measured and not the client.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aqueduct_wire::batch::RecordBatch;
use aqueduct_wire::messages::{FetchPartition, FetchRequest, FetchTopic};
use clap::{Args, Subcommand};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::{Report, percentile_ms, show};
use crate::process::eventually;
use crate::raw::Raw;

/// What a client does.
#[derive(Clone, Debug, Subcommand)]
pub enum Work {
    /// Creates the topic.
    Create(Load),
    /// Deletes the topic.
    Delete(Load),
    /// Writes records of one size round robin over the partitions, in batches of 16 KiB and 5 ms.
    Produce(Load),
    /// Reads the topic from its beginning to where it ends now.
    Fetch(Load),
    /// Reads the topic record by record with librdkafka.
    Consume(Load),
    /// One record after the other, from its send to its arrival at a consumer.
    Latency(Load),
}

/// On which topic, and how much.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// `HOST:PORT` of the broker.
    pub broker: String,
    /// An existing topic.
    pub topic: String,
    /// How many records.
    #[arg(long, default_value_t = 1_000_000)]
    pub records: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    pub size: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 1)]
    pub partitions: i32,
    /// `1` or `all`.
    #[arg(long, default_value = "1")]
    pub acks: String,
    /// Bytes of a batch.
    #[arg(long, default_value_t = 16_384)]
    pub batch: usize,
    /// `KEY=VALUE` of a new topic.
    #[arg(long)]
    pub config: Vec<String>,
}

impl Load {
    /// A million records of 100 bytes, `acks=1`, on one partition.
    pub fn new(broker: &str, topic: &str) -> Self {
        Self {
            broker: broker.to_owned(),
            topic: topic.to_owned(),
            records: 1_000_000,
            size: 100,
            partitions: 1,
            acks: "1".to_owned(),
            batch: 16_384,
            config: Vec::new(),
        }
    }
}

impl Work {
    fn parts(&self) -> (&'static str, &Load) {
        match self {
            Work::Create(load) => ("create", load),
            Work::Delete(load) => ("delete", load),
            Work::Produce(load) => ("produce", load),
            Work::Fetch(load) => ("fetch", load),
            Work::Consume(load) => ("consume", load),
            Work::Latency(load) => ("latency", load),
        }
    }

    /// Does it, here; the figures.
    pub fn run(&self) -> Result<Value> {
        match self {
            Work::Create(load) => create(load),
            Work::Delete(load) => delete(load),
            Work::Produce(load) => produce(load),
            Work::Fetch(load) => fetch(load),
            Work::Consume(load) => consume(load),
            Work::Latency(load) => latency(load),
        }
    }

    /// Does it in a process of its own, whose command line is printed before.
    pub fn spawn(&self, report: &Report) -> Result<Value> {
        let (name, load) = self.parts();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["client", name, &load.broker, &load.topic]);
        command.args(["--partitions", &load.partitions.to_string()]);
        match self {
            Work::Create(_) => {
                command.args(load.config.iter().map(|pair| format!("--config={pair}")));
            }
            Work::Fetch(_) | Work::Delete(_) => {}
            Work::Consume(_) => {
                command.args(["--records", &load.records.to_string()]);
            }
            Work::Produce(_) | Work::Latency(_) => {
                command.args(["--records", &load.records.to_string(), "--size", &load.size.to_string()]);
                command.args(["--acks", &load.acks, "--batch", &load.batch.to_string()]);
            }
        }
        report.ran(&show(&command));
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "`{}` failed: {}", show(&command), output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn config(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    config
}

fn rate(records: u64, begun: Instant) -> Value {
    let seconds = begun.elapsed().as_secs_f64();
    json!({"records": records, "records_per_s": (records as f64 / seconds) as u64, "seconds": seconds})
}

fn create(load: &Load) -> Result<Value> {
    let settings = load.config.iter().map(|pair| pair.split_once('=').context("`--config` wants KEY=VALUE"));
    let settings: Vec<(&str, &str)> = settings.collect::<Result<_>>()?;
    crate::topic::create(&load.broker, &load.topic, load.partitions, &settings)?;
    // Every partition has a leader before anything is measured.
    let consumer: BaseConsumer = config(&load.broker).create()?;
    eventually("every partition has a leader", Duration::from_secs(60), || {
        let found = consumer.fetch_metadata(Some(&load.topic), Duration::from_secs(10));
        found.is_ok_and(|found| {
            found.topics().iter().any(|topic| {
                let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
                led == load.partitions.unsigned_abs() as usize
            })
        })
    })?;
    Ok(json!({}))
}

fn delete(load: &Load) -> Result<Value> {
    let admin: AdminClient<DefaultClientContext> = config(&load.broker).create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for result in runtime.block_on(admin.delete_topics(&[&load.topic], &AdminOptions::new()))? {
        result.map_err(|(name, code)| anyhow::anyhow!("cannot delete {name}: {code}"))?;
    }
    Ok(json!({}))
}

fn produce(load: &Load) -> Result<Value> {
    let producer: ThreadedProducer<DefaultProducerContext> = config(&load.broker)
        .set("acks", &load.acks)
        .set("linger.ms", "5")
        .set("batch.size", load.batch.to_string())
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "262144")
        .create()?;
    let payload = vec![b'x'; load.size];
    // Connected and with the topic's leaders known before the clock starts.
    producer.client().fetch_metadata(Some(&load.topic), Duration::from_secs(30))?;
    let begun = Instant::now();
    for number in 0..load.records {
        let partition = (number % u64::from(load.partitions.unsigned_abs())) as i32;
        let mut record = BaseRecord::<(), [u8]>::to(&load.topic).partition(partition).payload(&payload);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(Duration::from_secs(300))?;
    Ok(rate(load.records, begun))
}

fn fetch(load: &Load) -> Result<Value> {
    const VERSION: i16 = 11;
    let mut connection = Raw::connect(&load.broker)?;
    let mut next: Vec<Option<i64>> = vec![Some(0); usize::try_from(load.partitions)?];
    let (mut records, mut bytes) = (0, 0);
    let begun = Instant::now();
    while next.iter().any(Option::is_some) {
        let wanted = next.iter().enumerate().filter_map(|(partition, offset)| {
            Some(FetchPartition {
                partition: partition as i32,
                fetch_offset: (*offset)?,
                partition_max_bytes: 1 << 20,
                ..Default::default()
            })
        });
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 16 << 20,
            topics: vec![FetchTopic {
                topic: load.topic.as_str().into(),
                partitions: wanted.collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = connection.call(VERSION, &request)?;
        ensure!(answer.error_code == 0, "the fetch was answered with error {}", answer.error_code);
        for part in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            ensure!(part.error_code == 0, "partition {}: error {}", part.partition_index, part.error_code);
            let slot = next.get_mut(part.partition_index as usize).context("a partition not asked for")?;
            let Some(offset) = slot else { continue };
            let mut text = part.records.unwrap_or_default().to_bytes();
            bytes += text.len();
            while !text.is_empty() {
                // The last batch may be cut off.
                let Ok(batch) = RecordBatch::parse_trusted(&mut text) else { break };
                records += u64::from(batch.header().record_count.unsigned_abs());
                *offset = batch.header().next_offset();
            }
            if *offset >= part.high_watermark {
                *slot = None;
            }
        }
    }
    let mut figures = rate(records, begun);
    figures["mib"] = json!(bytes >> 20);
    Ok(figures)
}

fn assigned(load: &Load, offset: Offset) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = config(&load.broker)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..load.partitions {
        assignment.add_partition_offset(&load.topic, partition, offset)?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

fn consume(load: &Load) -> Result<Value> {
    let consumer = assigned(load, Offset::Beginning)?;
    let begun = Instant::now();
    for _ in 0..load.records {
        consumer.poll(Duration::from_secs(20)).context("the topic ends early")??;
    }
    Ok(rate(load.records, begun))
}

fn latency(load: &Load) -> Result<Value> {
    const WARM_UP: u64 = 200;
    let producer: BaseProducer =
        config(&load.broker).set("acks", &load.acks).set("linger.ms", "0").create()?;
    let consumer = assigned(load, Offset::End)?;
    let payload = vec![b'y'; load.size];
    let mut times = Vec::new();
    for number in 0..load.records + WARM_UP {
        let key = number.to_be_bytes();
        let partition = (number % u64::from(load.partitions.unsigned_abs())) as i32;
        let begun = Instant::now();
        let record = BaseRecord::to(&load.topic).partition(partition).key(&key[..]).payload(&payload);
        producer.send(record).map_err(|(error, _)| error)?;
        // The first ones may be sent before the consumer stands at the end; they never arrive.
        let patience = Duration::from_millis(if number == 0 { 1_000 } else { 5_000 });
        loop {
            producer.poll(Duration::ZERO);
            match consumer.poll(patience) {
                Some(message) if message.as_ref().is_ok_and(|m| m.key() == Some(&key[..])) => break,
                Some(_) => {}
                None if number < WARM_UP => break,
                None => bail!("record {number} did not arrive"),
            }
        }
        if number >= WARM_UP {
            times.push(begun.elapsed());
        }
    }
    times.sort();
    let sum: Duration = times.iter().sum();
    Ok(json!({
        "n": times.len(),
        "avg_ms": sum.as_secs_f64() * 1e3 / times.len().max(1) as f64,
        "p50_ms": percentile_ms(&times, 0.5),
        "p99_ms": percentile_ms(&times, 0.99),
        "p999_ms": percentile_ms(&times, 0.999),
    }))
}
