//! A node that is handed over to another cluster: what it answers when it is told so twice.

use crate::node::NodeExit;
use crate::node::handle::DriverOrder;
use crate::node::tests::cluster::TestNode;
use crate::peer::rpc::{Adoption, Question, Reply, ask};
use crate::peer::secured::Dialer;
use crate::raft::{ClusterId, NodeId, StoreId};
use crate::runtime::TokioEnv;
use crate::storage::MemoryDisk;
use std::time::Duration;
use tokio::sync::oneshot;

const CLUSTER: ClusterId = ClusterId(5);
/// As long as any test needs.
const MICROS: u64 = 60_000_000;

/// Plays the leader of [`CLUSTER`]: asks `node`.
async fn put(node: &TestNode, question: &Question) -> Reply {
    ask(&Dialer::plain(&TokioEnv::new(MemoryDisk::new())), &node.addr(), question, MICROS).await.unwrap()
}

/// Has `node` promise itself; what it is to be told next.
async fn reserve(node: &TestNode) -> Adoption {
    let reply = put(node, &Question::Reserve { cluster: CLUSTER, micros: MICROS }).await;
    let Reply::Reserved(store) = reply else { panic!("{reply:?}") };
    Adoption {
        cluster: CLUSTER,
        id: NodeId::new(4),
        store,
        raft_addr: node.addr(),
        addresses: vec![(NodeId::new(1), "127.0.0.1:1".to_owned())],
    }
}

#[tokio::test]
async fn a_hand_over_that_is_repeated_is_answered_alike() {
    let node = TestNode::start("a").await;
    let adoption = reserve(&node).await;
    // What is said of the log that is left.
    node.metrics.disk_slow.set(1);
    node.metrics.disk_full.set(1);
    node.metrics.scrub.damaged("/data/wal-1/1.seg", "a bit");
    // As after an answer that was lost on its way.
    for _ in 0..3 {
        assert_eq!(put(&node, &Question::Adopt(adoption.clone())).await, Reply::Done);
    }
    let status = node.handle().status().await;
    assert_eq!((status.cluster, status.replica.id), (CLUSTER, adoption.id));
    let (slow, full) = (node.metrics.disk_slow.get(), node.metrics.disk_full.get());
    assert_eq!((slow, full), (0, 0), "the log that it has now is on a disk that is neither");
    while !node.metrics.scrub.status().damaged.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for other in [
        Adoption { id: NodeId::new(6), ..adoption.clone() },
        Adoption { store: StoreId(1), ..adoption.clone() },
        Adoption { cluster: ClusterId(6), ..adoption },
    ] {
        let reply = put(&node, &Question::Adopt(other)).await;
        assert!(matches!(&reply, Reply::Refused(why) if why.contains("reserved")), "{reply:?}");
    }
    assert_eq!(node.stop().await, NodeExit::Stopped);
}

#[tokio::test]
async fn a_hand_over_that_is_repeated_while_the_node_moves_is_not_refused() {
    let node = TestNode::start("a").await;
    let adoption = reserve(&node).await;
    let order = |adoption: &Adoption| {
        let (reply, answer) = oneshot::channel();
        // One turn of this task: the driver, a task of the same thread, takes all three in before
        // the storage has moved.
        node.handle().orders.try_send(DriverOrder::Adopt(adoption.clone(), reply)).unwrap();
        answer
    };
    let (first, repeated) = (order(&adoption), order(&adoption));
    let elsewhere = order(&Adoption { cluster: ClusterId(6), ..adoption });
    // A refusal would have its place taken away, and "done" would come too early. The caller asks
    // again.
    assert!(repeated.await.is_err(), "no answer");
    assert_eq!(elsewhere.await.unwrap(), Err("it is moving elsewhere".to_owned()));
    assert_eq!(first.await.unwrap(), Ok(()));
    assert_eq!(node.handle().status().await.cluster, CLUSTER);
}
