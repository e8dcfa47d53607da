//! SyncGroup, Heartbeat and LeaveGroup: handing out the assignment, staying and going.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Group, GroupError, Output, ReplyTo, Rules, State};

/// A member asks for its assignment; the leader brings everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequest {
    pub reply: ReplyTo,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// v5 and later.
    pub protocol_type: Option<String>,
    /// v5 and later.
    pub protocol: Option<String>,
    pub assignments: BTreeMap<String, Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// A member that leaves; static ones may be named by their instance alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    pub member_id: String,
    pub instance_id: Option<String>,
}

impl Group {
    pub fn sync(&mut self, request: SyncRequest, now: i64) -> Vec<Output> {
        let mut out = Vec::new();
        let reply = request.reply;
        if let Err(error) = self.try_sync(request, now, &mut out) {
            out.push(Output::Sync(reply, Err(error)));
        }
        out
    }

    fn try_sync(&mut self, request: SyncRequest, now: i64, out: &mut Vec<Output>) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |given: &Option<String>, own: &Option<String>| given.is_some() && given != own;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        self.touch(&request.member_id, now);
        match self.state {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::Stable => {
                out.push(Output::Sync(request.reply, Ok(self.synced(&request.member_id))));
                Ok(())
            }
            State::CompletingRebalance => {
                self.await_assignment(request, out);
                Ok(())
            }
        }
    }

    fn await_assignment(&mut self, request: SyncRequest, out: &mut Vec<Output>) {
        let leads = self.leader.as_deref() == Some(request.member_id.as_str());
        if let Some(member) = self.member_mut(&request.member_id) {
            member.synced = true;
            if let Some(old) = member.syncing.replace(request.reply) {
                out.push(Output::Sync(old, Err(GroupError::RebalanceInProgress)));
            }
        }
        if leads && self.storing.is_none() {
            let token = self.token();
            self.storing = Some((token, request.assignments.clone()));
            out.push(Output::Store { token, assignments: request.assignments });
        }
    }

    /// A store that was asked for has ended. The outcome of one that a rebalance overtook is of no interest.
    pub fn stored(
        &mut self,
        token: u64,
        outcome: Result<(), GroupError>,
        rules: &Rules,
        now: i64,
    ) -> Vec<Output> {
        let mut out = Vec::new();
        if let Some(at) = self.replacing.iter().position(|replacing| replacing.token == token) {
            let replacing = self.replacing.remove(at);
            self.replaced(replacing, outcome, &mut out);
            return out;
        }
        match self.storing.take_if(|(wanted, _)| *wanted == token) {
            Some((_, assignments)) if self.state == State::CompletingRebalance => match outcome {
                Ok(()) => self.hand_out(assignments, now, &mut out),
                Err(error) => self.give_up_generation(error, rules, now, &mut out),
            },
            _ => {}
        }
        out
    }

    fn hand_out(&mut self, mut assignments: BTreeMap<String, Bytes>, now: i64, out: &mut Vec<Output>) {
        self.enter(State::Stable, now);
        let mut replies = Vec::new();
        for member in &mut self.members {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
            if let Some(reply) = member.syncing.take() {
                member.deadline = now + i64::from(member.session_timeout_ms);
                replies.push((reply, member.id.clone()));
            }
        }
        for (reply, id) in replies {
            out.push(Output::Sync(reply, Ok(self.synced(&id))));
        }
    }

    fn give_up_generation(&mut self, error: GroupError, rules: &Rules, now: i64, out: &mut Vec<Output>) {
        for member in &mut self.members {
            member.assignment = Bytes::new();
            if let Some(reply) = member.syncing.take() {
                out.push(Output::Sync(reply, Err(error)));
            }
        }
        self.prepare_rebalance(rules, now, out);
    }

    fn synced(&self, member_id: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: self.member(member_id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    pub fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
        now: i64,
    ) -> Result<(), GroupError> {
        self.check_member(member_id, instance_id)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.touch(member_id, now);
        match self.state {
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// Members leave. One outcome per member, in order.
    pub fn leave(
        &mut self,
        leaving: &[Leaving],
        rules: &Rules,
        now: i64,
    ) -> (Vec<Result<(), GroupError>>, Vec<Output>) {
        let mut out = Vec::new();
        let mut gone = false;
        let mut outcomes = Vec::with_capacity(leaving.len());
        for one in leaving {
            let outcome = self.leave_one(one, &mut out);
            gone |= outcome.is_ok();
            outcomes.push(outcome);
        }
        if gone {
            self.after_removal(rules, now, &mut out);
        }
        (outcomes, out)
    }

    fn leave_one(&mut self, leaving: &Leaving, out: &mut Vec<Output>) -> Result<(), GroupError> {
        if leaving.instance_id.is_none() && self.pending.remove(&leaving.member_id).is_some() {
            return Ok(());
        }
        let id = match &leaving.instance_id {
            Some(instance) => {
                let known = self.statics.get(instance).ok_or(GroupError::UnknownMemberId)?;
                if !leaving.member_id.is_empty() && leaving.member_id != *known {
                    return Err(GroupError::FencedInstanceId);
                }
                known.clone()
            }
            None => leaving.member_id.clone(),
        };
        if self.remove_member(&id, out) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    pub(super) fn remove_member(&mut self, id: &str, out: &mut Vec<Output>) -> bool {
        let Some(at) = self.members.iter().position(|member| member.id == id) else { return false };
        let member = self.members.remove(at);
        if let Some(reply) = member.joining {
            out.push(Output::Join(reply, Err((GroupError::UnknownMemberId, id.to_owned()))));
        }
        if let Some(reply) = member.syncing {
            out.push(Output::Sync(reply, Err(GroupError::UnknownMemberId)));
        }
        if let Some(instance) = &member.instance_id {
            self.statics.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.first().map(|member| member.id.clone());
        }
        true
    }

    pub(super) fn after_removal(&mut self, rules: &Rules, now: i64, out: &mut Vec<Output>) {
        match self.state {
            State::Empty | State::Dead => {}
            State::PreparingRebalance => self.complete_join_if_ready(now, out),
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(rules, now, out),
        }
    }
}
