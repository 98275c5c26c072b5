use crate::kv::store::digest;
use crate::kv::{Op, Outcome, Revision, Store};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::collection::vec as any_vec;
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

fn set(key: &str, value: &str) -> Op {
    Op::set(String::from(key), String::from(value))
}

fn delete(key: &str) -> Op {
    Op::delete(String::from(key))
}

fn apply(store: &mut Store, op: Op) -> Outcome {
    store.apply(1, &op.into())
}

/// Few keys, so that commands meet each other.
fn any_ops() -> impl Strategy<Value = Vec<Op>> {
    let op = (0..12u8, any_vec(any::<u8>(), 0..20), 0..4u8).prop_map(|(key, value, kind)| {
        let key = Bytes::from(vec![key; 1 + usize::from(key) % 3]);
        if kind == 0 { Op::delete(key) } else { Op::set(key, value) }
    });
    any_vec(op, 0..120)
}

#[test]
fn revisions_count_mutations_and_versions_count_sets_since_creation() {
    let mut store = Store::new();
    assert_eq!(apply(&mut store, set("a", "1")), Outcome::Put { revision: Revision(1), version: 1 });
    assert_eq!(apply(&mut store, set("a", "1")), Outcome::Put { revision: Revision(2), version: 2 });
    assert_eq!(apply(&mut store, delete("b")), Outcome::Deleted { revision: Revision(2), count: 0 });
    assert_eq!(apply(&mut store, delete("a")), Outcome::Deleted { revision: Revision(3), count: 1 });
    assert_eq!(apply(&mut store, set("a", "2")), Outcome::Put { revision: Revision(4), version: 1 });
    let a = store.get(b"a").unwrap();
    assert_eq!((a.create_revision, a.mod_revision, a.version), (Revision(4), Revision(4), 1));
    assert_eq!((store.len(), store.bytes(), store.revision()), (1, 2, Revision(4)));
}

#[test]
fn state_hash_tells_revision_key_and_value_apart() {
    let after = |ops: &[Op]| {
        let mut store = Store::new();
        for op in ops {
            apply(&mut store, op.clone());
        }
        store.state_hash()
    };
    let hashes = [
        after(&[]),
        after(&[set("a", "b")]),
        after(&[set("b", "a")]),
        after(&[set("ab", "")]),
        after(&[set("a", "b"), set("a", "b")]),
        after(&[set("a", "b"), delete("a")]),
        after(&[set("a", "b"), set("x", ""), delete("x")]),
    ];
    for (i, one) in hashes.iter().enumerate() {
        assert!(hashes[..i].iter().all(|other| other != one), "hash {i} is not unique");
    }
}

#[test]
fn applied_keys_and_values_do_not_keep_the_buffer_they_came_in() {
    let buffer = Bytes::from(vec![b'x'; 1 << 20]);
    let mut store = Store::new();
    for round in 0..2 {
        apply(&mut store, Op::set(buffer.slice(0..8), buffer.slice(round..100)));
    }
    assert!(buffer.is_unique(), "a slice of the network buffer lives on in the store");
}

#[test]
fn overwrites_leave_nothing_behind() {
    let mut store = Store::new();
    for round in 0..20_000u32 {
        apply(&mut store, set(&format!("key {}", round % 10), &format!("{round:08}")));
        if round % 3 == 0 {
            apply(&mut store, delete(&format!("key {}", round % 7)));
        }
    }
    let bytes: usize = store.iter().map(|found| found.bytes()).sum();
    assert!(store.len() <= 10);
    assert_eq!(store.bytes(), bytes as u64);
}

proptest! {
    #[test]
    fn sums_are_those_of_a_recomputation(ops in any_ops()) {
        let mut store = Store::new();
        for op in ops {
            apply(&mut store, op);
            let bytes: usize = store.iter().map(|found| found.bytes()).sum();
            prop_assert_eq!(store.bytes(), bytes as u64);
            let digests = store.live.iter().map(|(key, found)| digest(&key, found));
            prop_assert_eq!(store.digests, digests.fold(0, u128::wrapping_add));
        }
    }
}
