//! JoinGroup: who becomes a member, when everybody has come, and the next generation.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Group, GroupError, Member, Output, ReplyTo, Rules, State};

/// A request to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    pub reply: ReplyTo,
    /// Empty for a new member.
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub protocol_type: String,
    pub protocols: Vec<(String, Bytes)>,
    /// The id to use if the member is new; drawn by the caller.
    pub fresh_id: String,
    /// v4 and later: a new member is first told its id and must come again with it.
    pub known_id_required: bool,
    /// v9 and later: a returning static leader can be told to skip the assignment.
    pub can_skip_assignment: bool,
}

/// The answer to a member that joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub member_id: String,
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub skip_assignment: bool,
    /// Everybody, for the leader; empty for the others.
    pub members: Vec<Peer>,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

/// A static member that came back and waits until its new id is stored.
#[derive(Debug)]
pub(super) struct Replacing {
    pub(super) token: u64,
    reply: ReplyTo,
    joined: Joined,
    /// The member as it was.
    before: Member,
}

impl Group {
    /// A member wants to join or to stay in the next generation.
    pub fn join(&mut self, request: JoinRequest, rules: &Rules, now: i64) -> Vec<Output> {
        let mut out = Vec::new();
        let (reply, member_id) = (request.reply, request.member_id.clone());
        if let Err(error) = self.try_join(request, rules, now, &mut out) {
            out.push(Output::Join(reply, Err((error, member_id))));
        }
        out
    }

    fn try_join(
        &mut self,
        request: JoinRequest,
        rules: &Rules,
        now: i64,
        out: &mut Vec<Output>,
    ) -> Result<(), GroupError> {
        let allowed = rules.min_session_timeout_ms..=rules.max_session_timeout_ms;
        if !allowed.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let known = self.member(&request.member_id).is_some();
        let returns = request.instance_id.as_ref().is_some_and(|id| self.statics.contains_key(id));
        let expected = self.pending.contains_key(&request.member_id);
        if !known && !returns && !expected && self.members.len() + self.pending.len() >= rules.max_size {
            return Err(GroupError::GroupMaxSizeReached);
        }
        self.check_protocols(&request)?;
        if request.member_id.is_empty() {
            return self.join_unknown(request, rules, now, out);
        }
        if self.pending.remove(&request.member_id).is_some() {
            let id = request.member_id.clone();
            self.add_member(id, &request, rules, now, out);
            return Ok(());
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        self.rejoin(&request, rules, now, out)
    }

    fn check_protocols(&self, request: &JoinRequest) -> Result<(), GroupError> {
        if request.protocols.is_empty() || request.protocol_type.is_empty() {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        // The member itself may change what it supports, so only the others count.
        let instance = request.instance_id.as_deref();
        let itself = |member: &&Member| {
            member.id == request.member_id
                || (instance.is_some() && member.instance_id.as_deref() == instance)
        };
        let mut others = self.members.iter().filter(|member| !itself(member)).peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        if self.protocol_type.as_deref() != Some(request.protocol_type.as_str()) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let others: Vec<&Member> = others.collect();
        let shared = |name: &String| {
            others.iter().all(|member| member.protocols.iter().any(|(supported, _)| supported == name))
        };
        let fits = request.protocols.iter().any(|(name, _)| shared(name));
        if fits { Ok(()) } else { Err(GroupError::InconsistentGroupProtocol) }
    }

    fn join_unknown(
        &mut self,
        request: JoinRequest,
        rules: &Rules,
        now: i64,
        out: &mut Vec<Output>,
    ) -> Result<(), GroupError> {
        let fresh = request.fresh_id.clone();
        if let Some(instance) = &request.instance_id {
            if let Some(old) = self.statics.get(instance).cloned() {
                self.replace_static(&old, fresh, &request, rules, now, out);
            } else {
                self.add_member(fresh, &request, rules, now, out);
            }
        } else if request.known_id_required {
            self.pending.insert(fresh.clone(), now + i64::from(request.session_timeout_ms));
            out.push(Output::Join(request.reply, Err((GroupError::MemberIdRequired, fresh))));
        } else {
            self.add_member(fresh, &request, rules, now, out);
        }
        Ok(())
    }

    fn add_member(
        &mut self,
        id: String,
        request: &JoinRequest,
        rules: &Rules,
        now: i64,
        out: &mut Vec<Output>,
    ) {
        if let Some(instance) = &request.instance_id {
            self.statics.insert(instance.clone(), id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.members.push(Member {
            id,
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            deadline: now + i64::from(request.session_timeout_ms),
            joining: Some(request.reply),
            syncing: None,
            synced: false,
        });
        if self.state == State::PreparingRebalance && self.earliest > now {
            // A group that has just been born waits a little longer for each that comes.
            self.earliest = (now + i64::from(rules.initial_rebalance_delay_ms)).min(self.rebalance_deadline);
        }
        self.prepare_rebalance(rules, now, out);
    }

    fn rejoin(
        &mut self,
        request: &JoinRequest,
        rules: &Rules,
        now: i64,
        out: &mut Vec<Output>,
    ) -> Result<(), GroupError> {
        let member = self.member(&request.member_id).ok_or(GroupError::UnknownMemberId)?;
        let same = member.protocols == request.protocols;
        let leads = self.leader.as_deref() == Some(request.member_id.as_str());
        match self.state {
            State::Empty | State::Dead => return Err(GroupError::UnknownMemberId),
            State::CompletingRebalance if same => self.answer_again(request, now, out),
            State::Stable if same && !leads => self.answer_again(request, now, out),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.update_member(request, now, out);
                self.prepare_rebalance(rules, now, out);
            }
        }
        Ok(())
    }

    /// The reply got lost, or the member asks without need: it is told the present generation once more.
    fn answer_again(&mut self, request: &JoinRequest, now: i64, out: &mut Vec<Output>) {
        self.touch(&request.member_id, now);
        let joined = self.joined(&request.member_id, false);
        out.push(Output::Join(request.reply, Ok(joined)));
    }

    fn update_member(&mut self, request: &JoinRequest, now: i64, out: &mut Vec<Output>) {
        let Some(member) = self.member_mut(&request.member_id) else { return };
        member.protocols.clone_from(&request.protocols);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        member.deadline = now + i64::from(request.session_timeout_ms);
        let replaced = member.joining.replace(request.reply);
        if let Some(old) = replaced {
            // The client gave the earlier request up; nobody reads this.
            out.push(Output::Join(old, Err((GroupError::RebalanceInProgress, request.member_id.clone()))));
        }
    }

    /// A static member came back without its member id: it gets a new one and the old one is fenced.
    fn replace_static(
        &mut self,
        old: &str,
        fresh: String,
        request: &JoinRequest,
        rules: &Rules,
        now: i64,
        out: &mut Vec<Output>,
    ) {
        let led = self.leader.as_deref() == Some(old);
        let protocol = self.choose_protocol();
        let Some(member) = self.member_mut(old) else { return };
        let before = member.clone();
        member.id.clone_from(&fresh);
        member.protocols.clone_from(&request.protocols);
        member.client_id.clone_from(&request.client_id);
        member.client_host.clone_from(&request.client_host);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        member.deadline = now + i64::from(request.session_timeout_ms);
        let (joining, syncing) = (member.joining.take(), member.syncing.take());
        if let Some(reply) = joining {
            out.push(Output::Join(reply, Err((GroupError::FencedInstanceId, old.to_owned()))));
        }
        if let Some(reply) = syncing {
            out.push(Output::Sync(reply, Err(GroupError::FencedInstanceId)));
        }
        if let Some(instance) = &request.instance_id {
            self.statics.insert(instance.clone(), fresh.clone());
        }
        if led {
            self.leader = Some(fresh.clone());
        }
        if self.state == State::Stable && self.choose_protocol() == protocol {
            let mut joined = self.joined(&fresh, request.can_skip_assignment);
            if led && !request.can_skip_assignment {
                // Before v9 the only way to keep it from assigning anew is to name a leader that is not it.
                joined.leader = old.to_owned();
                joined.members.clear();
            }
            // A restart of this broker must know the new id before the member uses it.
            let assigned = |member: &Member| (member.id.clone(), member.assignment.clone());
            let assignments = self.members.iter().map(assigned).collect();
            let token = self.token();
            self.replacing.push(Replacing { token, reply: request.reply, joined, before });
            out.push(Output::Store { token, assignments });
            return;
        }
        if let Some(member) = self.member_mut(&fresh) {
            member.joining = Some(request.reply);
        }
        self.prepare_rebalance(rules, now, out);
    }

    /// The new id of a static member is stored, or could not be: then the old one stays.
    pub(super) fn replaced(
        &mut self,
        replacing: Replacing,
        outcome: Result<(), GroupError>,
        out: &mut Vec<Output>,
    ) {
        let Replacing { reply, joined, before, .. } = replacing;
        let fresh = joined.member_id.clone();
        let reply_with = match outcome {
            // Another one with the same instance id came meanwhile.
            _ if self.member(&fresh).is_none() => Err((GroupError::FencedInstanceId, fresh)),
            Ok(()) => Ok(joined),
            Err(error) => {
                self.take_back(&fresh, before);
                Err((error, String::new()))
            }
        };
        out.push(Output::Join(reply, reply_with));
    }

    fn take_back(&mut self, fresh: &str, before: Member) {
        if self.leader.as_deref() == Some(fresh) {
            self.leader = Some(before.id.clone());
        }
        if let Some(instance) = &before.instance_id {
            self.statics.insert(instance.clone(), before.id.clone());
        }
        let Some(member) = self.member_mut(fresh) else { return };
        *member = Member { deadline: member.deadline, synced: member.synced, ..before };
    }

    /// Everybody shall join again.
    pub(super) fn prepare_rebalance(&mut self, rules: &Rules, now: i64, out: &mut Vec<Output>) {
        if self.state != State::PreparingRebalance {
            self.storing = None;
            for member in &mut self.members {
                member.synced = false;
                if let Some(reply) = member.syncing.take() {
                    out.push(Output::Sync(reply, Err(GroupError::RebalanceInProgress)));
                }
            }
            let born = self.state == State::Empty;
            self.enter(State::PreparingRebalance, now);
            self.rebalance_deadline = now + self.rebalance_timeout();
            let delay = i64::from(rules.initial_rebalance_delay_ms);
            self.earliest = if born { (now + delay).min(self.rebalance_deadline) } else { now };
        }
        self.complete_join_if_ready(now, out);
    }

    pub(super) fn rebalance_timeout(&self) -> i64 {
        self.members.iter().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    pub(super) fn complete_join_if_ready(&mut self, now: i64, out: &mut Vec<Output>) {
        let all = self.pending.is_empty() && self.members.iter().all(|member| member.joining.is_some());
        if self.state == State::PreparingRebalance && all && now >= self.earliest {
            self.complete_join(now, out);
        }
    }

    /// The next generation, of those that are there.
    pub(super) fn complete_join(&mut self, now: i64, out: &mut Vec<Output>) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.rebalance_deadline = i64::MAX;
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(State::Empty, now);
            let token = self.token();
            out.push(Output::Store { token, assignments: BTreeMap::new() });
            return;
        }
        self.protocol = self.choose_protocol();
        self.enter(State::CompletingRebalance, now);
        self.sync_deadline = now + self.rebalance_timeout();
        let ids: Vec<String> = self.members.iter().map(|member| member.id.clone()).collect();
        for id in ids {
            let joined = self.joined(&id, false);
            let Some(member) = self.member_mut(&id) else { continue };
            member.deadline = now + i64::from(member.session_timeout_ms);
            member.synced = false;
            if let Some(reply) = member.joining.take() {
                out.push(Output::Join(reply, Ok(joined)));
            }
        }
    }

    fn joined(&self, member_id: &str, skip: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let leads = self.leader.as_deref() == Some(member_id);
        let peer = |member: &Member| Peer {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(&protocol),
        };
        Joined {
            member_id: member_id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: leads && skip,
            members: if leads { self.members.iter().map(peer).collect() } else { Vec::new() },
            protocol,
        }
    }

    /// Of the protocols that all support, the one that most prefer; a tie goes to the first member's order.
    pub(super) fn choose_protocol(&self) -> Option<String> {
        let first = self.members.first()?;
        let supports = |member: &Member, name: &str| member.protocols.iter().any(|(own, _)| own == name);
        let shared = |name: &str| self.members.iter().all(|member| supports(member, name));
        let candidates: Vec<&str> =
            first.protocols.iter().map(|(name, _)| name.as_str()).filter(|name| shared(name)).collect();
        let favourite = |member: &Member| {
            member
                .protocols
                .iter()
                .map(|(name, _)| name.clone())
                .find(|name| candidates.contains(&name.as_str()))
        };
        let votes: Vec<String> = self.members.iter().filter_map(favourite).collect();
        let count = |name: &str| votes.iter().filter(|vote| *vote == name).count();
        let best = candidates.iter().rev().max_by_key(|name| count(name))?;
        Some((*best).to_owned())
    }

    pub(super) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}
