//! Linearizable reads (D §6.4), and the traps around them.

use crate::raft::tests::harness::{Cluster, id, index, log_id};
use crate::raft::{
    AnswerClock, AppendClock, Body, Config, Incarnation, Input, RaftEvent, ReadId, ReadReady, ReadRefusal,
    ReadRound, Session, Time,
};
use alloc::vec;
use alloc::vec::Vec;

fn ready(cluster: &Cluster, number: u64) -> Vec<u64> {
    cluster.nodes[&number].reads.iter().map(|read| read.id.get()).collect()
}

#[test]
fn any_node_serves_reads() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, "a").unwrap();
    cluster.run();
    for number in 1..=3 {
        cluster.read(number, number).unwrap();
        cluster.run();
        assert_eq!(cluster.nodes[&number].reads, [ReadReady { id: ReadId::new(number), index: index(3) }]);
    }
}

#[test]
fn a_sole_voter_serves_reads_without_a_message() {
    let mut cluster = Cluster::new(1);
    cluster.run();
    cluster.read(1, 7).unwrap();
    assert_eq!(ready(&cluster, 1), [7]);
}

#[test]
fn a_round_that_has_not_begun_is_confirmed_by_nobody() {
    let confirmed = ReadRound::new(1);
    let answers = [
        Body::AppendAccepted {
            session: Session::new(1),
            match_index: index(2),
            round: confirmed,
            clock: AnswerClock::default(),
        },
        Body::AppendRejected {
            session: Session::new(1),
            rejected: log_id(2, 2),
            hint: log_id(1, 1),
            round: confirmed,
            clock: AnswerClock::default(),
        },
        Body::Heard { round: confirmed, promised_micros: 0, clock: AnswerClock::default() },
    ];
    for body in answers {
        let mut cluster = Cluster::new(3);
        cluster.elect(1);
        cluster.say(2, 1, 2, body.clone());
        let is_report = |event: &RaftEvent| matches!(event, RaftEvent::BadMessage { .. });
        assert!(cluster.node(1).events.iter().any(is_report), "{body:?} is told");
        cluster.isolate(1);
        cluster.read(1, 7).unwrap();
        assert_eq!(ready(&cluster, 1), [0; 0], "{body:?} does not count for a read that came later");
    }
}

#[test]
fn all_reads_that_wait_share_a_round_and_later_ones_the_next() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let now = Time::new(cluster.now);
    for read in 0..5 {
        cluster.feed(1, now, Input::Read(ReadId::new(read))).unwrap();
    }
    cluster.settle(1);
    assert_eq!(cluster.between(1, 2).len(), 1);
    cluster.read(1, 5).unwrap();
    assert_eq!(cluster.between(1, 2).len(), 1, "a read does not join a round that was sent");
    let clock = AnswerClock::default();
    cluster.say(2, 1, 2, Body::Heard { round: ReadRound::new(1), promised_micros: 0, clock });
    assert_eq!(ready(&cluster, 1), [0, 1, 2, 3, 4], "the answer may be older than read 5");
    cluster.run();
    assert_eq!(ready(&cluster, 1), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn round_numbers_are_never_used_twice_within_a_term() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let mut seen = Vec::new();
    for read in 0..4 {
        cluster.read(1, read).unwrap();
        let Some(Body::AppendEntries { round, .. }) = cluster.last_said(1, 2) else { panic!() };
        seen.push(round.get());
        cluster.run();
    }
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn an_answer_that_takes_longer_than_the_patience_of_the_asker_still_counts() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.read(2, 7).unwrap();
    let Some(Body::ReadIndex { incarnation, sequence }) = cluster.last_said(2, 1).cloned() else { panic!() };
    cluster.lose_messages();
    cluster.now += cluster.config.heartbeat_interval_micros;
    cluster.step(2, Input::Wake).unwrap();
    let again = matches!(cluster.last_said(2, 1), Some(Body::ReadIndex { .. }));
    assert!(again, "the question may have been lost");
    cluster.say(1, 2, 2, Body::ReadIndexReady { incarnation, sequence, index: index(2) });
    assert_eq!(ready(&cluster, 2), [7], "the answer was slow, not wrong");
}

#[test]
fn a_round_does_not_wait_for_the_followers_disk() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for number in 1..=3 {
        cluster.node(number).disk_held = true;
    }
    cluster.propose(1, "a").unwrap();
    cluster.run();
    cluster.read(1, 7).unwrap();
    cluster.run();
    assert_eq!(ready(&cluster, 1), [7]);
    assert_eq!(cluster.nodes[&1].reads[0].index, index(2), "the proposal is not committed");
}

#[test]
fn a_forwarded_read_ignores_the_answer_to_a_question_of_an_earlier_life() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.read(2, 7).unwrap();
    let Some(Body::ReadIndex { incarnation, sequence }) = cluster.last_said(2, 1).cloned() else { panic!() };
    cluster.lose_messages();
    cluster.restart(2);
    cluster.append((1, 2, 2), log_id(1, 1), vec![], 0);
    cluster.read(2, 8).unwrap();
    let Some(Body::ReadIndex { incarnation: second, sequence: again }) = cluster.last_said(2, 1).cloned()
    else {
        panic!()
    };
    assert_eq!(sequence, again, "numbers begin anew");
    assert_eq!((incarnation, second), (Incarnation::new(1), Incarnation::new(2)), "lives do not");
    cluster.say(1, 2, 2, Body::ReadIndexReady { incarnation, sequence, index: index(1) });
    assert!(ready(&cluster, 2).is_empty());
    cluster.say(1, 2, 2, Body::ReadIndexReady { incarnation: second, sequence, index: index(2) });
    assert_eq!(ready(&cluster, 2), [8]);
}

#[test]
fn a_later_read_does_not_join_a_question_already_sent() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.read(2, 1).unwrap();
    cluster.read(2, 2).unwrap();
    let Some(Body::ReadIndex { incarnation, sequence }) = cluster.last_said(2, 1).cloned() else { panic!() };
    cluster.say(1, 2, 2, Body::ReadIndexReady { incarnation, sequence, index: index(2) });
    assert_eq!(ready(&cluster, 2), [1]);
    assert!(
        matches!(cluster.last_said(2, 1), Some(Body::ReadIndex { sequence: next, .. }) if *next == sequence + 1)
    );
}

#[test]
fn reads_wait_for_a_new_leader_and_ask_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.crash(1);
    cluster.advance(500_000);
    cluster.read(2, 1).unwrap();
    cluster.advance(900_000);
    assert_eq!(ready(&cluster, 2), [1]);
}

#[test]
fn a_deposed_leaders_own_reads_are_asked_of_its_successor() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.advance(500_000);
    cluster.read(1, 1).unwrap();
    cluster.advance(700_000);
    let successor = cluster.leader().unwrap();
    assert_ne!(successor, 1);
    cluster.propose(successor, "newer").unwrap();
    cluster.run();
    cluster.heal();
    cluster.advance(200_000);
    assert_eq!(ready(&cluster, 1), [1]);
    assert!(cluster.nodes[&1].reads[0].index >= index(4), "it sees what the successor committed");
}

#[test]
fn a_question_to_a_node_that_does_not_lead_is_refused() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.say(2, 3, 2, Body::ReadIndex { incarnation: Incarnation::new(1), sequence: 4 });
    let incarnation = Incarnation::new(1);
    let refused = Body::ReadIndexRefused { incarnation, sequence: 4, why: ReadRefusal::NotLeading };
    assert_eq!(cluster.last_said(3, 2), Some(&refused));
}

#[test]
fn a_leader_with_too_many_reads_refuses_questions() {
    let mut cluster = Cluster::with(3, Config { pending_reads_max: 1, ..Config::default() });
    cluster.elect(1);
    cluster.read(1, 1).unwrap();
    cluster.say(2, 1, 2, Body::ReadIndex { incarnation: Incarnation::new(1), sequence: 4 });
    let incarnation = Incarnation::new(1);
    let refused = Body::ReadIndexRefused { incarnation, sequence: 4, why: ReadRefusal::Overloaded };
    assert_eq!(cluster.last_said(1, 2), Some(&refused));
    assert_eq!(cluster.raft(1).leader_hint().leader, Some(id(1)));
}

#[test]
fn a_question_that_was_refused_says_why_and_is_asked_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.read(2, 7).unwrap();
    let Some(Body::ReadIndex { incarnation, sequence }) = cluster.last_said(2, 1).cloned() else { panic!() };
    cluster.lose_messages();
    let why = ReadRefusal::Overloaded;
    let put_off = RaftEvent::ReadsPutOff { reads: vec![ReadId::new(7)], why };
    let other_life = Incarnation::new(9);
    cluster.say(1, 2, 2, Body::ReadIndexRefused { incarnation: other_life, sequence, why });
    assert!(!cluster.node(2).events.contains(&put_off), "it was another start's question");
    cluster.say(1, 2, 2, Body::ReadIndexRefused { incarnation, sequence, why });
    assert!(cluster.node(2).events.contains(&put_off));
    cluster.advance(200_000);
    assert_eq!(ready(&cluster, 2), [7]);
}

#[test]
fn the_answer_to_an_append_of_an_earlier_term_names_no_round_and_no_session() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let term = cluster.raft(1).term().get();
    // Node 2 is in a later term, which node 1 may lead too by the time the answer arrives: its
    // rounds start over there.
    cluster.say(3, 2, term + 1, Body::VoteRejected);
    let round = ReadRound::new(500);
    let late = Body::AppendEntries {
        session: Session::new(1),
        prev: log_id(1, 1),
        acknowledged: crate::raft::LogId::ZERO,
        entries: vec![],
        commit: index(1),
        round,
        clock: AppendClock::default(),
    };
    cluster.say(1, 2, term, late);
    cluster.sync(2);
    match cluster.last_said(2, 1) {
        Some(Body::AppendRejected { session: Session::ZERO, round: ReadRound::ZERO, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_follower_is_fresh_when_it_has_what_its_leader_had_committed() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    for number in 0..100 {
        cluster.propose(1, &alloc::format!("{number}")).unwrap();
        cluster.run();
    }
    cluster.advance(60_000_000);
    cluster.heal();
    cluster.now += 100_000;
    cluster.step(1, Input::Wake).unwrap();
    // Only the leader's first message arrives. The follower lacks the entry before it.
    let at = cluster.network.iter().position(|message| message.to == id(3)).expect("a heartbeat");
    let message = cluster.network.remove(at).unwrap();
    cluster.deliver(message);
    let silent = |cluster: &Cluster| cluster.raft(3).silent_micros(Time::new(cluster.now));
    assert!(silent(&cluster).is_none_or(|micros| micros > 50_000_000), "{:?}", silent(&cluster));
    cluster.advance(1_000_000);
    assert_eq!(cluster.raft(3).commit_index(), cluster.raft(1).commit_index());
    assert!(silent(&cluster).is_some_and(|micros| micros < 1_000_000), "{:?}", silent(&cluster));
}
