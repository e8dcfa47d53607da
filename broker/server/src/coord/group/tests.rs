//! Scenarios of a group, as the clients play them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

const RULES: Rules = Rules {
    min_session_timeout_ms: 1000,
    max_session_timeout_ms: 60_000,
    initial_rebalance_delay_ms: 0,
    max_size: 10,
};
const SESSION: i32 = 10_000;
const REBALANCE: i32 = 30_000;

/// A group, a clock and the replies so far.
struct Play {
    group: Group,
    rules: Rules,
    now: i64,
    next_reply: u64,
    joins: HashMap<ReplyTo, Result<Joined, (GroupError, String)>>,
    syncs: HashMap<ReplyTo, Result<Synced, GroupError>>,
    stores: Vec<(u64, BTreeMap<String, Bytes>)>,
}

impl Play {
    fn new() -> Self {
        Self {
            group: Group::new("g", 0),
            rules: RULES,
            now: 0,
            next_reply: 0,
            joins: HashMap::new(),
            syncs: HashMap::new(),
            stores: Vec::new(),
        }
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Join(reply, result) => {
                    assert!(self.joins.insert(reply, result).is_none(), "two replies")
                }
                Output::Sync(reply, result) => {
                    assert!(self.syncs.insert(reply, result).is_none(), "two replies")
                }
                Output::Store { token, assignments } => self.stores.push((token, assignments)),
            }
        }
    }

    fn request(&mut self, member: &str, fresh: &str) -> JoinRequest {
        self.next_reply += 1;
        JoinRequest {
            reply: ReplyTo(self.next_reply),
            member_id: member.to_owned(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            rebalance_timeout_ms: REBALANCE,
            session_timeout_ms: SESSION,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
            fresh_id: fresh.to_owned(),
            known_id_required: false,
            can_skip_assignment: true,
        }
    }

    fn send(&mut self, request: JoinRequest) -> ReplyTo {
        let reply = request.reply;
        let outputs = self.group.join(request, &self.rules, self.now);
        self.take(outputs);
        reply
    }

    fn join(&mut self, member: &str, fresh: &str) -> ReplyTo {
        let request = self.request(member, fresh);
        self.send(request)
    }

    fn static_join(&mut self, member: &str, fresh: &str, instance: &str) -> ReplyTo {
        let request = JoinRequest { instance_id: Some(instance.to_owned()), ..self.request(member, fresh) };
        self.send(request)
    }

    fn joined(&self, reply: ReplyTo) -> Joined {
        self.joins[&reply].clone().expect("the join succeeded")
    }

    fn sync(&mut self, member: &str, assignments: &[(&str, &'static str)]) -> ReplyTo {
        self.next_reply += 1;
        let reply = ReplyTo(self.next_reply);
        let assignment =
            |(id, bytes): &(&str, &'static str)| ((*id).to_owned(), Bytes::from_static(bytes.as_bytes()));
        let request = SyncRequest {
            reply,
            generation: self.group.generation(),
            member_id: member.to_owned(),
            instance_id: None,
            protocol_type: None,
            protocol: None,
            assignments: assignments.iter().map(assignment).collect(),
        };
        let outputs = self.group.sync(request, self.now);
        self.take(outputs);
        reply
    }

    fn store_ends(&mut self, outcome: Result<(), GroupError>) {
        let (token, _) = self.stores.pop().expect("a store is under way");
        let outputs = self.group.stored(token, outcome, &self.rules, self.now);
        self.take(outputs);
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms;
        let outputs = self.group.tick(&self.rules, self.now);
        self.take(outputs);
    }

    fn heartbeat(&mut self, member: &str) -> Result<(), GroupError> {
        self.group.heartbeat(member, None, self.group.generation(), self.now)
    }

    /// A stable group of `a` (leader) and `b`.
    fn pair() -> Self {
        let mut play = Self::new();
        play.join("", "a");
        let b = play.join("", "b");
        let a = play.join("a", "");
        assert_eq!(play.joined(a).members.len(), 2);
        assert_eq!(play.joined(b).leader, "a");
        play.sync("b", &[]);
        play.sync("a", &[("a", "p0"), ("b", "p1")]);
        play.store_ends(Ok(()));
        assert_eq!(play.group.state(), State::Stable);
        play
    }
}

#[test]
fn a_lone_member_joins_at_once_and_gets_its_assignment_after_it_is_stored() {
    let mut play = Play::new();
    let join = play.join("", "a");
    let joined = play.joined(join);
    assert_eq!((joined.generation, joined.leader.as_str(), joined.members.len()), (1, "a", 1));
    let sync = play.sync("a", &[("a", "p0")]);
    assert!(!play.syncs.contains_key(&sync), "not before the store");
    play.store_ends(Ok(()));
    assert_eq!(play.syncs[&sync].as_ref().expect("assigned").assignment, "p0");
}

#[test]
fn a_second_member_waits_until_the_first_has_rejoined() {
    let play = Play::pair();
    assert_eq!(play.group.generation(), 2);
}

#[test]
fn a_heartbeat_during_a_rebalance_tells_the_member_to_rejoin() {
    let mut play = Play::pair();
    assert_eq!(play.heartbeat("a"), Ok(()));
    play.join("", "c");
    assert_eq!(play.heartbeat("a"), Err(GroupError::RebalanceInProgress));
    assert_eq!(play.heartbeat("x"), Err(GroupError::UnknownMemberId));
    assert_eq!(play.group.heartbeat("a", None, 1, play.now), Err(GroupError::IllegalGeneration));
}

#[test]
fn a_member_that_falls_silent_is_out_after_its_session() {
    let mut play = Play::pair();
    play.pass(6_000);
    play.heartbeat("a").expect("alive");
    play.pass(5_000);
    assert_eq!(play.group.members().len(), 1);
    assert_eq!(play.group.state(), State::PreparingRebalance);
    let again = play.join("a", "");
    assert_eq!(play.joined(again).members.len(), 1);
}

#[test]
fn members_that_do_not_rejoin_in_time_are_left_out() {
    let mut play = Play::pair();
    let c = play.join("", "c");
    for _ in 0..6 {
        play.pass(5_000);
        // Both show signs of life but never rejoin.
        assert!(play.heartbeat("a").is_err() || play.heartbeat("b").is_err());
    }
    assert_eq!(play.joined(c).leader, "c");
    assert_eq!(play.group.members().len(), 1);
}

#[test]
fn a_member_that_leaves_starts_a_rebalance_and_the_last_one_empties_the_group() {
    let mut play = Play::pair();
    let leave = |play: &mut Play, id: &str| {
        let leaving = [Leaving { member_id: id.to_owned(), instance_id: None }];
        let (outcomes, outputs) = play.group.leave(&leaving, &play.rules, play.now);
        play.take(outputs);
        outcomes[0]
    };
    assert_eq!(leave(&mut play, "a"), Ok(()));
    assert_eq!(leave(&mut play, "a"), Err(GroupError::UnknownMemberId));
    assert_eq!(play.group.state(), State::PreparingRebalance);
    assert_eq!(leave(&mut play, "b"), Ok(()));
    assert_eq!(play.group.state(), State::Empty);
    let (_, stored) = play.stores.last().expect("the empty group is stored");
    assert!(stored.is_empty());
}

#[test]
fn from_version_4_a_new_member_is_first_told_its_id() {
    let mut play = Play::new();
    let request = JoinRequest { known_id_required: true, ..play.request("", "a") };
    let first = play.send(request);
    assert_eq!(play.joins[&first], Err((GroupError::MemberIdRequired, "a".to_owned())));
    assert!(!play.group.is_unused());
    let second = play.join("a", "");
    assert_eq!(play.joined(second).member_id, "a");
    let stranger = play.join("zz", "");
    assert_eq!(play.joins[&stranger], Err((GroupError::UnknownMemberId, "zz".to_owned())));
}

#[test]
fn an_id_that_is_never_used_does_not_block_the_group() {
    let mut play = Play::new();
    let request = JoinRequest { known_id_required: true, ..play.request("", "ghost") };
    play.send(request);
    let a = play.join("", "a");
    assert!(!play.joins.contains_key(&a));
    play.pass(i64::from(SESSION));
    assert_eq!(play.joined(a).generation, 1);
}

#[test]
fn a_static_member_that_returns_keeps_its_assignment_without_a_rebalance() {
    let mut play = Play::new();
    play.static_join("", "a1", "one");
    play.sync("a1", &[("a1", "p0")]);
    play.store_ends(Ok(()));

    let back = play.static_join("", "a2", "one");
    assert!(!play.joins.contains_key(&back), "not before the new id is stored");
    play.store_ends(Ok(()));
    let joined = play.joined(back);
    assert_eq!((joined.generation, joined.member_id.as_str(), joined.skip_assignment), (1, "a2", true));
    let sync = play.sync("a2", &[]);
    assert_eq!(play.syncs[&sync].as_ref().expect("assigned").assignment, "p0");
    assert_eq!(play.group.heartbeat("a1", Some("one"), 1, 0), Err(GroupError::FencedInstanceId));
    assert_eq!(play.group.heartbeat("a1", None, 1, 0), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_static_member_whose_new_id_cannot_be_stored_keeps_the_old_one() {
    let mut play = Play::new();
    play.static_join("", "a1", "one");
    play.sync("a1", &[("a1", "p0")]);
    play.store_ends(Ok(()));

    let back = play.static_join("", "a2", "one");
    play.store_ends(Err(GroupError::Storage));
    assert_eq!(play.joins[&back], Err((GroupError::Storage, String::new())));
    assert_eq!(play.group.heartbeat("a1", Some("one"), 1, 0), Ok(()));
    let again = play.static_join("", "a3", "one");
    play.store_ends(Ok(()));
    assert_eq!(play.joined(again).leader, "a3");
}

#[test]
fn of_two_that_return_at_once_with_one_instance_id_the_later_one_stays() {
    let mut play = Play::new();
    play.static_join("", "a1", "one");
    play.sync("a1", &[("a1", "p0")]);
    play.store_ends(Ok(()));

    let first = play.static_join("", "a2", "one");
    let second = play.static_join("", "a3", "one");
    play.store_ends(Ok(()));
    play.store_ends(Ok(()));
    assert_eq!(play.joins[&first], Err((GroupError::FencedInstanceId, "a2".to_owned())));
    assert_eq!(play.joined(second).member_id, "a3");
    assert_eq!(play.group.heartbeat("a3", Some("one"), 1, 0), Ok(()));
}

#[test]
fn offsets_of_topics_that_members_read_cannot_be_deleted() {
    let mut play = Play::new();
    let check = |play: &Play| play.group.check_offset_deletion(["orders", "other"].into_iter());
    assert_eq!(check(&play), Ok(vec![Ok(()), Ok(())]), "a group without members reads nothing");
    let subscription = aqueduct_wire::messages::ConsumerProtocolSubscription {
        topics: vec!["orders".into()],
        ..Default::default()
    };
    let mut metadata = aqueduct_wire::Writer::new();
    metadata.i16(1);
    subscription.encode(&mut metadata, 1).expect("encodes");
    let metadata = metadata.into_bytes();
    let request = JoinRequest { protocols: vec![("range".to_owned(), metadata)], ..play.request("", "a") };
    play.send(request);
    assert_eq!(check(&play), Ok(vec![Err(GroupError::SubscribedToTopic), Ok(())]));
    let mut play = Play::pair();
    let opaque = Err(GroupError::SubscribedToTopic);
    assert_eq!(check(&play), Ok(vec![opaque, opaque]), "what a member reads is not known");
    play.group.protocol_type = Some("connect".to_owned());
    assert_eq!(check(&play), Err(GroupError::NonEmptyGroup));
}

#[test]
fn before_version_9_a_returning_static_leader_is_not_told_that_it_leads() {
    let mut play = Play::new();
    play.static_join("", "a1", "one");
    play.sync("a1", &[("a1", "p0")]);
    play.store_ends(Ok(()));
    let instance_id = Some("one".to_owned());
    let request = JoinRequest { instance_id, can_skip_assignment: false, ..play.request("", "a2") };
    let back = play.send(request);
    play.store_ends(Ok(()));
    let joined = play.joined(back);
    assert_eq!((joined.leader.as_str(), joined.members.len()), ("a1", 0));
}

#[test]
fn static_members_can_be_removed_by_their_instance() {
    let mut play = Play::new();
    play.static_join("", "a1", "one");
    let fenced = Leaving { member_id: "old".to_owned(), instance_id: Some("one".to_owned()) };
    let by_instance = Leaving { member_id: String::new(), instance_id: Some("one".to_owned()) };
    let (outcomes, _) = play.group.leave(&[fenced, by_instance], &play.rules, play.now);
    assert_eq!(outcomes, [Err(GroupError::FencedInstanceId), Ok(())]);
    assert_eq!(play.group.state(), State::Empty);
}

#[test]
fn an_assignment_that_cannot_be_stored_is_not_handed_out() {
    let mut play = Play::new();
    play.join("", "a");
    let sync = play.sync("a", &[("a", "p0")]);
    play.store_ends(Err(GroupError::Storage));
    assert_eq!(play.syncs[&sync], Err(GroupError::Storage));
    assert_eq!(play.group.state(), State::PreparingRebalance);
}

#[test]
fn a_store_that_a_rebalance_overtook_changes_nothing() {
    let mut play = Play::new();
    play.join("", "a");
    let sync = play.sync("a", &[("a", "p0")]);
    play.join("", "b");
    assert_eq!(play.syncs[&sync], Err(GroupError::RebalanceInProgress));
    play.store_ends(Ok(()));
    assert_eq!(play.group.state(), State::PreparingRebalance);
}

#[test]
fn a_member_that_joins_but_never_syncs_is_out_after_the_rebalance_timeout() {
    let mut play = Play::pair();
    let a = play.join("a", "");
    play.join("b", "");
    play.joined(a);
    play.sync("b", &[]);
    for _ in 0..REBALANCE / 5_000 {
        play.pass(5_000);
        let _alive = play.heartbeat("a");
    }
    assert_eq!(play.group.members().iter().map(|member| member.id.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn the_protocol_is_one_that_all_support_and_most_prefer() {
    let mut play = Play::new();
    let names =
        |list: &[&str]| list.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect::<Vec<_>>();
    let a = JoinRequest { protocols: names(&["sticky", "range"]), ..play.request("", "a") };
    play.send(a);
    let b = JoinRequest { protocols: names(&["range", "roundrobin"]), ..play.request("", "b") };
    let b = play.send(b);
    let a = JoinRequest { protocols: names(&["sticky", "range"]), ..play.request("a", "") };
    play.send(a);
    assert_eq!(play.joined(b).protocol, "range");
    let c = JoinRequest { protocols: names(&["sticky"]), ..play.request("", "c") };
    let c = play.send(c);
    assert_eq!(play.joins[&c], Err((GroupError::InconsistentGroupProtocol, String::new())));
    let d = JoinRequest { protocol_type: "connect".to_owned(), ..play.request("", "d") };
    let d = play.send(d);
    assert_eq!(play.joins[&d], Err((GroupError::InconsistentGroupProtocol, String::new())));
}

#[test]
fn limits_on_sessions_and_size_hold() {
    let mut play = Play::new();
    let request = JoinRequest { session_timeout_ms: 10, ..play.request("", "a") };
    let short = play.send(request);
    assert_eq!(play.joins[&short], Err((GroupError::InvalidSessionTimeout, String::new())));
    play.rules.max_size = 1;
    play.join("", "a");
    let full = play.join("", "b");
    assert_eq!(play.joins[&full], Err((GroupError::GroupMaxSizeReached, String::new())));
}

#[test]
fn the_initial_delay_gathers_the_members_of_a_new_group() {
    let mut play = Play::new();
    play.rules.initial_rebalance_delay_ms = 3_000;
    let a = play.join("", "a");
    play.pass(2_000);
    let b = play.join("", "b");
    play.pass(2_000);
    assert!(!play.joins.contains_key(&a) && !play.joins.contains_key(&b));
    assert_eq!(play.group.next_deadline(), Some(5_000));
    play.pass(1_000);
    assert_eq!(play.joined(a).members.len(), 2);
    assert_eq!(play.joined(b).generation, 1);
}

#[test]
fn commits_need_a_member_of_the_present_generation_or_an_empty_group() {
    let mut play = Play::new();
    assert_eq!(play.group.check_commit("", None, -1, 0), Ok(()));
    let mut play = Play::pair();
    assert_eq!(play.group.check_commit("a", None, 2, 0), Ok(()));
    assert_eq!(play.group.check_commit("a", None, 1, 0), Err(GroupError::IllegalGeneration));
    assert_eq!(play.group.check_commit("x", None, 2, 0), Err(GroupError::UnknownMemberId));
    assert_eq!(play.group.check_commit("", None, -1, 0), Err(GroupError::UnknownMemberId));
    play.join("", "c");
    assert_eq!(play.group.check_commit("a", None, 2, 0), Ok(()), "the last commit before rejoining");
}

#[test]
fn a_restored_group_goes_on_where_it_was() {
    let play = Play::pair();
    let assigned = |member: &Member| (member.id.clone(), member.assignment.clone());
    let assignments = play.group.members().iter().map(assigned).collect();
    let snapshot = play.group.snapshot(&assignments);
    let mut restored = Group::restored("g", snapshot.clone(), 5_000);
    assert_eq!(restored.snapshot(&assignments), snapshot);
    assert_eq!(restored.heartbeat("b", None, 2, 6_000), Ok(()));
    assert_eq!(restored.next_deadline(), Some(5_000 + i64::from(SESSION)));
}
