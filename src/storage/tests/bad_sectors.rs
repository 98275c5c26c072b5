//! Blocks of a log that the disk does not give back.

use crate::raft::{ClusterId, StoreId};
use crate::storage::tests::kit::{bootstrap, entries, open, options, segments, store, write};
use crate::storage::tests::remains::{alone, batches, kept, repair, starts};
use crate::storage::tests::repair::{Fate, Fates, Model, count, large, mend, small};
use crate::storage::{MemoryDisk, Remains, Storage, StorageOptions, Survey};
use std::ops::Range;
use std::path::Path;

const BLOCK: usize = 4096;

/// A copy that does not give back these blocks of a file.
fn without(disk: &MemoryDisk, file: &Path, blocks: Range<usize>) -> MemoryDisk {
    let copy = disk.copy();
    copy.make_unreadable(file, (blocks.start * BLOCK) as u64..(blocks.end * BLOCK) as u64);
    copy
}

#[test]
fn blocks_that_cannot_be_read_cost_what_stands_in_them() {
    for witnessed in [true, false] {
        let disk = small(witnessed);
        let model = Model::of(&disk, None);
        let file = segments(&disk).remove(0);
        let bytes = disk.content(&file).unwrap();
        let blocks: Vec<&[u8]> = bytes.chunks(BLOCK).collect();
        let end = blocks.iter().rposition(|block| block.iter().any(|byte| *byte != 0)).unwrap() + 1;
        assert!(end + 4 < blocks.len());
        let mut fates = Fates::new();
        for bad in (0..blocks.len()).flat_map(|first| (1..4).map(move |length| first..first + length)) {
            let what = format!("blocks {bad:?} of {}, the log ends before {end}", blocks.len());
            let fate = mend(&without(&disk, &file, bad.clone()), &model, &what);
            count(&mut fates, fate);
            let is_right = if bad.start >= end + 2 {
                // A batch that had been durable would have begun two blocks before, at least.
                fate == Fate::MendedAlone
            } else if bad.start == 0 || bad.end >= end {
                fate == Fate::Replaced
            } else {
                matches!(fate, Fate::MendedAlone | Fate::MendedByPeer)
            };
            assert!(is_right, "{what}: {fate:?}");
        }
        println!("unreadable blocks, witnessed: {witnessed}: {fates:?}");
        assert!(fates.len() == 3 && !fates.contains_key(&Fate::Harmless), "{fates:?}");
    }
}

#[test]
fn a_block_of_many_segments_that_cannot_be_read_is_mended() {
    let disk = large();
    let model = Model::of(&disk, Some((80, store(25))));
    let mut fates = Fates::new();
    for file in segments(&disk) {
        for block in 0..disk.content(&file).unwrap().len() / BLOCK {
            let what = format!("block {block} of {}", file.display());
            count(&mut fates, mend(&without(&disk, &file, block..block + 1), &model, &what));
        }
    }
    println!("unreadable blocks of many segments: {fates:?}");
    let (alone, by_peer) = (fates[&Fate::MendedAlone], fates[&Fate::MendedByPeer]);
    assert!(alone > 0 && by_peer > 0 && fates[&Fate::Replaced] < alone, "{fates:?}");
}

#[test]
fn what_comes_before_a_block_that_cannot_be_read_is_kept() {
    let disk = alone(false);
    let placed = batches(&disk);
    let mut fill = 0;
    for file in segments(&disk) {
        for block in 0..disk.content(&file).unwrap().len() / BLOCK {
            let within = placed.iter().filter(|batch| batch.file == file);
            let first = if block == 0 {
                within.filter_map(|batch| batch.first).min()
            } else {
                let stands_here = |offset| offset == block * BLOCK;
                fill += usize::from(!within.clone().any(|batch| stands_here(batch.offset)));
                within.filter(|batch| stands_here(batch.offset)).find_map(|batch| batch.first)
            };
            if first == Some(1) {
                continue;
            }
            let copy = without(&disk, &file, block..block + 1);
            let what = format!("block {block} of {}", file.display());
            let last = kept(&copy).0;
            assert_eq!(last, first.map_or(91, |first| first - 1), "{what}");
            let recovered = copy.copy();
            recovered.make_unreadable(&file, (block * BLOCK) as u64..((block + 1) * BLOCK) as u64);
            Remains::of(recovered.clone(), options()).unwrap().recover(ClusterId(40), StoreId(41)).unwrap();
            assert!(starts(&recovered), "{what}");
            repair(&copy).unwrap();
            assert!(starts(&copy), "{what}");
            assert_eq!(kept(&copy).0, last, "{what}");
        }
    }
    assert!(fill > 3, "{fill}");
}

#[test]
fn a_node_alone_starts_once_it_has_left_a_bad_sector_in_the_fill() {
    let disk = alone(false);
    let file = segments(&disk).pop().unwrap();
    let last = disk.content(&file).unwrap().len() / BLOCK - 1;
    let disk = without(&disk, &file, last..last + 1);
    let error = open(&disk).map(|_| ()).unwrap_err();
    let survey = Survey::of(disk.clone(), options(), "node1", &error).unwrap().unwrap();
    let damages = survey.damages().join("; ");
    assert!(damages.contains("4096 bytes cannot be read"), "{damages}");
    assert!(damages.contains("nothing of the log stood there"), "{damages}");
    let (sound, lost) = survey.accept_loss().unwrap();
    assert_eq!(sound.end(), lost);
    survey.begin_mending().unwrap();
    survey.mend(&sound).unwrap();
    assert!(starts(&disk));
    assert_eq!(kept(&disk).0, 91);
}

#[test]
fn a_file_with_many_bad_sectors_is_not_read_to_its_end() {
    let disk = MemoryDisk::new();
    let options = StorageOptions { segment_bytes: 1 << 20, ..options() };
    let (mut storage, _) = Storage::open(disk.clone(), options.clone(), &bootstrap()).unwrap();
    write(&mut storage, vec![entries(2, 9, 1, 10)]).unwrap();
    storage.close().unwrap();
    disk.crash(|_| true);
    let file = segments(&disk).remove(0);
    let length = disk.content(&file).unwrap().len();
    for (bad, unreadable) in [(63, 63 * BLOCK), (64, length - 100 * BLOCK)] {
        let disk = without(&disk, &file, 100..100 + bad);
        let survey = Survey::inspect(disk, options.clone()).unwrap().unwrap();
        let text = format!("is damaged at byte {}: {unreadable} bytes cannot be read", 100 * BLOCK);
        let damages = survey.damages().join("; ");
        assert!(damages.contains(&text), "{text}: {damages}");
        assert_eq!(survey.accept_loss().unwrap().0.end().index.get(), 9);
    }
}
