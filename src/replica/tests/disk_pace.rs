//! A leader whose disk is slow hands over, if that helps.

use crate::raft::{NodeId, RoleName};
use crate::replica::Notice;
use crate::replica::tests::{Cluster, id};

/// Writes go on for so long, and each takes so long on the disks of these nodes; on others none.
fn write_on(cluster: &mut Cluster, slow: &[NodeId], seconds: u64, micros: u64) {
    let end = cluster.now.plus(seconds * 1_000_000);
    let mut number = 0;
    while cluster.now < end {
        let through = cluster.leader().unwrap_or(id(1));
        number += 1;
        cluster.write(through, &format!("k{number}"), "v");
        cluster.slow = slow.iter().map(|node| (*node, micros)).collect();
        cluster.run(50_000);
    }
}

fn left(cluster: &Cluster) -> usize {
    cluster.notices.iter().filter(|(_, notice)| matches!(notice, Notice::LeftLeadToQuicker { .. })).count()
}

#[test]
fn a_leader_whose_disk_is_slow_hands_over_once_and_says_so() {
    let mut cluster = Cluster::new(3);
    let slow = cluster.leader().unwrap();
    write_on(&mut cluster, &[slow], 8, 300_000);
    assert_ne!(cluster.leader(), Some(slow));
    assert_eq!(left(&cluster), 1);
    let said = |cluster: &Cluster, expected: bool| {
        let is_said = |(node, notice): &&(NodeId, Notice)| {
            matches!(notice, Notice::DiskSlow { is_slow, .. } if *is_slow == expected) && *node == slow
        };
        cluster.notices.iter().filter(is_said).count()
    };
    assert_eq!((said(&cluster, true), said(&cluster, false)), (1, 0));
    assert!(cluster.replicas[&slow].status(cluster.now).disk_slow);
    write_on(&mut cluster, &[], 8, 0);
    assert_eq!((said(&cluster, true), said(&cluster, false)), (1, 1));
    assert_eq!(left(&cluster), 1);
}

#[test]
fn a_leader_leads_on_where_no_majority_is_quicker() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let other = cluster.follower();
    write_on(&mut cluster, &[leader, other], 10, 300_000);
    assert_eq!((cluster.leader(), left(&cluster)), (Some(leader), 0));
    assert_eq!(cluster.replicas[&leader].raft().role(), RoleName::Leader);
}

#[test]
fn a_disk_that_nothing_is_asked_of_does_not_stay_slow() {
    let mut cluster = Cluster::new(1);
    let node = cluster.leader().unwrap();
    write_on(&mut cluster, &[node], 8, 300_000);
    assert!(cluster.replicas[&node].status(cluster.now).disk_slow);
    cluster.slow.clear();
    cluster.run(20_000_000);
    assert!(cluster.replicas[&node].status(cluster.now).disk_slow, "a pause says little");
    cluster.run(20_000_000);
    assert!(!cluster.replicas[&node].status(cluster.now).disk_slow);
    let last = cluster.notices.iter().rev().find_map(|(_, notice)| match notice {
        Notice::DiskSlow { is_slow, .. } => Some(*is_slow),
        _ => None,
    });
    assert_eq!(last, Some(false), "and it is said");
}

#[test]
fn a_write_that_waits_behind_others_does_not_make_a_disk_slow() {
    let mut cluster = Cluster::new(1);
    let node = cluster.leader().unwrap();
    cluster.slow = [(node, 80_000)].into();
    // The disk takes 80 ms for each go; a write waits for half of the go before it as well, so that
    // it takes longer than a heartbeat interval.
    for number in 0..1_000 {
        cluster.write(node, &format!("k{number}"), "v");
        cluster.run(10_000);
    }
    let status = cluster.replicas[&node].status(cluster.now);
    assert!((75_000..90_000).contains(&status.disk_write_micros), "{} µs", status.disk_write_micros);
    assert!(!status.disk_slow);
}

#[test]
fn one_slow_write_moves_nobody() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    for _ in 0..4 {
        write_on(&mut cluster, &[leader], 1, 400_000);
        write_on(&mut cluster, &[], 4, 0);
    }
    assert_eq!((cluster.leader(), left(&cluster)), (Some(leader), 0));
}

#[test]
fn a_leader_whose_disk_is_quick_again_leads_on() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let other = cluster.follower();
    // Both count as slow for three windows more. The other two members are a quorum meanwhile.
    write_on(&mut cluster, &[leader, other], 5, 300_000);
    write_on(&mut cluster, &[], 6, 0);
    assert_eq!((cluster.leader(), left(&cluster)), (Some(leader), 0));
}
