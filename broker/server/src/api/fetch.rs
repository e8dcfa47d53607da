//! Fetch: what is there at once, otherwise a wait for the high watermark.
//! Sessions (KIP-227) are not kept: each answer says so by session id 0, and the client goes on with full requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use aqueduct_wire::record_set::RecordSet;

use super::{Ask, codes};
use crate::node::Node;
use crate::partition::{FetchError, Read, Replica, Waiter};

/// From this version on topics are named by their id.
const BY_ID: i16 = 13;
/// The longest a fetch may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

struct Target {
    place: Result<Arc<Replica>, ErrorCode>,
    offset: i64,
    max_bytes: usize,
    epoch: i32,
    index: i32,
}

struct Topic {
    answer: FetchableTopicResponse,
    targets: Vec<Target>,
}

/// What one look at all partitions gave.
struct Pass {
    bytes: usize,
    failed: bool,
    topics: Vec<Vec<PartitionData>>,
}

pub(super) async fn fetch(node: Arc<Node>, ask: Ask, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 {
        let error_code = ErrorCode::FetchSessionIdNotFound as i16;
        return FetchResponse { error_code, ..FetchResponse::default() };
    }
    let most = usize::try_from(request.max_bytes).unwrap_or(0).min(node.config.limits.fetch_max_bytes);
    let wanted = usize::try_from(request.min_bytes).unwrap_or(0).min(most);
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT);
    let committed_only = request.isolation_level == 1;
    let topics = targets(&node, &ask, request);
    let look = || look(&topics, most, committed_only);

    let mut pass = look().await;
    let enough = |pass: &Pass| pass.bytes >= wanted || pass.failed;
    if !enough(&pass) && !wait.is_zero() {
        let deadline = Instant::now() + wait;
        let watch = Watch::new(&topics);
        loop {
            // Looked at again after registering, so that nothing that came in between is missed.
            pass = look().await;
            if enough(&pass) {
                break;
            }
            tokio::select! {
                () = watch.waiter.woken() => {}
                () = tokio::time::sleep_until(deadline) => break,
                () = node.stop.cancelled() => break,
            }
        }
    }
    node.metrics.bytes_out(pass.bytes);
    let fill = |(topic, partitions): (Topic, Vec<PartitionData>)| FetchableTopicResponse {
        partitions,
        ..topic.answer
    };
    let responses = topics.into_iter().zip(pass.topics).map(fill).collect();
    FetchResponse { responses, ..FetchResponse::default() }
}

fn targets(node: &Node, ask: &Ask, request: FetchRequest) -> Vec<Topic> {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = if ask.version >= BY_ID {
            node.partitions.topic_by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId)
        } else {
            node.partitions.topic(&topic.topic).ok_or(ErrorCode::UnknownTopicOrPartition)
        };
        let target = |partition: FetchPartition| Target {
            place: found.as_ref().map_err(|code| *code).and_then(|topic| {
                topic.partition(partition.partition).cloned().ok_or(ErrorCode::UnknownTopicOrPartition)
            }),
            offset: partition.fetch_offset,
            max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
            epoch: partition.current_leader_epoch,
            index: partition.partition,
        };
        let targets = topic.partitions.into_iter().map(target).collect();
        let answer =
            FetchableTopicResponse { topic: topic.topic, topic_id: topic.topic_id, ..Default::default() };
        topics.push(Topic { answer, targets });
    }
    topics
}

async fn look(topics: &[Topic], most: usize, committed_only: bool) -> Pass {
    let mut pass = Pass { bytes: 0, failed: false, topics: Vec::with_capacity(topics.len()) };
    for topic in topics {
        let mut partitions = Vec::with_capacity(topic.targets.len());
        for target in &topic.targets {
            partitions.push(look_at(target, most, committed_only, &mut pass).await);
        }
        pass.topics.push(partitions);
    }
    pass
}

async fn look_at(target: &Target, most: usize, committed_only: bool, pass: &mut Pass) -> PartitionData {
    let mut data = PartitionData {
        partition_index: target.index,
        aborted_transactions: committed_only.then(Vec::new),
        records: Some(RecordSet::EMPTY),
        high_watermark: -1,
        ..PartitionData::default()
    };
    let replica = match &target.place {
        Ok(replica) => replica,
        Err(code) => {
            data.error_code = *code as i16;
            pass.failed = true;
            return data;
        }
    };
    let room = most.saturating_sub(pass.bytes);
    let read = match replica.check_epoch(target.epoch) {
        // The first batch comes even if it is larger than the limit; otherwise the client would be stuck.
        Ok(()) if room > 0 || pass.bytes == 0 => {
            read(replica, target.offset, target.max_bytes.min(room)).await
        }
        Ok(()) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    match read {
        Ok(chunks) => {
            let bytes: usize = chunks.iter().map(Bytes::len).sum();
            if pass.bytes == 0 || bytes <= room {
                pass.bytes += bytes;
                data.records = Some(RecordSet::from(chunks));
            }
        }
        Err(error) => {
            data.error_code = codes::fetch(&error) as i16;
            pass.failed = true;
            if matches!(error, FetchError::Storage(_)) {
                return data;
            }
        }
    }
    data.high_watermark = replica.high_watermark();
    data.last_stable_offset = data.high_watermark;
    data.log_start_offset = replica.log_start();
    data
}

async fn read(replica: &Arc<Replica>, offset: i64, max_bytes: usize) -> Result<Vec<Bytes>, FetchError> {
    match replica.read(offset, max_bytes)? {
        Read::Found(chunks) => Ok(chunks),
        Read::Cold => {
            let replica = Arc::clone(replica);
            let read = tokio::task::spawn_blocking(move || replica.read_files(offset, max_bytes));
            // The thread ends early only when the runtime does.
            read.await.unwrap_or(Err(FetchError::NotLeader))
        }
    }
}

/// Registered with all partitions of a fetch, for as long as it lives.
struct Watch<'a> {
    topics: &'a [Topic],
    waiter: Arc<Waiter>,
}

impl<'a> Watch<'a> {
    fn new(topics: &'a [Topic]) -> Self {
        let watch = Self { topics, waiter: Arc::new(Waiter::default()) };
        watch.replicas().for_each(|replica| replica.watch(&watch.waiter));
        watch
    }

    fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.topics.iter().flat_map(|topic| &topic.targets).filter_map(|target| target.place.as_ref().ok())
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.replicas().for_each(|replica| replica.unwatch(&self.waiter));
    }
}
