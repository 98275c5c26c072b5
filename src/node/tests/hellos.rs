//! Who is let in on the raft port, over real sockets.

use crate::node::tests::cluster::{TestNode, is_set};
use crate::peer::hello::{Hello, HelloAnswer, PeerHello, Starts};
use crate::raft::{ClusterId, NodeId, StoreId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Says hello to a node, and returns its answer.
async fn call(node: &TestNode, change: impl FnOnce(&mut PeerHello)) -> HelloAnswer {
    let status = node.handle().status().await;
    let mut hello = PeerHello {
        cluster: status.cluster,
        from: NodeId::new(77),
        store: StoreId(1),
        raft_addr: "127.0.0.1:1".to_owned(),
        to: status.replica.id,
        starts: Starts { number: 1, nonces: vec![1] },
    };
    change(&mut hello);
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    Hello::Peer(hello).write(&mut stream).await.unwrap();
    HelloAnswer::heard(&mut stream).await.unwrap()
}

fn refused_with(answer: &HelloAnswer, word: &str) -> bool {
    matches!(answer, HelloAnswer::Refused(reason) if reason.contains(word))
}

#[tokio::test]
async fn a_browser_on_the_raft_port_is_sent_away_and_nothing_else_happens() {
    let node = TestNode::start("a").await;
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 100_000], &[0xff; 3], b"InfStore", b""] {
        let mut stream = TcpStream::connect(node.addr()).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        // The node closes the connection, whatever it says before that.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert!(is_set(&node.set("k", "v").await));
}

#[tokio::test]
async fn garbage_after_a_good_hello_ends_that_connection_alone() {
    let node = TestNode::start("a").await;
    let status = node.handle().status().await;
    let hello = PeerHello {
        cluster: status.cluster,
        from: NodeId::new(77),
        store: StoreId(1),
        raft_addr: "127.0.0.1:1".to_owned(),
        to: status.replica.id,
        starts: Starts { number: 1, nonces: vec![1] },
    };
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    Hello::Peer(hello).write(&mut stream).await.unwrap();
    assert_eq!(HelloAnswer::heard(&mut stream).await.unwrap(), HelloAnswer::Accepted);
    stream.write_all(&[7; 4096]).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    assert!(is_set(&node.set("k", "v").await));
}

#[tokio::test]
async fn strangers_are_refused_with_a_reason() {
    let node = TestNode::start("a").await;
    let answer = call(&node, |hello| hello.cluster = ClusterId(5)).await;
    assert!(refused_with(&answer, "cluster"), "{answer:?}");
    let answer = call(&node, |hello| hello.to = NodeId::new(9)).await;
    assert!(refused_with(&answer, "not member 9"), "{answer:?}");
    let answer = call(&node, |hello| hello.from = NodeId::new(1)).await;
    assert!(refused_with(&answer, "data directory"), "{answer:?}");
    // An unknown caller may be a member whose entry has not arrived here.
    assert_eq!(call(&node, |_| {}).await, HelloAnswer::Accepted);
}
