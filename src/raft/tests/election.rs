//! Elections: Raft §5.2, §5.4.1, §9.6 of the dissertation, and the traps around them.

use crate::raft::tests::harness::Cluster;
use crate::raft::{Config, Input, NodeId, RoleName};

#[test]
fn an_election_follows_by_itself_from_silence() {
    let mut cluster = Cluster::new(5);
    cluster.advance(3_000_000);
    assert!(cluster.leader().is_some());
}

#[test]
fn wake_before_the_deadline_changes_nothing() {
    let mut cluster = Cluster::new(3);
    let before = cluster.raft(1).clone();
    cluster.step(1, Input::Wake).unwrap();
    assert_eq!(*cluster.raft(1), before);
    assert_eq!(before.leader_hint().leader, None::<NodeId>);
}

#[test]
fn a_leader_that_is_cut_off_steps_down_however_busy_its_clients_keep_it() {
    // It may send as many appends as there are proposals, so that it never falls silent.
    let mut cluster = Cluster::with(3, Config { inflight_messages_max: 1_000, ..Config::default() });
    cluster.elect(1);
    cluster.isolate(1);
    let timeout = cluster.config.election_timeout_micros;
    // Each append puts the next heartbeat off; the clock is looked at only when the core has asked
    // for it.
    for _ in 0..2 * timeout / 10_000 {
        let _ = cluster.propose(1, "a");
        cluster.advance(10_000);
    }
    assert_eq!(cluster.raft(1).role(), RoleName::Follower);
}
