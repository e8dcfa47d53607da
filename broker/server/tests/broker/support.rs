//! What the tests ask for again and again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_broker::{Broker, BrokerConfig, Handle};
use aqueduct_log::MemDisk;
use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::*;
use aqueduct_wire::record_set::RecordSet;
use aqueduct_wire::{BatchBuilder, Bytes};

use crate::client::Client;

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn config(dir: &Path) -> BrokerConfig {
    let listen = "127.0.0.1:0".parse().expect("an address");
    BrokerConfig { data_dir: dir.to_owned(), listen, ..BrokerConfig::default() }
}

pub(crate) async fn start(dir: &Path) -> Handle {
    Broker::start(config(dir)).await.expect("the broker starts")
}

pub(crate) async fn start_on(disk: &MemDisk) -> Handle {
    Broker::start_on(Arc::new(disk.clone()), config(Path::new("/d"))).await.expect("the broker starts")
}

pub(crate) fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code)
}

pub(crate) fn batch(values: &[&str], producer: Option<(i64, i16, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new();
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = i64::try_from(now.as_millis()).expect("fits");
    for value in values {
        builder.append(now, Some(b"key"), Some(value.as_bytes()), &[]);
    }
    builder.build().expect("builds")
}

pub(crate) async fn create(
    client: &mut Client,
    name: &str,
    configs: &[(&str, &str)],
) -> CreatableTopicResult {
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some((*value).into()),
    };
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: -1,
        configs: configs.iter().map(config).collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    client.ask(7, &request).await.topics.remove(0)
}

pub(crate) async fn produce(
    client: &mut Client,
    topic: &str,
    records: Bytes,
    acks: i16,
) -> PartitionProduceResponse {
    let request = produce_request(topic, records, acks);
    client.ask(9, &request).await.responses.remove(0).partition_responses.remove(0)
}

pub(crate) fn produce_request(topic: &str, records: Bytes, acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData { index: 0, records: Some(RecordSet::from(records)) };
    let topic = TopicProduceData {
        name: topic.into(),
        partition_data: vec![partition],
        ..TopicProduceData::default()
    };
    ProduceRequest { acks, timeout_ms: 5000, topic_data: vec![topic], ..ProduceRequest::default() }
}

pub(crate) fn fetch_request(topic: &str, offset: i64, max_wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition {
        partition: 0,
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = FetchTopic { topic: topic.into(), partitions: vec![partition], ..FetchTopic::default() };
    FetchRequest { max_wait_ms, min_bytes: 1, topics: vec![topic], ..FetchRequest::default() }
}

pub(crate) async fn fetch(client: &mut Client, topic: &str, offset: i64) -> PartitionData {
    client.ask(11, &fetch_request(topic, offset, 0)).await.responses.remove(0).partitions.remove(0)
}

/// All values from `offset` on, by their offsets.
pub(crate) fn values(data: &PartitionData) -> Vec<(i64, String)> {
    let mut values = Vec::new();
    for batch in data.records.as_ref().expect("records").batches() {
        for record in batch.expect("a whole batch").records(1 << 20).expect("reads") {
            let record = record.expect("a whole record");
            let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
            values.push((record.offset, value));
        }
    }
    values
}

pub(crate) fn no_transactions() -> InitProducerIdRequest {
    InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() }
}

pub(crate) fn metadata_request(topic: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic { name: Some(topic.into()), ..MetadataRequestTopic::default() };
    MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    }
}

pub(crate) async fn commit(
    client: &mut Client,
    group: &str,
    member: &str,
    generation: i32,
    offset: i64,
) -> ErrorCode {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: "orders".into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member.into(),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    code(client.ask(8, &request).await.topics[0].partitions[0].error_code)
}

pub(crate) async fn committed(client: &mut Client, group: &str) -> i64 {
    let topic = OffsetFetchRequestTopic { name: "orders".into(), partition_indexes: vec![0] };
    let request = OffsetFetchRequest {
        group_id: group.into(),
        topics: Some(vec![topic]),
        ..OffsetFetchRequest::default()
    };
    let fetched = client.ask(7, &request).await;
    assert_eq!(code(fetched.error_code), ErrorCode::None);
    fetched.topics[0].partitions[0].committed_offset
}

pub(crate) async fn join(client: &mut Client, group: &str, protocol_type: &str) -> JoinGroupResponse {
    let protocol =
        JoinGroupRequestProtocol { name: "default".into(), metadata: Bytes::from_static(b"subscription") };
    let mut request = JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: protocol_type.into(),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    };
    let first = client.ask(5, &request).await;
    assert_eq!(code(first.error_code), ErrorCode::MemberIdRequired);
    request.member_id = first.member_id;
    client.ask(5, &request).await
}

/// Deletes a topic, if it is there.
pub(crate) async fn delete(client: &mut Client, name: &str) {
    let request = DeleteTopicsRequest { topic_names: vec![name.into()], ..DeleteTopicsRequest::default() };
    client.ask(5, &request).await;
}
