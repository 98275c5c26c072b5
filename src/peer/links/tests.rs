use crate::peer::links::Queue;
use crate::raft::{Incarnation, NodeId, Term};
use crate::replica::{Forward, PeerMessage};
use bytes::Bytes;
use tokio::sync::mpsc;

fn message(bytes: usize) -> PeerMessage {
    PeerMessage::Forward(Forward {
        from: NodeId::new(1),
        to: NodeId::new(2),
        term: Term::new(1),
        incarnation: Incarnation::new(1),
        first_sequence: 1,
        commands: vec![Bytes::from(vec![0; bytes])],
    })
}

#[test]
fn what_waits_for_a_peer_is_bounded_in_bytes() {
    let (sender, mut waiting) = mpsc::channel(1_000);
    let queue = Queue { sender, bytes: Default::default(), depth: Default::default() };
    let taken = (0..10).filter(|_| queue.push(message(1_000), 5_000)).count();
    assert_eq!(taken, 4, "a message has a little more than its content");
    assert!(queue.push(message(10), 5_000), "a short one still has room");
    drop(waiting.try_recv().unwrap());
    assert!(queue.push(message(1_000), 5_000), "what has been sent makes room");
    while waiting.try_recv().is_ok() {}
    assert!(queue.push(message(10_000), 5_000), "a longer one waits alone");
    assert!(!queue.push(message(10), 5_000));
}
