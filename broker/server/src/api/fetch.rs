//! Fetch: what is there at once, otherwise a wait for the high watermark.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use aqueduct_wire::record_set::RecordSet;

use super::{Ask, codes};
use crate::fetch_sessions::{Asked, Key, NO_SESSION, Plan, Seen, SessionError, TopicKey, Wanted};
use crate::node::Node;
use crate::partition::{FetchError, Read, Replica, Waiter};

/// From this version on topics are named by their id.
const BY_ID: i16 = 13;
/// The longest a fetch may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

struct Target {
    wanted: Wanted,
    place: Result<Arc<Replica>, ErrorCode>,
}

/// What one look at all partitions gave.
struct Pass {
    bytes: usize,
    failed: bool,
    partitions: Vec<PartitionData>,
}

/// What becomes of the session once everything has been read.
enum Session {
    None,
    Open,
    GoesOn(i32),
}

pub(super) async fn fetch(node: Arc<Node>, ask: Ask, request: FetchRequest) -> FetchResponse {
    let by_id = ask.version >= BY_ID;
    let most = usize::try_from(request.max_bytes).unwrap_or(0).min(node.config.limits.fetch_max_bytes);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(most);
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT);
    let committed_only = request.isolation_level == 1;
    let plan = node.fetch_sessions.lock().begin(asked(request, by_id), node.clock.now());
    let (session, wanted) = match plan {
        Ok(Plan::Once(wanted)) => (Session::None, wanted),
        Ok(Plan::Open(wanted)) => (Session::Open, wanted),
        Ok(Plan::Changes(id, wanted)) => (Session::GoesOn(id), wanted),
        Err(error) => {
            let error_code = session_code(error) as i16;
            return FetchResponse { error_code, ..FetchResponse::default() };
        }
    };
    let targets: Vec<Target> = wanted.into_iter().map(|wanted| target(&node, wanted)).collect();
    let look = || look(&targets, most, committed_only);

    let mut pass = look().await;
    let enough = |pass: &Pass| pass.bytes >= min_bytes || pass.failed;
    if !enough(&pass) && !wait.is_zero() {
        let deadline = Instant::now() + wait;
        let _waiting = node.metrics.fetch_waits();
        let watch = Watch::new(&targets);
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
    answer(&node, session, by_id, targets, pass.partitions)
}

fn asked(request: FetchRequest, by_id: bool) -> Asked {
    let key = |name: &aqueduct_wire::ByteString, id: Uuid, partition| {
        let topic = if by_id { TopicKey::Id(id) } else { TopicKey::Name(name.clone()) };
        Key { topic, partition }
    };
    let mut wanted = Vec::new();
    for topic in &request.topics {
        wanted.extend(topic.partitions.iter().map(|partition| Wanted {
            key: key(&topic.topic, topic.topic_id, partition.partition),
            offset: partition.fetch_offset,
            max_bytes: partition.partition_max_bytes,
            leader_epoch: partition.current_leader_epoch,
        }));
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        forgotten.extend(topic.partitions.iter().map(|index| key(&topic.topic, topic.topic_id, *index)));
    }
    Asked { session: request.session_id, epoch: request.session_epoch, wanted, forgotten, by_id }
}

fn session_code(error: SessionError) -> ErrorCode {
    match error {
        SessionError::NotFound => ErrorCode::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
        SessionError::TopicIds => ErrorCode::FetchSessionTopicIdError,
    }
}

fn target(node: &Node, wanted: Wanted) -> Target {
    let topic = match &wanted.key.topic {
        TopicKey::Id(id) => node.partitions.topic_by_id(*id).ok_or(ErrorCode::UnknownTopicId),
        TopicKey::Name(name) => node.partitions.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
    };
    let place = topic.and_then(|topic| {
        topic.partition(wanted.key.partition).cloned().ok_or(ErrorCode::UnknownTopicOrPartition)
    });
    Target { wanted, place }
}

fn answer(
    node: &Node,
    session: Session,
    by_id: bool,
    targets: Vec<Target>,
    partitions: Vec<PartitionData>,
) -> FetchResponse {
    let answered = targets.into_iter().map(|target| target.wanted).zip(partitions);
    let (session_id, told) = match session {
        Session::None => (NO_SESSION, answered.collect()),
        Session::Open => {
            let answered: Vec<_> = answered.collect();
            let all = answered.iter().map(|(wanted, data)| (wanted.clone(), seen(data)));
            let now = node.clock.now();
            (node.fetch_sessions.lock().open(all, by_id, fresh_id, now), answered)
        }
        Session::GoesOn(id) => {
            let answered: Vec<_> = answered.collect();
            let all = answered.iter().map(|(wanted, data)| (&wanted.key, seen(data)));
            let changed = node.fetch_sessions.lock().changed(id, all);
            let told = answered.into_iter().zip(changed).filter(|(_, changed)| *changed);
            (id, told.map(|(one, _)| one).collect())
        }
    };
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut last: Option<TopicKey> = None;
    for (wanted, data) in told {
        let topic = wanted.key.topic;
        if last.as_ref() != Some(&topic) {
            let mut answer = FetchableTopicResponse::default();
            match &topic {
                TopicKey::Name(name) => answer.topic = name.clone(),
                TopicKey::Id(id) => answer.topic_id = *id,
            }
            responses.push(answer);
            last = Some(topic);
        }
        if let Some(response) = responses.last_mut() {
            response.partitions.push(data);
        }
    }
    FetchResponse { session_id, responses, ..FetchResponse::default() }
}

fn seen(data: &PartitionData) -> Seen {
    Seen {
        error: data.error_code != 0,
        has_records: data.records.as_ref().is_some_and(|records| !records.is_empty()),
        high_watermark: data.high_watermark,
        log_start: data.log_start_offset,
    }
}

/// A number that other clients do not guess.
fn fresh_id() -> i32 {
    let (high, ..) = Uuid::new_v4().as_fields();
    i32::try_from(high >> 1).unwrap_or(1)
}

async fn look(targets: &[Target], most: usize, committed_only: bool) -> Pass {
    let mut pass = Pass { bytes: 0, failed: false, partitions: Vec::with_capacity(targets.len()) };
    for target in targets {
        let data = look_at(target, most, committed_only, &mut pass).await;
        pass.partitions.push(data);
    }
    pass
}

async fn look_at(target: &Target, most: usize, committed_only: bool, pass: &mut Pass) -> PartitionData {
    let mut data = PartitionData {
        partition_index: target.wanted.key.partition,
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
    let read = match replica.check_epoch(target.wanted.leader_epoch) {
        // The first batch comes even if it is larger than the limit; otherwise the client would be stuck.
        Ok(()) if room > 0 || pass.bytes == 0 => {
            let most = usize::try_from(target.wanted.max_bytes).unwrap_or(0).min(room);
            read(replica, target.wanted.offset, most).await
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
    targets: &'a [Target],
    waiter: Arc<Waiter>,
}

impl<'a> Watch<'a> {
    fn new(targets: &'a [Target]) -> Self {
        let watch = Self { targets, waiter: Arc::new(Waiter::default()) };
        watch.replicas().for_each(|replica| replica.watch(&watch.waiter));
        watch
    }

    fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.targets.iter().filter_map(|target| target.place.as_ref().ok())
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.replicas().for_each(|replica| replica.unwatch(&self.waiter));
    }
}
