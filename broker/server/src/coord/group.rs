//! One classic consumer group, as a state machine: events in, replies and records to store out.
//! Invariant: pure; time comes with each event, member ids from the caller, and an assignment is handed out only after
//! it has been stored.
//!
//! Any protocol type works, Kafka Connect's `connect` included: metadata and assignments are opaque bytes.

mod join;
mod offsets;
mod sync;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

pub use join::{JoinRequest, Joined, Peer};
pub use sync::{Leaving, SyncRequest, Synced};

/// Names a request that waits for its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyTo(pub u64);

/// Why a group refuses; each is one Kafka error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    #[error("the group id is not valid")]
    InvalidGroupId,
    #[error("the session timeout is outside the allowed range")]
    InvalidSessionTimeout,
    #[error("the group does not know this member")]
    UnknownMemberId,
    #[error("the member must join again with the id it was given")]
    MemberIdRequired,
    #[error("another member took over this instance id")]
    FencedInstanceId,
    #[error("the generation is not the group's")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the member's protocols do not fit the group's")]
    InconsistentGroupProtocol,
    #[error("the group is full")]
    GroupMaxSizeReached,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("there is no such group")]
    GroupIdNotFound,
    #[error("the group is subscribed to the topic")]
    SubscribedToTopic,
    #[error("the metadata of an offset is too large")]
    OffsetMetadataTooLarge,
    #[error("the disk did not take the change")]
    Storage,
}

/// What a step wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Join(ReplyTo, Result<Joined, (GroupError, String)>),
    Sync(ReplyTo, Result<Synced, GroupError>),
    /// Store [`Group::snapshot`] with these assignments, then call [`Group::stored`] with the token.
    Store {
        token: u64,
        assignments: BTreeMap<String, Bytes>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl State {
    pub const ALL: [Self; 5] =
        [Self::Empty, Self::PreparingRebalance, Self::CompletingRebalance, Self::Stable, Self::Dead];

    /// The name DescribeGroups and ListGroups show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// Limits the group applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub initial_rebalance_delay_ms: i32,
    pub max_size: usize,
}

/// Who a member is and what it supports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In the member's order of preference.
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// When the member is given up, unless it waits for a reply.
    deadline: i64,
    joining: Option<ReplyTo>,
    syncing: Option<ReplyTo>,
    /// Has sent SyncGroup in this generation.
    synced: bool,
}

impl Member {
    fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    /// The metadata for a protocol; empty when it is not supported.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map(|(_, bytes)| bytes.clone())
            .unwrap_or_default()
    }

    /// Fresh from the log: alive until its session runs out.
    pub fn restored(snapshot: MemberSnapshot, protocol: &str, now: i64) -> Self {
        Self {
            id: snapshot.id,
            instance_id: snapshot.instance_id,
            client_id: snapshot.client_id,
            client_host: snapshot.client_host,
            rebalance_timeout_ms: snapshot.rebalance_timeout_ms,
            session_timeout_ms: snapshot.session_timeout_ms,
            protocols: vec![(protocol.to_owned(), snapshot.subscription)],
            assignment: snapshot.assignment,
            deadline: now + i64::from(snapshot.session_timeout_ms),
            joining: None,
            syncing: None,
            synced: true,
        }
    }
}

/// What is stored of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came into its present state.
    pub since: i64,
    pub members: Vec<MemberSnapshot>,
}

/// What is stored of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSnapshot {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// A classic group.
#[derive(Debug)]
pub struct Group {
    pub id: String,
    state: State,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    /// In the order of joining.
    members: Vec<Member>,
    /// Instance id → member id.
    statics: HashMap<String, String>,
    /// Ids given out whose members have not joined yet, with when they are given up.
    pending: BTreeMap<String, i64>,
    /// PreparingRebalance: when those that did not rejoin are given up.
    rebalance_deadline: i64,
    /// PreparingRebalance of a new group: not complete before this.
    earliest: i64,
    /// CompletingRebalance: when those that did not sync are given up.
    sync_deadline: i64,
    /// When the present state began.
    since: i64,
    /// The store under way for the assignment of this generation.
    storing: Option<(u64, BTreeMap<String, Bytes>)>,
    /// Static members whose new ids are being stored.
    replacing: Vec<join::Replacing>,
    next_token: u64,
}

impl Group {
    pub fn new(id: impl Into<String>, now: i64) -> Self {
        Self {
            id: id.into(),
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Vec::new(),
            statics: HashMap::new(),
            pending: BTreeMap::new(),
            rebalance_deadline: i64::MAX,
            earliest: i64::MIN,
            sync_deadline: i64::MAX,
            since: now,
            storing: None,
            replacing: Vec::new(),
            next_token: 1,
        }
    }

    /// A group as it was stored: stable with its members, or empty.
    pub fn restored(id: impl Into<String>, snapshot: Snapshot, now: i64) -> Self {
        let protocol = snapshot.protocol.clone().unwrap_or_default();
        let restore = |member| Member::restored(member, &protocol, now);
        let members: Vec<Member> = snapshot.members.into_iter().map(restore).collect();
        let instance =
            |member: &Member| member.instance_id.clone().map(|instance| (instance, member.id.clone()));
        Self {
            state: if members.is_empty() { State::Empty } else { State::Stable },
            generation: snapshot.generation,
            protocol_type: Some(snapshot.protocol_type).filter(|text| !text.is_empty()),
            protocol: snapshot.protocol,
            leader: snapshot.leader,
            statics: members.iter().filter_map(instance).collect(),
            members,
            since: snapshot.since,
            ..Self::new(id, now)
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Since when the group has been in its state.
    pub fn since(&self) -> i64 {
        self.since
    }

    /// Nobody is in it and nobody is about to be.
    pub fn is_unused(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty() && matches!(self.state, State::Empty | State::Dead)
    }

    /// What to store, with these assignments in place of the members' own.
    pub fn snapshot(&self, assignments: &BTreeMap<String, Bytes>) -> Snapshot {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |member: &Member| MemberSnapshot {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: assignments.get(&member.id).cloned().unwrap_or_default(),
        };
        Snapshot {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since: self.since,
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Takes the group, which has no members, out of use.
    pub fn kill(&mut self) {
        self.state = State::Dead;
    }

    /// Takes a killed group back into use.
    pub fn revive(&mut self) {
        self.state = State::Empty;
    }

    fn member(&self, id: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn member_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    fn enter(&mut self, state: State, now: i64) {
        self.state = state;
        self.since = now;
    }

    /// Whether the pair of ids names a member of this group.
    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance_id {
            match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(known) if known != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.member(member_id).is_some() { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    fn touch(&mut self, member_id: &str, now: i64) {
        if let Some(member) = self.member_mut(member_id) {
            member.deadline = now + i64::from(member.session_timeout_ms);
        }
    }
}
