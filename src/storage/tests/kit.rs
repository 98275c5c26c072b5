//! What the tests of this floor share: a data directory in memory, writes, and what a start found.

use crate::kv::{Op, Store};
use crate::raft::{
    ClusterId, Entry, EntryKind, HardState, LogId, LogIndex, LogRecords, LogWrite, Member, Membership,
    NodeId, Restored, SnapshotChunk, SnapshotMeta, StoreId, Term,
};
use crate::replica::{SnapshotSave, StorageEvent, StorageRequest};
use crate::storage::{
    Bootstrap, Disk, MemoryDisk, OpenError, Opened, SpareMode, Storage, StorageClock, StorageError,
    StorageOptions,
};
use bytes::Bytes;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(super) const DIR: &str = "/data/node1";
pub(super) const SEGMENT_BYTES: u64 = 64 << 10;

/// Small segments, no thread, a clock that stands still.
pub(super) fn options() -> StorageOptions {
    StorageOptions {
        segment_bytes: SEGMENT_BYTES,
        batch_bytes_max: 16 << 10,
        spare_mode: SpareMode::Inline,
        clock: StorageClock::still(),
        seed: 7,
        ..StorageOptions::new(DIR)
    }
}

pub(super) fn membership() -> Membership {
    let member = Member {
        name: "node1".into(),
        raft_addr: "localhost:8000".into(),
        http_addr: ":8001".into(),
        store_id: StoreId(11),
    };
    Membership {
        voters: BTreeSet::from([NodeId::new(1)]),
        outgoing: None,
        learners: BTreeMap::new(),
        members: BTreeMap::from([(NodeId::new(1), member)]),
        next_member_id: NodeId::new(2),
    }
}

pub(super) fn bootstrap() -> Bootstrap {
    let first = Entry::new(LogId::new(Term::new(1), LogIndex::new(1)), EntryKind::Empty, &[]);
    Bootstrap {
        name: "node1".into(),
        cluster: ClusterId(5),
        member: NodeId::new(1),
        store: StoreId(11),
        initial: Restored { hard_state: vote(1, None), entries: vec![first], ..Restored::default() },
    }
}

pub(super) fn open<D: Disk>(disk: &D) -> Result<(Storage<D>, Opened), OpenError> {
    Storage::open(disk.clone(), options(), &bootstrap())
}

pub(super) fn vote(term: u64, voted_for: Option<u64>) -> HardState {
    HardState { term: Term::new(term), voted_for: voted_for.map(NodeId::new) }
}

/// An entry with `data_bytes` of data, which depend on index and term.
pub(super) fn entry(index: u64, term: u64, data_bytes: usize) -> Entry {
    let data: Vec<u8> =
        (0..data_bytes as u64).map(|at| (at * 7 + index * 13 + term).to_le_bytes()[0]).collect();
    Entry::new(LogId::new(Term::new(term), LogIndex::new(index)), EntryKind::Command, &data)
}

/// Entries `from..=to` of a term.
pub(super) fn entries(from: u64, to: u64, term: u64, data_bytes: usize) -> LogRecords {
    let entries = (from..=to).map(|index| entry(index, term, data_bytes)).collect();
    LogRecords { entries, ..LogRecords::default() }
}

/// The next write of this test: writes are numbered as a core does.
pub(super) fn write_request(records: LogRecords) -> StorageRequest {
    thread_local!(static WRITES: Cell<u64> = const { Cell::new(0) });
    WRITES.set(WRITES.get() + 1);
    StorageRequest::Write(LogWrite::for_test(records, WRITES.get()))
}

/// One batch with these writes.
pub(super) fn write<D: Disk>(
    storage: &mut Storage<D>,
    writes: Vec<LogRecords>,
) -> Result<Vec<StorageEvent>, StorageError> {
    let mut events = Vec::new();
    storage.handle(&mut writes.into_iter().map(write_request).collect(), &mut events)?;
    Ok(events)
}

pub(super) fn wal_dir() -> PathBuf {
    Path::new(DIR).join("wal-1")
}

/// The segments, oldest first.
pub(super) fn segments(disk: &MemoryDisk) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|file| file.extension().is_some_and(|end| end == "seg")).collect()
}

pub(super) fn indices(restored: &Restored) -> Vec<u64> {
    restored.entries.iter().map(|entry| entry.index().get()).collect()
}

/// A store with `keys` keys.
pub(super) fn store(keys: u64) -> Store {
    let mut store = Store::new();
    for key in 0..keys {
        let value = Bytes::from(vec![key.to_le_bytes()[0]; 300]);
        store.apply(1, &Op::set(format!("key-{key}"), value).into());
    }
    store
}

pub(super) fn save_request(index: u64, term: u64, store: &Store) -> SnapshotSave {
    SnapshotSave {
        last: LogId::new(Term::new(term), LogIndex::new(index)),
        membership: membership(),
        membership_id: LogId::new(Term::new(1), LogIndex::new(1)),
        store: store.clone(),
    }
}

/// Saves a snapshot at an index and writes its marker.
pub(super) fn snapshot<D: Disk>(
    storage: &mut Storage<D>,
    index: u64,
    term: u64,
    store: &Store,
) -> Result<SnapshotMeta, StorageError> {
    let mut events = Vec::new();
    let save = StorageRequest::SaveSnapshot(Box::new(save_request(index, term, store)));
    storage.handle(&mut vec![save], &mut events)?;
    let Some(StorageEvent::SnapshotSaved(meta)) = events.first() else {
        return Err(StorageError {
            operation: "saving",
            file: PathBuf::new(),
            source: std::sync::Arc::new(std::io::Error::other(format!("{events:?}"))),
        });
    };
    write(storage, vec![marker(meta)])?;
    Ok((**meta).clone())
}

pub(super) fn marker(meta: &SnapshotMeta) -> LogRecords {
    LogRecords { snapshot: Some(Box::new(meta.clone())), ..LogRecords::default() }
}

/// The chunks of a store's snapshot, as a leader sends them, the last one with its marker.
pub(super) fn incoming(
    index: u64,
    term: u64,
    store: &Store,
    chunk_bytes: usize,
) -> (SnapshotMeta, Vec<LogRecords>) {
    let body: Vec<u8> = store.snapshot_pieces().flatten().collect();
    let save = save_request(index, term, store);
    let meta = SnapshotMeta {
        last: save.last,
        membership: save.membership,
        membership_id: save.membership_id,
        bytes: body.len() as u64,
        hash: xxhash_rust::xxh3::xxh3_128(&body),
    };
    let count = body.len().div_ceil(chunk_bytes).max(1);
    let writes = (0..count).map(|number| {
        let range = number * chunk_bytes..((number + 1) * chunk_bytes).min(body.len());
        let done = number + 1 == count;
        LogRecords {
            snapshot_chunks: vec![SnapshotChunk {
                snapshot: Box::new(meta.clone()),
                offset: range.start as u64,
                data: Bytes::copy_from_slice(&body[range]),
                done,
            }],
            snapshot: done.then(|| Box::new(meta.clone())),
            ..LogRecords::default()
        }
    });
    let writes = writes.collect();
    (meta, writes)
}
