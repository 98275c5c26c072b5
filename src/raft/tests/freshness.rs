//! How old a node's state is at most, by its own word ([`Raft::silent_micros`]): whatever arrives
//! late, twice or in another order, and whoever leads. Each step of each test of the core checks
//! that it holds ([`Cluster::check_freshness`]); the tests here lead to where it could break.
//!
//! [`Raft::silent_micros`]: crate::raft::Raft::silent_micros

use crate::raft::tests::harness::{Cluster, id};
use crate::raft::{Body, Config, Input, Message, Time};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

const SECOND: u64 = 1_000_000;

impl Cluster {
    /// Freshness: a node that says how old its state may be has applied all that any node had
    /// applied before that time. Clocks that drift tell other times.
    pub(in crate::raft) fn check_freshness(&self, number: u64) {
        let node = &self.nodes[&number];
        let Some(silent) = node.raft.as_ref().and_then(|raft| raft.silent_micros(Time::new(self.now))) else {
            return;
        };
        if !self.drift_ppm.is_empty() {
            return;
        }
        let then = self.now.saturating_sub(silent);
        let missing = self.first_applied.iter().find(|(at, time)| **time < then && **at > node.applied_index);
        assert!(
            missing.is_none(),
            "freshness: at {} node {number} knows of the state at {then}, and lacks {missing:?}",
            self.now
        );
    }

    fn silent(&self, number: u64) -> Option<u64> {
        self.raft(number).silent_micros(Time::new(self.now))
    }

    /// Moves the clock on. What one node says to another takes `delay` on its way, and stays in
    /// order; all else arrives at once.
    fn advance_with_delay(&mut self, micros: u64, delay: u64, way: (u64, u64), late: &mut Late) {
        let end = self.now + micros;
        while self.now < end {
            self.now += 10_000;
            while late.front().is_some_and(|(due, _)| *due <= self.now) {
                let (_, message) = late.pop_front().unwrap();
                self.deliver(message);
            }
            for number in self.nodes.keys().copied().collect::<Vec<_>>() {
                self.step(number, Input::Wake).unwrap();
                self.sync(number);
            }
            while let Some(message) = self.network.pop_front() {
                if (message.from, message.to) == (id(way.0), id(way.1)) {
                    late.push_back((self.now + delay, message));
                } else {
                    let to = message.to.get();
                    self.deliver(message);
                    self.sync(to);
                }
            }
        }
    }
}

/// Messages on a slow way, and when they arrive.
type Late = VecDeque<(u64, Message)>;

#[test]
fn what_comes_late_is_as_old_as_when_it_was_sent() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let (delay, way, mut late) = (10 * SECOND, (1, 3), Late::new());
    cluster.advance_with_delay(15 * SECOND, delay, way, &mut late);
    cluster.propose(1, "a").unwrap();
    for _ in 0..500 {
        cluster.advance_with_delay(10_000, delay, way, &mut late);
        let silent = cluster.silent(3);
        assert!(silent.is_none_or(|micros| micros >= delay), "{silent:?} at {}", cluster.now);
    }
    assert_eq!(cluster.commands(2).len(), 1);
    assert!(cluster.commands(3).is_empty(), "the write is still on its way there");
    cluster.advance_with_delay(30 * SECOND, delay, way, &mut late);
    let silent = cluster.silent(3).expect("it hears from a leader");
    assert!((delay..2 * delay).contains(&silent), "{silent}");
    assert!(cluster.silent(2).is_some_and(|micros| micros < SECOND / 2), "{:?}", cluster.silent(2));
}

#[test]
fn a_follower_of_a_leader_without_a_quorum_is_no_fresher_than_its_leader() {
    let patient = Config { election_timeout_micros: 5 * SECOND, ..Config::default() };
    let mut cluster = Cluster::with(5, patient);
    cluster.elect(1);
    cluster.advance(SECOND);
    for here in [1, 2] {
        for there in [3, 4, 5] {
            cluster.cut.extend([(here, there), (there, here)]);
        }
    }
    cluster.advance(3 * SECOND);
    assert_eq!(cluster.raft(2).leader_hint().leader, Some(id(1)));
    for number in [1, 2] {
        let silent = cluster.silent(number).expect("it leads, or hears from a leader");
        assert!(silent >= 3 * SECOND, "{number}: {silent}");
    }
}

#[test]
fn a_leader_that_slept_is_as_old_as_the_last_answer_to_what_it_sent() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.advance(SECOND);
    cluster.now += 100_000;
    cluster.step(1, Input::Wake).unwrap();
    let mut waiting = VecDeque::new();
    while let Some(message) = cluster.network.pop_front() {
        let to = message.to.get();
        cluster.deliver(message);
        cluster.sync(to);
        let answers: Vec<Message> = cluster.network.iter().filter(|it| it.to == id(1)).cloned().collect();
        cluster.network.retain(|it| it.to != id(1));
        waiting.extend(answers);
    }
    assert!(!waiting.is_empty(), "its followers answered");
    // Its machine stands still, and the others go on without it.
    cluster.isolate(1);
    cluster.now += 2 * cluster.config.election_timeout_micros;
    cluster.step(2, Input::Wake).unwrap();
    cluster.run();
    cluster.propose(2, "a").unwrap();
    cluster.run();
    cluster.now += 5 * SECOND;
    cluster.heal();
    cluster.lose_messages();
    for message in waiting {
        cluster.deliver(message);
        let silent = cluster.silent(1);
        assert!(silent.is_none_or(|micros| micros > 5 * SECOND), "{silent:?}");
    }
}

#[test]
fn a_new_leader_that_does_not_know_what_is_committed_makes_nobody_fresh() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.advance(SECOND);
    cluster.cut.extend([(1, 3), (3, 1)]);
    // Node 2 has the write, and does not hear that it is committed.
    cluster.propose(1, "a").unwrap();
    let append = cluster.network.pop_front().expect("an append");
    cluster.deliver(append);
    cluster.sync(2);
    cluster.sync(1);
    cluster.lose_messages_to(3);
    let answer = cluster.network.pop_front().expect("an answer");
    cluster.deliver(answer);
    assert_eq!(cluster.commands(1).len(), 1, "its client is answered");
    cluster.lose_messages();
    cluster.crash(1);
    cluster.now += 5 * SECOND;
    for number in [2, 3] {
        cluster.step(number, Input::Wake).unwrap();
    }
    // Whatever arrives is checked.
    cluster.run();
    cluster.advance(5 * SECOND);
    for number in [2, 3] {
        assert_eq!(cluster.commands(number).len(), 1);
        assert!(cluster.silent(number).is_some_and(|micros| micros < SECOND / 2));
    }
}

impl Cluster {
    fn lose_messages_to(&mut self, number: u64) {
        self.network.retain(|message| message.to != id(number));
    }
}

#[test]
fn an_append_that_does_not_say_how_old_it_is_makes_nobody_fresh() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.restart(3);
    cluster.now += 100_000;
    cluster.step(1, Input::Wake).unwrap();
    let at = cluster.network.iter().position(|message| message.to == id(3)).expect("a heartbeat");
    let mut first = cluster.network.remove(at).unwrap();
    assert!(matches!(first.body, Body::AppendEntries { .. }));
    first.to = id(3);
    cluster.deliver(first);
    cluster.sync(3);
    assert_eq!(cluster.silent(3), None, "it answers an earlier start of node 3");
    cluster.advance(SECOND);
    assert!(cluster.silent(3).is_some_and(|micros| micros < SECOND / 2));
}
