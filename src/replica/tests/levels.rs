//! The level of the cluster: who has to speak a higher one before a leader raises it.

use super::{Cluster, add_member, change, id, member, start};
use crate::codec::{FeatureLevel, FeatureLevels};
use crate::kv::{Command, Op, Outcome, Refusal, Revision};
use crate::raft::{
    AppendClock, Body, Change, Entry, EntryKind, LogId, LogIndex, Message, NodeId, ReadRound, Restored,
    Session,
};
use crate::replica::{
    ClientReply, ClientRequest, Event, LevelsSaid, Notice, PeerMessage, ReplicaConfig, StorageEvent, proposal,
};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

const OLD: FeatureLevel = FeatureLevel::OLDEST;
const NEW: FeatureLevel = FeatureLevel::NEWEST;
/// Longer than the time that all have to have spoken a level.
const LONG_MICROS: u64 = 15_000_000;

fn config(speaks: FeatureLevels) -> ReplicaConfig {
    ReplicaConfig { speaks, ..ReplicaConfig::default() }
}

impl Cluster {
    /// A cluster in which these members are of an older release.
    fn mixed(count: u64, old: &[u64]) -> Self {
        let mut cluster = Self::without_leader(count, &config(FeatureLevels::OF_THIS_RELEASE));
        for number in old {
            cluster.change_release(id(*number), FeatureLevels::OF_THE_OLDEST);
        }
        cluster.elect();
        cluster
    }

    /// A node comes back with another release.
    fn change_release(&mut self, node: NodeId, speaks: FeatureLevels) {
        let raft = self.replicas[&node].raft();
        let hard_state = crate::raft::HardState { term: raft.term(), voted_for: Some(node) };
        let entries = raft.log_after(LogIndex::ZERO);
        let restored = Restored { hard_state, entries, commit: raft.commit_index(), ..Restored::default() };
        self.replicas.insert(node, start(node, &config(speaks), restored, 2));
    }

    fn levels(&self) -> BTreeSet<FeatureLevel> {
        self.replicas.values().map(|replica| replica.store().level()).collect()
    }

    fn raised(&self) -> usize {
        let logs = self.replicas.values().map(|replica| replica.raft().log_after(LogIndex::ZERO));
        logs.map(|log| log.iter().filter(|entry| entry.kind() == EntryKind::Level).count()).max().unwrap_or(0)
    }
}

#[test]
fn the_level_is_raised_once_after_all_have_spoken_a_higher_one_for_a_while() {
    let mut cluster = Cluster::mixed(3, &[]);
    cluster.run(5_000_000);
    assert_eq!((cluster.levels(), cluster.raised()), ([OLD].into(), 0), "an operator may still go back");
    cluster.run(LONG_MICROS);
    assert_eq!((cluster.levels(), cluster.raised()), ([NEW].into(), 1));
    for node in 1..=3 {
        let told = (id(node), Notice::LevelRaised(NEW));
        assert_eq!(cluster.notices.iter().filter(|notice| **notice == told).count(), 1, "node {node}");
    }
    cluster.run(LONG_MICROS);
    assert_eq!(cluster.raised(), 1, "nobody raises it again");
    // At rest nobody speaks of it any more.
    let leader = cluster.leader().unwrap();
    cluster.network.clear();
    cluster.give(cluster.follower(), Event::Wake);
    assert!(!cluster.network.iter().any(|message| matches!(message, PeerMessage::Levels(_))));
    assert!(cluster.replicas[&leader].raise_level_at().is_none());
}

#[test]
fn a_member_of_an_older_release_keeps_the_level_low() {
    let mut cluster = Cluster::mixed(3, &[3]);
    cluster.run(2 * LONG_MICROS);
    assert_eq!((cluster.levels(), cluster.raised()), ([OLD].into(), 0), "a majority is not enough");
    cluster.change_release(id(3), FeatureLevels::OF_THIS_RELEASE);
    cluster.run(2 * LONG_MICROS);
    assert_eq!(cluster.levels(), [NEW].into());
}

/// A node whose disk is full cannot say in its directory that an older release is not to open it.
#[test]
fn the_level_is_not_raised_while_a_disk_is_full() {
    for number in 1..=3 {
        let mut cluster = Cluster::mixed(3, &[]);
        cluster.give(id(number), Event::Storage(StorageEvent::DiskFull(true)));
        cluster.run(2 * LONG_MICROS);
        assert_eq!((cluster.levels(), cluster.raised()), ([OLD].into(), 0), "node {number}");
        cluster.give(id(number), Event::Storage(StorageEvent::DiskFull(false)));
        cluster.run(2 * LONG_MICROS);
        assert_eq!(cluster.levels(), [NEW].into(), "node {number}");
    }
}

#[test]
fn a_learner_of_an_older_release_keeps_the_level_low() {
    let mut cluster = Cluster::mixed(3, &[]);
    let leader = cluster.leader().unwrap();
    let learner = Change::AddMembers { members: vec![member(4)], replaces: [].into(), promote: false };
    let request = cluster.ask(leader, change(learner));
    let old = start(id(4), &config(FeatureLevels::OF_THE_OLDEST), Restored::default(), 1);
    cluster.replicas.insert(id(4), old);
    cluster.run_until_answered(request);
    cluster.run(2 * LONG_MICROS);
    assert_eq!((cluster.levels(), cluster.raised()), ([OLD].into(), 0));
    cluster.change_release(id(4), FeatureLevels::OF_THIS_RELEASE);
    cluster.run(2 * LONG_MICROS);
    assert_eq!(cluster.levels(), [NEW].into());
}

#[test]
fn a_member_that_was_just_added_has_to_speak_first() {
    let mut cluster = Cluster::mixed(1, &[]);
    let request = cluster.ask(id(1), add_member(2));
    cluster.run_until(|cluster| cluster.replicas[&id(1)].membership().contains(id(2)));
    // It does not answer: nothing is known of what it speaks.
    cluster.run(2 * LONG_MICROS);
    assert_eq!(cluster.raised(), 0);
    let _ = request;
}

#[test]
fn a_member_that_has_fallen_silent_may_come_back_as_an_older_release() {
    let mut cluster = Cluster::mixed(3, &[]);
    cluster.run(5_000_000);
    let follower = cluster.follower();
    cluster.isolate(follower);
    cluster.run(2 * LONG_MICROS);
    assert_eq!(cluster.raised(), 0);
    cluster.heal();
    cluster.run(2 * LONG_MICROS);
    assert_eq!(cluster.levels(), [NEW].into());
}

#[test]
fn what_was_said_to_an_earlier_leader_or_by_a_process_that_is_gone_does_not_count() {
    let mut cluster = Cluster::mixed(3, &[3]);
    let leader = cluster.leader().unwrap();
    if leader == id(3) {
        return;
    }
    let term = cluster.replicas[&leader].raft().term();
    let said = |term| LevelsSaid { from: id(3), to: leader, term, speaks: FeatureLevels::OF_THIS_RELEASE };
    for _ in 0..20 {
        cluster.give(leader, Event::Peer(PeerMessage::Levels(said(crate::raft::Term::new(term.get() - 1)))));
        cluster.run(1_000_000);
    }
    assert_eq!(cluster.raised(), 0, "it was another term's");
    for _ in 0..20 {
        cluster.give(leader, Event::Peer(PeerMessage::Levels(said(term))));
        cluster.give(leader, Event::PeerGone(id(3)));
        cluster.run(1_000_000);
    }
    assert_eq!(cluster.raised(), 0, "that process is gone");
    for _ in 0..20 {
        cluster.give(leader, Event::Peer(PeerMessage::Levels(said(term))));
        cluster.give(leader, Event::PeerSpeaks(id(3), FeatureLevels::OF_THE_OLDEST));
        cluster.run(1_000_000);
    }
    assert_eq!(cluster.raised(), 0, "the next one speaks less");
    cluster.give(leader, Event::PeerSpeaks(id(3), FeatureLevels::OF_THIS_RELEASE));
    for _ in 0..20 {
        cluster.give(leader, Event::Peer(PeerMessage::Levels(said(term))));
        cluster.run(1_000_000);
    }
    assert_eq!(cluster.raised(), 1, "what it says now counts");
}

#[test]
fn a_node_takes_nothing_in_that_it_would_misread() {
    let mut cluster = Cluster::mixed(2, &[2]);
    let (leader, follower) = (id(1), id(2));
    let raft = cluster.replicas[&follower].raft();
    let (term, prev, before) = (raft.term(), raft.last_log(), raft.last_log());
    let entry = Entry::new(LogId::new(term, prev.index.next()), EntryKind::Level, &NEW.to_data());
    let body = Body::AppendEntries {
        session: Session::new(1),
        prev,
        acknowledged: LogId::ZERO,
        entries: vec![entry],
        commit: LogIndex::ZERO,
        round: ReadRound::ZERO,
        clock: AppendClock::default(),
    };
    let append = Message { from: leader, to: follower, term, body };
    cluster.give(follower, Event::Peer(PeerMessage::Raft(append)));
    assert_eq!(cluster.replicas[&follower].raft().last_log(), before);
    let told = (follower, Notice::LevelAbove { level: NEW, told_by: leader });
    assert!(cluster.notices.contains(&told), "{:?}", cluster.notices);
}

/// Each member is asked to write, by a client that says what it had seen. What became of that, and
/// what of it is in the log.
fn since_in_the_log(cluster: &mut Cluster, name: &str) -> (Vec<Outcome>, Vec<Option<Revision>>) {
    let outcomes = (1..=3).map(|node| {
        let idempotency_key = Some(format!("{name} {node}").into());
        let since = Some(Revision(0));
        let command = Command { idempotency_key, since, ..Op::set("k", "v").into() };
        let write = cluster.ask(id(node), ClientRequest::Write(command));
        match cluster.run_until_answered(write) {
            ClientReply::Written(outcome) => outcome,
            other => panic!("{node}: {other:?}"),
        }
    });
    let outcomes: Vec<Outcome> = outcomes.collect();
    let log = cluster.replicas[&cluster.leader().unwrap()].raft().log_after(LogIndex::ZERO);
    let commands = log.iter().filter_map(|entry| proposal::decode(entry.data()).ok());
    let named = commands.filter(|(_, command)| {
        command.idempotency_key.as_ref().is_some_and(|key| key.starts_with(name.as_bytes()))
    });
    (outcomes, named.map(|(_, command)| command.since).collect())
}

#[test]
fn what_a_client_had_seen_is_said_from_the_level_on_that_has_words_for_it() {
    let mut cluster = Cluster::mixed(3, &[3]);
    let (outcomes, said) = since_in_the_log(&mut cluster, "low");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Put { .. })), "{outcomes:?}");
    assert_eq!(said, [None; 3], "an older release reads the log");
    cluster.change_release(id(3), FeatureLevels::OF_THIS_RELEASE);
    cluster.run(2 * LONG_MICROS);
    assert_eq!(cluster.levels(), [NEW].into());
    let (outcomes, said) = since_in_the_log(&mut cluster, "high");
    let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused(Refusal::AnswerForgotten(_)));
    assert!(outcomes.iter().all(refused), "before the level was raised, it may have been done: {outcomes:?}");
    assert_eq!(said, [Some(Revision(0)); 3]);
    cluster.run(LONG_MICROS);
    let hashes: BTreeSet<u128> =
        cluster.replicas.values().map(|replica| replica.store().state_hash()).collect();
    assert_eq!(hashes.len(), 1);
}
