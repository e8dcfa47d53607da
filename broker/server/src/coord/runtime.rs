//! Runs the shards: requests in, records to `__consumer_offsets`, replies out, and time.
//! Invariant: the order of a shard's records in the log is the order of its decisions (both happen under its lock), and
//! nothing is acknowledged before its record is flushed; what has been written takes effect even if its client has gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cell::{Cell, Load, Writing};
use super::group::{GroupError, JoinRequest, Joined, Leaving, Output, ReplyTo, Rules, SyncRequest, Synced};
use super::replay::replay;
use super::shard::{Change, Committed, Slot, TopicPartition};
use crate::clock::{SteadyClock, wall_ms};
use crate::config::GroupConfig;
use crate::partition::Replica;

/// Longest sleep between looks at the clock.
const LONG: i64 = 3_600_000;

/// Why a group request cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CoordError {
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error("the groups are still being read from the log")]
    Loading,
    #[error("this broker does not coordinate the group")]
    NotCoordinator,
    #[error("there is no such topic or partition any more")]
    UnknownTopic,
    #[error("the broker is stopping")]
    Stopping,
}

pub(super) type JoinReply = Result<Joined, (CoordError, String)>;

pub(crate) struct Coordinator {
    shards: RwLock<Vec<Arc<Cell>>>,
    config: GroupConfig,
    rules: Rules,
    clock: SteadyClock,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// A deadline nearer than the known ones has come up.
    nearer: Notify,
}

impl Coordinator {
    pub(crate) fn new(config: GroupConfig, tasks: TaskTracker, stop: CancellationToken) -> Arc<Self> {
        let rules = Rules {
            min_session_timeout_ms: config.min_session_timeout_ms,
            max_session_timeout_ms: config.max_session_timeout_ms,
            initial_rebalance_delay_ms: config.initial_rebalance_delay_ms,
            max_size: config.max_size,
        };
        let coordinator = Arc::new(Self {
            shards: RwLock::default(),
            config,
            rules,
            clock: SteadyClock::new(),
            tasks: tasks.clone(),
            stop,
            nearer: Notify::new(),
        });
        tasks.spawn(Arc::clone(&coordinator).keep_time());
        coordinator
    }

    /// Takes over the partitions of the offsets topic, in order. Called once, when the topic is there.
    pub(crate) fn take_over(self: &Arc<Self>, replicas: Vec<Arc<Replica>>) {
        let mut shards = self.shards.write();
        if !shards.is_empty() {
            return;
        }
        for replica in replicas {
            let cell = Arc::new(Cell::new(replica));
            shards.push(Arc::clone(&cell));
            let coordinator = Arc::clone(self);
            // Reads the disk; a thread that may block.
            self.tasks.spawn_blocking(move || coordinator.load(&cell));
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.shards.read().is_empty()
    }

    fn load(&self, cell: &Cell) {
        let now = self.clock.now();
        let outcome = replay(&cell.replica, now);
        match outcome {
            Ok(mut shard) => {
                shard.finish_replay(now);
                let mut live = cell.live.lock();
                live.shard = shard;
                let groups: Vec<String> = live.shard.slots().map(|slot| slot.group.id.clone()).collect();
                for group in groups {
                    live.schedule(&group);
                }
                drop(live);
                cell.loaded.send_replace(Load::Ready);
                self.nearer.notify_one();
            }
            Err(error) => {
                tracing::error!(partition = %cell.replica.name(), %error, "cannot read the groups of a partition");
                cell.loaded.send_replace(Load::Failed);
            }
        }
    }

    /// The shard of a group, loaded.
    async fn cell(&self, group: &str) -> Result<Arc<Cell>, CoordError> {
        let cell = {
            let shards = self.shards.read();
            if shards.is_empty() {
                return Err(CoordError::NotCoordinator);
            }
            Arc::clone(&shards[partition_of(group, shards.len())])
        };
        cell.wait_loaded().await?;
        Ok(cell)
    }

    pub(crate) async fn join(
        self: &Arc<Self>,
        group: &str,
        request: impl FnOnce(ReplyTo) -> JoinRequest,
    ) -> JoinReply {
        if group.is_empty() {
            return Err((GroupError::InvalidGroupId.into(), String::new()));
        }
        let cell = self.cell(group).await.map_err(|error| (error, String::new()))?;
        let now = self.clock.now();
        let reply = {
            let mut live = cell.live.lock();
            let (reply, receiver) = (live.reply(), oneshot::channel());
            let request = request(reply);
            if !request.member_id.is_empty() && live.shard.slot(group).is_none() {
                return Err((GroupError::UnknownMemberId.into(), request.member_id));
            }
            live.joins.insert(reply, receiver.0);
            let outputs = live.shard.slot_or_new(group, now).group.join(request, &self.rules, now);
            self.carry_out(&cell, &mut live, group, outputs);
            live.shard.tidy(group);
            receiver.1
        };
        tokio::select! {
            () = self.stop.cancelled() => Err((CoordError::Stopping, String::new())),
            reply = reply => reply.unwrap_or(Err((CoordError::Stopping, String::new()))),
        }
    }

    pub(crate) async fn sync(
        self: &Arc<Self>,
        group: &str,
        request: impl FnOnce(ReplyTo) -> SyncRequest,
    ) -> Result<Synced, CoordError> {
        let cell = self.cell(group).await?;
        let now = self.clock.now();
        let reply = {
            let mut live = cell.live.lock();
            let (reply, receiver) = (live.reply(), oneshot::channel());
            let Some(slot) = live.shard.slot_mut(group) else {
                return Err(GroupError::UnknownMemberId.into());
            };
            let outputs = slot.group.sync(request(reply), now);
            live.syncs.insert(reply, receiver.0);
            self.carry_out(&cell, &mut live, group, outputs);
            receiver.1
        };
        tokio::select! {
            () = self.stop.cancelled() => Err(CoordError::Stopping),
            reply = reply => reply.unwrap_or(Err(CoordError::Stopping)),
        }
    }

    pub(crate) async fn heartbeat(
        &self,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), CoordError> {
        let cell = self.cell(group).await?;
        let mut live = cell.live.lock();
        let slot = live.shard.slot_mut(group).ok_or(GroupError::UnknownMemberId)?;
        Ok(slot.group.heartbeat(member, instance, generation, self.clock.now())?)
    }

    pub(crate) async fn leave(
        self: &Arc<Self>,
        group: &str,
        leaving: &[Leaving],
    ) -> Result<Vec<Result<(), GroupError>>, CoordError> {
        let cell = self.cell(group).await?;
        let now = self.clock.now();
        let mut live = cell.live.lock();
        let slot = live.shard.slot_mut(group).ok_or(GroupError::UnknownMemberId)?;
        let (outcomes, outputs) = slot.group.leave(leaving, &self.rules, now);
        self.carry_out(&cell, &mut live, group, outputs);
        Ok(outcomes)
    }

    /// Commits offsets. Those whose metadata is too large fail one by one.
    pub(crate) async fn commit(
        &self,
        group: &str,
        member: (&str, Option<&str>),
        generation: i32,
        offsets: Vec<(TopicPartition, Committed)>,
        exists: impl Fn(&TopicPartition) -> bool,
    ) -> Result<Vec<Result<(), CoordError>>, CoordError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId.into());
        }
        let cell = self.cell(group).await?;
        let written = {
            let mut live = cell.live.lock();
            let now = self.clock.now();
            if live.shard.slot(group).is_none() && generation >= 0 {
                return Err(GroupError::IllegalGeneration.into());
            }
            let slot = live.shard.slot_or_new(group, now);
            let allowed = slot.group.check_commit(member.0, member.1, generation, now);
            let mut outcomes = Vec::with_capacity(offsets.len());
            let mut changes = Vec::with_capacity(offsets.len());
            for (at, committed) in offsets {
                if committed.metadata.len() > self.config.offset_metadata_max_bytes {
                    outcomes.push(Err(GroupError::OffsetMetadataTooLarge.into()));
                } else if !exists(&at) {
                    // Asked under the lock: a topic that goes after this takes the offset along.
                    outcomes.push(Err(CoordError::UnknownTopic));
                } else {
                    outcomes.push(Ok(()));
                    changes.push(Change::Offset { group: group.to_owned(), at, committed: Some(committed) });
                }
            }
            if allowed.is_err() || changes.is_empty() {
                live.shard.tidy(group);
                return Ok(allowed.map(|()| outcomes)?);
            }
            (outcomes, cell.write(&mut live, changes))
        };
        let (outcomes, written) = written;
        self.finish(cell, written).await?;
        Ok(outcomes)
    }

    /// Waits for the write and lets it take effect, in a task that outlives the request.
    async fn finish(&self, cell: Arc<Cell>, written: Writing) -> Result<(), CoordError> {
        let finishing = self.tasks.spawn(async move { cell.finish(written).await });
        finishing.await.unwrap_or(Err(CoordError::Stopping))
    }

    /// Looks at a group; `None` when it does not exist.
    pub(crate) async fn look<T>(
        &self,
        group: &str,
        look: impl FnOnce(Option<&Slot>) -> T,
    ) -> Result<T, CoordError> {
        let cell = self.cell(group).await?;
        let live = cell.live.lock();
        Ok(look(live.shard.slot(group)))
    }

    /// Looks at every group.
    pub(crate) async fn look_at_all(&self, mut look: impl FnMut(&Slot)) -> Result<(), CoordError> {
        for cell in self.cells() {
            cell.wait_loaded().await?;
            cell.live.lock().shard.slots().for_each(&mut look);
        }
        Ok(())
    }

    /// Looks at every group that is loaded, without waiting for others.
    pub(crate) fn peek_at_all(&self, mut look: impl FnMut(&Slot)) {
        for cell in self.cells() {
            cell.live.lock().shard.slots().for_each(&mut look);
        }
    }

    pub(crate) async fn delete_group(&self, group: &str) -> Result<(), CoordError> {
        let cell = self.cell(group).await?;
        let written = {
            let mut live = cell.live.lock();
            let changes = live.shard.delete(group)?;
            cell.write(&mut live, changes)
        };
        let group = group.to_owned();
        let deleting = self.tasks.spawn(async move {
            let outcome = cell.finish(written).await;
            let mut live = cell.live.lock();
            match outcome {
                Ok(()) => live.shard.forget(&group),
                Err(_) => live.shard.revive(&group),
            }
            outcome
        });
        deleting.await.unwrap_or(Err(CoordError::Stopping))
    }

    /// Deletes some of a group's offsets. One outcome for each partition, in order.
    pub(crate) async fn delete_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), GroupError>>, CoordError> {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId.into());
        }
        let cell = self.cell(group).await?;
        let (outcomes, written) = {
            let mut live = cell.live.lock();
            let slot = live.shard.slot(group).ok_or(GroupError::GroupIdNotFound)?;
            let outcomes = slot.group.check_offset_deletion(partitions.iter().map(|at| at.topic.as_str()))?;
            let wanted = |at: &TopicPartition| {
                partitions.iter().zip(&outcomes).any(|(one, outcome)| one == at && outcome.is_ok())
            };
            let changes = live.shard.delete_offsets(group, wanted);
            (outcomes, (!changes.is_empty()).then(|| cell.write(&mut live, changes)))
        };
        if let Some(written) = written {
            self.finish(cell, written).await?;
        }
        Ok(outcomes)
    }

    /// Removes the offsets of topics that are gone. Until this ends no topic may be made that has the name of one.
    pub(crate) async fn forget_topics(&self, is_gone: impl Fn(&str) -> bool) {
        for cell in self.cells() {
            let loaded = tokio::select! {
                () = self.stop.cancelled() => return,
                loaded = cell.loaded() => loaded,
            };
            if loaded.is_err() {
                continue;
            }
            let written = cell.decide(|shard| shard.of_topics(&is_gone));
            self.write_down(cell, written).await;
        }
    }

    /// Removes what has outlived `offsets.retention.minutes`.
    pub(crate) async fn expire(&self) {
        let retention = self.config.offsets_retention_minutes.saturating_mul(60_000);
        for cell in self.cells() {
            if cell.wait_loaded().await.is_err() {
                continue;
            }
            let now = self.clock.now();
            let mut groups: Vec<String> = Vec::new();
            let written = cell.decide(|shard| {
                let changes = shard.expired(retention, now);
                groups.extend(changes.iter().filter_map(Change::group_id).map(str::to_owned));
                changes
            });
            self.write_down(Arc::clone(&cell), written).await;
            let mut live = cell.live.lock();
            groups.iter().for_each(|group| live.shard.forget(group));
        }
    }

    async fn write_down(&self, cell: Arc<Cell>, written: Option<Writing>) {
        let Some(written) = written else { return };
        if let Err(error) = self.finish(cell, written).await {
            tracing::warn!(%error, "could not remove offsets; trying again later");
        }
    }

    fn cells(&self) -> Vec<Arc<Cell>> {
        self.shards.read().clone()
    }

    /// Does what a group asked for.
    fn carry_out(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        live: &mut super::cell::Live,
        group: &str,
        outputs: Vec<Output>,
    ) {
        for output in outputs {
            match output {
                Output::Join(to, reply) => {
                    let reply = reply.map_err(|(error, member)| (error.into(), member));
                    deliver(live.joins.remove(&to), reply);
                }
                Output::Sync(to, reply) => deliver(live.syncs.remove(&to), reply.map_err(Into::into)),
                Output::Store { token, assignments } => self.store(cell, live, group, token, &assignments),
            }
        }
        if live.schedule(group) {
            self.nearer.notify_one();
        }
    }

    fn store(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        live: &mut super::cell::Live,
        group: &str,
        token: u64,
        assignments: &BTreeMap<String, Bytes>,
    ) {
        let Some(slot) = live.shard.slot(group) else { return };
        let mut snapshot = slot.group.snapshot(assignments);
        snapshot.since = wall_ms();
        let stored = Change::Group { group: group.to_owned(), snapshot: Some(snapshot) };
        let written = cell.write(live, vec![stored]);
        let (coordinator, cell, group) = (Arc::clone(self), Arc::clone(cell), group.to_owned());
        self.tasks.spawn(async move {
            let outcome = cell.finish(written).await.map_err(|_| GroupError::Storage);
            let mut live = cell.live.lock();
            let now = coordinator.clock.now();
            let Some(slot) = live.shard.slot_mut(&group) else { return };
            let outputs = slot.group.stored(token, outcome, &coordinator.rules, now);
            coordinator.carry_out(&cell, &mut live, &group, outputs);
        });
    }

    /// Lets the groups know that time passes. One task for all of them, asleep until the next deadline.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let now = self.clock.now();
            let mut next = now + LONG;
            for cell in self.cells() {
                next = next.min(self.tick(&cell, now));
            }
            let sleep = Duration::from_millis((next - now).max(1).unsigned_abs());
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.nearer.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn tick(self: &Arc<Self>, cell: &Arc<Cell>, now: i64) -> i64 {
        let mut live = cell.live.lock();
        while let Some((due, _)) = live.deadlines.first() {
            if *due > now {
                return *due;
            }
            let Some((_, group)) = live.deadlines.pop_first() else { break };
            live.scheduled.remove(&group);
            let outputs = match live.shard.slot_mut(&group) {
                Some(slot) => slot.group.tick(&self.rules, now),
                None => continue,
            };
            self.carry_out(cell, &mut live, &group, outputs);
            live.shard.tidy(&group);
        }
        i64::MAX
    }
}

fn deliver<T>(to: Option<oneshot::Sender<T>>, reply: T) {
    // A client that left does not read its reply.
    if let Some(to) = to
        && to.send(reply).is_err()
    {
        tracing::debug!("nobody waits for a group reply any more");
    }
}

/// Kafka's place of a group: the hash of Java's `String`, without its sign.
fn partition_of(group: &str, count: usize) -> usize {
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    usize::try_from(hash & i32::MAX).expect("the sign was removed") % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_placed_as_kafka_places_them() {
        for (group, count, expected) in [("a", 50, 97 % 50), ("group", 8, 98_629_247 % 8), ("", 8, 0)] {
            assert_eq!(partition_of(group, count), expected);
        }
    }
}
