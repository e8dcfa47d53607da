//! Who may commit offsets for a group, and which may be deleted.

use std::collections::BTreeSet;

use bytes::Bytes;

use aqueduct_wire::Reader;
use aqueduct_wire::message::Message;
use aqueduct_wire::messages::ConsumerProtocolSubscription;

use super::{Group, GroupError, State};

/// The protocol type of consumers, whose metadata say which topics they read.
const CONSUMER: &str = "consumer";

impl Group {
    /// Checks a commit and counts it as a sign of life. A negative generation comes from a client that assigns
    /// partitions itself; it may commit only while the group has no members.
    pub fn check_commit(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: i64,
    ) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation >= 0 || !member_id.is_empty() || instance_id.is_some() {
            self.check_member(member_id, instance_id)?;
        }
        if generation < 0 {
            return Err(GroupError::UnknownMemberId);
        }
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            State::Stable | State::PreparingRebalance => {
                self.touch(member_id, now);
                Ok(())
            }
        }
    }

    /// Checks which topics' offsets may be deleted (KIP-496): none that a member reads.
    pub fn check_offset_deletion<'a>(
        &self,
        topics: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::GroupIdNotFound);
        }
        if !self.members.is_empty() && self.protocol_type() != CONSUMER {
            return Err(GroupError::NonEmptyGroup);
        }
        let read = self.subscribed();
        let free = |topic: &str| match &read {
            Some(read) if !read.contains(topic) => Ok(()),
            Some(_) | None => Err(GroupError::SubscribedToTopic),
        };
        Ok(topics.map(free).collect())
    }

    /// The topics that the members read; `None` if one does not say.
    fn subscribed(&self) -> Option<BTreeSet<String>> {
        let mut topics = BTreeSet::new();
        for member in &self.members {
            let metadata = match &self.protocol {
                Some(protocol) => member.metadata(protocol),
                None => member.protocols.first()?.1.clone(),
            };
            topics.extend(subscription(metadata)?.topics.iter().map(ToString::to_string));
        }
        Some(topics)
    }
}

fn subscription(metadata: Bytes) -> Option<ConsumerProtocolSubscription> {
    let mut reader = Reader::new(metadata);
    let version = reader.i16().ok()?.min(*ConsumerProtocolSubscription::VERSIONS.end());
    ConsumerProtocolSubscription::decode(&mut reader, version).ok()
}
