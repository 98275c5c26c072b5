use super::{Checks, Violation};
use crate::checks::durable::{DurableModel, WriteSketch};
use infinitystore::kv::{Op, Store};
use infinitystore::raft::{
    AnswerClock, Body, Config, Entry, EntryKind, HardState, Incarnation, LogId, LogIndex, LogRecords,
    Membership, Message, NodeId, Restored, RoleName, Session, StoreId, Term, Time, Withdrawal,
};
use infinitystore::replica::{
    ClientRequest, Event, Notice, PeerMessage, Replica, ReplicaConfig, ReplicaStart, RequestId, StorageEvent,
    StorageRequest,
};
use std::collections::BTreeMap;

const ONE: NodeId = NodeId::new(1);
const TWO: NodeId = NodeId::new(2);

fn at(term: u64, index: u64) -> LogId {
    LogId::new(Term::new(term), LogIndex::new(index))
}

/// A replica that starts as one of `voters` voters. A single voter leads at once.
fn replica(id: NodeId, voters: u64) -> Replica {
    let member = |id: u64| infinitystore::raft::Member {
        name: format!("n{id}"),
        raft_addr: format!("m{id}:1"),
        http_addr: format!("m{id}:2"),
        store_id: StoreId(u128::from(id)),
    };
    let members: BTreeMap<NodeId, _> = (1..=voters).map(|id| (NodeId::new(id), member(id))).collect();
    let membership = Membership {
        voters: members.keys().copied().collect(),
        outgoing: None,
        learners: BTreeMap::new(),
        next_member_id: NodeId::new(voters + 1),
        members,
    };
    let entry = Entry::new(at(1, 1), EntryKind::Membership, &membership.encode());
    let restored = Restored {
        hard_state: HardState { term: Term::new(1), voted_for: None },
        entries: vec![entry],
        ..Restored::default()
    };
    let config = ReplicaConfig { raft: Config::default(), ..ReplicaConfig::default() };
    let incarnation = Incarnation::new(1);
    let start = ReplicaStart { id, incarnation, seed: 1, restored, store: Store::default() };
    Replica::new(config, start, Time::new(1)).unwrap()
}

/// Makes everything durable that it asks for, and tells `durable`.
fn settle(replica: &mut Replica, durable: &mut DurableModel) {
    loop {
        let writes: Vec<_> = replica
            .take_actions()
            .storage
            .into_iter()
            .filter_map(|request| if let StorageRequest::Write(write) = request { Some(write) } else { None })
            .collect();
        if writes.is_empty() {
            return;
        }
        for write in writes {
            durable.apply(&WriteSketch::of(write.records()));
            let receipt = write.into_durable();
            let event = StorageEvent::Durable { receipt, installed: None, refused: None };
            replica.step(Time::new(2), Event::Storage(event));
        }
    }
}

/// The leader of a cluster of one, with a write in its log, and what its disk holds.
fn leader() -> (Replica, DurableModel) {
    let mut durable = holds(1, None, &[at(1, 1)]);
    let mut replica = replica(ONE, 1);
    settle(&mut replica, &mut durable);
    let request = ClientRequest::write(Op::set("key1", "a"));
    replica.step(
        Time::new(3),
        Event::Client { id: RequestId(1), deadline: Time::new(1_000), by: None, request },
    );
    settle(&mut replica, &mut durable);
    assert_eq!(replica.raft().role(), RoleName::Leader);
    (replica, durable)
}

fn holds(term: u64, voted_for: Option<NodeId>, log: &[LogId]) -> DurableModel {
    let entries = log.iter().map(|id| Entry::new(*id, EntryKind::Empty, b"")).collect();
    let hard_state = Some(HardState { term: Term::new(term), voted_for });
    let mut model = DurableModel::default();
    model.apply(&WriteSketch::of(&LogRecords { hard_state, entries, ..LogRecords::default() }));
    model
}

#[track_caller]
fn refuses(check: &str, result: Result<(), Violation>) {
    assert_eq!(result.map_err(|violation| violation.check), Err(check));
}

#[test]
fn what_is_not_durable_may_not_be_said() {
    let say = |term, body, durable: &DurableModel| {
        let message = Message { from: ONE, to: TWO, term: Term::new(term), body };
        Checks::default().sent(&message, durable)
    };
    let grant = || Body::VoteGranted;
    let ask = || Body::RequestVote { last_log: LogId::ZERO, transfer: false };
    let accept = || Body::AppendAccepted {
        session: Session::new(1),
        match_index: LogIndex::new(2),
        round: infinitystore::raft::ReadRound::ZERO,
        clock: AnswerClock::default(),
    };
    let installed = || Body::SnapshotInstalled { session: Session::new(1), match_index: LogIndex::new(2) };
    let log = [at(1, 1), at(1, 2)];
    assert_eq!(say(3, grant(), &holds(3, Some(TWO), &log)), Ok(()));
    refuses("persist before send", say(3, grant(), &holds(3, None, &log)));
    refuses("persist before send", say(3, grant(), &holds(3, Some(ONE), &log)));
    refuses("persist before send", say(3, grant(), &holds(2, Some(TWO), &log)));
    assert_eq!(say(3, ask(), &holds(3, Some(ONE), &log)), Ok(()));
    refuses("persist before send", say(3, ask(), &holds(3, Some(TWO), &log)));
    for acknowledge in [accept, installed] {
        assert_eq!(say(3, acknowledge(), &holds(3, None, &log)), Ok(()));
        refuses("persist before send", say(3, acknowledge(), &holds(3, None, &log[..1])));
        refuses("persist before send", say(3, acknowledge(), &holds(2, None, &log)));
        refuses("persist before send", say(3, acknowledge(), &holds(4, None, &log)));
    }
}

#[test]
fn a_second_vote_in_a_term_is_refused() {
    let mut checks = Checks::default();
    let grant = |to| Message { from: ONE, to, term: Term::new(3), body: Body::VoteGranted };
    assert_eq!(checks.sent(&grant(TWO), &holds(3, Some(TWO), &[])), Ok(()));
    let third = NodeId::new(3);
    refuses("one vote a term", checks.sent(&grant(third), &holds(3, Some(third), &[])));
}

#[test]
fn two_leaders_of_a_term_are_refused() {
    let mut checks = Checks::default();
    let lead = |checks: &mut Checks, id| checks.role_changed(&replica(id, 3), RoleName::Leader, Term::new(1));
    assert_eq!(lead(&mut checks, ONE), Ok(()));
    refuses("election safety", lead(&mut checks, TWO));
}

#[test]
fn a_leader_without_a_committed_entry_is_refused() {
    let (leader, _) = leader();
    let mut checks = Checks::default();
    for entry in leader.raft().log_after(LogIndex::ZERO) {
        checks.applied(&leader, &entry).unwrap();
    }
    let (id, term) = (leader.raft().id(), leader.raft().term());
    assert_eq!(checks.role_changed(&leader, RoleName::Leader, term), Ok(()), "its own term");
    checks.committed_in = Term::ZERO;
    checks.leaders.clear();
    let lacking = replica(id, 1);
    refuses("leader completeness", checks.role_changed(&lacking, RoleName::Leader, lacking.raft().term()));
}

#[test]
fn an_entry_that_changes_a_gap_and_a_lower_term_are_refused() {
    let replica = replica(ONE, 3);
    let entry = |id, text: &[u8]| Entry::new(id, EntryKind::Empty, text);
    let mut checks = Checks::default();
    assert_eq!(checks.applied(&replica, &entry(at(2, 1), b"")), Ok(()));
    assert_eq!(checks.applied(&replica, &entry(at(2, 1), b"")), Ok(()));
    refuses("committed never changes", checks.applied(&replica, &entry(at(3, 1), b"")));
    refuses("no gap", checks.applied(&replica, &entry(at(2, 3), b"")));
    refuses("terms grow along the log", checks.applied(&replica, &entry(at(1, 2), b"")));
}

#[test]
fn what_is_committed_twice_is_refused() {
    let (leader, _) = leader();
    let write = leader.raft().log_after(LogIndex::ZERO).pop().unwrap();
    let mut checks = Checks::default();
    assert_eq!(checks.once(&write), Ok(()));
    refuses("proposed once", checks.once(&write));
    checks.proposals.clear();
    refuses("applied once", checks.once(&write));
}

#[test]
fn what_is_committed_and_not_durable_is_refused() {
    let (leader, durable) = leader();
    let judge = |durable: Option<&DurableModel>| Checks::default().replicated(&leader, |_| durable);
    assert_eq!(judge(Some(&durable)), Ok(()));
    let check = "committed is durable on a majority";
    refuses(check, judge(None));
    refuses(check, judge(Some(&DurableModel::default())));
    let last = leader.raft().commit_index().get();
    let mut other = durable;
    let entries = vec![Entry::new(at(9, last), EntryKind::Empty, b"")];
    let truncate_from = Some(LogIndex::new(last));
    other.apply(&WriteSketch::of(&LogRecords { truncate_from, entries, ..LogRecords::default() }));
    refuses(check, judge(Some(&other)));
}

#[test]
fn another_state_at_the_same_index_and_a_bad_message_are_refused() {
    let mut checks = Checks::default();
    let (leader, _) = leader();
    checks.states.insert(leader.last_applied().index, 0);
    refuses("same state at the same index", checks.same_state(&leader));
    let notices = [Notice::BadMessage { from: TWO, reason: "nonsense".to_owned() }];
    let mut shown = crate::checks::observed::Observed::at_start(LogIndex::ZERO);
    let stepped = |notices: &[Notice], shown: &mut _| {
        Checks::default().stepped(0, &leader, notices, shown, &mut BTreeMap::new())
    };
    refuses("no correct peer says that", stepped(&notices, &mut shown));
    let mut ahead = crate::checks::observed::Observed::at_start(LogIndex::new(99));
    refuses("applied never goes back", stepped(&[], &mut ahead));
}

#[test]
fn a_member_that_has_withdrawn_and_votes_is_refused() {
    let says =
        |body: Body| PeerMessage::Raft(Message { from: NodeId::new(1), to: TWO, term: Term::new(3), body });
    let why = Withdrawal::Contradicted { committed: LogId::ZERO };
    let (told, vote) = (says(Body::Withdrawn(why)), says(Body::VoteGranted));
    assert_eq!(super::is_silent(0, true, std::slice::from_ref(&told)), Ok(()));
    assert_eq!(super::is_silent(0, false, std::slice::from_ref(&vote)), Ok(()), "it was said before");
    refuses("a member that has withdrawn is silent", super::is_silent(0, true, &[told, vote]));
}
