use crate::codec::{COUNTER_MAX, DecodeError, Reader};
use crate::kv::{
    BadCommand, Command, KEY_BYTES_MAX, KeyRange, LeaseId, Op, Put, RangeQuery, Revision, Txn, TxnOp,
    VALUE_BYTES_MAX,
};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::collection::vec as any_bytes;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

fn decode(bytes: impl Into<Bytes>) -> Result<Command, DecodeError> {
    Command::decode(Reader::new(bytes.into()))
}

fn encode(command: &Command) -> Vec<u8> {
    let mut out = Vec::new();
    command.encode(&mut out);
    out
}

fn any_command() -> impl Strategy<Value = Command> {
    let name = option::of(any_bytes(any::<u8>(), 1..40).prop_map(Bytes::from));
    (name, option::of(0..=COUNTER_MAX), any_op()).prop_map(|(idempotency_key, since, op)| {
        let since = since.filter(|_| idempotency_key.is_some()).map(Revision);
        Command { idempotency_key, since, by: None, op }
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    let key = any_bytes(any::<u8>(), 1..40).prop_map(Bytes::from);
    let value = any_bytes(any::<u8>(), 0..200).prop_map(Bytes::from);
    (key, value, any::<bool>())
        .prop_map(|(key, value, set)| if set { Op::set(key, value) } else { Op::delete(key) })
}

#[test]
fn bytes_are_as_documented() {
    let bytes = |op: Op| encode(&op.into());
    assert_eq!(bytes(Op::set("k", "vw")), [1, 1, 0, 0, 0, b'k', 2, 0, 0, 0, b'v', b'w']);
    let leased = Put { key: "k".into(), value: "v".into(), lease: LeaseId(7) };
    assert_eq!(bytes(Op::Put(leased)), [2, 1, 0, 0, 0, b'k', 1, 0, 0, 0, b'v', 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes(Op::delete("k")), [3, 1, 0, 0, 0, b'k', 1, 2, 0, 0, 0, b'k', 0]);
    let all = KeyRange { start: Bytes::new(), end: None };
    assert_eq!(bytes(Op::Delete(all)), [3, 0, 0, 0, 0, 0]);
    let named = Command { idempotency_key: Some("i".into()), since: None, by: None, op: Op::set("k", "") };
    assert_eq!(encode(&named), [0, 1, 0, 0, 0, b'i', 1, 1, 0, 0, 0, b'k', 0, 0, 0, 0]);
    let since = Command { since: Some(Revision(7)), ..named };
    let head = [254, 1, 0, 0, 0, b'i', 7, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(encode(&since), [&head[..], &[1, 1, 0, 0, 0, b'k', 0, 0, 0, 0]].concat());
}

#[test]
fn refuses_what_no_encoder_writes() {
    assert_eq!(decode(vec![]), Err(DecodeError::Short { what: "command", needs: 1, has: 0 }));
    assert_eq!(decode(vec![99]), Err(DecodeError::Invalid { what: "command", value: 99 }));
    let against_rules = DecodeError::Inconsistent { what: "command", why: "it breaks a limit or a rule" };
    assert_eq!(decode(vec![1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(against_rules), "an empty key");
    assert_eq!(decode(vec![3, 1, 0, 0, 0, b'k', 1, 0, 0, 0, 0]), Err(against_rules), "an empty range");
    assert_eq!(
        decode(vec![3, 1, 0, 0, 0, b'k', 0, 7]),
        Err(DecodeError::Trailing { what: "command", count: 1 })
    );
}

#[test]
fn what_could_be_said_shorter_is_refused() {
    let leased = encode(&Op::Put(Put { key: "k".into(), value: "v".into(), lease: LeaseId(7) }).into());
    let mut without = leased.clone();
    let at = without.len() - 8;
    without[at] = 0;
    assert!(decode(leased).is_ok());
    assert_eq!(decode(without), Err(DecodeError::Invalid { what: "lease", value: 0 }));

    let get = TxnOp::Get(RangeQuery::of(KeyRange::one("k")));
    let read = encode(&Op::Txn(Box::new(Txn { success: [get].into(), ..Txn::default() })).into());
    // Tag, no comparisons, one step, its tag, the range, no resumed key, no revision.
    let at = 1 + 2 + 2 + 1 + (4 + 1 + 1 + 4 + 2) + 1 + 1;
    let mut none = read.clone();
    none[at] = 5;
    assert!(decode(read).is_ok());
    assert_eq!(decode(none), Err(DecodeError::Invalid { what: "revision that is none", value: 5 }));
}

#[test]
fn what_was_seen_before_goes_with_a_key_and_is_a_revision() {
    let named = |since| Command { idempotency_key: Some("i".into()), since, ..Op::set("k", "").into() };
    let greatest = named(Some(Revision(COUNTER_MAX)));
    assert_eq!((greatest.check(), decode(encode(&greatest))), (Ok(()), Ok(greatest)));
    let beyond = named(Some(Revision(COUNTER_MAX + 1)));
    assert_eq!(beyond.check(), Err(BadCommand::Since));
    let what = "revision before the first attempt";
    assert_eq!(decode(encode(&beyond)), Err(DecodeError::Invalid { what, value: COUNTER_MAX + 1 }));
    let nameless = Command { idempotency_key: None, ..named(Some(Revision(1))) };
    assert_eq!(nameless.check(), Err(BadCommand::Since));
}

#[test]
fn limits_hold_to_the_byte() {
    let (key, value) = (vec![7; KEY_BYTES_MAX], vec![8; VALUE_BYTES_MAX]);
    for longest in [Op::set(key.clone(), value.clone()), Op::delete(key.clone())] {
        let longest = Command::from(longest);
        assert_eq!(decode(encode(&longest)).as_ref(), Ok(&longest));
    }
    let long_key = [&key[..], &[7]].concat();
    for long in [Op::set(long_key.clone(), ""), Op::delete(long_key)] {
        assert!(matches!(decode(encode(&long.into())), Err(DecodeError::TooLong { .. })));
    }
    let long_value = Op::set("k", [&value[..], &[8]].concat());
    assert!(matches!(decode(encode(&long_value.into())), Err(DecodeError::TooLong { what: "value", .. })));
}

proptest! {
    #[test]
    fn commands_survive_a_round_trip(command in any_command()) {
        prop_assert_eq!(decode(encode(&command)), Ok(command));
    }

    #[test]
    fn every_strict_prefix_is_refused(command in any_command(), cut in any::<proptest::sample::Index>()) {
        let mut bytes = encode(&command);
        bytes.truncate(cut.index(bytes.len()));
        let refused = decode(bytes).is_err();
        prop_assert_eq!(refused, true);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        tag in prop_oneof![Just(1u8), Just(3u8), any::<u8>()],
        rest in any_bytes(any::<u8>(), 0..64),
    ) {
        let mut bytes = vec![tag];
        bytes.extend(rest);
        if let Ok(command) = decode(bytes.clone()) {
            prop_assert_eq!(encode(&command), bytes, "one command has one encoding");
        }
    }
}
