//! Power lost anywhere, any subset of what was unsynced left: what was acknowledged is there.

use crate::raft::{ClusterId, NodeId, StoreId};
use crate::storage::tests::kit::{DIR, entries, indices, open, segments, wal_dir, write};
use crate::storage::tests::model::Workload;
use crate::storage::{FaultKind, MemoryDisk, RecoveryNote};
use proptest::prelude::{ProptestConfig, any, proptest};

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_is_recovered_whatever_subset_of_unsynced_sectors_and_names_is_lost(seed in any::<u64>()) {
        let mut workload = Workload::new(seed);
        for _ in 0..6 {
            workload.round(12);
        }
    }
}

/// One batch of `blocks` blocks in flight when the power fails; every subset of its sectors in
/// `subsets` survives.
fn check_every_subset(
    prepare: fn() -> MemoryDisk,
    data_bytes: usize,
    sectors: u32,
    subsets: impl Iterator<Item = u64>,
) {
    let before = prepare();
    for subset in subsets {
        let disk = before.copy();
        let (mut storage, opened) = open(&disk).unwrap();
        let acknowledged = indices(&opened.restored);
        let next = acknowledged.last().unwrap() + 1;
        disk.fail(FaultKind::SyncData, "", 0, std::io::ErrorKind::Other);
        assert!(write(&mut storage, vec![entries(next, next, 9, data_bytes)]).is_err());
        drop(storage);
        let mut asked = 0;
        disk.crash(|question| {
            asked = question + 1;
            subset >> question & 1 == 1
        });
        assert_eq!(asked, u64::from(sectors), "the batch has that many sectors");
        let (_storage, opened) = open(&disk).unwrap();
        let mut expected = acknowledged.clone();
        let torn = opened.notes.iter().any(|note| matches!(note, RecoveryNote::TornTail { .. }));
        if subset == (1 << sectors) - 1 {
            expected.push(next);
        }
        assert_eq!(indices(&opened.restored), expected, "subset {subset:b}");
        assert_eq!(torn, subset != 0 && subset != (1 << sectors) - 1, "subset {subset:b}");
    }
}

fn fresh() -> MemoryDisk {
    let disk = MemoryDisk::new();
    drop(open(&disk).unwrap());
    disk
}

#[test]
fn every_subset_of_a_batch_of_eight_sectors() {
    check_every_subset(fresh, 100, 8, 0..1 << 8);
}

#[test]
fn many_subsets_of_a_batch_of_sixteen_sectors() {
    check_every_subset(fresh, 5000, 16, (0..1 << 16).step_by(151).chain([(1 << 16) - 1, 0xfffe, 0x7fff]));
}

#[test]
fn every_subset_of_a_batch_in_a_recycled_segment() {
    for subset in 0..1u64 << 8 {
        let disk = recycled();
        let (mut storage, next) = disk.1;
        let disk = disk.0;
        disk.fail(FaultKind::SyncData, "", 0, std::io::ErrorKind::Other);
        assert!(write(&mut storage, vec![entries(next, next, 1, 100)]).is_err());
        drop(storage);
        disk.crash(|question| subset >> question & 1 == 1);
        let (_storage, opened) = open(&disk).unwrap();
        let last = if subset == (1 << 8) - 1 { next } else { next - 1 };
        assert_eq!(*indices(&opened.restored).last().unwrap(), last, "subset {subset:b}");
    }
}

/// A log that has just begun a segment that was another one before, and the next index.
fn recycled() -> (MemoryDisk, (crate::storage::Storage<MemoryDisk>, u64)) {
    use crate::storage::tests::kit::{snapshot, store};
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    let mut next = 2;
    for _ in 0..3 {
        for _ in 0..45 {
            write(&mut storage, vec![entries(next, next, 1, 3000)]).unwrap();
            next += 1;
        }
        snapshot(&mut storage, next - 1, 1, &store(1)).unwrap();
    }
    for _ in 0..100 {
        let count = segments(&disk).len();
        write(&mut storage, vec![entries(next, next, 1, 3000)]).unwrap();
        next += 1;
        let content = disk.content(segments(&disk).last().unwrap()).unwrap();
        if segments(&disk).len() > count && content[content.len() / 2..].iter().any(|&byte| byte != 0) {
            return (disk, (storage, next));
        }
    }
    panic!("no segment was recycled: {:?}", disk.files());
}

#[test]
fn recycled_segment_shows_no_bytes_of_its_former_life() {
    let (disk, (storage, next)) = recycled();
    drop(storage);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(*indices(&opened.restored).last().unwrap(), next - 1);
}

#[test]
fn what_was_read_from_the_page_cache_alone_is_durable_after_the_start() {
    let disk = fresh();
    let (mut storage, _) = open(&disk).unwrap();
    disk.fail(FaultKind::SyncData, "", 0, std::io::ErrorKind::Other);
    assert!(write(&mut storage, vec![entries(2, 2, 1, 100)]).is_err());
    drop(storage);
    disk.kill();
    let (storage, opened) = open(&disk).unwrap();
    assert_eq!(
        indices(&opened.restored),
        [1, 2],
        "the write was whole in the page cache, and the core was told of it"
    );
    drop(storage);
    disk.crash(|_| false);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored), [1, 2]);
}

#[test]
fn torn_bytes_are_kept_aside_a_few_of_them() {
    let disk = fresh();
    for _ in 0..7 {
        let (mut storage, _) = open(&disk).unwrap();
        disk.fail(FaultKind::SyncData, "", 0, std::io::ErrorKind::Other);
        assert!(write(&mut storage, vec![entries(2, 2, 1, 100)]).is_err());
        drop(storage);
        disk.crash(|question| question < 3);
    }
    drop(open(&disk).unwrap());
    let torn: Vec<_> =
        disk.files().into_iter().filter(|file| file.to_string_lossy().contains(".torn-")).collect();
    assert_eq!(torn.len(), 4, "{torn:?}");
    assert!(torn.iter().all(|file| file.starts_with(wal_dir())));
}

#[test]
fn torn_bytes_are_few_after_starts_that_were_cut_off_too() {
    let disk = fresh();
    let tear = || {
        let (mut storage, _) = open(&disk).unwrap();
        disk.fail(FaultKind::SyncData, "", 0, std::io::ErrorKind::Other);
        assert!(write(&mut storage, vec![entries(2, 2, 1, 100)]).is_err());
        drop(storage);
        disk.crash(|question| question < 3);
    };
    (0..7).for_each(|_| tear());
    for changes in 0..40 {
        let disk = disk.copy();
        disk.fail_power_after(changes);
        drop(open(&disk));
        disk.crash(|_| true);
        drop(open(&disk).unwrap());
        let torn = disk.files().into_iter().filter(|file| file.to_string_lossy().contains(".torn-"));
        assert!(torn.clone().count() <= 4, "after {changes} changes: {:?}", torn.collect::<Vec<_>>());
    }
}

/// A node that was killed in the middle of an adoption, after the rename of its identity, before
/// that was durable.
fn half_adopted() -> MemoryDisk {
    let disk = fresh();
    let (storage, _) = open(&disk).unwrap();
    // One sync for the directories of the new generation and one for its log come before the
    // rename's own.
    disk.fail(FaultKind::SyncDir, DIR, 2, std::io::ErrorKind::Other);
    drop(storage.adopt(ClusterId(77), NodeId::new(3), StoreId(78)));
    disk.kill();
    disk
}

#[test]
fn identity_read_from_the_page_cache_alone_is_durable_before_the_old_one_is_removed() {
    for changes in 0..40 {
        for lost in 0..8 {
            let disk = half_adopted();
            disk.fail_power_after(changes);
            let started = open(&disk).map(|(_, opened)| opened.identity.store);
            assert!(started.as_ref().is_ok_and(|store| *store == StoreId(78)) || changes < 30, "{started:?}");
            disk.crash(|question| question != lost);
            let (_storage, opened) = open(&disk).unwrap_or_else(|error| panic!("{changes} {lost}: {error}"));
            let expected: &[u64] = if opened.identity.store == StoreId(78) { &[] } else { &[1] };
            assert_eq!(indices(&opened.restored), expected);
            assert!(
                started.is_err() || opened.identity.store == StoreId(78),
                "what a start was told stays true"
            );
        }
    }
}

#[test]
fn seal_read_from_the_page_cache_alone_is_not_trusted() {
    let disk = fresh();
    let (mut storage, _) = open(&disk).unwrap();
    let mut next = 2;
    let error = loop {
        let free = disk.content(segments(&disk).last().unwrap()).unwrap();
        let used = free.len() - free.iter().rev().take_while(|byte| **byte == 0).count();
        if free.len() - used < 3 * 4096 {
            // The next batch needs a new segment: the first sync of the old one is the seal's.
            disk.fail(
                FaultKind::SyncData,
                &segments(&disk)[0].to_string_lossy(),
                0,
                std::io::ErrorKind::Other,
            );
        }
        match write(&mut storage, vec![entries(next, next, 1, 7000)]) {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error.operation, segments(&disk).len()), ("syncing", 2), "{error}");
    drop(storage);
    disk.kill();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(next, next, 1, 10)]).unwrap();
    drop(storage);
    disk.crash(|_| false);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored), (1..=next).collect::<Vec<_>>());
}
