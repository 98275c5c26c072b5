//! Starting, running, failing and stopping.

use crate::kv::Op;
use crate::node::tests::cluster::{TestNode, is_set};
use crate::node::{Node, NodeExit, NodeOptions, StartError};
use crate::peer::hello::{Hello, HelloAnswer};
use crate::raft::{LogIndex, RoleName};
use crate::replica::{ClientError, ClientReply, ClientRequest, Level};
use crate::runtime::faulty_env::FaultyEnv;
use crate::runtime::{Metrics, TokioEnv};
use crate::storage::{FaultKind, MemoryDisk};
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn start_failure(disk: &MemoryDisk, name: &str, addr: &str) -> StartError {
    let mut options = NodeOptions::new(name);
    options.data_dir = "/data".into();
    options.raft_addr = addr.to_owned();
    options.insecure = true;
    Node::start(TokioEnv::new(disk.clone()), options, Metrics::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_start_that_cannot_be_says_what_to_do() {
    let node = TestNode::start("a").await;
    let any = "127.0.0.1:0";
    let table = [
        (start_failure(&MemoryDisk::new(), "b", &node.addr()).await, "another --raft-addr"),
        (start_failure(&node.disk, "a", any).await, "in use by another process"),
        (start_failure(&MemoryDisk::new(), "b", "no-such-host.invalid:1").await, "address of this machine"),
        (start_failure(&MemoryDisk::new(), "", any).await, "--node-id"),
    ];
    for (error, remedy) in table {
        assert!(error.to_string().contains(remedy), "{error}");
    }
    let disk = node.disk.clone();
    assert_eq!(node.stop().await, NodeExit::Stopped);
    let error = start_failure(&disk, "b", any).await;
    assert!(error.to_string().contains("--node-id a"), "{error}");
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let node = TestNode::start("a").await;
    assert!(is_set(&node.set("k", "v").await));
    let disk = node.disk.clone();
    assert_eq!(node.stop().await, NodeExit::Stopped);
    let back = TestNode::start_with("a", disk, |_| {}).await;
    assert_eq!(back.get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_failed_sync_ends_the_node_without_an_acknowledgement() {
    let node = TestNode::start("a").await;
    assert!(is_set(&node.set("k", "1").await));
    let handle = node.handle();
    node.disk.fail(FaultKind::SyncData, "", 0, io::ErrorKind::Other);
    assert_eq!(node.set("k", "2").await, ClientReply::Failed(ClientError::Unknown));
    let NodeExit::DiskFailed(reason) = node.node.stopped().await else { panic!("the disk failed") };
    assert!(reason.contains("cannot know what is durable"), "{reason}");
    let status = handle.status().await;
    assert_eq!(status.stopped, Some(reason));
    let request = ClientRequest::Barrier;
    assert!(matches!(handle.request(request).await, ClientReply::Failed(ClientError::Refused(_))));
}

#[tokio::test]
async fn a_driver_that_panics_ends_the_node_without_an_acknowledgement() {
    let mut options = NodeOptions::new("a");
    options.data_dir = "/data".into();
    options.raft_addr = "127.0.0.1:0".to_owned();
    // 1 is the membership, 2 the leader's first entry.
    let env = FaultyEnv { panics_at: Some(LogIndex::new(3)), ..FaultyEnv::new(MemoryDisk::new()) };
    let node = Node::start(env, options, Metrics::new()).await.unwrap();
    let handle = node.handle();
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    let reply = handle.request(ClientRequest::write(Op::set(key, value))).await;
    assert_eq!(reply, ClientReply::Failed(ClientError::Unknown));
    let NodeExit::Failed(reason) = node.stopped().await else { panic!("it failed") };
    assert!(reason.contains("a bug of this program"), "{reason}");
    assert_eq!(handle.status().await.stopped, Some(reason));
    let reply = handle.request(ClientRequest::Barrier).await;
    assert!(matches!(reply, ClientReply::Failed(ClientError::Refused(_))), "{reply:?}");
}

#[tokio::test]
async fn requests_beyond_the_queue_are_refused_at_once() {
    let node = TestNode::start_with("a", MemoryDisk::new(), |options| options.client_queue_max = 4).await;
    let call = |number: u32| {
        let handle = node.handle();
        let (key, value) = (Bytes::from(format!("{number}")), Bytes::from_static(b"v"));
        Box::pin(async move { handle.request(ClientRequest::write(Op::set(key, value))).await })
    };
    let mut calls: Vec<_> = (0..50).map(call).collect();
    // One poll of one task: the driver, a task of the same thread, takes nothing from its queue
    // meanwhile.
    let polled: Vec<_> =
        poll_fn(|context| Poll::Ready(calls.iter_mut().map(|call| call.as_mut().poll(context)).collect()))
            .await;
    let mut waiting = Vec::new();
    for (call, polled) in calls.into_iter().zip(polled) {
        match polled {
            Poll::Ready(reply) => assert_eq!(reply, ClientReply::Failed(ClientError::Overloaded)),
            Poll::Pending => waiting.push(call),
        }
    }
    assert_eq!(waiting.len(), 4);
    for call in waiting {
        assert!(is_set(&call.await));
    }
}

fn small_log(options: &mut NodeOptions) {
    options.replica.snapshot_log_entries = 50;
    options.replica.raft.log_tail_entries = 10;
    options.replica.raft.laggard_log_bytes_max = 1;
    options.replica.raft.snapshot_chunk_bytes = 1 << 10;
}

#[tokio::test]
async fn a_follower_that_missed_more_than_the_log_keeps_catches_up_by_snapshot() {
    let a = TestNode::start_with("a", MemoryDisk::new(), small_log).await;
    let b = TestNode::start_with("b", MemoryDisk::new(), small_log).await;
    let c = TestNode::start_with("c", MemoryDisk::new(), small_log).await;
    a.join(&b).await;
    a.join(&c).await;
    let (disk, addr) = (c.disk.clone(), c.addr());
    c.stop().await;
    for number in 0..300 {
        assert!(is_set(&a.set(&format!("key-{number}"), &"v".repeat(100)).await));
    }
    // It is written beside the writes, and may end after them.
    while a.handle().status().await.replica.snapshot.index.get() <= 200 {
        tokio::task::yield_now().await;
    }
    let back = TestNode::start_with("c", disk, |options| {
        small_log(options);
        options.raft_addr = addr;
    })
    .await;
    assert_eq!(back.get("key-299").await, Some("v".repeat(100)));
    let (ours, theirs) = (back.handle().status().await.replica, a.handle().status().await.replica);
    assert_eq!((ours.keys, ours.state_hash), (300, theirs.state_hash));
    assert!(
        back.metrics.snapshots_installed.get() >= 1,
        "a second one may have been due while the first was on its way"
    );
}

#[tokio::test]
async fn a_node_whose_disk_hangs_while_it_ends_still_tells_its_status() {
    let node = TestNode::start("a").await;
    assert!(is_set(&node.set("k", "v").await));
    let handle = node.handle();
    let hanging = node.disk.hang();
    node.node.stop();
    // It has taken the order, and waits for the disk.
    let read = || ClientRequest::read(Bytes::from_static(b"k"), Level::Local);
    let stopping = async {
        while handle.request(read()).await != ClientReply::Failed(ClientError::Stopping) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), stopping).await.expect("its clients are told");
    for _ in 0..3 {
        assert!(timeout(Duration::from_secs(20), handle.status()).await.is_ok());
    }
    drop(hanging);
    assert_eq!(node.stop().await, NodeExit::Stopped);
}

/// The transfer is to a member that has just gone, so that it comes to nothing.
#[tokio::test]
async fn a_leader_that_stops_during_another_transfer_hands_over_after_it() {
    let (a, b, c) = (TestNode::start("a").await, TestNode::start("b").await, TestNode::start("c").await);
    a.join(&b).await;
    a.join(&c).await;
    assert!(is_set(&a.set("k", "v").await));
    let gone = c.handle().status().await.replica.id;
    let handle = a.handle();
    c.stop().await;
    let transfer = ClientRequest::TransferLeadership(Some(gone));
    let reply = handle.request_within(None, transfer, 1).await;
    assert_eq!(reply, ClientReply::Failed(ClientError::Unknown), "it is under way");
    assert_eq!(a.stop().await, NodeExit::Stopped);
    let last = handle.status().await.replica;
    let successor = b.handle().status().await.replica.id;
    assert_eq!((last.role, last.leader), (RoleName::Follower, Some(successor)));
}

#[tokio::test]
async fn no_task_of_a_node_that_has_ended_serves_on() {
    let node = TestNode::start("a").await;
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    Hello::Rpc.write(&mut stream).await.unwrap();
    assert_eq!(HelloAnswer::heard(&mut stream).await.unwrap(), HelloAnswer::Accepted);
    // A caller that puts no question is given up after five seconds.
    assert_eq!(node.stop().await, NodeExit::Stopped);
    let read = timeout(Duration::from_secs(3), stream.read(&mut [0])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
}
