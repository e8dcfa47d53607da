//! OffsetCommit, OffsetFetch and OffsetDelete.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use aqueduct_wire::ByteString;
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use super::{Ask, codes};
use crate::clock::wall_ms;
use crate::coord::shard::{Committed, Slot, TopicPartition};
use crate::node::Node;

/// From this version on topics are named by their id.
const BY_ID: i16 = 10;

/// The name of a topic that is named either way; `Err` if there is no such id.
fn name_of(node: &Node, version: i16, name: &ByteString, id: Uuid) -> Result<String, ErrorCode> {
    if version < BY_ID {
        return Ok(name.to_string());
    }
    let image = node.meta.image();
    image.topic_by_id(id).map(|topic| topic.name.to_string()).ok_or(ErrorCode::UnknownTopicId)
}

pub(super) async fn offset_commit(
    node: Arc<Node>,
    ask: Ask,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let now = wall_ms();
    let image = node.meta.image();
    let mut offsets = Vec::new();
    let mut ids = HashMap::new();
    let mut answers = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut answer = OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            ..OffsetCommitResponseTopic::default()
        };
        let name = name_of(&node, ask.version, &topic.name, topic.topic_id);
        for partition in topic.partitions {
            let index = partition.partition_index;
            let found = name
                .as_ref()
                .ok()
                .and_then(|name| image.topic(name))
                .filter(|topic| usize::try_from(index).is_ok_and(|index| index < topic.partitions.len()));
            let code = match (&name, found) {
                (Ok(name), Some(topic)) => {
                    ids.insert(name.clone(), topic.id);
                    let committed = Committed {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
                        commit_time: now,
                    };
                    offsets.push((TopicPartition { topic: name.clone(), partition: index }, committed));
                    // Known after the commit.
                    None
                }
                (Ok(_), None) => Some(ErrorCode::UnknownTopicOrPartition),
                (Err(code), _) => Some(*code),
            };
            answer.partitions.push(OffsetCommitResponsePartition {
                partition_index: index,
                error_code: code.map_or(PENDING, |code| code as i16),
            });
        }
        answers.push(answer);
    }
    let count = offsets.len();
    let member = (&*request.member_id, request.group_instance_id.as_deref());
    let generation = request.generation_id_or_member_epoch;
    // A topic that was deleted and made again meanwhile is another one.
    let exists = |at: &TopicPartition| {
        let image = node.meta.image();
        image.topic(&at.topic).is_some_and(|topic| ids.get(&at.topic) == Some(&topic.id))
    };
    let committed = node.coordinator.commit(&request.group_id, member, generation, offsets, exists).await;
    let codes: Vec<i16> = match committed {
        Ok(outcomes) => outcomes
            .into_iter()
            .map(|outcome| outcome.map_or_else(codes::coord, |()| ErrorCode::None) as i16)
            .collect(),
        Err(error) => vec![codes::coord(error) as i16; count],
    };
    let pending =
        answers.iter_mut().flat_map(|topic| &mut topic.partitions).filter(|one| one.error_code == PENDING);
    for (partition, code) in pending.zip(codes) {
        partition.error_code = code;
    }
    OffsetCommitResponse { topics: answers, ..OffsetCommitResponse::default() }
}

pub(super) async fn offset_delete(
    node: Arc<Node>,
    _ask: Ask,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let image = node.meta.image();
    let mut wanted = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let count = image.topic(&topic.name).map_or(0, |topic| topic.partitions.len());
        let mut answer = OffsetDeleteResponseTopic { name: topic.name, ..Default::default() };
        for index in topic.partitions.into_iter().map(|partition| partition.partition_index) {
            let known = usize::try_from(index).is_ok_and(|index| index < count);
            if known {
                wanted.push(TopicPartition { topic: answer.name.to_string(), partition: index });
            }
            let error_code = if known { PENDING } else { ErrorCode::UnknownTopicOrPartition as i16 };
            answer.partitions.push(OffsetDeleteResponsePartition { partition_index: index, error_code });
        }
        topics.push(answer);
    }
    let outcomes = match node.coordinator.delete_offsets(&request.group_id, &wanted).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let error_code = codes::coord(error) as i16;
            return OffsetDeleteResponse { error_code, ..OffsetDeleteResponse::default() };
        }
    };
    let pending =
        topics.iter_mut().flat_map(|topic| &mut topic.partitions).filter(|one| one.error_code == PENDING);
    for (partition, outcome) in pending.zip(outcomes) {
        partition.error_code = outcome.map_or_else(codes::group, |()| ErrorCode::None) as i16;
    }
    OffsetDeleteResponse { topics, ..OffsetDeleteResponse::default() }
}

/// Marks a partition whose outcome is not known yet; no code of Kafka's.
const PENDING: i16 = i16::MIN;

pub(super) async fn offset_fetch(
    node: Arc<Node>,
    ask: Ask,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    if ask.version >= 8 {
        let mut response = OffsetFetchResponse::default();
        for group in request.groups {
            response.groups.push(fetch_group(&node, ask.version, group).await);
        }
        return response;
    }
    let topics = request.topics.map(|topics| {
        let topic = |topic: aqueduct_wire::messages::OffsetFetchRequestTopic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..OffsetFetchRequestTopics::default()
        };
        topics.into_iter().map(topic).collect()
    });
    let group = OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() };
    let group = fetch_group(&node, ask.version, group).await;
    let partition = |one: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: one.partition_index,
        committed_offset: one.committed_offset,
        committed_leader_epoch: one.committed_leader_epoch,
        metadata: one.metadata,
        // Version 1 has no other place for the group's error.
        error_code: if ask.version < 2 { group.error_code } else { one.error_code },
    };
    let topic = |topic: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    };
    let topics = group.topics.into_iter().map(topic).collect();
    OffsetFetchResponse { topics, error_code: group.error_code, ..OffsetFetchResponse::default() }
}

async fn fetch_group(
    node: &Arc<Node>,
    version: i16,
    asked: OffsetFetchRequestGroup,
) -> OffsetFetchResponseGroup {
    let group_id = asked.group_id.clone();
    if let Err(error) = node.ensure_offsets_topic().await {
        let error_code = codes::change(&error) as i16;
        return OffsetFetchResponseGroup { group_id, error_code, ..OffsetFetchResponseGroup::default() };
    }
    let looked = node.coordinator.look(&group_id, |slot| answer_topics(node, version, &asked, slot)).await;
    match looked {
        Ok(topics) => OffsetFetchResponseGroup { group_id, topics, error_code: 0 },
        Err(error) => {
            let nothing = answer_topics(node, version, &asked, None);
            let topics = if asked.topics.is_some() { nothing } else { Vec::new() };
            OffsetFetchResponseGroup { group_id, topics, error_code: codes::coord(error) as i16 }
        }
    }
}

/// An unknown group, like an unknown partition, has the offset -1 and no error.
fn answer_topics(
    node: &Node,
    version: i16,
    asked: &OffsetFetchRequestGroup,
    slot: Option<&Slot>,
) -> Vec<OffsetFetchResponseTopics> {
    let Some(topics) = &asked.topics else { return slot.map(|slot| all(node, slot)).unwrap_or_default() };
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        let name = name_of(node, version, &topic.name, topic.topic_id);
        let partition = |index: &i32| match &name {
            Ok(name) => {
                let at = TopicPartition { topic: name.clone(), partition: *index };
                found(*index, slot.and_then(|slot| slot.offset(&at)))
            }
            Err(code) => OffsetFetchResponsePartitions { error_code: *code as i16, ..found(*index, None) },
        };
        answers.push(OffsetFetchResponseTopics {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partition_indexes.iter().map(partition).collect(),
        });
    }
    answers
}

fn all(node: &Node, slot: &Slot) -> Vec<OffsetFetchResponseTopics> {
    let image = node.meta.image();
    let mut answers: Vec<OffsetFetchResponseTopics> = Vec::new();
    for (at, committed) in slot.offsets() {
        // In the order of topics, so one topic's offsets stand together.
        if answers.last().is_none_or(|last| *last.name != *at.topic) {
            answers.push(OffsetFetchResponseTopics {
                name: at.topic.as_str().into(),
                topic_id: image.topic(&at.topic).map(|topic| topic.id).unwrap_or_default(),
                partitions: Vec::new(),
            });
        }
        if let Some(last) = answers.last_mut() {
            last.partitions.push(found(at.partition, Some(committed)));
        }
    }
    answers
}

fn found(index: i32, committed: Option<&Committed>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset: committed.map_or(-1, |committed| committed.offset),
        committed_leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: Some(committed.map(|committed| committed.metadata.as_str().into()).unwrap_or_default()),
        error_code: 0,
    }
}
