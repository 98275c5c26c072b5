//! What a core makes of what storage recovered.

use crate::raft::tests::harness::{entry, id, log_id, made_with, member, voters};
use crate::raft::{
    Config, HardState, Incarnation, LogId, Raft, RestoreError, Restored, SnapshotMeta, Term, Time,
    bootstrap_log,
};
use alloc::vec;

fn start(restored: Restored) -> Result<Raft, RestoreError> {
    Raft::new(id(1), Incarnation::new(1), 1, Config::default(), restored, Time::new(0))
}

fn snapshot(last: LogId) -> SnapshotMeta {
    SnapshotMeta { last, membership: voters(1..=3), membership_id: log_id(1, 1), bytes: 1, hash: 0 }
}

fn restored(term: u64, snapshot_at: Option<LogId>, log: &[(u64, u64)]) -> Restored {
    Restored {
        hard_state: HardState { term: Term::new(term), voted_for: None },
        snapshot: snapshot_at.map(snapshot),
        entries: log.iter().map(|(at, term)| entry(*at, *term)).collect(),
    }
}

#[test]
fn a_log_with_a_hole_or_terms_that_go_back_is_refused() {
    let before = log_id(1, 1);
    let refused = start(restored(5, None, &[(1, 1), (3, 1)]));
    assert_eq!(refused, Err(RestoreError::Gap { before, found: log_id(3, 1) }));
    let refused = start(restored(5, None, &[(1, 3), (2, 2)]));
    assert_eq!(refused, Err(RestoreError::Gap { before: log_id(1, 3), found: log_id(2, 2) }));
}

#[test]
fn a_log_of_a_later_term_than_the_one_on_record_is_refused() {
    let refused = start(restored(2, None, &[(1, 3)]));
    assert_eq!(refused, Err(RestoreError::Term { term: Term::new(2), log: Term::new(3) }));
}

#[test]
fn a_log_must_join_its_snapshot() {
    let at = log_id(5, 2);
    for (log, joins) in [
        (&[][..], true),
        (&[(6, 2), (7, 3)], true),
        (&[(4, 2), (5, 2), (6, 2)], true),
        (&[(5, 2)], true),
        (&[(1, 1), (2, 1)], true),
        (&[(7, 3)], false),
        (&[(4, 1), (5, 1), (6, 2)], false),
        (&[(6, 1)], false),
    ] {
        assert_eq!(start(restored(5, Some(at), log)).is_ok(), joins, "{log:?}");
    }
    assert!(start(restored(5, None, &[(2, 1)])).is_err(), "without a snapshot it begins at 1");
}

#[test]
fn a_log_wholly_below_its_snapshot_is_dropped() {
    let raft = start(restored(5, Some(log_id(5, 2)), &[(1, 1), (2, 1)])).unwrap();
    assert_eq!(raft.last_log(), log_id(5, 2));
    assert_eq!(raft.log_after(crate::raft::LogIndex::ZERO), vec![]);
}

#[test]
fn a_bootstrapped_log_makes_a_sole_voter_with_id_1() {
    let raft = start(bootstrap_log(member(1))).unwrap();
    assert_eq!(raft.membership().voters.iter().copied().collect::<alloc::vec::Vec<_>>(), [id(1)]);
    assert_eq!(raft.last_log(), log_id(1, 1));
    assert_eq!(raft.term(), Term::new(2), "it campaigns at once");
}

#[test]
fn one_of_several_voters_waits_for_its_timeout() {
    let raft = start(made_with(&voters(1..=3))).unwrap();
    assert_eq!(raft.term(), Term::new(1));
}

#[test]
fn equal_histories_give_equal_cores() {
    let raft = start(made_with(&voters(1..=3))).unwrap();
    assert_eq!(raft, start(made_with(&voters(1..=3))).unwrap());
    let mut later = raft.clone();
    later.step(Time::new(10_000_000), crate::raft::Input::Wake).unwrap();
    assert_ne!(raft, later);
}
