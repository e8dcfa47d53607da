//! Time in a group: sessions, rebalances and assignments that run out.

use super::{Group, Output, Rules, State};

impl Group {
    /// When [`Group::tick`] has something to do at the earliest.
    pub fn next_deadline(&self) -> Option<i64> {
        let sessions = self.members.iter().filter(|member| !member.waits()).map(|member| member.deadline);
        let pending = self.pending.values().copied();
        let phase = match self.state {
            State::PreparingRebalance if self.is_only_early() => Some(self.earliest),
            State::PreparingRebalance => Some(self.rebalance_deadline),
            State::CompletingRebalance => Some(self.sync_deadline),
            State::Empty | State::Stable | State::Dead => None,
        };
        sessions.chain(pending).chain(phase).min()
    }

    /// Everybody is there; only the initial delay is not over.
    fn is_only_early(&self) -> bool {
        self.pending.is_empty() && self.members.iter().all(|member| member.joining.is_some())
    }

    /// Gives up what has run out by `now`.
    pub fn tick(&mut self, rules: &Rules, now: i64) -> Vec<Output> {
        let mut out = Vec::new();
        let pending = self.pending.len();
        self.pending.retain(|_, deadline| *deadline > now);
        let mut changed = self.pending.len() != pending;
        let over = |group: &Self| -> Vec<String> {
            let over = group.members.iter().filter(|member| !member.waits() && member.deadline <= now);
            over.map(|member| member.id.clone()).collect()
        };
        for id in over(self) {
            changed |= self.remove_member(&id, &mut out);
        }
        if changed {
            self.after_removal(rules, now, &mut out);
        }
        match self.state {
            State::PreparingRebalance if now >= self.rebalance_deadline => self.end_join(now, &mut out),
            State::PreparingRebalance => self.complete_join_if_ready(now, &mut out),
            State::CompletingRebalance if now >= self.sync_deadline => self.end_sync(rules, now, &mut out),
            State::CompletingRebalance | State::Empty | State::Stable | State::Dead => {}
        }
        out
    }

    /// The time to rejoin is over. Dynamic members that did not come are out; static ones stay, they may come back
    /// within their session.
    fn end_join(&mut self, now: i64, out: &mut Vec<Output>) {
        self.pending.clear();
        let absent = |group: &Self| -> Vec<String> {
            let absent = group.members.iter().filter(|member| member.joining.is_none());
            absent.filter(|member| member.instance_id.is_none()).map(|member| member.id.clone()).collect()
        };
        for id in absent(self) {
            self.remove_member(&id, out);
        }
        let present = self.members.iter().find(|member| member.joining.is_some());
        let Some(present) = present.map(|member| member.id.clone()) else {
            if self.members.is_empty() {
                self.complete_join(now, out);
            } else {
                // Only absent static members: nobody could assign. Wait on; their sessions end this.
                self.rebalance_deadline = now + self.rebalance_timeout().max(1);
            }
            return;
        };
        let leader = self.leader.clone().unwrap_or_default();
        if self.member(&leader).is_none_or(|member| member.joining.is_none()) {
            self.leader = Some(present);
        }
        self.complete_join(now, out);
    }

    /// The time to sync is over: whoever did not is out.
    fn end_sync(&mut self, rules: &Rules, now: i64, out: &mut Vec<Output>) {
        self.sync_deadline = i64::MAX;
        let silent: Vec<String> =
            self.members.iter().filter(|member| !member.synced).map(|member| member.id.clone()).collect();
        let mut changed = false;
        for id in silent {
            changed |= self.remove_member(&id, out);
        }
        if changed {
            self.prepare_rebalance(rules, now, out);
        }
    }
}
