//! Lease reads (D §6.4.1): what ends a lease, and what a promise outlives.

use crate::raft::tests::harness::{Cluster, id, log_id};
use crate::raft::{AnswerClock, Body, Config, Input, ReadId, ReadRound, RoleName};

const DRIFT_PPM: u32 = 10_000;
/// The election timeout, which is what a member promises.
const PROMISE: u64 = 600_000;

fn leases() -> Config {
    Config { lease_drift_ppm: Some(DRIFT_PPM), ..Config::default() }
}

/// Three members, of which 1 leads and has just served a read by a round.
fn with_lease() -> Cluster {
    let mut cluster = Cluster::with(3, leases());
    cluster.elect(1);
    cluster.read(1, 1).unwrap();
    cluster.run();
    assert_eq!(served(&cluster), [1]);
    cluster
}

fn served(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes[&1].reads.iter().map(|read| read.id.get()).collect()
}

/// Whether node 2 would vote for node 3 now, in the term after its own.
fn grants(cluster: &mut Cluster) -> bool {
    cluster.lose_messages();
    let (term, last_log) = (cluster.raft(2).term().get(), log_id(9, 99));
    cluster.say(3, 2, term, Body::PreVote { campaign_term: cluster.raft(2).term().next(), last_log });
    let pre_vote = matches!(cluster.last_said(2, 3), Some(Body::PreVoteGranted { .. }));
    cluster.say(3, 2, term + 1, Body::RequestVote { last_log, transfer: false });
    cluster.sync(2);
    let vote = matches!(cluster.last_said(2, 3), Some(Body::VoteGranted));
    assert_eq!(pre_vote, vote);
    vote
}

#[test]
fn a_leader_with_a_lease_serves_reads_without_a_message() {
    let mut cluster = with_lease();
    cluster.read(1, 2).unwrap();
    assert_eq!(served(&cluster), [1, 2]);
    assert!(cluster.network.is_empty());
    cluster.read(2, 3).unwrap();
    let question = cluster.network.pop_front().unwrap();
    cluster.deliver(question);
    assert!(matches!(cluster.last_said(1, 2), Some(Body::ReadIndexReady { .. })), "questions, too");
    assert_eq!(cluster.network.len(), 1);
}

#[test]
fn a_read_by_round_does_not_rest_on_a_lease() {
    let mut cluster = with_lease();
    cluster.isolate(1);
    cluster.step(1, Input::ReadByRound(ReadId::new(2))).unwrap();
    cluster.read(1, 3).unwrap();
    assert_eq!(served(&cluster), [1, 3], "the others are served meanwhile");
    cluster.heal();
    cluster.run();
    assert_eq!(served(&cluster), [1, 3, 2]);
}

#[test]
fn a_read_by_round_does_not_wait_behind_rounds_that_renew_the_lease() {
    let mut cluster = with_lease();
    cluster.now += PROMISE * 6 / 10;
    cluster.step(1, Input::ReadByRound(ReadId::new(2))).unwrap();
    // A round takes more than half of the lease, so that the lease is due when the round ends.
    for hop in [0, PROMISE / 2] {
        cluster.now += hop;
        for message in core::mem::take(&mut cluster.network) {
            cluster.deliver(message);
        }
    }
    assert_eq!(served(&cluster), [1, 2], "by the first round");
}

#[test]
fn what_nobody_was_told_is_no_promise() {
    let mut cluster = Cluster::with(3, leases());
    cluster.elect(1);
    cluster.run();
    assert!(!cluster.raft(2).shared.has_promised(), "no read has asked for one");
    cluster.read(1, 1).unwrap();
    cluster.run();
    assert!(cluster.raft(2).shared.has_promised());
}

#[test]
fn a_lease_ends_before_the_promises_by_what_clocks_may_be_off() {
    let lease = PROMISE * 990_000 / 1_010_000;
    let mut cluster = with_lease();
    cluster.isolate(1);
    cluster.now += lease - 1;
    cluster.read(1, 2).unwrap();
    assert_eq!(served(&cluster), [1, 2]);
    cluster.now += 1;
    cluster.read(1, 3).unwrap();
    assert_eq!(served(&cluster), [1, 2]);
}

#[test]
fn reads_keep_the_lease_from_running_out() {
    let mut cluster = with_lease();
    for read in 2..200 {
        cluster.now += 10_000;
        cluster.read(1, read).unwrap();
        assert_eq!(served(&cluster).last(), Some(&read), "no read waits");
        cluster.run();
    }
}

#[test]
fn a_promise_outlives_the_term_a_hint_and_a_restart() {
    let accidents: [fn(&mut Cluster); 4] = [
        |_| {},
        |cluster| cluster.step(2, Input::PeerGone(id(1))).unwrap(),
        |cluster| {
            let term = cluster.raft(2).term().get();
            cluster.say(3, 2, term + 1, Body::VoteRejected);
        },
        |cluster| cluster.restart(2),
    ];
    for accident in accidents {
        let mut cluster = with_lease();
        cluster.isolate(1);
        accident(&mut cluster);
        cluster.now += PROMISE - 1;
        assert!(!grants(&mut cluster));
        assert_ne!(cluster.raft(2).role(), RoleName::Candidate);
        cluster.now += 1;
        assert!(grants(&mut cluster));
    }
}

#[test]
fn a_promise_holds_in_a_term_that_came_with_another_message() {
    let mut cluster = with_lease();
    cluster.isolate(1);
    let (term, last_log) = (cluster.raft(2).term().get() + 1, log_id(9, 99));
    cluster.say(3, 2, term, Body::VoteRejected);
    assert_eq!(cluster.raft(2).term().get(), term);
    let asked = |cluster: &mut Cluster| {
        cluster.say(3, 2, term, Body::RequestVote { last_log, transfer: false });
        cluster.sync(2);
        matches!(cluster.last_said(2, 3), Some(Body::VoteGranted))
    };
    assert!(!asked(&mut cluster), "it follows nobody in this term, and has not voted in it");
    cluster.now += PROMISE;
    assert!(asked(&mut cluster));
}

#[test]
fn a_node_without_leases_keeps_what_an_earlier_start_promised() {
    let mut cluster = with_lease();
    cluster.isolate(1);
    cluster.config = Config::default();
    cluster.restart(2);
    assert!(!grants(&mut cluster));
}

#[test]
fn a_hint_that_the_leader_is_gone_still_shortens_the_election() {
    let mut cluster = with_lease();
    cluster.crash(1);
    for number in [2, 3] {
        cluster.step(number, Input::PeerGone(id(1))).unwrap();
    }
    cluster.advance(PROMISE + PROMISE / 5);
    assert!(cluster.leader().is_some());
}

#[test]
fn a_leader_that_has_told_a_successor_has_no_lease_any_more() {
    let mut cluster = with_lease();
    cluster.step(1, Input::TransferLeadership(Some(id(2)))).unwrap();
    let told = cluster.network.pop_back().unwrap();
    assert!(matches!(told.body, Body::TimeoutNow));
    cluster.read(1, 2).unwrap();
    assert_eq!(served(&cluster), [1]);
    // The transfer is given up; the message is still on its way.
    cluster.advance(PROMISE + 100_000);
    assert!(!cluster.raft(1).is_handing_over());
    cluster.read(1, 3).unwrap();
    cluster.run();
    cluster.isolate(1);
    cluster.step(2, Input::Message(told)).unwrap();
    cluster.run();
    assert_eq!(cluster.raft(2).role(), RoleName::Leader, "others vote for it in spite of their promises");
    cluster.propose(2, "newer").unwrap();
    cluster.run();
    cluster.read(1, 4).unwrap();
    assert_eq!(served(&cluster), [1, 2, 3]);
}

#[test]
fn a_lease_takes_promises_of_a_quorum() {
    let mut cluster = Cluster::with(5, leases());
    cluster.config = Config::default();
    for number in 3..=5 {
        cluster.restart(number);
    }
    cluster.elect(1);
    cluster.read(1, 1).unwrap();
    cluster.run();
    cluster.read(1, 2).unwrap();
    assert_eq!(served(&cluster), [1], "one of four others promised");
    cluster.run();
    assert_eq!(served(&cluster), [1, 2]);
}

#[test]
fn a_late_answer_to_an_earlier_round_is_no_promise_since_the_last() {
    let mut cluster = with_lease();
    cluster.isolate(1);
    cluster.now += PROMISE;
    cluster.read(1, 2).unwrap();
    cluster.heal();
    let term = cluster.raft(1).term().get();
    for peer in [2, 3] {
        let (round, clock) = (ReadRound::new(1), AnswerClock::default());
        cluster.say(peer, 1, term, Body::Heard { round, promised_micros: PROMISE, clock });
    }
    cluster.read(1, 3).unwrap();
    assert_eq!(served(&cluster), [1]);
}

/// The old leader is cut off with a clock that is too slow, and the others' are too fast.
fn race(drift_ppm: u32) {
    let mut cluster = Cluster::with(3, leases());
    let drift = i64::from(drift_ppm);
    cluster.drift_ppm = [(1, -drift), (2, drift), (3, drift)].into();
    for number in 1..=3 {
        cluster.restart(number);
    }
    cluster.now += PROMISE;
    cluster.elect(1);
    cluster.read(1, 0).unwrap();
    cluster.run();
    cluster.isolate(1);
    // Another is elected as early as the promises allow.
    for number in [2, 3] {
        cluster.step(number, Input::PeerGone(id(1))).unwrap();
    }
    let is_replaced = |cluster: &mut Cluster| {
        let successor = cluster.leader().filter(|leader| *leader != 1);
        successor.is_some_and(|successor| cluster.propose(successor, "newer").is_ok())
    };
    while !is_replaced(&mut cluster) {
        cluster.advance(1_000);
    }
    cluster.run();
    for read in 1..100 {
        cluster.read(1, read).unwrap();
        cluster.advance(1_000);
    }
}

#[test]
fn within_the_bound_on_drift_no_read_is_stale() {
    for drift_ppm in [0, DRIFT_PPM / 2, DRIFT_PPM] {
        race(drift_ppm);
    }
}

#[test]
#[should_panic(expected = "linearizability")]
fn far_beyond_the_bound_on_drift_reads_are_stale() {
    race(30 * DRIFT_PPM);
}
