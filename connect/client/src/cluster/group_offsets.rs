//! Committed offsets of groups: read, set, deleted.

use std::collections::BTreeMap;

use aqueduct_core::sink::{Offsets, TopicPartition};
use aqueduct_core::{Result, Topic};
use aqueduct_wire::messages::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetDeleteRequest,
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, OffsetFetchRequest, OffsetFetchRequestGroup,
    OffsetFetchResponse,
};

use super::{Cluster, Refused, To, is_moving, moving};

/// The outcome of each partition.
type Outcomes = BTreeMap<TopicPartition, Result<(), Refused>>;

impl Cluster {
    /// Everything that a group has committed.
    pub async fn committed(&mut self, group: &str) -> Result<Offsets> {
        let deadline = self.deadline();
        let wanted = OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() };
        let request = OffsetFetchRequest {
            group_id: group.into(),
            topics: None,
            groups: vec![wanted],
            ..Default::default()
        };
        let what = format!("reading the committed offsets of group `{group}`");
        loop {
            // All topics can be asked for since version 2; from 10 on they go by id.
            let response = self.call(To::Coordinator(group), &request, 2..=9, deadline).await?;
            match committed(&response) {
                Ok(offsets) => return Ok(offsets),
                Err(refused) => self.pause(&refused, deadline, &what).await?,
            }
        }
    }

    /// Sets committed offsets of a group that has no members; each with its outcome.
    pub async fn commit(&mut self, group: &str, offsets: &Offsets) -> Result<Outcomes> {
        let deadline = self.deadline();
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for (tp, offset) in offsets {
            let partition = OffsetCommitRequestPartition {
                partition_index: tp.partition,
                committed_offset: *offset,
                committed_leader_epoch: -1,
                committed_metadata: Some("".into()),
            };
            match topics.last_mut() {
                Some(topic) if *topic.name == *tp.topic => topic.partitions.push(partition),
                _ => topics.push(OffsetCommitRequestTopic {
                    name: (&*tp.topic).into(),
                    partitions: vec![partition],
                    ..Default::default()
                }),
            }
        }
        let request = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: -1,
            topics,
            ..Default::default()
        };
        loop {
            let response = self.call(To::Coordinator(group), &request, 2..=9, deadline).await?;
            let outcomes = response.topics.iter().flat_map(|topic| {
                let name = Topic::from(&*topic.name);
                topic.partitions.iter().map(move |p| (Topic::clone(&name), p.partition_index, p.error_code))
            });
            let outcomes = by_partition(outcomes);
            match moving(outcomes.values().filter_map(|outcome| outcome.as_ref().err())) {
                Some(refused) => self.pause(&refused, deadline, "committing offsets").await?,
                None => return Ok(outcomes),
            }
        }
    }

    /// Deletes committed offsets (KIP-496); each with its outcome.
    pub async fn delete_committed(
        &mut self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Result<Outcomes, Refused>> {
        let deadline = self.deadline();
        let mut topics: Vec<OffsetDeleteRequestTopic> = Vec::new();
        for tp in partitions {
            let partition = OffsetDeleteRequestPartition { partition_index: tp.partition };
            match topics.last_mut() {
                Some(topic) if *topic.name == *tp.topic => topic.partitions.push(partition),
                _ => topics.push(OffsetDeleteRequestTopic {
                    name: (&*tp.topic).into(),
                    partitions: vec![partition],
                }),
            }
        }
        let request = OffsetDeleteRequest { group_id: group.into(), topics };
        loop {
            let response = self.call(To::Coordinator(group), &request, 0..=0, deadline).await?;
            match Refused::check(response.error_code, None) {
                Err(refused) if is_moving(refused.code) => {
                    self.pause(&refused, deadline, "deleting offsets").await?;
                }
                Err(refused) => return Ok(Err(refused)),
                Ok(()) => {
                    let outcomes = response.topics.iter().flat_map(|topic| {
                        let name = Topic::from(&*topic.name);
                        topic
                            .partitions
                            .iter()
                            .map(move |p| (Topic::clone(&name), p.partition_index, p.error_code))
                    });
                    return Ok(Ok(by_partition(outcomes)));
                }
            }
        }
    }
}

fn by_partition(outcomes: impl Iterator<Item = (Topic, i32, i16)>) -> Outcomes {
    let each = outcomes
        .map(|(topic, partition, code)| (TopicPartition { topic, partition }, Refused::check(code, None)));
    each.collect()
}

fn committed(response: &OffsetFetchResponse) -> Result<Offsets, Refused> {
    let mut found: Vec<(&str, i32, i64, i16)> = Vec::new();
    // Up to version 7 there is one group, and no list of them.
    Refused::check(response.error_code, None)?;
    for topic in &response.topics {
        let each = topic.partitions.iter();
        found.extend(each.map(|p| (&*topic.name, p.partition_index, p.committed_offset, p.error_code)));
    }
    for group in &response.groups {
        Refused::check(group.error_code, None)?;
        for topic in &group.topics {
            let each = topic.partitions.iter();
            found.extend(each.map(|p| (&*topic.name, p.partition_index, p.committed_offset, p.error_code)));
        }
    }
    let mut offsets = Offsets::new();
    for (topic, partition, offset, code) in found {
        Refused::check(code, None)?;
        if offset >= 0 {
            offsets.insert(TopicPartition { topic: Topic::from(topic), partition }, offset);
        }
    }
    Ok(offsets)
}
