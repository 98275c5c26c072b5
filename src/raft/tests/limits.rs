//! Everything is bounded: what is in flight, what waits, what is refused.

use crate::raft::tests::harness::{Cluster, id};
use crate::raft::{Body, Config, ConfigError, InputError, RestoreError, RoleName};

#[test]
fn appends_in_flight_are_bounded_by_count() {
    let mut cluster = Cluster::with(3, Config { inflight_messages_max: 4, ..Config::default() });
    cluster.elect(1);
    for number in 0..10 {
        cluster.propose(1, &number.to_string()).unwrap();
    }
    let appends = cluster.between(1, 2);
    assert_eq!(appends.len(), 4);
    cluster.run();
    assert_eq!(cluster.commands(2).len(), 10, "the rest follows the acknowledgements");
}

#[test]
fn appends_in_flight_are_bounded_by_bytes_and_one_large_entry_still_goes() {
    let config = Config { inflight_bytes_max: 100, append_bytes_max: 100, ..Config::default() };
    let mut cluster = Cluster::with(3, config);
    cluster.elect(1);
    cluster.propose(1, &"x".repeat(500)).unwrap();
    cluster.propose(1, "y").unwrap();
    assert_eq!(cluster.between(1, 2).len(), 1);
    cluster.run();
    assert_eq!(cluster.commands(3).len(), 2);
}

#[test]
fn an_append_carries_no_more_than_its_bytes() {
    let config = Config { append_bytes_max: 120, ..Config::default() };
    let mut cluster = Cluster::with(3, config);
    cluster.elect(1);
    cluster.isolate(2);
    for _ in 0..20 {
        cluster.propose(1, "0123456789").unwrap();
    }
    cluster.run();
    for message in &cluster.network {
        if let Body::AppendEntries { entries, .. } = &message.body {
            assert!(entries.len() <= 3);
        }
    }
}

#[test]
fn a_proposal_past_the_uncommitted_bytes_is_refused_until_some_commit() {
    let mut cluster = Cluster::with(3, Config { uncommitted_bytes_max: 200, ..Config::default() });
    cluster.elect(1);
    cluster.propose(1, &"x".repeat(100)).unwrap();
    let refused = cluster.propose(1, &"x".repeat(100));
    assert!(matches!(refused, Err(InputError::Uncommitted { .. })));
    let refused = cluster.propose(1, &"x".repeat(1000));
    assert!(matches!(refused, Err(InputError::TooLarge { bytes: 1000, limit: 200 })));
    cluster.run();
    cluster.propose(1, &"x".repeat(100)).unwrap();
}

#[test]
fn what_the_own_disk_owes_counts_even_if_a_quorum_commits_without_it() {
    let mut cluster = Cluster::with(3, Config { uncommitted_bytes_max: 200, ..Config::default() });
    cluster.elect(1);
    cluster.node(1).disk_held = true;
    cluster.propose(1, &"x".repeat(150)).unwrap();
    cluster.run();
    assert_eq!(cluster.commands(1).len(), 1, "committed");
    assert!(matches!(cluster.propose(1, &"x".repeat(100)), Err(InputError::Uncommitted { .. })));
    cluster.node(1).disk_held = false;
    cluster.run();
    cluster.propose(1, &"x".repeat(100)).unwrap();
}

#[test]
fn reads_past_the_limit_are_refused() {
    let mut cluster = Cluster::with(3, Config { pending_reads_max: 2, ..Config::default() });
    cluster.elect(1);
    cluster.read(2, 1).unwrap();
    cluster.read(2, 2).unwrap();
    assert_eq!(cluster.read(2, 3), Err(InputError::TooManyReads));
    cluster.run();
    assert_eq!(cluster.node(2).reads.len(), 2);
    cluster.read(2, 4).unwrap();
}

#[test]
fn only_the_leader_takes_proposals_and_others_name_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let Err(InputError::NotLeader(hint)) = cluster.propose(2, "a") else { panic!() };
    assert_eq!(hint.leader, Some(id(1)));
    assert_eq!(cluster.raft(2).role(), RoleName::Follower);
}

#[test]
fn limits_that_cannot_work_are_refused_at_the_start() {
    let config = Config { append_bytes_max: 0, ..Config::default() };
    let restored = crate::raft::Restored::default();
    let (life, now) = (crate::raft::Incarnation::new(1), crate::raft::Time::new(0));
    let refused = crate::raft::Raft::new(crate::raft::Setup {
        id: id(1),
        incarnation: life,
        seed: 1,
        config,
        restored,
        now,
    });
    assert_eq!(refused, Err(RestoreError::Config(ConfigError::Zero { field: "append_bytes_max" })));
}

#[test]
fn an_idle_cluster_says_no_more_than_heartbeats() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.advance(200_000);
    let before = cluster.delivered;
    cluster.advance(1_000_000);
    let said = cluster.delivered - before;
    assert!(said <= 11 * 2 * 2, "10 heartbeats to 2 peers, and their answers: {said}");
}

#[test]
fn a_write_in_a_quiet_cluster_costs_two_messages_and_an_answer_for_each_peer() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, "a").unwrap();
    cluster.run();
    let before = cluster.delivered;
    cluster.propose(1, "b").unwrap();
    cluster.run();
    assert_eq!(cluster.delivered - before, 2 * 3, "append, answer, news of the commit");
}
