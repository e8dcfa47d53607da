//! Few keys that change all the time stay small on disk while they do, and read the same before and after.
//!
//! `AQUEDUCT_UPDATES` sets how often positions are updated.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use aqueduct_tests::process::{Start, eventually};
use aqueduct_tests::raw::Raw;
use aqueduct_tests::topic::create;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

const TOPIC: &str = "connect-offsets";
const KEYS: u64 = 100;
/// On disk, at any time.
const LIMIT: u64 = 100_000_000;

type Positions = BTreeMap<String, String>;

fn updates() -> u64 {
    std::env::var("AQUEDUCT_UPDATES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

#[test]
fn positions_that_change_all_the_time_stay_small() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    positions(dir.path(), updates()).expect("the positions stay small and right");
}

#[test]
fn committed_offsets_that_change_all_the_time_stay_small() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    commits(dir.path(), updates() / 4).expect("the commits stay small and right");
}

#[expect(clippy::print_stdout, reason = "the figures of a long run")]
fn positions(dir: &Path, updates: u64) -> Result<()> {
    let start = Start::broker(dir);
    let broker = start.start()?;
    create(&broker.kafka, TOPIC, 1, &[("cleanup.policy", "compact")])?;
    let peak = Peak::watch(&start.data);
    let began = std::time::Instant::now();
    let told = produce(&broker.kafka, updates)?;
    let took = began.elapsed();
    let before = read(&broker.kafka)?;
    ensure!(before == told, "told {told:?}, read {before:?}");
    let highest = peak.end();
    let now = size(&start.data);
    println!("{updates} updates in {took:?}: at most {highest} bytes on disk, {now} at the end");
    ensure!(highest < LIMIT, "{highest} bytes were on disk");
    broker.kill()?;
    let broker = start.start()?;
    let after = read(&broker.kafka)?;
    ensure!(after == told, "after a kill: told {told:?}, read {after:?}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures of a long run")]
fn commits(dir: &Path, updates: u64) -> Result<()> {
    let start = Start::broker(dir);
    let broker = start.start()?;
    create(&broker.kafka, "orders", KEYS as i32, &[])?;
    // Asking for the coordinator makes the offsets topic.
    ensure!(
        committed(&broker.kafka)?.iter().all(|offset| *offset == Offset::Invalid),
        "a new group has commits"
    );
    let peak = Peak::watch(&start.data);
    let mut raw = Raw::connect(&broker.kafka)?;
    let rounds = (updates / KEYS).max(1) as i64;
    for offset in 1..=rounds {
        raw.commit_many("readers", "orders", 0..KEYS as i32, offset)?;
    }
    let highest = peak.end();
    println!("{} commits: at most {highest} bytes on disk, {} at the end", rounds * 100, size(&start.data));
    ensure!(highest < LIMIT, "{highest} bytes were on disk");
    broker.kill()?;
    let broker = start.start()?;
    let now = committed(&broker.kafka)?;
    ensure!(
        now.iter().all(|offset| *offset == Offset::Offset(rounds)),
        "{rounds} was committed, {now:?} is there"
    );
    Ok(())
}

fn committed(bootstrap: &str) -> Result<Vec<Offset>> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", "readers").create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range("orders", 0, KEYS as i32 - 1);
    let committed = consumer.committed_offsets(partitions, Duration::from_secs(20))?;
    Ok(committed.elements().iter().map(|partition| partition.offset()).collect())
}

#[derive(Clone, Default)]
struct Failed(Arc<AtomicU64>);

impl ClientContext for Failed {}

impl ProducerContext for Failed {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The last position of each key.
fn produce(bootstrap: &str, updates: u64) -> Result<Positions> {
    let failed = Failed::default();
    let producer: ThreadedProducer<Failed> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .create_with_context(failed.clone())?;
    let mut last = Positions::new();
    for number in 0..updates {
        let key = format!("[\"orders-cdc\",{{\"server\":\"shard-{}\"}}]", number % KEYS);
        let value =
            format!("{{\"lsn\":{},\"txId\":{number},\"snapshot\":false}}", 9_000_000_000 + number * 57);
        while producer.send(BaseRecord::to(TOPIC).key(&key).payload(&value)).is_err() {
            producer.poll(Duration::from_millis(10));
        }
        last.insert(key, value);
    }
    producer.flush(Duration::from_secs(60))?;
    ensure!(failed.0.load(Ordering::Relaxed) == 0, "updates were not acknowledged");
    Ok(last)
}

fn read(bootstrap: &str) -> Result<Positions> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "auditor")
        .set("enable.auto.commit", "false")
        .create()?;
    let (_, end) = consumer.fetch_watermarks(TOPIC, 0, Duration::from_secs(20))?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(TOPIC, 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    let mut positions = Positions::new();
    let mut next = 0;
    eventually("the whole topic is read", Duration::from_secs(60), || {
        while next < end {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { return false };
            next = message.offset() + 1;
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            positions.insert(text(message.key()), text(message.payload()));
        }
        true
    })?;
    Ok(positions)
}

/// Looks at the size of a directory all the time.
struct Peak {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Peak {
    fn watch(dir: &Path) -> Self {
        let (stop, dir) = (Arc::new(AtomicBool::new(false)), dir.to_owned());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut highest = 0;
            while !stopped.load(Ordering::Relaxed) {
                highest = highest.max(size(&dir));
                aqueduct_tests::process::pause();
            }
            highest
        });
        Self { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watcher does not panic")
    }
}

/// Bytes in all files below; one that goes meanwhile counts for nothing.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
