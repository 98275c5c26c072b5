//! Snapshots (Raft §7), and the traps around them.

use crate::raft::config::LOG_BYTES_MIN;
use crate::raft::follower::snapshots::Decision;
use crate::raft::tests::harness::{Cluster, entry, id, index, log_id, voters};
use crate::raft::{
    Body, Config, HardState, Incarnation, Input, LogId, LogIndex, Raft, RaftEvent, Restored, Session, Setup,
    SnapshotMeta, SnapshotRefusal, Term, Time,
};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

pub(super) fn small() -> Config {
    Config { snapshot_chunk_bytes: 10, log_tail_entries: 2, ..Config::default() }
}

/// A leader 1 of three with a snapshot of `bytes` bytes; 3 missed everything.
fn leader_with_snapshot(bytes: usize) -> Cluster {
    leader_with_snapshot_by(small(), bytes)
}

pub(super) fn leader_with_snapshot_by(config: Config, bytes: usize) -> Cluster {
    let mut cluster = Cluster::with(3, config);
    cluster.elect(1);
    cluster.isolate(3);
    for number in 0..20 {
        cluster.propose(1, &number.to_string()).unwrap();
    }
    // A leader keeps no log for a peer that does not answer.
    cluster.advance(700_000);
    cluster.snapshot(1, bytes);
    cluster.run();
    cluster
}

pub(super) fn meta(last: LogId, bytes: u64) -> SnapshotMeta {
    SnapshotMeta { last, membership: voters(1..=3), membership_id: log_id(1, 1), bytes, hash: 0 }
}

pub(super) fn chunk(last: LogId, offset: u64, data: &'static [u8], bytes: u64) -> Body {
    let done = offset + data.len() as u64 == bytes;
    Body::InstallSnapshot {
        session: Session::new(1),
        snapshot: Box::new(meta(last, bytes)),
        offset,
        data: Bytes::from_static(data),
        done,
    }
}

#[test]
fn an_own_snapshot_compacts_the_log_but_for_a_tail_once_its_marker_is_durable() {
    let mut cluster = leader_with_snapshot(5);
    assert_eq!(cluster.log(1).first(), Some(&log_id(21, 2)));
    assert_eq!(cluster.raft(1).term_at(index(20)), Some(crate::raft::Term::new(2)));
    let compacted = RaftEvent::Compacted { through: index(20), snapshot: log_id(22, 2) };
    assert!(cluster.node(1).events.contains(&compacted));
    cluster.propose(1, "more").unwrap();
    cluster.run();
    cluster.node(1).disk_held = true;
    cluster.snapshot(1, 5);
    cluster.run();
    assert_eq!(cluster.log(1).first(), Some(&log_id(21, 2)), "not before");
}

#[test]
fn every_snapshot_that_is_stored_is_answered() {
    let mut cluster = leader_with_snapshot(5);
    let newest = log_id(22, 2);
    let answers = |cluster: &mut Cluster| {
        let answer = |event: &RaftEvent| match event {
            RaftEvent::Compacted { snapshot, .. } => Some((*snapshot, true)),
            RaftEvent::SnapshotUnmarked(last) => Some((*last, false)),
            _ => None,
        };
        core::mem::take(&mut cluster.node(1).events).iter().filter_map(answer).collect::<Vec<_>>()
    };
    assert_eq!(answers(&mut cluster), [(newest, true)]);
    cluster.snapshot(1, 5);
    assert_eq!(answers(&mut cluster), [(newest, false)], "it has that one");
    cluster.propose(1, "more").unwrap();
    cluster.propose(1, "and more").unwrap();
    cluster.run();
    let now = Time::new(cluster.now);
    for last in [log_id(23, 2), log_id(24, 2)] {
        cluster.node(1).disk.files.insert(last, (meta(last, 5), vec![7; 5]));
        cluster.feed(1, now, Input::SnapshotStored(Box::new(meta(last, 5)))).unwrap();
    }
    cluster.settle(1);
    cluster.run();
    assert_eq!(answers(&mut cluster), [(log_id(24, 2), false), (log_id(23, 2), true)], "one in a write");
}

#[test]
fn a_snapshot_that_is_stored_while_the_leaders_is_about_to_count_is_answered() {
    let mut cluster = leader_with_snapshot(5);
    cluster.node(3).disk_held = true;
    cluster.heal();
    cluster.advance(300_000);
    cluster.node(3).events.clear();
    let own = log_id(1, 1);
    cluster.step(3, Input::SnapshotStored(Box::new(meta(own, 5)))).unwrap();
    assert_eq!(cluster.node(3).events, [RaftEvent::SnapshotUnmarked(own)]);
}

#[test]
fn the_tail_behind_a_snapshot_is_bounded_in_bytes_too() {
    let config = Config { log_tail_entries: 1_000, log_tail_bytes: 5_000, ..Config::default() };
    let mut cluster = Cluster::with(3, config);
    cluster.elect(1);
    for _ in 0..20 {
        cluster.propose(1, &"v".repeat(1_000)).unwrap();
    }
    cluster.run();
    cluster.snapshot(1, 5);
    cluster.run();
    let kept = cluster.raft(1).log_after(LogIndex::ZERO);
    assert_eq!(kept.len(), 4, "as many as have room");
    assert!(kept.iter().map(crate::raft::Entry::encoded_bytes).sum::<usize>() <= 5_000);
}

#[test]
fn what_a_member_lacks_that_still_answers_is_kept_up_to_a_bound() {
    for (laggard_log_bytes_max, kept_from) in [(1 << 20, log_id(3, 2)), (100, log_id(22, 2))] {
        let config = Config { laggard_log_bytes_max, log_tail_entries: 1, ..Config::default() };
        let mut cluster = Cluster::with(3, config);
        cluster.elect(1);
        cluster.node(3).disk_held = true;
        for number in 0..20 {
            cluster.propose(1, &number.to_string()).unwrap();
        }
        cluster.run();
        cluster.snapshot(1, 5);
        cluster.run();
        assert_eq!(cluster.log(1).first(), Some(&kept_from));
    }
}

#[test]
fn a_node_restarts_from_snapshot_and_log() {
    let mut cluster = leader_with_snapshot(5);
    cluster.restart(1);
    assert_eq!(cluster.raft(1).commit_index(), index(22));
    assert_eq!(cluster.raft(1).last_log(), log_id(22, 2));
    cluster.elect(1);
    assert_eq!(cluster.raft(1).membership().voters.len(), 3);
}

#[test]
fn a_peer_that_lacks_compacted_entries_gets_the_snapshot_in_chunks() {
    let mut cluster = leader_with_snapshot(35);
    cluster.heal();
    cluster.advance(300_000);
    assert_eq!(cluster.raft(3).commit_index(), index(22));
    let installed = cluster.nodes[&3].events.iter().filter(|e| matches!(e, RaftEvent::SnapshotInstalled(_)));
    assert_eq!(installed.count(), 1);
    assert_eq!(cluster.nodes[&3].disk.files[&log_id(22, 2)].1.len(), 35);
    cluster.propose(1, "after").unwrap();
    cluster.run();
    assert_eq!(cluster.commands(3), ["after"], "replication goes on from there");
}

#[test]
fn the_table_of_what_an_offered_snapshot_is_good_for() {
    // Log 1@1 2@2 3@2 4@3, of which 2 is committed.
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 3), log_id(1, 1), vec![entry(2, 2), entry(3, 2), entry(4, 3)], 2);
    for (last, expected) in [
        (log_id(1, 1), Decision::Known),
        (log_id(2, 2), Decision::Known),
        (log_id(3, 2), Decision::FastForward),
        (log_id(4, 3), Decision::FastForward),
        (log_id(3, 3), Decision::Install),
        (log_id(4, 2), Decision::Install),
        (log_id(5, 3), Decision::Install),
        (log_id(9, 9), Decision::Install),
    ] {
        assert_eq!(cluster.raft(1).shared.decide_snapshot(last), expected, "{last}");
    }
}

#[test]
fn a_known_snapshot_is_acknowledged_up_to_the_commit_index() {
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 3), log_id(1, 1), vec![entry(2, 2), entry(3, 2)], 3);
    cluster.sync(1);
    cluster.say(2, 1, 3, chunk(log_id(2, 2), 0, b"ab", 2));
    assert_eq!(
        cluster.last_said(1, 2),
        Some(&Body::SnapshotInstalled { session: Session::new(1), match_index: index(3) })
    );
    assert_eq!(cluster.log(1).len(), 3);
}

#[test]
fn a_snapshot_of_an_entry_in_the_log_commits_it_and_keeps_what_follows() {
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 3), log_id(1, 1), vec![entry(2, 2), entry(3, 2)], 0);
    cluster.sync(1);
    cluster.say(2, 1, 3, chunk(log_id(2, 2), 0, b"ab", 2));
    assert_eq!(cluster.raft(1).commit_index(), index(2));
    assert_eq!(cluster.log(1).len(), 3);
}

#[test]
fn an_installed_snapshot_keeps_no_conflicting_tail() {
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 3), log_id(1, 1), vec![entry(2, 2), entry(3, 2), entry(4, 2)], 0);
    cluster.sync(1);
    cluster.say(2, 1, 5, chunk(log_id(3, 4), 0, b"ab", 2));
    assert_eq!(cluster.log(1).len(), 4, "nothing changes before it is durable");
    cluster.sync(1);
    assert!(cluster.log(1).is_empty());
    assert_eq!(cluster.raft(1).last_log(), log_id(3, 4));
    assert!(cluster.node(1).disk.restored.entries.is_empty());
    cluster.restart(1);
    assert_eq!(cluster.raft(1).last_log(), log_id(3, 4));
}

#[test]
fn a_snapshot_is_acknowledged_when_it_is_durable_and_no_entry_is_taken_before() {
    let mut cluster = Cluster::new(3);
    cluster.say(2, 1, 5, chunk(log_id(9, 4), 0, b"ab", 2));
    cluster.append((2, 1, 5), log_id(1, 1), vec![entry(2, 4)], 2);
    assert_eq!(cluster.log(1).len(), 1);
    let said: Vec<_> = cluster.between(1, 2).into_iter().cloned().collect();
    assert!(said.iter().all(|body| matches!(body, Body::Heard { .. })), "{said:?}");
    cluster.now += 2 * cluster.config.election_timeout_micros;
    cluster.step(1, crate::raft::Input::Wake).unwrap();
    assert_eq!(cluster.raft(1).role(), crate::raft::RoleName::Follower, "nor does it campaign");
    cluster.sync(1);
    assert_eq!(
        cluster.last_said(1, 2),
        Some(&Body::SnapshotInstalled { session: Session::new(1), match_index: index(9) })
    );
    assert_eq!(cluster.raft(1).commit_index(), index(9));
}

#[test]
fn a_snapshot_that_does_not_verify_starts_over_and_the_log_stays() {
    let mut cluster = leader_with_snapshot(35);
    cluster.node(3).disk.refuses_snapshot = true;
    let before = cluster.log(3);
    cluster.heal();
    for _ in 0..10 {
        if !cluster.node(3).disk.refuses_snapshot {
            break;
        }
        cluster.advance(10_000);
        assert!(cluster.log(3) == before || !cluster.node(3).disk.refuses_snapshot);
    }
    cluster.advance(2_000_000);
    assert_eq!(cluster.raft(3).commit_index(), index(22));
}

#[test]
fn the_log_in_memory_has_a_bound_of_its_own_and_a_peer_that_needs_more_gets_a_newer_snapshot() {
    let config = Config { log_bytes_max: 600, laggard_log_bytes_max: 600, ..small() };
    let mut cluster = leader_with_snapshot_by(config, 35);
    let last = cluster.nodes[&1].disk.restored.snapshot.as_ref().unwrap().last;
    for number in 0..100 {
        cluster.propose(1, &format!("many {number}")).unwrap();
        cluster.run();
        assert!(cluster.raft(1).shared.log.bytes() <= 700, "{} bytes", cluster.raft(1).shared.log.bytes());
    }
    assert!(cluster.log(1)[0].index > last.index.next(), "what no snapshot covers left the memory");
    assert_eq!(cluster.nodes[&1].disk.restored.entries.last().unwrap().index(), index(122), "not the disk");
    assert!(!cluster.nodes[&1].events.contains(&RaftEvent::SnapshotWanted), "nobody needs it");
    cluster.heal();
    cluster.advance(3_000_000);
    let wanted = cluster.nodes[&1].events.iter().filter(|event| **event == RaftEvent::SnapshotWanted);
    assert_eq!(wanted.count(), 1);
    assert_eq!(cluster.raft(3).commit_index(), cluster.raft(1).commit_index());
    cluster.restart(1);
    cluster.elect(1);
    cluster.propose(1, "after").unwrap();
    cluster.run();
    assert_eq!(cluster.commands(3), ["after"]);
}

#[test]
fn a_start_keeps_no_more_of_the_log_in_memory_than_may_stay() {
    let config = Config { log_bytes_max: 600, ..small() };
    let restored = Restored {
        hard_state: HardState { term: Term::new(2), voted_for: None },
        snapshot: Some(meta(log_id(100, 2), 1)),
        entries: (1..=110).map(|number| entry(number, 2)).collect(),
        commit: index(110),
        promised_micros: 0,
    };
    let raft = Raft::new(Setup {
        id: id(2),
        incarnation: Incarnation::new(1),
        seed: 7,
        config,
        restored,
        now: Time::new(0),
    })
    .unwrap();
    let (held, needed) = raft.log_bytes();
    assert!(held <= needed.max(600), "{held} bytes, of which {needed} are not applied");
    assert_eq!(raft.last_log(), log_id(110, 2));
}

#[test]
fn the_log_in_memory_is_small_beside_the_snapshot_that_it_spares() {
    let mut cluster = leader_with_snapshot(35);
    for number in 0..120 {
        cluster.propose(1, &format!("{number} {}", "v".repeat(100_000))).unwrap();
        cluster.run();
        let bytes = cluster.raft(1).shared.log.bytes();
        assert!(bytes <= LOG_BYTES_MIN + 400_000, "{bytes} bytes after {number}");
    }
}

#[test]
fn the_log_in_memory_counts_what_small_entries_take_beside_their_bytes() {
    let config = Config { log_bytes_max: 20_000, ..small() };
    let mut cluster = leader_with_snapshot_by(config, 35);
    for number in 0..300 {
        cluster.propose(1, &number.to_string()).unwrap();
        cluster.run();
        let held = cluster.log(1).len();
        assert!(held <= 150, "{held} entries of some 30 bytes, each of which takes five times that");
    }
}

/// When the leader heard that 3 does not take its snapshot, and how often in a row that was.
fn refusals(cluster: &Cluster) -> Vec<(SnapshotRefusal, u32)> {
    let events = cluster.nodes[&1].events.iter();
    let told = events.filter_map(|event| match event {
        RaftEvent::SnapshotNotTaken { why, times, .. } => Some((*why, *times)),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_member_that_cannot_store_a_snapshot_says_why_and_is_left_alone_longer_each_time() {
    let mut cluster = leader_with_snapshot(95);
    cluster.node(3).disk.stores_chunks = Some(2);
    cluster.heal();
    let mut chunks = 0;
    for _ in 0..400 {
        chunks += cluster.network.iter().filter(|m| matches!(m.body, Body::InstallSnapshot { .. })).count();
        cluster.advance(100_000);
    }
    let refusals = refusals(&cluster);
    // After 0, 1, 3, 7, 15, 31 s.
    let expected: Vec<_> = (1..=6).map(|times| (SnapshotRefusal::NoRoom, times)).collect();
    assert_eq!(refusals, expected, "40 seconds hold six tries");
    assert!(chunks <= 6 * 3, "{chunks} chunks: nothing is sent behind the one that was refused");
    let progress = cluster.raft(1).progress().find(|peer| peer.id == id(3)).unwrap();
    assert_eq!(progress.snapshot_refused, Some(SnapshotRefusal::NoRoom));
    // It gets room: the next try succeeds, and the pause is forgotten.
    cluster.node(3).disk.stores_chunks = None;
    cluster.advance(60_000_000);
    assert_eq!(cluster.raft(3).commit_index(), cluster.raft(1).commit_index());
    assert!(cluster.raft(1).progress().all(|peer| peer.snapshot_refused.is_none()));
}

#[test]
fn a_member_that_has_room_again_is_offered_its_snapshot_at_once() {
    let mut cluster = leader_with_snapshot(95);
    cluster.node(3).disk.stores_chunks = Some(2);
    cluster.heal();
    cluster.advance(20_000_000);
    let tries = refusals(&cluster).len();
    assert_eq!(tries, 5, "after 0, 1, 3, 7 and 15 s; the next one comes after 31 s");
    // It was not enough room: the pause is as long as it would have been.
    cluster.step(1, Input::PeerHasRoom(id(3))).unwrap();
    cluster.advance(1_000_000);
    assert_eq!(refusals(&cluster).len(), tries + 1);
    cluster.advance(20_000_000);
    assert_eq!(refusals(&cluster).len(), tries + 1);
    cluster.node(3).disk.stores_chunks = None;
    cluster.step(1, Input::PeerHasRoom(id(3))).unwrap();
    cluster.advance(1_000_000);
    assert_eq!(cluster.raft(3).commit_index(), cluster.raft(1).commit_index());
}

#[test]
fn the_pause_after_refusals_has_a_cap_and_the_newest_snapshot_is_offered_then() {
    let config = Config { snapshot_backoff_max_micros: 4_000_000, ..small() };
    let mut cluster = leader_with_snapshot_by(config, 95);
    cluster.node(3).disk.stores_chunks = Some(0);
    cluster.heal();
    cluster.advance(31_000_000);
    // After 0, 1, 3, 7, 11, 15, 19, 23, 27 and 31 s, less what heartbeats add.
    let tries = refusals(&cluster).len();
    assert!((8..=10).contains(&tries), "{tries} tries");
    cluster.propose(1, "later").unwrap();
    cluster.run();
    cluster.snapshot(1, 40);
    cluster.run();
    cluster.node(3).disk.stores_chunks = None;
    cluster.advance(5_000_000);
    let newest = cluster.nodes[&1].disk.restored.snapshot.as_ref().unwrap().last;
    assert_eq!(cluster.nodes[&3].disk.restored.snapshot.as_ref().unwrap().last, newest);
}

#[test]
fn a_chunk_out_of_place_is_answered_with_the_offset_to_go_on_from() {
    let mut cluster = Cluster::new(3);
    cluster.say(2, 1, 5, chunk(log_id(9, 4), 4, b"ab", 9));
    cluster.sync(1);
    let progress = |next_offset, is_lacking| Body::SnapshotProgress {
        session: Session::new(1),
        snapshot: log_id(9, 4),
        next_offset,
        is_lacking,
    };
    assert_eq!(cluster.last_said(1, 2), Some(&progress(0, true)));
    cluster.say(2, 1, 5, chunk(log_id(9, 4), 0, b"abcd", 9));
    cluster.sync(1);
    assert_eq!(cluster.last_said(1, 2), Some(&progress(4, false)));
    cluster.say(2, 1, 5, chunk(log_id(9, 4), 0, b"abcd", 9));
    cluster.sync(1);
    assert_eq!(cluster.last_said(1, 2), Some(&progress(4, false)), "a repeated one is not taken twice");
}

#[test]
fn a_transfer_survives_lost_chunks_and_a_restart_of_the_peer() {
    let mut cluster = leader_with_snapshot(95);
    cluster.heal();
    for round in 0..40 {
        cluster.advance(20_000);
        cluster.lose_messages();
        if round == 5 {
            cluster.restart(3);
        }
    }
    cluster.advance(3_000_000);
    assert_eq!(cluster.raft(3).commit_index(), cluster.raft(1).commit_index());
}

#[test]
fn a_snapshot_that_is_gone_is_replaced_by_a_newer_one() {
    let mut cluster = leader_with_snapshot(35);
    cluster.heal();
    // The transfer begins, and the file goes while it runs.
    cluster.now += cluster.config.heartbeat_interval_micros;
    cluster.step(1, crate::raft::Input::Wake).unwrap();
    for number in 0..10 {
        cluster.propose(1, &number.to_string()).unwrap();
    }
    cluster.run();
    cluster.node(1).disk.files.remove(&log_id(22, 2));
    cluster.snapshot(1, 40);
    cluster.advance(3_000_000);
    assert_eq!(cluster.raft(3).commit_index(), cluster.raft(1).commit_index());
}

#[test]
fn a_chunk_that_does_not_fit_is_reported() {
    let mut cluster = Cluster::new(3);
    let too_long = Body::InstallSnapshot {
        session: Session::new(1),
        snapshot: Box::new(meta(log_id(9, 4), 3)),
        offset: u64::MAX,
        data: Bytes::from_static(b"ab"),
        done: false,
    };
    cluster.say(2, 1, 5, too_long);
    cluster.say(
        2,
        1,
        5,
        Body::InstallSnapshot {
            session: Session::new(1),
            snapshot: Box::new(meta(log_id(9, 4), 3)),
            offset: 0,
            data: Bytes::from_static(b"ab"),
            done: true,
        },
    );
    let reports = cluster.node(1).events.iter().filter(|e| matches!(e, RaftEvent::BadMessage { .. }));
    assert_eq!(reports.count(), 2);
    assert_eq!(cluster.raft(1).leader_hint().leader, Some(id(2)));
}

#[test]
fn the_membership_of_an_installed_snapshot_is_in_force() {
    let mut cluster = Cluster::new(3);
    let mut snapshot = meta(log_id(9, 4), 2);
    snapshot.membership = voters(1..=5);
    snapshot.membership_id = log_id(7, 3);
    let data = Bytes::from_static(b"ab");
    let body = Body::InstallSnapshot {
        session: Session::new(1),
        snapshot: Box::new(snapshot),
        offset: 0,
        data,
        done: true,
    };
    cluster.say(2, 1, 5, body);
    cluster.sync(1);
    assert_eq!(*cluster.raft(1).membership(), voters(1..=5));
    assert_eq!(cluster.raft(1).membership_at(LogIndex::new(9)).1, log_id(7, 3));
}

#[test]
fn an_installed_snapshot_is_applied_and_nothing_of_it_is_kept_for_anybody() {
    let mut cluster = Cluster::new(3);
    cluster.append((2, 1, 5), log_id(1, 1), vec![entry(2, 4)], 2);
    cluster.sync(1);
    assert_eq!(cluster.raft(1).last_applied(), index(2));
    cluster.say(2, 1, 5, chunk(log_id(9, 4), 0, b"ab", 2));
    assert_eq!(cluster.raft(1).last_applied(), index(2), "it is not durable yet");
    cluster.sync(1);
    assert_eq!(cluster.raft(1).last_applied(), index(9));
    let held = cluster.raft(1).held();
    assert!(held.iter().all(|(_, count)| *count == 0), "{held:?}");
    cluster.append((2, 1, 5), log_id(9, 4), vec![entry(10, 5)], 10);
    cluster.sync(1);
    assert_eq!(cluster.raft(1).last_applied(), index(10), "the state machine goes on from there");
}
