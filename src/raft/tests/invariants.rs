//! Each invariant that production checks too fails where it is broken: a state that no input leads
//! to is made by hand, and the core stops with the next input or output.

use crate::raft::log::log::Log;
use crate::raft::log::memberships::Memberships;
use crate::raft::state::read_queues::Round;
use crate::raft::state::role::{Candidate, Follower, Leader, Role};
use crate::raft::state::shared::Install;
use crate::raft::tests::harness::{Cluster, entry, id, index, log_id, voters};
use crate::raft::{
    AnswerClock, Body, HardState, Input, LogIndex, LogRecords, Message, Raft, ReadRound, Session,
    SnapshotMeta, Term, Time, Withdrawal, WriteSequence,
};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A state that must not be, by what the core says of it.
type Broken = (fn(&mut Raft), &'static str);

/// Node 1 leads in term 2 and has three entries, all committed and applied; 2 follows.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, "a").unwrap();
    cluster.run();
    assert_eq!(cluster.log(1), [log_id(1, 1), log_id(2, 2), log_id(3, 2)]);
    cluster
}

fn message_of_a_panic(run: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()))
}

fn check(sound: &Raft, now: u64, broken: &[Broken]) {
    for (damage, expected) in broken {
        let mut broken = sound.clone();
        damage(&mut broken);
        let said = message_of_a_panic(|| {
            // One that is seen only at the output passes the input.
            broken.step(Time::new(now), Input::Wake).unwrap();
            drop(broken.take_output());
        });
        let said = said.unwrap_or_else(|| panic!("nobody noticed: {expected}"));
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
    }
}

fn snapshot(number: u64) -> SnapshotMeta {
    SnapshotMeta {
        last: log_id(number, 2),
        membership: voters(1..=3),
        membership_id: log_id(1, 1),
        bytes: 1,
        hash: 0,
    }
}

fn pending_install(raft: &mut Raft, number: u64) {
    let pending = Some(WriteSequence::new(99));
    let snapshot = Box::new(snapshot(number));
    raft.shared.install =
        Some(Install { snapshot, next_offset: 1, pending, from: id(3), session: Session::new(1) });
}

fn leader(raft: &mut Raft) -> &mut Leader {
    let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
    leader
}

fn follower(raft: &mut Raft) -> &mut Follower {
    let Role::Follower(follower) = &mut raft.role else { panic!("it follows") };
    follower
}

fn candidate(raft: &mut Raft) -> &mut Candidate {
    let Role::Candidate(candidate) = &mut raft.role else { panic!("it stands for election") };
    candidate
}

#[test]
fn indices_are_in_order() {
    let cluster = cluster();
    check(
        cluster.raft(1),
        cluster.now,
        &[
            (|raft| raft.shared.last_applied = index(9), "applied up to 9, but handed out only up to 3"),
            (|raft| raft.shared.handed_out = index(9), "handed out up to 9, but committed only up to 3"),
            (|raft| raft.shared.commit_index = index(9), "committed up to 9, but the log ends at 3"),
            (
                |raft| {
                    raft.shared.log.compact(index(3));
                    (raft.shared.handed_out, raft.shared.last_applied) = (LogIndex::ZERO, LogIndex::ZERO);
                },
                "entries up to 3 left the log, handed out only up to 0",
            ),
            (|raft| raft.shared.hard_state.term = Term::new(1), "the log ends in term 2, after"),
            (|raft| raft.shared.log.plant_durable(index(9)), "durable up to 9, but the log ends at 3"),
            (
                |raft| {
                    raft.shared.log.compact(index(3));
                    raft.shared.log.plant_durable(index(2));
                },
                "entries up to 3 left the log, durable only up to 2",
            ),
            (
                |raft| raft.shared.log = Log::new(log_id(0, 0), vec![entry(2, 2), entry(3, 2)]),
                "the log begins with entry 2, after 0",
            ),
            (
                |raft| {
                    raft.shared.log = Log::new(log_id(0, 0), vec![entry(1, 2), entry(3, 2)]);
                },
                "the log has 2 entries from 0 to 3",
            ),
        ],
    );
}

#[test]
fn snapshots_hold_what_was_handed_out() {
    let cluster = cluster();
    let broken: [Broken; 3] = [
        (
            |raft| raft.shared.snapshot = Some(snapshot(9)),
            "a snapshot holds entries that were not handed out",
        ),
        (
            |raft| raft.shared.markers.push_back((WriteSequence::new(99), snapshot(9))),
            "a snapshot holds entries that were not handed out",
        ),
        (|raft| pending_install(raft, 1), "a snapshot replaces what is committed"),
    ];
    check(cluster.raft(2), cluster.now, &broken);
}

#[test]
fn memberships_ascend() {
    let cluster = cluster();
    let broken: [Broken; 3] = [
        (
            |raft| raft.shared.memberships.plant(log_id(9, 1)),
            "the membership in force is of entry 9, but the log ends at 3",
        ),
        (
            |raft| {
                raft.shared.memberships.plant(log_id(3, 2));
                raft.shared.memberships.plant(log_id(3, 2));
            },
            "memberships ascend",
        ),
        (
            |raft| {
                raft.shared.memberships = Memberships::new(Some((log_id(1, 1), voters(1..=3))));
                (raft.shared.handed_out, raft.shared.last_applied) = (LogIndex::ZERO, LogIndex::ZERO);
            },
            "the oldest membership, of entry 1, was in force before",
        ),
    ];
    check(cluster.raft(2), cluster.now, &broken);
}

#[test]
fn the_stream_of_writes_leaves_nothing_out() {
    let cluster = cluster();
    let broken: [Broken; 6] = [
        (|raft| raft.shared.writes.plant(WriteSequence::new(99), 0), "0 writes are under way, not Some"),
        (
            |raft| {
                raft.shared.writes.hard_state(HardState::default());
                raft.shared.writes.pending = LogRecords::default();
            },
            "the term is in a write",
        ),
        (
            |raft| {
                let (from, to, term) = (id(2), id(1), Term::new(1));
                raft.shared.writes.hold(Message { from, to, term, body: Body::VoteRejected });
            },
            "a message of term Some(Term(1)) waits in term 2",
        ),
        (
            |raft| {
                let issued = raft.shared.writes.stamp();
                raft.shared.writes.plant(issued, 9);
            },
            "what is pending is not synced",
        ),
        (|raft| raft.shared.writes.append(entry(9, 2)), "is written last, of 3"),
        (
            |raft| {
                raft.shared.writes.append(entry(1, 2));
                raft.shared.writes.append(entry(3, 2));
            },
            "the entries of a write are contiguous, up to 3",
        ),
    ];
    check(cluster.raft(2), cluster.now, &broken);
}

#[test]
fn a_role_has_what_it_needs() {
    let mut cluster = cluster();
    let now = cluster.now;
    let broken: [Broken; 6] = [
        (|raft| raft.shared.hard_state.voted_for = None, "a leader voted for itself"),
        (|raft| raft.shared.writes.hard_state(raft.shared.hard_state), "a leader's term is durable"),
        (
            |raft| leader(raft).term_start = index(9),
            "a leader's first entry 9 is in its log, which ends at 3",
        ),
        (
            |raft| {
                let round = Round { number: ReadRound::new(9), index: index(3), requesters: Vec::new() };
                leader(raft).reads.rounds.push_back(round);
            },
            "a round of reads waits that has not begun",
        ),
        (
            |raft| raft.shared.withdrawn = Some(Withdrawal::Contradicted { committed: log_id(1, 1) }),
            "a member that withdrew only follows",
        ),
        (|raft| pending_install(raft, 9), "only a follower has its log replaced"),
    ];
    check(cluster.raft(1), now, &broken);
    let broken: [Broken; 1] =
        [(|raft| follower(raft).leader = Some(id(2)), "a follower does not follow itself")];
    check(cluster.raft(2), now, &broken);
    cluster.node(2).disk_held = true;
    cluster.isolate(1);
    cluster.time_out(2);
    cluster.run();
    let broken: [Broken; 2] = [
        (|raft| raft.shared.hard_state.voted_for = None, "a candidate voted for itself"),
        (|raft| candidate(raft).vote_at = WriteSequence::new(99), "a candidate's vote is written"),
    ];
    check(cluster.raft(2), now, &broken);
}

#[test]
fn a_leader_knows_no_more_of_a_peer_than_can_be() {
    let cluster = cluster();
    let broken: [Broken; 6] = [
        (
            |raft| leader(raft).peers.get_mut(&id(2)).unwrap().next_index = index(3),
            "member 2 has entries up to 3, but 3 is sent next",
        ),
        (
            |raft| {
                let peer = leader(raft).peers.get_mut(&id(2)).unwrap();
                (peer.match_index, peer.next_index) = (index(3), index(9));
                peer.last_sent_at = Some(Time::new(u64::MAX / 2));
            },
            "member 2 is at 3, next 9, beyond the last entry 3",
        ),
        (
            |raft| leader(raft).peers.get_mut(&id(2)).unwrap().sent_commit = index(9),
            "member 2 was told more than is committed",
        ),
        (
            |raft| leader(raft).peers.get_mut(&id(2)).unwrap().sent_round = ReadRound::new(9),
            "member 2 has a round of reads that has not begun",
        ),
        (
            |raft| leader(raft).peers.get_mut(&id(2)).unwrap().confirmed_round = ReadRound::new(9),
            "member 2 has a round of reads that has not begun",
        ),
        (
            |raft| leader(raft).peers.get_mut(&id(2)).unwrap().session = Session::new(99),
            "member 2 has a session that was not given",
        ),
    ];
    check(cluster.raft(1), cluster.now, &broken);
}

#[test]
fn a_receipt_is_for_a_write_that_was_handed_out() {
    let mut cluster = cluster();
    let now = Time::new(cluster.now);
    cluster.node(2).disk_held = true;
    cluster.propose(1, "b").unwrap();
    cluster.run();
    let receipt = cluster.node(2).writes.pop_front().unwrap().into_durable();
    let mut broken = cluster.raft(2).clone();
    broken.shared.writes.plant(WriteSequence::ZERO, 0);
    let said = message_of_a_panic(|| broken.step(now, Input::Durable(receipt)).unwrap());
    assert!(
        said.unwrap().contains("a receipt for write"),
        "it does not take for durable what it did not hand out"
    );
}

#[test]
fn an_answer_leaves_the_next_entry_after_those_that_the_peer_has() {
    let cluster = cluster();
    let now = Time::new(cluster.now);
    let mut broken = cluster.raft(1).clone();
    let peer = leader(&mut broken).peers.get_mut(&id(2)).unwrap();
    let session = peer.session;
    (peer.match_index, peer.next_index) = (index(3), index(2));
    let clock = AnswerClock::default();
    let body = Body::AppendAccepted { session, match_index: index(2), round: ReadRound::ZERO, clock };
    let term = broken.term();
    let answer = Input::Message(Message { from: id(2), to: id(1), term, body });
    let said = message_of_a_panic(|| broken.step(now, answer).unwrap());
    assert!(said.unwrap().contains("a peer has entries up to 3, but 3 is sent next"), "it is found at once");
}
