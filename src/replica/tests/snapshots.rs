//! When snapshots are taken, and what happens when one fails.

use crate::kv::Store;
use crate::raft::{LogId, LogIndex, NodeId, ReplicationState, SnapshotMeta, Time};
use crate::replica::tests::{Cluster, id, start};
use crate::replica::{Event, Notice, ReplicaConfig, StorageEvent};

#[test]
fn snapshots_are_taken_when_the_log_has_grown_and_the_log_is_cut() {
    let mut config = ReplicaConfig { snapshot_log_entries: 10, ..ReplicaConfig::default() };
    config.raft.log_tail_entries = 3;
    let mut cluster = Cluster::without_leader(3, &config);
    let leader = cluster.elect();
    for number in 0..50 {
        let write = cluster.write(leader, "k", &number.to_string());
        cluster.run_until_answered(write);
    }
    for replica in cluster.replicas.values() {
        let status = replica.status(Time::new(0));
        assert!(status.snapshot.index.get() >= 40, "a snapshot every ten entries, not {}", status.snapshot);
        let kept = replica.raft().log_after(LogIndex::ZERO).len();
        assert!(kept <= 20, "{kept} entries are still in memory");
    }
}

#[test]
fn no_new_snapshot_is_begun_while_one_is_being_sent_until_the_log_is_four_times_as_long() {
    let mut config = ReplicaConfig { snapshot_log_entries: 10, ..ReplicaConfig::default() };
    config.raft.log_tail_entries = 3;
    let mut cluster = Cluster::without_leader(3, &config);
    let leader = cluster.elect();
    let laggard = cluster.follower();
    let write = |cluster: &mut Cluster, count: u64| {
        for number in 0..count {
            let write = cluster.write(leader, "k", &number.to_string());
            cluster.run_until_answered(write);
        }
        cluster.replicas[&leader].status(cluster.now).snapshot.index.get()
    };
    cluster.isolate(laggard);
    cluster.run(2_000_000);
    write(&mut cluster, 40);
    cluster.heal();
    // Its chunks never arrive, since the storage of these tests has none: the transfer goes on.
    let sending = |cluster: &Cluster| {
        cluster.replicas[&leader].raft().progress().any(|p| p.state == ReplicationState::Snapshot)
    };
    cluster.run_until(|cluster| sending(cluster));
    let before = write(&mut cluster, 1);
    assert_eq!(write(&mut cluster, 20), before, "twice as many entries as usual");
    assert!(sending(&cluster));
    assert!(write(&mut cluster, 25) > before, "it is not put off for ever");
}

#[test]
fn no_snapshot_is_taken_of_nothing_whatever_the_limits_say() {
    let config = ReplicaConfig { snapshot_log_entries: 0, snapshot_log_bytes: 0, ..ReplicaConfig::default() };
    let mut replica = start(id(1), &config, Default::default(), 1);
    let actions = replica.take_actions();
    assert!(actions.storage.is_empty(), "nothing is applied yet: {:?}", actions.storage);
}

/// A cluster of three that takes a snapshot every ten entries, and keeps three behind it; its
/// leader.
fn eager() -> (Cluster, NodeId) {
    let mut config = ReplicaConfig { snapshot_log_entries: 10, ..ReplicaConfig::default() };
    config.raft.log_tail_entries = 3;
    let mut cluster = Cluster::without_leader(3, &config);
    let leader = cluster.elect();
    (cluster, leader)
}

fn write(cluster: &mut Cluster, count: u64) {
    let leader = cluster.leader().unwrap();
    for number in 0..count {
        let write = cluster.write(leader, "k", &number.to_string());
        cluster.run_until_answered(write);
    }
}

fn failures(cluster: &Cluster, of: NodeId) -> usize {
    let is_failure = |notice: &Notice| matches!(notice, Notice::SnapshotFailed(_));
    cluster.notices.iter().filter(|(node, notice)| *node == of && is_failure(notice)).count()
}

#[test]
fn a_snapshot_that_could_not_be_saved_is_tried_again_soon_and_ever_more_seldom() {
    let (mut cluster, leader) = eager();
    cluster.saves_fail = true;
    write(&mut cluster, 12);
    let begun = cluster.now;
    cluster.run(20_000_000);
    let last = cluster.replicas[&leader].last_applied();
    let tries: Vec<u64> =
        cluster.saves.iter().filter(|(_, at, _)| *at > begun).map(|(_, at, _)| at.since(begun)).collect();
    // Three nodes; each after 1, 3, 7 and 15 s, although nothing more was written.
    assert_eq!(tries.len(), 3 * 4, "{tries:?}");
    assert!(cluster.replicas[&leader].status(cluster.now).snapshot_failure.is_some());
    cluster.saves_fail = false;
    cluster.run(20_000_000);
    let status = cluster.replicas[&leader].status(cluster.now);
    assert_eq!((status.snapshot, status.snapshot_failure), (last, None));
}

#[test]
fn a_snapshot_that_found_no_room_is_tried_again_as_soon_as_there_is_some() {
    let (mut cluster, leader) = eager();
    cluster.saves_fail = true;
    write(&mut cluster, 12);
    cluster.give(leader, Event::Storage(StorageEvent::DiskFull(true)));
    cluster.run(20_000_000);
    cluster.saves_fail = false;
    cluster.saves.clear();
    let has_room_at = cluster.now;
    cluster.give(leader, Event::Storage(StorageEvent::DiskFull(false)));
    cluster.run(1_000_000);
    let tries = cluster.saves.iter().filter(|(node, ..)| *node == leader);
    let waited: Vec<u64> = tries.map(|(_, at, _)| at.since(has_room_at)).collect();
    assert!(matches!(waited[..], [0..100_000]), "after {waited:?} µs");
    assert_eq!(cluster.replicas[&leader].status(cluster.now).snapshot_failure, None);
}

#[test]
fn a_leader_that_cannot_read_its_snapshot_says_so_once_and_saves_it_again_at_once() {
    for writes_meanwhile in [0, 1] {
        let (mut cluster, leader) = eager();
        let laggard = cluster.follower();
        cluster.isolate(laggard);
        cluster.run(2_000_000);
        write(&mut cluster, 30);
        let snapshot = |cluster: &Cluster| cluster.replicas[&leader].status(cluster.now).snapshot;
        while snapshot(&cluster) != cluster.replicas[&leader].last_applied() {
            write(&mut cluster, 1);
        }
        let damaged = snapshot(&cluster);
        write(&mut cluster, writes_meanwhile);
        cluster.unreadable.insert(damaged);
        cluster.saves.clear();
        cluster.heal();
        cluster.run(5_000_000);
        let expected = cluster.replicas[&leader].last_applied();
        let of_leader = cluster.saves.iter().filter(|(node, ..)| *node == leader);
        let saves: Vec<_> = of_leader.map(|(.., last)| *last).collect();
        assert_eq!(saves, [expected], "one new snapshot, without waiting for the log to grow");
        assert_eq!(failures(&cluster, leader), 1);
        let status = cluster.replicas[&leader].status(cluster.now);
        assert_eq!((status.snapshot, status.snapshot_failure), (expected, None));
    }
}

#[test]
fn a_disk_that_spoils_every_snapshot_is_not_written_to_without_end() {
    let (mut cluster, leader) = eager();
    let laggard = cluster.follower();
    cluster.isolate(laggard);
    cluster.run(2_000_000);
    write(&mut cluster, 40);
    cluster.heal();
    cluster.saves.clear();
    for _ in 0..30_000 {
        let damaged = cluster.replicas[&leader].status(cluster.now).snapshot;
        cluster.unreadable.insert(damaged);
        cluster.run(1_000);
    }
    let saves = cluster.saves.iter().filter(|(node, ..)| *node == leader).count();
    // At once, then after 1, 2, 4, 8 and 16 s.
    assert!((3..=6).contains(&saves), "{saves} saves in half a minute");
    assert!(cluster.replicas[&leader].status(cluster.now).snapshot_failure.is_some());
}

#[test]
fn snapshots_that_are_found_damaged_on_the_disk_again_and_again_are_written_ever_more_seldom() {
    for older_too in [false, true] {
        let (mut cluster, leader) = eager();
        write(&mut cluster, 40);
        cluster.saves.clear();
        let mut older = cluster.replicas[&leader].snapshot();
        for half_second in 0..60 {
            // As scrubbing says, as long as it is so.
            let newest = cluster.replicas[&leader].snapshot();
            let last = if older_too && older != newest { older } else { newest };
            let damaged = StorageEvent::SnapshotDamaged { last, reason: "a bad sector".into() };
            cluster.give(leader, Event::Storage(damaged));
            if older_too && half_second % 2 == 0 {
                older = newest;
                write(&mut cluster, 1);
            }
            cluster.run(500_000);
        }
        let saves = cluster.saves.iter().filter(|(node, ..)| *node == leader).count();
        // At once, then after 1, 2, 4, 8 and 16 s; and those that the log needs by itself.
        assert!((3..=9).contains(&saves), "{saves} saves in half a minute");
        let status = cluster.replicas[&leader].status(cluster.now);
        assert!(older_too || status.snapshot_failure.is_some());
    }
}

#[test]
fn what_snapshots_write_stays_in_proportion_to_what_clients_write_however_large_the_store() {
    let config = ReplicaConfig { snapshot_log_bytes: 10_000, ..ReplicaConfig::default() };
    let mut cluster = Cluster::without_leader(1, &config);
    let leader = cluster.elect();
    let value = "v".repeat(1_000);
    let (mut log_bytes, mut snapshot_bytes) = (0, 0);
    for number in 0..1_000 {
        let saves = cluster.saves.len();
        let write = cluster.write(leader, &format!("key {number}"), &value);
        cluster.run_until_answered(write);
        log_bytes += 1_000;
        let store = cluster.replicas[&leader].store().bytes();
        snapshot_bytes += store * (cluster.saves.len() - saves) as u64;
    }
    assert!(cluster.saves.len() >= 5, "{} snapshots", cluster.saves.len());
    assert!(
        snapshot_bytes <= 3 * log_bytes,
        "{snapshot_bytes} bytes of snapshots for {log_bytes} bytes of log"
    );
    // A start replays less than the store has bytes.
    let behind = cluster.replicas[&leader].last_applied().index.since(cluster.saves.last().unwrap().2.index);
    assert!(behind <= 1_000, "{behind}");
}

#[test]
fn entries_count_too_in_proportion_to_the_keys() {
    let (mut cluster, leader) = eager();
    for number in 0..100 {
        let write = cluster.write(leader, &format!("key {number}"), "v");
        cluster.run_until_answered(write);
    }
    cluster.saves.clear();
    write(&mut cluster, 100);
    let saves = cluster.saves.iter().filter(|(node, ..)| *node == leader).count();
    assert!((3..=4).contains(&saves), "{saves} in 100 entries: one for every 25, with 101 keys");
}

#[test]
fn the_state_that_a_snapshot_replaces_is_handed_out_and_not_let_go_of_here() {
    let mut cluster = Cluster::new(1);
    let node = cluster.leader().unwrap();
    let written = cluster.write(node, "k", "v");
    cluster.run_until_answered(written);
    let replica = cluster.replicas.get_mut(&node).unwrap();
    let (membership, membership_id) = replica.raft.membership_at(replica.raft.commit_index());
    let last = LogId::new(replica.raft.term(), replica.last_applied.index.plus(1));
    let meta = SnapshotMeta { last, membership: membership.clone(), membership_id, bytes: 0, hash: 0 };
    replica.installing = Some(Box::new((meta.clone(), Store::new())));
    replica.install(&meta);
    assert!(replica.store().get(b"k").is_none(), "the snapshot has nothing");
    let replaced = replica.take_actions().replaced.expect("it is handed out");
    assert!(replaced.get(b"k").is_some());
}

#[test]
fn a_state_is_of_no_known_age_until_an_installed_snapshot_has_taken_its_place() {
    let mut cluster = Cluster::new(1);
    let node = cluster.leader().unwrap();
    let written = cluster.write(node, "k", "v");
    cluster.run_until_answered(written);
    let now = cluster.now;
    let replica = cluster.replicas.get_mut(&node).unwrap();
    assert!(replica.silent_micros(now).is_some());
    // The core has it, and the state here is the one before.
    replica.last_applied = LogId::default();
    assert_eq!(replica.silent_micros(now), None);
}
