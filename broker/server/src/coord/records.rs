//! Kafka's records of `__consumer_offsets`, made of and into a shard's changes.
//! Invariant: the formats are Kafka's, so the topic can be read by its tools; what this build does not know is passed
//! over, never misread.

use bytes::Bytes;

use aqueduct_wire::message::VersionedRecord;
use aqueduct_wire::messages::{
    GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue,
};
use aqueduct_wire::{BatchBuilder, BatchError, RecordBatch, WireError};

use super::group::{MemberSnapshot, Snapshot};
use super::shard::{Change, Committed, TopicPartition};

/// Versions that are written: the newest that every Kafka since 2.3 reads.
const OFFSET_KEY: i16 = 1;
const OFFSET_VALUE: i16 = 3;
const GROUP_KEY: i16 = 2;
const GROUP_VALUE: i16 = 3;

/// Why a record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// One batch with a record per change, in order.
pub(super) fn encode(changes: &[Change], now: i64) -> Result<RecordBatch, RecordError> {
    let mut builder = BatchBuilder::new();
    for change in changes {
        let (key, value) = encode_one(change)?;
        builder.append(now, Some(&key), value.as_deref(), &[]);
    }
    let mut bytes = builder.build()?;
    Ok(RecordBatch::parse(&mut bytes)?)
}

fn encode_one(change: &Change) -> Result<(Bytes, Option<Bytes>), WireError> {
    match change {
        Change::Offset { group, at, committed } => {
            let key = OffsetCommitKey {
                group: group.as_str().into(),
                topic: at.topic.as_str().into(),
                partition: at.partition,
            };
            let value = committed.as_ref().map(|committed| OffsetCommitValue {
                offset: committed.offset,
                leader_epoch: committed.leader_epoch,
                metadata: committed.metadata.as_str().into(),
                commit_timestamp: committed.commit_time,
                ..OffsetCommitValue::default()
            });
            let value = value.map(|value| value.to_versioned(OFFSET_VALUE)).transpose()?;
            Ok((key.to_versioned(OFFSET_KEY)?, value))
        }
        Change::Group { group, snapshot } => {
            let key = GroupMetadataKey { group: group.as_str().into() };
            let value = snapshot.as_ref().map(group_value);
            let value = value.map(|value| value.to_versioned(GROUP_VALUE)).transpose()?;
            Ok((key.to_versioned(GROUP_KEY)?, value))
        }
    }
}

fn group_value(snapshot: &Snapshot) -> GroupMetadataValue {
    let member = |member: &MemberSnapshot| MemberMetadata {
        member_id: member.id.as_str().into(),
        group_instance_id: member.instance_id.as_deref().map(Into::into),
        client_id: member.client_id.as_str().into(),
        client_host: member.client_host.as_str().into(),
        rebalance_timeout: member.rebalance_timeout_ms,
        session_timeout: member.session_timeout_ms,
        subscription: member.subscription.clone(),
        assignment: member.assignment.clone(),
    };
    GroupMetadataValue {
        protocol_type: snapshot.protocol_type.as_str().into(),
        generation: snapshot.generation,
        protocol: snapshot.protocol.as_deref().map(Into::into),
        leader: snapshot.leader.as_deref().map(Into::into),
        current_state_timestamp: snapshot.since,
        members: snapshot.members.iter().map(member).collect(),
    }
}

/// The change a record makes; `None` for kinds that this build does not keep.
pub(super) fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<Option<Change>, WireError> {
    let Some(key) = key else { return Ok(None) };
    let Some(version) = key.first_chunk::<2>() else { return Ok(None) };
    match i16::from_be_bytes(*version) {
        0..=OFFSET_KEY => {
            let key = OffsetCommitKey::from_versioned(key.clone())?;
            let value = value.map(|value| OffsetCommitValue::from_versioned(value.clone())).transpose()?;
            let committed = value.map(|value| Committed {
                offset: value.offset,
                leader_epoch: value.leader_epoch,
                metadata: value.metadata.to_string(),
                commit_time: value.commit_timestamp,
            });
            let at = TopicPartition { topic: key.topic.to_string(), partition: key.partition };
            Ok(Some(Change::Offset { group: key.group.to_string(), at, committed }))
        }
        GROUP_KEY => {
            let key = GroupMetadataKey::from_versioned(key.clone())?;
            let value = value.map(|value| GroupMetadataValue::from_versioned(value.clone())).transpose()?;
            let snapshot = value.map(|value| snapshot(&value));
            Ok(Some(Change::Group { group: key.group.to_string(), snapshot }))
        }
        _ => Ok(None),
    }
}

fn snapshot(value: &GroupMetadataValue) -> Snapshot {
    let member = |member: &MemberMetadata| MemberSnapshot {
        id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_deref().map(str::to_owned),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        rebalance_timeout_ms: member.rebalance_timeout,
        session_timeout_ms: member.session_timeout,
        subscription: member.subscription.clone(),
        assignment: member.assignment.clone(),
    };
    Snapshot {
        protocol_type: value.protocol_type.to_string(),
        generation: value.generation,
        protocol: value.protocol.as_deref().map(str::to_owned),
        leader: value.leader.as_deref().map(str::to_owned),
        since: value.current_state_timestamp,
        members: value.members.iter().map(member).collect(),
    }
}

#[cfg(test)]
mod tests {
    use aqueduct_wire::compression::MAX_DECOMPRESSED;

    use super::*;

    #[test]
    fn changes_survive_the_log() {
        let at = TopicPartition { topic: "orders".to_owned(), partition: 3 };
        let committed =
            Committed { offset: 42, leader_epoch: 7, metadata: "note".to_owned(), commit_time: 1_000 };
        let member = MemberSnapshot {
            id: "m".to_owned(),
            instance_id: Some("one".to_owned()),
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            rebalance_timeout_ms: 30_000,
            session_timeout_ms: 10_000,
            subscription: Bytes::from_static(b"s"),
            assignment: Bytes::from_static(b"a"),
        };
        let snapshot = Snapshot {
            protocol_type: "connect".to_owned(),
            generation: 5,
            protocol: Some("sessioned".to_owned()),
            leader: Some("m".to_owned()),
            since: 99,
            members: vec![member],
        };
        let changes = vec![
            Change::Offset { group: "g".to_owned(), at: at.clone(), committed: Some(committed) },
            Change::Offset { group: "g".to_owned(), at, committed: None },
            Change::Group { group: "g".to_owned(), snapshot: Some(snapshot) },
            Change::Group { group: "g".to_owned(), snapshot: None },
        ];
        let batch = encode(&changes, 1).expect("encodes");
        let records = batch.records(MAX_DECOMPRESSED).expect("reads");
        let decoded = records.map(|record| {
            let record = record.expect("is whole");
            decode(record.key.as_ref(), record.value.as_ref()).expect("decodes").expect("is known")
        });
        assert_eq!(decoded.collect::<Vec<_>>(), changes);
    }

    #[test]
    fn unknown_kinds_are_passed_over() {
        let key = Bytes::from_static(&[0, 9, 1, 2, 3]);
        assert_eq!(decode(Some(&key), None).expect("no error"), None);
        assert_eq!(decode(None, None).expect("no error"), None);
    }
}
