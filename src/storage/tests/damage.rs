//! Acknowledged bytes that changed: recovered exactly, or reported; never silently shortened.

use crate::raft::{LogId, LogRecords};
use crate::storage::tests::kit::{
    DIR, entries, indices, open, options, segments, snapshot, store, vote, wal_dir, write,
};
use crate::storage::{Damage, FaultKind, MemoryDisk, OpenError, Opened, RecoveryNote, Survey};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// A small log of one segment, with the vote, entries and a truncation in separate batches;
/// `witnessed` or not.
fn small(witnessed: bool) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(2, 9, 1, 100)]).unwrap();
    write(&mut storage, vec![LogRecords { hard_state: Some(vote(2, Some(1))), ..entries(10, 11, 2, 2500) }])
        .unwrap();
    write(&mut storage, vec![entries(12, 12, 2, 100)]).unwrap();
    if witnessed {
        storage.close().unwrap();
    }
    disk.crash(|_| true);
    disk
}

/// A log of several segments, some of them removed, with two snapshots.
fn large() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    for round in 0..3u64 {
        for index in round * 30 + 2..round * 30 + 32 {
            write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
        }
        snapshot(&mut storage, round * 30 + 20, 1, &store(round * 10 + 5)).unwrap();
    }
    storage.close().unwrap();
    disk.crash(|_| true);
    disk
}

/// What a start tells, whichever snapshot it starts from.
fn information(opened: &Opened) -> (String, BTreeMap<u64, LogId>, u64) {
    let ids: BTreeMap<u64, LogId> =
        opened.restored.entries.iter().map(|entry| (entry.index().get(), entry.id())).collect();
    let covered = opened.restored.snapshot.as_ref().map_or(0, |meta| meta.last.index.get());
    assert!(ids.first_key_value().is_none_or(|(first, _)| *first <= covered + 1));
    let last = opened.restored.entries.last().map_or(covered, |entry| entry.index().get());
    (format!("{:?} {:?}", opened.identity, opened.restored.hard_state), ids, last)
}

fn content(disk: &MemoryDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    disk.files().into_iter().map(|file| (file.clone(), disk.content(&file))).collect()
}

/// Opens a changed copy: it must say the same, or be refused without a change on disk. Whether it
/// was refused.
fn check_same_or_refused(
    disk: &MemoryDisk,
    expected: &(String, BTreeMap<u64, LogId>, u64),
    what: &str,
) -> bool {
    let before = content(disk);
    match open(disk) {
        Ok((_storage, opened)) => {
            assert_eq!(information(&opened), *expected, "{what}");
            assert!(!opened.notes.iter().any(|note| matches!(note, RecoveryNote::TornTail { .. })), "{what}");
            false
        }
        Err(error) => {
            assert_eq!(content(disk), before, "{what}: {error}");
            true
        }
    }
}

fn flip_every(disk: &MemoryDisk, file: &Path, bytes: impl Iterator<Item = usize>) -> usize {
    let expected = information(&open(&disk.copy()).unwrap().1);
    bytes
        .filter(|byte| {
            let copy = disk.copy();
            assert!(copy.flip_bit(file, *byte, u8::try_from(byte * 5 % 8).unwrap()));
            check_same_or_refused(&copy, &expected, &format!("bit of byte {byte} of {}", file.display()))
        })
        .count()
}

#[test]
fn bit_flip_in_the_log_is_reported_or_harmless() {
    for witnessed in [false, true] {
        let disk = small(witnessed);
        let file = segments(&disk).pop().unwrap();
        let refused = flip_every(&disk, &file, 0..7 * BLOCK);
        assert!(refused > 4000, "most bytes matter: {refused}");
    }
}

#[test]
fn bit_flip_anywhere_in_many_segments_is_reported_or_harmless() {
    let disk = large();
    let files = segments(&disk);
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        let bytes = disk.content(&file).unwrap().len();
        assert!(flip_every(&disk, &file, (0..bytes).step_by(173)) > 0);
    }
}

#[test]
fn bit_flip_in_the_identity_is_reported() {
    let disk = small(true);
    let file = Path::new(DIR).join("identity");
    let bytes = disk.content(&file).unwrap().len();
    for bit in 0..8 * bytes {
        let copy = disk.copy();
        copy.flip_bit(&file, bit / 8, u8::try_from(bit % 8).unwrap());
        let error = open(&copy).map(|_| ()).unwrap_err();
        let named = matches!(
            error,
            OpenError::IdentityDamaged { .. } | OpenError::NewerFormat { .. } | OpenError::OlderFormat { .. }
        );
        assert!(named, "bit {bit}: {error}");
    }
}

#[test]
fn damaged_snapshot_is_replaced_by_the_older_one_and_the_log() {
    let disk = large();
    let snapshots: Vec<PathBuf> =
        disk.files().into_iter().filter(|f| f.extension().is_some_and(|e| e == "snap")).collect();
    let [older, newest] = &snapshots[..] else { panic!("{snapshots:?}") };
    let expected = open(&disk.copy()).unwrap().1;
    let bytes = disk.content(newest).unwrap().len();
    let mut replaced = 0;
    for byte in (0..bytes).step_by(37) {
        let copy = disk.copy();
        copy.flip_bit(newest, byte, 3);
        let (_storage, opened) = open(&copy).unwrap();
        let noted = opened.notes.iter().any(|note| matches!(note, RecoveryNote::OlderSnapshot { .. }));
        if noted {
            replaced += 1;
            assert!(
                opened.restored.snapshot.as_ref().unwrap().last
                    < expected.restored.snapshot.as_ref().unwrap().last
            );
            assert_eq!(opened.store.state_hash(), store(15).state_hash());
        }
        assert_eq!(information(&opened).2, information(&expected).2);
    }
    assert!(replaced > bytes / 37 / 2, "{replaced}");
    let copy = disk.copy();
    copy.flip_bit(newest, bytes / 2, 0);
    copy.flip_bit(older, bytes / 2, 0);
    let error = open(&copy).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == *newest), "{error}");
}

#[test]
fn snapshot_that_is_gone_is_damage_when_the_log_does_not_reach_back() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    let (meta, mut chunks) = crate::storage::tests::kit::incoming(50, 1, &store(20), 4000);
    chunks.last_mut().unwrap().truncate_from = Some(crate::raft::LogIndex::new(1));
    for chunk in chunks {
        write(&mut storage, vec![chunk]).unwrap();
    }
    let file = storage.snapshot_files().path(meta.last);
    storage.close().unwrap();
    let content = disk.content(&file).unwrap();
    disk.overwrite(&file, content[..content.len() - 1].to_vec());
    let error = open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == file), "{error}");
}

/// What a change to the last batches of a log has to lead to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Torn,
    Damaged,
}

/// Zeroes, or overwrites, a sector. Negative: counted in blocks from the end of what is used.
fn put(disk: &MemoryDisk, file: &Path, at: usize, fill: u8) {
    let mut bytes = disk.content(file).unwrap();
    bytes[at..at + SECTOR].fill(fill);
    disk.overwrite(file, bytes);
}

/// The log of `small`: header, a batch at each of these offsets (the third and the witness last).
const HEADER: usize = 0;
const FIRST: usize = 2 * BLOCK;
const SECOND: usize = 3 * BLOCK;
const THIRD: usize = 5 * BLOCK;
const WITNESS: usize = 6 * BLOCK;

#[test]
fn torn_is_told_from_damaged() {
    use Verdict::{Damaged, Torn};
    type Change = fn(&MemoryDisk, &Path);
    let cases: [(&str, bool, Change, Verdict); 14] = [
        ("a sector of the last batch was never written", false, |d, f| put(d, f, THIRD + SECTOR, 0), Torn),
        ("its first sector was never written", false, |d, f| put(d, f, THIRD, 0), Torn),
        ("its last sector was never written", false, |d, f| put(d, f, THIRD + 7 * SECTOR, 0), Torn),
        (
            "the same, but a witness says that it was durable",
            true,
            |d, f| put(d, f, THIRD + SECTOR, 0),
            Damaged,
        ),
        ("its first sector, and a witness", true, |d, f| put(d, f, THIRD, 0), Damaged),
        ("a sector of it holds garbage", false, |d, f| put(d, f, THIRD + SECTOR, 0xaa), Damaged),
        ("its first sector holds garbage", false, |d, f| put(d, f, THIRD, 0xaa), Damaged),
        (
            "every sector was written, one with other content",
            false,
            |d, f| {
                d.flip_bit(f, THIRD + 100, 0);
            },
            Damaged,
        ),
        ("an earlier batch misses a sector", false, |d, f| put(d, f, SECOND + 3 * SECTOR, 0), Damaged),
        ("an earlier batch misses its first sector", false, |d, f| put(d, f, SECOND, 0), Damaged),
        (
            "the first batch, which was durable when the file got its name",
            false,
            |d, f| put(d, f, FIRST, 0),
            Damaged,
        ),
        ("the header", false, |d, f| put(d, f, HEADER, 0), Damaged),
        (
            "the last batch stands where it does not belong",
            false,
            |d, f| {
                let mut bytes = d.content(f).unwrap();
                bytes.copy_within(THIRD..THIRD + BLOCK, WITNESS);
                bytes[THIRD..WITNESS].fill(0);
                d.overwrite(f, bytes);
            },
            Damaged,
        ),
        (
            "the file is shorter than it was made",
            false,
            |d, f| {
                let bytes = d.content(f).unwrap();
                d.overwrite(f, bytes[..WITNESS + BLOCK].to_vec());
            },
            Damaged,
        ),
    ];
    for (what, witnessed, change, expected) in cases {
        let disk = small(witnessed);
        let file = segments(&disk).pop().unwrap();
        change(&disk, &file);
        let found = match open(&disk) {
            Ok((_storage, opened)) => {
                assert_eq!(indices(&opened.restored), (1..=11).collect::<Vec<_>>(), "{what}");
                assert!(
                    opened.notes.iter().any(|note| matches!(note, RecoveryNote::TornTail { .. })),
                    "{what}"
                );
                Torn
            }
            Err(OpenError::Damaged(damage)) => {
                assert_eq!(damage.file, file, "{what}");
                Damaged
            }
            Err(error) => panic!("{what}: {error}"),
        };
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn damage_names_file_offset_indices_and_remedy() {
    let disk = small(true);
    let file = segments(&disk).pop().unwrap();
    disk.flip_bit(&file, SECOND + 600, 0);
    let Err(OpenError::Damaged(damage)) = open(&disk) else { panic!("it opened") };
    let Damage { offset, first_index, last_index, .. } = &*damage;
    assert_eq!((*offset, *first_index, *last_index), (SECOND as u64, Some(10), Some(11)));
    let text = damage.to_string();
    for part in [
        &file.display().to_string()[..],
        "byte 12288",
        "10 to 11",
        "repairs itself from the others",
        "wal repair",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn torn_batch_is_damage_when_a_later_segment_exists() {
    let disk = large();
    let files = segments(&disk);
    let [.., before_last, _] = &files[..] else { panic!("{files:?}") };
    let bytes = disk.content(before_last).unwrap();
    let used = bytes.rchunks(BLOCK).position(|block| block.iter().any(|byte| *byte != 0)).unwrap();
    put(&disk, before_last, bytes.len() - (used + 1) * BLOCK, 0);
    let error = open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == *before_last), "{error}");
}

#[test]
fn missing_segment_is_damage_unless_a_snapshot_covers_it() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    for index in 2..100 {
        write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
    }
    storage.close().unwrap();
    disk.crash(|_| true);
    let files = segments(&disk);
    for missing in &files {
        let copy = MemoryDisk::new();
        for file in disk.files().iter().filter(|file| *file != missing) {
            crate::storage::Disk::create_dir_all(&copy, file.parent().unwrap()).unwrap();
            copy.overwrite(file, disk.content(file).unwrap());
        }
        let error = open(&copy).map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged(_)), "{missing:?}: {error}");
    }
}

#[test]
fn segment_of_another_node_is_damage() {
    let disk = small(true);
    let other = MemoryDisk::new();
    let strange = crate::storage::Bootstrap {
        store: crate::raft::StoreId(99),
        ..crate::storage::tests::kit::bootstrap()
    };
    drop(
        crate::storage::Storage::open(other.clone(), crate::storage::tests::kit::options(), &strange)
            .unwrap(),
    );
    let file = segments(&disk).pop().unwrap();
    disk.overwrite(&file, other.content(&file).unwrap());
    assert!(matches!(open(&disk), Err(OpenError::Damaged(_))));
}

#[test]
fn failed_start_leaves_everything_as_it_was_and_a_later_one_recovers() {
    let disk = small(false);
    let changes = disk.changes();
    let (storage, opened) = open(&disk).unwrap();
    let expected = information(&opened);
    drop(storage);
    let needed = disk.changes() - changes;
    for kind in
        [FaultKind::Write, FaultKind::SyncData, FaultKind::SyncDir, FaultKind::Rename, FaultKind::Create]
    {
        for after in 0..needed {
            let disk = small(false);
            disk.fail(kind, &wal_dir().to_string_lossy(), after, std::io::ErrorKind::Other);
            let failed = open(&disk).is_err();
            disk.crash(|question| question % 2 == 0);
            assert_eq!(
                information(&open(&disk).unwrap().1),
                expected,
                "{kind:?} after {after}, failed: {failed}"
            );
        }
    }
}

#[test]
fn batch_that_a_start_has_rewritten_cannot_be_torn() {
    let disk = small(false);
    drop(open(&disk).unwrap());
    let file = segments(&disk).pop().unwrap();
    put(&disk, &file, THIRD + SECTOR, 0);
    let error = open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_now_is_not_taken_for_damaged() {
    let disk = large();
    for kind in [
        ErrorKind::PermissionDenied,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::TimedOut,
        ErrorKind::StaleNetworkFileHandle,
        ErrorKind::OutOfMemory,
    ] {
        let data = |path: &PathBuf| {
            path.starts_with(DIR) && path.extension().is_some_and(|end| end == "seg" || end == "snap")
        };
        let files = disk.files().into_iter().filter(data).chain([Path::new(DIR).join("identity")]);
        // The older snapshot is not read.
        for file in files.filter(|file| !file.to_string_lossy().ends_with("50-1.snap")) {
            let copy = disk.copy();
            // Even beside damage.
            for damaged in [None, segments(&disk).first()] {
                if let Some(damaged) = damaged {
                    copy.flip_bit(damaged, 100, 1);
                }
                copy.fail(FaultKind::Read, &file.to_string_lossy(), 0, kind);
                let Err(error) = open(&copy) else { panic!("{} is read", file.display()) };
                let survey = Survey::of(copy.clone(), options(), "node1", &error);
                assert!(!matches!(survey, Ok(Some(_))), "{}: {error}", file.display());
                copy.clear_faults();
            }
        }
    }
}
