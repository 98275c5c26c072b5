//! Chunks of snapshots: several in flight, to one peer and to several.

use crate::raft::tests::harness::{Cluster, entry, id, log_id};
use crate::raft::tests::snapshots::{chunk, leader_with_snapshot_by, meta, small};
use crate::raft::{Body, Config, Input, LogId, Message, RaftEvent, RoleName, Session, Time};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// Chunks of 10 bytes, 50 bytes of them in flight.
fn five_chunks() -> Config {
    Config { snapshot_inflight_bytes_max: 50, ..small() }
}

/// A leader 1 whose first chunk of a snapshot of `bytes` bytes is on its way to 3.
fn sending(config: Config, bytes: usize) -> Cluster {
    let mut cluster = leader_with_snapshot_by(config, bytes);
    cluster.heal();
    cluster.now += cluster.config.heartbeat_interval_micros;
    cluster.step(1, Input::Wake).unwrap();
    settle(&mut cluster);
    assert_eq!(chunks(&cluster, 3), [0], "what 3 has already is not known yet");
    cluster
}

/// Writes, reads and delivers, until nothing but chunks is on its way. The clock stands still.
fn settle(cluster: &mut Cluster) {
    loop {
        let numbers: Vec<u64> = cluster.nodes.keys().copied().collect();
        let mut progressed = false;
        for number in numbers {
            progressed |= cluster.sync(number);
            progressed |= cluster.serve_snapshot_reads(number);
        }
        let is_other = |message: &Message| !matches!(message.body, Body::InstallSnapshot { .. });
        if let Some(at) = cluster.network.iter().position(is_other) {
            let message = cluster.network.remove(at).unwrap();
            cluster.deliver(message);
        } else if !progressed {
            return;
        }
    }
}

fn offset_to(message: &Message, to: u64) -> Option<u64> {
    match message.body {
        Body::InstallSnapshot { offset, .. } if message.to == id(to) => Some(offset),
        _ => None,
    }
}

/// Where the chunks begin that are on their way to a node, in the order in which they left.
fn chunks(cluster: &Cluster, to: u64) -> Vec<u64> {
    cluster.network.iter().filter_map(|message| offset_to(message, to)).collect()
}

/// Takes the chunk that begins there off the network.
fn take(cluster: &mut Cluster, to: u64, offset: u64) -> Message {
    let at = cluster.network.iter().position(|message| offset_to(message, to) == Some(offset)).unwrap();
    cluster.network.remove(at).unwrap()
}

/// The chunk that begins there arrives, and is answered.
fn arrive(cluster: &mut Cluster, to: u64, offset: u64) {
    let message = take(cluster, to, offset);
    cluster.deliver(message);
    settle(cluster);
}

/// All chunks on their way to 3 arrive in their order, until the window is full.
fn fill(cluster: &mut Cluster) {
    for offset in [0, 10, 20] {
        arrive(cluster, 3, offset);
    }
    assert_eq!(chunks(cluster, 3), [30, 40, 50, 60, 70]);
}

/// An answer of 3 in the relation in which chunks are on their way.
fn progress(cluster: &Cluster, next_offset: u64, is_lacking: bool) -> Message {
    let of_chunk = |message: &Message| match &message.body {
        Body::InstallSnapshot { session, snapshot, .. } => Some((*session, snapshot.last, message.term)),
        _ => None,
    };
    let (session, snapshot, term) = cluster.network.iter().find_map(of_chunk).unwrap();
    let body = Body::SnapshotProgress { session, snapshot, next_offset, is_lacking };
    Message { from: id(3), to: id(1), term, body }
}

fn in_flight(cluster: &Cluster) -> Vec<u64> {
    cluster.raft(1).progress().map(|peer| peer.snapshot_bytes_inflight).collect()
}

fn has_caught_up(cluster: &Cluster, number: u64) -> bool {
    cluster.raft(number).commit_index() == cluster.raft(1).commit_index()
}

#[test]
fn the_window_doubles_with_each_answer_up_to_its_bound_and_slides() {
    let mut cluster = sending(five_chunks(), 200);
    arrive(&mut cluster, 3, 0);
    assert_eq!(chunks(&cluster, 3), [10, 20]);
    arrive(&mut cluster, 3, 10);
    assert_eq!(chunks(&cluster, 3), [20, 30, 40, 50]);
    arrive(&mut cluster, 3, 20);
    for first in (30..=150).step_by(10) {
        let expected: Vec<u64> = (first..first + 50).step_by(10).collect();
        assert_eq!(chunks(&cluster, 3), expected);
        assert_eq!(in_flight(&cluster), [0, 50]);
        arrive(&mut cluster, 3, first);
    }
    assert_eq!(chunks(&cluster, 3), [160, 170, 180, 190], "the last one is on its way");
    for offset in [160, 170, 180, 190] {
        arrive(&mut cluster, 3, offset);
    }
    assert!(has_caught_up(&cluster, 3));
    assert_eq!(in_flight(&cluster), [0, 0]);
    assert_eq!(cluster.nodes[&3].disk.files[&log_id(22, 2)].1.len(), 200);
}

#[test]
fn a_chunk_that_is_lost_in_the_middle_is_sent_again_at_once_and_once() {
    let mut cluster = sending(five_chunks(), 200);
    fill(&mut cluster);
    take(&mut cluster, 3, 40);
    for offset in [30, 50, 60, 70] {
        arrive(&mut cluster, 3, offset);
    }
    // Chunk 80 left when 30 was acknowledged, and is not taken either.
    assert_eq!(chunks(&cluster, 3), [80, 40]);
    arrive(&mut cluster, 3, 80);
    assert_eq!(chunks(&cluster, 3), [40], "five answers say that it is lacking");
    arrive(&mut cluster, 3, 40);
    assert_eq!(chunks(&cluster, 3), [50, 60]);
    cluster.run();
    assert!(has_caught_up(&cluster, 3));
}

#[test]
fn chunks_in_another_order_need_no_silence() {
    let mut cluster = sending(five_chunks(), 200);
    for _ in 0..200 {
        let Some(last) = chunks(&cluster, 3).last().copied() else { break };
        arrive(&mut cluster, 3, last);
    }
    assert!(has_caught_up(&cluster, 3));
}

#[test]
fn answers_that_come_twice_have_nothing_sent_twice() {
    let mut cluster = sending(five_chunks(), 200);
    fill(&mut cluster);
    let before = chunks(&cluster, 3);
    for next_offset in [0, 10, 30] {
        let late = progress(&cluster, next_offset, false);
        cluster.deliver(late);
        settle(&mut cluster);
        assert_eq!(chunks(&cluster, 3), before);
    }
    let said_before = progress(&cluster, 20, true);
    cluster.deliver(said_before);
    settle(&mut cluster);
    assert_eq!(chunks(&cluster, 3), before, "it has more since");
    for _ in 0..4 {
        let lacking = progress(&cluster, 30, true);
        cluster.deliver(lacking);
        settle(&mut cluster);
        assert_eq!(chunks(&cluster, 3), [30, 40, 50, 60, 70, 30], "it is sent again, and once");
    }
}

#[test]
fn a_peer_that_has_nothing_any_more_is_sent_all_of_it_again() {
    let mut cluster = sending(five_chunks(), 200);
    fill(&mut cluster);
    cluster.restart(3);
    arrive(&mut cluster, 3, 30);
    assert_eq!(chunks(&cluster, 3), [40, 50, 60, 70, 0]);
    cluster.run();
    assert!(has_caught_up(&cluster, 3));
}

#[test]
fn a_peer_that_has_less_than_it_said_is_believed_after_a_silence() {
    let mut cluster = sending(five_chunks(), 200);
    let copy = cluster.network.iter().find(|message| offset_to(message, 3) == Some(0)).unwrap().clone();
    fill(&mut cluster);
    cluster.restart(3);
    cluster.deliver(copy);
    cluster.sync(3);
    cluster.lose_messages();
    cluster.advance(1_500_000);
    assert!(has_caught_up(&cluster, 3), "3 has 10 bytes, of 30 that it said it has");
}

#[test]
fn more_than_there_is_of_a_snapshot_is_not_believed() {
    let mut cluster = sending(five_chunks(), 200);
    fill(&mut cluster);
    let beyond = progress(&cluster, 201, false);
    cluster.deliver(beyond);
    settle(&mut cluster);
    assert!(cluster.nodes[&1].events.iter().any(|event| matches!(event, RaftEvent::BadMessage { .. })));
    assert_eq!(chunks(&cluster, 3), [30, 40, 50, 60, 70]);
}

#[test]
fn an_answer_in_an_earlier_session_says_nothing_of_this_one() {
    let mut cluster = sending(five_chunks(), 200);
    fill(&mut cluster);
    let mut late = progress(&cluster, 60, false);
    let Body::SnapshotProgress { session, .. } = &mut late.body else { unreachable!() };
    *session = Session::new(session.get() - 1);
    cluster.deliver(late);
    settle(&mut cluster);
    assert_eq!(chunks(&cluster, 3), [30, 40, 50, 60, 70]);
}

#[test]
fn another_leader_goes_on_where_the_first_one_stopped() {
    let mut cluster = leader_with_snapshot_by(five_chunks(), 200);
    cluster.snapshot(2, 200);
    cluster.heal();
    cluster.now += cluster.config.heartbeat_interval_micros;
    cluster.step(1, Input::Wake).unwrap();
    settle(&mut cluster);
    fill(&mut cluster);
    cluster.lose_messages();
    cluster.isolate(1);
    cluster.now += 2 * cluster.config.election_timeout_micros;
    cluster.step(2, Input::Wake).unwrap();
    settle(&mut cluster);
    assert_eq!(chunks(&cluster, 3), [0], "it does not know what 3 has");
    arrive(&mut cluster, 3, 0);
    assert_eq!(chunks(&cluster, 3), [30, 40]);
    cluster.run();
    assert_eq!(cluster.raft(3).commit_index(), cluster.raft(2).commit_index());
    assert_eq!(cluster.nodes[&3].disk.files[&log_id(22, 2)].1.len(), 200);
}

/// A leader 1 of seven, of which 3, 4 and 5 are sent a snapshot.
fn three_laggards() -> Cluster {
    three_laggards_at(0)
}

/// The same, with so many bytes of snapshots a second.
fn three_laggards_at(snapshot_bytes_per_second_max: u64) -> Cluster {
    let config = Config { snapshot_inflight_bytes_max: 70, snapshot_bytes_per_second_max, ..small() };
    let mut cluster = Cluster::with(7, config);
    cluster.elect(1);
    (3..=5).for_each(|number| cluster.isolate(number));
    for number in 0..20 {
        cluster.propose(1, &number.to_string()).unwrap();
    }
    cluster.advance(700_000);
    cluster.snapshot(1, 600);
    cluster.run();
    cluster.heal();
    cluster.now += cluster.config.heartbeat_interval_micros;
    cluster.step(1, Input::Wake).unwrap();
    settle(&mut cluster);
    cluster
}

#[test]
fn several_laggards_share_what_may_be_in_flight() {
    let mut cluster = three_laggards();
    let mut most = 0;
    for _ in 0..1_000 {
        let Some(message) = cluster.network.pop_front() else { break };
        cluster.deliver(message);
        settle(&mut cluster);
        let bytes = in_flight(&cluster);
        let all: u64 = bytes.iter().sum();
        assert!(all <= 70 + 2 * 10, "{bytes:?}");
        assert!(bytes.iter().filter(|bytes| **bytes > 0).count() < 3 || bytes.iter().all(|it| *it <= 20));
        most = most.max(all);
    }
    assert!(most >= 60, "{most} bytes were in flight");
    for number in 3..=5 {
        assert!(has_caught_up(&cluster, number), "{number}");
    }
}

#[test]
fn a_laggard_that_is_silent_leaves_the_room_to_others() {
    let mut cluster = three_laggards();
    for number in 3..=5 {
        arrive(&mut cluster, number, 0);
        arrive(&mut cluster, number, 10);
    }
    assert_eq!(in_flight(&cluster), [0, 20, 20, 20, 0, 0]);
    cluster.isolate(4);
    cluster.isolate(5);
    for _ in 0..12 {
        cluster.now += cluster.config.election_timeout_micros / 10;
        cluster.step(1, Input::Wake).unwrap();
        settle(&mut cluster);
        let Some(next) = chunks(&cluster, 3).first().copied() else { break };
        arrive(&mut cluster, 3, next);
    }
    assert_eq!(in_flight(&cluster), [0, 70, 0, 0, 0, 0]);
    cluster.heal();
    cluster.lose_messages();
    cluster.advance(3_000_000);
    for number in 3..=5 {
        assert!(has_caught_up(&cluster, number), "{number}");
    }
}

/// Gives 1 these chunks of a snapshot of 90 bytes at once.
fn give_chunks(cluster: &mut Cluster, offsets: impl IntoIterator<Item = u64>) {
    let now = Time::new(cluster.now);
    for offset in offsets {
        let body = chunk(log_id(9, 4), offset, b"0123456789", 90);
        let message = Message { from: id(2), to: id(1), term: crate::raft::Term::new(5), body };
        cluster.feed(1, now, Input::Message(message)).unwrap();
    }
    cluster.settle(1);
}

fn said(next_offset: u64, is_lacking: bool) -> Body {
    Body::SnapshotProgress { session: Session::new(1), snapshot: log_id(9, 4), next_offset, is_lacking }
}

#[test]
fn chunks_that_come_together_are_one_write_and_one_answer() {
    let mut cluster = Cluster::with(3, five_chunks());
    give_chunks(&mut cluster, [0, 10, 20]);
    let write = cluster.nodes[&1].writes.back().unwrap().records();
    assert_eq!(write.snapshot_chunks.iter().map(|chunk| chunk.offset).collect::<Vec<_>>(), [0, 10, 20]);
    cluster.network.clear();
    cluster.sync(1);
    assert_eq!(cluster.between(1, 2), [&said(30, false)]);
}

#[test]
fn one_write_takes_no_more_chunks_than_may_be_in_flight_and_the_rest_is_asked_for() {
    let mut cluster = Cluster::with(3, five_chunks());
    give_chunks(&mut cluster, (0..70).step_by(10));
    let write = cluster.nodes[&1].writes.back().unwrap().records();
    assert_eq!(write.snapshot_chunks.len(), 5);
    cluster.sync(1);
    assert_eq!(cluster.last_said(1, 2), Some(&said(50, true)));
}

#[test]
fn a_chunk_behind_a_gap_is_answered_with_what_is_lacking() {
    let mut cluster = Cluster::with(3, five_chunks());
    give_chunks(&mut cluster, [0, 20]);
    cluster.sync(1);
    assert_eq!(cluster.last_said(1, 2), Some(&said(10, true)));
    give_chunks(&mut cluster, [0]);
    cluster.sync(1);
    assert_eq!(cluster.last_said(1, 2), Some(&said(10, false)), "one that came twice lacks nothing");
}

#[test]
fn a_chunk_that_finds_the_marker_of_an_own_snapshot_in_the_write_is_asked_for_again() {
    let mut cluster = Cluster::with(3, five_chunks());
    cluster.append((2, 1, 5), log_id(1, 1), vec![entry(2, 4)], 2);
    cluster.sync(1);
    let (now, own) = (Time::new(cluster.now), meta(log_id(2, 4), 5));
    cluster.node(1).disk.files.insert(own.last, (own.clone(), vec![7; 5]));
    cluster.feed(1, now, Input::SnapshotStored(Box::new(own))).unwrap();
    give_chunks(&mut cluster, [0]);
    cluster.sync(1);
    assert_eq!(cluster.last_said(1, 2), Some(&said(0, true)));
}

#[test]
fn the_last_chunk_shares_no_write_with_entries_and_is_asked_for_again() {
    let mut cluster = Cluster::with(3, five_chunks());
    cluster.append((2, 1, 5), log_id(1, 1), vec![], 1);
    cluster.sync(1);
    let now = Time::new(cluster.now);
    let term = crate::raft::Term::new(5);
    let append = Body::AppendEntries {
        session: Session::new(1),
        prev: log_id(1, 1),
        acknowledged: LogId::ZERO,
        entries: vec![entry(2, 5)],
        commit: crate::raft::LogIndex::new(1),
        round: crate::raft::ReadRound::ZERO,
        clock: crate::raft::AppendClock::default(),
    };
    let whole = chunk(log_id(9, 4), 0, b"0123456789", 10);
    for body in [append, whole.clone()] {
        let message = Message { from: id(2), to: id(1), term, body };
        cluster.feed(1, now, Input::Message(message)).unwrap();
    }
    cluster.settle(1);
    assert!(cluster.nodes[&1].writes.back().unwrap().records().snapshot_chunks.is_empty());
    cluster.sync(1);
    assert_eq!(cluster.last_said(1, 2), Some(&said(0, true)));
    cluster.say(2, 1, 5, whole);
    cluster.sync(1);
    assert_eq!(cluster.raft(1).last_log(), log_id(9, 4));
}

#[test]
fn while_a_snapshot_is_about_to_count_other_leaders_are_answered_too() {
    let mut cluster = Cluster::with(3, five_chunks());
    cluster.say(2, 1, 5, chunk(log_id(9, 4), 0, b"ab", 2));
    cluster.say(3, 1, 6, chunk(log_id(9, 4), 0, b"ab", 2));
    cluster.say(3, 1, 6, chunk(log_id(12, 4), 0, b"ab", 2));
    cluster.network.clear();
    cluster.sync(1);
    let session = Session::new(1);
    let installed = Body::SnapshotInstalled { session, match_index: crate::raft::LogIndex::new(9) };
    let snapshot = log_id(12, 4);
    let again = Body::SnapshotProgress { session, snapshot, next_offset: 0, is_lacking: true };
    assert_eq!(cluster.between(1, 3), [&installed, &again]);
}

/// How long the snapshot of 500 bytes takes to 3 at this rate, and how many heartbeats 3 hears
/// meanwhile, milliseconds.
fn paced(snapshot_bytes_per_second_max: u64) -> (u64, usize) {
    let config = Config { snapshot_bytes_per_second_max, ..five_chunks() };
    let mut cluster = sending(config, 500);
    let mut heartbeats = 0;
    for millis in 0..10_000 {
        if has_caught_up(&cluster, 3) {
            return (millis, heartbeats);
        }
        cluster.now += 1_000;
        if cluster.nodes[&1].wake_at.is_some_and(|at| at <= Time::new(cluster.now)) {
            cluster.step(1, Input::Wake).unwrap();
            let to_3 = cluster.between(1, 3).into_iter();
            heartbeats += to_3.filter(|body| matches!(body, Body::AppendEntries { .. })).count();
        }
        cluster.run();
    }
    panic!("it never arrives");
}

#[test]
fn a_leader_sends_no_more_of_snapshots_in_a_second_than_it_may() {
    let (at_once, _) = paced(0);
    assert_eq!(at_once, 1);
    let (millis, _) = paced(1_000);
    // What may be sent in a tenth of a second goes at once.
    assert!((390..=410).contains(&millis), "{millis} ms");
    let (millis, heartbeats) = paced(100);
    assert!((4_800..=5_000).contains(&millis), "{millis} ms");
    assert!(heartbeats as u64 >= millis / 100 - 1, "{heartbeats} heartbeats");
}

/// 3 answers heartbeats, and its disk takes nothing. When chunks left for it in the next 20 s.
fn chunks_in_vain(cluster: &mut Cluster) -> Vec<u64> {
    cluster.node(3).disk_held = true;
    cluster.run();
    let mut sent = Vec::new();
    for _ in 0..200 {
        cluster.now += cluster.config.heartbeat_interval_micros;
        cluster.step(1, Input::Wake).unwrap();
        while cluster.serve_snapshot_reads(1) {}
        sent.extend(chunks(cluster, 3).iter().map(|_| cluster.now));
        cluster.run();
    }
    sent
}

#[test]
fn a_member_that_answers_and_takes_no_chunk_is_sent_them_more_and_more_seldom() {
    let mut cluster = sending(five_chunks(), 200);
    let sent = chunks_in_vain(&mut cluster);
    let pauses: Vec<u64> = sent.windows(2).map(|two| two[1] - two[0]).collect();
    assert!((3..=6).contains(&sent.len()) && pauses.is_sorted(), "{sent:?}");
    cluster.node(3).disk_held = false;
    cluster.run();
    assert!(has_caught_up(&cluster, 3), "its answers are waited for no longer than before");
}

/// Nothing reaches 3. Late copies of what it had answered do come, and look like signs of life.
#[test]
fn a_member_that_was_cut_off_is_sent_chunks_as_soon_as_something_reaches_it() {
    let mut cluster = sending(five_chunks(), 200);
    cluster.node(3).disk_held = true;
    cluster.now += cluster.config.heartbeat_interval_micros;
    cluster.step(1, Input::Wake).unwrap();
    let heartbeat =
        |message: &Message| message.to == id(3) && matches!(message.body, Body::AppendEntries { .. });
    let at = cluster.network.iter().position(heartbeat).expect("a heartbeat is on its way");
    let heartbeat = cluster.network.remove(at).unwrap();
    cluster.deliver(heartbeat);
    let answer = cluster.network.iter().find(|message| message.from == id(3)).expect("it answers").clone();
    cluster.cut.insert((1, 3));
    for _ in 0..200 {
        cluster.now += cluster.config.heartbeat_interval_micros;
        cluster.step(1, Input::Wake).unwrap();
        cluster.deliver(answer.clone());
        cluster.run();
    }
    assert_eq!(cluster.raft(1).role(), RoleName::Leader);
    cluster.heal();
    cluster.node(3).disk_held = false;
    cluster.advance(2 * cluster.config.election_timeout_micros);
    assert!(has_caught_up(&cluster, 3));
}

#[test]
fn a_member_that_was_started_again_is_sent_chunks_at_once() {
    let mut cluster = sending(five_chunks(), 200);
    chunks_in_vain(&mut cluster);
    cluster.node(3).disk_held = false;
    cluster.restart(3);
    cluster.advance(2 * cluster.config.heartbeat_interval_micros);
    assert!(has_caught_up(&cluster, 3));
}

/// 3 takes the snapshot that is on its way, and is cut off before it gets what comes after it.
fn install_and_no_more(cluster: &mut Cluster) {
    while let Some(first) = chunks(cluster, 3).first().copied() {
        let message = take(cluster, 3, first);
        cluster.deliver(message);
        cluster.sync(3);
        let is_answer = |message: &Message| message.from == id(3);
        while let Some(at) = cluster.network.iter().position(is_answer) {
            let answer = cluster.network.remove(at).unwrap();
            cluster.deliver(answer);
            cluster.serve_snapshot_reads(1);
        }
    }
    cluster.isolate(3);
    cluster.lose_messages();
}

#[test]
fn a_member_that_needs_one_snapshot_after_the_other_is_told_of() {
    let mut cluster = sending(five_chunks(), 20);
    let told = |cluster: &mut Cluster| {
        let events = core::mem::take(&mut cluster.node(1).events);
        let times = |event: &RaftEvent| match event {
            RaftEvent::SnapshotRepeated { peer, times } => Some((*peer, *times)),
            _ => None,
        };
        events.iter().find_map(times)
    };
    for expected in [None, Some((id(3), 2)), Some((id(3), 3))] {
        cluster.propose(1, "behind the snapshot").unwrap();
        install_and_no_more(&mut cluster);
        assert_eq!(told(&mut cluster), expected);
        for number in 0..20 {
            cluster.propose(1, &number.to_string()).unwrap();
        }
        cluster.advance(700_000);
        cluster.snapshot(1, 20);
        cluster.run();
        cluster.heal();
        cluster.now += cluster.config.heartbeat_interval_micros;
        cluster.step(1, Input::Wake).unwrap();
        settle(&mut cluster);
    }
    cluster.run();
    assert!(has_caught_up(&cluster, 3));
    assert_eq!(told(&mut cluster), Some((id(3), 4)));
    cluster.isolate(3);
    for number in 0..20 {
        cluster.propose(1, &number.to_string()).unwrap();
    }
    cluster.advance(700_000);
    cluster.snapshot(1, 20);
    cluster.heal();
    cluster.advance(700_000);
    assert!(has_caught_up(&cluster, 3));
    assert_eq!(told(&mut cluster), None, "it had caught up before");
}

/// However slowly they are sent, one laggard does not wait for another.
#[test]
fn laggards_take_turns_where_chunks_wait_for_each_other() {
    let mut cluster = three_laggards_at(100);
    let mut received = [0; 3];
    for _ in 0..3_000 {
        cluster.now += 1_000;
        if cluster.nodes[&1].wake_at.is_some_and(|at| at <= Time::new(cluster.now)) {
            cluster.step(1, Input::Wake).unwrap();
            settle(&mut cluster);
        }
        while let Some(message) = cluster.network.pop_front() {
            if let Body::InstallSnapshot { data, .. } = &message.body {
                received[usize::try_from(message.to.get()).unwrap() - 3] += data.len();
            }
            cluster.deliver(message);
            settle(&mut cluster);
        }
    }
    assert!(received.iter().all(|bytes| (80..=120).contains(bytes)), "a third for each: {received:?}");
}
