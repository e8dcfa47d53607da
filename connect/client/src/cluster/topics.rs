//! Topics: listed, created, deleted, given partitions, their records deleted.

use std::collections::BTreeMap;

use aqueduct_core::sink::{Offsets, TopicPartition};
use aqueduct_core::{Error, Result, Topic};
use aqueduct_wire::messages::{
    CreatableTopic, CreatableTopicConfig, CreatePartitionsRequest, CreatePartitionsTopic,
    CreateTopicsRequest, DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic, DeleteTopicState,
    DeleteTopicsRequest, MetadataRequest, MetadataRequestTopic, MetadataResponseTopic,
};
use aqueduct_wire::{ErrorCode, Uuid};

use super::{Cluster, METADATA, Refused, To, moving};
use crate::admin::NewTopic;

/// A topic.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// Name.
    pub name: String,
    /// Its id, where the cluster has them (Apache Kafka 2.8 and later).
    pub id: Option<Uuid>,
    /// Whether it is the cluster's own.
    pub internal: bool,
    /// Partitions in order.
    pub partitions: Vec<PartitionInfo>,
}

impl TopicInfo {
    /// Replicas of each partition; the first one counts.
    pub fn replication_factor(&self) -> usize {
        self.partitions.first().map_or(0, |partition| partition.replicas.len())
    }

    /// All of its partitions.
    pub fn each(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        let topic = Topic::from(self.name.as_str());
        let name =
            move |p: &PartitionInfo| TopicPartition { topic: Topic::clone(&topic), partition: p.partition };
        self.partitions.iter().map(name)
    }
}

/// A partition.
#[derive(Clone, Debug)]
pub struct PartitionInfo {
    /// Number.
    pub partition: i32,
    /// Broker that leads it, if one does.
    pub leader: Option<i32>,
    /// Epoch of the leader, where the cluster tells.
    pub leader_epoch: Option<i32>,
    /// Brokers that have it.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
    /// Those that are down.
    pub offline: Vec<i32>,
    /// What is wrong with it.
    pub error: Option<Refused>,
}

/// A topic that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id, where the cluster tells.
    pub id: Option<Uuid>,
    /// Partitions, where the cluster tells.
    pub partitions: Option<i32>,
    /// Replication factor, where the cluster tells.
    pub replication_factor: Option<i16>,
}

impl Cluster {
    /// All topics by name, internal ones too.
    pub async fn topics(&mut self) -> Result<Vec<TopicInfo>> {
        let topics = self.metadata(None).await?;
        Ok(topics.into_iter().filter_map(|(_, found)| found.ok()).collect())
    }

    /// These topics, each with what is wrong about it.
    pub async fn topics_named(
        &mut self,
        names: &[String],
    ) -> Result<Vec<(String, Result<TopicInfo, Refused>)>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut found: BTreeMap<_, _> = self.metadata(Some(names)).await?.into_iter().collect();
        let missing = || Err(Refused { code: ErrorCode::UnknownTopicOrPartition, message: None });
        Ok(names.iter().map(|name| (name.clone(), found.remove(name).unwrap_or_else(missing))).collect())
    }

    async fn metadata(
        &mut self,
        names: Option<&[String]>,
    ) -> Result<Vec<(String, Result<TopicInfo, Refused>)>> {
        let wanted =
            |name: &String| MetadataRequestTopic { name: Some(name.as_str().into()), ..Default::default() };
        let request = MetadataRequest {
            topics: names.map(|names| names.iter().map(wanted).collect()),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let deadline = self.deadline();
        let response = loop {
            let response = self.call(To::Any, &request, METADATA, deadline).await?;
            let refused: Vec<Refused> = response
                .topics
                .iter()
                .filter_map(|topic| Refused::check(topic.error_code, None).err())
                .collect();
            match moving(&refused) {
                // A new topic has no leaders for a moment.
                Some(refused) if names.is_some() => {
                    self.pause(&refused, deadline, "listing the topics").await?
                }
                _ => break response,
            }
        };
        self.describe(&response);
        let mut topics: Vec<_> = response
            .topics
            .iter()
            .map(|topic| {
                let name = topic.name.as_deref().unwrap_or_default().to_owned();
                (name, Refused::check(topic.error_code, None).map(|()| topic_info(topic)))
            })
            .collect();
        topics.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(topics)
    }

    /// Creates topics, or only says whether that would work; each with its outcome.
    pub async fn create(
        &mut self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<Created, Refused>)>> {
        let deadline = self.deadline();
        let request = CreateTopicsRequest {
            topics: topics.iter().map(creatable).collect::<Result<_>>()?,
            timeout_ms: self.timeout_ms(),
            validate_only,
        };
        // −1 for partitions or replicas is known since version 4 (KIP-464, Apache Kafka 2.4).
        let defaults = topics.iter().any(|topic| topic.partitions < 0 || topic.replication_factor < 0);
        loop {
            let versions = if defaults { 4..=7 } else { 2..=7 };
            let response = self.call(To::Controller, &request, versions, deadline).await;
            let response =
                response.map_err(|error| match defaults && error.message().contains("needs one of") {
                    true => {
                        error.context("name partitions and replicas, this cluster has no defaults for them")
                    }
                    false => error,
                })?;
            let known = |number: i32| Some(number).filter(|number| *number >= 0);
            let results: Vec<_> = response
                .topics
                .iter()
                .map(|topic| {
                    let made =
                        Refused::check(topic.error_code, topic.error_message.as_deref()).map(|()| Created {
                            id: Some(topic.topic_id).filter(|id| !id.is_nil()),
                            partitions: known(topic.num_partitions),
                            replication_factor: Some(topic.replication_factor).filter(|number| *number >= 0),
                        });
                    (topic.name.to_string(), made)
                })
                .collect();
            match moving(results.iter().filter_map(|(_, result)| result.as_ref().err())) {
                Some(refused) => self.pause(&refused, deadline, "creating topics").await?,
                None => return Ok(results),
            }
        }
    }

    /// Deletes topics; each with its outcome.
    pub async fn delete(&mut self, names: &[String]) -> Result<Vec<(String, Result<(), Refused>)>> {
        let deadline = self.deadline();
        let state =
            |name: &String| DeleteTopicState { name: Some(name.as_str().into()), ..Default::default() };
        let request = DeleteTopicsRequest {
            topics: names.iter().map(state).collect(),
            topic_names: names.iter().map(|name| name.as_str().into()).collect(),
            timeout_ms: self.timeout_ms(),
        };
        loop {
            let response = self.call(To::Controller, &request, 1..=6, deadline).await?;
            let results: Vec<_> = response
                .responses
                .iter()
                .map(|topic| {
                    let name = topic.name.as_deref().unwrap_or_default().to_owned();
                    (name, Refused::check(topic.error_code, topic.error_message.as_deref()))
                })
                .collect();
            match moving(results.iter().filter_map(|(_, result)| result.as_ref().err())) {
                Some(refused) => self.pause(&refused, deadline, "deleting topics").await?,
                None => return Ok(results),
            }
        }
    }

    /// Raises the number of partitions, or only says whether that would work.
    pub async fn grow(&mut self, topic: &str, partitions: i32, validate_only: bool) -> Result<()> {
        let deadline = self.deadline();
        let wanted = CreatePartitionsTopic { name: topic.into(), count: partitions, assignments: None };
        let request =
            CreatePartitionsRequest { topics: vec![wanted], timeout_ms: self.timeout_ms(), validate_only };
        let what = format!("partitions of topic `{topic}`");
        loop {
            let response = self.call(To::Controller, &request, 0..=3, deadline).await?;
            let result =
                response.results.first().ok_or_else(|| Error::fatal(format!("{what}: no answer")))?;
            match Refused::check(result.error_code, result.error_message.as_deref()) {
                Ok(()) => return Ok(()),
                Err(refused) => self.pause(&refused, deadline, &what).await?,
            }
        }
    }

    /// Deletes the records before these offsets (−1: all); the new first offset of each.
    pub async fn delete_records(
        &mut self,
        before: &Offsets,
    ) -> Result<BTreeMap<TopicPartition, Result<i64, Refused>>> {
        let deadline = self.deadline();
        let mut done = BTreeMap::new();
        for (leader, partitions) in self.by_leader(before.keys()).await? {
            let mut topics: Vec<DeleteRecordsTopic> = Vec::new();
            for tp in partitions {
                let partition = DeleteRecordsPartition { partition_index: tp.partition, offset: before[&tp] };
                match topics.last_mut() {
                    Some(topic) if *topic.name == *tp.topic => topic.partitions.push(partition),
                    _ => topics
                        .push(DeleteRecordsTopic { name: (&*tp.topic).into(), partitions: vec![partition] }),
                }
            }
            let request = DeleteRecordsRequest { topics, timeout_ms: self.timeout_ms() };
            let response = self.call(To::Node(leader), &request, 0..=2, deadline).await?;
            for topic in &response.topics {
                let name = Topic::from(&*topic.name);
                for p in &topic.partitions {
                    let tp = TopicPartition { topic: Topic::clone(&name), partition: p.partition_index };
                    done.insert(tp, Refused::check(p.error_code, None).map(|()| p.low_watermark));
                }
            }
        }
        Ok(done)
    }

    /// What the broker may take for it, a little less than we wait.
    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis() * 9 / 10).unwrap_or(i32::MAX)
    }
}

fn creatable(topic: &NewTopic) -> Result<CreatableTopic> {
    let replication_factor = i16::try_from(topic.replication_factor)
        .map_err(|_| Error::bad_config(format!("`{}` is no replication factor", topic.replication_factor)))?;
    let config = |(name, value): (&String, &String)| CreatableTopicConfig {
        name: name.as_str().into(),
        value: Some(value.as_str().into()),
    };
    Ok(CreatableTopic {
        name: topic.name.as_str().into(),
        num_partitions: topic.partitions,
        replication_factor,
        assignments: Vec::new(),
        configs: topic.config.iter().map(config).collect(),
    })
}

fn topic_info(topic: &MetadataResponseTopic) -> TopicInfo {
    let partition = |p: &aqueduct_wire::messages::MetadataResponsePartition| PartitionInfo {
        partition: p.partition_index,
        leader: Some(p.leader_id).filter(|id| *id >= 0),
        leader_epoch: Some(p.leader_epoch).filter(|epoch| *epoch >= 0),
        replicas: p.replica_nodes.clone(),
        isr: p.isr_nodes.clone(),
        offline: p.offline_replicas.clone(),
        error: Refused::check(p.error_code, None).err(),
    };
    let mut partitions: Vec<_> = topic.partitions.iter().map(partition).collect();
    partitions.sort_by_key(|partition| partition.partition);
    TopicInfo {
        name: topic.name.as_deref().unwrap_or_default().to_owned(),
        id: Some(topic.topic_id).filter(|id| !id.is_nil()),
        internal: topic.is_internal,
        partitions,
    }
}
