use crate::codec::{COUNTER_MAX, DecodeError, FeatureLevel};
use crate::kv::{Denial, LeaseId, Principal, Subject};
use crate::raft::{Body, Incarnation, LogIndex, Message, NodeId, Term};
use crate::replica::message::{
    DiskPaceSaid, Forward, ForwardRefused, LeaseAnswers, LeaseCall, LeaseCalls, LeaseRefusal, LeaseTime,
    PeerMessage, RefusedBecause, StateHash, StateHashKind,
};
use bytes::Bytes;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, proptest};
use proptest::{prop_assert, prop_assert_eq, prop_oneof};

fn encode(message: &PeerMessage) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn decode(bytes: &[u8]) -> Result<PeerMessage, DecodeError> {
    PeerMessage::decode(Bytes::copy_from_slice(bytes))
}

fn messages() -> impl Strategy<Value = PeerMessage> {
    let incarnation =
        (0..=COUNTER_MAX, any::<u64>()).prop_map(|(number, nonce)| Incarnation::drawn(number, nonce));
    let relation = (any::<u64>(), any::<u64>(), 0..=COUNTER_MAX, incarnation, 0..=COUNTER_MAX);
    let commands =
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from), 0..8);
    let kind = prop_oneof![
        Just(None),
        commands.prop_map(|commands| Some(Ok(commands))),
        (0..=COUNTER_MAX).prop_map(|count| Some(Err(count)))
    ];
    (relation, kind).prop_map(|((from, to, term, incarnation, first_sequence), kind)| {
        let (from, to, term) = (NodeId::new(from), NodeId::new(to), Term::new(term));
        match kind {
            None => PeerMessage::Raft(Message { from, to, term, body: Body::VoteGranted }),
            Some(Ok(commands)) => {
                PeerMessage::Forward(Forward { from, to, term, incarnation, first_sequence, commands })
            }
            Some(Err(count)) => PeerMessage::ForwardRefused(ForwardRefused {
                from,
                to,
                term,
                incarnation,
                first_sequence,
                count,
                why: reason(count),
            }),
        }
    })
}

fn reason(count: u64) -> RefusedBecause {
    match count % 6 {
        0 => RefusedBecause::NotLeading,
        1 => RefusedBecause::HandingOver,
        2 => RefusedBecause::Overloaded,
        3 => RefusedBecause::DiskFull,
        4 => RefusedBecause::TooLarge { bytes: count, limit: count / 2 },
        5 => RefusedBecause::Overtaken,
        _ => RefusedBecause::Malformed,
    }
}

fn forward(commands: Vec<Bytes>) -> PeerMessage {
    PeerMessage::Forward(Forward {
        from: NodeId::new(2),
        to: NodeId::new(1),
        term: Term::new(3),
        incarnation: Incarnation::new(4),
        first_sequence: 5,
        commands,
    })
}

#[test]
fn state_hashes_are_read_as_they_were_said() {
    use StateHashKind::{Answer, Question, Undecided, Verdict};
    for kind in [Question, Answer, Verdict, Undecided] {
        let said = PeerMessage::StateHash(StateHash {
            from: NodeId::new(1),
            to: NodeId::new(2),
            term: Term::new(3),
            kind,
            index: LogIndex::new(256),
            hash: u128::MAX - 5,
        });
        assert_eq!(decode(&encode(&said)), Ok(said));
    }
}

#[test]
fn the_pace_of_a_disk_is_read_as_it_was_said() {
    let (from, to, term) = (NodeId::new(1), NodeId::new(2), Term::new(3));
    for is_full in [false, true] {
        let said = PeerMessage::DiskPace(DiskPaceSaid { from, to, term, write_micros: 45_000, is_full });
        let bytes = encode(&said);
        assert_eq!(decode(&bytes), Ok(said));
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
    }
}

#[test]
fn commands_share_the_bytes_received() {
    let bytes = Bytes::from(encode(&forward(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")])));
    let Ok(PeerMessage::Forward(Forward { commands, .. })) = PeerMessage::decode(bytes.clone()) else {
        panic!("a forward was sent");
    };
    assert!(commands.iter().all(|command| bytes.as_ptr_range().contains(&command.as_ptr())));
}

#[test]
fn a_count_of_commands_beyond_the_bytes_received_is_refused_before_allocation() {
    let mut bytes = encode(&forward(vec![]));
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decode(&bytes), Err(DecodeError::TooLong { what: "commands", .. })));
}

#[test]
fn calls_of_leases_and_their_answers_are_read_as_they_were_said() {
    let (from, to, incarnation) = (NodeId::new(1), NodeId::new(2), Incarnation::drawn(3, 4));
    let call = |number, renew| LeaseCall { number, lease: LeaseId(number + 1), by: None, renew };
    let named =
        |number, subject| LeaseCall { by: Some(Principal { subject, as_of: 9 }), ..call(number, true) };
    let calls = vec![call(7, true), named(9, Subject::User(3)), named(10, Subject::Token(4)), call(8, false)];
    let said = PeerMessage::LeaseCalls(LeaseCalls { from, to, incarnation, calls });
    assert_eq!(decode(&encode(&said)), Ok(said));
    let time = LeaseTime { id: LeaseId(9), ttl_seconds: 10, left_micros: 11, keys: 12 };
    let denied = LeaseRefusal::Denied(Denial::MayNotWrite);
    let answers =
        vec![(7, Ok(Some(time))), (8, Ok(None)), (9, Err(denied)), (10, Err(LeaseRefusal::Overloaded))];
    let said = PeerMessage::LeaseAnswers(LeaseAnswers { from, to, incarnation, answers });
    assert_eq!(decode(&encode(&said)), Ok(said));
}

#[test]
fn an_unknown_tag_is_refused() {
    for tag in [0, 9, 255] {
        let expected = DecodeError::Invalid { what: "peer message tag", value: u64::from(tag) };
        assert_eq!(decode(&[tag, 1, 2]), Err(expected));
    }
    assert!(decode(&[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn peer_messages_survive_the_wire(message in messages()) {
        prop_assert_eq!(decode(&encode(&message)), Ok(message));
    }

    #[test]
    fn cut_or_extended_peer_messages_are_refused(message in messages(), cut in any::<prop::sample::Index>()) {
        let mut bytes = encode(&message);
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn damaged_and_arbitrary_bytes_never_panic(
        message in messages(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = decode(&bytes);
        let mut flipped = encode(&message);
        let at = at.index(flipped.len());
        flipped[at] ^= 1 << bit;
        prop_assert!(decode(&flipped) != Ok(message), "every bit means something");
    }
}

#[test]
fn a_node_of_level_7_hears_nothing_of_a_leader_that_has_too_much_to_do() {
    let (from, to, incarnation) = (NodeId::new(1), NodeId::new(2), Incarnation::new(3));
    let said = |answers| PeerMessage::LeaseAnswers(LeaseAnswers { from, to, incarnation, answers });
    let mut bytes = Vec::new();
    let all = vec![(7, Ok(None)), (8, Err(LeaseRefusal::Overloaded))];
    said(all).encode_at(FeatureLevel::OLDEST, &mut bytes);
    assert_eq!(PeerMessage::decode(Bytes::from(bytes)), Ok(said(vec![(7, Ok(None))])));
}
