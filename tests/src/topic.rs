//! A topic as a test writes and reads it, every byte and header of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

const LIMIT: Duration = Duration::from_secs(30);

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers as text, the last of each name.
    pub headers: BTreeMap<String, String>,
}

impl Read {
    /// A header's text, empty without one.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }
}

fn config(kafka: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka).set("log_level", "2");
    config
}

/// Creates a topic with these settings.
pub fn create(kafka: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(kafka).create()?;
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))?;
    for result in results {
        result.map_err(|(name, code)| anyhow::anyhow!("cannot create {name}: {code}"))?;
    }
    Ok(())
}

/// A record to write.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// Partition.
    pub partition: i32,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// One header.
    pub header: Option<(String, String)>,
}

/// Writes records in order and waits for all acknowledgements.
pub fn write(kafka: &str, topic: &str, records: &[Write]) -> Result<()> {
    let producer: BaseProducer<DefaultProducerContext> =
        config(kafka).set("enable.idempotence", "true").set("linger.ms", "5").create()?;
    for record in records {
        let mut message = BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        if let Some((name, value)) = &record.header {
            message.headers =
                Some(OwnedHeaders::new().insert(Header { key: name, value: Some(value.as_str()) }));
        }
        producer.send(message).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT)?;
    let (_, written) = ends(kafka, topic)?.into_iter().fold((0, 0), |(n, sum), end| (n + 1, sum + end));
    ensure!(written >= i64::try_from(records.len())?, "only {written} records were acknowledged");
    Ok(())
}

/// The high watermark of each partition.
pub fn ends(kafka: &str, topic: &str) -> Result<Vec<i64>> {
    let consumer: BaseConsumer = config(kafka).set("group.id", "ends").create()?;
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT)?;
    let partitions = metadata.topics().first().context("one topic was asked for")?.partitions().len();
    (0..i32::try_from(partitions)?).map(|p| Ok(consumer.fetch_watermarks(topic, p, LIMIT)?.1)).collect()
}

/// What a group has committed for a partition.
pub fn committed(kafka: &str, group: &str, topic: &str, partition: i32) -> Result<Option<i64>> {
    let consumer: BaseConsumer = config(kafka).set("group.id", group).create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    let found = consumer.committed_offsets(list, LIMIT)?;
    Ok(found.elements().first().and_then(|element| element.offset().to_raw()).filter(|offset| *offset >= 0))
}

/// Everything in the topic, partition by partition. A topic that is not there is empty.
pub fn read(kafka: &str, topic: &str) -> Result<Vec<Read>> {
    let consumer: BaseConsumer =
        config(kafka).set("group.id", "reader").set("enable.auto.commit", "false").create()?;
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT)?;
    let found = metadata.topics().first().context("one topic was asked for")?;
    let mut list = TopicPartitionList::new();
    let mut rest = 0;
    for partition in 0..i32::try_from(found.partitions().len())? {
        let (low, high) = consumer.fetch_watermarks(topic, partition, LIMIT)?;
        rest += high - low;
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let mut all = Vec::new();
    if rest == 0 {
        return Ok(all);
    }
    consumer.assign(&list)?;
    let until = Instant::now() + LIMIT;
    while rest > 0 {
        ensure!(Instant::now() < until, "{rest} records of `{topic}` cannot be read");
        let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
        let message = message?;
        rest -= 1;
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        all.push(Read {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
        });
    }
    all.sort_by_key(|read| (read.partition, read.offset));
    Ok(all)
}
