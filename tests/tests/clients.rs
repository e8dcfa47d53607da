//! Clients that users have, unchanged: each produces (idempotent, every codec) and consumes by group, across broker
//! restarts, and every record is counted.

mod groups;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::process::{Aqueduct, Start, root};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const COUNT: usize = 4000;

#[test]
fn confluent_kafka_counts_every_record() {
    python("confluent");
}

#[test]
fn kafka_python_counts_every_record() {
    python("kafka-python");
}

#[test]
fn the_java_client_counts_every_record() {
    let Some(classes) = aqueduct_tests::clients::java("the_java_client_counts_every_record") else { return };
    round_trip("java", |args| {
        let mut command = Command::new("java");
        command.args(["-Xmx256m", "-cp", &classes, "RoundTrip"]).args(args);
        command
    })
    .expect("every record is counted");
}

fn python(client: &str) {
    let Some(python) = aqueduct_tests::clients::python(&format!("{client}_counts_every_record")) else {
        return;
    };
    round_trip(client, |args| {
        let mut command = Command::new(&python);
        command.arg(root().join("tests/tests/clients/round_trip.py")).arg(client).args(args);
        command
    })
    .expect("every record is counted");
}

fn round_trip(client: &str, command: impl Fn(&[&str]) -> Command) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let start = Start::broker(dir.path());
    let mut broker = Some(start.start()?);
    let count = COUNT.to_string();
    let kafka = format!("127.0.0.1:{}", start.kafka_port);
    for (i, codec) in CODECS.into_iter().enumerate() {
        let topic = format!("{client}-{codec}");
        let producer = Running::start(command(&["produce", &kafka, &topic, codec, &count]))?;
        // Killed for one codec, stopped in order for the next.
        let last = producer.watch(|line| {
            if line == "sent 2000" { restart(&start, &mut broker, i % 2 == 0) } else { Ok(()) }
        })?;
        ensure!(last == format!("acked {COUNT}"), "{client} {codec}: producing ended with `{last}`");
        let values = read_values(&kafka, &topic)?;
        let wrong: Vec<_> = (0..COUNT).filter(|i| values.get(&format!("v{i}")) != Some(&1)).collect();
        ensure!(
            wrong.is_empty() && values.len() == COUNT,
            "{client} {codec}: not there exactly once: {wrong:?}"
        );

        let group = format!("{client}-{codec}-group");
        let consumer = Running::start(command(&["consume", &kafka, &topic, &group, &count]))?;
        let mut restarted = false;
        let last = consumer.watch(|line| {
            if line.starts_with("read ") && !restarted {
                restarted = true;
                return restart(&start, &mut broker, i % 2 == 1);
            }
            Ok(())
        })?;
        ensure!(
            last.starts_with(&format!("read {COUNT} ")),
            "{client} {codec}: consuming ended with `{last}`"
        );
    }
    Ok(())
}

fn restart(start: &Start, broker: &mut Option<Aqueduct>, kill: bool) -> Result<()> {
    if let Some(mut running) = broker.take() {
        if kill {
            running.kill()?;
        } else {
            let status = running.terminate(Duration::from_secs(30))?;
            ensure!(status.success(), "an orderly stop ended with {status}:\n{}", running.output());
        }
    }
    *broker = Some(start.start()?);
    Ok(())
}

/// A client process; its lines are watched as they come.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {command:?}"))?))
    }

    /// Gives the last line.
    fn watch(mut self, mut each: impl FnMut(&str) -> Result<()>) -> Result<String> {
        let output = self.0.stdout.take().context("its output is a pipe")?;
        let mut last = String::new();
        for line in BufReader::new(output).lines() {
            last = line?;
            each(&last)?;
        }
        let status = self.0.wait()?;
        ensure!(status.success(), "the client ended with {status}: {last}");
        Ok(last)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// How often each value is in the topic.
fn read_values(bootstrap: &str, topic: &str) -> Result<HashMap<String, usize>> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", "auditor").create()?;
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20))?;
    let partitions = metadata.topics().first().context("the topic is there")?.partitions().len();
    let mut assignment = TopicPartitionList::new();
    let mut total = 0;
    for partition in 0..i32::try_from(partitions)? {
        total += consumer.fetch_watermarks(topic, partition, Duration::from_secs(20))?.1;
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut values = HashMap::new();
    for _ in 0..total {
        let message = consumer.poll(Duration::from_secs(20)).context("the topic ends early")??;
        let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
        *values.entry(value).or_default() += 1;
    }
    Ok(values)
}
