//! What is at rest is read again: damage is found while the node runs, and what is damaged is
//! replaced by a snapshot of the state in memory.

use crate::codec::FeatureLevel;
use crate::raft::{ClusterId, Entry, EntryKind, LogId, LogIndex, LogRecords, NodeId, StoreId, Term};
use crate::replica::StorageEvent;
use crate::storage::tests::kit::{
    DIR, bootstrap, entries, indices, open, options, segments, snapshot, store, write,
};
use crate::storage::{
    Bootstrap, Disk, DiskFile, FaultKind, MemoryDisk, OpenError, ScrubDamage, Scrubbed, Scrubber, Storage,
};
use std::io;
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
    scrubber.begin();
    let mut pace = |bytes| {
        read += bytes;
        true
    };
    while let Some(scrubbed) = scrubber.next(&mut pace) {
        found.push(match scrubbed {
            Scrubbed::Unsure(file) => scrubber.check(&file, &mut pace),
            sure => sure,
        });
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
    let (disk, mut storage, last) = several_segments();
    let file = segments(&disk)[0].clone();
    let mut scrubber = storage.scrubber();
    scrubber.begin();
    flip(&disk, &file, 9000);
    assert_eq!(scrubber.next(&mut |_| true), Some(Scrubbed::Unsure(file.clone())));
    flip(&disk, &file, 9000);
    assert_eq!(scrubber.check(&file, &mut |_| true), Scrubbed::Sound(file.clone()));
    assert_eq!(scrubber.check(&file, &mut |_| false), Scrubbed::Stopped);
    // Snapshots make it unnecessary meanwhile.
    flip(&disk, &file, 9000);
    assert_eq!(scrubber.check(&file, &mut |_| true), Scrubbed::Unsure(file.clone()));
    for (index, keys) in [(last - 1, 3), (last, 4)] {
        snapshot(&mut storage, index, 1, &store(keys)).unwrap();
    }
    assert!(!segments(&disk).contains(&file));
    assert_eq!(scrubber.check(&file, &mut |_| true), Scrubbed::Sound(file));
    assert!(scrubber.missing().unwrap().is_empty());
    // Nobody misses anything of a log that is closed: its directory may be another node's.
    drop(storage);
    disk.remove(&segments(&disk)[0]).unwrap();
    assert!(scrubber.missing().unwrap().is_empty() && damages_of(&mut scrubber).is_empty());
}

fn damages_of(scrubber: &mut Scrubber<MemoryDisk>) -> Vec<ScrubDamage> {
    scrubber.begin();
    damages(std::iter::from_fn(|| scrubber.next(&mut |_| true)).collect())
}

#[test]
fn files_that_somebody_removed_are_missed_and_done_without() {
    let (disk, mut storage, last) = several_segments();
    snapshot(&mut storage, last - 1, 1, &store(3)).unwrap();
    snapshot(&mut storage, last, 1, &store(9)).unwrap();
    write(&mut storage, (last + 1..last + 30).map(|index| entries(index, index, 1, 3000)).collect()).unwrap();
    let segments_before = segments(&disk);
    let (sealed, active) = (segments_before[0].clone(), segments_before.last().unwrap().clone());
    let newest = snapshots(&disk).last().unwrap().clone();
    let gone = [sealed.clone(), newest.clone(), active.clone()];
    gone.iter().for_each(|file| disk.remove(file).unwrap());
    let scrubber = storage.scrubber();
    assert_eq!(scrubber.missing().unwrap(), gone);
    let found = damages(pass(&storage).0);
    assert_eq!(found.iter().map(|damage| &damage.file).collect::<Vec<_>>(), [&sealed, &newest]);
    assert!(found.iter().all(|damage| damage.why == "it is gone"), "{found:?}");
    assert_eq!(found[1].snapshot.map(|it| it.index.get()), Some(last));
    // The log leaves the segment that has lost its name, and asks for a snapshot of all it held.
    let mut events = Vec::new();
    storage.condemn(&sealed, &mut events).unwrap();
    events.clear();
    storage.condemn(&active, &mut events).unwrap();
    let [StorageEvent::SegmentDamaged { through }] = events[..] else { panic!("{events:?}") };
    assert_eq!(through.get(), last + 29);
    snapshot(&mut storage, last + 29, 1, &store(12)).unwrap();
    let mut scrubber = storage.scrubber();
    for file in [&sealed, &active] {
        assert_eq!(scrubber.check(file, &mut |_| true), Scrubbed::Sound(file.clone()));
    }
    snapshot(&mut storage, last + 29, 1, &store(12)).unwrap();
    write(&mut storage, vec![entries(last + 30, last + 30, 1, 10)]).unwrap();
    drop(storage);
    disk.crash(|_| false);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored).last(), Some(&(last + 30)));
    assert_eq!(opened.store.state_hash(), store(12).state_hash());
}

#[test]
fn the_log_goes_on_when_somebody_removed_segments_that_it_was_about_to_use_or_to_remove() {
    let (disk, mut storage, last) = several_segments();
    let spares = || disk.files().into_iter().filter(|file| file.to_string_lossy().contains("/spare-"));
    assert!(spares().count() > 0);
    spares().for_each(|file| disk.remove(&file).unwrap());
    write(&mut storage, (last + 1..last + 60).map(|index| entries(index, index, 1, 3000)).collect()).unwrap();
    // Two snapshots cover it: it would have been used again.
    disk.remove(&segments(&disk)[0]).unwrap();
    for index in [last + 40, last + 41] {
        snapshot(&mut storage, index, 1, &store(3)).unwrap();
    }
    write(&mut storage, (last + 60..last + 90).map(|index| entries(index, index, 1, 3000)).collect())
        .unwrap();
    drop(storage);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored).last(), Some(&(last + 89)));
}

#[test]
fn what_cannot_be_read_for_want_of_something_else_is_not_called_damaged() {
    let (disk, storage, _) = several_segments();
    let file = segments(&disk)[1].clone();
    let mut scrubber = storage.scrubber();
    for error in [io::ErrorKind::PermissionDenied, io::ErrorKind::OutOfMemory, io::ErrorKind::TimedOut] {
        disk.fail(FaultKind::Read, ".seg", 0, error);
        for _ in 0..3 {
            let found = scrubber.check(&file, &mut |_| true);
            assert!(matches!(&found, Scrubbed::Unread(of, _) if *of == file), "{found:?}");
        }
        disk.clear_faults();
        assert_eq!(scrubber.check(&file, &mut |_| true), Scrubbed::Sound(file.clone()));
    }
    for code in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOMEM] {
        assert!(crate::storage::error::says_nothing_of_the_disk(&code.into()), "{code}");
    }
    disk.fail(FaultKind::Read, ".seg", 0, io::ErrorKind::Other);
    assert_eq!(scrubber.check(&file, &mut |_| true), Scrubbed::Unsure(file.clone()));
    assert!(matches!(scrubber.check(&file, &mut |_| true), Scrubbed::Damaged(_)));
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

fn is_durable(events: &[StorageEvent]) -> bool {
    events.iter().any(|event| matches!(event, StorageEvent::Durable { .. }))
}

#[test]
fn a_log_whose_file_is_gone_acknowledges_nothing_until_it_has_another_one() {
    let (disk, mut storage, last) = several_segments();
    let active = segments(&disk).last().unwrap().clone();
    let spares = disk.files().into_iter().filter(|file| file.to_string_lossy().contains("/spare-"));
    spares.chain([active.clone()]).for_each(|file| disk.remove(&file).unwrap());
    disk.set_capacity(Some(disk.used_bytes()));
    let mut events = Vec::new();
    storage.condemn(&active, &mut events).unwrap();
    let told = write(&mut storage, vec![entries(last + 1, last + 1, 1, 10)]).unwrap();
    assert!(matches!(told[..], [.., StorageEvent::LogFull(true)]) && !is_durable(&told), "{told:?}");
    for _ in 0..3 {
        storage.idle(&mut events).unwrap();
        storage.condemn(&active, &mut events).unwrap();
    }
    assert!(!is_durable(&events), "{events:?}");
    disk.set_capacity(None);
    storage.idle(&mut events).unwrap();
    assert!(is_durable(&events), "{events:?}");
    assert_ne!(segments(&disk).last(), Some(&active));
    // What was in that file is asked for.
    events.clear();
    storage.condemn(&active, &mut events).unwrap();
    let [StorageEvent::SegmentDamaged { through }] = events[..] else { panic!("{events:?}") };
    assert_eq!(through.get(), last);
    snapshot(&mut storage, last, 1, &store(5)).unwrap();
    drop(storage);
    disk.crash(|_| false);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored).last(), Some(&(last + 1)));
}

#[test]
fn a_log_whose_file_is_gone_leaves_it_as_soon_as_there_is_room_although_nobody_writes() {
    let (disk, mut storage, _) = several_segments();
    let active = segments(&disk).last().unwrap().clone();
    let spares = disk.files().into_iter().filter(|file| file.to_string_lossy().contains("/spare-"));
    spares.chain([active.clone()]).for_each(|file| disk.remove(&file).unwrap());
    disk.set_capacity(Some(disk.used_bytes()));
    let before = segments(&disk);
    let mut events = Vec::new();
    storage.condemn(&active, &mut events).unwrap();
    storage.idle(&mut events).unwrap();
    assert_eq!(segments(&disk), before);
    disk.set_capacity(None);
    (0..2).for_each(|_| storage.idle(&mut events).unwrap());
    assert_eq!(segments(&disk).len(), before.len() + 1);
}

/// The identity and the number of the newest start.
fn notes() -> [PathBuf; 2] {
    ["identity", "started"].map(|name| Path::new(DIR).join(name))
}

fn mend(storage: &mut Storage<MemoryDisk>, file: &Path) -> Result<(), OpenError> {
    storage.mend_note(file).expect("it is a note")
}

#[test]
fn an_identity_that_is_gone_or_damaged_is_written_anew_and_so_is_the_number_of_the_start() {
    let (disk, mut storage, last) = several_segments();
    let mut scrubber = storage.scrubber();
    for note in notes() {
        let written = disk.content(&note).unwrap();
        for damage in ["gone", "a bit turned", "empty"] {
            assert!(scrubber.missing().unwrap().is_empty());
            match damage {
                "gone" => disk.remove(&note).unwrap(),
                "empty" => disk.overwrite(&note, Vec::new()),
                _ => assert!(disk.flip_bit(&note, 45, 1)),
            }
            assert_eq!(scrubber.missing().unwrap(), std::slice::from_ref(&note), "{damage}");
            assert_eq!(scrubber.check(&note, &mut |_| true), Scrubbed::Unsure(note.clone()));
            let found = scrubber.check(&note, &mut |_| true);
            assert!(matches!(&found, Scrubbed::Damaged(of) if of.file == note && of.snapshot.is_none()));
            mend(&mut storage, &note).unwrap();
            assert_eq!(scrubber.check(&note, &mut |_| true), Scrubbed::Sound(note.clone()));
            assert_eq!(disk.content(&note).unwrap(), written);
        }
    }
    // Whatever else is there is not written over.
    let [identity, _] = notes();
    let own = disk.content(&identity).unwrap();
    let other = MemoryDisk::new();
    let bootstrap = Bootstrap { store: StoreId(99), ..bootstrap() };
    drop(Storage::open(other.clone(), options(), &bootstrap).unwrap());
    disk.overwrite(&identity, other.content(&identity).unwrap());
    let refused = mend(&mut storage, &identity).unwrap_err().to_string();
    assert!(refused.contains("another data directory"), "{refused}");
    assert_eq!(disk.content(&identity), other.content(&identity));
    disk.overwrite(&identity, own);
    // What cannot be written now does not end the node.
    disk.remove(&identity).unwrap();
    for error in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        disk.fail(FaultKind::Create, "identity", 0, error);
        mend(&mut storage, &identity).unwrap_err();
        disk.clear_faults();
        assert_eq!(scrubber.missing().unwrap(), std::slice::from_ref(&identity));
    }
    write(&mut storage, vec![entries(last + 1, last + 1, 1, 10)]).unwrap();
    mend(&mut storage, &identity).unwrap();
    drop(storage);
    disk.crash(|_| false);
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(indices(&opened.restored).last(), Some(&(last + 1)));
}

#[test]
fn an_identity_that_changes_as_it_has_to_is_no_damage() {
    let (disk, mut storage, last) = several_segments();
    let [identity, _] = notes();
    let before = disk.content(&identity).unwrap();
    let mut scrubber = storage.scrubber();
    let id = LogId::new(Term::new(1), LogIndex::new(last + 1));
    let level = Entry::new(id, EntryKind::Level, &FeatureLevel::NEWEST.to_data());
    write(&mut storage, vec![LogRecords { entries: vec![level], ..LogRecords::default() }]).unwrap();
    assert_ne!(disk.content(&identity).unwrap(), before);
    assert!(scrubber.missing().unwrap().is_empty());
    // What it was before is damage now.
    let raised = disk.content(&identity).unwrap();
    disk.overwrite(&identity, before);
    assert_eq!(scrubber.missing().unwrap(), std::slice::from_ref(&identity));
    mend(&mut storage, &identity).unwrap();
    assert_eq!(disk.content(&identity).unwrap(), raised);
    // Another member's directory is none of the old one's business.
    let (mut storage, _) = storage.adopt(ClusterId(8), NodeId::new(3), StoreId(12)).unwrap();
    for scrubber in [&mut scrubber, &mut storage.scrubber()] {
        assert!(scrubber.missing().unwrap().is_empty());
        assert_eq!(scrubber.check(&identity, &mut |_| true), Scrubbed::Sound(identity.clone()));
    }
    let adopted = disk.content(&identity).unwrap();
    mend(&mut storage, &identity).unwrap();
    assert_eq!(disk.content(&identity).unwrap(), adopted);
}
