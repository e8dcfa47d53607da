//! The power goes while clients produce, read and commit; nothing that was acknowledged may be missing or changed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aqueduct_tests::ledger::{Content, Ledger};
use aqueduct_tests::powerloss::{Lost, PowerLoss};
use aqueduct_tests::process::{Start, eventually};
use aqueduct_tests::raw::Raw;
use fastrand::Rng;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 3;

#[test]
fn power_loss_loses_nothing_that_was_acknowledged() {
    let seeds = std::env::var("AQUEDUCT_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let wrong = lives(seeds, Loss::Power, &[]).expect("the load runs");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_judge_sees_a_log_that_does_not_flush() {
    // A judge that cannot fail proves nothing.
    let wrong = lives(6, Loss::Power, &[("AQUEDUCT_UNSAFE_NO_FLUSH", "1")]);
    assert!(
        wrong.is_err() || wrong.is_ok_and(|wrong| !wrong.is_empty()),
        "losing unflushed data went unnoticed"
    );
}

/// How a life of the broker ends.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Loss {
    Power,
    /// SIGKILL alone: what was written stays.
    Process,
}

/// One data directory through as many losses as there are seeds. After a power loss everything is read; after a kill, which takes
/// nothing from the page cache, what is new, and everything after the last.
pub(crate) fn lives(seeds: u64, loss: Loss, env: &[(&str, &str)]) -> Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let mut start = Start::broker(dir.path());
    let mut power = (loss == Loss::Power).then(|| PowerLoss::new(&start.data)).transpose()?;
    start.env = power.as_ref().map(PowerLoss::env).unwrap_or_default();
    start.env.extend(env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut wrong = Vec::new();
    let mut acked = 0;
    let mut content = Content::new();
    let mut last = Lost::default();
    for seed in 0..seeds {
        let mut rng = Rng::with_seed(seed);
        let mut broker = match start.start() {
            Ok(broker) => broker,
            // After a power loss a log that does not start is a finding; before, the test is broken.
            Err(error) if seed > 0 => return Ok(vec![format!("before seed {seed}: {error:#}")]),
            Err(error) => return Err(error),
        };
        create_topic(&broker.kafka)?;
        if loss == Loss::Power {
            content.clear();
        }
        read_on(&broker.kafka, &mut content)
            .with_context(|| format!("before seed {seed}: {last:#?}\n{}", broker.output()))?;
        let found = lock(&ledger).check(&content);
        wrong.extend(found.into_iter().map(|text| format!("before seed {seed}: {text}")));
        wrong.extend(
            check_commits(&broker.kafka, &ledger)?
                .into_iter()
                .map(|text| format!("before seed {seed}: {text}")),
        );
        if !wrong.is_empty() {
            return Ok(wrong);
        }
        let lasts = Duration::from_millis(rng.u64(300..1500));
        let kafka = broker.kafka.clone();
        load(&kafka, seed, lasts, &ledger, || {
            broker.signal(rustix::process::Signal::KILL)?;
            broker.wait(Duration::from_secs(10)).map(drop)
        })?;
        let proves = power.as_ref().is_none_or(|power| power.syncs() > 0);
        ensure!(proves || !env.is_empty(), "the shim saw no fsync, so it proves nothing");
        let now = lock(&ledger).acked_count();
        ensure!(now > acked, "seed {seed}: nothing was acknowledged:\n{}", broker.output());
        acked = now;
        if let Some(power) = &mut power {
            last = power.cut(&mut rng)?;
        }
    }
    let broker = start.start().context("after the last loss")?;
    content.clear();
    read_on(&broker.kafka, &mut content)?;
    wrong.extend(lock(&ledger).check(&content));
    wrong.extend(check_commits(&broker.kafka, &ledger)?);
    Ok(wrong)
}

fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("log_level", "2").set("socket.timeout.ms", "5000");
    config
}

fn create_topic(bootstrap: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(-1)).set("segment.bytes", "1048576");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for result in runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))? {
        match result {
            Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("cannot create {name}: {code}"),
        }
    }
    Ok(())
}

struct Book(Arc<Mutex<Ledger>>);

impl ClientContext for Book {}

impl ProducerContext for Book {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Ok(message) = result {
            lock(&self.0).acked(message.partition(), message.offset(), entry(message));
        }
    }
}

fn entry(message: &BorrowedMessage<'_>) -> (String, String) {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    (text(message.key()), text(message.payload()))
}

/// Produces, reads and commits; ends the broker after `lasts`.
fn load(
    bootstrap: &str,
    seed: u64,
    lasts: Duration,
    ledger: &Arc<Mutex<Ledger>>,
    end: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let producer: ThreadedProducer<Book> = config(bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("message.timeout.ms", "5000")
        .create_with_context(Book(Arc::clone(ledger)))?;
    let reader = {
        let (bootstrap, ledger, stop) = (bootstrap.to_owned(), Arc::clone(ledger), Arc::clone(&stop));
        thread::spawn(move || read_and_commit(&bootstrap, &ledger, &stop))
    };
    let before = lock(ledger).acked_count();
    let begun = Instant::now();
    let mut until = None;
    let mut number = seed * 1_000_000;
    // The time counts from the first acknowledgement, so that a busy machine proves as much as an idle one.
    while until.is_none_or(|until| Instant::now() < until) && begun.elapsed() < Duration::from_secs(30) {
        if until.is_none() && lock(ledger).acked_count() > before {
            until = Some(Instant::now() + lasts);
        }
        number += 1;
        if number % 100 == 0 {
            // Every life reads everything; a flood would only make that slow.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let key = format!("key-{}", number % 17);
        let value = format!("{seed}/{number}/{}#{number}", "x".repeat((number % 400) as usize));
        lock(ledger).sent(&value);
        let record = BaseRecord::to(TOPIC).key(&key).payload(&value);
        if producer.send(record).is_err() {
            // The queue is full: let deliveries come in.
            producer.poll(Duration::from_millis(10));
        }
    }
    end()?;
    stop.store(true, Ordering::Relaxed);
    // What is under way has no answer now, whatever happens to it.
    producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    reader.join().expect("the reader does not panic")
}

fn consumer(bootstrap: &str) -> Result<BaseConsumer> {
    Ok(config(bootstrap)
        .set("group.id", "readers")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .create()?)
}

fn read_and_commit(bootstrap: &str, ledger: &Arc<Mutex<Ledger>>, stop: &AtomicBool) -> Result<()> {
    let consumer = consumer(bootstrap)?;
    // Assigned, not subscribed: the group's sessions of killed members must not slow every seed.
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition(TOPIC, partition);
    }
    let mut next = consumer.committed_offsets(partitions, Duration::from_secs(10))?;
    for (partition, offset) in next.to_topic_map() {
        if offset == Offset::Invalid {
            next.set_partition_offset(&partition.0, partition.1, Offset::Beginning)?;
        }
    }
    consumer.assign(&next)?;
    // librdkafka would try again after the restart, with offsets from before.
    let mut commits = Raw::connect(bootstrap)?;
    let mut since = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) else { continue };
        lock(ledger).read(message.partition(), message.offset(), entry(&message));
        since += 1;
        if since >= 50 {
            since = 0;
            let offset = message.offset() + 1;
            match commits.commit("readers", TOPIC, message.partition(), offset) {
                Ok(()) => lock(ledger).committed(message.partition(), offset),
                // The broker is gone.
                Err(_) => break,
            }
        }
    }
    Ok(())
}

/// Everything in the topic behind what `content` has.
fn read_on(bootstrap: &str, content: &mut Content) -> Result<()> {
    let consumer: BaseConsumer = config(bootstrap)
        .set("group.id", "auditor")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    let mut total = 0;
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(TOPIC, partition, Duration::from_secs(20))?;
        ensure!(low == 0, "partition {partition} begins at {low}");
        let known = content.entry(partition).or_default().len() as i64;
        ensure!(known <= high, "partition {partition} ends at {high}, {known} records were there");
        assignment.add_partition_offset(TOPIC, partition, Offset::Offset(known))?;
        total += high - known;
    }
    consumer.assign(&assignment)?;
    let mut count = 0;
    eventually("the whole topic is read", Duration::from_secs(60), || {
        while count < total {
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    count += 1;
                    content.entry(message.partition()).or_default().push((message.offset(), entry(&message)));
                }
                _ => return false,
            }
        }
        true
    })
}

/// Commits that were acknowledged and are gone.
fn check_commits(bootstrap: &str, ledger: &Arc<Mutex<Ledger>>) -> Result<Vec<String>> {
    let consumer = consumer(bootstrap)?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition(TOPIC, partition);
    }
    let found = consumer.committed_offsets(partitions, Duration::from_secs(20))?;
    let mut wrong = Vec::new();
    for element in found.elements() {
        let Some(told) = lock(ledger).commit_of(element.partition()) else { continue };
        let now = element.offset().to_raw().unwrap_or(-1);
        if now < told {
            wrong.push(format!(
                "group commit of partition {}: {told} was acknowledged, {now} is there",
                element.partition()
            ));
        }
    }
    Ok(wrong)
}
