//! What a single node without access control has none of: reassignments, elections, access control lists. Tools ask for
//! them and go by the answer.

use aqueduct_wire::error_code::ErrorCode;
use aqueduct_wire::messages::{
    DescribeAclsRequest, DescribeAclsResponse, ElectLeadersRequest, ElectLeadersResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, PartitionResult,
    ReplicaElectionResult,
};

use super::Ask;
use crate::node::Node;

/// No partition is ever moved: there is nowhere else.
pub(super) fn list_partition_reassignments(
    _node: &Node,
    _ask: &Ask,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}

pub(super) fn describe_acls(_node: &Node, _ask: &Ask, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled as i16,
        error_message: Some("this broker has no access control lists".into()),
        ..DescribeAclsResponse::default()
    }
}

/// The only replica leads already. As in Kafka, a request for all partitions names none that needs no election.
pub(super) fn elect_leaders(node: &Node, _ask: &Ask, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let image = node.meta.image();
    let result = |topic: &str, index: i32| {
        let count = image.topic(topic).map_or(0, |topic| topic.partitions.len());
        let (code, message) = if usize::try_from(index).is_ok_and(|index| index < count) {
            (ErrorCode::ElectionNotNeeded, "the preferred replica leads already")
        } else {
            (ErrorCode::UnknownTopicOrPartition, "there is no such partition")
        };
        PartitionResult { partition_id: index, error_code: code as i16, error_message: Some(message.into()) }
    };
    let named = request.topic_partitions.unwrap_or_default();
    let topic = |named: aqueduct_wire::messages::ElectLeadersTopicPartitions| ReplicaElectionResult {
        partition_result: named.partitions.iter().map(|index| result(&named.topic, *index)).collect(),
        topic: named.topic,
    };
    ElectLeadersResponse {
        replica_election_results: named.into_iter().map(topic).collect(),
        ..ElectLeadersResponse::default()
    }
}
