use crate::codec::{DecodeError, Reader};
use crate::kv::{KEY_BYTES_MAX, Op, VALUE_BYTES_MAX};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::collection::vec as any_bytes;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

fn decode(bytes: impl Into<Bytes>) -> Result<Op, DecodeError> {
    Op::decode(Reader::new(bytes.into()))
}

fn encode(op: &Op) -> Vec<u8> {
    let mut out = Vec::new();
    op.encode(&mut out);
    out
}

fn any_op() -> impl Strategy<Value = Op> {
    let key = any_bytes(any::<u8>(), 1..40).prop_map(Bytes::from);
    let value = any_bytes(any::<u8>(), 0..200).prop_map(Bytes::from);
    (key, value, any::<bool>()).prop_map(
        |(key, value, set)| {
            if set { Op::Set { key, value } } else { Op::Delete { key } }
        },
    )
}

#[test]
fn bytes_are_as_documented() {
    let set = Op::Set { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"vw") };
    assert_eq!(encode(&set), [1, 1, 0, 0, 0, b'k', 2, 0, 0, 0, b'v', b'w']);
    let delete = Op::Delete { key: Bytes::from_static(b"k") };
    assert_eq!(encode(&delete), [2, 1, 0, 0, 0, b'k']);
}

#[test]
fn refuses_what_no_encoder_writes() {
    assert_eq!(decode(vec![]), Err(DecodeError::Short { what: "command", needs: 1, has: 0 }));
    assert_eq!(decode(vec![9]), Err(DecodeError::Invalid { what: "command", value: 9 }));
    assert_eq!(
        decode(vec![2, 0, 0, 0, 0]),
        Err(DecodeError::Invalid { what: "length of the key", value: 0 }),
        "an empty key"
    );
    assert_eq!(
        decode(vec![2, 1, 0, 0, 0, b'k', 7]),
        Err(DecodeError::Trailing { what: "command", count: 1 })
    );
}

#[test]
fn limits_hold_to_the_byte() {
    let longest = Op::Set { key: vec![7; KEY_BYTES_MAX].into(), value: vec![8; VALUE_BYTES_MAX].into() };
    assert_eq!(decode(encode(&longest)).as_ref(), Ok(&longest));
    let long_key = Op::Delete { key: vec![7; KEY_BYTES_MAX + 1].into() };
    assert!(matches!(decode(encode(&long_key)), Err(DecodeError::TooLong { what: "key", .. })));
    let long_value = Op::Set { key: vec![7].into(), value: vec![8; VALUE_BYTES_MAX + 1].into() };
    assert!(matches!(decode(encode(&long_value)), Err(DecodeError::TooLong { what: "value", .. })));
}

proptest! {
    #[test]
    fn commands_survive_a_round_trip(op in any_op()) {
        prop_assert_eq!(decode(encode(&op)), Ok(op));
    }

    #[test]
    fn every_strict_prefix_is_refused(op in any_op(), cut in any::<proptest::sample::Index>()) {
        let mut bytes = encode(&op);
        bytes.truncate(cut.index(bytes.len()));
        let refused = decode(bytes).is_err();
        prop_assert_eq!(refused, true);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        tag in prop_oneof![Just(1u8), Just(2u8), any::<u8>()],
        rest in any_bytes(any::<u8>(), 0..64),
    ) {
        let mut bytes = vec![tag];
        bytes.extend(rest);
        if let Ok(op) = decode(bytes.clone()) {
            prop_assert_eq!(encode(&op), bytes, "one command has one encoding");
        }
    }
}

#[test]
fn a_detached_command_keeps_nothing_of_the_buffer_that_it_came_in() {
    let buffer = Bytes::from(vec![b'x'; 100_000]);
    let (key, value) = (buffer.slice(10..13), buffer.slice(20..40));
    for op in [Op::Set { key: key.clone(), value }, Op::Delete { key }] {
        let detached = op.detached();
        assert_eq!(detached, op);
        assert_eq!(detached.bytes(), op.bytes());
        drop(op);
        let capacity = match detached {
            Op::Set { key, value } => {
                drop(key);
                value.try_into_mut().expect("nobody else keeps it").capacity()
            }
            Op::Delete { key } => key.try_into_mut().expect("nobody else keeps it").capacity(),
        };
        assert!(capacity <= 23, "{capacity}");
    }
}
