//! Nodes become one cluster, or say why not.

use crate::node::tests::cluster::{TestNode, is_set};
use crate::node::{JoinError, NodeExit, NodeOptions};
use crate::peer::orders::{MemberOrder, NewNode, OrderCode, OrderConditions};
use crate::peer::rpc::{Question, Reply, ask};
use crate::peer::secured::Dialer;
use crate::raft::{Change, Member, StoreId};
use crate::replica::{ClientError, ClientReply, ClientRequest, Level, Standing};
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

fn quick(options: &mut NodeOptions) {
    options.join_timings.answer_micros = 1_000_000;
    options.join_timings.patience_micros = 1_000_000;
    options.join_timings.reservation_micros = 2_000_000;
    options.join_timings.voter_micros = 1_000_000;
}

async fn join(node: &TestNode, name: &str, addr: &str) -> Result<(), JoinError> {
    node.handle().join(name.to_owned(), addr.to_owned()).await.map(|_| ())
}

async fn member_names(node: &TestNode) -> Vec<String> {
    let members = node.handle().status().await.replica.members;
    members.into_iter().map(|member| member.member.name).collect()
}

#[tokio::test]
async fn three_nodes_become_one_cluster_and_stop_gracefully() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    assert!(is_set(&a.set("k", "1").await));
    assert_eq!(b.get("k").await.as_deref(), Some("1"));
    assert!(is_set(&c.set("k", "2").await), "a follower forwards");
    assert_eq!(a.get("k").await.as_deref(), Some("2"));
    let members = a.handle().status().await.replica.members;
    assert_eq!(members.iter().filter(|member| member.standing == Standing::Voter).count(), 3);
    assert!(a.leads().await);
    assert_eq!(a.stop().await, NodeExit::Stopped);
    assert!(is_set(&b.set("k", "3").await));
    assert_eq!(c.get("k").await.as_deref(), Some("3"));
    assert_eq!(b.stop().await, NodeExit::Stopped);
    assert_eq!(c.stop().await, NodeExit::Stopped);
}

#[tokio::test]
async fn a_join_may_be_repeated_and_asked_of_a_follower() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&b).await;
    b.join(&c).await;
    c.join(&b).await;
    c.join(&c).await;
    assert_eq!(member_names(&a).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_node_with_data_is_not_absorbed() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("b").await);
    assert!(is_set(&b.set("mine", "1").await));
    let refused = join(&a, "b", &b.addr()).await;
    assert!(matches!(&refused, Err(JoinError::Conflict(why)) if why.contains("wipe")), "{refused:?}");
    assert_eq!(b.get("mine").await.as_deref(), Some("1"));
    assert!(is_set(&b.set("mine", "2").await), "it is not reserved");
    assert_eq!(member_names(&a).await, ["a"]);
}

#[tokio::test]
async fn a_member_of_a_larger_cluster_is_not_absorbed() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    b.join(&c).await;
    for (name, node) in [("b", &b), ("c", &c)] {
        let refused = join(&a, name, &node.addr()).await;
        assert!(matches!(refused, Err(JoinError::Conflict(_))), "{refused:?}");
    }
    assert_eq!(member_names(&b).await, ["b", "c"]);
}

#[tokio::test]
async fn the_name_of_a_member_that_lives_is_not_taken_away() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("b").await);
    a.join(&b).await;
    for name in ["a", "b"] {
        let namesake = TestNode::start(name).await;
        let refused = join(&a, name, &namesake.addr()).await;
        let says = |why: &str| why.contains("answers at") && why.contains("another --node-id");
        assert!(matches!(&refused, Err(JoinError::Conflict(why)) if says(why)), "{name}: {refused:?}");
        assert!(is_set(&namesake.set("mine", "1").await), "it was not reserved");
    }
    let members = a.handle().status().await.replica.members;
    let ids: Vec<u64> = members.iter().map(|member| member.id.get()).collect();
    assert_eq!(ids, [1, 2], "nobody was replaced");
    assert!(is_set(&b.set("k", "v").await));
}

#[tokio::test]
async fn wrong_parameters_change_nothing() {
    let a = TestNode::start_with("a", MemoryDisk::new(), quick).await;
    let b = TestNode::start("b").await;
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web_addr = web.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let bad = |joined: &Result<(), JoinError>| matches!(joined, Err(JoinError::BadRequest(_)));
    let failed = |joined: &Result<(), JoinError>| matches!(joined, Err(JoinError::Failed(_)));
    for (name, addr, expected) in [
        ("c", b.addr(), bad as fn(&_) -> bool),
        ("", b.addr(), bad),
        ("b", "nonsense".to_owned(), bad),
        ("b", "host:0".to_owned(), bad),
        ("b", "169.254.169.254:80".to_owned(), bad),
        ("b", dead, failed),
        ("b", "no-such-host.invalid:1".to_owned(), failed),
        ("b", web_addr, failed),
    ] {
        let joined = join(&a, name, &addr).await;
        assert!(expected(&joined), "{name:?} {addr:?}: {joined:?}");
    }
    assert_eq!(member_names(&a).await, ["a"]);
    assert!(is_set(&a.set("k", "v").await), "the cluster has not lost its quorum");
    a.stop().await;
}

#[tokio::test]
async fn a_wiped_node_replaces_its_old_self() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    assert!(is_set(&a.set("k", "v").await));
    let addr = b.addr();
    b.stop().await;
    let wiped = TestNode::start_with("b", MemoryDisk::new(), |options| options.raft_addr = addr).await;
    a.join(&wiped).await;
    assert_eq!(wiped.get("k").await.as_deref(), Some("v"));
    let members = a.handle().status().await.replica.members;
    let ids: Vec<u64> = members.iter().map(|member| member.id.get()).collect();
    assert_eq!(ids, [1, 3, 4], "a new id, and the old one is gone");
}

#[tokio::test]
async fn a_node_that_was_told_to_join_never_serves_alone() {
    let a = TestNode::start("a").await;
    let waiting = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let b =
        TestNode::start_with("b", MemoryDisk::new(), |options| options.join = vec![waiting, a.addr()]).await;
    // Whether it has joined by now or not: the write is refused, or everybody's.
    match b.set("k", "v").await {
        ClientReply::Failed(ClientError::Reserved) => {}
        reply => {
            assert!(is_set(&reply), "{reply:?}");
            assert_eq!(a.get("k").await.as_deref(), Some("v"));
        }
    }
    a.join(&b).await;
    assert_eq!(member_names(&b).await, ["a", "b"]);
}

#[tokio::test]
async fn a_node_comes_back_as_the_member_that_it_was_also_at_another_address() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    let (disk, old_addr) = (b.disk.clone(), b.addr());
    b.stop().await;
    assert!(is_set(&a.set("k", "v").await));
    let back = TestNode::start_with("b", disk, |options| options.join = vec![a.addr()]).await;
    assert_ne!(back.addr(), old_addr);
    // It tells the leader where it is; only then can it be brought up to date.
    assert_eq!(back.get("k").await.as_deref(), Some("v"));
    let members = a.handle().status().await.replica.members;
    let listed =
        members.iter().find(|member| member.member.name == "b").map(|member| &member.member.raft_addr);
    assert_eq!(listed, Some(&back.addr()));
}

/// Waits until a node answers reads.
async fn served(node: &TestNode, key: &str) -> Option<String> {
    loop {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let reply = node.handle().request(ClientRequest::read(key, Level::Linearizable)).await;
        if let Some(found) = reply.key() {
            return found.as_ref().map(|found| String::from_utf8_lossy(&found.value).into_owned());
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_member_that_moved_finds_a_leader_that_moved_too() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    let (of_a, of_b, id) = (a.disk.clone(), b.disk.clone(), a.handle().status().await.replica.id);
    b.stop().await;
    a.stop().await;
    let a = TestNode::start_with("a", of_a, |_| {}).await;
    while !a.leads().await {
        let _ = c.handle().request(ClientRequest::TransferLeadership(Some(id))).await;
    }
    assert!(is_set(&a.set("k", "v").await));
    // It knows the leader's old address, and the leader knows its own. The third knows both.
    let b = TestNode::start_with("b", of_b, |_| {}).await;
    assert_eq!(served(&b, "k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_member_cannot_give_up_an_address_for_one_where_it_is_not() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("b").await);
    a.join(&b).await;
    let of_b = b.handle().status().await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    for raft_addr in [nowhere, a.addr()] {
        let http_addr = "b:1".to_owned();
        let question = Question::Announce { id: of_b.replica.id, store: of_b.store, raft_addr, http_addr };
        let env = TokioEnv::new(MemoryDisk::new());
        let answer = ask(&Dialer::plain(&env), &a.addr(), &question, 10_000_000).await;
        assert!(matches!(&answer, Ok(Reply::Refused(why)) if why.contains("not found at")), "{answer:?}");
    }
    let members = a.handle().status().await.replica.members;
    let on_record = members.into_iter().find(|member| member.id == of_b.replica.id);
    assert_eq!(on_record.map(|member| member.member.raft_addr), Some(b.addr()));
}

#[tokio::test]
async fn a_node_that_waits_to_join_has_no_state_that_is_fresh() {
    let waiting = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let node = TestNode::start_with("b", MemoryDisk::new(), |options| options.join = vec![waiting]).await;
    // It leads a cluster of its own meanwhile.
    while !node.leads().await {
        tokio::task::yield_now().await;
    }
    let level = Level::Fresh { max_staleness_micros: 60_000_000 };
    let reply = node.handle().request(ClientRequest::read(Bytes::from_static(b"k"), level)).await;
    assert!(matches!(reply, ClientReply::Failed(_)), "{reply:?}");
    assert_eq!(node.handle().facts().fresh_at(), None, "and tells nobody how old it is");
}

#[tokio::test]
async fn only_the_leader_says_that_an_address_is_noted() {
    let (a, b) = (TestNode::start("a").await, TestNode::start("b").await);
    a.join(&b).await;
    let members = a.handle().status().await.replica.members;
    let (id, known) = members.into_iter().map(|it| (it.id, it.member)).next().unwrap();
    let Member { raft_addr, http_addr, store_id: store, .. } = known;
    let question = Question::Announce { id, store, raft_addr, http_addr };
    let env = TokioEnv::new(MemoryDisk::new());
    // A view of one that does not lead may be older than the leader's, or never become the
    // cluster's.
    let answer = ask(&Dialer::plain(&env), &b.addr(), &question, 10_000_000).await;
    assert!(matches!(answer, Ok(Reply::Refused(_))), "{answer:?}");
    let answer = ask(&Dialer::plain(&env), &a.addr(), &question, 10_000_000).await;
    assert!(matches!(answer, Ok(Reply::Done)), "{answer:?}");
}

#[tokio::test]
async fn two_joins_of_one_node_at_once_both_succeed() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    let addr = c.addr();
    // One asked of each member: the leader has them both.
    let joined = tokio::join!(join(&a, "c", &addr), join(&b, "c", &addr), join(&a, "c", &addr));
    assert_eq!(joined, (Ok(()), Ok(()), Ok(())));
    let members = a.handle().status().await.replica.members;
    let ids: Vec<u64> = members.iter().map(|member| member.id.get()).collect();
    assert_eq!(ids, [1, 2, 3], "it has one place");
    assert!(is_set(&c.set("k", "v").await));
    assert_eq!(b.get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_join_that_waits_too_long_for_another_of_its_name_is_to_be_tried_again() {
    let a = TestNode::start_with("a", MemoryDisk::new(), |options| {
        options.join_timings.answer_micros = 3_000_000;
        options.join_timings.patience_micros = 1;
    })
    .await;
    assert!(is_set(&a.set("k", "v").await), "it leads");
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let node = a.handle();
    let first = tokio::spawn({
        let addr = addr.clone();
        async move { node.join("b".to_owned(), addr).await }
    });
    let asked = silent.accept().await.unwrap();
    let refused = join(&a, "b", &addr).await;
    assert!(matches!(&refused, Err(JoinError::Busy(why)) if why.contains("try again")), "{refused:?}");
    // The turn ends with the join, however that ends.
    drop((asked, silent));
    assert!(matches!(first.await.unwrap(), Err(JoinError::Failed(_))));
    assert!(matches!(join(&a, "b", &addr).await, Err(JoinError::Failed(_))));
}

/// Otherwise anybody who may ask for a join could look for open ports by it.
#[tokio::test]
async fn an_address_without_a_node_is_told_after_one_time_whatever_is_there() {
    let a = TestNode::start_with("a", MemoryDisk::new(), quick).await;
    assert!(is_set(&a.set("k", "v").await), "it leads");
    let speaks = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = speaks.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = speaks.accept().await {
            let _ = stream.write_all(b"220 this is something else\r\n").await;
        }
    });
    let closed = "127.0.0.1:1".to_owned();
    for addr in [closed, addr] {
        // Never less: the node sleeps until then. More is up to the machine.
        let begun = Instant::now();
        let by_join = join(&a, "b", &addr).await;
        assert!(begun.elapsed() >= Duration::from_secs(1), "{addr} {:?}", begun.elapsed());
        assert!(matches!(&by_join, Err(JoinError::Failed(why)) if why.contains("no node")), "{by_join:?}");
        let begun = Instant::now();
        let node = NewNode { name: "b".to_owned(), raft_addr: addr.clone() };
        let order = MemberOrder::Add { nodes: vec![node], replaces: Vec::new(), learners: false };
        let by_order = a.handle().manage(order, OrderConditions::default()).await;
        assert!(begun.elapsed() >= Duration::from_secs(1), "{addr} {:?}", begun.elapsed());
        assert!(matches!(&by_order, Err(error) if error.code == OrderCode::NodeUnreachable), "{by_order:?}");
    }
}

#[tokio::test]
async fn two_nodes_that_join_each_other_do_not_both_vanish() {
    let a = TestNode::start_with("a", MemoryDisk::new(), quick).await;
    let b = TestNode::start_with("b", MemoryDisk::new(), quick).await;
    let (addr_a, addr_b) = (a.addr(), b.addr());
    let (ab, ba) = tokio::join!(join(&a, "b", &addr_b), join(&b, "a", &addr_a));
    if ab.is_err() && ba.is_err() {
        join(&a, "b", &addr_b).await.unwrap();
    }
    assert_eq!(a.handle().status().await.cluster, b.handle().status().await.cluster);
    assert!(is_set(&a.set("k", "v").await));
    assert_eq!(b.get("k").await.as_deref(), Some("v"));
}

/// The power fails at every change that the move makes to the disk: what is left is the old node or
/// the new one, and the join can be repeated.
#[tokio::test]
async fn power_may_fail_at_any_moment_of_a_move() {
    let mut outcomes = tokio::task::JoinSet::new();
    for changes in 0..64 {
        outcomes.spawn(fail_during_move(changes));
    }
    let survived: Vec<bool> = outcomes.join_all().await;
    assert!(survived.iter().any(|failed| *failed), "some of them failed in the middle");
    assert!(survived.iter().any(|failed| !failed), "some of them were not disturbed");
}

/// Returns whether the first attempt failed.
async fn fail_during_move(changes: u64) -> bool {
    let a = TestNode::start_with("a", MemoryDisk::new(), quick).await;
    let b = TestNode::start_with("b", MemoryDisk::new(), quick).await;
    assert!(is_set(&a.set("k", "v").await));
    let (disk, addr) = (b.disk.clone(), b.addr());
    disk.fail_power_after(changes);
    let failed = join(&a, "b", &addr).await.is_err();
    b.node.stop();
    let _ = b.node.stopped().await;
    disk.crash(|question| question % 3 == changes % 3);
    let b = TestNode::start_with("b", disk, |options| options.raft_addr = addr.clone()).await;
    let mut again = join(&a, "b", &addr).await;
    for _ in 0..3 {
        if again.is_err() {
            again = join(&a, "b", &addr).await;
        }
    }
    assert!(again.is_ok(), "power failed after {changes} changes: {again:?}");
    assert_eq!(b.get("k").await.as_deref(), Some("v"), "power failed after {changes} changes");
    failed
}

#[tokio::test]
async fn a_removed_member_learns_it_and_says_so() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    let id = c.handle().status().await.replica.id;
    let change = ClientRequest::ChangeMembership(Change::Remove { members: [id].into() }.into());
    assert_eq!(a.handle().request(change).await, ClientReply::MembershipChanged(vec![]));
    // It is told by an append that leaves after the leader has seen the commit, which is when the
    // leader forgets its members.
    let views = c.handle().membership;
    let told = views.wait_for(|view| view.committed && !view.membership.members.contains_key(&id));
    // What it finds holds the view's lock, and would hold up the driver.
    let told = tokio::time::timeout(std::time::Duration::from_secs(30), told).await.is_ok();
    assert!(told, "it is told that its removal is committed");
    assert!(c.handle().status().await.removed);
    assert_eq!(c.set("k", "v").await, ClientReply::Failed(ClientError::Removed));
    assert!(!a.handle().status().await.removed);
    assert!(is_set(&b.set("k", "v").await));
}

#[tokio::test]
async fn a_join_that_was_passed_on_and_takes_long_is_not_called_leaderless() {
    let a = TestNode::start("a").await;
    let b = TestNode::start_with("b", MemoryDisk::new(), |options| {
        options.join_timings.patience_micros = 1;
        options.join_timings.whole_micros = 300_000;
    })
    .await;
    a.join(&b).await;
    // It takes connections and says nothing: the leader waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let joined = join(&b, "c", &silent.local_addr().unwrap().to_string()).await;
    let says = |why: &str| why.contains("it may go on there") && why.contains("/v1/status");
    assert!(matches!(&joined, Err(JoinError::Failed(why)) if says(why)), "{joined:?}");
}

/// Members 1 and 2, and 3 named c, which is gone, and 4 of the same name, which never took up its
/// place.
async fn with_two_of_a_name() -> (TestNode, TestNode) {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    let id = c.handle().status().await.replica.id;
    c.stop().await;
    let nowhere = "127.0.0.1:1".to_owned();
    let lost =
        Member { name: "c".into(), raft_addr: nowhere.clone(), http_addr: nowhere, store_id: StoreId(77) };
    let change = Change::AddMembers { members: vec![lost], replaces: [id].into(), promote: true };
    let reply = a.handle().request(ClientRequest::ChangeMembership(change.into())).await;
    assert!(matches!(reply, ClientReply::MembershipChanged(_)), "{reply:?}");
    (a, b)
}

#[tokio::test]
async fn an_order_replaces_all_that_bear_the_name() {
    let (a, _b) = with_two_of_a_name().await;
    let again = TestNode::start("c").await;
    let nodes = vec![NewNode { name: "c".into(), raft_addr: again.addr() }];
    let order = MemberOrder::Add { nodes, replaces: vec![], learners: false };
    let done = a.handle().manage(order, OrderConditions::default()).await;
    assert!(done.is_ok(), "{done:?}");
    assert_eq!(a.handle().status().await.replica.members.len(), 3);
}

#[tokio::test]
async fn an_order_says_which_of_two_members_of_a_name_it_means() {
    let (a, _b) = with_two_of_a_name().await;
    let order = MemberOrder::Remove(vec!["c".into()]);
    let error = a.handle().manage(order, OrderConditions::default()).await.unwrap_err();
    assert_eq!(error.code, OrderCode::Ambiguous);
    assert!(error.detail.ends_with("say id:3 or id:4"), "{}", error.detail);
}
