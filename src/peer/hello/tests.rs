use crate::peer::block::{Block, BlockError};
use crate::peer::hello::{Hello, HelloAnswer, PeerHello, Starts};
use crate::raft::{ClusterId, Incarnation, NodeId, StoreId};

fn peer_hello(raft_addr: &str) -> Hello {
    Hello::Peer(PeerHello {
        cluster: ClusterId(1 << 100),
        from: NodeId::new(2),
        store: StoreId(3),
        raft_addr: raft_addr.to_owned(),
        to: NodeId::new(4),
        starts: Starts { number: 3, nonces: vec![7, 8, 9] },
    })
}

#[tokio::test]
async fn hellos_are_read_as_they_were_said() {
    for hello in [Hello::Rpc, peer_hello("host:1"), peer_hello("")] {
        let mut bytes = Vec::new();
        hello.write(&mut bytes).await.unwrap();
        assert_eq!(Hello::read(&mut bytes.as_slice()).await.unwrap(), hello);
    }
}

#[tokio::test]
async fn answers_are_read_as_they_were_given() {
    for answer in [
        HelloAnswer::Accepted,
        HelloAnswer::Refused("because".to_owned()),
        HelloAnswer::OlderCopy("of it".to_owned()),
    ] {
        let mut bytes = Vec::new();
        answer.write(&mut bytes).await.unwrap();
        assert_eq!(HelloAnswer::read(&mut bytes.as_slice()).await.unwrap(), answer);
    }
}

#[tokio::test]
async fn a_reason_is_cut_between_characters_and_cannot_forge_log_lines() {
    let mut bytes = Vec::new();
    HelloAnswer::Refused(format!("a\nb{}", "ü".repeat(1000))).write(&mut bytes).await.unwrap();
    let answer = HelloAnswer::read(&mut bytes.as_slice()).await.unwrap();
    assert_eq!(answer, HelloAnswer::Refused(format!("ab{}", "ü".repeat(510))));
}

#[tokio::test]
async fn a_hello_is_no_answer_and_a_longer_hello_is_none() {
    let mut bytes = Vec::new();
    Hello::Rpc.write(&mut bytes).await.unwrap();
    assert!(matches!(HelloAnswer::read(&mut bytes.as_slice()).await, Err(BlockError::Kind(2))));
    let longer = Block { kind: 2, body: vec![0] }.encode();
    assert!(matches!(Hello::read(&mut longer.as_slice()).await, Err(BlockError::Body(_))));
}

#[test]
fn a_later_start_is_told_from_one_of_an_older_copy() {
    let starts = |number, nonces: &[u64]| Starts { number, nonces: nonces.to_vec() };
    let met = Incarnation::drawn(5, 50);
    for (what, starts, comes_after) in [
        ("the same", starts(5, &[50, 40, 30, 20, 10]), true),
        ("the next", starts(6, &[60, 50, 40, 30, 20, 10]), true),
        ("one much later", starts(40, &(25..=40).rev().map(|start| start * 10).collect::<Vec<_>>()), true),
        ("an earlier one", starts(4, &[40, 30, 20, 10]), false),
        ("another of the same number", starts(5, &[51, 40, 30, 20, 10]), false),
        ("a later one of an older copy", starts(7, &[71, 61, 51, 40, 30, 20, 10]), false),
        ("one that remembers less than it must", starts(9, &[90, 80]), false),
    ] {
        assert_eq!(starts.come_after(met), comes_after, "{what}");
    }
}
