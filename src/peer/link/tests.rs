use crate::peer::address_book::{AddressBook, Me};
use crate::peer::discovery::Discovery;
use crate::peer::hello::{Hello, HelloAnswer, Starts};
use crate::peer::link::{Link, write_while_bytes_flow};
use crate::peer::options::TransportOptions;
use crate::raft::{ClusterId, Incarnation, Member, Membership, NodeId, StoreId};
use crate::runtime::{Metrics, TokioEnv};
use crate::storage::MemoryDisk;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

fn member(number: u64, raft_addr: &str) -> (NodeId, Member) {
    let (name, raft_addr, http_addr) = (format!("n{number}"), raft_addr.to_owned(), "x:1".to_owned());
    (NodeId::new(number), Member { name, raft_addr, http_addr, store_id: StoreId(u128::from(number)) })
}

fn book_of_a_node_with_a_peer_at(addr: &str) -> AddressBook {
    let members = [member(1, "127.0.0.1:1"), member(2, addr)];
    let membership = Membership {
        voters: [NodeId::new(1), NodeId::new(2)].into(),
        outgoing: None,
        learners: [].into(),
        members: members.into(),
        next_member_id: NodeId::new(3),
    };
    let me = Me {
        cluster: ClusterId(5),
        id: NodeId::new(1),
        store: StoreId(1),
        starts: Starts::new(Incarnation::new(1), vec![1]),
        name: "n1".to_owned(),
        raft_addr: "127.0.0.1:1".to_owned(),
        http_addr: "x:1".to_owned(),
    };
    AddressBook::new(me, membership)
}

#[tokio::test]
async fn a_peer_whose_process_ends_right_after_it_let_this_node_in_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (_queue_in, queue) = mpsc::channel(1);
    let (found_in, mut found) = mpsc::channel(4);
    let link = Link {
        env: TokioEnv::new(MemoryDisk::new()),
        address_book: Arc::new(book_of_a_node_with_a_peer_at(&addr)),
        to: NodeId::new(2),
        queue,
        options: TransportOptions::default(),
        metrics: Metrics::new(),
        discoveries: found_in,
    };
    let running = tokio::spawn(link.run());
    let (mut stream, _) = listener.accept().await.unwrap();
    assert!(matches!(Hello::read(&mut stream).await, Ok(Hello::Peer(_))));
    HelloAnswer::Accepted.write(&mut stream).await.unwrap();
    drop(listener);
    drop(stream);
    let found = found.recv().await;
    assert!(matches!(found, Some(Discovery::PeerGone { peer }) if peer == NodeId::new(2)), "{found:?}");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_kept_while_bytes_flow_and_a_stuck_one_is_not() {
    let env = TokioEnv::new(MemoryDisk::new());
    let bytes = vec![7; 1 << 20];
    let (mut here, mut there) = tokio::io::duplex(64 << 10);
    // Takes 48 s for all of it, and 3 s for a part.
    let reading = tokio::spawn(async move {
        let (mut block, mut all) = (vec![0; 64 << 10], 0);
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            match there.read(&mut block).await.unwrap() {
                0 => return all,
                count => all += count,
            }
        }
    });
    write_while_bytes_flow(&env, &mut here, &bytes, 5_000_000).await.unwrap();
    drop(here);
    assert_eq!(reading.await.unwrap(), bytes.len());
    let (mut here, _there) = tokio::io::duplex(64 << 10);
    let stuck = write_while_bytes_flow(&env, &mut here, &bytes, 5_000_000).await;
    assert_eq!(stuck.unwrap_err().kind(), ErrorKind::TimedOut);
}
