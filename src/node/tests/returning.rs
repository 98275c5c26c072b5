//! Nodes that come back with less than they had: what they, and others, still know of that.

use crate::codec::checksum;
use crate::node::handle::DriverOrder;
use crate::node::tests::cluster::{TestNode, is_set};
use crate::node::{Node, NodeExit, NodeOptions, StartError};
use crate::peer::orders::{MemberOrder, NewNode, OrderCode, OrderConditions};
use crate::peer::rpc::{Question, Reply, ask};
use crate::peer::secured::Dialer;
use crate::raft::{ClusterId, LogId, LogIndex, NodeId, Term, Withdrawal};
use crate::runtime::{Metrics, TokioEnv};
use crate::storage::{FaultKind, MemoryDisk};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinHandle;

async fn cluster() -> (TestNode, TestNode, TestNode) {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    (a, b, c)
}

async fn withdrawn(node: &TestNode) -> Option<String> {
    node.handle().status().await.replica.withdrawn
}

/// Waits until the node says why it takes no part.
async fn until_withdrawn(node: &TestNode) -> String {
    loop {
        if let Some(why) = withdrawn(node).await {
            return why;
        }
        tokio::task::yield_now().await;
    }
}

async fn start_at(name: &str, addr: &str, disk: MemoryDisk) -> TestNode {
    TestNode::start_with(name, disk, |options| options.raft_addr = addr.to_owned()).await
}

#[tokio::test]
async fn a_node_that_comes_back_empty_stays_out_of_it_at_every_start() {
    let (a, b, _c) = cluster().await;
    let addr = b.addr();
    b.stop().await;
    let mut emptied = start_at("b", &addr, MemoryDisk::new()).await;
    assert!(until_withdrawn(&emptied).await.contains("calls this node as its member"));
    for _ in 0..2 {
        let disk = emptied.disk.clone();
        assert_eq!(emptied.stop().await, NodeExit::Stopped);
        emptied = start_at("b", &addr, disk).await;
        // At once, before anybody has called it again.
        assert!(!is_set(&emptied.set("k", "v").await), "it is no cluster of its own");
        assert!(until_withdrawn(&emptied).await.contains("calls this node as its member"));
    }
    // A note that was lost does not matter for long.
    let disk = emptied.disk.clone();
    emptied.stop().await;
    crate::storage::Disk::remove(&disk, Path::new("/data/called")).unwrap();
    let emptied = start_at("b", &addr, disk).await;
    until_withdrawn(&emptied).await;
    a.join(&emptied).await;
    assert!(is_set(&emptied.set("k", "v").await));
    assert_eq!(a.get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_member_that_lost_what_it_acknowledged_is_not_trusted_after_a_restart() {
    let (term, index) = (Term::new(2), LogIndex::new(9));
    let acknowledged = LogId::new(term, index);
    for why in [
        Withdrawal::LostEntries { acknowledged, last: LogId::ZERO },
        Withdrawal::Contradicted { committed: acknowledged },
        Withdrawal::OlderCopy { met_by: NodeId::new(1) },
    ] {
        let (a, _b, mut c) = cluster().await;
        c.handle().orders.send(DriverOrder::Withdraw(why)).await.unwrap();
        assert_eq!(until_withdrawn(&c).await, why.to_string());
        for _ in 0..2 {
            let (addr, disk) = (c.addr(), c.disk.clone());
            c.stop().await;
            c = start_at("c", &addr, disk).await;
            assert_eq!(withdrawn(&c).await, Some(why.to_string()), "from its first moment on");
        }
        // The remedy that it names.
        let addr = c.addr();
        c.stop().await;
        let wiped = start_at("c", &addr, MemoryDisk::new()).await;
        until_withdrawn(&wiped).await;
        a.join(&wiped).await;
        assert_eq!(withdrawn(&wiped).await, None);
    }
}

#[tokio::test]
async fn a_note_of_a_withdrawal_that_is_damaged_still_keeps_the_member_out() {
    let (a, _b, c) = cluster().await;
    assert!(is_set(&a.set("k", "v").await));
    let why = Withdrawal::Contradicted { committed: LogId::ZERO };
    c.handle().orders.send(DriverOrder::Withdraw(why)).await.unwrap();
    until_withdrawn(&c).await;
    let (addr, disk) = (c.addr(), c.disk.clone());
    c.stop().await;
    assert!(disk.flip_bit(Path::new("/data/withdrawn"), 40, 1));
    let again = start_at("c", &addr, disk.clone()).await;
    assert!(disk.files().iter().any(|file| file.starts_with("/data/damaged-1")), "it joins anew");
    while !again.handle().status().await.has_data {
        tokio::task::yield_now().await;
    }
    assert_eq!(again.get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_member_without_its_identity_follows_no_leader_of_another_cluster() {
    let (a, b, c) = cluster().await;
    assert!(is_set(&c.set("k", "v").await));
    let (addr_a, addr_b, addr_c) = (a.addr(), b.addr(), c.addr());
    let (disk_a, disk_b, disk) = (a.disk.clone(), b.disk.clone(), c.disk.clone());
    for node in [c, b, a] {
        node.stop().await;
    }
    // Another cluster has taken over the address of a member.
    let stranger = start_at("stranger", &addr_b, MemoryDisk::new()).await;
    assert!(is_set(&stranger.set("other", "data").await));
    let identity = Path::new("/data/identity");
    assert!(disk.flip_bit(identity, 40, 1));
    let metrics = Metrics::new();
    let mut options = NodeOptions::new("c");
    options.data_dir = "/data".into();
    options.raft_addr = addr_c;
    options.segment_bytes = 1 << 20;
    let starting = tokio::spawn(Node::start(TokioEnv::new(disk.clone()), options, metrics.clone()));
    while !metrics.repair.status().doing.contains("the caller of") {
        assert!(!starting.is_finished(), "it waits for its own cluster");
        tokio::task::yield_now().await;
    }
    assert!(!disk.files().iter().any(|file| file.starts_with("/data/damaged-1")), "nothing is set aside");
    // Its own one is back, elsewhere.
    let _a = start_at("a", &addr_a, disk_a).await;
    let _b = start_at("b", "127.0.0.1:0", disk_b).await;
    let node = starting.await.unwrap().unwrap();
    let back = TestNode { node, disk, name: "c".to_owned(), metrics };
    while !back.handle().status().await.has_data {
        tokio::task::yield_now().await;
    }
    assert_eq!(back.get("k").await.as_deref(), Some("v"));
    assert_eq!(back.get("other").await, None);
}

#[tokio::test]
async fn a_node_that_joins_its_cluster_anew_lets_no_other_one_have_it() {
    let own = ClusterId(5);
    let text = format!("infinitystore rejoin\ncluster = {own}\npeer = 127.0.0.1:1\n");
    let note = format!("{text}checksum = {:08x}\n", checksum(text.as_bytes()));
    let disk = MemoryDisk::new();
    crate::storage::Disk::create_dir_all(&disk, Path::new("/data")).unwrap();
    disk.overwrite(Path::new("/data/rejoin"), note.into_bytes());
    let node = TestNode::start_with("c", disk, |_| {}).await;
    let dialer = Dialer::plain(&TokioEnv::new(MemoryDisk::new()));
    let reserve = |cluster| Question::Reserve { cluster, micros: 1_000_000 };
    let reply = ask(&dialer, &node.addr(), &reserve(ClusterId(6)), 60_000_000).await.unwrap();
    assert!(matches!(&reply, Reply::Refused(why) if why.contains("its own cluster")), "{reply:?}");
    let reply = ask(&dialer, &node.addr(), &reserve(own), 60_000_000).await.unwrap();
    assert!(matches!(reply, Reply::Reserved(_)), "{reply:?}");
}

#[tokio::test]
async fn an_order_that_names_members_which_stay_is_not_done() {
    let (a, b, c) = cluster().await;
    let nodes = vec![NewNode { name: "c".into(), raft_addr: c.addr() }];
    let order = |replaces: &[&str], learners| MemberOrder::Add {
        nodes: nodes.clone(),
        replaces: replaces.iter().map(|name| (*name).to_owned()).collect(),
        learners,
    };
    for (order, says) in [(order(&["b"], false), "does not replace b"), (order(&[], true), "no learner")] {
        let error = a.handle().manage(order, OrderConditions::default()).await.unwrap_err();
        assert_eq!(error.code, OrderCode::NodeHasData);
        assert!(error.detail.contains(says), "{}", error.detail);
    }
    // Repeated after it was done: the one that it replaced is gone.
    for named in ["gone", "c"] {
        let done = a.handle().manage(order(&[named], false), OrderConditions::default()).await;
        assert!(done.is_ok(), "{done:?}");
    }
    assert_eq!(a.handle().status().await.replica.members.len(), 3);
    drop(b);
}

/// What cannot be noted at once is noted later.
#[tokio::test]
async fn a_withdrawal_that_a_full_disk_cannot_note_is_noted_once_there_is_room() {
    let (_a, _b, c) = cluster().await;
    let (addr, disk) = (c.addr(), c.disk.clone());
    disk.fail(FaultKind::Create, "withdrawn.tmp", 0, io::ErrorKind::StorageFull);
    let why = Withdrawal::Contradicted { committed: LogId::ZERO };
    c.handle().orders.send(DriverOrder::Withdraw(why)).await.unwrap();
    until_withdrawn(&c).await;
    disk.clear_faults();
    while disk.content(Path::new("/data/withdrawn")).is_none() {
        tokio::task::yield_now().await;
    }
    c.stop().await;
    let again = start_at("c", &addr, disk).await;
    assert_eq!(withdrawn(&again).await, Some(why.to_string()));
}

#[tokio::test]
async fn an_address_that_a_person_chose_takes_the_place_of_one_that_still_leads_here() {
    let first = TestNode::start("a").await;
    assert!(is_set(&first.set("k", "v").await));
    let (addr, disk) = (first.addr(), first.disk.clone());
    let port = addr.rsplit(':').next().unwrap().to_owned();
    first.stop().await;
    let chosen = format!("localhost:{port}");
    let again = TestNode::start_with("a", disk, |options| {
        options.raft_addr = addr.clone();
        options.advertise = Some(chosen.clone());
    })
    .await;
    while again.handle().status().await.replica.members[0].member.raft_addr != chosen {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_that_returns_again_and_again_keeps_the_newest_of_what_it_set_aside() {
    let (a, _b, mut c) = cluster().await;
    assert!(is_set(&a.set("k", "v").await));
    let has_log = |disk: &MemoryDisk, number: u32| {
        let aside = format!("/data/damaged-{number}");
        disk.files().iter().any(|file| file.starts_with(&aside) && file.extension().is_some())
    };
    for number in 1..=2 {
        let (addr, disk) = (c.addr(), c.disk.clone());
        c.stop().await;
        // The first is as it was set aside until the second is known to be of use.
        assert!(number == 1 || has_log(&disk, 1));
        assert!(disk.flip_bit(Path::new("/data/identity"), 40, 1));
        c = start_at("c", &addr, disk.clone()).await;
        while !c.handle().status().await.has_data {
            tokio::task::yield_now().await;
        }
        assert_eq!(c.get("k").await.as_deref(), Some("v"));
        assert!((1..=number).all(|number| has_log(&disk, number)), "nothing is removed in between");
    }
    let alarms = c.metrics.alarm_board.list();
    assert!(alarms.iter().any(|alarm| alarm.text.contains("2 times by now")), "{alarms:?}");
    let (addr, disk) = (c.addr(), c.disk.clone());
    c.stop().await;
    let again = start_at("c", &addr, disk.clone()).await;
    assert_eq!([1, 2].map(|number| has_log(&disk, number)), [false, true]);
    assert_eq!(again.get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_member_of_which_notes_alone_are_left_comes_back_to_its_cluster() {
    let (a, _b, c) = cluster().await;
    assert!(is_set(&a.set("k", "v").await));
    let cluster = a.handle().status().await.cluster;
    let (addr, disk) = (c.addr(), c.disk.clone());
    c.stop().await;
    let is_note = |path: &Path| ["peers", "started"].iter().any(|note| path.ends_with(note));
    for path in disk.files().into_iter().filter(|path| !is_note(path)) {
        crate::storage::Disk::remove(&disk, &path).unwrap();
    }
    for name in ["wal-1", "snapshots-1", "wal-2", "snapshots-2"] {
        let _ = crate::storage::Disk::remove_dir_all(&disk, &Path::new("/data").join(name));
    }
    let c = TestNode::start_with("c", disk, |options| {
        options.raft_addr = addr;
        options.join = vec![a.addr()];
    });
    let c = tokio::time::timeout(Duration::from_secs(60), c).await.expect("it is let in");
    while !c.handle().status().await.has_data {
        tokio::task::yield_now().await;
    }
    assert_eq!(c.handle().status().await.cluster, cluster);
    assert_eq!(c.get("k").await.as_deref(), Some("v"));
    // The member that it was leaves in the same change, which ends a little later.
    while a.handle().status().await.replica.members.len() != 3 {
        tokio::task::yield_now().await;
    }
}

/// Starts a node, and does not wait until it has started.
fn starting((name, raft_addr, disk): (String, String, MemoryDisk)) -> Starting {
    let metrics = Metrics::new();
    let mut options = NodeOptions::new(&name);
    options.data_dir = "/data".into();
    (options.raft_addr, options.segment_bytes) = (raft_addr, 64 << 10);
    let start = tokio::spawn(Node::start(TokioEnv::new(disk.clone()), options, metrics.clone()));
    Starting { start, disk, metrics }
}

struct Starting {
    start: JoinHandle<Result<Node, StartError>>,
    disk: MemoryDisk,
    metrics: Metrics,
}

/// As a device in front of all disks does that fails for seconds while all nodes start. Until the
/// disks give again what they have, the nodes wait, doing this.
async fn come_up_after_a_failure(doing: &str, fails: impl Fn(&MemoryDisk) -> String) {
    let start = async |name| {
        TestNode::start_with(name, MemoryDisk::new(), |options| options.segment_bytes = 64 << 10).await
    };
    let (a, b) = (start("a").await, start("b").await);
    a.join(&b).await;
    let value = "v".repeat(3_000);
    for key in 0..40 {
        assert!(is_set(&a.set(&format!("key-{key}"), &value).await));
    }
    let places = [&a, &b].map(|node| (node.name.clone(), node.addr(), node.disk.clone()));
    b.stop().await;
    a.stop().await;
    for (_, _, disk) in &places {
        disk.fail(FaultKind::Read, &fails(disk), 0, io::ErrorKind::Other);
    }
    let nodes = places.map(starting);
    for node in &nodes {
        while !node.metrics.repair.status().doing.contains(doing) {
            assert!(!node.start.is_finished(), "it does not know its log");
            tokio::task::yield_now().await;
        }
    }
    nodes.iter().for_each(|node| node.disk.clear_faults());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let mut up = Vec::new();
    for Starting { start, disk, metrics } in nodes {
        let node = tokio::time::timeout(Duration::from_secs(30), start).await.expect("it looks again");
        let node = node.unwrap().unwrap();
        assert!(!disk.files().iter().any(|file| file.to_string_lossy().contains("damaged")));
        assert!(metrics.alarm_board.list().is_empty(), "nothing was damaged");
        let repair = metrics.repair.status();
        assert!(!repair.is_under_way && repair.mended == 0, "{repair:?}");
        up.push(TestNode { node, disk, name: String::new(), metrics });
    }
    assert_eq!(up[1].get("key-0").await, Some(value));
}

#[tokio::test]
async fn members_whose_disks_failed_for_a_moment_go_on_by_themselves() {
    come_up_after_a_failure("waits for a leader", |_| ".seg".to_owned()).await;
}

#[tokio::test]
async fn members_that_could_not_read_the_same_entries_for_a_moment_go_on_by_themselves() {
    let first_segment = |disk: &MemoryDisk| {
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "seg");
        let segments: Vec<_> = disk.files().into_iter().filter(is_segment).collect();
        assert!(segments.len() > 1);
        segments[0].to_string_lossy().into_owned()
    };
    come_up_after_a_failure("no member could give them yet", first_segment).await;
}
