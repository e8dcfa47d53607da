//! Questions and orders to the cluster: topics, their settings, offsets.
//!
//! The library's calls block; they run on the runtime's blocking threads, each with a time limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::sink::{Offsets, TopicPartition};
use aqueduct_core::{Error, Result};
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic as NativeTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::consumer::LoggedConsumer;
use crate::error::{error, reason};
use crate::settings::{ClientSettings, Logged};

const TIMEOUT: Duration = Duration::from_secs(15);

/// Settings of a topic, such as `retention.ms`.
pub type TopicConfig = BTreeMap<String, String>;

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Partitions; −1 is the broker's default.
    pub partitions: i32,
    /// Replication factor; −1 is the broker's default.
    pub replication_factor: i32,
    /// Settings.
    pub config: TopicConfig,
}

/// A client for administration. Cloning shares it.
#[derive(Clone)]
pub struct Admin {
    settings: ClientSettings,
    client: Arc<AdminClient<Logged>>,
    reader: Arc<BaseConsumer<LoggedConsumer>>,
}

impl Admin {
    /// Makes the clients; no connection yet.
    pub fn new(settings: &ClientSettings, client_id: &str) -> Result<Self> {
        let config = settings.admin(client_id);
        let client = AdminClient::from_config_and_context(&config, Logged)
            .map_err(|e| error("creating a client", &e))?;
        let reader = BaseConsumer::from_config_and_context(&config, LoggedConsumer)
            .map_err(|e| error("creating a client", &e))?;
        Ok(Self { settings: settings.clone(), client: Arc::new(client), reader: Arc::new(reader) })
    }

    /// Runs a blocking call of the library.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&BaseConsumer<LoggedConsumer>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || call(&reader)).await.map_err(|_| Error::cancelled())?
    }

    /// Id of the cluster; also the proof that it can be reached.
    pub async fn cluster_id(&self, within: Duration) -> Result<String> {
        let bootstrap = self.settings.bootstrap.clone();
        self.blocking(move |reader| {
            reader.client().fetch_cluster_id(within).ok_or_else(|| {
                let wait = within.as_secs();
                Error::retriable(format!("the Kafka cluster at `{bootstrap}` did not answer within {wait} s"))
            })
        })
        .await
    }

    /// Partitions of every topic that exists.
    pub async fn topics(&self) -> Result<BTreeMap<String, i32>> {
        self.blocking(|reader| {
            let metadata =
                reader.fetch_metadata(None, TIMEOUT).map_err(|e| error("listing the topics", &e))?;
            let count = |topic: &rdkafka::metadata::MetadataTopic| {
                i32::try_from(topic.partitions().len()).unwrap_or(0)
            };
            Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), count(topic))).collect())
        })
        .await
    }

    /// Creates those topics that do not exist, and waits until all have leaders. The names of those that were made.
    pub async fn create_topics(&self, topics: &[NewTopic]) -> Result<Vec<String>> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let native: Vec<NativeTopic<'_>> = topics.iter().map(native_topic).collect();
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        let results = self.client.create_topics(&native, &options).await;
        let results = results.map_err(|e| error("creating topics", &e))?;
        let mut created = Vec::new();
        for result in results {
            match result {
                Ok(name) => created.push(name),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((
                    name,
                    RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed,
                )) => {
                    if !self.topics().await?.contains_key(&name) {
                        return Err(Error::bad_config(format!(
                            "topic `{name}` does not exist and may not be created; create it, or allow this user to"
                        )));
                    }
                }
                Err((name, code)) => {
                    let cause = KafkaError::AdminOp(code);
                    return Err(error(format_args!("creating topic `{name}`"), &cause));
                }
            }
        }
        self.wait_for_leaders(topics.iter().map(|topic| topic.name.clone()).collect()).await?;
        Ok(created)
    }

    async fn wait_for_leaders(&self, names: Vec<String>) -> Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let wanted = names.clone();
            let missing = self.blocking(move |reader| missing_leader(reader, &wanted)).await?;
            let Some(name) = missing else { return Ok(()) };
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::retriable(format!(
                    "topic `{name}` has no leader after 30 s; check the brokers"
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The settings of a topic.
    pub async fn topic_config(&self, topic: &str) -> Result<TopicConfig> {
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let resource = [ResourceSpecifier::Topic(topic)];
        let results = self.client.describe_configs(&resource, &options).await;
        let results =
            results.map_err(|e| error(format_args!("reading the settings of topic `{topic}`"), &e))?;
        let mut config = TopicConfig::new();
        for result in results {
            let resource = result.map_err(|code| {
                error(format_args!("reading the settings of topic `{topic}`"), &KafkaError::AdminOp(code))
            })?;
            config.extend(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))));
        }
        Ok(config)
    }

    /// First offset and the one after the last, of each partition.
    pub async fn watermarks(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<(TopicPartition, i64, i64)>> {
        self.blocking(move |reader| {
            partitions
                .into_iter()
                .map(|tp| watermarks(reader, &tp).map(|(low, high)| (tp, low, high)))
                .collect()
        })
        .await
    }

    /// Committed offsets of a group, for those partitions of these topics that have one.
    pub async fn committed(&self, group: &str, topics: &[String]) -> Result<Offsets> {
        let known = self.topics().await?;
        let mut wanted = TopicPartitionList::new();
        for (topic, partitions) in known.iter().filter(|(topic, _)| topics.contains(topic)) {
            for partition in 0..*partitions {
                wanted.add_partition(topic, partition);
            }
        }
        if wanted.count() == 0 {
            return Ok(Offsets::new());
        }
        let reader = self.group_reader(group)?;
        tokio::task::spawn_blocking(move || {
            let committed = reader
                .committed_offsets(wanted, TIMEOUT)
                .map_err(|e| error("reading committed offsets", &e))?;
            Ok(offsets_of(&committed))
        })
        .await
        .map_err(|_| Error::cancelled())?
    }

    /// Sets committed offsets of a group that has no members.
    pub async fn commit(&self, group: &str, offsets: &Offsets) -> Result<()> {
        let list = list_of(offsets)?;
        let reader = self.group_reader(group)?;
        tokio::task::spawn_blocking(move || {
            reader.commit(&list, CommitMode::Sync).map_err(|e| error("committing offsets", &e))
        })
        .await
        .map_err(|_| Error::cancelled())?
    }

    fn group_reader(&self, group: &str) -> Result<BaseConsumer<LoggedConsumer>> {
        let config = self.settings.group_reader("aqueduct-offsets", group);
        BaseConsumer::from_config_and_context(&config, LoggedConsumer)
            .map_err(|e| error("creating a client", &e))
    }
}

fn native_topic(topic: &NewTopic) -> NativeTopic<'_> {
    let replication = TopicReplication::Fixed(topic.replication_factor);
    let native = NativeTopic::new(&topic.name, topic.partitions, replication);
    topic.config.iter().fold(native, |native, (key, value)| native.set(key, value))
}

fn missing_leader(reader: &BaseConsumer<LoggedConsumer>, names: &[String]) -> Result<Option<String>> {
    let metadata = reader.fetch_metadata(None, TIMEOUT).map_err(|e| error("listing the topics", &e))?;
    for topic in metadata.topics().iter().filter(|topic| names.iter().any(|name| name == topic.name())) {
        let offline = RDKafkaErrorCode::KafkaStorageError;
        if let Some(p) = topic.partitions().iter().find(|p| p.error().map(Into::into) == Some(offline)) {
            return Err(Error::fatal(format!(
                "partition `{}-{}`: {}",
                topic.name(),
                p.id(),
                reason(offline)
            )));
        }
    }
    let ready = |name: &String| {
        metadata.topics().iter().any(|topic| {
            topic.name() == name
                && !topic.partitions().is_empty()
                && topic.partitions().iter().all(|p| p.leader() >= 0 && p.error().is_none())
        })
    };
    Ok(names.iter().find(|name| !ready(name)).cloned())
}

/// First offset and the one after the last.
pub(crate) fn watermarks<C: rdkafka::consumer::ConsumerContext>(
    reader: &BaseConsumer<C>,
    tp: &TopicPartition,
) -> Result<(i64, i64)> {
    reader.fetch_watermarks(&tp.topic, tp.partition, TIMEOUT).map_err(|e| {
        let code = e.rdkafka_error_code();
        let why = code.map_or_else(|| e.to_string(), reason);
        let text = format!("reading the first and last offset of `{tp}`: {why}");
        // It stays so until somebody mends it.
        if code == Some(RDKafkaErrorCode::KafkaStorageError) {
            Error::fatal(text)
        } else {
            Error::retriable(text)
        }
    })
}

/// As the library's list.
pub(crate) fn list_of(offsets: &Offsets) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (tp, offset) in offsets {
        list.add_partition_offset(&tp.topic, tp.partition, Offset::Offset(*offset))
            .map_err(|e| error(format_args!("offset {offset} of `{tp}`"), &e))?;
    }
    Ok(list)
}

/// From the library's list; partitions without a real offset are left out.
pub(crate) fn offsets_of(list: &TopicPartitionList) -> Offsets {
    let real = list.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => {
            Some((TopicPartition { topic: element.topic().into(), partition: element.partition() }, offset))
        }
        _ => None,
    });
    real.collect()
}
