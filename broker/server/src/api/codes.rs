//! Our errors as Kafka's error codes: one exhaustive match each.

use aqueduct_wire::error_code::ErrorCode;

use crate::coord::CoordError;
use crate::coord::group::GroupError;
use crate::meta::controller::Refusal;
use crate::meta::{ChangeError, MetaError};
use crate::partition::{AppendError, FetchError};

/// Never `UNKNOWN_SERVER_ERROR`: clients answer that one with duplicates (KAFKA-14034).
pub(super) fn append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader => ErrorCode::NotLeaderOrFollower,
        AppendError::Storage(_) => ErrorCode::KafkaStorageError,
        AppendError::OutOfOrderSequence(_) => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch(_) => ErrorCode::InvalidProducerEpoch,
        AppendError::NotEnoughReplicas(_) => ErrorCode::NotEnoughReplicas,
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::Corrupt(_) => ErrorCode::CorruptMessage,
        AppendError::InvalidRecord(_) => ErrorCode::InvalidRecord,
        AppendError::InvalidTimestamp(_) => ErrorCode::InvalidTimestamp,
        AppendError::OldFormat(_) => ErrorCode::UnsupportedForMessageFormat,
        AppendError::Transactional => ErrorCode::InvalidTxnState,
    }
}

pub(super) fn fetch(error: &FetchError) -> ErrorCode {
    match error {
        FetchError::OutOfRange(_) => ErrorCode::OffsetOutOfRange,
        FetchError::FencedEpoch => ErrorCode::FencedLeaderEpoch,
        FetchError::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
        FetchError::NotLeader => ErrorCode::NotLeaderOrFollower,
        FetchError::Storage(_) => ErrorCode::KafkaStorageError,
    }
}

pub(super) fn coord(error: CoordError) -> ErrorCode {
    match error {
        CoordError::Group(error) => group(error),
        CoordError::Loading => ErrorCode::CoordinatorLoadInProgress,
        CoordError::NotCoordinator => ErrorCode::NotCoordinator,
        CoordError::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        CoordError::Stopping => ErrorCode::CoordinatorNotAvailable,
    }
}

pub(super) fn group(error: GroupError) -> ErrorCode {
    match error {
        GroupError::CoordinatorNotAvailable | GroupError::Storage => ErrorCode::CoordinatorNotAvailable,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidSessionTimeout => ErrorCode::InvalidSessionTimeout,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::MemberIdRequired => ErrorCode::MemberIdRequired,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::GroupMaxSizeReached => ErrorCode::GroupMaxSizeReached,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        GroupError::OffsetMetadataTooLarge => ErrorCode::OffsetMetadataTooLarge,
    }
}

pub(super) fn change(error: &ChangeError) -> ErrorCode {
    match error {
        ChangeError::Refused(refusal) => refused(refusal),
        ChangeError::Meta(error) => match error {
            MetaError::Outdated | MetaError::NotLeader => ErrorCode::NotController,
            MetaError::DiskFull
            | MetaError::Stopped(_)
            | MetaError::VoterWithoutLog(_)
            | MetaError::Decode(_)
            | MetaError::Log(_) => ErrorCode::KafkaStorageError,
        },
        ChangeError::Log(_) => ErrorCode::KafkaStorageError,
    }
}

fn refused(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::InvalidTopic(_) | Refusal::TopicCollision(..) | Refusal::Internal(_) => {
            ErrorCode::InvalidTopicException
        }
        Refusal::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        Refusal::UnknownTopic(_) => ErrorCode::UnknownTopicOrPartition,
        Refusal::UnknownTopicId(_) => ErrorCode::UnknownTopicId,
        Refusal::InvalidPartitions(..) => ErrorCode::InvalidPartitions,
        Refusal::InvalidReplicationFactor(..) => ErrorCode::InvalidReplicationFactor,
        Refusal::InvalidAssignment(_) => ErrorCode::InvalidReplicaAssignment,
        Refusal::InvalidConfig(_) => ErrorCode::InvalidConfig,
        Refusal::InvalidRequest(_) => ErrorCode::InvalidRequest,
        Refusal::ProducerIdsExhausted => ErrorCode::CoordinatorNotAvailable,
        Refusal::NodeIdTaken(_) => ErrorCode::DuplicateBrokerRegistration,
    }
}
