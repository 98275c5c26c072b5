//! The body of a snapshot that holds anything: it is read or refused, never panics, and what is
//! read writes the same body again.
//!
//! The first byte chooses: the input is the body; or it edits the body of a real store. The second
//! one says how long the pieces are that the body comes in.
#![no_main]

use infinitystore::codec::FeatureLevel;
use infinitystore::kv::{Command, LeaseId, Op, Put, Settings, Store, StoreReader};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static BODIES: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let mut store = Store::new();
    let mut apply = |command: Command| drop(store.apply(1, &command));
    apply(Op::Configure(Settings { history_bytes: 20_000, ..Settings::default() }).into());
    for id in [1, 2] {
        apply(Op::Grant { id: LeaseId(id), ttl_seconds: 10 }.into());
    }
    for number in 0..40u64 {
        let (key, value) = (format!("key {}", number % 7).into(), vec![7; number as usize % 3 * 300].into());
        let op = Op::Put(Put { key, value, lease: LeaseId(number % 3) });
        apply(Command { idempotency_key: Some(format!("{number}").into()), since: None, by: None, op });
        apply(Op::delete(format!("key {}", number % 5)).into());
    }
    let old = body(&store);
    store.raise_level(FeatureLevel::NEWEST);
    for number in 40..50u64 {
        let op = Op::set("key", vec![7; 300]);
        store.apply(1, &Command { idempotency_key: Some(format!("{number}").into()), ..op.into() });
    }
    [old, body(&Store::new()), body(&store)]
});

fn body(store: &Store) -> Vec<u8> {
    store.snapshot_pieces().flatten().collect()
}

fuzz_target!(|input: &[u8]| {
    let [mode, piece, input @ ..] = input else { return };
    let bytes = match mode % 4 {
        0 => input.to_vec(),
        base => edited(&BODIES[usize::from(base) - 1], input),
    };
    let mut reader = StoreReader::new();
    if bytes.chunks(1 + 7 * usize::from(*piece)).try_for_each(|piece| reader.push(piece)).is_err() {
        return;
    }
    if let Ok(store) = reader.finish() {
        assert_eq!(body(&store), bytes, "one state has one body");
    }
});

/// Four bytes an edit: where (24 bits), and what is put there; 0xff cuts the rest off.
fn edited(body: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    for edit in edits.chunks_exact(4) {
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], 0]) as usize % (bytes.len() + 1);
        match bytes.get_mut(at) {
            Some(byte) => *byte = edit[3],
            None => bytes.push(edit[3]),
        }
        if edit[3] == 0xff {
            bytes.truncate(at);
        }
    }
    bytes
}
