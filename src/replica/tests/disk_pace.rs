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
fn one_slow_write_moves_nobody() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    for _ in 0..4 {
        write_on(&mut cluster, &[leader], 1, 400_000);
        write_on(&mut cluster, &[], 4, 0);
    }
    assert_eq!((cluster.leader(), left(&cluster)), (Some(leader), 0));
}
