//! What a core makes of what storage recovered.

use crate::raft::tests::harness::{entry, id, log_id, made_with, member, voters};
use crate::raft::{
    Config, Entry, EntryKind, HardState, Incarnation, Input, LogId, LogIndex, Raft, RaftEvent, RestoreError,
    Restored, Setup, SnapshotMeta, Term, Time, bootstrap_log,
};
use alloc::vec;
use alloc::vec::Vec;

fn setup(config: Config, restored: Restored, now: Time) -> Setup {
    Setup { id: id(1), incarnation: Incarnation::new(1), seed: 1, config, restored, now }
}

fn start(restored: Restored) -> Result<Raft, RestoreError> {
    Raft::new(setup(Config::default(), restored, Time::new(0)))
}

fn snapshot(last: LogId) -> SnapshotMeta {
    SnapshotMeta { last, membership: voters(1..=3), membership_id: log_id(1, 1), bytes: 1, hash: 0 }
}

fn restored(term: u64, snapshot_at: Option<LogId>, log: &[(u64, u64)]) -> Restored {
    Restored {
        hard_state: HardState { term: Term::new(term), voted_for: None },
        snapshot: snapshot_at.map(snapshot),
        entries: log.iter().map(|(at, term)| entry(*at, *term)).collect(),
        commit: LogIndex::ZERO,
        promised_micros: 0,
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
    let raft = start(bootstrap_log([member(1)]).unwrap()).unwrap();
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

#[test]
fn what_is_on_record_as_committed_is_applied_without_a_leader_and_no_more() {
    let log = [(1, 1), (2, 1), (3, 1), (4, 1)];
    let mut raft =
        start(Restored { commit: LogIndex::new(3), ..restored(1, None, &log) }).expect("it is sound");
    assert_eq!(raft.commit_index(), LogIndex::new(3));
    let handed_out: Vec<LogId> = raft.take_output().committed.iter().map(Entry::id).collect();
    assert_eq!(handed_out, [log_id(1, 1), log_id(2, 1), log_id(3, 1)]);
    let refused = start(Restored { commit: LogIndex::new(5), ..restored(1, None, &log) });
    assert_eq!(refused, Err(RestoreError::Commit { commit: LogIndex::new(5), last: LogIndex::new(4) }));
}

#[test]
fn a_commit_index_on_record_never_falls_behind_the_snapshot() {
    let at = log_id(5, 2);
    for (commit, expected) in [(0, 5), (3, 5), (6, 6)] {
        let mut raft =
            start(Restored { commit: LogIndex::new(commit), ..restored(5, Some(at), &[(6, 2), (7, 3)]) })
                .expect("it is sound");
        assert_eq!(raft.commit_index(), LogIndex::new(expected));
        let handed_out: Vec<u64> =
            raft.take_output().committed.iter().map(|entry| entry.index().get()).collect();
        assert_eq!(handed_out, (6..=expected).collect::<Vec<_>>(), "committed up to {commit}");
    }
}

#[test]
fn a_long_log_is_handed_out_in_slices_each_as_soon_as_one_asks() {
    let log: Vec<(u64, u64)> = (1..=10).map(|index| (index, 1)).collect();
    let entry_bytes = entry(1, 1).encoded_bytes() as u64;
    for (entries_max, bytes_max, expected) in
        [(4, u64::MAX, vec![4, 4, 2]), (100, 3 * entry_bytes, vec![3, 3, 3, 1]), (100, 1, vec![1; 10])]
    {
        let config =
            Config { apply_entries_max: entries_max, apply_bytes_max: bytes_max, ..Config::default() };
        let restored = Restored { commit: LogIndex::new(10), ..restored(1, None, &log) };
        let mut raft = Raft::new(setup(config, restored, Time::new(7))).unwrap();
        let mut slices = Vec::new();
        loop {
            let output = raft.take_output();
            slices.push(output.committed.len());
            let index = output.committed.last().expect("there is more to apply").index();
            raft.step(Time::new(7), Input::Applied(index)).unwrap();
            if index == LogIndex::new(10) {
                assert_ne!(output.wake_at, Some(Time::new(7)), "nothing is left");
                break;
            }
            assert_eq!(output.wake_at, Some(Time::new(7)), "it wants to go on at once");
        }
        assert_eq!(slices, expected, "{entries_max} entries, {bytes_max} bytes");
    }
}

#[test]
fn the_membership_that_is_known_to_be_committed_is_told_at_a_start() {
    let events = |restored| start(restored).unwrap().take_output().events;
    let log = made_with(&voters(1..=3));
    assert_eq!(events(log.clone()), [], "nothing is known to be committed");
    let first = voters(1..=3);
    let told = RaftEvent::MembershipChanged { membership: first.clone(), id: log_id(1, 1), committed: true };
    assert_eq!(events(Restored { commit: LogIndex::new(1), ..log.clone() }), core::slice::from_ref(&told));
    let snapshot = snapshot(log_id(5, 2));
    let on_snapshot = Restored { snapshot: Some(snapshot), ..restored(5, None, &[]) };
    assert_eq!(events(on_snapshot), [told]);
}

#[test]
fn a_membership_that_is_committed_but_not_in_force_any_more_is_told_too() {
    let mut log = made_with(&voters(1..=3));
    let next = voters(1..=4);
    log.entries.push(Entry::new(log_id(2, 1), EntryKind::Membership, &next.encode()));
    let told = RaftEvent::MembershipCommitted { membership: voters(1..=3), id: log_id(1, 1) };
    let at_start = Restored { commit: LogIndex::new(1), ..log.clone() };
    assert_eq!(start(at_start).unwrap().take_output().events, core::slice::from_ref(&told));
    let mut raft = start(log).unwrap();
    let commit = |raft: &mut Raft, index| {
        raft.shared.commit_to(LogIndex::new(index));
        raft.take_output().events
    };
    assert_eq!(commit(&mut raft, 1), [told]);
    let in_force = RaftEvent::MembershipChanged { membership: next, id: log_id(2, 1), committed: true };
    assert_eq!(commit(&mut raft, 2), [in_force]);
}
