//! What other cores got wrong: one test for each rule of the table in docs/protocol.md. Reads,
//! memberships and snapshots have their own files.

use crate::raft::state::role::Role;
use crate::raft::tests::harness::{Cluster, entry, id, index, log_id, made_with, voters};
use crate::raft::{
    AnswerClock, Body, ClockReading, Config, Incarnation, Input, LogIndex, RaftEvent, ReadRound,
    ReplicationState, RoleName, Session, Term, Time, Withdrawal,
};
use alloc::vec;

/// A leader 1 of three in term 4, elected with a log that ends in 2@2; its own 3@4 is not
/// acknowledged by anybody.
fn figure_8() -> Cluster {
    let mut cluster = Cluster::new(3);
    for number in [1, 2] {
        let mut restored = made_with(&voters(1..=3));
        restored.hard_state.term = Term::new(3);
        restored.entries.push(entry(2, 2));
        cluster.add(number, restored);
    }
    cluster.network.clear();
    cluster.time_out(1);
    cluster.say(2, 1, 3, Body::PreVoteGranted { campaign_term: Term::new(4) });
    cluster.sync(1);
    cluster.say(2, 1, 4, Body::VoteGranted);
    assert_eq!(cluster.raft(1).role(), RoleName::Leader);
    cluster.sync(1);
    cluster.network.clear();
    cluster
}

/// Puts the leader's own entry on 2's disk.
fn replicate_to_2(cluster: &mut Cluster) {
    let own = cluster.raft(1).log_after(index(2));
    cluster.append((1, 2, 4), log_id(2, 2), own, 0);
    cluster.sync(2);
    cluster.network.clear();
}

fn accepted(session: Session, match_index: u64) -> Body {
    accepted_at(session, match_index, AnswerClock::default())
}

fn accepted_at(session: Session, match_index: u64, clock: AnswerClock) -> Body {
    Body::AppendAccepted { session, match_index: index(match_index), round: ReadRound::ZERO, clock }
}

/// What an answer says of time that a node makes when it has just started.
fn at_start() -> AnswerClock {
    let reading = ClockReading { incarnation: Incarnation::new(1), at: Time::new(1_000_000) };
    AnswerClock { sent_at: Time::new(0), reading }
}

/// The session of a leader's relation with its first peer.
const FIRST: Session = Session::new(1);

#[test]
fn a_follower_acknowledges_the_messages_tail_and_not_its_own_last_index() {
    let mut cluster = Cluster::new(3);
    let mut longer = made_with(&voters(1..=3));
    longer.entries.extend([entry(2, 1), entry(3, 1)]);
    cluster.add(1, longer);
    cluster.append((2, 1, 2), log_id(1, 1), vec![entry(2, 1)], 0);
    cluster.sync(1);
    assert_eq!(cluster.last_said(1, 2), Some(&accepted_at(FIRST, 2, at_start())));
}

#[test]
fn match_index_is_not_set_from_a_rejections_hint() {
    let mut cluster = figure_8();
    let (rejected, hint) = (log_id(2, 2), log_id(1, 1));
    let (round, clock) = (ReadRound::ZERO, AnswerClock::default());
    cluster.say(2, 1, 4, Body::AppendRejected { session: FIRST, rejected, hint, round, clock });
    let peer = cluster.raft(1).progress().next().unwrap();
    assert_eq!((peer.match_index, peer.next_index), (LogIndex::ZERO, index(2)));
}

#[test]
fn a_late_rejection_changes_nothing() {
    let mut cluster = figure_8();
    replicate_to_2(&mut cluster);
    cluster.say(2, 1, 4, accepted(FIRST, 3));
    let (rejected, hint) = (log_id(2, 2), log_id(1, 1));
    let (round, clock) = (ReadRound::ZERO, AnswerClock::default());
    cluster.say(2, 1, 4, Body::AppendRejected { session: FIRST, rejected, hint, round, clock });
    let peer = cluster.raft(1).progress().next().unwrap();
    assert_eq!((peer.match_index, peer.state), (index(3), ReplicationState::Replicate));
}

#[test]
fn an_append_that_arrives_late_truncates_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 2), log_id(1, 1), vec![entry(2, 2), entry(3, 2), entry(4, 2)], 0);
    cluster.append((2, 1, 2), log_id(1, 1), vec![entry(2, 2)], 0);
    assert_eq!(cluster.log(1).len(), 4, "only a conflict truncates");
}

#[test]
fn a_conflict_at_or_below_commit_is_refused_and_reported() {
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 2), log_id(1, 1), vec![entry(2, 2), entry(3, 2)], 3);
    cluster.append((3, 1, 4), log_id(1, 1), vec![entry(2, 3)], 0);
    assert_eq!(cluster.log(1), [log_id(1, 1), log_id(2, 2), log_id(3, 2)]);
    let why = Withdrawal::Contradicted { committed: log_id(3, 2) };
    assert_eq!(cluster.raft(1).withdrawn(), Some(why));
    assert!(cluster.node(1).events.contains(&RaftEvent::Withdrawn(why)), "reported once it is known");
    // Nor by what it is to follow: the entry before is committed too.
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 2), log_id(1, 1), vec![entry(2, 2), entry(3, 2)], 3);
    cluster.append((3, 1, 4), log_id(2, 3), vec![entry(3, 3)], 0);
    assert_eq!(cluster.raft(1).withdrawn(), Some(why));
}

#[test]
fn an_answer_of_another_session_is_late() {
    let mut cluster = figure_8();
    cluster.say(2, 1, 4, accepted(Session::new(FIRST.get() + 7), 3));
    assert_eq!(cluster.raft(1).progress().next().unwrap().match_index, LogIndex::ZERO);
    assert_eq!(cluster.raft(1).progress().next().unwrap().last_heard, None);
}

#[test]
fn late_answers_keep_a_leader_in_office_that_began_anew_with_the_peer() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let (timeout, term) = (cluster.config.election_timeout_micros, cluster.raft(1).term().get());
    if let Some(Role::Leader(leader)) = cluster.node(1).raft.as_mut().map(|raft| &mut raft.role) {
        let session = leader.next_session();
        leader.peers.get_mut(&id(2)).unwrap().session = session;
    }
    for _ in 0..8 {
        cluster.isolate(1);
        cluster.advance(timeout / 4);
        cluster.heal();
        cluster.say(2, 1, term, accepted(FIRST, 1));
    }
    assert_eq!(cluster.raft(1).role(), RoleName::Leader, "a majority answers");
    cluster.isolate(1);
    cluster.advance(2 * timeout);
    assert_eq!(cluster.raft(1).role(), RoleName::Follower);
}

#[test]
fn an_acknowledgement_of_entries_known_already_waits_until_they_are_durable() {
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 2), log_id(1, 1), vec![entry(2, 2)], 0);
    cluster.append((2, 1, 2), log_id(2, 2), vec![], 0);
    let heard = Body::Heard { round: ReadRound::ZERO, promised_micros: 0, clock: at_start() };
    assert_eq!(cluster.between(1, 2), [&heard], "that it hears the leader it says at once, and once");
    cluster.network.clear();
    cluster.sync(1);
    assert_eq!(cluster.between(1, 2), [&accepted_at(FIRST, 2, at_start())], "both are answered by one");
}

#[test]
fn a_receipt_of_an_earlier_life_is_ignored() {
    let mut cluster = Cluster::new(1);
    let write = cluster.node(1).writes.pop_front().unwrap();
    cluster.restart(1);
    cluster.step(1, Input::Durable(write.into_durable())).unwrap();
    assert_eq!(cluster.raft(1).role(), RoleName::Candidate, "the vote of this life is not durable");
    cluster.run();
    assert_eq!(cluster.raft(1).role(), RoleName::Leader);
}

#[test]
fn term_and_entries_of_one_message_share_one_write() {
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 7), log_id(1, 1), vec![entry(2, 7)], 0);
    assert_eq!(cluster.node(1).writes.len(), 1);
    let records = cluster.node(1).writes[0].records().clone();
    assert_eq!(records.hard_state.map(|hard| hard.term), Some(Term::new(7)));
    assert_eq!(records.entries.len(), 1);
}

#[test]
fn a_pre_vote_changes_nothing_durable_and_a_returning_node_deposes_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.advance(5_000_000);
    assert_eq!(cluster.raft(3).term(), Term::new(2), "asking does not raise its term");
    assert_eq!(cluster.node(3).writes.len(), 0);
    cluster.heal();
    cluster.advance(1_000_000);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.raft(1).term(), Term::new(2));
}

#[test]
fn a_vote_request_is_ignored_while_a_leader_is_heard() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.say(3, 2, 9, Body::RequestVote { last_log: log_id(9, 9), transfer: false });
    assert_eq!(cluster.raft(2).term(), Term::new(2), "not even its term is taken");
    cluster.say(3, 2, 9, Body::RequestVote { last_log: log_id(9, 9), transfer: true });
    assert_eq!(cluster.raft(2).term(), Term::new(9), "unless the leader wants it");
}

#[test]
fn a_node_ahead_in_term_with_a_short_log_does_not_block_elections() {
    // 1 has a higher term and nothing in its log; 2 has the log. Neither can elect 1, and 2 must
    // learn 1's term.
    let mut cluster = Cluster::new(3);
    let mut ahead = made_with(&voters(1..=3));
    ahead.hard_state.term = Term::new(9);
    let mut longer = made_with(&voters(1..=3));
    longer.entries.push(entry(2, 1));
    cluster.add(1, ahead);
    cluster.add(2, longer);
    cluster.crash(3);
    cluster.network.clear();
    cluster.advance(5_000_000);
    assert_eq!(cluster.leader(), Some(2), "rejections carried the term");
}

#[test]
fn an_old_leader_learns_from_a_rejection_that_its_term_is_over() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.now += 1_000;
    // 3 was in contact with a later term, and 1 did not hear of it.
    cluster.say(2, 3, 9, Body::VoteRejected);
    cluster.run();
    cluster.heal();
    cluster.now += cluster.config.heartbeat_interval_micros;
    cluster.step(1, Input::Wake).unwrap();
    cluster.run();
    assert_eq!(cluster.raft(1).role(), RoleName::Follower);
    assert_eq!(cluster.raft(1).term(), Term::new(9));
}

#[test]
fn a_leader_whose_disk_stalls_hands_over_and_steps_down() {
    let config = Config { disk_stall_micros: 1_000_000, ..Config::default() };
    let mut cluster = Cluster::with(3, config);
    cluster.elect(1);
    cluster.node(1).disk_held = true;
    cluster.propose(1, "a").unwrap();
    cluster.advance(900_000);
    assert_eq!(cluster.leader(), Some(1), "heartbeats go on");
    cluster.advance(300_000);
    assert!(matches!(cluster.leader(), Some(2 | 3)), "it named a successor");
    assert_eq!(cluster.raft(1).role(), RoleName::Follower);
    cluster.advance(5_000_000);
    assert_ne!(cluster.leader(), Some(1), "nor does it campaign on such a disk");
}

#[test]
fn a_second_leader_of_the_same_term_is_reported_and_not_followed() {
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 5), log_id(1, 1), vec![], 0);
    cluster.append((3, 1, 5), log_id(1, 1), vec![entry(2, 5)], 0);
    assert_eq!(cluster.raft(1).leader_hint().leader, Some(id(2)));
    assert_eq!(cluster.log(1).len(), 1);
}

#[test]
fn messages_that_make_no_sense_are_dropped_and_reported() {
    let mut cluster = Cluster::new(3);
    let before = cluster.log(1);
    cluster.append((2, 1, 5), log_id(1, 1), vec![entry(3, 5)], 0);
    cluster.append((2, 1, 5), log_id(1, 1), vec![entry(2, 6)], 0);
    cluster.append((2, 1, 5), log_id(1, 1), vec![entry(2, 5), entry(3, 4)], 0);
    assert_eq!(cluster.log(1), before);
    let reports = cluster.node(1).events.iter();
    assert_eq!(reports.filter(|e| matches!(e, crate::raft::RaftEvent::BadMessage { .. })).count(), 3);
}

#[test]
fn the_clock_never_goes_back() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let now = cluster.now;
    cluster.now = 0;
    cluster.step(1, Input::Wake).unwrap();
    cluster.propose(1, "a").unwrap();
    cluster.now = now;
    cluster.run();
    assert_eq!(cluster.commands(1), ["a"]);
}

#[test]
fn lost_appends_are_found_and_sent_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for number in 0..10 {
        cluster.propose(1, &number.to_string()).unwrap();
        cluster.lose_messages();
    }
    cluster.advance(1_000_000);
    assert_eq!(cluster.commands(2).len(), 10);
    assert_eq!(cluster.commands(3).len(), 10);
}
