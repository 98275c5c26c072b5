//! Members whose states differ: the odd one notices and withdraws.

use crate::kv::LeaseId;
use crate::raft::{LogIndex, NodeId, Withdrawal};
use crate::replica::tests::{Cluster, set};
use crate::replica::{
    ClientError, ClientReply, ClientRequest, Event, Level, Notice, PeerMessage, StateHashKind,
};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// Writes enough for a checkpoint, and gives the leader time to ask about it.
fn go_on(cluster: &mut Cluster, through: NodeId) {
    for write in 0..300 {
        cluster.write(through, &format!("k{write}"), "v");
        if write % 50 == 0 {
            cluster.run(1_000);
        }
    }
    cluster.run(3_000_000);
}

fn withdrawn(cluster: &Cluster, node: NodeId) -> Option<Withdrawal> {
    cluster.replicas[&node].raft().withdrawn()
}

/// One bit of its memory turns.
fn corrupt(cluster: &mut Cluster, node: NodeId) {
    cluster.replicas.get_mut(&node).unwrap().store.apply(1, &set("k", "nobody set that").into());
}

#[test]
fn members_whose_states_agree_go_on() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    for _ in 0..3 {
        go_on(&mut cluster, leader);
    }
    assert!(cluster.replicas.keys().all(|node| withdrawn(&cluster, *node).is_none()));
    assert!(cluster.replicas[&leader].raft().commit_index() > LogIndex::new(900));
}

#[test]
fn a_follower_whose_state_differs_withdraws() {
    let mut cluster = Cluster::new(3);
    let (leader, odd) = (cluster.leader().unwrap(), cluster.follower());
    corrupt(&mut cluster, odd);
    go_on(&mut cluster, leader);
    assert_eq!(withdrawn(&cluster, odd), Some(Withdrawal::Diverged { index: LogIndex::new(256) }));
    assert!(cluster.replicas.keys().all(|node| *node == odd || withdrawn(&cluster, *node).is_none()));
    let peer = cluster.replicas[&leader].raft().progress().find(|peer| peer.id == odd).unwrap();
    assert!(peer.withdrawn.is_some(), "the leader knows, and counts it no more");
}

#[test]
fn a_leader_whose_state_differs_from_a_quorums_withdraws_and_is_followed_by_another() {
    let mut cluster = Cluster::new(3);
    let odd = cluster.leader().unwrap();
    corrupt(&mut cluster, odd);
    go_on(&mut cluster, odd);
    assert!(matches!(withdrawn(&cluster, odd), Some(Withdrawal::Diverged { .. })));
    let leader = cluster.run_until_succeeded(odd);
    assert!(cluster.replicas.keys().all(|node| *node == odd || withdrawn(&cluster, *node).is_none()));
    let write = cluster.write(leader, "k", "v");
    cluster.run_until_answered(write);
}

/// The members that said that the states differ and nobody can say which is right.
fn undecided(cluster: &Cluster) -> Vec<NodeId> {
    let told = cluster.notices.iter().filter(|(_, notice)| matches!(notice, Notice::StatesDiffer(_)));
    let mut told: Vec<NodeId> = told.map(|(node, _)| *node).collect();
    told.sort();
    told
}

#[test]
fn of_two_members_that_differ_neither_withdraws_and_both_say_so() {
    let mut cluster = Cluster::new(2);
    let (leader, other) = (cluster.leader().unwrap(), cluster.follower());
    corrupt(&mut cluster, leader);
    for _ in 0..3 {
        go_on(&mut cluster, leader);
    }
    assert_eq!((withdrawn(&cluster, leader), withdrawn(&cluster, other)), (None, None));
    let mut both = vec![leader, other];
    both.sort();
    assert_eq!(undecided(&cluster), both, "once in a while, not with each comparison");
    // The cluster can still be told what to do.
    let write = cluster.write(leader, "k", "v");
    cluster.run_until_answered(write);
}

#[test]
fn of_four_members_that_differ_two_and_two_none_withdraws() {
    let mut cluster = Cluster::new(4);
    let leader = cluster.leader().unwrap();
    let others: Vec<NodeId> = cluster.replicas.keys().copied().filter(|node| *node != leader).collect();
    corrupt(&mut cluster, others[0]);
    corrupt(&mut cluster, others[1]);
    go_on(&mut cluster, leader);
    assert!(cluster.replicas.keys().all(|node| withdrawn(&cluster, *node).is_none()));
    let mut told = vec![leader, others[0], others[1]];
    told.sort();
    assert_eq!(undecided(&cluster), told);
}

/// A leader and one that differs from it; the third is cut off.
fn with_a_silent_voter() -> (Cluster, Vec<NodeId>, NodeId) {
    let mut cluster = quiet_cluster();
    let (leader, odd) = (cluster.leader().unwrap(), cluster.follower());
    let silent = *cluster.replicas.keys().find(|node| ![leader, odd].contains(node)).unwrap();
    cluster.isolate(silent);
    corrupt(&mut cluster, odd);
    let mut both = vec![leader, odd];
    both.sort();
    (cluster, both, silent)
}

#[test]
fn members_that_differ_say_so_although_a_voter_is_silent() {
    let (mut cluster, both, _) = with_a_silent_voter();
    let leader = cluster.leader().unwrap();
    for _ in 0..5 {
        go_on(&mut cluster, leader);
    }
    assert_eq!(undecided(&cluster), both, "once, and before the silent one is back");
    assert!(cluster.replicas.keys().all(|node| withdrawn(&cluster, *node).is_none()));
}

#[test]
fn members_of_a_quiet_cluster_that_differ_say_so_although_a_voter_is_silent() {
    let (mut cluster, both, silent) = with_a_silent_voter();
    let leader = cluster.leader().unwrap();
    let write = cluster.write(leader, "other", "v");
    cluster.run_until_answered(write);
    cluster.run(20_000_000);
    assert_eq!(undecided(&cluster), both);
    assert!(cluster.replicas.keys().all(|node| withdrawn(&cluster, *node).is_none()));
    // The silent one decides it once it is back.
    cluster.heal();
    cluster.run(20_000_000);
    let leads = cluster.leader().unwrap();
    let odd = both.into_iter().find(|node| *node != leader).unwrap();
    assert!(matches!(withdrawn(&cluster, odd), Some(Withdrawal::Diverged { .. })), "{leads} leads");
    assert_eq!([leader, silent].map(|node| withdrawn(&cluster, node)), [None, None]);
}

#[test]
fn a_voter_that_answers_a_little_late_decides_and_no_alarm_is_raised() {
    let (mut cluster, both, silent) = with_a_silent_voter();
    let leader = cluster.leader().unwrap();
    let odd = both.into_iter().find(|node| *node != leader).unwrap();
    // It hears, and is not heard.
    cluster.heal();
    cluster.cut.insert((silent, leader));
    go_on(&mut cluster, leader);
    assert_eq!(withdrawn(&cluster, odd), None);
    // The next checkpoint is there. The question about the one before is kept open for its answer.
    go_on(&mut cluster, leader);
    cluster.heal();
    go_on(&mut cluster, leader);
    assert!(matches!(withdrawn(&cluster, odd), Some(Withdrawal::Diverged { .. })));
    assert_eq!(undecided(&cluster), vec![]);
}

#[test]
fn a_member_that_withdraws_answers_nothing_that_waits_from_its_state() {
    let mut cluster = Cluster::new(3);
    let (leader, odd) = (cluster.leader().unwrap(), cluster.follower());
    cluster.write(leader, "k", "v");
    cluster.run(100_000);
    // The leader has confirmed the read, and the member has not applied what the read has to see.
    cluster.disks_work = false;
    let read = cluster.read(odd, "k", Level::Linearizable);
    let call = cluster.ask(odd, ClientRequest::Lease { lease: LeaseId(7), renew: true });
    let sent = cluster.write(odd, "k", "newer");
    cluster.give(odd, Event::Withdraw(Withdrawal::Diverged { index: LogIndex::new(1) }));
    let refused =
        |request| matches!(cluster.reply(request), Some(ClientReply::Failed(ClientError::Refused(_))));
    assert!(refused(read) && refused(call));
    assert_eq!(cluster.reply(sent), Some(&ClientReply::Failed(ClientError::Unknown)));
}

/// Three members, after all that a new cluster writes by itself.
fn quiet_cluster() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.run(60_000_000);
    cluster
}

#[test]
fn a_cluster_with_few_writes_is_compared_once_it_is_quiet() {
    let mut cluster = quiet_cluster();
    let (leader, odd) = (cluster.leader().unwrap(), cluster.follower());
    let write = cluster.write(leader, "other", "v");
    cluster.run_until_answered(write);
    corrupt(&mut cluster, odd);
    cluster.run(8_000_000);
    assert_eq!(withdrawn(&cluster, odd), None, "not yet");
    cluster.run(4_000_000);
    let index = cluster.replicas[&leader].last_applied().index;
    assert_eq!(withdrawn(&cluster, odd), Some(Withdrawal::Diverged { index }));
    assert!(cluster.replicas.keys().all(|node| *node == odd || withdrawn(&cluster, *node).is_none()));
}

#[test]
fn a_quiet_cluster_is_compared_once_and_again_after_the_next_write() {
    let mut cluster = quiet_cluster();
    let leader = cluster.leader().unwrap();
    let questions = |cluster: &mut Cluster| {
        let mut count = 0;
        for _ in 0..300 {
            cluster.now = cluster.now.plus(50_000);
            for node in cluster.replicas.keys().copied().collect::<Vec<_>>() {
                cluster.give(node, Event::Wake);
            }
            let is_question = |message: &&PeerMessage| match message {
                PeerMessage::StateHash(said) => said.kind == StateHashKind::Question,
                _ => false,
            };
            count += cluster.network.iter().filter(is_question).count();
            cluster.deliver();
        }
        count
    };
    assert_eq!(questions(&mut cluster), 0, "it has been compared");
    let write = cluster.write(leader, "k", "v");
    cluster.run_until_answered(write);
    assert_eq!([questions(&mut cluster), questions(&mut cluster)], [2, 0], "one to each of the others");
}
