//! Produce, consume and end-to-end latency of the log, through librdkafka.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;

use super::{Meter, Report, percentile_ms};
use crate::process::{Aqueduct, Start};

const PARTITIONS: i32 = 1;

/// 100 B and 1 KiB, durable and `durability=os`.
pub fn run(report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    report.sample("disk/fdatasync", fdatasync(dir.path())?);
    for (size, count) in [(100, 2_000_000), (1024, 300_000)] {
        for durability in ["durable", "os"] {
            let dir = tempfile::tempdir()?;
            let broker = Start::broker(dir.path()).start()?;
            let topic = format!("bench-{size}-{durability}");
            create_topic(&broker.kafka, &topic, durability)?;
            for acks in ["1", "all"] {
                let meter = Meter::start(&broker);
                produce(&broker, &topic, size, count, acks)?;
                report
                    .sample(&format!("produce/{size}B/{durability}/acks={acks}"), meter.stop(&broker, count));
            }
            let meter = Meter::start(&broker);
            consume(&broker, &topic, count)?;
            report.sample(&format!("consume/{size}B/{durability}"), meter.stop(&broker, count));
            let times = end_to_end(&broker, &topic, size)?;
            report.sample(
                &format!("end-to-end/{size}B/{durability}"),
                json!({
                    "p50_ms": percentile_ms(&times, 0.5), "p99_ms": percentile_ms(&times, 0.99),
                    "p999_ms": percentile_ms(&times, 0.999), "n": times.len(),
                }),
            );
        }
    }
    Ok(())
}

/// The disk's own figure, without which a durable latency says nothing.
fn fdatasync(dir: &std::path::Path) -> Result<serde_json::Value> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(dir.join("probe"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        file.write_all(&[0; 1024])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(json!({"p50_ms": percentile_ms(&times, 0.5), "p99_ms": percentile_ms(&times, 0.99)}))
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

pub(super) fn create_topic(bootstrap: &str, name: &str, durability: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(-1)).set("durability", durability);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for result in runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))? {
        if let Err((name, code)) = result {
            bail!("cannot create {name}: {code}");
        }
    }
    Ok(())
}

fn produce(broker: &Aqueduct, topic: &str, size: usize, count: u64, acks: &str) -> Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = config(&broker.kafka)
        .set("acks", acks)
        .set("linger.ms", "5")
        .set("batch.size", "16384")
        .set("queue.buffering.max.messages", "200000")
        .create()?;
    let payload = vec![b'x'; size];
    for _ in 0..count {
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(&payload);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(Duration::from_secs(120))?;
    Ok(())
}

fn assigned(broker: &Aqueduct, topic: &str, offset: Offset) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = config(&broker.kafka)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, offset)?;
    }
    consumer.assign(&assignment)?;
    Ok(consumer)
}

fn consume(broker: &Aqueduct, topic: &str, count: u64) -> Result<()> {
    let consumer = assigned(broker, topic, Offset::Beginning)?;
    for _ in 0..count {
        consumer.poll(Duration::from_secs(20)).context("the topic ends early")??;
    }
    Ok(())
}

/// One record after the other, `acks=all`, from the send to its arrival at a consumer.
fn end_to_end(broker: &Aqueduct, topic: &str, size: usize) -> Result<Vec<Duration>> {
    let producer: BaseProducer = config(&broker.kafka).set("acks", "all").set("linger.ms", "0").create()?;
    let consumer = assigned(broker, topic, Offset::End)?;
    // Until the position at the end is known, nothing that is sent arrives for certain.
    let payload = vec![b'y'; size];
    let mut times = Vec::new();
    for number in 0..3_100u32 {
        let key = number.to_be_bytes();
        let begun = Instant::now();
        producer.send(BaseRecord::to(topic).key(&key[..]).payload(&payload)).map_err(|(error, _)| error)?;
        producer.poll(Duration::ZERO);
        loop {
            producer.poll(Duration::ZERO);
            match consumer.poll(Duration::from_millis(if number == 0 { 200 } else { 2_000 })) {
                Some(message) if message.as_ref().is_ok_and(|m| m.key() == Some(&key[..])) => break,
                Some(_) => {}
                // The first ones may be sent before the consumer stands at the end.
                None if number < 100 => break,
                None => bail!("record {number} did not arrive"),
            }
        }
        if number >= 100 {
            times.push(begun.elapsed());
        }
    }
    times.sort();
    Ok(times)
}
