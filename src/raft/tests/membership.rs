//! Changes of membership (Raft §6, D §4), leadership transfer (§3.10), and the traps
//! around them.

use crate::raft::tests::harness::{Cluster, entry, id, index, log_id, made_with, member, voters};
use crate::raft::{
    AnswerClock, Body, Change, Entry, EntryKind, InputError, LogIndex, Membership, ReadRound, Restored,
    RoleName, Session, Term,
};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

fn add(number: u64, promote: bool) -> Change {
    Change::AddMembers { members: vec![member(number)], replaces: BTreeSet::new(), promote }
}

fn remove(numbers: &[u64]) -> Change {
    Change::Remove { members: numbers.iter().map(|number| id(*number)).collect() }
}

fn voter_numbers(membership: &Membership) -> Vec<u64> {
    membership.voters.iter().map(|id| id.get()).collect()
}

/// 1@1 of three voters, then a joint state from {1, 2, 3} to {1, 2, 4} at 2@1.
fn joint() -> (Restored, Membership) {
    let mut joint = voters(1..=4);
    joint.voters = [1, 2, 4].map(id).into();
    joint.outgoing = Some([1, 2, 3].map(id).into());
    let mut restored = made_with(&voters(1..=3));
    restored.entries.push(Entry::new(log_id(2, 1), EntryKind::Membership, &joint.encode()));
    (restored, joint)
}

#[test]
fn a_learner_is_added_catches_up_and_becomes_a_voter() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for number in 0..20 {
        cluster.propose(1, &number.to_string()).unwrap();
    }
    cluster.add(4, Restored::default());
    cluster.change(1, add(4, true)).unwrap();
    cluster.run();
    cluster.advance(500_000);
    for number in 1..=4 {
        assert_eq!(voter_numbers(cluster.raft(number).membership()), [1, 2, 3, 4]);
        assert!(!cluster.raft(number).membership().is_joint());
    }
    assert_eq!(cluster.commands(4).len(), 20);
}

#[test]
fn a_learner_that_has_acknowledged_no_entry_is_not_promoted() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.add(4, Restored::default());
    cluster.cut.insert((1, 4));
    cluster.change(1, add(4, true)).unwrap();
    cluster.run();
    // It says that its empty log agrees with the leader's up to there.
    let nothing = Body::AppendAccepted {
        session: Session::new(3),
        match_index: LogIndex::ZERO,
        round: ReadRound::ZERO,
        clock: AnswerClock::default(),
    };
    cluster.say(4, 1, 2, nothing);
    cluster.run();
    assert_eq!(voter_numbers(cluster.raft(1).membership()), [1, 2, 3], "it has nothing yet");
    cluster.heal();
    cluster.advance(500_000);
    assert_eq!(voter_numbers(cluster.raft(1).membership()), [1, 2, 3, 4]);
}

#[test]
fn a_learner_that_is_not_to_be_promoted_stays_one_and_counts_in_no_quorum() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.add(4, Restored::default());
    cluster.change(1, add(4, false)).unwrap();
    cluster.run();
    cluster.advance(500_000);
    assert_eq!(voter_numbers(cluster.raft(4).membership()), [1, 2, 3]);
    cluster.isolate(2);
    cluster.isolate(3);
    cluster.propose(1, "a").unwrap();
    cluster.run();
    assert!(cluster.commands(1).is_empty(), "the leader and a learner are no majority");
    cluster.advance(5_000_000);
    assert_eq!(cluster.raft(4).role(), RoleName::Follower, "a learner never campaigns");
}

#[test]
fn a_membership_is_in_force_as_soon_as_it_is_appended() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.change(1, add(4, true)).unwrap();
    assert!(cluster.raft(1).membership().contains(id(4)));
    assert!(cluster.raft(1).commit_index() < cluster.raft(1).last_log().index);
}

#[test]
fn a_membership_is_recomputed_from_snapshot_and_log_at_restart() {
    let (restored, joint) = joint();
    let mut cluster = Cluster::new(3);
    cluster.add(1, restored);
    cluster.append((2, 1, 3), log_id(2, 1), vec![entry(3, 3)], 3);
    cluster.run();
    cluster.snapshot(1, 1);
    cluster.sync(1);
    cluster.restart(1);
    assert_eq!(*cluster.raft(1).membership(), joint);
    assert_eq!(cluster.raft(1).membership_at(index(3)), (&joint, log_id(2, 1)));
}

#[test]
fn one_change_is_pending_at_most() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.change(1, add(4, false)).unwrap();
    assert_eq!(cluster.change(1, add(5, false)), Err(InputError::ChangePending));
    cluster.run();
    cluster.change(1, add(5, false)).unwrap();
}

#[test]
fn a_change_that_makes_no_sense_is_refused() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    assert!(matches!(cluster.change(1, remove(&[1, 2, 3])), Err(InputError::BadChange(_))));
    assert!(matches!(cluster.change(2, remove(&[3])), Err(InputError::NotLeader(_))));
}

#[test]
fn a_joint_state_needs_a_majority_of_both_sets() {
    let (restored, _) = joint();
    let mut cluster = Cluster::new(3);
    for number in 1..=4 {
        cluster.add(number, restored.clone());
    }
    cluster.network.clear();
    cluster.elect(1);
    // 1 and 2 are a majority of both; 1 and 3 of the outgoing alone.
    let mut cluster = Cluster::new(3);
    for number in 1..=4 {
        cluster.add(number, restored.clone());
    }
    cluster.network.clear();
    cluster.crash(2);
    cluster.crash(4);
    cluster.advance(5_000_000);
    assert_eq!(cluster.leader(), None, "1 and 3 are no majority of the incoming set");
}

#[test]
fn a_joint_state_commits_with_a_majority_of_both_sets() {
    let (restored, _) = joint();
    let mut cluster = Cluster::new(3);
    for number in 1..=4 {
        cluster.add(number, restored.clone());
    }
    cluster.network.clear();
    cluster.time_out(1);
    cluster.say(2, 1, 1, Body::PreVoteGranted { campaign_term: Term::new(2) });
    cluster.sync(1);
    cluster.say(2, 1, 2, Body::VoteGranted);
    assert_eq!(cluster.raft(1).role(), RoleName::Leader);
    cluster.isolate(2);
    cluster.isolate(3);
    cluster.run();
    let of_4 = cluster.raft(1).progress().find(|peer| peer.id == id(4)).unwrap();
    assert_eq!(of_4.match_index, index(3));
    assert_eq!(
        cluster.raft(1).commit_index(),
        LogIndex::ZERO,
        "1 and 4 are a majority of the incoming alone"
    );
    cluster.heal();
    cluster.advance(300_000);
    assert!(cluster.raft(1).commit_index() >= index(3));
}

#[test]
fn a_removed_leader_steps_down_once_its_removal_is_committed() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.change(1, remove(&[1])).unwrap();
    cluster.run();
    cluster.advance(200_000);
    assert_eq!(cluster.raft(1).role(), RoleName::Follower);
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, 1, "it handed over");
    assert_eq!(voter_numbers(cluster.raft(leader).membership()), [2, 3]);
    cluster.advance(5_000_000);
    assert_eq!(cluster.raft(1).role(), RoleName::Follower, "who is no voter does not campaign");
}

#[test]
fn a_removed_member_learns_that_it_was_removed() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.change(1, remove(&[3])).unwrap();
    cluster.run();
    cluster.advance(100_000);
    assert!(!cluster.raft(3).membership().contains(id(3)));
    assert!(cluster.raft(3).commit_index() >= cluster.raft(3).membership_at(LogIndex::new(99)).1.index);
    cluster.advance(1_000_000);
    assert_eq!(cluster.raft(1).progress().count(), 1, "and the relation ends");
}

#[test]
fn a_dead_removed_member_is_not_sent_to_for_ever() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.crash(3);
    cluster.change(1, remove(&[3])).unwrap();
    cluster.advance(2_000_000);
    assert_eq!(cluster.raft(1).progress().count(), 1);
}

#[test]
fn a_wiped_node_is_replaced_by_a_new_member_in_one_change() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.crash(3);
    cluster.add(4, Restored::default());
    let replaces = BTreeSet::from([id(3)]);
    cluster.change(1, Change::AddMembers { members: vec![member(4)], replaces, promote: true }).unwrap();
    cluster.advance(1_000_000);
    assert_eq!(voter_numbers(cluster.raft(1).membership()), [1, 2, 4]);
    assert!(!cluster.raft(1).membership().contains(id(3)));
}

#[test]
fn timeout_now_from_another_than_the_leader_is_ignored() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.say(3, 2, 2, Body::TimeoutNow);
    assert_eq!(cluster.raft(2).role(), RoleName::Follower);
}

#[test]
fn a_removed_member_is_sent_no_entry_after_its_removal() {
    let mut cluster = Cluster::new(4);
    cluster.elect(1);
    cluster.cut.insert((1, 4));
    cluster.propose(1, "before").unwrap();
    cluster.run();
    cluster.change(1, Change::Remove { members: BTreeSet::from([id(4)]) }).unwrap();
    cluster.run();
    for number in 0..5 {
        cluster.propose(1, &alloc::format!("after {number}")).unwrap();
        cluster.run();
    }
    cluster.cut.clear();
    cluster.advance(300_000);
    let last = cluster.raft(4).last_log().index;
    let removal = cluster.raft(1).membership_id().0.index;
    assert!(last > index(2) && last <= removal, "{last} is its last entry, its removal is {removal}");
}
