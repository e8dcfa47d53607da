//! What the requests of all connections share: metadata, partitions, groups, settings.
//! Invariant: a change of the metadata is answered only after it is committed and this broker has carried it out.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{BrokerConfig, HostPort};
use crate::coord::{Coordinator, OFFSETS_TOPIC};
use crate::meta::controller::{self, ConfigChange, NewTopic, Policy, Refusal};
use crate::meta::image::Topic;
use crate::meta::{ChangeError, Meta};
use crate::metrics::Metrics;
use crate::partition::Partitions;
use crate::topic_config::{self, TopicDefaults};

pub(crate) struct Node {
    pub(crate) config: BrokerConfig,
    pub(crate) cluster_id: String,
    pub(crate) advertised: HostPort,
    pub(crate) defaults: TopicDefaults,
    pub(crate) meta: Meta,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    /// One creation of the offsets topic at a time.
    pub(crate) making_offsets: Mutex<()>,
    pub(crate) producer_ids: Mutex<ProducerIds>,
}

/// What is left of the block of producer ids this broker has been given.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    next: i64,
    end: i64,
}

/// Settings of the offsets topic, whatever the defaults are: its records are positions.
const OFFSETS_CONFIG: [(&str, &str); 6] = [
    ("cleanup.policy", "compact"),
    ("durability", "durable"),
    ("max.message.bytes", "16777216"),
    ("message.timestamp.type", "CreateTime"),
    ("min.insync.replicas", "1"),
    ("segment.bytes", "16777216"),
];

impl Node {
    fn policy(&self) -> Policy {
        Policy {
            default_partitions: self.config.default_partitions,
            max_partitions: self.config.limits.max_partitions_per_topic,
        }
    }

    /// Creates a topic, or only says what would be created.
    pub(crate) async fn create_topic(&self, topic: NewTopic, validate_only: bool) -> Result<Arc<Topic>, ChangeError> {
        let policy = self.policy();
        let name = topic.name.clone();
        let created = self.meta.change(|image| {
            let records = controller::create_topic(image, policy, &topic)?;
            let mut next = image.clone();
            next.apply(0, &records).expect("the controller's records apply to the image they were made for");
            let made = next.topic(&topic.name).cloned().expect("the records make this topic");
            Ok((made, if validate_only { Vec::new() } else { records }))
        });
        let created = created.await?;
        if !validate_only {
            self.follow().await?;
            tracing::info!(topic = name, partitions = created.partitions.len(), "created a topic");
        }
        Ok(created)
    }

    pub(crate) async fn delete_topic(&self, name: &str) -> Result<(), ChangeError> {
        if name == OFFSETS_TOPIC {
            return Err(Refusal::Internal(name.to_owned()).into());
        }
        self.meta.change(|image| Ok(((), controller::delete_topic(image, name)?))).await?;
        self.follow().await?;
        tracing::info!(topic = name, "deleted a topic");
        self.coordinator.forget_topics(|topic| topic == name).await;
        Ok(())
    }

    pub(crate) async fn create_partitions(
        &self,
        name: &str,
        count: i32,
        assignments: Option<&[Vec<i32>]>,
        validate_only: bool,
    ) -> Result<(), ChangeError> {
        let policy = self.policy();
        let changed = self.meta.change(|image| {
            let records = controller::create_partitions(image, policy, name, count, assignments)?;
            Ok(((), if validate_only { Vec::new() } else { records }))
        });
        changed.await?;
        self.follow().await
    }

    pub(crate) async fn alter_topic(
        &self,
        name: &str,
        changes: &[(String, ConfigChange)],
        validate_only: bool,
    ) -> Result<(), ChangeError> {
        let default_of = |key: &str| {
            let definition = topic_config::definition(key);
            definition.map(|definition| self.defaults.get(definition).0.to_owned()).unwrap_or_default()
        };
        let changed = self.meta.change(|image| {
            let records = controller::alter_topic_configs(image, name, changes, default_of)?;
            Ok(((), if validate_only { Vec::new() } else { records }))
        });
        changed.await?;
        self.follow().await
    }

    /// Lets the partitions do what the newest image says.
    async fn follow(&self) -> Result<(), ChangeError> {
        let (partitions, image) = (Arc::clone(&self.partitions), self.meta.image());
        // New files and their fsyncs: for a thread that may block.
        let followed = tokio::task::spawn_blocking(move || partitions.follow(&image)).await;
        let panicked = |error: tokio::task::JoinError| crate::meta::MetaError::Stopped(error.to_string());
        followed.map_err(panicked)?.map_err(ChangeError::Log)
    }

    /// Makes the offsets topic on first use, and takes its groups over.
    pub(crate) async fn ensure_offsets_topic(&self) -> Result<(), ChangeError> {
        if self.coordinator.is_ready() {
            return Ok(());
        }
        let _turn = self.making_offsets.lock().await;
        if self.coordinator.is_ready() {
            return Ok(());
        }
        if self.meta.image().topic(OFFSETS_TOPIC).is_none() {
            let configs = OFFSETS_CONFIG.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let topic = NewTopic {
                name: OFFSETS_TOPIC.to_owned(),
                id: Uuid::new_v4(),
                partitions: self.config.offsets_partitions,
                replication_factor: -1,
                configs: BTreeMap::from(configs),
                ..NewTopic::default()
            };
            self.create_topic(topic, false).await?;
        } else if self.partitions.topic(OFFSETS_TOPIC).is_none() {
            // An earlier attempt got as far as the metadata.
            self.follow().await?;
        }
        if let Some(topic) = self.partitions.topic(OFFSETS_TOPIC) {
            self.coordinator.take_over(topic.partitions().cloned().collect());
        }
        Ok(())
    }

    /// An id that no producer ever had.
    pub(crate) async fn next_producer_id(&self) -> Result<i64, ChangeError> {
        let mut ids = self.producer_ids.lock().await;
        if ids.next >= ids.end {
            // What was left of an earlier process' block is never used.
            let first = self.meta.change(controller::allocate_producer_ids).await?;
            *ids = ProducerIds { next: first, end: first + controller::PRODUCER_ID_BLOCK };
        }
        let id = ids.next;
        ids.next += 1;
        Ok(id)
    }
}
