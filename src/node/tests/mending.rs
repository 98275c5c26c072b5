//! What a node answers to one that repairs its data directory.

use crate::node::tests::cluster::{TestNode, is_set};
use crate::node::{NodeOptions, StartError};
use crate::peer::mending::{MendCall, MendReply, MendWants};
use crate::peer::rpc::{Question, Reply, ask};
use crate::peer::secured::Dialer;
use crate::raft::Change;
use crate::replica::{ClientReply, ClientRequest};
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE_MICROS: u64 = 30_000_000;

async fn ask_for_the_end(node: &TestNode) -> MendReply {
    let question = Question::Mend(MendCall { caller: None, cluster: None, wants: MendWants::Leader });
    let env = TokioEnv::new(node.disk.clone());
    match ask(&Dialer::plain(&env), &node.addr(), &question, PATIENCE_MICROS).await {
        Ok(Reply::Mend(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_leader_says_where_its_log_ends_only_with_a_quorum() {
    let (first, second) = (TestNode::start("a").await, TestNode::start("b").await);
    first.join(&second).await;
    assert!(is_set(&first.set("k", "v").await));
    let last = first.handle().status().await.replica.last_log;
    assert_eq!(ask_for_the_end(&first).await, MendReply::Leads { end: last });
    let elsewhere = MendReply::Elsewhere { leader: Some(first.addr()) };
    assert_eq!(ask_for_the_end(&second).await, elsewhere);
    // It still takes itself for the leader, and another one may lead already.
    second.stop().await;
    let answer = ask_for_the_end(&first).await;
    assert!(!matches!(answer, MendReply::Leads { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_removed_member_does_not_come_back_by_a_damaged_directory() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    let id = c.handle().status().await.replica.id;
    let (disk, addr) = (c.disk.clone(), c.addr());
    c.stop().await;
    let change = ClientRequest::ChangeMembership(Change::Remove { members: [id].into() }.into());
    assert!(matches!(a.handle().request(change).await, ClientReply::MembershipChanged(_)));
    // The header of its newest segment, which says what it had voted.
    let segments = disk.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "seg"));
    assert!(disk.flip_bit(&segments.max().unwrap(), 100, 1));
    let started = TestNode::try_start_with("c", disk, |options| {
        options.raft_addr = addr;
        options.join = vec![a.addr(), b.addr()];
    });
    let told = started.await.map(|node| node.name).unwrap_err();
    assert!(matches!(told, StartError::Removed { .. }), "{told}");
    assert_eq!(a.handle().status().await.replica.members.len(), 2);
}

#[tokio::test]
async fn a_removed_member_that_lost_its_identity_is_told_so() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    let (id, disk, addr) = (c.handle().status().await.replica.id, c.disk.clone(), c.addr());
    c.stop().await;
    // What it was before it joined goes with its next start.
    start_at("c", &addr, disk.clone()).await.stop().await;
    let change = ClientRequest::ChangeMembership(Change::Remove { members: [id].into() }.into());
    assert!(matches!(a.handle().request(change).await, ClientReply::MembershipChanged(_)));
    let identity = Path::new("/data/identity");
    for damage in ["damaged", "missing"] {
        let disk = disk.copy();
        match damage {
            "damaged" => assert!(disk.flip_bit(identity, 40, 1)),
            _ => crate::storage::Disk::remove(&disk, identity).unwrap(),
        }
        let started = TestNode::try_start_with("c", disk, |options| options.raft_addr = addr.clone()).await;
        let told = started.map(|node| node.name).unwrap_err();
        assert!(matches!(told, StartError::Removed { .. }), "{damage}: {told}");
    }
    assert_eq!(a.handle().status().await.replica.members.len(), 2);
}

async fn start_at(name: &str, addr: &str, disk: MemoryDisk) -> TestNode {
    TestNode::start_with(name, disk, |options| options.raft_addr = addr.to_owned()).await
}

/// The newest segment of a generation, and what is in it.
fn newest_segment(disk: &MemoryDisk, generation: &str) -> (PathBuf, Vec<u8>) {
    let is_segment = |path: &PathBuf| {
        path.starts_with(format!("/data/{generation}")) && path.extension().is_some_and(|end| end == "seg")
    };
    let path = disk.files().into_iter().filter(is_segment).max().unwrap();
    let content = disk.content(&path).unwrap();
    (path, content)
}

/// One knows where its log ends and has lost the last entry. One has that entry, and does not know
/// how its log ended. The third has neither. A leader without the first needs the second, and the
/// other way round: what was acknowledged comes back only if the second gives what it has.
#[tokio::test]
async fn of_two_damaged_members_the_one_that_has_to_join_anew_helps_the_other_first() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    let (addr_a, addr_b, addr_c) = (a.addr(), b.addr(), c.addr());
    let (disk_a, disk_b, disk_c) = (a.disk.clone(), b.disk.clone(), c.disk.clone());
    c.stop().await;
    assert!(is_set(&a.set("k", "the newest value").await));
    assert!(a.leads().await);
    b.stop().await;
    a.stop().await;
    let (segment, content) = newest_segment(&disk_a, "wal-1");
    let place = content.windows(16).rposition(|bytes| bytes == b"the newest value").unwrap();
    assert!(disk_a.flip_bit(&segment, place, 1));
    let (segment, content) = newest_segment(&disk_b, "wal-2");
    // The header of its last batch, which begins a block: what follows an entry may have been more.
    let last = content.iter().rposition(|byte| *byte != 0).unwrap() / 4096 * 4096;
    assert!(disk_b.flip_bit(&segment, last + 24, 1));
    let _c = start_at("c", &addr_c, disk_c).await;
    let both = async { tokio::join!(start_at("a", &addr_a, disk_a), start_at("b", &addr_b, disk_b)) };
    let (a, b) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("they help each other");
    assert_eq!(a.get("k").await.as_deref(), Some("the newest value"));
    let set_aside =
        |node: &TestNode| node.disk.files().iter().any(|file| file.starts_with("/data/damaged-1"));
    assert!(!set_aside(&a) && a.disk.files().iter().any(|file| file.starts_with("/data/damaged")));
    assert!(set_aside(&b), "it does not know what it had promised");
    while !b.handle().status().await.has_data {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.get("k").await.as_deref(), Some("the newest value"));
}

/// Snapshots come often, and few entries stay in memory behind them.
fn compacting(options: &mut NodeOptions) {
    options.replica.snapshot_log_entries = 10;
    options.replica.snapshot_log_bytes = 1;
    options.replica.raft.log_tail_entries = 0;
}

async fn start_compacting(name: &str, addr: &str, disk: MemoryDisk, segment_bytes: u64) -> TestNode {
    let change = |options: &mut NodeOptions| {
        compacting(options);
        options.raft_addr = addr.to_owned();
        options.segment_bytes = segment_bytes;
    };
    TestNode::start_with(name, disk, change).await
}

fn value(number: usize) -> String {
    format!("the value {number:03}")
}

/// Loses what stands in a log where these bytes do.
fn damage_entry(disk: &MemoryDisk, generation: &str, bytes: &str) {
    let (segment, content) = newest_segment(disk, generation);
    let place = content.windows(bytes.len()).rposition(|found| found == bytes.as_bytes()).unwrap();
    assert!(disk.flip_bit(&segment, place, 1));
}

async fn until_it_has_a_snapshot(node: &TestNode, of: u64) {
    while node.handle().status().await.replica.snapshot.index.get() < of {
        tokio::task::yield_now().await;
    }
}

/// One lost an early entry, and the last ones, which it alone had. The others have let the early
/// ones go. Their snapshot ends among its last ones, and no write comes that would move it on.
#[tokio::test]
async fn a_log_with_two_gaps_is_repaired_although_the_cluster_is_idle() {
    // What is old is gone from their disks, too.
    const SMALL: u64 = 1 << 16;
    let (b, c) = (
        start_compacting("b", "127.0.0.1:0", MemoryDisk::new(), SMALL).await,
        start_compacting("c", "127.0.0.1:0", MemoryDisk::new(), SMALL).await,
    );
    let a = TestNode::start_with("a", MemoryDisk::new(), |options| options.request_timeout_micros = 500_000)
        .await;
    a.join(&b).await;
    a.join(&c).await;
    for number in 0..60 {
        assert!(is_set(&a.set(&format!("k{number}"), &value(number)).await));
    }
    let written = a.handle().status().await.replica.last_applied.get();
    until_it_has_a_snapshot(&b, written - 20).await;
    until_it_has_a_snapshot(&c, written - 20).await;
    let (addr_a, addr_b, addr_c) = (a.addr(), b.addr(), c.addr());
    let (disk_a, disk_b, disk_c) = (a.disk.clone(), b.disk.clone(), c.disk.clone());
    tokio::join!(b.stop(), c.stop());
    assert!(a.leads().await);
    let (first, second, third) =
        tokio::join!(a.set("x", "lost 0"), a.set("y", "lost 1"), a.set("z", "lost 2"));
    assert!(!is_set(&first) && !is_set(&second) && !is_set(&third));
    a.stop().await;
    let (_, content) = newest_segment(&disk_a, "wal-1");
    assert!(content.windows(6).any(|found| found == b"lost 2"), "it is in its log");
    damage_entry(&disk_a, "wal-1", &value(3));
    for number in 20..60 {
        damage_entry(&disk_a, "wal-1", &value(number));
    }
    for number in 0..3 {
        damage_entry(&disk_a, "wal-1", &format!("lost {number}"));
    }
    let _others = tokio::join!(
        start_compacting("b", &addr_b, disk_b, SMALL),
        start_compacting("c", &addr_c, disk_c, SMALL)
    );
    let started = tokio::time::timeout(Duration::from_secs(40), start_at("a", &addr_a, disk_a)).await;
    let a = started.expect("it is repaired");
    assert_eq!(a.get("k3").await, Some(value(3)));
    assert_eq!(a.get("k59").await, Some(value(59)));
    assert_eq!(a.get("x").await, None, "it was never committed");
}

/// One knows where its log ends, and lost an early entry. One has a snapshot that covers it, and
/// does not know how its log ended. The third has neither. So the first needs the second's
/// snapshot, and the second a leader, which needs the first.
#[tokio::test]
async fn a_member_that_has_to_join_anew_gives_another_damaged_one_its_snapshot_first() {
    let (a, b, c) = (
        TestNode::start("a").await,
        start_compacting("b", "127.0.0.1:0", MemoryDisk::new(), 1 << 20).await,
        TestNode::start("c").await,
    );
    a.join(&b).await;
    a.join(&c).await;
    let (addr_a, addr_b, addr_c) = (a.addr(), b.addr(), c.addr());
    let (disk_a, disk_b, disk_c) = (a.disk.clone(), b.disk.clone(), c.disk.clone());
    c.stop().await;
    for number in 0..40 {
        assert!(is_set(&a.set(&format!("k{number}"), &value(number)).await));
    }
    let written = a.handle().status().await.replica.last_applied.get();
    until_it_has_a_snapshot(&b, written - 20).await;
    b.stop().await;
    a.stop().await;
    damage_entry(&disk_a, "wal-1", &value(3));
    let (segment, content) = newest_segment(&disk_b, "wal-2");
    let last = content.iter().rposition(|byte| *byte != 0).unwrap() / 4096 * 4096;
    assert!(disk_b.flip_bit(&segment, last + 24, 1));
    let _c = start_at("c", &addr_c, disk_c).await;
    let both = async {
        tokio::join!(start_at("a", &addr_a, disk_a), start_compacting("b", &addr_b, disk_b, 1 << 20))
    };
    let (a, b) = tokio::time::timeout(Duration::from_secs(40), both).await.expect("they help each other");
    assert_eq!(a.get("k3").await, Some(value(3)));
    let set_aside =
        |node: &TestNode| node.disk.files().iter().any(|file| file.starts_with("/data/damaged-1"));
    assert!(!set_aside(&a), "it goes on as the member that it was");
    assert!(set_aside(&b), "it does not know what it had promised");
    while !b.handle().status().await.has_data {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.get("k3").await, Some(value(3)));
}
