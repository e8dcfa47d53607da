//! The groups and offsets that live in one partition of `__consumer_offsets`.
//! Invariant: pure; replaying the partition's records gives the same shard, and an offset never goes back to an older
//! record of the log. Records take effect in any order after they are flushed; what is on its way counts for every
//! decision made in between, so that no deletion leaves out a commit that stands before it in the log.

use std::collections::{BTreeMap, HashMap};

use super::group::{Group, GroupError, Snapshot, State};

/// A partition of a topic, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_time: i64,
}

/// A record of the partition: what it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `None` is a tombstone.
    Offset { group: String, at: TopicPartition, committed: Option<Committed> },
    /// `None` is a tombstone.
    Group { group: String, snapshot: Option<Snapshot> },
}

impl Change {
    /// The group whose own record this is.
    pub fn group_id(&self) -> Option<&str> {
        match self {
            Self::Group { group, .. } => Some(group),
            Self::Offset { .. } => None,
        }
    }
}

/// What is known of one key of the log.
#[derive(Debug)]
struct Entry {
    /// The log offset of the newest record that has taken effect.
    log_offset: i64,
    /// `None` after a tombstone, or before the first record has taken effect.
    committed: Option<Committed>,
    /// Records in the log's order that have not taken effect yet.
    on_their_way: u32,
}

impl Entry {
    const NEW: Self = Self { log_offset: -1, committed: None, on_their_way: 0 };

    fn take(&mut self, log_offset: i64, committed: Option<Committed>) {
        if self.log_offset < log_offset {
            (self.log_offset, self.committed) = (log_offset, committed);
        }
    }

    /// Nothing is known of it and nothing is to come.
    fn is_void(&self) -> bool {
        self.committed.is_none() && self.on_their_way == 0
    }
}

/// A group with its offsets.
#[derive(Debug)]
pub struct Slot {
    pub group: Group,
    offsets: BTreeMap<TopicPartition, Entry>,
    /// The group's tombstone is in the log: the slot goes with its last entry.
    forgotten: bool,
}

impl Slot {
    fn new(group: Group) -> Self {
        Self { group, offsets: BTreeMap::new(), forgotten: false }
    }

    pub fn offset(&self, at: &TopicPartition) -> Option<&Committed> {
        self.offsets.get(at).and_then(|entry| entry.committed.as_ref())
    }

    pub fn offsets(&self) -> impl Iterator<Item = (&TopicPartition, &Committed)> {
        self.offsets.iter().filter_map(|(at, entry)| Some((at, entry.committed.as_ref()?)))
    }

    /// Whether nothing would be lost without it.
    fn is_void(&self) -> bool {
        self.group.is_unused() && self.offsets.is_empty()
    }
}

#[derive(Debug, Default)]
pub struct Shard {
    slots: HashMap<String, Slot>,
    /// Groups as replay found them, until it ends.
    replayed: HashMap<String, Snapshot>,
}

impl Shard {
    pub fn slot(&self, group: &str) -> Option<&Slot> {
        self.slots.get(group)
    }

    pub fn slot_mut(&mut self, group: &str) -> Option<&mut Slot> {
        self.slots.get_mut(group)
    }

    pub fn slot_or_new(&mut self, group: &str, now: i64) -> &mut Slot {
        self.slots.entry(group.to_owned()).or_insert_with(|| Slot::new(Group::new(group, now)))
    }

    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values()
    }

    /// A record is on its way to the log. It has its place there; [`Shard::commit`] or [`Shard::lost`] follows.
    pub fn written(&mut self, change: &Change, now: i64) {
        let Change::Offset { group, at, .. } = change else { return };
        let slot = self.slot_or_new(group, now);
        slot.offsets.entry(at.clone()).or_insert(Entry::NEW).on_their_way += 1;
    }

    /// A record that was written stands at `log_offset` and is flushed: its change of offsets takes effect. Groups are
    /// changed by their state machines; their records matter only to [`Shard::replay`].
    pub fn commit(&mut self, log_offset: i64, change: Change) {
        let Change::Offset { group, at, committed } = change else { return };
        self.arrived(&group, &at, |entry| entry.take(log_offset, committed));
    }

    /// A record that was on its way did not get into the log.
    pub fn lost(&mut self, change: &Change) {
        let Change::Offset { group, at, .. } = change else { return };
        self.arrived(group, at, |_| {});
    }

    fn arrived(&mut self, group: &str, at: &TopicPartition, effect: impl FnOnce(&mut Entry)) {
        let Some(slot) = self.slots.get_mut(group) else { return };
        let Some(entry) = slot.offsets.get_mut(at) else { return };
        entry.on_their_way = entry.on_their_way.saturating_sub(1);
        effect(entry);
        if entry.is_void() {
            slot.offsets.remove(at);
        }
        if slot.forgotten && slot.is_void() {
            self.slots.remove(group);
        }
    }

    /// A record found in the log at start.
    pub fn replay(&mut self, log_offset: i64, change: Change, now: i64) {
        match change {
            Change::Group { group, snapshot: Some(snapshot) } => {
                self.replayed.insert(group, snapshot);
            }
            Change::Group { group, snapshot: None } => {
                self.replayed.remove(&group);
            }
            Change::Offset { group, at, committed } => {
                let slot = self.slot_or_new(&group, now);
                let entry = slot.offsets.entry(at.clone()).or_insert(Entry::NEW);
                entry.take(log_offset, committed);
                if entry.is_void() {
                    slot.offsets.remove(&at);
                }
            }
        }
    }

    /// All records have been replayed: the groups start, alive until their sessions run out.
    pub fn finish_replay(&mut self, now: i64) {
        for (id, snapshot) in std::mem::take(&mut self.replayed) {
            let group = Group::restored(id.clone(), snapshot, now);
            match self.slots.get_mut(&id) {
                Some(slot) => slot.group = group,
                None => {
                    self.slots.insert(id, Slot::new(group));
                }
            }
        }
        self.slots.retain(|_, slot| {
            !(slot.group.is_unused() && slot.offsets.is_empty() && slot.group.generation() == 0)
        });
    }

    /// Tombstones for what has outlived `retention_ms`: the offsets of groups without members, and groups without
    /// offsets.
    pub fn expired(&self, retention_ms: i64, now: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, slot) in &self.slots {
            if !slot.group.is_unused() {
                continue;
            }
            let grouped = !slot.group.protocol_type().is_empty();
            let over = |committed: &Committed| {
                let last = if grouped {
                    slot.group.since().max(committed.commit_time)
                } else {
                    committed.commit_time
                };
                last.saturating_add(retention_ms) <= now
            };
            let over = |entry: &Entry| entry.on_their_way == 0 && entry.committed.as_ref().is_some_and(over);
            let gone: Vec<_> =
                slot.offsets.iter().filter(|(_, entry)| over(entry)).map(|(at, _)| at.clone()).collect();
            let all = gone.len() == slot.offsets.len();
            let group_over = !grouped || slot.group.since().saturating_add(retention_ms) <= now;
            changes.extend(gone.into_iter().map(|at| Change::Offset {
                group: id.clone(),
                at,
                committed: None,
            }));
            if all && group_over {
                changes.push(Change::Group { group: id.clone(), snapshot: None });
            }
        }
        changes
    }

    /// Tombstones for the offsets of topics that are gone.
    pub fn of_topics(&self, is_gone: impl Fn(&str) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, slot) in &self.slots {
            for at in slot.offsets.keys().filter(|at| is_gone(&at.topic)) {
                changes.push(Change::Offset { group: id.clone(), at: at.clone(), committed: None });
            }
        }
        changes
    }

    /// Tombstones for some of a group's offsets; `select` is asked for each partition with one.
    pub fn delete_offsets(&self, group: &str, select: impl Fn(&TopicPartition) -> bool) -> Vec<Change> {
        let Some(slot) = self.slots.get(group) else { return Vec::new() };
        let tombstone =
            |at: &TopicPartition| Change::Offset { group: group.to_owned(), at: at.clone(), committed: None };
        slot.offsets.keys().filter(|at| select(at)).map(tombstone).collect()
    }

    /// Tombstones that delete a group with all its offsets; it takes nothing from now on.
    pub fn delete(&mut self, group: &str) -> Result<Vec<Change>, GroupError> {
        let slot = self.slots.get_mut(group).ok_or(GroupError::GroupIdNotFound)?;
        match slot.group.state() {
            State::Dead => return Err(GroupError::GroupIdNotFound),
            State::Empty if slot.group.is_unused() => {}
            State::Empty | State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                return Err(GroupError::NonEmptyGroup);
            }
        }
        slot.group.kill();
        let mut changes = self.delete_offsets(group, |_| true);
        changes.push(Change::Group { group: group.to_owned(), snapshot: None });
        Ok(changes)
    }

    /// Drops a group whose tombstone is in the log, unless somebody has begun to use it again.
    pub fn forget(&mut self, group: &str) {
        let Some(slot) = self.slots.get_mut(group) else { return };
        if slot.is_void() {
            self.slots.remove(group);
        } else if slot.group.state() == State::Dead {
            slot.forgotten = true;
        }
    }

    /// Drops a group that never came to be: nothing of it is in the log.
    pub fn tidy(&mut self, group: &str) {
        let never = |slot: &Slot| {
            slot.is_void() && slot.group.generation() == 0 && slot.group.protocol_type().is_empty()
        };
        if self.slots.get(group).is_some_and(never) {
            self.slots.remove(group);
        }
    }

    /// A deletion that could not be written: the group is as before.
    pub fn revive(&mut self, group: &str) {
        if let Some(slot) = self.slots.get_mut(group) {
            slot.group.revive();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: "orders".to_owned(), partition }
    }

    fn commit(offset: i64, time: i64) -> Change {
        let committed = Committed { offset, leader_epoch: -1, metadata: String::new(), commit_time: time };
        Change::Offset { group: "g".to_owned(), at: at(0), committed: Some(committed) }
    }

    fn snapshot(since: i64) -> Snapshot {
        Snapshot {
            protocol_type: "consumer".to_owned(),
            generation: 3,
            protocol: None,
            leader: None,
            since,
            members: Vec::new(),
        }
    }

    fn offset(shard: &Shard) -> Option<i64> {
        shard.slot("g").and_then(|slot| slot.offset(&at(0))).map(|committed| committed.offset)
    }

    #[test]
    fn commits_that_end_out_of_order_keep_the_order_of_the_log() {
        let mut shard = Shard::default();
        shard.written(&commit(100, 0), 0);
        shard.written(&commit(200, 0), 0);
        shard.commit(11, commit(200, 0));
        shard.commit(10, commit(100, 0));
        assert_eq!(offset(&shard), Some(200));
    }

    #[test]
    fn a_tombstone_removes_and_a_later_commit_restores() {
        let mut shard = Shard::default();
        let gone = Change::Offset { group: "g".to_owned(), at: at(0), committed: None };
        shard.replay(1, commit(5, 0), 0);
        shard.replay(2, gone, 0);
        assert_eq!(offset(&shard), None);
        shard.replay(3, commit(6, 0), 0);
        shard.finish_replay(0);
        assert_eq!(offset(&shard), Some(6));
    }

    #[test]
    fn replay_restores_the_last_state_of_a_group() {
        let mut shard = Shard::default();
        shard.replay(1, Change::Group { group: "g".to_owned(), snapshot: Some(snapshot(7)) }, 0);
        shard.replay(2, Change::Group { group: "h".to_owned(), snapshot: Some(snapshot(7)) }, 0);
        shard.replay(3, Change::Group { group: "h".to_owned(), snapshot: None }, 0);
        shard.finish_replay(100);
        assert_eq!(shard.slot("g").map(|slot| slot.group.generation()), Some(3));
        assert!(shard.slot("h").is_none());
    }

    #[test]
    fn offsets_of_an_empty_group_expire_after_it_became_empty() {
        let mut shard = Shard::default();
        shard.replay(1, commit(5, 0), 0);
        shard.replay(2, Change::Group { group: "g".to_owned(), snapshot: Some(snapshot(500)) }, 0);
        shard.finish_replay(0);
        assert!(shard.expired(1000, 1400).is_empty());
        assert_eq!(shard.expired(1000, 1500).len(), 2);
    }

    #[test]
    fn offsets_without_a_group_expire_one_by_one() {
        let mut shard = Shard::default();
        shard.replay(1, commit(5, 100), 0);
        let other = Committed { offset: 1, leader_epoch: 0, metadata: String::new(), commit_time: 900 };
        shard.replay(2, Change::Offset { group: "g".to_owned(), at: at(1), committed: Some(other) }, 0);
        assert_eq!(shard.expired(1000, 1100).len(), 1);
    }

    /// Writes a deletion of the group and gives its records with their offsets from `base` on.
    fn delete(shard: &mut Shard, base: i64) -> Vec<(i64, Change)> {
        let changes = shard.delete("g").expect("has no members");
        changes.iter().for_each(|change| shard.written(change, 0));
        (base..).zip(changes).collect()
    }

    #[test]
    fn a_deleted_group_is_dead_until_it_is_forgotten() {
        let mut shard = Shard::default();
        shard.replay(1, commit(5, 0), 0);
        assert_eq!(shard.delete("none"), Err(GroupError::GroupIdNotFound));
        let changes = delete(&mut shard, 2);
        assert_eq!(changes.len(), 2);
        assert_eq!(shard.delete("g"), Err(GroupError::GroupIdNotFound));
        for (at, change) in changes {
            shard.commit(at, change);
        }
        shard.forget("g");
        assert!(shard.slot("g").is_none());
    }

    #[test]
    fn a_deletion_takes_along_a_commit_that_is_still_on_its_way() {
        for tombstones_first in [false, true] {
            let mut shard = Shard::default();
            shard.written(&commit(5, 0), 0);
            let changes = delete(&mut shard, 11);
            assert_eq!(changes.len(), 2, "the commit before it in the log has a tombstone, too");
            if !tombstones_first {
                shard.commit(10, commit(5, 0));
            }
            for (at, change) in changes {
                shard.commit(at, change);
            }
            shard.forget("g");
            if tombstones_first {
                shard.commit(10, commit(5, 0));
            }
            assert!(shard.slot("g").is_none(), "tombstones first: {tombstones_first}");
        }
    }

    #[test]
    fn a_deletion_that_is_not_written_leaves_the_group_as_it_was() {
        let mut shard = Shard::default();
        shard.replay(1, Change::Group { group: "g".to_owned(), snapshot: Some(snapshot(7)) }, 0);
        shard.replay(2, commit(5, 0), 0);
        shard.finish_replay(0);
        for (_, change) in delete(&mut shard, 3) {
            shard.lost(&change);
        }
        shard.revive("g");
        let group = shard.slot("g").map(|slot| (slot.group.state(), slot.group.generation()));
        assert_eq!((group, offset(&shard)), (Some((State::Empty, 3)), Some(5)));
    }

    #[test]
    fn offsets_do_not_expire_while_a_commit_is_on_its_way() {
        let mut shard = Shard::default();
        shard.replay(1, commit(5, 0), 0);
        shard.written(&commit(6, 5_000), 0);
        assert!(shard.expired(1000, 5_000).is_empty());
        shard.lost(&commit(6, 5_000));
        assert_eq!(shard.expired(1000, 5_000).len(), 2);
    }

    #[test]
    fn what_was_asked_for_in_vain_leaves_nothing_behind() {
        let mut shard = Shard::default();
        shard.slot_or_new("g", 0);
        shard.tidy("g");
        assert!(shard.slot("g").is_none());
        shard.replay(1, commit(5, 0), 0);
        shard.tidy("g");
        assert_eq!(offset(&shard), Some(5));
    }
}
