//! A valid request of every API, such that most of it is reached: the topics and groups it names are there.
//!
//! **Invariant:** an API that is advertised and has no request here is an error.

use anyhow::{Context as _, Result, ensure};
use aqueduct_tests::raw::{self, Raw};
use aqueduct_wire::messages::*;
use aqueduct_wire::{Uuid, Writer};
use bytes::Bytes;

/// The topic and the group that the requests are about.
pub(super) const TOPIC: &str = "attacked";
const GROUP: &str = "attackers";

/// Every API and version that the broker advertises, as a frame without its length.
pub(super) fn all(kafka: &str) -> Result<Vec<Bytes>> {
    let mut client = Raw::connect(kafka)?;
    let topic_id = topic_id(&mut client)?;
    let served = client.call(3, &ApiVersionsRequest::default())?;
    ensure!(served.api_keys.len() > 20, "few APIs are served: {:?}", served.api_keys);
    let mut frames = Vec::new();
    for range in served.api_keys {
        let api = ApiKey::from_code(range.api_key).context("an unknown API is advertised")?;
        let request =
            request(api, topic_id).with_context(|| format!("add a request of {api:?} to this file"))?;
        // Produce is advertised from 0 on for the sake of old clients, but not served.
        for version in range.min_version.max(*api.versions().start())..=range.max_version {
            frames.push(frame(&request, version).with_context(|| format!("{api:?} v{version}"))?);
        }
    }
    Ok(frames)
}

fn topic_id(client: &mut Raw) -> Result<Uuid> {
    let topics = Some(vec![MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() }]);
    let answer = client.call(12, &MetadataRequest { topics, ..Default::default() })?;
    Ok(answer.topics.first().context("the topic is not there")?.topic_id)
}

fn frame(request: &Request, version: i16) -> Result<Bytes> {
    let api = request.api_key();
    let mut w = Writer::new();
    w.i16(api.code());
    w.i16(version);
    w.i32(1);
    w.string("attacker", false)?;
    if api.is_flexible(version) {
        w.uvarint(0);
    }
    request.encode(&mut w, version)?;
    Ok(w.into_bytes())
}

/// The families each know their own APIs.
fn request(api: ApiKey, topic_id: Uuid) -> Option<Request> {
    of_records(api, topic_id)
        .or_else(|| of_positions(api, topic_id))
        .or_else(|| of_groups(api))
        .or_else(|| of_transactions(api))
        .or_else(|| that_changes(api))
        .or_else(|| that_asks(api, topic_id))
}

fn of_records(api: ApiKey, topic_id: Uuid) -> Option<Request> {
    Some(match api {
        ApiKey::Produce => {
            let mut request = raw::produce(TOPIC, 0, super::batch(b"some value of a record"));
            request.topic_data[0].topic_id = topic_id;
            request.into()
        }
        ApiKey::Fetch => {
            let mut request = raw::fetch(TOPIC, 0, 0);
            request.topics[0].topic_id = topic_id;
            let forgotten = ForgottenTopic { topic: TOPIC.into(), topic_id, partitions: vec![1] };
            request.forgotten_topics_data = vec![forgotten];
            request.into()
        }
        ApiKey::ListOffsets => {
            let partitions = [-1, -2, -3].map(|timestamp| ListOffsetsPartition { timestamp, ..default() });
            let topics = vec![ListOffsetsTopic { name: TOPIC.into(), partitions: partitions.into() }];
            ListOffsetsRequest { replica_id: -1, topics, ..default() }.into()
        }
        ApiKey::OffsetForLeaderEpoch => {
            let partitions = vec![OffsetForLeaderPartition { leader_epoch: 1, ..default() }];
            let topics = vec![OffsetForLeaderTopic { topic: TOPIC.into(), partitions }];
            OffsetForLeaderEpochRequest { topics, ..default() }.into()
        }
        _ => return None,
    })
}

fn of_positions(api: ApiKey, topic_id: Uuid) -> Option<Request> {
    let (group_id, name) = (GROUP.into(), TOPIC.into());
    Some(match api {
        ApiKey::OffsetCommit => {
            let partitions = vec![OffsetCommitRequestPartition { committed_offset: 7, ..default() }];
            let topics = vec![OffsetCommitRequestTopic { name, topic_id, partitions }];
            OffsetCommitRequest { group_id, topics, ..default() }.into()
        }
        ApiKey::OffsetFetch => {
            let topics =
                Some(vec![OffsetFetchRequestTopic { name: TOPIC.into(), partition_indexes: vec![0] }]);
            let all = vec![OffsetFetchRequestTopics { name, topic_id, partition_indexes: vec![0, 1] }];
            let group = OffsetFetchRequestGroup { group_id: GROUP.into(), topics: Some(all), ..default() };
            OffsetFetchRequest { group_id, topics, groups: vec![group], ..default() }.into()
        }
        ApiKey::OffsetDelete => {
            let partitions = vec![OffsetDeleteRequestPartition { partition_index: 0 }];
            OffsetDeleteRequest { group_id, topics: vec![OffsetDeleteRequestTopic { name, partitions }] }
                .into()
        }
        _ => return None,
    })
}

fn of_groups(api: ApiKey) -> Option<Request> {
    let group_id = GROUP.into();
    Some(match api {
        ApiKey::FindCoordinator => {
            FindCoordinatorRequest { key: GROUP.into(), coordinator_keys: vec![group_id], ..default() }.into()
        }
        ApiKey::JoinGroup => {
            let metadata = Bytes::from_static(b"\0\0\0\0\0\x01\0\x08attacked\0\0\0\0");
            let protocols = vec![JoinGroupRequestProtocol { name: "range".into(), metadata }];
            let (session_timeout_ms, rebalance_timeout_ms) = (6000, 10);
            let protocol_type = "consumer".into();
            JoinGroupRequest {
                group_id,
                session_timeout_ms,
                rebalance_timeout_ms,
                protocol_type,
                protocols,
                ..default()
            }
            .into()
        }
        ApiKey::SyncGroup => {
            let assignment = Bytes::from_static(b"\0\0\0\0\0\0");
            let assignments = vec![SyncGroupRequestAssignment { member_id: "member".into(), assignment }];
            SyncGroupRequest { group_id, member_id: "member".into(), assignments, ..default() }.into()
        }
        ApiKey::Heartbeat => HeartbeatRequest { group_id, member_id: "member".into(), ..default() }.into(),
        ApiKey::LeaveGroup => {
            let members = vec![MemberIdentity { member_id: "member".into(), ..default() }];
            LeaveGroupRequest { group_id, member_id: "member".into(), members }.into()
        }
        ApiKey::DescribeGroups => DescribeGroupsRequest { groups: vec![group_id], ..default() }.into(),
        ApiKey::ListGroups => ListGroupsRequest { states_filter: vec!["Empty".into()], ..default() }.into(),
        ApiKey::DeleteGroups => DeleteGroupsRequest { groups_names: vec![group_id] }.into(),
        ApiKey::ConsumerGroupHeartbeat => {
            let subscribed_topic_names = Some(vec![TOPIC.into()]);
            let member_id = "member".into();
            ConsumerGroupHeartbeatRequest { group_id, member_id, subscribed_topic_names, ..default() }.into()
        }
        ApiKey::ConsumerGroupDescribe => {
            ConsumerGroupDescribeRequest { group_ids: vec![group_id], ..default() }.into()
        }
        _ => return None,
    })
}

fn of_transactions(api: ApiKey) -> Option<Request> {
    let (transactional_id, group_id) = ("transaction".into(), GROUP.into());
    Some(match api {
        ApiKey::InitProducerId => {
            InitProducerIdRequest { transactional_id: None, transaction_timeout_ms: 1000, ..default() }.into()
        }
        ApiKey::AddPartitionsToTxn => {
            let topic = AddPartitionsToTxnTopic { name: TOPIC.into(), partitions: vec![0, 1] };
            let topics = vec![topic.clone()];
            AddPartitionsToTxnRequest {
                transactions: vec![AddPartitionsToTxnTransaction { transactional_id, topics, ..default() }],
                v3_and_below_transactional_id: "transaction".into(),
                v3_and_below_topics: vec![topic],
                ..default()
            }
            .into()
        }
        ApiKey::AddOffsetsToTxn => AddOffsetsToTxnRequest { transactional_id, group_id, ..default() }.into(),
        ApiKey::EndTxn => EndTxnRequest { transactional_id, ..default() }.into(),
        ApiKey::WriteTxnMarkers => {
            let topics = vec![WritableTxnMarkerTopic { name: TOPIC.into(), partition_indexes: vec![0] }];
            WriteTxnMarkersRequest { markers: vec![WritableTxnMarker { topics, ..default() }] }.into()
        }
        ApiKey::TxnOffsetCommit => {
            let partitions = vec![TxnOffsetCommitRequestPartition { committed_offset: 7, ..default() }];
            let topics = vec![TxnOffsetCommitRequestTopic { name: TOPIC.into(), partitions }];
            TxnOffsetCommitRequest { transactional_id, group_id, topics, ..default() }.into()
        }
        _ => return None,
    })
}

/// Topics are only checked, not made or deleted, so that the next frames find what they name.
fn that_changes(api: ApiKey) -> Option<Request> {
    let name = TOPIC.into();
    Some(match api {
        ApiKey::CreateTopics => {
            let configs =
                vec![CreatableTopicConfig { name: "retention.ms".into(), value: Some("1000".into()) }];
            let topic = CreatableTopic {
                name: "another".into(),
                num_partitions: 1,
                replication_factor: 1,
                configs,
                ..default()
            };
            CreateTopicsRequest { topics: vec![topic], validate_only: true, ..default() }.into()
        }
        ApiKey::DeleteTopics => {
            let topics = vec![DeleteTopicState { name: Some("nowhere".into()), ..default() }];
            DeleteTopicsRequest { topics, topic_names: vec!["nowhere".into()], timeout_ms: 100 }.into()
        }
        ApiKey::DeleteRecords => {
            let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 0 }];
            let topics = vec![DeleteRecordsTopic { name, partitions }];
            DeleteRecordsRequest { topics, timeout_ms: 100 }.into()
        }
        ApiKey::CreatePartitions => {
            let assignments = Some(vec![CreatePartitionsAssignment { broker_ids: vec![0] }]);
            let topics = vec![CreatePartitionsTopic { name, count: 3, assignments }];
            CreatePartitionsRequest { topics, timeout_ms: 100, validate_only: true }.into()
        }
        ApiKey::IncrementalAlterConfigs => {
            let value = Some("100000".into());
            let config = AlterableConfig { name: "retention.ms".into(), config_operation: 0, value };
            let resource =
                AlterConfigsResource { resource_type: 2, resource_name: name, configs: vec![config] };
            IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }.into()
        }
        _ => return None,
    })
}

fn that_asks(api: ApiKey, topic_id: Uuid) -> Option<Request> {
    let name = TOPIC.into();
    Some(match api {
        ApiKey::Metadata => {
            let topics = Some(vec![MetadataRequestTopic { topic_id, name: Some(name) }]);
            MetadataRequest { topics, allow_auto_topic_creation: false, ..default() }.into()
        }
        ApiKey::SaslHandshake => SaslHandshakeRequest { mechanism: "PLAIN".into() }.into(),
        ApiKey::SaslAuthenticate => {
            SaslAuthenticateRequest { auth_bytes: Bytes::from_static(b"\0user\0password") }.into()
        }
        ApiKey::ApiVersions => {
            let (client_software_name, client_software_version) = ("attacker".into(), "1".into());
            ApiVersionsRequest { client_software_name, client_software_version }.into()
        }
        ApiKey::DescribeConfigs => {
            let configuration_keys = Some(vec!["retention.ms".into()]);
            let resources =
                vec![DescribeConfigsResource { resource_type: 2, resource_name: name, configuration_keys }];
            DescribeConfigsRequest { resources, ..default() }.into()
        }
        ApiKey::DescribeAcls => DescribeAclsRequest { resource_type_filter: 1, ..default() }.into(),
        ApiKey::DescribeLogDirs => {
            let topics = Some(vec![DescribableLogDirTopic { topic: name, partitions: vec![0, 1] }]);
            DescribeLogDirsRequest { topics }.into()
        }
        ApiKey::ElectLeaders => {
            let topic_partitions =
                Some(vec![ElectLeadersTopicPartitions { topic: name, partitions: vec![0] }]);
            ElectLeadersRequest { topic_partitions, ..default() }.into()
        }
        ApiKey::ListPartitionReassignments => {
            let topics = Some(vec![ListPartitionReassignmentsTopics { name, partition_indexes: vec![0] }]);
            ListPartitionReassignmentsRequest { topics, ..default() }.into()
        }
        ApiKey::DescribeCluster => DescribeClusterRequest { endpoint_type: 1, ..default() }.into(),
        ApiKey::DescribeTopicPartitions => {
            let cursor = Some(PartitionCursor { topic_name: TOPIC.into(), partition_index: 0 });
            let topics = vec![TopicRequest { name }];
            DescribeTopicPartitionsRequest { topics, response_partition_limit: 10, cursor }.into()
        }
        _ => return None,
    })
}

fn default<T: Default>() -> T {
    T::default()
}
