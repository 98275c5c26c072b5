//! Damage that peers mend: what was acknowledged comes back exactly, or the node says that it
//! cannot go on as the member that it was.

use crate::kv::Store;
use crate::raft::{ClusterId, Entry, HardState, LogId, LogIndex, LogRecords, SnapshotMeta, Term};
use crate::storage::repair::run::Rest;
use crate::storage::repair::{free_aside, note_rebuild, times_rebuilt};
use crate::storage::tests::kit::{
    DIR, entries, incoming, open, options, segments, snapshot, store, vote, write,
};
use crate::storage::{Disk, MemoryDisk, OpenError, Prognosis, Sound, SupplyError, Survey, read_rebuild};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;

/// What a sound directory says, and what a peer with the same log can give.
pub(super) struct Model {
    hard_state: HardState,
    ids: BTreeMap<u64, LogId>,
    end: u64,
    hash: u128,
    entries: Vec<Entry>,
    snapshot: Option<(u64, Store)>,
}

impl Model {
    pub(super) fn of(disk: &MemoryDisk, snapshot: Option<(u64, Store)>) -> Self {
        let (_, opened) = open(&disk.copy()).unwrap();
        let entries = opened.restored.entries;
        let ids = entries.iter().map(|entry| (entry.index().get(), entry.id())).collect();
        let end = entries.last().unwrap().index().get();
        let (hard_state, hash) = (opened.restored.hard_state, opened.store.state_hash());
        Self { hard_state, ids, end, hash, entries, snapshot }
    }

    /// The entries that a peer's log has: `None` if it lacks the anchor, or has let the first go.
    fn range(&self, after: LogIndex, through: LogIndex, anchor: LogId) -> Option<Vec<Entry>> {
        if self.ids.get(&anchor.index.get()) != Some(&anchor) || !self.ids.contains_key(&(after.get() + 1)) {
            return None;
        }
        let wanted = |entry: &&Entry| entry.index() > after && entry.index() <= through;
        // A few at a time.
        Some(self.entries.iter().filter(wanted).take(3).cloned().collect())
    }

    fn check(&self, disk: &MemoryDisk, what: &str) {
        let (_, opened) = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        let restored = opened.restored;
        assert_eq!(restored.hard_state, self.hard_state, "{what}");
        let covered = restored.snapshot.as_ref().map_or(0, |meta| meta.last.index.get());
        let mut next = restored.entries.first().map_or(covered + 1, |entry| entry.index().get());
        assert!(next <= covered + 1, "{what}: from {next} on, upon {covered}");
        for entry in &restored.entries {
            assert_eq!(entry.index().get(), next, "{what}");
            assert!(self.ids.get(&next).is_none_or(|id| *id == entry.id()), "{what}: {entry:?}");
            next += 1;
        }
        assert_eq!(next - 1, self.end, "{what}: the log ends elsewhere");
        assert!(restored.commit.get() <= self.end, "{what}");
        if self.snapshot.as_ref().is_none_or(|(index, _)| *index == covered) {
            assert_eq!(opened.store.state_hash(), self.hash, "{what}");
        }
    }
}

/// What became of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It was none, or recovery sees through it.
    Harmless,
    /// The directory itself had everything.
    MendedAlone,
    /// A peer gave what was missing.
    MendedByPeer,
    /// The node cannot go on as this member, and says so.
    Replaced,
    /// Reported, and no damage that another member can mend.
    Reported,
}

/// Opens a damaged copy, and has it mended by a peer.
pub(super) fn mend(disk: &MemoryDisk, model: &Model, what: &str) -> Fate {
    let error = match open(disk) {
        Ok(opened) => {
            drop(opened);
            model.check(disk, what);
            return Fate::Harmless;
        }
        Err(error) => error,
    };
    let Some(survey) = Survey::of(disk.clone(), options(), "node1", &error).unwrap() else {
        return Fate::Reported;
    };
    assert!(!survey.damages().is_empty(), "{what}");
    let Prognosis::Mendable(mut sound) = survey.prognosis() else { return Fate::Replaced };
    survey.begin_mending().unwrap();
    let mut fate = Fate::MendedAlone;
    while let Some(missing) = sound.missing() {
        fate = Fate::MendedByPeer;
        if let Some(entries) = model.range(missing.after, missing.through, missing.anchor) {
            sound.supply(&missing, entries).unwrap_or_else(|error| panic!("{what}: {error}"));
            continue;
        }
        let (index, store) = model.snapshot.as_ref().unwrap_or_else(|| panic!("{what}: {missing:?}"));
        let (_, chunks) = incoming(*index, 1, store, 3000);
        let mut receiving = survey.incoming_snapshot();
        let mut meta = None;
        for chunk in chunks {
            meta = receiving.take(&chunk.snapshot_chunks[0]).unwrap();
        }
        sound.supply_base(meta.unwrap(), None).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    survey.mend(&sound).unwrap();
    model.check(disk, what);
    // The mended directory is one like any other.
    model.check(disk, what);
    fate
}

pub(super) type Fates = BTreeMap<Fate, usize>;

pub(super) fn count(fates: &mut Fates, fate: Fate) {
    *fates.entry(fate).or_default() += 1;
}

/// A log of one segment: votes, a truncation, entries of two terms.
pub(super) fn small(witnessed: bool) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (mut storage, _) = open(&disk).unwrap();
    write(&mut storage, vec![entries(2, 9, 1, 100)]).unwrap();
    write(&mut storage, vec![LogRecords { hard_state: Some(vote(2, Some(1))), ..entries(10, 11, 2, 2500) }])
        .unwrap();
    let replaced = LogRecords { truncate_from: Some(LogIndex::new(9)), ..entries(9, 11, 3, 900) };
    write(&mut storage, vec![LogRecords { hard_state: Some(vote(3, None)), ..replaced }]).unwrap();
    write(&mut storage, vec![entries(12, 14, 3, 100)]).unwrap();
    if witnessed {
        storage.close().unwrap();
    }
    disk.crash(|_| true);
    disk
}

/// A log of several segments, with two snapshots; what comes before the older one is gone.
pub(super) fn large() -> MemoryDisk {
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

fn damage_every_place(disk: &MemoryDisk, model: &Model, step: usize, fates: &mut Fates) {
    for file in segments(disk) {
        let bytes = disk.content(&file).unwrap();
        for byte in (0..bytes.len()).step_by(step) {
            let copy = disk.copy();
            copy.flip_bit(&file, byte, u8::try_from(byte * 5 % 8).unwrap());
            count(fates, mend(&copy, model, &format!("a bit of byte {byte} of {}", file.display())));
        }
        for sector in (0..bytes.len()).step_by(SECTOR) {
            for fill in [0, 0xa5] {
                let mut damaged = bytes.clone();
                if fill == 0 && damaged[sector..sector + SECTOR].iter().all(|byte| *byte == 0) {
                    continue;
                }
                damaged[sector..sector + SECTOR].fill(fill);
                let copy = disk.copy();
                copy.overwrite(&file, damaged);
                let what = format!("the sector at {sector} of {} filled with {fill}", file.display());
                // A last batch without a witness that lacks a sector cannot be told from a torn
                // one.
                if fill == 0 && may_look_torn(&copy, disk) {
                    continue;
                }
                count(fates, mend(&copy, model, &what));
            }
        }
        for length in (0..bytes.len()).step_by(step.max(SECTOR)) {
            let copy = disk.copy();
            copy.overwrite(&file, bytes[..length].to_vec());
            count(fates, mend(&copy, model, &format!("{} cut at {length}", file.display())));
        }
    }
}

/// Whether a start would take the damage for a batch that was never acknowledged.
fn may_look_torn(damaged: &MemoryDisk, sound: &MemoryDisk) -> bool {
    let end = |disk: &MemoryDisk| {
        open(&disk.copy()).ok().map(|(_, opened)| opened.restored.entries.last().map(Entry::index))
    };
    end(damaged).is_some_and(|found| Some(found) != end(sound))
}

#[test]
fn every_damage_of_a_small_log_is_mended_or_reported() {
    for witnessed in [true, false] {
        let disk = small(witnessed);
        let mut fates = Fates::new();
        damage_every_place(&disk, &Model::of(&disk, None), 1, &mut fates);
        println!("one segment, witnessed: {witnessed}: {fates:?}");
        assert!(fates[&Fate::MendedByPeer] > 1000, "{fates:?}");
        assert!(fates[&Fate::MendedAlone] > 1000, "{fates:?}");
        assert!(!fates.contains_key(&Fate::Reported), "{fates:?}");
        assert!(fates[&Fate::Replaced] < fates[&Fate::MendedByPeer], "{fates:?}");
    }
}

#[test]
fn a_batch_that_was_written_a_block_too_far_is_not_taken_for_nothing() {
    const BLOCK: usize = 4096;
    let disk = small(false);
    let model = Model::of(&disk, None);
    let file = segments(&disk).remove(0);
    let mut bytes = disk.content(&file).unwrap();
    let last = bytes.chunks(BLOCK).rposition(|block| block.iter().any(|byte| *byte != 0)).unwrap();
    bytes.copy_within(last * BLOCK..(last + 1) * BLOCK, (last + 1) * BLOCK);
    bytes[last * BLOCK..(last + 1) * BLOCK].fill(0);
    disk.overwrite(&file, bytes);
    assert_eq!(mend(&disk, &model, "the last batch stands a block too far"), Fate::Replaced);
}

#[test]
fn damage_anywhere_in_many_segments_is_mended() {
    let disk = large();
    assert!(segments(&disk).len() > 2);
    let model = Model::of(&disk, Some((80, store(25))));
    let mut fates = Fates::new();
    damage_every_place(&disk, &model, 211, &mut fates);
    println!("many segments: {fates:?}");
    assert!(fates[&Fate::MendedAlone] > 0 && fates[&Fate::MendedByPeer] > 0, "{fates:?}");
    assert!(!fates.contains_key(&Fate::Reported), "{fates:?}");
}

#[test]
fn files_that_are_gone_are_mended_or_reported() {
    let disk = large();
    let model = Model::of(&disk, Some((80, store(25))));
    let files: Vec<PathBuf> = disk.files();
    let mut fates = Fates::new();
    for file in &files {
        for other in &files {
            let copy = disk.copy();
            for gone in [file, other] {
                crate::storage::Disk::remove(&copy, gone).ok();
            }
            count(
                &mut fates,
                mend(&copy, &model, &format!("{} and {} gone", file.display(), other.display())),
            );
        }
    }
    println!("files gone: {fates:?}");
    assert!(fates[&Fate::MendedByPeer] > 0, "{fates:?}");
}

#[test]
fn damaged_snapshots_come_from_a_peer() {
    let disk = large();
    let model = Model::of(&disk, Some((80, store(25))));
    let snapshots: Vec<PathBuf> =
        disk.files().into_iter().filter(|file| file.extension().is_some_and(|end| end == "snap")).collect();
    assert_eq!(snapshots.len(), 2);
    let mut fates = Fates::new();
    for byte in (0..4200).step_by(7) {
        let copy = disk.copy();
        for file in &snapshots {
            copy.flip_bit(file, byte, 3);
        }
        count(&mut fates, mend(&copy, &model, &format!("byte {byte} of both snapshots")));
    }
    println!("snapshots: {fates:?}");
    assert!(fates[&Fate::MendedByPeer] > 0 && !fates.contains_key(&Fate::Replaced), "{fates:?}");
}

fn id(index: u64, term: u64) -> LogId {
    LogId::new(Term::new(term), LogIndex::new(index))
}

fn log(from: u64, to: u64, term: u64) -> Vec<Entry> {
    entries(from, to, term, 10).entries
}

fn meta(index: u64, term: u64) -> SnapshotMeta {
    let (meta, _) = incoming(index, term, &store(1), 1000);
    meta
}

/// Entries 1 to 5 and 9 to 12 of a log that ends with 12; up to 4 are committed.
fn torn_apart() -> Sound {
    let certain = log(1, 4, 1).into_iter().chain(log(9, 12, 3)).map(|entry| (entry.index(), entry));
    Sound::new(vote(3, Some(2)), id(12, 3), LogIndex::new(4), None, certain.collect())
}

#[test]
fn entries_of_a_peer_have_to_fit_on_both_sides() {
    let mut sound = torn_apart();
    let missing = sound.missing().unwrap();
    assert_eq!((missing.after.get(), missing.through.get(), missing.anchor), (4, 8, id(9, 3)));
    let gap = sound.supply(&missing, log(6, 8, 2)).unwrap_err();
    assert_eq!(gap, SupplyError::Gap { before: id(4, 1), found: id(6, 2) });
    let beyond = sound.supply(&missing, log(5, 9, 2)).unwrap_err();
    assert_eq!(beyond, SupplyError::Anchor { found: id(9, 2), anchor: id(9, 3) });
    let later = sound.supply(&missing, log(5, 8, 4)).unwrap_err();
    assert_eq!(later, SupplyError::Anchor { found: id(5, 4), anchor: id(9, 3) });
    assert_eq!(sound.missing(), Some(missing), "nothing of these was taken");
    sound.supply(&missing, log(5, 6, 2)).unwrap();
    let rest = sound.missing().unwrap();
    assert_eq!((rest.after.get(), rest.through.get(), sound.missing_count()), (6, 8, 2));
    let back = sound.supply(&rest, log(7, 8, 1)).unwrap_err();
    assert_eq!(back, SupplyError::Gap { before: id(6, 2), found: id(7, 1) });
    sound.supply(&rest, log(7, 8, 3)).unwrap();
    assert_eq!(sound.missing(), None);
}

#[test]
fn a_snapshot_has_to_join_the_rest_of_the_log() {
    // Nothing shows that entry 8 of this log is the snapshot's.
    for index in [5, 8] {
        let short = torn_apart().supply_base(meta(index, 2), None).unwrap_err();
        assert_eq!(short, SupplyError::Short { found: id(index, 2), needed: LogIndex::new(9) });
        // The log that it comes from has an entry of this one behind it.
        let mut sound = torn_apart();
        sound.supply_base(meta(index, 2), Some(id(9, 3))).unwrap();
        assert_eq!((sound.missing_count(), sound.end()), (8 - index, id(12, 3)));
        // An entry that this log does not have shows nothing.
        torn_apart().supply_base(meta(index, 2), Some(id(9, 2))).unwrap_err();
        // Nor does one before the snapshot's end.
        torn_apart().supply_base(meta(index, 2), Some(id(4, 1))).unwrap_err();
    }
    let mut within = torn_apart();
    within.supply_base(meta(10, 3), None).unwrap();
    assert_eq!(
        (within.missing(), within.end(), within.entry(LogIndex::new(11)).is_some()),
        (None, id(12, 3), true)
    );
    // What is in conflict with committed state was never committed, nor was what follows it.
    let mut conflict = torn_apart();
    conflict.supply_base(meta(10, 4), None).unwrap();
    assert_eq!((conflict.missing(), conflict.end(), conflict.missing_count()), (None, id(10, 4), 0));
    let mut beyond = torn_apart();
    beyond.supply_base(meta(20, 5), None).unwrap();
    assert_eq!((beyond.missing(), beyond.end()), (None, id(20, 5)));
}

#[test]
fn a_loss_that_is_accepted_begins_where_nothing_whole_follows() {
    let rest = |before, entries: Vec<Entry>| {
        Rest::new(before, entries.into_iter().map(|entry| (entry.index(), entry)).collect())
    };
    let kept = |rests: &[Rest]| {
        let mut sound = torn_apart();
        let (kept, lost) = sound.accept_loss(rests);
        assert_eq!((sound.end(), sound.missing(), lost), (kept, None, id(12, 3)));
        assert_eq!(sound.commit().get(), 4, "that is all that is known");
        kept
    };
    assert_eq!(kept(&[]), id(4, 1));
    assert_eq!(kept(&[rest(id(4, 1), log(5, 6, 1))]), id(6, 1));
    assert_eq!(kept(&[rest(id(4, 0), log(5, 6, 1))]), id(6, 1), "the term before it is not known");
    assert_eq!(kept(&[rest(id(2, 1), log(3, 6, 1))]), id(6, 1));
    assert_eq!(kept(&[rest(id(9, 3), log(10, 11, 3)), rest(id(4, 1), log(5, 6, 1))]), id(6, 1));
    // Holes, and entries of another log.
    assert_eq!(kept(&[rest(id(5, 1), log(6, 8, 1))]), id(4, 1));
    assert_eq!(kept(&[rest(id(4, 1), [log(5, 5, 1), log(7, 8, 1)].concat())]), id(5, 1));
    assert_eq!(kept(&[rest(id(4, 2), log(5, 6, 2))]), id(4, 1));
    assert_eq!(kept(&[rest(id(2, 1), [log(3, 3, 1), log(4, 6, 2)].concat())]), id(4, 1));
    assert_eq!(kept(&[rest(id(4, 1), log(5, 6, 4))]), id(4, 1), "a term does not go back");
    // Entry 9 is of another term: what was lost between them may have replaced entry 8.
    assert_eq!(kept(&[rest(id(4, 1), log(5, 8, 2))]), id(8, 2));
    assert_eq!(kept(&[rest(id(4, 1), log(5, 11, 2))]), id(8, 2));
    // The leader of that term made both, so nothing is missing between them.
    assert_eq!(kept(&[rest(id(4, 1), log(5, 8, 3))]), id(12, 3));
    // Without entries behind the damage the last one is known all the same.
    let certain = log(1, 4, 1).into_iter().map(|entry| (entry.index(), entry));
    let end_known = Sound::new(vote(3, Some(2)), id(7, 3), LogIndex::new(4), None, certain.collect());
    for (term, end) in [(2, id(6, 2)), (3, id(7, 3))] {
        let mut sound = end_known.clone();
        assert_eq!(sound.accept_loss(&[rest(id(4, 1), log(5, 7, term))]).0, end);
    }
}

#[test]
fn a_log_that_follows_a_leader_keeps_only_what_was_committed() {
    let mut sound = torn_apart();
    sound.follow(id(11, 5)).unwrap();
    let missing = sound.missing().unwrap();
    assert_eq!((missing.after.get(), missing.through.get(), missing.anchor), (4, 11, id(11, 5)));
    sound.supply(&missing, log(5, 10, 3)).unwrap();
    let rest = sound.missing().unwrap();
    let wrong = sound.supply(&rest, log(11, 11, 4)).unwrap_err();
    assert_eq!(wrong, SupplyError::Anchor { found: id(11, 4), anchor: id(11, 5) });
    sound.supply(&rest, log(11, 11, 5)).unwrap();
    assert_eq!(sound.missing(), None);
}

/// A start refuses a term that no election can have brought about. So a repair must not take one.
#[test]
fn what_a_peer_gives_has_a_term_and_an_index_that_can_be_reached() {
    for out_of_reach in [id(20, 4 + (1 << 32)), id(20, (1 << 61) + 1), id((1 << 61) + 1, 5)] {
        let mut sound = torn_apart();
        let refused = sound.supply_base(meta(out_of_reach.index.get(), out_of_reach.term.get()), None);
        assert_eq!(refused, Err(SupplyError::OutOfReach(out_of_reach)));
        assert_eq!((sound.end(), sound.base()), (id(12, 3), None), "nothing of it was taken");
    }
    let mut sound = torn_apart();
    sound.supply_base(meta(20, 3 + (1 << 32)), None).unwrap();
    assert_eq!(sound.end(), id(20, 3 + (1 << 32)));
}

#[test]
fn the_end_of_a_leaders_log_has_to_be_one_that_it_can_have() {
    let refused = [
        // Elections do not get there.
        id(20, 4 + (1 << 32)),
        id(20, u64::MAX),
        id(u64::MAX, 5),
        // Entries up to 4 are committed: each later leader has them, and its log begins with them.
        id(3, 5),
        id(4, 2),
        id(5, 0),
    ];
    for end in refused {
        let mut sound = torn_apart();
        let followed = sound.follow(end);
        assert_eq!(followed, Err(SupplyError::Leader(end)));
        assert_eq!((sound.end(), sound.missing_count()), (id(12, 3), 4), "nothing of it was taken");
    }
    let mut sound = torn_apart();
    sound.follow(id(4, 1)).unwrap();
    assert_eq!((sound.end(), sound.missing()), (id(4, 1), None));
}

#[test]
fn a_directory_that_is_set_aside_is_kept_and_has_to_join_anew() {
    let disk = small(true);
    let identity = Path::new(DIR).join("identity");
    let before: Vec<Vec<u8>> = segments(&disk).iter().map(|file| disk.content(file).unwrap()).collect();
    disk.overwrite(&identity, b"rubbish".to_vec());
    for round in 1..3 {
        let error = open(&disk).map(|_| ()).unwrap_err();
        let survey = Survey::of(disk.clone(), options(), "node1", &error).unwrap().unwrap();
        assert!(matches!(survey.prognosis(), Prognosis::Replaceable(_)));
        let aside = survey.set_aside(&["a:1".to_owned(), "b:2".to_owned()]).unwrap();
        assert_eq!(aside, Path::new(DIR).join(format!("damaged-{round}")));
        let kept: Vec<Vec<u8>> = disk
            .files()
            .iter()
            .filter(|file| file.starts_with(&aside) && file.extension().is_some_and(|end| end == "seg"))
            .map(|file| disk.content(file).unwrap())
            .collect();
        assert!(round > 1 || kept == before, "nothing of the log is lost");
        let rejoin = crate::storage::read_rejoin(&disk, Path::new(DIR)).unwrap().unwrap();
        assert_eq!(rejoin.peers, ["a:1", "b:2"]);
        let (_, opened) = open(&disk).unwrap();
        assert_eq!(opened.restored.entries.len(), 1, "it begins anew");
        disk.overwrite(&identity, b"rubbish".to_vec());
    }
    // A note that is damaged says the same, and names nobody.
    disk.flip_bit(&Path::new(DIR).join("rejoin"), 30, 1);
    assert_eq!(crate::storage::read_rejoin(&disk, Path::new(DIR)).unwrap().unwrap().peers, [""; 0]);
}

/// As the start of a node does.
fn start(disk: &MemoryDisk) -> Result<usize, OpenError> {
    let dir = Path::new(DIR);
    match read_rebuild(disk, dir)? {
        Some(why) => Err(OpenError::Condemned { dir: dir.to_path_buf(), why }),
        None => open(disk).map(|(_, opened)| opened.restored.entries.len()),
    }
}

/// Sets what is left aside. The power fails after so many changes, if at all.
fn set_aside(disk: &MemoryDisk, peers: &[String], power: Option<u64>) -> Result<PathBuf, OpenError> {
    let error = start(disk).unwrap_err();
    let survey = Survey::of(disk.clone(), options(), "node1", &error).unwrap().unwrap();
    assert!(matches!(survey.prognosis(), Prognosis::Replaceable(_)));
    assert_eq!(survey.cluster(), Some(ClusterId(5)), "it knows whose member it was");
    if let Some(changes) = power {
        disk.fail_power_after(changes);
    }
    survey.set_aside(peers)
}

/// The content of all segments that are set aside.
fn kept(disk: &MemoryDisk) -> Vec<Vec<u8>> {
    let aside = |file: &PathBuf| file.to_string_lossy().contains("/damaged-");
    segments(disk).iter().filter(|file| aside(file)).map(|file| disk.content(file).unwrap()).collect()
}

#[test]
fn a_directory_that_was_half_set_aside_is_no_member_and_knows_its_cluster() {
    let peers = ["a:1".to_owned(), "b:2".to_owned()];
    let identity = |disk: &MemoryDisk| {
        disk.flip_bit(&Path::new(DIR).join("identity"), 40, 1);
    };
    let differs = |disk: &MemoryDisk| note_rebuild(disk, Path::new(DIR), "its state differs").unwrap();
    for damage in [&identity as &dyn Fn(&MemoryDisk), &differs] {
        let disk = small(true);
        damage(&disk);
        let before: Vec<Vec<u8>> = segments(&disk).iter().map(|file| disk.content(file).unwrap()).collect();
        let mut is_whole = false;
        for at in 0..1000 {
            if is_whole {
                break;
            }
            for is_crash in [false, true] {
                let copy = disk.copy();
                is_whole = set_aside(&copy, &peers, Some(at)).is_ok();
                if is_crash {
                    copy.crash(|_| false)
                } else {
                    copy.kill()
                }
                let mut tries = 0;
                let entries = loop {
                    match start(&copy) {
                        Ok(entries) => break entries,
                        Err(_) => set_aside(&copy, &peers, None).unwrap(),
                    };
                    tries += 1;
                    assert!(tries < 3, "after change {at}");
                };
                assert_eq!(
                    entries, 1,
                    "after change {at}: it begins anew, and is not the member that it was"
                );
                let rejoin = crate::storage::read_rejoin(&copy, Path::new(DIR)).unwrap().unwrap();
                assert_eq!((rejoin.cluster, &rejoin.peers[..]), (Some(ClusterId(5)), &peers[..]));
                assert!(kept(&copy) == before, "after change {at}: nothing of the log is lost");
            }
        }
        assert!(is_whole);
    }
}

#[test]
fn what_was_set_aside_before_the_newest_makes_room_and_is_still_counted() {
    let (disk, dir) = (small(true), Path::new(DIR));
    let has_log = |number: usize| {
        let wal = dir.join(format!("damaged-{number}/wal-1"));
        disk.files().iter().any(|file| file.starts_with(&wal))
    };
    for _ in 0..3 {
        note_rebuild(&disk, dir, "its state differs").unwrap();
        set_aside(&disk, &["a:1".to_owned()], None).unwrap();
        open(&disk).unwrap();
    }
    assert_eq!([1, 2, 3].map(has_log), [true; 3]);
    let freed = |keeps_newest| {
        let freed = free_aside(&disk, dir, keeps_newest).unwrap();
        freed.iter().map(|dir| dir.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(freed(true), ["damaged-1", "damaged-2"]);
    assert_eq!(freed(true), [""; 0]);
    assert_eq!([1, 2, 3].map(has_log), [false, false, true]);
    assert_eq!(times_rebuilt(&disk, dir), 3);
    assert_eq!(freed(false), ["damaged-3"]);
    // A person has removed the oldest: its number is not given again, as long as a later one is
    // there.
    disk.remove_dir_all(&dir.join("damaged-1")).unwrap();
    note_rebuild(&disk, dir, "its state differs").unwrap();
    assert!(set_aside(&disk, &["a:1".to_owned()], None).unwrap().ends_with("damaged-4"));
}
