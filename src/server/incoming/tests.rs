use crate::codec::encode_frame;
use crate::raft::Time;
use crate::raft::{Body, ClusterId, Message, NodeId, Term};
use crate::replica::PeerMessage;
use crate::server::door::Caller;
use crate::server::incoming::{
    BUFFER_BYTES, COMPLAINT_MICROS, Complaints, LINES_MAX, LINES_MICROS, Receiver, make_room,
};
use bytes::{BufMut, BytesMut};
use std::collections::BTreeSet;

fn receiver() -> Receiver {
    Receiver { cluster: ClusterId(1), from: NodeId::new(2), to: NodeId::new(1) }
}

fn frame(from: u64, to: u64) -> Vec<u8> {
    let (from, to, term) = (NodeId::new(from), NodeId::new(to), Term::new(1));
    let message = PeerMessage::Raft(Message { from, to, term, body: Body::VoteGranted });
    let mut bytes = Vec::new();
    encode_frame(&mut bytes, |out| message.encode(out));
    bytes
}

#[test]
fn messages_are_decoded_as_soon_as_they_are_complete() {
    let bytes = [frame(2, 1), frame(2, 1)].concat();
    let mut received = BytesMut::new();
    let mut decoded = 0;
    for (position, byte) in bytes.iter().enumerate() {
        received.put_u8(*byte);
        decoded += receiver().decode(&mut received).unwrap().len();
        assert_eq!(decoded, (position + 1) * 2 / bytes.len());
    }
}

#[test]
fn nobody_speaks_for_another_or_to_another() {
    for (from, to) in [(3, 1), (2, 3)] {
        assert!(receiver().decode(&mut BytesMut::from(&frame(from, to)[..])).is_err(), "{from} to {to}");
    }
}

#[test]
fn small_messages_share_a_buffer() {
    let mut received = BytesMut::new();
    let (mut kept, mut buffers) = (Vec::new(), BTreeSet::new());
    let reads = 10_000;
    for _ in 0..reads {
        make_room(&mut received);
        received.put_slice(&[0; 300]);
        let message = received.split().freeze();
        buffers.insert(message.as_ptr() as usize / BUFFER_BYTES);
        kept.push(message);
    }
    // Each buffer touches two of the ranges that are counted, at most.
    let needed = reads * 300 / BUFFER_BYTES;
    assert!(buffers.len() <= 3 * needed, "{} buffers where {needed} have room for all", buffers.len());
}

#[test]
fn callers_cannot_fill_the_log() {
    let mut complaints = Complaints::default();
    let at = |micros: u64| Time::new(micros);
    let caller = |number: u32| Caller::of(&format!("10.0.{}.{}:1", number / 256, number % 256));
    assert_eq!(complaints.is_due(at(0), caller(1), "garbage"), Some(0));
    assert_eq!(complaints.is_due(at(1), caller(1), "garbage"), None, "the same again");
    assert_eq!(complaints.is_due(at(2), caller(1), "silent"), Some(0), "another reason");
    assert_eq!(complaints.is_due(at(COMPLAINT_MICROS), caller(1), "garbage"), Some(0), "much later");
    complaints.forgive(&caller(1));
    assert_eq!(complaints.is_due(at(COMPLAINT_MICROS + 1), caller(1), "garbage"), Some(0), "it was let in");

    let start = 2 * COMPLAINT_MICROS;
    let lines =
        (100..10_100).filter(|&n| complaints.is_due(at(start), caller(n), "garbage").is_some()).count();
    assert_eq!(lines, LINES_MAX as usize);
    let later = at(start + LINES_MICROS);
    assert_eq!(complaints.is_due(later, caller(20_000), "garbage"), Some(10_000 - u64::from(LINES_MAX)));
}
