use super::{PipeTap, WireTap};
use crate::record::timeline::{Fate, Timeline};
use infinitystore::codec::encode_frame;
use infinitystore::raft::{Body, Message, NodeId, Term};
use infinitystore::replica::PeerMessage;

fn message(term: u64) -> PeerMessage {
    let (from, to, term) = (NodeId::new(1), NodeId::new(2), Term::new(term));
    PeerMessage::Raft(Message { from, to, term, body: Body::TimeoutNow })
}

fn bytes(terms: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &term in terms {
        encode_frame(&mut bytes, |payload| message(term).encode(payload));
    }
    bytes
}

#[test]
fn messages_are_read_out_of_pieces() {
    let (all, mut tap, mut read) = (bytes(&[1, 2, 3]), PipeTap::default(), Vec::new());
    for piece in all.chunks(7) {
        read.extend(tap.read(piece, None));
    }
    assert_eq!(read, [(message(1), true), (message(2), true), (message(3), true)]);
}

#[test]
fn nothing_behind_a_damaged_message_is_read() {
    let (all, mut tap) = (bytes(&[1, 2, 3]), PipeTap::default());
    let one = bytes(&[1]).len();
    // In two pieces, of which the second has the damage, in the second message.
    assert_eq!(tap.read(&all[..10], None), []);
    assert_eq!(tap.read(&all[10..], Some(one + 3 - 10)), [(message(1), true), (message(2), false)]);
    assert_eq!(tap.read(&bytes(&[4]), None), []);
    // Nor what is no message at all.
    let mut tap = PipeTap::default();
    assert_eq!(tap.read(b"neither a frame nor its beginning", None), []);
    assert_eq!(tap.read(&all, None), []);
}

#[test]
fn of_messages_that_are_alike_the_earlier_were_dropped() {
    let (mut tap, mut timeline) = (WireTap::default(), Timeline::default());
    for (at, term) in [(10, 1), (20, 1), (30, 2), (40, 1), (50, 3)] {
        tap.sent(&mut timeline, at, (0, 1), &message(term));
    }
    // Written together: those of 30 and 40. What was before them is gone, what comes after
    // still waits.
    assert_eq!(tap.take((0, 1), vec![(message(2), true), (message(1), true)]), [(3, true), (2, true)]);
    assert_eq!(tap.take((0, 1), vec![(message(1), true)]), []);
    assert_eq!(tap.take((1, 0), vec![(message(3), true)]), [], "another link");
    assert_eq!(tap.take((0, 1), vec![(message(3), false)]), [(4, false)]);
}

#[test]
fn what_is_on_its_way_dies_with_the_connection() {
    let (mut tap, mut timeline) = (WireTap::default(), Timeline::default());
    for at in [10, 20, 30] {
        tap.sent(&mut timeline, at, (0, 1), &message(at));
    }
    let mut tap = PipeTap { flying: vec![(0, Some(15)), (1, Some(25)), (2, None)], ..PipeTap::default() };
    timeline.messages[0].fate = Fate::Arrives(15);
    timeline.messages[1].fate = Fate::Arrives(25);
    tap.released(Some(&mut timeline), 35);
    assert_eq!(timeline.messages[2].fate, Fate::Arrives(35));
    tap.broken(Some(&mut timeline), 20);
    let fates: Vec<Fate> = timeline.messages.iter().map(|message| message.fate).collect();
    assert_eq!(fates, [Fate::Arrives(15), Fate::Lost, Fate::Lost]);
}
