//! The core's rules, looked at once more where its writes are about to reach the disk: what breaks
//! one of them ends the node, and nothing of it is written.

use crate::raft::{LogIndex, LogRecords};
use crate::replica::StorageRequest;
use crate::storage::MemoryDisk;
use crate::storage::tests::kit::{entries, open, vote, write_request};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a storage says of these requests. Before them it was given term 3, the vote for member 1,
/// and entries 2 to 9, up to 5 of them committed.
fn said_of(requests: impl FnOnce() -> Vec<StorageRequest>) -> String {
    let (mut storage, _) = open(&MemoryDisk::new()).unwrap();
    let mut events = Vec::new();
    let sound = LogRecords { hard_state: Some(vote(3, Some(1))), ..entries(2, 9, 3, 10) };
    let committed = StorageRequest::Committed(LogIndex::new(5));
    storage.handle(&mut vec![write_request(sound), committed], &mut events).unwrap();
    let mut requests = requests();
    let panic = catch_unwind(AssertUnwindSafe(|| storage.handle(&mut requests, &mut events))).unwrap_err();
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap()
}

#[test]
fn what_breaks_a_rule_of_the_core_is_not_written() {
    let truncate = |from| LogRecords { truncate_from: Some(LogIndex::new(from)), ..LogRecords::default() };
    let state = |state| LogRecords { hard_state: Some(state), ..LogRecords::default() };
    let table = [
        (state(vote(2, None)), "a term never goes back"),
        (state(vote(3, Some(2))), "a vote never changes within a term"),
        (state(vote(3, None)), "a vote never changes within a term"),
        (truncate(5), "entries from 5 on are void, but up to 5 are committed"),
        (entries(11, 12, 3, 10), "entries leave no gap"),
    ];
    for (records, expected) in table {
        let said = said_of(|| vec![write_request(records)]);
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
    }
}

#[test]
fn what_is_committed_was_handed_to_the_log_before() {
    let said = said_of(|| vec![StorageRequest::Committed(LogIndex::new(10))]);
    assert!(said.contains("entries up to 10 are committed, but the log was given 9"), "{said}");
}

#[test]
fn no_write_is_missing_and_none_comes_twice() {
    let said = said_of(|| {
        let _lost = write_request(LogRecords::default());
        vec![write_request(entries(10, 10, 3, 10))]
    });
    assert!(said.contains("one is missing, or comes twice"), "{said}");
}
