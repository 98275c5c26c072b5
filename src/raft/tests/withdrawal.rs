//! Members that must not be counted on: they notice, take no part any more, and say so.

use crate::raft::tests::harness::{Cluster, entry, id, index, log_id, made_with, member, voters};
use crate::raft::{
    AppendClock, Body, Change, Config, Incarnation, Input, InputError, LogId, LogIndex, Raft, RaftEvent,
    ReadRound, RestoreError, Restored, Session, Setup, Term, Time, Withdrawal,
};
use alloc::collections::BTreeSet;
use alloc::vec;

/// Puts back what was on a node's disk when `older` was taken, and starts it.
fn put_back(cluster: &mut Cluster, number: u64, older: crate::raft::Restored) {
    cluster.crash(number);
    cluster.robbed.insert(number);
    cluster.node(number).disk.restored = older;
    cluster.restart(number);
}

/// Node 1 leads; nodes 1 and 2 alone have the entries that `proposals` made, and committed them;
/// node 2's disk is then put back to what it was before.
fn with_an_older_copy(proposals: u64) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let older = cluster.node(2).disk.restored.clone();
    cluster.isolate(3);
    for proposal in 0..proposals {
        cluster.propose(1, &alloc::format!("{proposal}")).unwrap();
    }
    cluster.run();
    let committed = cluster.raft(1).commit_index();
    assert!(committed > older.entries.last().unwrap().index());
    put_back(&mut cluster, 2, older);
    cluster
}

#[test]
fn a_member_that_lacks_what_it_acknowledged_says_so_and_does_not_count() {
    let mut cluster = with_an_older_copy(5);
    let (had, committed) = (cluster.raft(2).last_log(), cluster.raft(1).commit_index());
    cluster.advance(200_000);
    let acknowledged = cluster.raft(1).last_log();
    let why = Withdrawal::LostEntries { acknowledged, last: had };
    assert_eq!(cluster.raft(2).withdrawn(), Some(why));
    assert_eq!(cluster.raft(2).last_log(), had, "its log is left as it is, to be looked at");
    let told = RaftEvent::PeerWithdrew { peer: id(2), why };
    let times = cluster.node(1).events.iter().filter(|event| **event == told).count();
    assert_eq!(times, 1, "once, however often it says so");
    let peer = cluster.raft(1).progress().find(|peer| peer.id == id(2)).unwrap();
    assert_eq!(peer.withdrawn, Some(why));
    // Nothing more is committed with it.
    let _ = cluster.propose(1, "more");
    cluster.run();
    assert_eq!(cluster.raft(1).commit_index(), committed);
}

#[test]
fn the_vote_of_a_member_that_lacks_what_it_acknowledged_elects_nobody() {
    let mut cluster = with_an_older_copy(5);
    cluster.advance(200_000);
    cluster.crash(1);
    cluster.heal();
    // Node 3 lacks the entries too; with node 2's vote they would be gone.
    cluster.advance(20_000_000);
    assert_eq!(cluster.leader(), None);
    cluster.restart(1);
    cluster.advance(20_000_000);
    assert_eq!(cluster.commands(3).len(), 5, "the two that have, or may have, everything go on");
}

#[test]
fn a_member_that_goes_on_from_what_it_had_acknowledged_stays() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    // What it wrote and did not acknowledge goes with the crash.
    cluster.node(2).disk_held = true;
    cluster.propose(1, "a").unwrap();
    cluster.run();
    cluster.restart(2);
    cluster.node(2).disk_held = false;
    cluster.advance(500_000);
    // And an uncommitted tail is truncated by the next leader.
    cluster.isolate(1);
    for _ in 0..3 {
        cluster.propose(1, "lost").unwrap();
    }
    cluster.run();
    cluster.advance(5_000_000);
    cluster.heal();
    cluster.advance(5_000_000);
    assert!((1..=3).all(|number| cluster.raft(number).withdrawn().is_none()));
}

#[test]
fn an_append_from_before_an_acknowledgement_accuses_nobody() {
    let mut cluster = Cluster::new(3);
    let entries = || vec![entry(2, 2), entry(3, 2)];
    cluster.append((2, 1, 2), log_id(1, 1), entries(), 0);
    cluster.sync(1);
    cluster.append((2, 1, 2), log_id(1, 1), entries(), 0);
    let with = |acknowledged| Body::AppendEntries {
        session: Session::new(1),
        prev: log_id(3, 2),
        acknowledged,
        entries: vec![],
        commit: LogIndex::ZERO,
        round: ReadRound::ZERO,
        clock: AppendClock::default(),
    };
    for acknowledged in [LogId::ZERO, log_id(1, 1), log_id(2, 2), log_id(3, 2)] {
        cluster.say(2, 1, 2, with(acknowledged));
        assert_eq!(cluster.raft(1).withdrawn(), None, "{acknowledged}");
    }
    cluster.say(2, 1, 2, with(log_id(3, 1)));
    assert!(cluster.raft(1).withdrawn().is_some(), "it acknowledged another entry there");
}

#[test]
fn a_peer_that_answers_again_counts_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.step(2, Input::Withdraw(Withdrawal::Diverged { index: index(2) })).unwrap();
    cluster.propose(1, "a").unwrap();
    cluster.advance(300_000);
    let committed = cluster.raft(1).commit_index();
    assert!(cluster.raft(1).last_log().index > committed, "it does not count");
    // A start finds sound memory; its disk was sound all the time.
    cluster.restart(2);
    cluster.advance(10_000_000);
    let leader = cluster.leader().unwrap();
    assert!(cluster.raft(leader).commit_index() > committed);
}

#[test]
fn one_message_does_not_take_a_cluster_to_the_end_of_terms() {
    let far = [(1 << 62) - 1, (1 << 61) + 1, (1 << 32) + 3];
    for term in far {
        let mut cluster = Cluster::new(3);
        cluster.elect(1);
        let before = cluster.raft(2).term();
        cluster.say(3, 2, term, Body::RequestVote { last_log: log_id(9, term - 1), transfer: true });
        cluster.say(3, 2, term, Body::VoteRejected);
        cluster.say(3, 2, term, Body::PreVoteRejected { campaign_term: Term::new(term) });
        cluster.append((3, 2, term), log_id(1, 1), vec![entry(2, term)], 2);
        assert_eq!(cluster.raft(2).term(), before, "term {term} is not honest");
        let reported = |event: &RaftEvent| matches!(event, RaftEvent::BadMessage { .. });
        assert!(cluster.node(2).events.iter().any(reported));
        cluster.propose(1, "a").unwrap();
        cluster.run();
        assert_eq!(cluster.commands(2).len(), 1);
    }
}

#[test]
fn a_long_partition_does_not_keep_a_member_out() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let ahead = (1 << 32) - 1;
    cluster.say(3, 2, ahead, Body::RequestVote { last_log: log_id(1, 1), transfer: true });
    assert_eq!(cluster.raft(2).term(), Term::new(ahead));
    // And one that has been in no term yet takes whatever its cluster has.
    let mut fresh = Cluster::new(1);
    fresh.add(2, crate::raft::Restored::default());
    fresh.say(1, 2, 1 << 40, Body::VoteRejected);
    assert_eq!(fresh.raft(2).term(), Term::new(1 << 40));
}

#[test]
fn a_disk_that_holds_a_term_out_of_reach_is_refused_with_a_remedy() {
    let mut restored = made_with(&voters(1..=3));
    let term = Term::new((1 << 61) + 1);
    restored.hard_state.term = term;
    let (life, now) = (Incarnation::new(1), Time::new(0));
    let error =
        Raft::new(Setup { id: id(1), incarnation: life, seed: 1, config: Config::default(), restored, now })
            .unwrap_err();
    assert_eq!(error, RestoreError::TermOutOfReach(term));
    assert!(alloc::format!("{error}").contains("join the node again"));
}

/// A member that lost what it had acknowledged was started again without a wipe, and has caught up.
fn with_a_member_that_does_not_count() -> Cluster {
    let mut cluster = Cluster::new(3);
    let lost = Withdrawal::LostEntries { acknowledged: log_id(9, 1), last: log_id(1, 1) };
    cluster.step(2, Input::Withdraw(lost)).unwrap();
    cluster.elect(1);
    cluster.advance(500_000);
    cluster.restart(2);
    cluster.advance(2_000_000);
    cluster
}

#[test]
fn a_member_that_does_not_count_keeps_no_leader_in_office() {
    let mut cluster = with_a_member_that_does_not_count();
    let committed = cluster.raft(1).commit_index();
    cluster.crash(3);
    cluster.propose(1, "b").unwrap();
    // The next leader has no reason to doubt it.
    cluster.advance(10_000_000);
    let leader = cluster.leader().expect("two of three run");
    assert!(cluster.raft(leader).commit_index() > committed);
}

#[test]
fn a_change_does_not_begin_by_a_member_that_does_not_count() {
    let mut cluster = with_a_member_that_does_not_count();
    let taken = cluster.change(1, Change::Remove { members: BTreeSet::from([id(3)]) });
    assert_eq!(taken, Err(InputError::QuorumAtRisk { silent: vec![id(2)] }));
}

#[test]
fn a_learner_that_does_not_count_is_not_promoted() {
    let mut cluster = Cluster::new(1);
    cluster.advance(2_000_000);
    cluster.add(2, Restored::default());
    let learner = Change::AddMembers { members: vec![member(2)], replaces: BTreeSet::new(), promote: false };
    cluster.change(1, learner).unwrap();
    cluster.advance(1_000_000);
    let lost = Withdrawal::LostEntries { acknowledged: log_id(9, 1), last: log_id(1, 1) };
    cluster.step(2, Input::Withdraw(lost)).unwrap();
    cluster.advance(500_000);
    cluster.restart(2);
    cluster.advance(1_000_000);
    cluster.change(1, Change::Promote { members: BTreeSet::from([id(2)]) }).unwrap();
    cluster.advance(10_000_000);
    let committed = cluster.raft(1).commit_index();
    cluster.propose(1, "x").unwrap();
    cluster.advance(1_000_000);
    assert!(cluster.raft(1).commit_index() > committed, "the only voter that counts goes on");
}
