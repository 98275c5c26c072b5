//! The level of a data directory: an older release does not open what it would misread, and opens
//! the directory as long as there is nothing of that in it.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::raft::{Entry, EntryKind, LogId, LogIndex, LogRecords, Term};
use crate::replica::StorageEvent;
use crate::storage::tests::kit::{DIR, bootstrap, entries, incoming, open, options, snapshot, store, write};
use crate::storage::{Disk, FaultKind, MemoryDisk, OpenError, Opened, Storage, StorageOptions};
use std::io::ErrorKind;
use std::path::Path;

const OLD: FeatureLevel = FeatureLevel::OLDEST;
const NEW: FeatureLevel = FeatureLevel::NEWEST;

fn level_entry(index: u64, level: FeatureLevel) -> LogRecords {
    let id = LogId::new(Term::new(1), LogIndex::new(index));
    let entries = vec![Entry::new(id, EntryKind::Level, &level.to_data())];
    LogRecords { entries, ..LogRecords::default() }
}

/// As a release of the oldest level does.
fn open_old<D: Disk>(disk: &D) -> Result<(Storage<D>, Opened), OpenError> {
    let options = StorageOptions { speaks: FeatureLevels::OF_THE_OLDEST, ..options() };
    Storage::open(disk.clone(), options, &bootstrap())
}

fn format_of(disk: &MemoryDisk) -> String {
    let text = String::from_utf8(disk.content(&Path::new(DIR).join("identity")).unwrap()).unwrap();
    text.lines().nth(1).unwrap().to_owned()
}

#[test]
fn a_new_release_leaves_a_directory_as_an_old_one_reads_it() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open_old(&disk).unwrap();
    write(&mut storage, vec![entries(2, 5, 1, 100)]).unwrap();
    storage.close().unwrap();
    let (mut storage, opened) = open(&disk).unwrap();
    assert_eq!(opened.identity.level, OLD);
    write(&mut storage, vec![entries(6, 9, 1, 100)]).unwrap();
    let state = store(5);
    snapshot(&mut storage, 9, 1, &state).unwrap();
    storage.close().unwrap();
    assert_eq!(format_of(&disk), "format = 7");
    let (_, opened) = open_old(&disk).expect("nothing in it is new");
    assert_eq!(opened.restored.snapshot.unwrap().last.index, LogIndex::new(9));
    assert_eq!(opened.store.state_hash(), state.state_hash());
}

#[test]
fn the_identity_says_so_before_the_log_speaks_of_a_level() {
    let base = MemoryDisk::new();
    let (mut storage, _) = open(&base).unwrap();
    write(&mut storage, vec![entries(2, 5, 1, 100)]).unwrap();
    drop(storage);
    // Wherever a loss of power stops it, and whatever of what was not synced is left: an old
    // release opens the directory, or is told why not. It never finds an entry that it does not
    // know.
    let (mut refused, mut opened_at_all) = (0, 0);
    for operations in 0..30 {
        for keeps in [false, true] {
            let disk = base.copy();
            let (mut storage, _) = open(&disk).unwrap();
            disk.fail_power_after(operations);
            let _ = write(&mut storage, vec![level_entry(6, NEW)]);
            drop(storage);
            disk.crash(|_| keeps);
            match open_old(&disk) {
                Ok((_, opened)) => {
                    opened_at_all += 1;
                    assert!(opened.restored.entries.iter().all(|entry| entry.level().is_none()));
                }
                Err(error) => {
                    refused += 1;
                    assert!(
                        matches!(error, OpenError::NewerFormat { found: 8, .. }),
                        "{operations}: {error}"
                    );
                }
            }
        }
    }
    assert!(refused > 0 && opened_at_all > 0, "{refused} refused, {opened_at_all} opened");
}

#[test]
fn a_directory_of_a_higher_level_is_refused_with_a_remedy() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(2, 5, 1, 100), level_entry(6, NEW)]).unwrap();
    assert_eq!(storage.identity().level, NEW);
    storage.close().unwrap();
    assert_eq!(format_of(&disk), "format = 8");
    let error = open_old(&disk).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 8, .. }), "{error}");
    for word in ["format version 8", "reads version 7", "start the version that wrote it"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let (_, opened) = open(&disk).unwrap();
    assert_eq!(opened.identity.level, NEW);
    assert_eq!(opened.restored.entries.last().and_then(Entry::level), Some(NEW));
}

#[test]
fn a_snapshot_of_a_higher_level_raises_the_directory_or_is_refused() {
    let mut state = store(5);
    state.raise_level(NEW);
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    let events = write(&mut storage, incoming(9, 1, &state, 1000).1).unwrap();
    assert!(events.iter().any(|event| matches!(event, StorageEvent::Durable { installed: Some(_), .. })));
    assert_eq!(format_of(&disk), "format = 8");

    let disk = MemoryDisk::new();
    let (mut storage, _) = open_old(&disk).unwrap();
    let events = write(&mut storage, incoming(9, 1, &state, 1000).1).unwrap();
    let why = events.iter().find_map(|event| match event {
        StorageEvent::Durable { refused: Some(refused), .. } => Some(refused.reason.clone()),
        _ => None,
    });
    assert!(why.as_ref().is_some_and(|why| why.contains("feature level 8")), "{why:?}");
    assert_eq!(format_of(&disk), "format = 7");
}

#[test]
fn a_full_disk_holds_the_entry_up_and_not_the_node() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    disk.fail(FaultKind::Create, "identity", 0, ErrorKind::StorageFull);
    let events = write(&mut storage, vec![level_entry(2, NEW)]).unwrap();
    assert!(matches!(events[..], [StorageEvent::LogFull(true)]), "{events:?}");
    assert_eq!(format_of(&disk), "format = 7");
    disk.clear_faults();
    let mut events = Vec::new();
    storage.idle(&mut events).unwrap();
    assert!(events.iter().any(|event| matches!(event, StorageEvent::Durable { .. })), "{events:?}");
    assert_eq!(format_of(&disk), "format = 8");
}
