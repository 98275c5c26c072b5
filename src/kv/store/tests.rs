use crate::kv::store::StoreBuilder;
use crate::kv::store::digest;
use crate::kv::{Op, Outcome, Revision, Store, Versioned};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::collection::vec as any_vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use xxhash_rust::xxh3::xxh3_128;

fn set(key: &str, value: &str) -> Op {
    Op::Set { key: Bytes::from(String::from(key)), value: Bytes::from(String::from(value)) }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: Bytes::from(String::from(key)) }
}

/// Few keys, so that commands meet each other.
fn any_ops() -> impl Strategy<Value = Vec<Op>> {
    let op = (0..12u8, any_vec(any::<u8>(), 0..20), 0..4u8).prop_map(|(key, value, kind)| {
        let key = Bytes::from(vec![key; 1 + usize::from(key) % 3]);
        if kind == 0 { Op::Delete { key } } else { Op::Set { key, value: value.into() } }
    });
    any_vec(op, 0..120)
}

/// The same machine in the plainest words.
#[derive(Default)]
struct Model {
    map: BTreeMap<Vec<u8>, Versioned>,
    revision: u64,
}

impl Model {
    fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Set { key, value } => {
                self.revision += 1;
                let revision = Revision(self.revision);
                let before = self.map.get(&key[..]);
                let versioned = Versioned {
                    value: value.clone(),
                    create_revision: before.map_or(revision, |before| before.create_revision),
                    mod_revision: revision,
                    version: before.map_or(1, |before| before.version + 1),
                };
                let version = versioned.version;
                self.map.insert(key.to_vec(), versioned);
                Outcome::Set { revision, version }
            }
            Op::Delete { key } => {
                let existed = self.map.remove(&key[..]).is_some();
                self.revision += u64::from(existed);
                Outcome::Deleted { revision: Revision(self.revision), existed }
            }
        }
    }
}

fn owned(store: &Store) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    store.iter().map(|(key, found)| (key, found.value.to_vec(), found.version)).collect()
}

fn recomputed_state_hash(store: &Store) -> u128 {
    store
        .iter()
        .map(|(key, versioned)| digest(&key, versioned))
        .fold(xxh3_128(&store.revision().0.to_le_bytes()), u128::wrapping_add)
}

#[test]
fn revisions_count_mutations_and_versions_count_sets_since_creation() {
    let mut store = Store::new();
    assert_eq!(store.apply(&set("a", "1")), Outcome::Set { revision: Revision(1), version: 1 });
    assert_eq!(store.apply(&set("a", "1")), Outcome::Set { revision: Revision(2), version: 2 });
    assert_eq!(store.apply(&delete("b")), Outcome::Deleted { revision: Revision(2), existed: false });
    assert_eq!(store.apply(&delete("a")), Outcome::Deleted { revision: Revision(3), existed: true });
    assert_eq!(store.apply(&set("a", "2")), Outcome::Set { revision: Revision(4), version: 1 });
    let a = store.get(b"a").unwrap();
    assert_eq!((a.create_revision, a.mod_revision, a.version), (Revision(4), Revision(4), 1));
    assert_eq!((store.len(), store.bytes(), store.revision()), (1, 2, Revision(4)));
}

#[test]
fn state_hash_tells_revision_key_and_value_apart() {
    let after = |ops: &[Op]| {
        let mut store = Store::new();
        for op in ops {
            store.apply(op);
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
        store.apply(&Op::Set { key: buffer.slice(0..8), value: buffer.slice(round..100) });
    }
    assert!(buffer.is_unique(), "a slice of the network buffer lives on in the store");
}

#[test]
fn overwrites_leave_nothing_behind() {
    let mut store = Store::new();
    for round in 0..20_000u32 {
        store.apply(&set(&format!("key {}", round % 10), &format!("{round:08}")));
        if round % 3 == 0 {
            store.apply(&delete(&format!("key {}", round % 7)));
        }
    }
    let bytes: usize = store.iter().map(|(key, versioned)| key.len() + versioned.value.len()).sum();
    assert!(store.len() <= 10);
    assert_eq!(store.bytes(), bytes as u64);
}

proptest! {
    #[test]
    fn behaves_as_the_model(ops in any_ops()) {
        let (mut store, mut model) = (Store::new(), Model::default());
        for op in &ops {
            prop_assert_eq!(store.apply(op), model.apply(op));
            prop_assert_eq!(store.get(op.key()), model.map.get(&op.key()[..]).cloned());
            prop_assert_eq!(store.state_hash(), recomputed_state_hash(&store));
        }
        prop_assert!(store.iter().eq(model.map.iter().map(|(key, versioned)| (key.to_vec(), versioned.as_ref()))));
        prop_assert_eq!(store.len(), model.map.len());
        prop_assert_eq!(store.is_empty(), model.map.is_empty());
        prop_assert_eq!(store.revision().0, model.revision);
        let bytes: usize = model.map.iter().map(|(key, versioned)| key.len() + versioned.value.len()).sum();
        prop_assert_eq!(store.bytes(), bytes as u64);
    }

    #[test]
    fn a_clone_stays_as_it_was(before in any_ops(), after in any_ops()) {
        let mut store = Store::new();
        for op in &before {
            store.apply(op);
        }
        let captured = store.clone();
        let (hash, content) = (captured.state_hash(), owned(&captured));
        for op in &after {
            store.apply(op);
        }
        prop_assert_eq!(captured.state_hash(), hash);
        prop_assert_eq!(owned(&captured), content);
        prop_assert_eq!(recomputed_state_hash(&captured), hash);
    }

    #[test]
    fn a_store_built_from_a_snapshot_is_the_one_that_was_captured(ops in any_ops()) {
        let mut store = Store::new();
        for op in &ops {
            store.apply(op);
        }
        let mut builder = StoreBuilder::default();
        store.iter().for_each(|(key, found)| builder.push(&key, found));
        let built = builder.finish(store.revision());
        prop_assert_eq!(built.state_hash(), store.state_hash());
        prop_assert_eq!(built.bytes(), store.bytes());
        prop_assert_eq!(owned(&built), owned(&store));
    }
}
