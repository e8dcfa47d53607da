//! Produce. The batches are handed to their partitions in the call, so requests of one connection are appended in the
//! order in which they came; only the answer is awaited.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};

use super::{Ask, codes};
use crate::clock::wall_ms;
use crate::net::{Answer, Reply};
use crate::node::Node;
use crate::partition::{Acks, AppendError, Appended, Appending, TopicReplicas, check_batch};

/// From this version on topics are named by their id.
const BY_ID: i16 = 13;

struct Topic {
    answer: TopicProduceResponse,
    partitions: Vec<(i32, Fate)>,
}

enum Fate {
    Known(ErrorCode),
    /// With the places of the records that are to blame.
    Rejected(AppendError, Vec<i32>),
    Appending(Appending),
}

pub(super) fn produce(node: &Arc<Node>, ask: Ask, request: ProduceRequest) -> Answer {
    let acks = match request.acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    };
    let refused = match acks {
        None => Some(ErrorCode::InvalidRequiredAcks),
        Some(_) if request.transactional_id.is_some() => Some(ErrorCode::InvalidTxnState),
        Some(_) => None,
    };
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for data in request.topic_data {
        let found = if ask.version >= BY_ID {
            node.partitions.topic_by_id(data.topic_id).ok_or(ErrorCode::UnknownTopicId)
        } else {
            node.partitions.topic(&data.name).ok_or(ErrorCode::UnknownTopicOrPartition)
        };
        let fate = |partition: PartitionProduceData| {
            let index = partition.index;
            let fate = match (refused, &found) {
                (Some(code), _) => Fate::Known(code),
                (None, Err(code)) => Fate::Known(*code),
                (None, Ok(topic)) => hand_over(node, topic, partition, acks.unwrap_or(Acks::All)),
            };
            (index, fate)
        };
        let partitions = data.partition_data.into_iter().map(fate).collect();
        let answer = TopicProduceResponse { name: data.name, topic_id: data.topic_id, ..Default::default() };
        topics.push(Topic { answer, partitions });
    }
    let silent = acks == Some(Acks::None);
    let due = Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    Answer::Later(Box::pin(async move {
        let (response, failed) = settle(topics, due).await;
        match (silent, failed) {
            (false, _) => ask.reply(&response),
            (true, None) => Reply::None,
            // Without an answer, the end of the connection is the only way to say that something was not taken.
            (true, Some(code)) => Reply::Close(format!("a produce with acks=0 failed: {}", code.name())),
        }
    }))
}

fn hand_over(node: &Node, topic: &TopicReplicas, data: PartitionProduceData, acks: Acks) -> Fate {
    let Some(replica) = topic.partition(data.index) else {
        return Fate::Known(ErrorCode::UnknownTopicOrPartition);
    };
    if topic.is_internal() {
        return Fate::Known(ErrorCode::InvalidTopicException);
    }
    let now = wall_ms();
    let records = data.records.map(|records| records.to_bytes()).unwrap_or_default();
    node.metrics.bytes_in(records.len());
    let config = replica.config();
    match check_batch(records, &config, now) {
        Ok(batch) => Fate::Appending(replica.submit(batch, acks, now)),
        Err(rejection) => Fate::Rejected(rejection.error, rejection.records),
    }
}

/// Waits for all partitions, together no longer than the producer allows. What is not acknowledged by then may still be
/// written; the producer tries again, and an idempotent one is told where it went.
async fn settle(topics: Vec<Topic>, due: Instant) -> (ProduceResponse, Option<ErrorCode>) {
    let mut response = ProduceResponse::default();
    let mut failed = None;
    for Topic { mut answer, partitions } in topics {
        for (index, fate) in partitions {
            let partition = match fate {
                Fate::Known(code) => refusal(index, code, None),
                Fate::Rejected(error, records) => {
                    report(&error);
                    blame(index, &error, records)
                }
                Fate::Appending(appending) => match timeout_at(due, appending).await {
                    Ok(Ok(appended)) => success(index, appended),
                    Ok(Err(error)) => {
                        report(&error);
                        refusal(index, codes::append(&error), Some(error.to_string()))
                    }
                    Err(_) => refusal(index, ErrorCode::RequestTimedOut, None),
                },
            };
            if partition.error_code != ErrorCode::None as i16 {
                failed = Some(ErrorCode::from_code(partition.error_code));
            }
            answer.partition_responses.push(partition);
        }
        response.responses.push(answer);
    }
    (response, failed)
}

fn success(index: i32, appended: Appended) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        base_offset: appended.base_offset,
        log_append_time_ms: appended.log_append_time,
        log_start_offset: appended.log_start,
        ..PartitionProduceResponse::default()
    }
}

fn refusal(index: i32, code: ErrorCode, message: Option<String>) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: code as i16,
        base_offset: -1,
        error_message: message.map(Into::into),
        ..PartitionProduceResponse::default()
    }
}

/// The refusal of a batch for the sake of some of its records: the producer may send the others again.
fn blame(index: i32, error: &AppendError, records: Vec<i32>) -> PartitionProduceResponse {
    let message = error.to_string();
    let record = |batch_index| BatchIndexAndErrorMessage {
        batch_index,
        batch_index_error_message: Some(message.as_str().into()),
    };
    let record_errors = records.into_iter().map(record).collect();
    PartitionProduceResponse { record_errors, ..refusal(index, codes::append(error), Some(message.clone())) }
}

fn report(error: &AppendError) {
    // The log names the disk's errors itself.
    if !matches!(error, AppendError::Storage(_)) {
        tracing::debug!(%error, "refused a batch");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_answered_when_the_producer_no_longer_waits() {
        let (appending, _sender) = Appending::pending();
        let partitions = vec![(0, Fate::Appending(appending)), (1, Fate::Known(ErrorCode::None))];
        let topic = Topic { answer: TopicProduceResponse::default(), partitions };
        let begun = Instant::now();
        let (mut response, failed) = settle(vec![topic], begun + Duration::from_secs(3)).await;
        assert_eq!((begun.elapsed(), failed), (Duration::from_secs(3), Some(ErrorCode::RequestTimedOut)));
        let codes: Vec<i16> =
            response.responses.remove(0).partition_responses.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [ErrorCode::RequestTimedOut as i16, ErrorCode::None as i16]);
    }
}
