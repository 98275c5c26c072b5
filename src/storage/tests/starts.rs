//! A log that is older than the newest start: files of it were put back. What is not older is used.

use crate::raft::ClusterId;
use crate::storage::tests::kit::{DIR, bootstrap, entries, indices, open, options, wal_dir, write};
use crate::storage::{
    Disk, DiskFile, FaultKind, MemoryDisk, OpenError, Prognosis, RecoveryNote, Rejoin, Storage, StorageClock,
    StorageOptions, Survey, read_rejoin,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn content(disk: &MemoryDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// The log of `older` takes the place of the log.
fn put_log_back(disk: &MemoryDisk, older: &MemoryDisk) {
    for name in disk.list(&wal_dir()).unwrap() {
        disk.remove(&wal_dir().join(name)).unwrap();
    }
    for name in older.list(&wal_dir()).unwrap() {
        let path = wal_dir().join(name);
        let file = disk.create(&path).unwrap();
        file.write_at(&content(older, &path), 0).unwrap();
        file.sync_data().unwrap();
    }
}

/// A disk of two starts. Its log is that of the first.
fn disk_with_an_older_log() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(2, 5, 1, 10)]).unwrap();
    storage.close().unwrap();
    let older = disk.copy();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(6, 9, 1, 10)]).unwrap();
    storage.close().unwrap();
    put_log_back(&disk, &older);
    disk
}

#[test]
fn a_log_of_an_earlier_start_is_not_taken_for_the_log() {
    let disk = disk_with_an_older_log();
    let error = open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Condemned { .. }) && error.to_string().contains("older copies"));
    // A member joins anew; a node alone may go on with what is left.
    let survey = Survey::of(disk.clone(), options(), "node1", &error).unwrap().unwrap();
    assert!(matches!(survey.prognosis(), Prognosis::Replaceable(why) if why.contains("older copies")));
    let (sound, _) = survey.accept_loss().unwrap();
    survey.begin_mending().unwrap();
    survey.mend(&sound).unwrap();
    for _ in 0..2 {
        let (_storage, opened) = open(&disk).unwrap();
        assert_eq!(indices(&opened.restored), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn an_older_log_that_is_damaged_too_is_not_mended() {
    let disk = disk_with_an_older_log();
    // The first of its segments.
    let mut segments: Vec<_> = disk.list(&wal_dir()).unwrap();
    segments.retain(|name| name.to_string_lossy().ends_with(".seg"));
    segments.sort();
    let first = wal_dir().join(&segments[0]);
    let written = content(&disk, &first).iter().rposition(|byte| *byte != 0).unwrap();
    let mut damaged = 0;
    for byte in 0..=written {
        let copy = disk.copy();
        assert!(copy.flip_bit(&first, byte, 1));
        let error = open(&copy).map(|_| ()).unwrap_err();
        damaged += usize::from(matches!(error, OpenError::Damaged { .. }));
        let survey = Survey::of(copy, options(), "node1", &error).unwrap().unwrap();
        let prognosis = survey.prognosis();
        assert!(matches!(prognosis, Prognosis::Replaceable(_)), "byte {byte}: {prognosis:?}");
    }
    assert!(damaged > 0);
}

#[test]
fn a_start_that_wrote_nothing_but_its_segment_is_known() {
    let mut torn = 0;
    for (last, changes) in (2..24).flat_map(|last| (0..8).map(move |changes| (last, changes))) {
        let disk = MemoryDisk::new();
        let (mut storage, _) = open(&disk).unwrap();
        for index in 2..last {
            write(&mut storage, vec![entries(index, index, 1, 3_000)]).unwrap();
        }
        // The power interrupts this write, which may be the first of its segment.
        disk.fail_power_after(changes);
        if write(&mut storage, vec![entries(last, last, 1, 3_000)]).is_ok() {
            continue;
        }
        drop(storage);
        disk.crash(|question| question % 2 == 0);
        // Starts that cut the torn batch off and write nothing else.
        for _ in 0..3 {
            let (storage, opened) = open(&disk).unwrap();
            assert_eq!(indices(&opened.restored).last().copied().unwrap_or(1), last - 1);
            torn += opened.notes.iter().filter(|note| matches!(note, RecoveryNote::TornTail { .. })).count();
            drop(storage);
        }
    }
    assert!(torn > 0);
}

#[test]
fn a_start_without_its_note_or_with_a_damaged_one_goes_on() {
    let disk = MemoryDisk::new();
    open(&disk).unwrap();
    let note = Path::new(DIR).join("started");
    disk.open(&note).unwrap().write_at(b"?", 3).unwrap();
    open(&disk).unwrap();
    disk.remove(&note).unwrap();
    open(&disk).unwrap();
    assert!(disk.exists(&note).unwrap(), "it is written at each start");
}

/// What the next start is told of promises, when this one may promise so much.
fn promised(disk: &MemoryDisk, own: u64, runs_for: u64) -> u64 {
    let now = Arc::new(AtomicU64::new(0));
    let clock = now.clone();
    let clock = StorageClock::new(move || clock.load(Ordering::Relaxed));
    let options = StorageOptions { promised_micros: own, clock, ..options() };
    let (storage, opened) = Storage::open(disk.clone(), options, &bootstrap()).unwrap();
    now.store(runs_for, Ordering::Relaxed);
    storage.close().unwrap();
    opened.restored.promised_micros
}

#[test]
fn the_next_start_is_told_what_this_one_may_promise() {
    let disk = MemoryDisk::new();
    assert_eq!(promised(&disk, 600_000, 10_000_000), 0, "nobody has promised anything");
    assert_eq!(promised(&disk, 100_000, 500_000), 600_000);
    assert_eq!(promised(&disk, 0, 10_000_000), 600_000, "the start before was too short to outlast it");
    assert_eq!(promised(&disk, 0, 0), 0, "that one was not");
}

#[test]
fn a_damaged_note_of_a_promise_counts_as_the_own_promise() {
    let disk = MemoryDisk::new();
    assert_eq!(promised(&disk, 600_000, 0), 0);
    assert!(disk.flip_bit(&Path::new(DIR).join("started"), 20, 1));
    assert_eq!(promised(&disk, 500_000, 0), 500_000);
}

#[test]
fn a_promise_is_forgotten_once_it_is_over_without_a_stop() {
    let disk = MemoryDisk::new();
    assert_eq!(promised(&disk, 30_000_000, 0), 0);
    let now = Arc::new(AtomicU64::new(0));
    let clock = now.clone();
    let clock = StorageClock::new(move || clock.load(Ordering::Relaxed));
    let idle_at = |micros| {
        let options = StorageOptions { clock: clock.clone(), ..options() };
        now.store(0, Ordering::Relaxed);
        let (mut storage, opened) = Storage::open(disk.clone(), options, &bootstrap()).unwrap();
        now.store(micros, Ordering::Relaxed);
        storage.idle(&mut Vec::new()).unwrap();
        opened.restored.promised_micros
    };
    assert_eq!(idle_at(29_000_000), 30_000_000);
    assert_eq!(idle_at(31_000_000), 30_000_000, "the start before was too short to outlast it");
    assert_eq!(idle_at(0), 0, "that one was not");
}

#[test]
fn a_start_that_cannot_note_its_promise_is_none() {
    let disk = MemoryDisk::new();
    assert_eq!(promised(&disk, 600_000, 0), 0);
    let full = |own| {
        let disk = disk.copy();
        disk.fail(FaultKind::Create, "started.tmp", 0, std::io::ErrorKind::StorageFull);
        let options = StorageOptions { promised_micros: own, ..options() };
        Storage::open(disk, options, &bootstrap()).map(|_| ())
    };
    assert!(full(600_000).is_ok(), "the note that is there says as much");
    assert!(full(600_001).is_err_and(|error| error.is_full()));
}

/// A disk with a torn tail.
fn torn() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(2, 5, 1, 3_000)]).unwrap();
    disk.fail(FaultKind::SyncData, "", 0, std::io::ErrorKind::Other);
    assert!(write(&mut storage, vec![entries(6, 6, 1, 9_000)]).is_err());
    drop(storage);
    disk.crash(|question| question % 2 == 0);
    disk
}

fn torn_files(disk: &MemoryDisk) -> usize {
    disk.files().iter().filter(|file| file.to_string_lossy().contains(".torn-")).count()
}

#[test]
fn a_start_takes_no_room_for_a_torn_tail_on_a_full_disk() {
    let disk = torn();
    let kept = |disk: &MemoryDisk| {
        let (_storage, opened) = open(disk).unwrap();
        assert_eq!(indices(&opened.restored), [1, 2, 3, 4, 5]);
        opened.notes.iter().find_map(|note| match note {
            RecoveryNote::TornTail { kept, .. } => Some(kept.is_some()),
            _ => None,
        })
    };
    assert_eq!(kept(&disk.copy()), Some(true));
    // A start that waits for room tries again and again, whatever room there is meanwhile.
    disk.set_capacity(Some(0));
    assert!(open(&disk).map(drop).unwrap_err().is_full(), "it has removed what it can do without");
    let used = disk.used_bytes();
    for room in [0, 1_000, 6_000, 12_000, 0] {
        disk.set_capacity(Some(used + room));
        for _ in 0..6 {
            assert!(open(&disk).map(drop).unwrap_err().is_full(), "{room}");
        }
        assert!(torn_files(&disk) <= 1, "{:?}", disk.files());
    }
    // A disk that has room for all but that.
    let full = torn();
    full.fail(FaultKind::Write, ".torn-", 0, std::io::ErrorKind::StorageFull);
    assert_eq!((kept(&full), torn_files(&full)), (Some(false), 0));
}

/// Half of it was wiped: what a start would make here would be condemned by the note of the newest
/// start, and could never come back to the cluster that the directory was of.
#[test]
fn a_directory_of_which_notes_alone_are_left_is_no_new_one() {
    let whole = MemoryDisk::new();
    let peers = ["localhost:9000".to_owned()];
    let (storage, _) = open(&whole).unwrap();
    storage.note_peers(&peers).unwrap();
    storage.close().unwrap();
    whole.remove(&Path::new(DIR).join("identity")).unwrap();
    for name in ["wal-1", "snapshots-1"] {
        whole.remove_dir_all(&Path::new(DIR).join(name)).unwrap();
    }
    let damaged = whole.copy();
    assert!(damaged.flip_bit(&Path::new(DIR).join("started"), 40, 1));
    for disk in [whole, damaged] {
        let before = disk.files();
        let error = open(&disk).map(drop).unwrap_err();
        assert!(
            matches!(&error, OpenError::IdentityMissing { found, .. } if found.ends_with("started")),
            "{error}"
        );
        assert_eq!(disk.files(), before, "nothing was made");
        // What is left says which cluster to join.
        let survey = Survey::of(disk.clone(), options(), "node1", &error).unwrap().unwrap();
        assert_eq!((survey.cluster(), survey.peers()), (Some(ClusterId(5)), peers.to_vec()));
        assert!(matches!(survey.prognosis(), Prognosis::Replaceable(_)));
        let aside = survey.set_aside(&peers).unwrap();
        assert!(disk.exists(&aside.join("started")).unwrap());
        let (_storage, opened) = open(&disk).unwrap();
        assert!(opened.notes.contains(&RecoveryNote::Created));
        let rejoin = Rejoin { cluster: Some(ClusterId(5)), peers: peers.to_vec() };
        assert_eq!(read_rejoin(&disk, Path::new(DIR)).unwrap(), Some(rejoin));
    }
}
