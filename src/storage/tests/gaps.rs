//! Segments that are missing in the middle of a log, where a snapshot covers them.

use crate::storage::tests::kit::{DIR, entries, open, segments, snapshot, store, write};
use crate::storage::{Disk, MemoryDisk, Opened, RecoveryNote};
use std::path::{Path, PathBuf};

/// Entries up to 91 in several segments, and snapshots at these indices. Also the disk as it was
/// before the newest one.
fn log_with(at: &[u64]) -> (MemoryDisk, MemoryDisk) {
    let disk = MemoryDisk::new();
    let mut before = disk.copy();
    let (mut storage, _) = open(&disk).unwrap();
    for round in 0..3u64 {
        for index in round * 30 + 2..round * 30 + 32 {
            write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
        }
        let index = round * 30 + 20;
        if at.contains(&index) {
            before = disk.copy();
            snapshot(&mut storage, index, 1, &store(round * 10 + 5)).unwrap();
        }
    }
    storage.close().unwrap();
    disk.crash(|_| true);
    (disk, before)
}

/// What the start says of a gap: the entries that are missing, and how many segments before.
fn told(opened: &Opened) -> Option<(Option<u64>, usize)> {
    let of_gap = |note: &RecoveryNote| match note {
        RecoveryNote::Gap { gap, before, .. } => Some((gap.first_index, *before)),
        _ => None,
    };
    opened.notes.iter().find_map(of_gap)
}

/// Files that were damaged, and are kept.
fn kept(disk: &MemoryDisk) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join("damaged");
    disk.files().into_iter().filter(|file| file.starts_with(&dir)).collect()
}

#[test]
fn a_segment_that_is_lost_behind_the_older_snapshot_is_told_and_those_before_it_are_kept() {
    for at in [&[20, 50, 80][..], &[80]] {
        let (disk, _) = log_with(at);
        let files = segments(&disk);
        let mut covered = 0;
        for gone in 1..files.len() - 1 {
            let copy = disk.copy();
            copy.remove(&files[gone]).unwrap();
            let Ok((storage, opened)) = open(&copy) else { continue };
            covered += 1;
            let what = format!("{} of {} is gone", gone, files.len());
            let (first, before) = told(&opened).unwrap_or_else(|| panic!("{what}: nobody is told"));
            assert!(first.is_some() && before == gone, "{what}: {first:?}, {before}");
            let kept = kept(&copy);
            let content = |disk: &MemoryDisk, file: &PathBuf| disk.content(file).unwrap();
            let sound: Vec<Vec<u8>> = files[..gone].iter().map(|file| content(&disk, file)).collect();
            let moved: Vec<Vec<u8>> = kept.iter().map(|file| content(&copy, file)).collect();
            assert!(moved == sound, "{what}: {kept:?}");
            assert_eq!(opened.restored.entries.last().unwrap().index().get(), 91, "{what}");
            storage.close().unwrap();
            assert_eq!(told(&open(&copy).unwrap().1), None, "{what}: it is told once");
        }
        assert!(covered > 0 && covered < files.len() - 2, "{covered} of {}", files.len());
    }
}

#[test]
fn a_removal_that_a_crash_undid_is_no_loss() {
    let (disk, before) = log_with(&[20, 50, 80]);
    let there = segments(&disk);
    let removed: Vec<PathBuf> = segments(&before).into_iter().filter(|file| !there.contains(file)).collect();
    assert!(removed.len() > 1);
    disk.overwrite(&removed[0], before.content(&removed[0]).unwrap());
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!(told(&opened), None);
    assert_eq!(kept(&disk), [""; 0].map(PathBuf::from));
    assert!(disk.content(&removed[0]).is_none(), "it is of no use");
}
