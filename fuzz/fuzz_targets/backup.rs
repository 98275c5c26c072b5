//! The bytes of a backup that hold anything: they are read or refused, never panic, and what is
//! read is written the same again.
//!
//! The first byte chooses: the input is the backup; or it edits a real one. The second one says how
//! long the pieces are that it comes in.
#![no_main]

use infinitystore::kv::{Op, Store};
use infinitystore::raft::{ClusterId, LogId, LogIndex, StoreId, Term};
use infinitystore::storage::{BackupHeader, BackupReader, BackupSource, BackupWriter};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static BACKUP: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut store = Store::new();
    for number in 0..40 {
        store.apply(1, &Op::set(format!("key {}", number % 7), vec![7; number * 90]).into());
    }
    let last = LogId::new(Term::new(3), LogIndex::new(50));
    BackupWriter::new(BackupSource { cluster: ClusterId(1), store_id: StoreId(2), last, store }).flatten().collect()
});

fuzz_target!(|input: &[u8]| {
    let [mode, piece, input @ ..] = input else { return };
    let bytes = if mode % 2 == 0 { input.to_vec() } else { edited(&BACKUP, input) };
    let mut reader = BackupReader::of_state();
    if bytes.chunks(1 + 7 * usize::from(*piece)).try_for_each(|piece| reader.push(piece)).is_err() {
        return;
    }
    let Ok((BackupHeader { cluster, store: store_id, last, .. }, Some(store))) = reader.finish() else { return };
    // Chunks may be cut otherwise than this program cuts them; the state is the same.
    let hash = store.state_hash();
    let again: Vec<u8> =
        BackupWriter::new(BackupSource { cluster, store_id, last, store }).flatten().collect();
    let mut reader = BackupReader::of_state();
    reader.push(&again).expect("what was written is read");
    let (header, _) = reader.finish().expect("what was written is whole");
    assert_eq!((header.last, header.state_hash), (last, hash));
});

/// Four bytes an edit: where (24 bits), and what is put there; 0xff cuts the rest off.
fn edited(backup: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = backup.to_vec();
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
