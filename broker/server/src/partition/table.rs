//! All partitions of this broker, found by name or id, kept in step with the metadata.
//! Invariant: the table is replaced as a whole, so a request sees a topic with all its partitions or not at all.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use uuid::Uuid;

use aqueduct_log::{LogConfig, LogDir, LogError, PartitionId, PartitionLog, PartitionSpec};

use super::replica::Replica;
use crate::clock::wall_ms;
use crate::coord::OFFSETS_TOPIC;
use crate::meta::image::{Image, Topic};
use crate::topic_config::{TopicConfig, TopicDefaults};

/// A topic's partitions; `None` where another broker leads.
pub(crate) struct TopicReplicas {
    id: Uuid,
    name: Arc<str>,
    /// What the metadata said when this was made.
    source: Arc<Topic>,
    partitions: Vec<Option<Arc<Replica>>>,
}

impl TopicReplicas {
    fn new(source: &Arc<Topic>, partitions: Vec<Option<Arc<Replica>>>) -> Self {
        Self { id: source.id, name: Arc::clone(&source.name), source: Arc::clone(source), partitions }
    }

    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<Replica>> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index)).and_then(Option::as_ref)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.partitions.iter().flatten()
    }

    pub(crate) fn is_made(&self) -> bool {
        self.unmade().next().is_none()
    }

    /// The partitions that could not be made yet.
    fn unmade(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.partitions().filter(|replica| replica.is_unmade())
    }

    /// Only the broker itself writes to it.
    pub(crate) fn is_internal(&self) -> bool {
        &*self.name == OFFSETS_TOPIC
    }
}

/// Partitions of the metadata that the disk did not take.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{partitions}` partitions could not be made, `{first}` the first of them: {why}")]
pub(crate) struct Unmade {
    pub(crate) first: String,
    pub(crate) partitions: usize,
    pub(crate) why: LogError,
}

impl Unmade {
    fn one(id: &PartitionId, why: &LogError) -> Self {
        Self { first: id.to_string(), partitions: 1, why: why.clone() }
    }
}

#[derive(Default)]
struct Table {
    by_name: HashMap<Arc<str>, Arc<TopicReplicas>>,
    by_id: HashMap<Uuid, Arc<TopicReplicas>>,
}

pub(crate) struct Partitions {
    node_id: i32,
    dir: Arc<LogDir>,
    defaults: TopicDefaults,
    table: ArcSwap<Table>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Partitions {
    pub(crate) fn new(node_id: i32, dir: Arc<LogDir>, defaults: TopicDefaults) -> Self {
        Self { node_id, dir, defaults, table: ArcSwap::default(), changing: Mutex::default() }
    }

    pub(crate) fn topic(&self, name: &str) -> Option<Arc<TopicReplicas>> {
        self.table.load().by_name.get(name).cloned()
    }

    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<Arc<TopicReplicas>> {
        self.table.load().by_id.get(&id).cloned()
    }

    pub(crate) fn topics(&self) -> Vec<Arc<TopicReplicas>> {
        self.table.load().by_name.values().cloned().collect()
    }

    /// Whether a partition of ours cannot be served.
    pub(crate) fn is_offline(&self, topic: Uuid, index: i32) -> bool {
        let topic = self.topic_by_id(topic);
        let replica = topic.as_ref().and_then(|topic| topic.partition(index));
        replica.is_some_and(|replica| replica.check_online().is_err())
    }

    /// Whether the data directory takes writes.
    pub(crate) fn check_dir(&self) -> Result<(), LogError> {
        self.dir.check_online()
    }

    /// Whether all partitions of a topic could be made.
    pub(crate) fn check_made(&self, topic: Uuid) -> Result<(), LogError> {
        let topic = self.topic_by_id(topic);
        let unmade = topic.as_ref().and_then(|topic| topic.unmade().next());
        unmade.map_or(Ok(()), |replica| replica.check_online().map(|_| ()))
    }

    /// Partitions that are still to be made.
    pub(crate) fn unmade(&self) -> usize {
        self.table.load().by_id.values().map(|topic| topic.unmade().count()).sum()
    }

    /// Opens everything that the metadata names at start; blocks while logs are recovered.
    pub(crate) fn load(&self, image: &Image) -> Result<(), LogError> {
        let _turn = self.changing.lock();
        let mut specs = Vec::new();
        for topic in image.topics() {
            let config = log_config(&self.config(topic));
            let ours = (0..).zip(&topic.partitions).filter(|(_, partition)| partition.leader == self.node_id);
            specs.extend(
                ours.map(|(index, _)| PartitionSpec { id: id(topic, index), config: config.clone() }),
            );
        }
        let opened = self.dir.load(specs, wall_ms())?;
        let mut logs: HashMap<_, _> = opened.into_iter().map(|one| (one.id, one.log)).collect();
        let mut table = Table::default();
        for topic in image.topics() {
            let config = self.config(topic);
            let open = |(index, partition): (i32, &crate::meta::image::Partition)| {
                let (id, epoch) = (id(topic, index), partition.leader_epoch);
                Some(match logs.remove(&id)? {
                    Err(full) if full.is_disk_full() => Replica::unmade(id, full, epoch, config.clone()),
                    log => Replica::new(id, log, epoch, config.clone()),
                })
            };
            let partitions = (0..).zip(&topic.partitions).map(open).collect();
            table.insert(Arc::new(TopicReplicas::new(topic, partitions)));
        }
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// Does what the metadata says: new partitions are made, settings taken over, deleted topics removed. Blocks on the
    /// disk. What could not be made is the error; until a later call makes it, it answers with the reason. The image is
    /// asked for in turn: one that was taken before would lack the topics that others made meanwhile, and lacking means
    /// deleted.
    pub(crate) fn follow(&self, newest: impl FnOnce() -> Arc<Image>) -> Result<(), Unmade> {
        let _turn = self.changing.lock();
        let image = newest();
        let before = self.table.load_full();
        let mut table = Table::default();
        let mut outcome = Ok(());
        let mut changed = Vec::new();
        for topic in image.topics() {
            let known = before.by_id.get(&topic.id);
            match known.filter(|known| Arc::ptr_eq(&known.source, topic) && known.is_made()) {
                Some(unchanged) => table.insert(Arc::clone(unchanged)),
                None => changed.push((topic, known)),
            }
        }
        let mut made = self.make(&changed);
        for (topic, known) in changed {
            table.insert(Arc::new(self.follow_topic(topic, known, &mut made, &mut outcome)));
        }
        let gone: Vec<_> =
            before.by_id.values().filter(|topic| image.topic_by_id(topic.id).is_none()).collect();
        // Nobody finds them any more before their files go.
        self.table.store(Arc::new(table));
        for replica in gone.iter().flat_map(|topic| topic.partitions()) {
            let id = PartitionId {
                topic: replica.topic().to_owned(),
                topic_id: replica.topic_id(),
                partition: replica.partition(),
            };
            if let Err(error) = self.dir.delete(&id) {
                tracing::warn!(partition = %id, %error, "could not remove a deleted partition");
            }
            replica.retire();
        }
        outcome
    }

    fn follow_topic(
        &self,
        topic: &Arc<Topic>,
        known: Option<&Arc<TopicReplicas>>,
        made: &mut Made,
        outcome: &mut Result<(), Unmade>,
    ) -> TopicReplicas {
        let config = self.config(topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (index, partition) in (0..).zip(&topic.partitions) {
            let replica = match made_before(known, index) {
                Some(replica) => {
                    replica.set_leader_epoch(partition.leader_epoch);
                    if *replica.config() != config {
                        replica.set_config(config.clone());
                        if let Some(log) = replica.log() {
                            log.set_config(log_config(&config));
                        }
                    }
                    Some(Arc::clone(replica))
                }
                None => {
                    let id = id(topic, index);
                    let log = made.remove(&id);
                    log.map(|log| replica(id, log, partition.leader_epoch, &config, outcome))
                }
            };
            partitions.push(replica);
        }
        TopicReplicas::new(topic, partitions)
    }

    /// Makes the partitions of ours that these topics lack, all together.
    fn make(&self, changed: &[(&Arc<Topic>, Option<&Arc<TopicReplicas>>)]) -> Made {
        let mut specs = Vec::new();
        for (topic, known) in changed {
            let config = log_config(&self.config(topic));
            for (index, partition) in (0..).zip(&topic.partitions) {
                if partition.leader == self.node_id && made_before(*known, index).is_none() {
                    specs.push(PartitionSpec { id: id(topic, index), config: config.clone() });
                }
            }
        }
        if specs.is_empty() {
            return Made::new();
        }
        self.dir.create_all(&specs, wall_ms()).into_iter().map(|one| (one.id, one.log)).collect()
    }

    fn config(&self, topic: &Topic) -> TopicConfig {
        match self.defaults.resolve(&topic.configs) {
            Ok(config) => config,
            Err(error) => {
                // Only a broker that knows fewer settings than the one that took them gets here.
                tracing::error!(topic = %topic.name, %error, "the topic runs with default settings");
                let defaults = self.defaults.resolve(&std::collections::BTreeMap::new());
                defaults.expect("the broker's defaults were checked at start")
            }
        }
    }
}

type Made = HashMap<PartitionId, Result<Arc<PartitionLog>, LogError>>;

fn made_before(known: Option<&Arc<TopicReplicas>>, index: i32) -> Option<&Arc<Replica>> {
    known.and_then(|known| known.partition(index)).filter(|replica| !replica.is_unmade())
}

fn replica(
    id: PartitionId,
    log: Result<Arc<PartitionLog>, LogError>,
    leader_epoch: i32,
    config: &TopicConfig,
    outcome: &mut Result<(), Unmade>,
) -> Arc<Replica> {
    match log {
        Ok(log) => Replica::new(id, Ok(log), leader_epoch, config.clone()),
        Err(why) => {
            match outcome {
                Ok(()) => *outcome = Err(Unmade::one(&id, &why)),
                Err(unmade) => unmade.partitions += 1,
            }
            Replica::unmade(id, why, leader_epoch, config.clone())
        }
    }
}

impl Table {
    fn insert(&mut self, topic: Arc<TopicReplicas>) {
        self.by_name.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.by_id.insert(topic.id, topic);
    }
}

fn id(topic: &Topic, index: i32) -> PartitionId {
    PartitionId { topic: topic.name.to_string(), topic_id: topic.id, partition: index }
}

/// What the topic's settings mean to the log.
fn log_config(config: &TopicConfig) -> LogConfig {
    LogConfig {
        segment_bytes: u32::try_from(config.segment_bytes).unwrap_or(u32::MAX),
        segment_ms: config.segment_ms,
        retention_ms: config.retention_ms.unwrap_or(-1),
        retention_bytes: config.retention_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        delete: config.delete,
        compact: config.compact,
        min_cleanable_dirty_ratio: config.min_cleanable_dirty_ratio,
        min_compaction_lag_ms: config.min_compaction_lag_ms,
        max_compaction_lag_ms: config.max_compaction_lag_ms,
        delete_retention_ms: config.delete_retention_ms,
        ..LogConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use aqueduct_log::{Fault, LogDirOptions, MemDisk};

    use super::*;
    use crate::meta::controller::{NewTopic, Policy, create_topic, register_broker};
    use crate::meta::records::BrokerRecord;

    fn with_topics(names: &[&str]) -> Arc<Image> {
        let broker = BrokerRecord {
            node_id: 1,
            incarnation: Uuid::from_u128(1),
            directory: Uuid::from_u128(2),
            host: "localhost".to_owned(),
            port: 9092,
            epoch: None,
        };
        let mut image = Image::default();
        let records = register_broker(&image, broker, None).expect("the first start");
        image.apply(1, &records).expect("applies");
        for (index, name) in (2..).zip(names) {
            let id = Uuid::from_u128(u128::from(index));
            let topic = NewTopic {
                name: (*name).to_owned(),
                id,
                partitions: 1,
                replication_factor: 1,
                ..NewTopic::default()
            };
            let policy = Policy { default_partitions: 1, max_partitions: 10 };
            let records = create_topic(&image, policy, &topic).expect("is new");
            image.apply(index, &records).expect("applies");
        }
        Arc::new(image)
    }

    #[test]
    fn the_image_is_taken_in_turn_so_that_no_topic_is_removed_for_being_younger() {
        let disk = Arc::new(MemDisk::with_dir("/"));
        let dir = LogDir::open(disk, Path::new("/data"), LogDirOptions::default()).expect("opens");
        let defaults = TopicDefaults::new(&BTreeMap::new()).expect("no defaults are changed");
        let partitions = Partitions::new(1, Arc::new(dir), defaults);
        let taken_in_turn = || {
            assert!(partitions.changing.try_lock().is_none(), "another one could follow a newer image first");
            with_topics(&["a", "b"])
        };
        partitions.follow(taken_in_turn).expect("follows");
        assert!(partitions.topic("a").is_some() && partitions.topic("b").is_some());
        partitions.follow(|| with_topics(&["a"])).expect("follows");
        assert!(partitions.topic("a").is_some() && partitions.topic("b").is_none());
    }

    #[test]
    fn a_partition_that_the_disk_refuses_answers_with_the_reason_until_it_is_made() {
        let disk = MemDisk::with_dir("/");
        let dir = LogDir::open(Arc::new(disk.clone()), Path::new("/data"), LogDirOptions::default());
        let defaults = TopicDefaults::new(&BTreeMap::new()).expect("no defaults are changed");
        let partitions = Partitions::new(1, Arc::new(dir.expect("opens")), defaults);
        let image = with_topics(&["a", "b"]);
        disk.fault_next(Fault::Fail(std::io::ErrorKind::StorageFull));
        let unmade = partitions.follow(|| Arc::clone(&image)).expect_err("there is no room");
        assert_eq!((unmade.partitions, unmade.why.is_disk_full()), (2, true));
        let replica = |name: &str| {
            let topic = partitions.topic(name).expect("the metadata has it");
            Arc::clone(topic.partition(0).expect("it is led here"))
        };
        assert!(replica("a").check_online().is_err_and(|why| why.is_disk_full()));
        partitions.follow(|| image).expect("there is room again");
        assert!(replica("a").check_online().is_ok() && replica("b").check_online().is_ok());
    }
}
