//! Who leads when disks are full.

use crate::raft::NodeId;
use crate::replica::tests::{Cluster, id};
use crate::replica::{ClientReply, ClientRequest, DiskPaceSaid, Event, PeerMessage, StorageEvent};

fn fill(cluster: &mut Cluster, node: NodeId, is_full: bool) {
    cluster.give(node, Event::Storage(StorageEvent::DiskFull(is_full)));
}

#[test]
fn leadership_does_not_go_round_where_all_disks_are_full() {
    let mut cluster = Cluster::new(3);
    let before = cluster.replicas[&id(1)].raft().term().get();
    for number in 1..=3 {
        fill(&mut cluster, id(number), true);
    }
    cluster.run(60_000_000);
    let leader = cluster.leader().expect("it leads on");
    let terms = cluster.replicas[&leader].raft().term().get() - before;
    assert!(terms <= 2, "{terms} times");
    // One has room again: it leads, and takes writes.
    let roomy = cluster.follower();
    fill(&mut cluster, roomy, false);
    cluster.run(10_000_000);
    assert_eq!(cluster.leader(), Some(roomy));
    let write = cluster.write(roomy, "k", "v");
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_to_a_member_whose_disk_is_not() {
    for full in 1..=3 {
        let mut cluster = Cluster::new(3);
        let leader = cluster.leader().unwrap();
        if id(full) == leader {
            continue;
        }
        fill(&mut cluster, id(full), true);
        cluster.deliver();
        fill(&mut cluster, leader, true);
        let next = cluster.run_until_succeeded(leader);
        assert_ne!(next, id(full));
        cluster.run(20_000_000);
        assert_eq!(cluster.leader(), Some(next), "and leads on");
    }
}

#[test]
fn a_member_whose_log_has_no_room_is_not_named_as_a_successor() {
    let mut cluster = Cluster::new(3);
    let (leader, full) = (cluster.leader().unwrap(), cluster.follower());
    cluster.give(full, Event::Storage(StorageEvent::LogFull(true)));
    cluster.deliver();
    fill(&mut cluster, leader, true);
    assert_ne!(cluster.run_until_succeeded(leader), full);
}

#[test]
fn a_leader_that_may_choose_its_successor_passes_over_one_without_room_or_with_a_slow_disk() {
    for (unfit, is_full) in [(1, true), (2, true), (3, true), (1, false), (2, false), (3, false)] {
        let mut cluster = Cluster::new(3);
        let leader = cluster.leader().unwrap();
        if id(unfit) == leader {
            continue;
        }
        let term = cluster.replicas[&leader].raft().term();
        let said = DiskPaceSaid { from: id(unfit), to: leader, term, write_micros: 2_000_000, is_full };
        cluster.give(leader, Event::Peer(PeerMessage::DiskPace(said)));
        cluster.ask(leader, ClientRequest::TransferLeadership(None));
        assert_ne!(cluster.run_until_succeeded(leader), id(unfit), "full: {is_full}");
    }
}
