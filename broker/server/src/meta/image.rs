//! The cluster's metadata at one moment, immutable once published.
//! Invariant: `apply` is a pure function of the image, the entry's index and its records, so equal logs give equal images.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use crate::meta::encoding::DecodeError;
use crate::meta::records::{BrokerRecord, PartitionRecord, Record};

/// Everything the cluster agrees on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Image {
    /// Sets of records applied so far; a proposal names the version it was decided on.
    pub version: u64,
    pub brokers: BTreeMap<i32, Broker>,
    topics: HashMap<Uuid, Arc<Topic>>,
    names: BTreeMap<Arc<str>, Uuid>,
    /// The first producer id that was never handed out.
    pub next_producer_id: i64,
}

/// A broker's latest registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub epoch: u64,
    pub incarnation: Uuid,
    pub directory: Uuid,
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub id: Uuid,
    pub name: Arc<str>,
    /// Index of the vector = number of the partition.
    pub partitions: Vec<Partition>,
    /// The settings that differ from the defaults.
    pub configs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub leader: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

impl Image {
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// The image after the records of the log entry at `index`.
    pub fn apply(&mut self, index: u64, records: &[Record]) -> Result<(), DecodeError> {
        for record in records {
            self.apply_one(index, record)?;
        }
        self.version += 1;
        Ok(())
    }

    fn apply_one(&mut self, index: u64, record: &Record) -> Result<(), DecodeError> {
        match record {
            Record::Broker(record) => self.apply_broker(index, record),
            Record::Topic { id, name } => {
                let name: Arc<str> = Arc::from(name.as_str());
                let topic = Topic {
                    id: *id,
                    name: Arc::clone(&name),
                    partitions: Vec::new(),
                    configs: BTreeMap::new(),
                };
                self.topics.insert(*id, Arc::new(topic));
                self.names.insert(name, *id);
            }
            Record::Partition(record) => self.apply_partition(record)?,
            Record::RemoveTopic { id } => {
                if let Some(topic) = self.topics.remove(id)
                    && self.names.get(&topic.name) == Some(id)
                {
                    self.names.remove(&topic.name);
                }
            }
            Record::TopicConfig { id, name, value } => {
                let topic = self.topic_mut(*id)?;
                match value {
                    Some(value) => topic.configs.insert(name.clone(), value.clone()),
                    None => topic.configs.remove(name),
                };
            }
            Record::ProducerIds { next } => self.next_producer_id = *next,
        }
        Ok(())
    }

    fn apply_broker(&mut self, index: u64, record: &BrokerRecord) {
        let broker = Broker {
            epoch: record.epoch.unwrap_or(index),
            incarnation: record.incarnation,
            directory: record.directory,
            host: record.host.clone(),
            port: record.port,
        };
        self.brokers.insert(record.node_id, broker);
    }

    fn apply_partition(&mut self, record: &PartitionRecord) -> Result<(), DecodeError> {
        let missing = DecodeError::NoPartition(record.topic, record.index);
        let topic = self.topic_mut(record.topic)?;
        let partition = Partition {
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
        };
        let at = usize::try_from(record.index).map_err(|_| missing.clone())?;
        match at.cmp(&topic.partitions.len()) {
            std::cmp::Ordering::Less => topic.partitions[at] = partition,
            std::cmp::Ordering::Equal => topic.partitions.push(partition),
            std::cmp::Ordering::Greater => return Err(missing),
        }
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut Topic, DecodeError> {
        self.topics.get_mut(&id).map(Arc::make_mut).ok_or(DecodeError::NoTopic(id))
    }

    /// The records that rebuild this image from an empty one.
    pub fn to_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (node_id, broker) in &self.brokers {
            records.push(Record::Broker(BrokerRecord {
                node_id: *node_id,
                incarnation: broker.incarnation,
                directory: broker.directory,
                host: broker.host.clone(),
                port: broker.port,
                epoch: Some(broker.epoch),
            }));
        }
        for topic in self.topics() {
            records.push(Record::Topic { id: topic.id, name: topic.name.to_string() });
            for (index, partition) in (0..).zip(&topic.partitions) {
                records.push(Record::Partition(partition.record(topic.id, index)));
            }
            for (name, value) in &topic.configs {
                let (name, value) = (name.clone(), Some(value.clone()));
                records.push(Record::TopicConfig { id: topic.id, name, value });
            }
        }
        records.push(Record::ProducerIds { next: self.next_producer_id });
        records
    }
}

impl Partition {
    /// The record that sets this state.
    pub fn record(&self, topic: Uuid, index: i32) -> PartitionRecord {
        PartitionRecord {
            topic,
            index,
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(topic: Uuid, index: i32) -> Record {
        Record::Partition(PartitionRecord {
            topic,
            index,
            leader: 1,
            leader_epoch: 0,
            partition_epoch: 0,
            replicas: vec![1],
            isr: vec![1],
        })
    }

    fn sample() -> Image {
        let id = Uuid::from_u128(7);
        let broker = BrokerRecord {
            node_id: 1,
            incarnation: Uuid::from_u128(1),
            directory: Uuid::from_u128(2),
            host: "localhost".to_owned(),
            port: 9092,
            epoch: None,
        };
        let mut image = Image::default();
        image.apply(3, &[Record::Broker(broker)]).expect("applies");
        let config = Record::TopicConfig { id, name: "retention.ms".to_owned(), value: Some("5".to_owned()) };
        let topic = Record::Topic { id, name: "orders".to_owned() };
        image.apply(4, &[topic, partition(id, 0), partition(id, 1), config]).expect("applies");
        image.apply(5, &[Record::ProducerIds { next: 1000 }]).expect("applies");
        image
    }

    #[test]
    fn a_snapshot_rebuilds_the_same_image() {
        let image = sample();
        let mut rebuilt = Image::default();
        rebuilt.apply(99, &image.to_records()).expect("applies");
        rebuilt.version = image.version;
        assert_eq!(rebuilt, image);
        assert_eq!(image.brokers[&1].epoch, 3);
    }

    #[test]
    fn a_recreated_topic_has_nothing_of_the_old_one() {
        let mut image = sample();
        let old = image.topic("orders").expect("is there").id;
        let new = Uuid::from_u128(8);
        let create = Record::Topic { id: new, name: "orders".to_owned() };
        image.apply(6, &[Record::RemoveTopic { id: old }, create]).expect("applies");
        let topic = image.topic("orders").expect("is there");
        assert!(topic.id == new && topic.partitions.is_empty() && topic.configs.is_empty());
        assert!(image.topic_by_id(old).is_none());
    }

    #[test]
    fn a_record_about_nothing_is_an_error() {
        let id = Uuid::from_u128(9);
        let mut image = sample();
        assert_eq!(image.apply(9, &[partition(id, 0)]), Err(DecodeError::NoTopic(id)));
        let known = Uuid::from_u128(7);
        assert_eq!(image.apply(9, &[partition(known, 5)]), Err(DecodeError::NoPartition(known, 5)));
    }
}
