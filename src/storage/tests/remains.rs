//! What a person can do with the directory of a stopped node: look at it, give up what is lost, go
//! on without the others.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::raft::{ClusterId, LogIndex, LogRecords, Member, NodeId, StoreId, Withdrawal, bootstrap_log};
use crate::replica::StorageRequest;
use crate::storage::repair::{note_peers, note_predecessor, note_rebuild, note_withdrawn, read_predecessor};
use crate::storage::tests::kit::{
    DIR, bootstrap, entries, indices, open, options, segments, snapshot, store, vote, write,
};
use crate::storage::{
    Bootstrap, Disk, DumpItem, FaultKind, MemoryDisk, OpenError, Predecessor, Prognosis, Remains, Storage,
    StorageOptions, Survey, dump, judge, read_rebuild, read_withdrawn,
};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A node whose log says that it is the only member, with entries up to 91. Each has a batch, which
/// says that the last but one before it was committed.
pub(super) fn alone(snapshots: bool) -> MemoryDisk {
    let member = Member {
        name: "node1".into(),
        raft_addr: "a:1".into(),
        http_addr: "a:2".into(),
        store_id: StoreId(11),
    };
    let bootstrap = Bootstrap { initial: bootstrap_log([member]).unwrap(), ..bootstrap() };
    let disk = MemoryDisk::new();
    let (mut storage, _) = Storage::open(disk.clone(), options(), &bootstrap).unwrap();
    for round in 0..3u64 {
        for index in round * 30 + 2..round * 30 + 32 {
            let committed = StorageRequest::Committed(LogIndex::new(index - 2));
            storage.handle(&mut vec![committed], &mut Vec::new()).unwrap();
            write(&mut storage, vec![entries(index, index, 1, 3000)]).unwrap();
        }
        if snapshots {
            snapshot(&mut storage, round * 30 + 20, 1, &store(round * 10 + 5)).unwrap();
        }
    }
    storage.close().unwrap();
    disk.crash(|_| true);
    disk
}

fn content(disk: &MemoryDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    disk.files().into_iter().map(|file| (file.clone(), disk.content(&file))).collect()
}

/// Whether a node starts on it.
pub(super) fn starts(disk: &MemoryDisk) -> bool {
    read_rebuild(disk, Path::new(DIR)).unwrap().is_none() && open(disk).is_ok()
}

#[test]
fn the_verdict_on_a_directory_is_that_of_a_start() {
    let disk = alone(true);
    let mut damaged = 0;
    for file in disk.files() {
        let copy = disk.copy();
        copy.remove(&file).unwrap();
        let before = content(&copy);
        let verdict = judge(&copy, Path::new(DIR));
        assert_eq!(content(&copy), before, "it changes nothing");
        damaged += usize::from(verdict.is_err());
        assert_eq!(verdict.is_ok(), starts(&copy), "without {}: {verdict:?}", file.display());
    }
    assert!(damaged >= 3, "{damaged}");
    let all = |end: &str| {
        let copy = disk.copy();
        let gone = copy.files().into_iter().filter(|file| file.extension().is_some_and(|is| is == end));
        gone.for_each(|file| copy.remove(&file).unwrap());
        copy
    };
    let condemned = disk.copy();
    note_rebuild(&condemned, Path::new(DIR), "its state differs").unwrap();
    for copy in [all("snap"), all("seg"), condemned] {
        judge(&copy, Path::new(DIR)).unwrap_err();
        assert!(!starts(&copy));
    }
    // Where no node is, nothing is sound.
    for empty in [MemoryDisk::new(), {
        let disk = MemoryDisk::new();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        disk
    }] {
        let error = Survey::inspect(empty, options()).unwrap_err();
        assert!(error.to_string().contains("holds no node's data"), "{error}");
    }
}

#[test]
fn looking_at_what_a_member_has_changes_nothing() {
    for damage in [false, true] {
        let disk = alone(true);
        if damage {
            disk.flip_bit(&segments(&disk)[1], 100, 1);
        }
        let before = content(&disk);
        let remains = Remains::of(disk.clone(), options()).unwrap();
        assert_eq!(remains.warnings().is_empty(), !damage);
        drop(remains);
        assert_eq!(content(&disk), before);
    }
}

#[test]
fn a_damaged_survivor_goes_on_with_what_is_whole_if_a_person_says_so() {
    let disk = alone(false);
    let file = segments(&disk).remove(1);
    disk.flip_bit(&file, 30_000, 1);
    assert!(open(&disk).is_err());
    let remains = Remains::of(disk.clone(), options()).unwrap();
    let (kept, warnings) = (remains.last().index.get(), remains.warnings().join("; "));
    assert!(kept > 5 && kept < 60 && warnings.contains("LOST"), "{kept}: {warnings}");
    remains.recover(ClusterId(40), StoreId(41)).unwrap();
    let (_storage, opened) = open(&disk).unwrap();
    assert_eq!((opened.identity.cluster, opened.identity.store), (ClusterId(40), StoreId(41)));
    assert_eq!(opened.restored.snapshot.unwrap().last.index.get(), kept);
}

/// A batch of a log.
pub(super) struct Placed {
    pub(super) file: PathBuf,
    pub(super) offset: usize,
    /// The index of its first entry, if it has one.
    pub(super) first: Option<u64>,
}

/// All batches.
pub(super) fn batches(disk: &MemoryDisk) -> Vec<Placed> {
    let (mut batches, mut file): (Vec<Placed>, _) = (Vec::new(), PathBuf::new());
    for item in dump(disk, Path::new(DIR)) {
        match item {
            DumpItem::Segment { file: begins, .. } => file = begins,
            DumpItem::Batch { offset, .. } => {
                let offset = usize::try_from(offset).unwrap();
                batches.push(Placed { file: file.clone(), offset, first: None });
            }
            DumpItem::Record(record) => {
                let index = record.strip_prefix("entry ").and_then(|text| text.split('@').next());
                if let (Some(index), Some(batch)) = (index, batches.last_mut()) {
                    batch.first.get_or_insert(index.parse().unwrap());
                }
            }
            _ => {}
        }
    }
    batches
}

/// The last entry that is kept, and up to where it is known to be committed.
pub(super) fn kept(disk: &MemoryDisk) -> (u64, u64) {
    let remains = Remains::of(disk.clone(), options()).unwrap();
    (remains.last().index.get(), remains.commit().get())
}

#[test]
fn what_comes_before_a_damaged_batch_is_kept_to_its_last_entry() {
    for (snapshots, covered) in [(false, 1), (true, 80)] {
        let disk = alone(snapshots);
        let placed = batches(&disk);
        assert!(placed.iter().filter(|batch| batch.first.is_some()).count() > 40);
        assert!(placed.iter().any(|batch| batch.first.is_none()));
        // A bit of its header, and one of its records.
        for (batch, byte) in placed.iter().flat_map(|batch| [(batch, 20), (batch, 600)]) {
            if batch.first == Some(1) {
                continue;
            }
            let what = format!("byte {byte} of the batch of {:?}, snapshots: {snapshots}", batch.first);
            let copy = disk.copy();
            copy.flip_bit(&batch.file, batch.offset + byte, 1);
            // Without an entry in it, nothing is lost.
            let lost = batch.first.filter(|first| *first > covered);
            let (last, commit) = kept(&copy);
            assert_eq!(last, lost.map_or(91, |first| first - 1), "{what}");
            // Where the header is lost, nobody knows whether the last entries were committed. They
            // are not certain where there are others to ask.
            let Some(before) = lost.filter(|first| byte == 20 && first - 1 > covered) else { continue };
            assert!(commit < last, "{what}");
            let survey = Survey::inspect(copy, options()).unwrap().unwrap();
            let Prognosis::Mendable(mended) = survey.prognosis() else { panic!("{what}") };
            for sound in [*mended, survey.lendable().unwrap()] {
                assert!(sound.entry(LogIndex::new(before - 1)).is_none(), "{what}");
                assert_eq!(sound.end().index.get(), 91, "{what}");
            }
        }
    }
}

#[test]
fn what_comes_before_a_damaged_segment_is_kept_to_its_last_entry() {
    for (snapshots, covered) in [(false, 1), (true, 80)] {
        let disk = alone(snapshots);
        let placed = batches(&disk);
        for file in segments(&disk).into_iter().skip(usize::from(!snapshots)) {
            let within = placed.iter().filter(|batch| batch.file == file).filter_map(|batch| batch.first);
            let lost = within.clone().max().filter(|last| *last > covered).and_then(|_| within.min());
            let copy = disk.copy();
            copy.flip_bit(&file, 40, 1);
            let expected = lost.map_or(91, |first| covered.max(first - 1));
            assert_eq!(kept(&copy).0, expected, "{}, snapshots: {snapshots}", file.display());
        }
    }
}

#[test]
fn what_a_later_batch_shows_to_have_been_truncated_is_not_kept() {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    let votes = |term| LogRecords { hard_state: Some(vote(term, None)), ..LogRecords::default() };
    let truncated = LogRecords { truncate_from: Some(LogIndex::new(6)), ..LogRecords::default() };
    for records in [entries(2, 9, 1, 10), votes(3), truncated, entries(6, 9, 3, 10), entries(10, 12, 3, 10)] {
        write(&mut storage, vec![records]).unwrap();
    }
    storage.close().unwrap();
    let placed = batches(&disk);
    let lost = |numbers: &[usize]| {
        let copy = disk.copy();
        numbers.iter().for_each(|number| {
            copy.flip_bit(&placed[*number].file, placed[*number].offset + 20, 1);
        });
        copy.crash(|_| true);
        let survey = Survey::inspect(copy, options()).unwrap().unwrap();
        let (sound, lost) = survey.accept_loss().unwrap();
        (sound.end().index.get(), sound.end().term.get(), lost.index.get())
    };
    // The vote, and the entries that took the place of the old ones.
    assert_eq!(lost(&[2, 4]), (5, 1, 12));
    // Nothing says that the log was truncated in between.
    assert_eq!(lost(&[2, 3, 4]), (9, 1, 12));
    // The new entries are there, and their term is another.
    assert_eq!(lost(&[2]), (5, 1, 12));
}

#[test]
fn a_recovery_leaves_nothing_that_keeps_the_new_cluster_out() {
    let dir = Path::new(DIR);
    let disk = alone(true);
    let why = crate::raft::Withdrawal::Diverged { index: crate::raft::LogIndex::new(9) };
    note_rebuild(&disk, dir, "its state differs").unwrap();
    note_withdrawn(&disk, dir, &why).unwrap();
    note_peers(&disk, dir, ClusterId(5), &["b:1".to_owned()]).unwrap();
    let remains = Remains::of(disk.clone(), options()).unwrap();
    let warnings = remains.warnings().join("; ");
    assert!(warnings.contains("its state differs") && warnings.contains(&why.to_string()), "{warnings}");
    remains.recover(ClusterId(40), StoreId(41)).unwrap();
    assert!(starts(&disk));
    assert_eq!(read_withdrawn(&disk, dir).unwrap(), None);
    let predecessor = Predecessor { cluster: ClusterId(5), peers: vec!["b:1".to_owned()] };
    assert_eq!(read_predecessor(&disk, dir), Some(predecessor.clone()));
    // Done once more, it is a recovery of the same cluster.
    Remains::of(disk.clone(), options()).unwrap().recover(ClusterId(42), StoreId(43)).unwrap();
    assert_eq!(read_predecessor(&disk, dir), Some(predecessor));
    let survey = Survey::of(
        disk.clone(),
        options(),
        "node1",
        &OpenError::LogMissing { dir: dir.to_path_buf(), wal: dir.to_path_buf() },
    );
    assert_eq!(survey.unwrap().unwrap().peers(), [""; 0], "it asks nobody of the old cluster");
}

#[test]
fn a_damaged_identity_costs_a_node_alone_nothing() {
    for snapshots in [false, true] {
        let disk = alone(snapshots);
        let identity = Path::new(DIR).join("identity");
        let (whole, bytes) = (open(&disk.copy()).unwrap().1, disk.content(&identity).unwrap().len());
        for byte in 0..=bytes {
            let copy = disk.copy();
            if !copy.flip_bit(&identity, byte, u8::try_from(byte % 8).unwrap()) {
                copy.remove(&identity).unwrap();
            }
            assert!(open(&copy.copy()).is_err(), "byte {byte}");
            let Some(survey) = Survey::inspect(copy.clone(), options()).unwrap() else { panic!("{byte}") };
            assert_eq!(survey.peers(), [""; 0], "byte {byte}");
            let (sound, lost) = survey.accept_loss().unwrap();
            assert_eq!(sound.end(), lost, "nothing is lost");
            survey.begin_mending().unwrap();
            survey.mend(&sound).unwrap();
            let (_storage, opened) = open(&copy).unwrap();
            assert_eq!(opened.identity.member, whole.identity.member);
            assert_eq!(opened.store.state_hash(), whole.store.state_hash());
            let last = |found: &crate::storage::Opened| indices(&found.restored).last().copied();
            assert_eq!(last(&opened), last(&whole), "byte {byte}");
        }
    }
}

#[test]
fn files_that_do_not_agree_make_no_identity() {
    let disk = alone(false);
    disk.remove(&Path::new(DIR).join("identity")).unwrap();
    let log = segments(&disk).remove(0);
    let stranger = Path::new(DIR).join("wal-2");
    disk.create_dir_all(&stranger).unwrap();
    disk.overwrite(&stranger.join(log.file_name().unwrap()), disk.content(&log).unwrap());
    let survey = Survey::inspect(disk, options()).unwrap().unwrap();
    assert!(survey.accept_loss().is_none());
    assert_eq!(survey.cluster(), Some(ClusterId(5)));
    let other = MemoryDisk::new();
    other.create_dir_all(Path::new(DIR)).unwrap();
    let predecessor = Predecessor { cluster: ClusterId(9), peers: Vec::new() };
    note_predecessor(&other, Path::new(DIR), &predecessor).unwrap();
    assert_eq!(read_predecessor(&other, Path::new(DIR)), Some(predecessor));
}

/// What a person does with a directory that has lost its identity.
type GoOn = fn(&MemoryDisk) -> Result<(), OpenError>;

pub(super) fn repair(disk: &MemoryDisk) -> Result<(), OpenError> {
    let Some(survey) = Survey::inspect(disk.clone(), options())? else { return Ok(()) };
    let (sound, _) = survey.accept_loss().expect("something is left to start from");
    survey.begin_mending()?;
    survey.mend_with_loss(&sound).map(drop)
}

fn make_a_cluster_of_it(disk: &MemoryDisk) -> Result<(), OpenError> {
    Remains::of(disk.clone(), options())?.recover(ClusterId(40), StoreId(41)).map(drop)
}

#[test]
fn a_repair_or_a_recovery_without_an_identity_may_be_interrupted_anywhere() {
    let ways: [(GoOn, ClusterId); 2] = [(repair, ClusterId(5)), (make_a_cluster_of_it, ClusterId(40))];
    for (snapshots, damaged) in [(true, false), (false, true)] {
        let whole = alone(snapshots);
        whole.remove(&Path::new(DIR).join("identity")).unwrap();
        if damaged {
            whole.flip_bit(&segments(&whole)[1], 30_000, 1);
        }
        for (go_on, cluster) in ways {
            let kept = Remains::of(whole.copy(), options()).unwrap().last();
            let mut interrupted = 0;
            for changes in 0.. {
                let disk = whole.copy();
                disk.fail_power_after(changes);
                let done = go_on(&disk).is_ok();
                disk.crash(|question| question % 3 == changes % 3);
                let last = || Remains::of(disk.clone(), options()).map(|remains| remains.last());
                let left = last().unwrap_or_else(|error| panic!("after {changes} changes: {error}"));
                assert_eq!(left, kept, "after {changes} changes");
                if starts(&disk.copy()) {
                    // What a person has not finished is no node's.
                    let found = open(&disk.copy()).unwrap().1.identity;
                    assert_eq!((found.cluster, found.generation), (cluster, 2), "after {changes} changes");
                }
                go_on(&disk).unwrap_or_else(|error| panic!("after {changes} changes: {error}"));
                assert!(starts(&disk), "after {changes} changes");
                assert_eq!(last().unwrap(), kept, "after {changes} changes");
                assert_eq!(open(&disk).unwrap().1.identity.cluster, cluster);
                // Behind the damage there are sound segments, of which nothing else is left.
                for segment in segments(&whole).into_iter().filter(|_| damaged) {
                    let place = Path::new(DIR).join("lost-1/wal-1").join(segment.file_name().unwrap());
                    let is_kept = disk.content(&place) == whole.content(&segment);
                    assert!(is_kept, "{} after {changes} changes", place.display());
                }
                if done {
                    break;
                }
                interrupted += 1;
            }
            assert!(interrupted > 10, "{interrupted}");
        }
    }
}

/// Of a note that is on a bad sector it is known that it is there. The log is whole, so that
/// writing it anew would change nothing.
#[test]
fn a_note_that_the_disk_does_not_give_back_counts() {
    let disk = alone(false);
    let dir = Path::new(DIR);
    note_withdrawn(&disk, dir, &Withdrawal::OlderCopy { met_by: NodeId::new(2) }).unwrap();
    disk.fail(FaultKind::Read, "withdrawn", 0, ErrorKind::Other);
    assert!(matches!(read_withdrawn(&disk, dir), Err(OpenError::Condemned { .. })));
    disk.clear_faults();
    for name in ["rebuild", "setting-aside"] {
        disk.rename(&dir.join("withdrawn"), &dir.join(name)).unwrap();
        disk.fail(FaultKind::Read, name, 0, ErrorKind::Other);
        assert!(matches!(read_rebuild(&disk, dir), Ok(Some(_))), "{name}");
        disk.clear_faults();
        disk.rename(&dir.join(name), &dir.join("withdrawn")).unwrap();
    }
    disk.rename(&dir.join("withdrawn"), &dir.join("rebuild")).unwrap();
    disk.fail(FaultKind::Read, "rebuild", 0, ErrorKind::PermissionDenied);
    assert!(read_rebuild(&disk, dir).is_err(), "a person can help");
}

/// What a later release has written is no damage, whatever the notes say.
#[test]
fn an_older_release_repairs_nothing_of_a_later_one() {
    let disk = MemoryDisk::new();
    let member = Member {
        name: "node1".into(),
        raft_addr: String::new(),
        http_addr: String::new(),
        store_id: StoreId(11),
    };
    let mut initial = bootstrap_log([member]).unwrap();
    initial.raise_level(FeatureLevel::NEWEST);
    Storage::open(disk.clone(), options(), &Bootstrap { initial, ..bootstrap() }).unwrap().0.close().unwrap();
    let older = || StorageOptions { speaks: FeatureLevels::only(FeatureLevel::OLDEST), ..options() };
    let condemned = OpenError::Condemned { dir: PathBuf::from(DIR), why: "its state differed".into() };
    let found = Survey::of(disk.clone(), older(), "node1", &condemned);
    assert!(matches!(found, Err(OpenError::NewerFormat { .. })), "{found:?}");
    assert!(matches!(Survey::of(disk, options(), "node1", &condemned), Ok(Some(_))));
}
