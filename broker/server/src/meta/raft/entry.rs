//! The stored form of raft's entries, votes, log ids and memberships.
//! Invariant: hand-made and versioned, so that another openraft reads what this one wrote.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{BasicNode, CommittedLeaderId, EntryPayload, LeaderId};

use super::{Entry, LogId, Membership, Proposal, StoredMembership, Vote};
use crate::meta::encoding::{DecodeError, Decoder, Encoder};

const VERSION: u8 = 1;

// Stored.
const BLANK: u8 = 0;
const PROPOSAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Encoder::default();
    out.u8(VERSION);
    encode_log_id(&mut out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.u8(BLANK),
        EntryPayload::Normal(proposal) => {
            out.u8(PROPOSAL);
            out.u64(proposal.based_on);
            out.bytes(&proposal.records);
        }
        EntryPayload::Membership(membership) => {
            out.u8(MEMBERSHIP);
            encode_membership(&mut out, membership);
        }
    }
    out.0
}

pub(super) fn decode_entry(bytes: &[u8]) -> Result<Entry, DecodeError> {
    let mut input = Decoder(bytes);
    check_version(input.u8()?)?;
    let log_id = decode_log_id(&mut input)?;
    let payload = match input.u8()? {
        BLANK => EntryPayload::Blank,
        PROPOSAL => {
            EntryPayload::Normal(Proposal { based_on: input.u64()?, records: input.bytes()?.to_vec() })
        }
        MEMBERSHIP => EntryPayload::Membership(decode_membership(&mut input)?),
        kind => return Err(DecodeError::Unknown { kind, version: VERSION }),
    };
    input.finish()?;
    Ok(Entry { log_id, payload })
}

fn check_version(found: u8) -> Result<(), DecodeError> {
    if found > VERSION { Err(DecodeError::Newer { found, supported: VERSION }) } else { Ok(()) }
}

pub(super) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let mut out = Encoder::default();
    out.u64(vote.leader_id.term);
    out.u64(vote.leader_id.node_id);
    out.u8(u8::from(vote.committed));
    out.0
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    let mut input = Decoder(bytes);
    let leader_id = LeaderId::new(input.u64()?, input.u64()?);
    let committed = input.u8()? != 0;
    input.finish()?;
    Ok(Vote { leader_id, committed })
}

pub(super) fn encode_log_id(out: &mut Encoder, id: &LogId) {
    out.u64(id.leader_id.term);
    out.u64(id.leader_id.node_id);
    out.u64(id.index);
}

pub(super) fn decode_log_id(input: &mut Decoder<'_>) -> Result<LogId, DecodeError> {
    let leader = CommittedLeaderId::new(input.u64()?, input.u64()?);
    Ok(LogId::new(leader, input.u64()?))
}

fn encode_membership(out: &mut Encoder, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.u32(short(configs.len()));
    for config in configs {
        out.u32(short(config.len()));
        for id in config {
            out.u64(*id);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.u32(short(nodes.len()));
    for (id, node) in nodes {
        out.u64(*id);
        out.string(&node.addr);
    }
}

fn short(length: usize) -> u32 {
    u32::try_from(length).expect("a cluster has few nodes")
}

fn decode_membership(input: &mut Decoder<'_>) -> Result<Membership, DecodeError> {
    let mut configs = Vec::new();
    for _ in 0..input.u32()? {
        let mut config = BTreeSet::new();
        for _ in 0..input.u32()? {
            config.insert(input.u64()?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..input.u32()? {
        let id = input.u64()?;
        nodes.insert(id, BasicNode::new(input.string()?));
    }
    Ok(Membership::new(configs, nodes))
}

pub(super) fn encode_stored_membership(out: &mut Encoder, stored: &StoredMembership) {
    out.option(stored.log_id().as_ref(), encode_log_id);
    encode_membership(out, stored.membership());
}

pub(super) fn decode_stored_membership(input: &mut Decoder<'_>) -> Result<StoredMembership, DecodeError> {
    let log_id = input.option(decode_log_id)?;
    Ok(StoredMembership::new(log_id, decode_membership(input)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(3, 9), index)
    }

    #[test]
    fn entries_and_votes_round_trip() {
        let nodes = BTreeMap::from([(9, BasicNode::new("localhost:1"))]);
        let membership = Membership::new(vec![BTreeSet::from([9])], nodes);
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Proposal { based_on: 4, records: vec![1, 2] }),
            EntryPayload::Membership(membership),
        ];
        for payload in payloads {
            let entry = Entry { log_id: id(5), payload };
            assert_eq!(decode_entry(&encode_entry(&entry)).expect("decodes"), entry);
        }
        let vote = Vote { leader_id: LeaderId::new(2, 9), committed: true };
        assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
    }
}
