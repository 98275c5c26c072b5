//! Replication: Raft §5.3, §5.4, and the traps around it.

use crate::raft::tests::harness::{Cluster, index};

#[test]
fn a_proposal_is_committed_and_applied_everywhere() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, "a").unwrap();
    cluster.propose(1, "b").unwrap();
    cluster.run();
    for number in 1..=3 {
        assert_eq!(cluster.commands(number), ["a", "b"], "without waiting for a heartbeat");
        assert_eq!(cluster.raft(number).commit_index(), index(4));
    }
}

#[test]
fn a_follower_that_was_away_catches_up() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    for number in 0..50 {
        cluster.propose(1, &number.to_string()).unwrap();
    }
    cluster.run();
    cluster.heal();
    cluster.advance(500_000);
    assert_eq!(cluster.commands(3).len(), 50);
    cluster.check_log_matching();
}
