//! Fetch sessions (KIP-227): a client that reads many partitions names only what changed, and is told only what changed.
//! Invariant: pure; time and fresh ids come with the call. The cache is bounded in sessions and in partitions, and every
//! session that is dropped shows to its client as `FETCH_SESSION_ID_NOT_FOUND`, after which it sends everything again.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use aqueduct_wire::ByteString;

/// The session id of a request or answer without a session.
pub(crate) const NO_SESSION: i32 = 0;
/// The epoch of a request that asks for a new session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that asks for no session, and ends the one it names.
const FINAL_EPOCH: i32 = -1;

/// How a request names a topic, which its version decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Name(ByteString),
    Id(Uuid),
}

/// A partition as a client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) topic: TopicKey,
    pub(crate) partition: i32,
}

/// What a client wants of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) key: Key,
    pub(crate) offset: i64,
    pub(crate) max_bytes: i32,
    pub(crate) leader_epoch: i32,
}

/// What a partition's part of the answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) error: bool,
    pub(crate) has_records: bool,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) session: i32,
    pub(crate) epoch: i32,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) forgotten: Vec<Key>,
    /// Whether topics are named by id.
    pub(crate) by_id: bool,
}

/// How a request is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// All of these, without a session.
    Once(Vec<Wanted>),
    /// All of these, then [`Sessions::open`].
    Open(Vec<Wanted>),
    /// What changed of these, by [`Sessions::changed`].
    Changes(i32, Vec<Wanted>),
}

/// Why a request cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionError {
    NotFound,
    InvalidEpoch,
    /// The session was opened with names and goes on with ids, or the other way round.
    TopicIds,
}

/// Ceilings of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Kafka's `max.incremental.fetch.session.cache.slots`.
    pub(crate) sessions: usize,
    /// Partitions of all sessions together.
    pub(crate) partitions: usize,
    /// Kafka's `min.incremental.fetch.session.eviction.ms`: who was silent for longer makes room for anybody, who is
    /// older makes room for a larger session.
    pub(crate) eviction_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 1_000, partitions: 200_000, eviction_ms: 120_000 }
    }
}

#[derive(Debug)]
struct Cached {
    wanted: Wanted,
    /// As the client knows them.
    high_watermark: i64,
    log_start: i64,
}

#[derive(Debug)]
struct Session {
    by_id: bool,
    /// The epoch of the next request.
    epoch: i32,
    created: i64,
    used: i64,
    /// In the order in which they are read: what had records goes to the end, so that none starves.
    order: BTreeMap<u64, Cached>,
    places: HashMap<Key, u64>,
    next_place: u64,
}

impl Session {
    fn want(&mut self, wanted: Wanted) {
        if let Some(cached) = self.places.get(&wanted.key).and_then(|place| self.order.get_mut(place)) {
            cached.wanted = wanted;
            return;
        }
        // A mark that no partition has: the first answer always holds it.
        self.append(Cached { wanted, high_watermark: -1, log_start: -1 });
    }

    fn append(&mut self, cached: Cached) {
        self.places.insert(cached.wanted.key.clone(), self.next_place);
        self.order.insert(self.next_place, cached);
        self.next_place += 1;
    }

    fn forget(&mut self, key: &Key) {
        if let Some(place) = self.places.remove(key) {
            self.order.remove(&place);
        }
    }

    /// Takes over what the answer says. Whether the client must be told.
    fn see(&mut self, key: &Key, seen: Seen) -> bool {
        let Some(place) = self.places.get(key).copied() else { return true };
        let Some(cached) = self.order.get_mut(&place) else { return true };
        let changed = cached.high_watermark != seen.high_watermark || cached.log_start != seen.log_start;
        // After an error the partition is told again once it is well.
        cached.high_watermark = if seen.error { -1 } else { seen.high_watermark };
        cached.log_start = seen.log_start;
        if seen.has_records
            && let Some(cached) = self.order.remove(&place)
        {
            self.append(cached);
        }
        changed || seen.error || seen.has_records
    }

    fn wanted(&self) -> Vec<Wanted> {
        self.order.values().map(|cached| cached.wanted.clone()).collect()
    }
}

/// The sessions of all clients.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    limits: Limits,
    sessions: HashMap<i32, Session>,
    /// Of all sessions together.
    partitions: usize,
    evicted: u64,
}

impl Sessions {
    #[cfg(test)]
    fn with(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn partitions(&self) -> usize {
        self.partitions
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What a request asks for, all in all.
    pub(crate) fn begin(&mut self, asked: Asked, now: i64) -> Result<Plan, SessionError> {
        let Asked { session: id, epoch, wanted, forgotten, by_id } = asked;
        if epoch == FINAL_EPOCH || epoch == INITIAL_EPOCH {
            self.close(id);
            return Ok(if epoch == INITIAL_EPOCH { Plan::Open(wanted) } else { Plan::Once(wanted) });
        }
        let session = self.sessions.get_mut(&id).ok_or(SessionError::NotFound)?;
        if session.epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if session.by_id != by_id {
            return Err(SessionError::TopicIds);
        }
        let before = session.order.len();
        wanted.into_iter().for_each(|wanted| session.want(wanted));
        forgotten.iter().for_each(|key| session.forget(key));
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        session.used = now;
        self.partitions = self.partitions + session.order.len() - before;
        if session.order.is_empty() {
            self.close(id);
            return Ok(Plan::Once(Vec::new()));
        }
        let all = session.wanted();
        // A session that grew may have taken more than there is.
        while self.partitions > self.limits.partitions {
            match self.stalest(Some(id)) {
                Some(other) => self.evict(other),
                None => break,
            }
        }
        if self.partitions > self.limits.partitions {
            self.evict(id);
            return Ok(Plan::Once(all));
        }
        Ok(Plan::Changes(id, all))
    }

    /// Opens a session over an answer that was made in full; its id, or [`NO_SESSION`] when there is no room. `fresh`
    /// draws positive numbers.
    pub(crate) fn open(
        &mut self,
        answered: impl ExactSizeIterator<Item = (Wanted, Seen)>,
        by_id: bool,
        mut fresh: impl FnMut() -> i32,
        now: i64,
    ) -> i32 {
        let size = answered.len();
        if size == 0 || !self.make_room(size, now) {
            return NO_SESSION;
        }
        let id = loop {
            let id = fresh();
            if id > NO_SESSION && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            by_id,
            epoch: INITIAL_EPOCH + 1,
            created: now,
            used: now,
            order: BTreeMap::new(),
            places: HashMap::with_capacity(size),
            next_place: 0,
        };
        for (wanted, seen) in answered {
            let key = wanted.key.clone();
            session.want(wanted);
            session.see(&key, seen);
        }
        self.partitions += session.order.len();
        self.sessions.insert(id, session);
        id
    }

    /// Which parts of an answer the client must be told, in order; all of them when the session is gone meanwhile.
    pub(crate) fn changed<'a>(
        &mut self,
        id: i32,
        answered: impl Iterator<Item = (&'a Key, Seen)>,
    ) -> Vec<bool> {
        let mut session = self.sessions.get_mut(&id);
        answered.map(|(key, seen)| session.as_mut().is_none_or(|session| session.see(key, seen))).collect()
    }

    fn close(&mut self, id: i32) -> bool {
        let Some(session) = self.sessions.remove(&id) else { return false };
        self.partitions -= session.order.len();
        true
    }

    fn evict(&mut self, id: i32) {
        self.evicted += u64::from(self.close(id));
    }

    fn stalest(&self, except: Option<i32>) -> Option<i32> {
        let others = self.sessions.iter().filter(|(id, _)| Some(**id) != except);
        others.min_by_key(|(id, session)| (session.used, **id)).map(|(id, _)| *id)
    }

    /// Kafka's rule: first who was silent for long, then who is old and smaller than the new one.
    fn make_room(&mut self, size: usize, now: i64) -> bool {
        let fits = |sessions: &Self| {
            sessions.sessions.len() < sessions.limits.sessions
                && sessions.partitions + size <= sessions.limits.partitions
        };
        while !fits(self) {
            let since = now.saturating_sub(self.limits.eviction_ms);
            let silent = self.stalest(None).filter(|id| self.sessions[id].used < since);
            let smaller = || {
                let old = self.sessions.iter().filter(|(_, session)| session.created < since);
                let smallest = old.min_by_key(|(id, session)| (session.order.len(), **id));
                smallest.filter(|(_, session)| session.order.len() < size).map(|(id, _)| *id)
            };
            match silent.or_else(smaller) {
                Some(id) => self.evict(id),
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> Key {
        Key { topic: TopicKey::Name("orders".into()), partition }
    }

    fn want(partition: i32, offset: i64) -> Wanted {
        Wanted { key: key(partition), offset, max_bytes: 100, leader_epoch: -1 }
    }

    fn seen(high_watermark: i64) -> Seen {
        Seen { error: false, has_records: false, high_watermark, log_start: 0 }
    }

    fn ask(session: i32, epoch: i32, wanted: Vec<Wanted>) -> Asked {
        Asked { session, epoch, wanted, forgotten: Vec::new(), by_id: false }
    }

    /// A session over partitions `0..count`, each with the high watermark 0.
    fn open(sessions: &mut Sessions, id: i32, count: i32, now: i64) -> i32 {
        let wanted: Vec<Wanted> = (0..count).map(|partition| want(partition, 0)).collect();
        let plan = sessions.begin(ask(0, INITIAL_EPOCH, wanted.clone()), now);
        assert_eq!(plan, Ok(Plan::Open(wanted.clone())));
        let answered: Vec<_> = wanted.into_iter().map(|wanted| (wanted, seen(0))).collect();
        sessions.open(answered.into_iter(), false, || id, now)
    }

    fn order(plan: Result<Plan, SessionError>) -> Vec<i32> {
        match plan.expect("goes on") {
            Plan::Changes(_, wanted) => wanted.iter().map(|wanted| wanted.key.partition).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_session_goes_on_with_what_changed_alone() {
        let mut sessions = Sessions::default();
        assert_eq!(open(&mut sessions, 7, 3, 0), 7);
        let plan = sessions.begin(ask(7, 1, vec![want(1, 5)]), 0);
        let expected = vec![want(0, 0), want(1, 5), want(2, 0)];
        assert_eq!(plan, Ok(Plan::Changes(7, expected)));
        let keys = [key(0), key(1), key(2)];
        let answer = [seen(0), seen(4), Seen { error: true, ..seen(0) }];
        assert_eq!(sessions.changed(7, keys.iter().zip(answer)), [false, true, true]);
        // What was an error is told again when it is well.
        let answer = [seen(0), seen(4), seen(0)];
        assert_eq!(sessions.changed(7, keys.iter().zip(answer)), [false, false, true]);
        let moved = Seen { log_start: 3, ..seen(4) };
        assert_eq!(sessions.changed(7, [(&keys[1], moved)].into_iter()), [true]);
    }

    #[test]
    fn partitions_with_records_go_to_the_end() {
        let mut sessions = Sessions::default();
        open(&mut sessions, 7, 3, 0);
        let full = Seen { has_records: true, ..seen(9) };
        assert_eq!(sessions.changed(7, [(&key(0), full)].into_iter()), [true]);
        assert_eq!(order(sessions.begin(ask(7, 1, Vec::new()), 0)), [1, 2, 0]);
    }

    #[test]
    fn forgotten_partitions_are_gone_and_an_empty_session_ends() {
        let mut sessions = Sessions::default();
        open(&mut sessions, 7, 2, 0);
        let forget =
            |epoch, partition| Asked { forgotten: vec![key(partition)], ..ask(7, epoch, Vec::new()) };
        assert_eq!(order(sessions.begin(forget(1, 0), 0)), [1]);
        assert_eq!(sessions.partitions(), 1);
        assert_eq!(sessions.begin(forget(2, 1), 0), Ok(Plan::Once(Vec::new())));
        assert_eq!((sessions.len(), sessions.partitions()), (0, 0));
    }

    #[test]
    fn epochs_count_and_wrap() {
        let mut sessions = Sessions::default();
        open(&mut sessions, 7, 1, 0);
        assert_eq!(sessions.begin(ask(8, 1, Vec::new()), 0), Err(SessionError::NotFound));
        assert_eq!(sessions.begin(ask(7, 2, Vec::new()), 0), Err(SessionError::InvalidEpoch));
        let by_id = Asked { by_id: true, ..ask(7, 1, Vec::new()) };
        assert_eq!(sessions.begin(by_id, 0), Err(SessionError::TopicIds));
        assert_eq!(order(sessions.begin(ask(7, 1, Vec::new()), 0)), [0]);
        sessions.sessions.get_mut(&7).expect("is there").epoch = i32::MAX;
        assert_eq!(order(sessions.begin(ask(7, i32::MAX, Vec::new()), 0)), [0]);
        assert_eq!(order(sessions.begin(ask(7, 1, Vec::new()), 0)), [0]);
        assert_eq!(sessions.begin(ask(7, FINAL_EPOCH, Vec::new()), 0), Ok(Plan::Once(Vec::new())));
        assert_eq!(sessions.begin(ask(7, 2, Vec::new()), 0), Err(SessionError::NotFound));
    }

    #[test]
    fn a_full_cache_gives_up_who_is_silent_then_who_is_old_and_smaller() {
        let limits = Limits { sessions: 2, partitions: 100, eviction_ms: 1_000 };
        let mut sessions = Sessions::with(limits);
        open(&mut sessions, 1, 2, 0);
        open(&mut sessions, 2, 5, 0);
        assert_eq!(open(&mut sessions, 3, 9, 500), NO_SESSION, "both are young");
        order(sessions.begin(ask(1, 1, Vec::new()), 1_200));
        assert_eq!(open(&mut sessions, 3, 1, 1_300), 3, "the second one was silent");
        assert_eq!(sessions.begin(ask(2, 1, Vec::new()), 1_300), Err(SessionError::NotFound));
        assert_eq!(open(&mut sessions, 4, 2, 1_300), NO_SESSION, "no larger than the old one");
        assert_eq!(open(&mut sessions, 4, 3, 1_300), 4, "larger than the old one");
        assert_eq!(sessions.begin(ask(1, 2, Vec::new()), 1_300), Err(SessionError::NotFound));
        assert_eq!((sessions.len(), sessions.partitions(), sessions.evicted()), (2, 4, 2));
    }

    #[test]
    fn partitions_are_bounded_over_all_sessions() {
        let limits = Limits { sessions: 10, partitions: 10, eviction_ms: 1_000 };
        let mut sessions = Sessions::with(limits);
        assert_eq!(open(&mut sessions, 1, 11, 0), NO_SESSION);
        open(&mut sessions, 1, 4, 0);
        open(&mut sessions, 2, 4, 1);
        let more = (10..16).map(|partition| want(partition, 0)).collect();
        let grown = order(sessions.begin(ask(2, 1, more), 2));
        assert_eq!((grown.len(), sessions.len(), sessions.partitions()), (10, 1, 10));
        let beyond = sessions.begin(ask(2, 2, vec![want(99, 0)]), 3);
        assert!(matches!(beyond, Ok(Plan::Once(all)) if all.len() == 11));
        assert_eq!((sessions.len(), sessions.partitions()), (0, 0));
    }
}
