//! Where the error codes of an answer stand, to be counted.

use aqueduct_wire::messages::*;

/// An answer that holds error codes.
pub(crate) trait ErrorCodes {
    /// Calls with each of them, zeros included.
    fn each_code(&self, tell: &mut dyn FnMut(i16));
}

macro_rules! error_codes {
    ($($answer:ident: |$it:ident, $tell:ident| $body:block)*) => {
        $(impl ErrorCodes for $answer {
            fn each_code(&self, $tell: &mut dyn FnMut(i16)) {
                let $it = self;
                $body
            }
        })*
    };
}

error_codes! {
    ApiVersionsResponse: |it, tell| { tell(it.error_code); }
    CreatePartitionsResponse: |it, tell| { it.results.iter().for_each(|one| tell(one.error_code)); }
    CreateTopicsResponse: |it, tell| { it.topics.iter().for_each(|one| tell(one.error_code)); }
    DeleteGroupsResponse: |it, tell| { it.results.iter().for_each(|one| tell(one.error_code)); }
    DeleteRecordsResponse: |it, tell| {
        it.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| tell(one.error_code));
    }
    DeleteTopicsResponse: |it, tell| { it.responses.iter().for_each(|one| tell(one.error_code)); }
    DescribeAclsResponse: |it, tell| { tell(it.error_code); }
    DescribeLogDirsResponse: |it, tell| {
        tell(it.error_code);
        it.results.iter().for_each(|one| tell(one.error_code));
    }
    DescribeTopicPartitionsResponse: |it, tell| {
        for topic in &it.topics {
            tell(topic.error_code);
            topic.partitions.iter().for_each(|one| tell(one.error_code));
        }
    }
    ElectLeadersResponse: |it, tell| {
        tell(it.error_code);
        let results = it.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
        results.for_each(|one| tell(one.error_code));
    }
    ListPartitionReassignmentsResponse: |it, tell| { tell(it.error_code); }
    OffsetDeleteResponse: |it, tell| {
        tell(it.error_code);
        it.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| tell(one.error_code));
    }
    DescribeClusterResponse: |it, tell| { tell(it.error_code); }
    DescribeConfigsResponse: |it, tell| { it.results.iter().for_each(|one| tell(one.error_code)); }
    DescribeGroupsResponse: |it, tell| { it.groups.iter().for_each(|one| tell(one.error_code)); }
    FetchResponse: |it, tell| {
        tell(it.error_code);
        it.responses.iter().flat_map(|topic| &topic.partitions).for_each(|one| tell(one.error_code));
    }
    FindCoordinatorResponse: |it, tell| {
        tell(it.error_code);
        it.coordinators.iter().for_each(|one| tell(one.error_code));
    }
    HeartbeatResponse: |it, tell| { tell(it.error_code); }
    IncrementalAlterConfigsResponse: |it, tell| { it.responses.iter().for_each(|one| tell(one.error_code)); }
    InitProducerIdResponse: |it, tell| { tell(it.error_code); }
    JoinGroupResponse: |it, tell| { tell(it.error_code); }
    LeaveGroupResponse: |it, tell| {
        tell(it.error_code);
        it.members.iter().for_each(|one| tell(one.error_code));
    }
    ListGroupsResponse: |it, tell| { tell(it.error_code); }
    ListOffsetsResponse: |it, tell| {
        it.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| tell(one.error_code));
    }
    MetadataResponse: |it, tell| {
        for topic in &it.topics {
            tell(topic.error_code);
            topic.partitions.iter().for_each(|one| tell(one.error_code));
        }
    }
    OffsetCommitResponse: |it, tell| {
        it.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| tell(one.error_code));
    }
    OffsetFetchResponse: |it, tell| {
        tell(it.error_code);
        it.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| tell(one.error_code));
        for group in &it.groups {
            tell(group.error_code);
            group.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| tell(one.error_code));
        }
    }
    OffsetForLeaderEpochResponse: |it, tell| {
        it.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| tell(one.error_code));
    }
    ProduceResponse: |it, tell| {
        it.responses.iter().flat_map(|topic| &topic.partition_responses).for_each(|one| tell(one.error_code));
    }
    SyncGroupResponse: |it, tell| { tell(it.error_code); }
}
