//! What the requests of all connections share: metadata, partitions, groups, settings.
//! Invariant: a change of the metadata is answered only after it is committed and this broker has carried it out; once
//! begun it is carried out even if the client that asked goes away.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedRwLockWriteGuard, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock::SteadyClock;
use crate::config::{BrokerConfig, HostPort};
use crate::coord::{Coordinator, OFFSETS_TOPIC};
use crate::fetch_sessions::Sessions;
use crate::meta::controller::{self, ConfigChange, NewTopic, Policy};
use crate::meta::image::Topic;
use crate::meta::{ChangeError, Meta, MetaError};
use crate::metrics::Metrics;
use crate::partition::{Partitions, Unmade};
use crate::topic_config::{self, TopicDefaults};

pub(crate) struct Node {
    pub(crate) config: BrokerConfig,
    pub(crate) cluster_id: String,
    pub(crate) advertised: HostPort,
    pub(crate) defaults: TopicDefaults,
    pub(crate) meta: Meta,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: SteadyClock,
    pub(crate) fetch_sessions: Arc<parking_lot::Mutex<Sessions>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Held for reading while topics are made, for writing while one is deleted, its offsets included: a topic never
    /// finds the offsets of an earlier one with its name, nor loses its own to the other's deletion.
    pub(crate) names: Arc<RwLock<()>>,
    /// One creation of the offsets topic at a time.
    pub(crate) making_offsets: Mutex<()>,
    pub(crate) producer_ids: Mutex<ProducerIds>,
    /// A task is at making the partitions that the disk did not take.
    pub(crate) catching_up: AtomicBool,
}

/// Pauses between attempts to make partitions that the disk did not take; they double.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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

    /// Runs a change to its end, whatever becomes of the caller.
    async fn to_the_end<T, F>(self: &Arc<Self>, change: impl FnOnce(Arc<Self>) -> F) -> Result<T, ChangeError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ChangeError>> + Send + 'static,
    {
        let stopped = |error: tokio::task::JoinError| MetaError::Stopped(error.to_string());
        self.tasks.spawn(change(Arc::clone(self))).await.map_err(stopped)?
    }

    /// Creates a topic, or only says what would be created.
    pub(crate) async fn create_topic(
        self: &Arc<Self>,
        topic: NewTopic,
        validate_only: bool,
    ) -> Result<Arc<Topic>, ChangeError> {
        self.to_the_end(move |node| async move { node.create(topic, validate_only).await }).await
    }

    async fn create(
        self: &Arc<Self>,
        topic: NewTopic,
        validate_only: bool,
    ) -> Result<Arc<Topic>, ChangeError> {
        let policy = self.policy();
        let name = topic.name.clone();
        let _names = self.names.read().await;
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
            self.partitions.check_made(created.id)?;
            tracing::info!(topic = name, partitions = created.partitions.len(), "created a topic");
        }
        Ok(created)
    }

    /// Deletes the topic with this id. One that was made again under the same name is another one.
    pub(crate) async fn delete_topic(self: &Arc<Self>, id: Uuid) -> Result<(), ChangeError> {
        let delete = move |node: Arc<Self>| async move {
            let names = Arc::clone(&node.names).write_owned().await;
            let deleted = node.meta.change(|image| controller::delete_topic(image, id));
            let name = deleted.await?;
            let followed = node.follow().await;
            tracing::info!(topic = %name, "deleted a topic");
            node.coordinator.forget_topics(|topic| topic == &*name).await;
            drop(names);
            followed
        };
        self.to_the_end(delete).await
    }

    /// Removes the offsets of topics whose deletion a crash cut short. No topic is made before this ends.
    pub(crate) async fn forget_deleted_topics(&self, names: OwnedRwLockWriteGuard<()>) {
        let image = self.meta.image();
        self.coordinator.forget_topics(|topic| image.topic(topic).is_none()).await;
        drop(names);
    }

    pub(crate) async fn create_partitions(
        self: &Arc<Self>,
        name: &str,
        count: i32,
        assignments: Option<Vec<Vec<i32>>>,
        validate_only: bool,
    ) -> Result<(), ChangeError> {
        let (policy, name) = (self.policy(), name.to_owned());
        let create = move |node: Arc<Self>| async move {
            let changed = node.meta.change(|image| {
                let records =
                    controller::create_partitions(image, policy, &name, count, assignments.as_deref())?;
                let id = image.topic(&name).map(|topic| topic.id).unwrap_or_default();
                Ok((id, if validate_only { Vec::new() } else { records }))
            });
            let id = changed.await?;
            node.follow().await?;
            Ok(node.partitions.check_made(id)?)
        };
        self.to_the_end(create).await
    }

    pub(crate) async fn alter_topic(
        self: &Arc<Self>,
        name: &str,
        changes: Vec<(String, ConfigChange)>,
        validate_only: bool,
    ) -> Result<(), ChangeError> {
        let name = name.to_owned();
        let alter = move |node: Arc<Self>| async move {
            let default_of = |key: &str| {
                let definition = topic_config::definition(key);
                definition.map(|definition| node.defaults.get(definition).0.to_owned()).unwrap_or_default()
            };
            let changed = node.meta.change(|image| {
                let records = controller::alter_topic_configs(image, &name, &changes, default_of)?;
                Ok(((), if validate_only { Vec::new() } else { records }))
            });
            changed.await?;
            node.follow().await
        };
        self.to_the_end(alter).await
    }

    /// Lets the partitions do what the newest image says. What the disk does not take is tried again until it does.
    async fn follow(self: &Arc<Self>) -> Result<(), ChangeError> {
        let Err(unmade) = self.try_to_follow().await? else { return Ok(()) };
        tracing::warn!(%unmade, "the disk did not take new partitions; trying again");
        self.follow_later();
        Ok(())
    }

    async fn try_to_follow(&self) -> Result<Result<(), Unmade>, ChangeError> {
        let (partitions, newest) = (Arc::clone(&self.partitions), self.meta.newest());
        // New files and their fsyncs: for a thread that may block.
        let followed = tokio::task::spawn_blocking(move || partitions.follow(newest)).await;
        Ok(followed.map_err(|panicked| MetaError::Stopped(panicked.to_string()))?)
    }

    /// Makes what could not be made, with growing pauses, until nothing is left. One task at a time.
    pub(crate) fn follow_later(self: &Arc<Self>) {
        if self.catching_up.swap(true, Ordering::AcqRel) {
            return;
        }
        let node = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                tokio::select! {
                    () = node.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                // Before the look: a failure after it begins a new task.
                node.catching_up.store(false, Ordering::Release);
                match node.try_to_follow().await {
                    Ok(Ok(())) => {
                        tracing::info!("all partitions of the metadata are there");
                        return;
                    }
                    Ok(Err(unmade)) => tracing::warn!(%unmade, "the disk still takes no new partitions"),
                    Err(error) => tracing::error!(%error, "could not follow the metadata"),
                }
                if node.catching_up.swap(true, Ordering::AcqRel) {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Makes the offsets topic on first use, and takes its groups over.
    pub(crate) async fn ensure_offsets_topic(self: &Arc<Self>) -> Result<(), ChangeError> {
        if self.coordinator.is_ready() {
            return Ok(());
        }
        self.to_the_end(|node| async move { node.make_offsets_topic().await }).await
    }

    async fn make_offsets_topic(self: &Arc<Self>) -> Result<(), ChangeError> {
        let _turn = self.making_offsets.lock().await;
        if self.coordinator.is_ready() {
            return Ok(());
        }
        let id = match self.meta.image().topic(OFFSETS_TOPIC).map(|topic| topic.id) {
            Some(id) => {
                // An earlier attempt got as far as the metadata.
                self.follow().await?;
                id
            }
            None => {
                let configs = OFFSETS_CONFIG.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let topic = NewTopic {
                    name: OFFSETS_TOPIC.to_owned(),
                    id: Uuid::new_v4(),
                    partitions: self.config.offsets_partitions,
                    replication_factor: -1,
                    configs: BTreeMap::from(configs),
                    ..NewTopic::default()
                };
                self.create(topic, false).await?.id
            }
        };
        self.partitions.check_made(id)?;
        if let Some(topic) = self.partitions.topic_by_id(id) {
            self.coordinator.take_over(topic.partitions().cloned().collect());
        }
        Ok(())
    }

    /// An id that no producer ever had.
    pub(crate) async fn next_producer_id(self: &Arc<Self>) -> Result<i64, ChangeError> {
        self.to_the_end(|node| async move { node.take_producer_id().await }).await
    }

    async fn take_producer_id(&self) -> Result<i64, ChangeError> {
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
