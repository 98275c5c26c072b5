use super::{DurableModel, WriteSketch};
use crate::hardware::disk::SimDisk;
use infinitystore::raft::{HardState, LogId, LogIndex, NodeId, Restored, Term};
use infinitystore::storage::{Disk, SnapshotFiles};
use std::path::Path;

const VOTED: HardState = HardState { term: Term::new(4), voted_for: Some(NodeId::new(2)) };

/// A vote, and the marker of a snapshot that was installed with it, in a batch that failed.
fn under_way(disk: &SimDisk) -> [WriteSketch; 1] {
    let snapshot = Some(LogId::new(Term::new(3), LogIndex::new(9)));
    let mut write = WriteSketch { hard_state: Some(VOTED), snapshot, ..WriteSketch::default() };
    write.settle_snapshot(disk);
    [write]
}

#[test]
fn a_snapshot_that_found_no_room_leaves_no_marker_and_one_that_did_leaves_its_own() {
    let only_the_vote = Restored { hard_state: VOTED, ..Restored::default() };
    let nothing = Restored::default();
    let model = DurableModel::default();
    let disk = SimDisk::default();
    assert!(model.check_recovery(&under_way(&disk), &only_the_vote).is_ok());
    let name = SnapshotFiles::<SimDisk>::file_name(LogId::new(Term::new(3), LogIndex::new(9)));
    disk.create(&Path::new("/data/snap-1").join(name)).unwrap();
    assert!(model.check_recovery(&under_way(&disk), &nothing).is_ok(), "the batch is not on disk");
    assert!(model.check_recovery(&under_way(&disk), &only_the_vote).is_err(), "in part");
}

#[test]
fn a_mended_directory_keeps_an_acknowledged_vote_and_may_lose_one_that_was_under_way() {
    let mut model = DurableModel::default();
    model.apply(&WriteSketch { hard_state: Some(VOTED), ..WriteSketch::default() });
    let later = HardState { term: Term::new(5), voted_for: Some(NodeId::new(3)) };
    let under_way = [WriteSketch { hard_state: Some(later), ..WriteSketch::default() }];
    let says = |hard_state| model.check_repair(&under_way, &Restored { hard_state, ..Restored::default() });
    assert!(says(VOTED).is_ok() && says(later).is_ok());
    assert!(says(HardState { voted_for: None, ..later }).is_ok(), "an entry of a peer says the term");
    assert!(says(HardState { voted_for: None, ..VOTED }).is_err(), "it could vote once more");
    assert!(says(HardState { voted_for: Some(NodeId::new(1)), ..later }).is_err());
    assert!(says(HardState { term: Term::new(3), voted_for: None }).is_err());
}
