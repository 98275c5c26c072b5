//! What is left of a cluster that a node was recovered from says so where it is found.

use crate::node::tests::cluster::{TestNode, is_set};
use crate::raft::{ClusterId, StoreId};
use crate::storage::{MemoryDisk, Remains, StorageOptions};

async fn start_at(name: &str, addr: &str, disk: &MemoryDisk) -> TestNode {
    TestNode::start_with(name, disk.clone(), |options| options.raft_addr = addr.to_owned()).await
}

/// Waits for the alarm of two clusters that says this.
async fn alarmed(node: &TestNode, says: &str) {
    let stands = || {
        node.metrics.alarm_board.list().iter().any(|it| it.kind == "two-clusters" && it.text.contains(says))
    };
    while !stands() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn two_clusters_that_were_recovered_out_of_one_find_each_other_and_what_is_left_of_it() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    assert!(is_set(&a.set("k", "v").await));
    let addrs = [a.addr(), b.addr(), c.addr()];
    let disks = [a.disk.clone(), b.disk.clone(), c.disk.clone()];
    for node in [c, b, a] {
        node.stop().await;
    }
    for (disk, number) in disks[1..].iter().zip([40, 50]) {
        let remains = Remains::of(disk.clone(), StorageOptions::new("/data")).unwrap();
        remains.recover(ClusterId(number), StoreId(number + 1)).unwrap();
    }
    let b = start_at("b", &addrs[1], &disks[1]).await;
    let c = start_at("c", &addrs[2], &disks[2]).await;
    alarmed(&c, "node b").await;
    b.stop().await;
    let b = start_at("b", &addrs[1], &disks[1]).await;
    alarmed(&b, "node c").await;
    // A node of the old cluster runs, too.
    let _a = start_at("a", &addrs[0], &disks[0]).await;
    b.stop().await;
    let b = start_at("b", &addrs[1], &disks[1]).await;
    alarmed(&b, "still runs at").await;
    assert!(is_set(&b.set("k", "w").await), "both go on until a person decides");
    // What joins here is no rival.
    let fresh = TestNode::start("d").await;
    b.join(&fresh).await;
    assert_eq!(fresh.metrics.alarm_board.list(), []);
}
