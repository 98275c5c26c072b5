//! A data directory from its first start on: on the disk in memory and on the operating system's.

use crate::raft::{ClusterId, LogIndex, LogRecords, NodeId, StoreId};
use crate::replica::{StorageEvent, StorageRequest};
use crate::storage::spare::{Room, Spares};
use crate::storage::tests::kit::{
    DIR, bootstrap, entries, entry, indices, open, options, segments, snapshot, store, vote, wal_dir, write,
};
use crate::storage::{Disk, MemoryDisk, RealDisk, RecoveryNote, SpareMode, Storage, StorageOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[test]
fn fresh_directory_holds_the_bootstrap_log() {
    let disk = MemoryDisk::new();
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.restored, bootstrap().initial);
    assert_eq!(opened.identity.name, "node1");
    assert_eq!(opened.incarnation.number(), 1);
    assert_eq!(opened.notes[0], RecoveryNote::Created);
}

#[test]
fn what_was_written_is_recovered_by_every_later_start() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    let hard_state = LogRecords { hard_state: Some(vote(3, Some(1))), ..LogRecords::default() };
    let events =
        write(&mut storage, vec![hard_state, entries(2, 40, 3, 100), entries(41, 60, 3, 1000)]).unwrap();
    assert_eq!(events.len(), 1, "three writes share one sync: {events:?}");
    storage.close().unwrap();
    for start in 2..5 {
        let (storage, opened) = open(&disk).unwrap();
        assert_eq!(opened.incarnation.number(), start);
        assert_eq!(indices(&opened.restored), (1..=60).collect::<Vec<_>>());
        assert_eq!(opened.restored.entries[59], entry(60, 3, 1000));
        assert_eq!(opened.restored.hard_state, vote(3, Some(1)));
        storage.close().unwrap();
    }
}

#[test]
fn starts_on_two_copies_of_a_directory_are_never_the_same_start() {
    let disk = MemoryDisk::new();
    drop(open(&disk).unwrap());
    let older = disk.copy();
    let start = |disk: &MemoryDisk, seed| {
        Storage::open(disk.clone(), StorageOptions { seed, ..options() }, &bootstrap()).unwrap().1
    };
    let (here, there) = (start(&disk, 8), start(&older, 9));
    assert_eq!(here.incarnation.number(), there.incarnation.number(), "it is counted on the disk");
    assert_ne!(here.incarnation, there.incarnation);
    assert_eq!(here.nonces[1..], there.nonces[1..], "both come after the same starts");
    assert_eq!(here.nonces[0], here.incarnation.nonce());
    for seed in 0..40 {
        assert!(start(&disk, seed).nonces.len() <= 16);
    }
}

#[test]
fn one_batch_takes_one_sync() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    // The first call prepares the next segment too.
    storage.idle(&mut Vec::new()).unwrap();
    let before = disk.syncs();
    write(&mut storage, (2..10).map(|index| entries(index, index, 1, 256)).collect()).unwrap();
    assert_eq!(disk.syncs() - before, 1);
}

#[test]
fn log_goes_on_over_many_segments() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    for index in 2..200 {
        write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
    }
    assert!(segments(&disk).len() > 5);
    drop(storage);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored), (1..200).collect::<Vec<_>>());
}

#[test]
fn batch_larger_than_a_segment_gets_one_of_its_own() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(2, 100, 1, 3000)]).unwrap();
    write(&mut storage, vec![entries(101, 101, 1, 10)]).unwrap();
    drop(storage);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored), (1..102).collect::<Vec<_>>());
}

#[test]
fn truncation_voids_entries_and_those_after_it_take_their_place() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(2, 10, 1, 10)]).unwrap();
    let truncate = LogRecords { truncate_from: Some(crate::raft::LogIndex::new(5)), ..entries(5, 6, 2, 10) };
    write(&mut storage, vec![truncate]).unwrap();
    drop(storage);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored), (1..=6).collect::<Vec<_>>());
    assert_eq!(opened.restored.entries[4], entry(5, 2, 10));
}

#[test]
fn two_snapshots_are_kept_and_segments_go_below_the_older_one() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    for round in 0..5u64 {
        for index in round * 40 + 2..round * 40 + 42 {
            write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
        }
        snapshot(&mut storage, round * 40 + 41, 1, &store(round * 10)).unwrap();
    }
    let snapshots =
        disk.files().into_iter().filter(|file| file.extension().is_some_and(|end| end == "snap")).count();
    assert_eq!(snapshots, 2);
    assert!(disk.used_bytes() < 16 * 64 * 1024, "{:?}", disk.files());
    drop(storage);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.restored.snapshot.unwrap().last.index.get(), 201);
    assert_eq!(opened.store.state_hash(), store(40).state_hash());
    assert_eq!(opened.restored.entries.last().unwrap().index().get(), 201);
    assert!(opened.restored.entries[0].index().get() <= 162, "the log reaches back to the older snapshot");
}

#[test]
fn operating_systems_disk_does_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        StorageOptions { dir: dir.path().join("data/node1"), spare_mode: SpareMode::Thread, ..options() };
    let (mut storage, _) = Storage::open(RealDisk, options.clone(), &bootstrap()).unwrap();
    for round in 0..3u64 {
        for index in round * 40 + 2..round * 40 + 42 {
            let events = write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
            assert!(matches!(events[..], [StorageEvent::Durable { .. }]), "{events:?}");
        }
        snapshot(&mut storage, round * 40 + 41, 1, &store(round * 10)).unwrap();
    }
    assert!(Storage::open(RealDisk, options.clone(), &bootstrap()).is_err(), "it is locked");
    // Nor does it help to remove the file that is locked.
    std::fs::remove_file(options.dir.join("lock")).unwrap();
    let error = Storage::open(RealDisk, options.clone(), &bootstrap()).map(|_| ()).unwrap_err();
    assert!(matches!(error, crate::storage::OpenError::InUse { .. }), "{error}");
    storage.close().unwrap();
    let (_storage, opened) = Storage::open(RealDisk, options, &bootstrap()).unwrap();
    assert_eq!(opened.restored.entries.last().unwrap().index().get(), 121);
    assert_eq!(opened.store.state_hash(), store(20).state_hash());
}

#[test]
fn lock_keeps_a_second_process_out_until_the_first_ends() {
    let disk = MemoryDisk::new();
    let first = open(&disk).unwrap();
    assert!(matches!(open(&disk), Err(crate::storage::OpenError::InUse { .. })));
    drop(first);
    open(&disk).unwrap();
    assert!(disk.exists(Path::new(DIR)).unwrap());
}

/// The storage is told what is committed.
fn committed<D: Disk>(storage: &mut Storage<D>, index: u64) {
    let noted = StorageRequest::Committed(LogIndex::new(index));
    storage.handle(&mut vec![noted], &mut Vec::new()).unwrap();
}

/// What a start finds on a copy of the disk as it would be after a crash now.
fn recovered_commit(disk: &MemoryDisk) -> u64 {
    let copy = disk.copy();
    let (_storage, opened) = open(&copy).unwrap();
    opened.restored.commit.get()
}

#[test]
fn a_commit_index_is_in_the_next_batch_or_the_next_witness_and_costs_no_sync_of_its_own() {
    let disk = MemoryDisk::new();
    let (mut storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.restored.commit, LogIndex::ZERO);
    write(&mut storage, vec![entries(2, 9, 1, 10)]).unwrap();
    let operations = disk.changes();
    committed(&mut storage, 5);
    assert_eq!(disk.changes(), operations, "not worth a write");
    assert_eq!(recovered_commit(&disk), 0);
    write(&mut storage, vec![entries(10, 11, 1, 10)]).unwrap();
    assert_eq!(recovered_commit(&disk), 5);
    committed(&mut storage, 11);
    storage.idle(&mut Vec::new()).unwrap();
    assert_eq!(recovered_commit(&disk), 11);
    let operations = disk.changes();
    storage.idle(&mut Vec::new()).unwrap();
    assert_eq!(disk.changes(), operations, "it is said already");
    // It outlives segments, and starts.
    for index in 12..400 {
        write(&mut storage, vec![entries(index, index, 1, 1000)]).unwrap();
    }
    committed(&mut storage, 300);
    storage.close().unwrap();
    for _ in 0..3 {
        let (storage, opened) = open(&disk).unwrap();
        assert_eq!(opened.restored.commit, LogIndex::new(300));
        storage.close().unwrap();
    }
}

#[test]
fn who_moves_to_another_cluster_knows_nothing_of_it_to_be_committed() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(2, 9, 1, 10)]).unwrap();
    committed(&mut storage, 9);
    storage.idle(&mut Vec::new()).unwrap();
    let (mut storage, opened) = storage.adopt(ClusterId(6), NodeId::new(4), StoreId(12)).unwrap();
    assert_eq!(opened.restored.commit, LogIndex::ZERO);
    storage.idle(&mut Vec::new()).unwrap();
    storage.close().unwrap();
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.restored.commit, LogIndex::ZERO);
}

#[test]
fn other_users_cannot_look_into_a_data_directory() {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let parent = tempfile::TempDir::new().unwrap();
    let dir = parent.path().join("data/node1");
    let start = || {
        let options = StorageOptions { spare_mode: SpareMode::Inline, ..StorageOptions::new(dir.clone()) };
        let (storage, opened) = Storage::open(RealDisk, options, &bootstrap()).unwrap();
        storage.close().unwrap();
        opened.notes
    };
    let noted = |notes: &[RecoveryNote]| notes.contains(&RecoveryNote::MadePrivate { dir: dir.clone() });
    assert!(!noted(&start()), "a new one is private from the start");
    let mut paths = vec![parent.path().join("data"), dir.clone()];
    while let Some(path) = paths.pop() {
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        if path.is_dir() {
            paths.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    // One that an earlier release made, or an administrator.
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(noted(&start()));
    assert_eq!(mode(&dir), 0o700);
    assert!(!noted(&start()), "said once");
}

#[test]
fn small_batches_after_large_ones_leave_a_segment_whose_room_is_only_reserved() {
    let disk = MemoryDisk::new();
    let options = StorageOptions { segment_bytes: 4 << 20, batch_bytes_max: 1 << 20, ..options() };
    let (mut storage, _) = Storage::open(disk.clone(), options.clone(), &bootstrap()).unwrap();
    let mut last = 1;
    let mut put = |storage: &mut Storage<MemoryDisk>, count: usize, bytes: usize| {
        for _ in 0..count {
            last += 1;
            write(storage, vec![entries(last, last, 1, bytes)]).unwrap();
        }
        last
    };
    while segments(&disk).len() < 5 {
        put(&mut storage, 1, 300_000);
    }
    for _ in 0..3 {
        put(&mut storage, 63, 100);
        put(&mut storage, 1, 300_000);
    }
    put(&mut storage, 63, 100);
    assert_eq!(segments(&disk).len(), 5, "now and then one is large: they are not small yet");
    put(&mut storage, 3, 100);
    assert_eq!(segments(&disk).len(), 6, "the rest of the segment is given up");
    let last = put(&mut storage, 200, 100);
    assert_eq!(segments(&disk).len(), 6, "this one is filled with zeros");
    storage.close().unwrap();
    let (_, opened) = Storage::open(disk, options, &bootstrap()).unwrap();
    assert_eq!(indices(&opened.restored), (1..=last).collect::<Vec<u64>>());
}

#[test]
fn a_spare_that_is_filled_is_made_beside_one_that_is_reserved() {
    let disk = MemoryDisk::new();
    disk.create_dir_all(&wal_dir()).unwrap();
    let mut spares = Spares::new(disk.clone(), wal_dir(), SpareMode::Inline).unwrap();
    let bytes = 1 << 20;
    spares.want(bytes, Room::Reserved);
    spares.poll();
    disk.set_capacity(Some(disk.used_bytes()));
    spares.want(bytes, Room::Filled);
    assert_eq!((spares.poll(), spares.has_filled(bytes)), (None, false), "the log has a spare all the same");
    disk.set_capacity(None);
    spares.poll();
    assert!(spares.has_filled(bytes));
    assert_eq!(spares.take(bytes).unwrap().room, Room::Filled, "what is wanted");
    assert_eq!(spares.take(bytes).unwrap().room, Room::Reserved, "what there is");
}

#[test]
fn a_segment_that_was_written_takes_the_place_of_a_spare_that_is_only_reserved() {
    let disk = MemoryDisk::new();
    disk.create_dir_all(&wal_dir()).unwrap();
    let mut spares = Spares::new(disk.clone(), wal_dir(), SpareMode::Inline).unwrap();
    spares.want(1 << 20, Room::Reserved);
    spares.poll();
    for name in ["a", "b"] {
        let old = wal_dir().join(name);
        disk.create(&old).unwrap();
        spares.recycle(&old, 1 << 20, vec![1], Room::Filled, true).unwrap();
    }
    assert_eq!(disk.files().len(), 2);
    spares.want(1 << 20, Room::Filled);
    for _ in 0..2 {
        assert_eq!(spares.take(1 << 20).unwrap().former_lives, [1]);
    }
}
