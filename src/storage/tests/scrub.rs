//! What is at rest is read again: damage is found while the node runs, and what is damaged is
//! replaced by a snapshot of the state in memory.

use crate::replica::StorageEvent;
use crate::storage::tests::kit::{entries, indices, open, segments, snapshot, store, write};
use crate::storage::{Disk, DiskFile, MemoryDisk, ScrubDamage, Scrubbed, Storage};
use std::path::{Path, PathBuf};

/// A log of several segments, with the last index in it.
fn several_segments() -> (MemoryDisk, Storage<MemoryDisk>, u64) {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    let mut index = 2;
    while segments(&disk).len() < 4 {
        // A segment holds a few of these, and has room left behind its seal.
        write(&mut storage, vec![entries(index, index, 1, 10_000)]).unwrap();
        index += 1;
    }
    (disk, storage, index - 1)
}

/// What a whole pass finds, and how many bytes it reads.
fn pass(storage: &Storage<MemoryDisk>) -> (Vec<Scrubbed>, u64) {
    let mut scrubber = storage.scrubber();
    let (mut read, mut found) = (0, Vec::new());
    scrubber.begin().unwrap();
    while let Some(scrubbed) = scrubber.next(&mut |bytes| {
        read += bytes;
        true
    }) {
        found.push(scrubbed);
    }
    (found, read)
}

fn damages(found: Vec<Scrubbed>) -> Vec<ScrubDamage> {
    let damage = |scrubbed| match scrubbed {
        Scrubbed::Damaged(damage) => Some(damage),
        _ => None,
    };
    found.into_iter().filter_map(damage).collect()
}

fn flip(disk: &MemoryDisk, file: &Path, at: u64) {
    let file = disk.open(file).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn snapshots(disk: &MemoryDisk) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|file| file.extension().is_some_and(|end| end == "snap")).collect()
}

#[test]
fn all_that_is_at_rest_is_read_and_found_sound() {
    let (disk, mut storage, last) = several_segments();
    snapshot(&mut storage, last, 1, &store(300)).unwrap();
    let (found, read) = pass(&storage);
    let sealed = segments(&disk).len() - 1;
    let files: Vec<_> = segments(&disk).into_iter().take(sealed).chain(snapshots(&disk)).collect();
    assert_eq!(found, files.iter().cloned().map(Scrubbed::Sound).collect::<Vec<_>>());
    let length: u64 = files.iter().map(|file| disk.open(file).unwrap().len().unwrap()).sum();
    assert!(read >= length * 9 / 10, "{read} bytes of {length} were read");
}

#[test]
fn a_bit_that_turns_in_any_sector_is_found_and_so_is_a_cut_file() {
    let (disk, mut storage, last) = several_segments();
    snapshot(&mut storage, last, 1, &store(300)).unwrap();
    let (segment, snapshot) = (segments(&disk)[1].clone(), snapshots(&disk)[0].clone());
    for file in [&segment, &snapshot] {
        let length = disk.open(file).unwrap().len().unwrap();
        // In the fill behind a header a bit has no meaning.
        let is_padding = |at: u64| (32..4096).contains(&at);
        for at in (0..length).step_by(509).filter(|at| !is_padding(*at)) {
            flip(&disk, file, at);
            let found = damages(pass(&storage).0);
            assert_eq!(found.len(), 1, "byte {at} of {}", file.display());
            assert_eq!(found[0].file, *file);
            flip(&disk, file, at);
        }
        let whole = disk.open(file).unwrap();
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        whole.read_at(&mut bytes, 0).unwrap();
        whole.set_len(length / 2).unwrap();
        assert_eq!(damages(pass(&storage).0).len(), 1);
        whole.write_at(&bytes, 0).unwrap();
        assert!(damages(pass(&storage).0).is_empty());
    }
}

#[test]
fn what_was_changed_while_it_was_read_is_no_damage() {
    let (disk, storage, _) = several_segments();
    let file = segments(&disk)[0].clone();
    let mut scrubber = storage.scrubber();
    scrubber.begin().unwrap();
    flip(&disk, &file, 9000);
    assert_eq!(scrubber.next(&mut |_| true), Some(Scrubbed::Unsure(file.clone())));
    flip(&disk, &file, 9000);
    assert_eq!(scrubber.next(&mut |_| true), Some(Scrubbed::Sound(file.clone())));
    // A snapshot makes it unnecessary meanwhile.
    assert_eq!(scrubber.check(&file, &mut |_| false), Scrubbed::Stopped);
    disk.remove(&file).unwrap();
    assert_eq!(scrubber.check(&file, &mut |_| true), Scrubbed::Sound(file));
}

#[test]
fn a_damaged_segment_goes_once_a_snapshot_covers_it_and_is_never_used_again() {
    let (disk, mut storage, last) = several_segments();
    let damaged = segments(&disk)[1].clone();
    flip(&disk, &damaged, 9000);
    let found = damages(pass(&storage).0);
    assert_eq!(found.iter().map(|damage| &damage.file).collect::<Vec<_>>(), [&damaged]);
    let mut events = Vec::new();
    storage.condemn(&damaged, &mut events).unwrap();
    let [StorageEvent::SegmentDamaged { through }] = events[..] else { panic!("{events:?}") };
    assert!(through.get() > 1 && through.get() < last);
    // A snapshot that does not reach so far is not enough.
    snapshot(&mut storage, through.get() - 1, 1, &store(3)).unwrap();
    assert!(segments(&disk).contains(&damaged));
    snapshot(&mut storage, through.get(), 1, &store(4)).unwrap();
    assert!(!segments(&disk).contains(&damaged));
    assert!(damages(pass(&storage).0).is_empty());
    storage.condemn(&damaged, &mut events).unwrap();
    assert_eq!(events.len(), 1, "it is gone, and nothing is asked for any more");
    for index in last + 1..last + 60 {
        write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
    }
    drop(storage);
    disk.crash(|_| false);
    let (_storage, opened) = open(&disk).unwrap();
    let snapshot = opened.restored.snapshot.as_ref().unwrap().last.index;
    assert_eq!(snapshot, through);
    assert_eq!(indices(&opened.restored).last(), Some(&(last + 59)));
    assert_eq!(opened.store.state_hash(), store(4).state_hash());
}

#[test]
fn a_damaged_segment_that_the_newest_snapshot_covers_goes_at_once() {
    let (disk, mut storage, last) = several_segments();
    snapshot(&mut storage, last, 1, &store(9)).unwrap();
    let damaged = segments(&disk)[1].clone();
    flip(&disk, &damaged, 9000);
    let mut events = Vec::new();
    storage.condemn(&damaged, &mut events).unwrap();
    assert!(events.is_empty(), "{events:?}");
    assert!(!segments(&disk).contains(&damaged));
    drop(storage);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.store.state_hash(), store(9).state_hash());
}
