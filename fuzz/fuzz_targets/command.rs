//! What may stand in the log as a command: it decodes or is refused, never panics, has one
//! encoding, and a store that applies it is one that its own snapshot describes.
#![no_main]

use bytes::Bytes;
use infinitystore::codec::Reader;
use infinitystore::kv::{Command, LeaseId, Op, Put, Revision, Store, StoreReader};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static BASE: LazyLock<Store> = LazyLock::new(|| {
    let mut store = Store::new();
    let mut apply = |op: Op| drop(store.apply(1, &op.into()));
    apply(Op::Grant { id: LeaseId(1), ttl_seconds: 10 });
    for key in ["a", "a/b", "b", "a"] {
        apply(Op::Put(Put { key: key.into(), value: "7".into(), lease: LeaseId(1) }));
        apply(Op::set(key, vec![7; 600]));
        apply(Op::delete("b"));
    }
    apply(Op::Compact(Revision(2)));
    store
});

fuzz_target!(|input: &[u8]| {
    let Ok(command) = Command::decode(Reader::new(Bytes::copy_from_slice(input))) else { return };
    let mut encoded = Vec::new();
    command.encode(&mut encoded);
    assert_eq!(encoded, input, "one command has one encoding");
    assert_eq!(command.check(), Ok(()));
    let mut store = BASE.clone();
    let first = store.apply(1, &command);
    if command.idempotency_key.is_some() && store.answers_bytes() > 0 {
        assert_eq!(store.apply(1, &command), first);
    }
    let mut reader = StoreReader::new();
    store.snapshot_pieces().for_each(|piece| reader.push(&piece).expect("the store wrote it"));
    assert_eq!(reader.finish().expect("the store wrote it").state_hash(), store.state_hash());
});
