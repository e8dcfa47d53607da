//! ListOffsets, OffsetForLeaderEpoch and DeleteRecords: where things are in a log, and where it begins.

use std::collections::HashMap;
use std::sync::Arc;

use aqueduct_wire::ByteString;
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse, OffsetForLeaderEpochEpochEndOffset, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use super::{Ask, codes};
use crate::node::Node;
use crate::partition::{FetchError, Replica};

// ListOffsets' special timestamps.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// The first version that has a special timestamp; `None` for a number that means nothing.
fn since(timestamp: i64) -> Option<i16> {
    match timestamp {
        LATEST | EARLIEST | 0.. => Some(1),
        MAX_TIMESTAMP => Some(7),
        EARLIEST_LOCAL => Some(8),
        LATEST_TIERED => Some(9),
        EARLIEST_PENDING_UPLOAD => Some(11),
        _ => None,
    }
}

fn replica(node: &Node, topic: &str, partition: i32) -> Result<Arc<Replica>, ErrorCode> {
    let topic = node.partitions.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic.partition(partition).cloned().ok_or(ErrorCode::UnknownTopicOrPartition)
}

pub(super) async fn list_offsets(
    node: Arc<Node>,
    ask: Ask,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let mut times: HashMap<(ByteString, i32), usize> = HashMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            *times.entry((topic.name.clone(), partition.partition_index)).or_default() += 1;
        }
    }
    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let mut answer = ListOffsetsTopicResponse { name: topic.name.clone(), ..Default::default() };
        for partition in topic.partitions {
            let at = (topic.name.clone(), partition.partition_index);
            let refused = if times.get(&at).is_some_and(|times| *times > 1) {
                Some(ErrorCode::InvalidRequest)
            } else if since(partition.timestamp).is_none_or(|since| ask.version < since) {
                Some(ErrorCode::UnsupportedVersion)
            } else {
                None
            };
            answer.partitions.push(match refused {
                Some(code) => ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    error_code: code as i16,
                    ..Default::default()
                },
                None => list_one(&node, &topic.name, &partition).await,
            });
        }
        response.topics.push(answer);
    }
    response
}

async fn list_one(node: &Node, topic: &str, asked: &ListOffsetsPartition) -> ListOffsetsPartitionResponse {
    let mut answer =
        ListOffsetsPartitionResponse { partition_index: asked.partition_index, ..Default::default() };
    let found = match replica(node, topic, asked.partition_index) {
        Ok(replica) => match replica.check_epoch(asked.current_leader_epoch) {
            Ok(()) => find(replica, asked.timestamp).await.map_err(|error| codes::fetch(&error)),
            Err(error) => Err(codes::fetch(&error)),
        },
        Err(code) => Err(code),
    };
    match found {
        Ok(Some(found)) => {
            answer.offset = found.offset;
            answer.timestamp = found.timestamp;
            answer.leader_epoch = found.leader_epoch;
        }
        Ok(None) => {}
        Err(code) => answer.error_code = code as i16,
    }
    answer
}

struct Found {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
}

async fn find(replica: Arc<Replica>, timestamp: i64) -> Result<Option<Found>, FetchError> {
    let log = Arc::clone(replica.check_online()?);
    let epoch = |offset: i64| log.epoch_at(offset).unwrap_or(-1);
    match timestamp {
        LATEST => Ok(Some(Found {
            offset: replica.high_watermark(),
            timestamp: -1,
            leader_epoch: log.latest_epoch().unwrap_or(-1),
        })),
        EARLIEST | EARLIEST_LOCAL => {
            let offset = log.start_offset();
            Ok(Some(Found { offset, timestamp: -1, leader_epoch: epoch(offset) }))
        }
        // There are no tiers.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(None),
        timestamp => {
            let search = Arc::clone(&log);
            let found = tokio::task::spawn_blocking(move || match timestamp {
                MAX_TIMESTAMP => search.max_timestamp(),
                timestamp => search.offset_for_timestamp(timestamp),
            });
            let found = found.await.map_err(|_| FetchError::NotLeader)??;
            let visible = found.filter(|(offset, _)| *offset < replica.high_watermark());
            Ok(visible.map(|(offset, timestamp)| Found { offset, timestamp, leader_epoch: epoch(offset) }))
        }
    }
}

pub(super) fn offset_for_leader_epoch(
    node: &Node,
    _ask: &Ask,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in request.topics {
        let mut answer = OffsetForLeaderTopicResult { topic: topic.topic.clone(), ..Default::default() };
        for asked in topic.partitions {
            let mut end =
                OffsetForLeaderEpochEpochEndOffset { partition: asked.partition, ..Default::default() };
            let found = replica(node, &topic.topic, asked.partition).and_then(|replica| {
                let checked = replica.check_epoch(asked.current_leader_epoch);
                checked
                    .and_then(|()| replica.epoch_end(asked.leader_epoch))
                    .map_err(|error| codes::fetch(&error))
            });
            match found {
                Ok(Some(found)) => {
                    end.leader_epoch = found.epoch;
                    end.end_offset = found.end_offset;
                }
                Ok(None) => {}
                Err(code) => end.error_code = code as i16,
            }
            answer.partitions.push(end);
        }
        response.topics.push(answer);
    }
    response
}

pub(super) async fn delete_records(
    node: Arc<Node>,
    _ask: Ask,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut response = DeleteRecordsResponse::default();
    for topic in request.topics {
        let mut answer = DeleteRecordsTopicResult { name: topic.name.clone(), ..Default::default() };
        for asked in topic.partitions {
            let outcome = match replica(&node, &topic.name, asked.partition_index) {
                Ok(replica) => delete_before(replica, asked.offset).await,
                Err(code) => Err(code),
            };
            let (low_watermark, error_code) = match outcome {
                Ok(low_watermark) => (low_watermark, ErrorCode::None),
                Err(code) => (-1, code),
            };
            answer.partitions.push(DeleteRecordsPartitionResult {
                partition_index: asked.partition_index,
                low_watermark,
                error_code: error_code as i16,
            });
        }
        response.topics.push(answer);
    }
    response
}

/// -1 stands for everything that can be read.
async fn delete_before(replica: Arc<Replica>, offset: i64) -> Result<i64, ErrorCode> {
    if !replica.config().delete {
        // Compacted data is not the past; deleting it by offset would lose present state.
        return Err(ErrorCode::PolicyViolation);
    }
    let log = Arc::clone(replica.check_online().map_err(|_| ErrorCode::KafkaStorageError)?);
    let high_watermark = replica.high_watermark();
    let offset = if offset == -1 { high_watermark } else { offset };
    if !(0..=high_watermark).contains(&offset) {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let deleting = move || {
        if offset > log.flushed_offset() {
            // With `durability=os` the flush lags; the log may not begin behind what a crash would leave of it.
            log.flush_blocking()?;
        }
        log.delete_records_before(offset)
    };
    let deleted = tokio::task::spawn_blocking(deleting).await;
    let deleted = deleted.map_err(|_| ErrorCode::NotLeaderOrFollower)?;
    deleted.map_err(|error| codes::fetch(&FetchError::from(error)))
}
