//! The controller's decisions: from an image and a request to the records that carry it out.
//! Invariant: pure; nothing here reads a clock, draws a random number or touches a disk, and a refused request yields
//! no record.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::meta::image::{Image, Partition};
use crate::meta::records::{BrokerRecord, Record};
use crate::topic_config::{self, InvalidConfig, Kind};

/// Producer ids handed to a broker at a time.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// Why the controller refuses; each is one Kafka error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "topic name `{0}` is not valid: use 1 to 249 of letters, digits, `.`, `_` and `-`, not `.` or `..`"
    )]
    InvalidTopic(String),
    #[error("topic name `{0}` collides with `{1}`: `.` and `_` are the same in metric names")]
    TopicCollision(String, String),
    #[error("topic `{0}` already exists")]
    TopicExists(String),
    #[error("topic `{0}` does not exist")]
    UnknownTopic(String),
    #[error("no topic has the id `{0}`")]
    UnknownTopicId(Uuid),
    #[error("`{0}` is not a possible number of partitions: {1}")]
    InvalidPartitions(i32, String),
    #[error("replication factor `{0}` needs as many brokers; this cluster has `{1}`")]
    InvalidReplicationFactor(i16, usize),
    #[error("replica assignment is not possible: {0}")]
    InvalidAssignment(String),
    #[error(transparent)]
    InvalidConfig(#[from] InvalidConfig),
    #[error("topic `{0}` belongs to the broker and cannot be changed that way")]
    Internal(String),
    #[error("{0}")]
    InvalidRequest(String),
    #[error("there are no producer ids left")]
    ProducerIdsExhausted,
    #[error("broker `{0}` is registered from another directory; give each broker its own `node_id`")]
    NodeIdTaken(i32),
}

/// A topic to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// Drawn by the caller.
    pub id: Uuid,
    /// -1 for the default.
    pub partitions: i32,
    /// -1 for the default.
    pub replication_factor: i16,
    /// Explicit replicas by partition; empty for the controller's choice.
    pub assignments: BTreeMap<i32, Vec<i32>>,
    pub configs: BTreeMap<String, String>,
}

/// What the controller needs to know besides the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub default_partitions: i32,
    pub max_partitions: i32,
}

/// The records that create a topic.
pub fn create_topic(image: &Image, policy: Policy, topic: &NewTopic) -> Result<Vec<Record>, Refusal> {
    check_name(&topic.name)?;
    if image.topic(&topic.name).is_some() {
        return Err(Refusal::TopicExists(topic.name.clone()));
    }
    let flat = |name: &str| name.replace('.', "_");
    if let Some(other) = image.topics().find(|other| flat(&other.name) == flat(&topic.name)) {
        return Err(Refusal::TopicCollision(topic.name.clone(), other.name.to_string()));
    }
    let replicas = replicas(image, policy, topic)?;
    for (name, value) in &topic.configs {
        topic_config::check(name, value)?;
    }
    let mut records = vec![Record::Topic { id: topic.id, name: topic.name.clone() }];
    for (index, replicas) in (0..).zip(replicas) {
        records.push(new_partition(topic.id, index, replicas));
    }
    for (name, value) in &topic.configs {
        let (name, value) = (name.clone(), Some(value.clone()));
        records.push(Record::TopicConfig { id: topic.id, name, value });
    }
    Ok(records)
}

fn new_partition(topic: Uuid, index: i32, replicas: Vec<i32>) -> Record {
    let partition = Partition {
        leader: replicas[0],
        leader_epoch: 0,
        partition_epoch: 0,
        isr: replicas.clone(),
        replicas,
    };
    Record::Partition(partition.record(topic, index))
}

/// Kafka's rule for topic names.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let ok = (1..=249).contains(&name.len()) && !matches!(name, "." | "..") && name.chars().all(legal);
    if ok { Ok(()) } else { Err(Refusal::InvalidTopic(name.to_owned())) }
}

fn replicas(image: &Image, policy: Policy, topic: &NewTopic) -> Result<Vec<Vec<i32>>, Refusal> {
    if !topic.assignments.is_empty() {
        if topic.partitions != -1 || topic.replication_factor != -1 {
            let why = "with an assignment of replicas, the number of partitions and the replication factor must be -1";
            return Err(Refusal::InvalidRequest(why.to_owned()));
        }
        return assigned(image, policy, 0, &topic.assignments);
    }
    let count = match topic.partitions {
        -1 => policy.default_partitions,
        count => count,
    };
    check_count(policy, count)?;
    let factor = if topic.replication_factor == -1 { 1 } else { topic.replication_factor };
    spread(image, count, factor)
}

fn check_count(policy: Policy, count: i32) -> Result<(), Refusal> {
    if count < 1 {
        return Err(Refusal::InvalidPartitions(count, "it must be at least 1".to_owned()));
    }
    if count > policy.max_partitions {
        let why = format!("a topic can have `{}`", policy.max_partitions);
        return Err(Refusal::InvalidPartitions(count, why));
    }
    Ok(())
}

/// Leaders go round the brokers in order of their ids.
fn spread(image: &Image, count: i32, factor: i16) -> Result<Vec<Vec<i32>>, Refusal> {
    let brokers: Vec<i32> = image.brokers.keys().copied().collect();
    let copies = usize::try_from(factor).unwrap_or(0);
    if copies == 0 || copies > brokers.len() {
        return Err(Refusal::InvalidReplicationFactor(factor, brokers.len()));
    }
    let partitions = usize::try_from(count).expect("the count was checked to be positive");
    let pick =
        |partition: usize| (0..copies).map(|copy| brokers[(partition + copy) % brokers.len()]).collect();
    Ok((0..partitions).map(pick).collect())
}

fn assigned(
    image: &Image,
    policy: Policy,
    first: i32,
    assignments: &BTreeMap<i32, Vec<i32>>,
) -> Result<Vec<Vec<i32>>, Refusal> {
    let count = i32::try_from(assignments.len()).unwrap_or(i32::MAX);
    check_count(policy, count)?;
    for (expected, (index, replicas)) in (first..).zip(assignments) {
        if expected != *index {
            return Err(Refusal::InvalidAssignment(format!("partition `{expected}` is missing")));
        }
        if replicas.is_empty() {
            return Err(Refusal::InvalidAssignment(format!("partition `{index}` has no replica")));
        }
        for (at, replica) in replicas.iter().enumerate() {
            if !image.brokers.contains_key(replica) {
                return Err(Refusal::InvalidAssignment(format!("there is no broker `{replica}`")));
            }
            if replicas[..at].contains(replica) {
                return Err(Refusal::InvalidAssignment(format!("broker `{replica}` stands twice")));
            }
        }
    }
    Ok(assignments.values().cloned().collect())
}

/// The records that delete a topic, and its name.
pub fn delete_topic(image: &Image, id: Uuid) -> Result<(Arc<str>, Vec<Record>), Refusal> {
    let topic = image.topic_by_id(id).ok_or(Refusal::UnknownTopicId(id))?;
    if &*topic.name == crate::coord::OFFSETS_TOPIC {
        return Err(Refusal::Internal(topic.name.to_string()));
    }
    Ok((Arc::clone(&topic.name), vec![Record::RemoveTopic { id }]))
}

/// The records that raise a topic's partitions to `count`.
pub fn create_partitions(
    image: &Image,
    policy: Policy,
    name: &str,
    count: i32,
    assignments: Option<&[Vec<i32>]>,
) -> Result<Vec<Record>, Refusal> {
    let topic = image.topic(name).ok_or_else(|| Refusal::UnknownTopic(name.to_owned()))?;
    if name == crate::coord::OFFSETS_TOPIC {
        // A group's place is its name's hash modulo the count: changing the count would lose every group.
        return Err(Refusal::Internal(name.to_owned()));
    }
    let present = i32::try_from(topic.partitions.len()).expect("the count was checked when it was made");
    check_count(policy, count)?;
    if count <= present {
        let why = format!("topic `{name}` has `{present}` already; it can only grow");
        return Err(Refusal::InvalidPartitions(count, why));
    }
    let factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let added = match assignments {
        Some(given) => {
            if i32::try_from(given.len()).ok() != Some(count - present) {
                let why =
                    format!("`{}` partitions are added, `{}` are assigned", count - present, given.len());
                return Err(Refusal::InvalidAssignment(why));
            }
            let by_index = (present..).zip(given.iter().cloned()).collect();
            assigned(image, policy, present, &by_index)?
        }
        None => spread(image, count - present, i16::try_from(factor).unwrap_or(i16::MAX))?,
    };
    Ok((present..).zip(added).map(|(index, replicas)| new_partition(topic.id, index, replicas)).collect())
}

/// One change of one topic setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    Set(String),
    Delete,
    /// Adds items to a comma-separated list.
    Append(String),
    /// Removes items from a comma-separated list.
    Subtract(String),
}

/// The records that change a topic's settings. `default_of` gives the value in force without an override.
pub fn alter_topic_configs(
    image: &Image,
    name: &str,
    changes: &[(String, ConfigChange)],
    default_of: impl Fn(&str) -> String,
) -> Result<Vec<Record>, Refusal> {
    let topic = image.topic(name).ok_or_else(|| Refusal::UnknownTopic(name.to_owned()))?;
    let mut records = Vec::new();
    for (key, change) in changes {
        if topic_config::definition(key).is_none() {
            return Err(InvalidConfig::Unknown(key.clone()).into());
        }
        let list = matches!(topic_config::definition(key).map(|found| found.kind), Some(Kind::ListOf(_)));
        if matches!(change, ConfigChange::Append(_) | ConfigChange::Subtract(_)) && !list {
            let why = format!("`{key}` is no list: nothing can be added to it or taken away");
            return Err(Refusal::InvalidRequest(why));
        }
        let present = || topic.configs.get(key).cloned().unwrap_or_else(|| default_of(key));
        let value = match change {
            ConfigChange::Set(value) => Some(value.clone()),
            ConfigChange::Delete => None,
            ConfigChange::Append(items) => Some(edit_list(&present(), items, true)),
            ConfigChange::Subtract(items) => Some(edit_list(&present(), items, false)),
        };
        if let Some(value) = &value {
            topic_config::check(key, value)?;
        }
        records.push(Record::TopicConfig { id: topic.id, name: key.clone(), value });
    }
    Ok(records)
}

fn edit_list(present: &str, items: &str, add: bool) -> String {
    let split = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    let items = split(items);
    let mut list = split(present);
    list.retain(|item| !items.contains(item));
    if add {
        list.extend(items);
    }
    list.join(",")
}

/// The records that hand out the next block of producer ids, and its first id.
pub fn allocate_producer_ids(image: &Image) -> Result<(i64, Vec<Record>), Refusal> {
    let first = image.next_producer_id;
    let next = first.checked_add(PRODUCER_ID_BLOCK).ok_or(Refusal::ProducerIdsExhausted)?;
    Ok((first, vec![Record::ProducerIds { next }]))
}

/// The records of a broker's start. `clean_epoch` is the broker epoch its clean-shutdown file holds, if there is one:
/// without the matching one its logs may have lost their tails, and the leader epoch of all it leads is raised so that
/// nothing written from now on can be taken for what was lost.
pub fn register_broker(
    image: &Image,
    broker: BrokerRecord,
    clean_epoch: Option<u64>,
) -> Result<Vec<Record>, Refusal> {
    let node_id = broker.node_id;
    let known = image.brokers.get(&node_id);
    if known.is_some_and(|known| known.directory != broker.directory) {
        return Err(Refusal::NodeIdTaken(node_id));
    }
    let clean = match known {
        Some(known) => clean_epoch == Some(known.epoch),
        None => true,
    };
    let mut records = vec![Record::Broker(broker)];
    if !clean {
        for topic in image.topics() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                if partition.leader == node_id {
                    let mut raised = partition.clone();
                    raised.leader_epoch += 1;
                    raised.partition_epoch += 1;
                    records.push(Record::Partition(raised.record(topic.id, index)));
                }
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests;
