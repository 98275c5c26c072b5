//! Chunks of a snapshot that share a write.

use crate::raft::{LogIndex, LogRecords};
use crate::replica::StorageEvent;
use crate::storage::tests::kit::{entries, incoming, indices, open, store, vote, write};
use crate::storage::{MemoryDisk, Storage};

fn opened() -> (MemoryDisk, Storage<MemoryDisk>) {
    let disk = MemoryDisk::new();
    let (storage, _) = open(&disk).unwrap();
    (disk, storage)
}

/// All chunks of a snapshot in one write, with the marker and what goes with it.
fn together(writes: Vec<LogRecords>) -> LogRecords {
    let mut all = LogRecords { truncate_from: Some(LogIndex::new(1)), ..LogRecords::default() };
    for records in writes {
        all.snapshot_chunks.extend(records.snapshot_chunks);
        all.snapshot = all.snapshot.or(records.snapshot);
    }
    all
}

#[test]
fn chunks_of_one_write_are_installed_together() {
    let (disk, mut storage) = opened();
    write(&mut storage, vec![entries(2, 5, 1, 10)]).unwrap();
    let (meta, chunks) = incoming(40, 1, &store(900), 7_000);
    let mut early = chunks;
    let late = early.split_off(early.len() / 2);
    let mut early = together(early);
    early.truncate_from = None;
    let events = write(&mut storage, vec![early]).unwrap();
    assert!(matches!(events[..], [StorageEvent::Durable { installed: None, refused: None, .. }, ..]));
    let late = together(late);
    assert!(late.snapshot_chunks.len() > 3);
    let events = write(&mut storage, vec![late]).unwrap();
    let [StorageEvent::Durable { installed: Some(content), refused: None, .. }, ..] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((&content.0, content.1.state_hash()), (&meta, store(900).state_hash()));
    drop(storage);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.restored.snapshot, Some(meta));
    assert_eq!(indices(&opened.restored), [0; 0]);
}

#[test]
fn one_bad_chunk_of_a_write_leaves_the_snapshot_out_and_the_log_as_it_was() {
    let (disk, mut storage) = opened();
    write(&mut storage, vec![entries(2, 5, 1, 10)]).unwrap();
    let (meta, chunks) = incoming(40, 1, &store(900), 7_000);
    let mut all = together(chunks);
    all.hard_state = Some(vote(7, None));
    all.snapshot_chunks.remove(1);
    let events = write(&mut storage, vec![all]).unwrap();
    let [StorageEvent::Durable { installed: None, refused: Some(refused), .. }, ..] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(refused.last, meta.last);
    drop(storage);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.restored.snapshot, None);
    assert_eq!(indices(&opened.restored), [1, 2, 3, 4, 5]);
    assert_eq!(opened.restored.hard_state, vote(7, None));
}
