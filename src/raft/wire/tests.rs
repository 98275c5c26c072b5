use crate::codec::{COUNTER_MAX, DecodeError, FeatureLevel};
use crate::raft::log::entry::{Entry, EntryKind};
use crate::raft::log::snapshot::{SnapshotMeta, SnapshotRefusal};
use crate::raft::membership::members::{Change, Member, Membership};
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{AnswerClock, AppendClock, Body, ClockReading, CommitAge, Message, ReadRefusal};
use crate::raft::types::{Incarnation, LogId, LogIndex, NodeId, ReadRound, Session, StoreId, Term, Time};
use bytes::Bytes;
use proptest::prelude::{BoxedStrategy, Just, ProptestConfig, Strategy, any, prop, proptest};
use proptest::{prop_assert, prop_assert_eq, prop_oneof};
use std::collections::BTreeSet;

fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    Message::decode(Bytes::copy_from_slice(bytes))
}

fn membership() -> Membership {
    let member = |name: &str, store| Member {
        name: name.into(),
        raft_addr: "host:1".into(),
        http_addr: "host:2".into(),
        store_id: StoreId(store),
    };
    let change = Change::AddMembers {
        members: vec![member("b", 2)],
        replaces: BTreeSet::from([NodeId::new(1)]),
        promote: true,
    };
    let (learning, added) = Membership::bootstrap([member("a", 1)]).unwrap().apply_change(&change).unwrap();
    learning.promote(added[0]).unwrap()
}

fn counter() -> impl Strategy<Value = u64> {
    prop_oneof![0..5_u64, 0..=COUNTER_MAX, Just(COUNTER_MAX)]
}

fn log_id() -> impl Strategy<Value = LogId> {
    (counter(), counter()).prop_map(|(term, index)| LogId::new(Term::new(term), LogIndex::new(index)))
}

fn data(bytes_max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..bytes_max).prop_map(Bytes::from)
}

fn session() -> impl Strategy<Value = Session> {
    any::<u64>().prop_map(Session::new)
}

fn kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![
        Just(EntryKind::Empty),
        Just(EntryKind::Command),
        Just(EntryKind::Membership),
        Just(EntryKind::Level)
    ]
}

fn time() -> impl Strategy<Value = Time> {
    (0..=COUNTER_MAX).prop_map(Time::new)
}

fn reading() -> impl Strategy<Value = ClockReading> {
    (counter(), any::<u64>(), time())
        .prop_map(|(number, nonce, at)| ClockReading { incarnation: Incarnation::drawn(number, nonce), at })
}

fn append_clock() -> impl Strategy<Value = AppendClock> {
    let age = (reading(), 0..=COUNTER_MAX).prop_map(|(reading, micros)| CommitAge { reading, micros });
    (time(), prop::option::of(age)).prop_map(|(sent_at, age)| AppendClock { sent_at, age })
}

fn answer_clock() -> impl Strategy<Value = AnswerClock> {
    (time(), reading()).prop_map(|(sent_at, reading)| AnswerClock { sent_at, reading })
}

/// An append whose entries follow each other, and the leader's term.
fn append() -> impl Strategy<Value = (u64, Body)> {
    let start = (0..COUNTER_MAX / 2, 0..COUNTER_MAX / 2);
    let entries = prop::collection::vec((0..3_u64, kind(), data(60)), 0..8);
    let numbers = (session(), counter(), counter(), counter());
    (start, entries, numbers, append_clock()).prop_map(
        |(start, parts, (session, commit, round, held), clock)| {
            let prev = LogId::new(Term::new(start.0), LogIndex::new(start.1));
            let mut last = prev;
            let mut entries = Vec::new();
            for (later, kind, data) in parts {
                // An entry's term is never zero.
                let term = Term::new((last.term.get() + later).max(1));
                last = LogId::new(term, last.index.next());
                entries.push(Entry::new(last, kind, &data));
            }
            let (commit, round) = (LogIndex::new(commit), ReadRound::new(round));
            let acknowledged = LogId::new(Term::new(start.0), LogIndex::new(held));
            let body = Body::AppendEntries { session, prev, acknowledged, entries, commit, round, clock };
            (last.term.get(), body)
        },
    )
}

fn install_snapshot() -> impl Strategy<Value = Body> {
    (session(), 0..COUNTER_MAX / 2, data(100), 0..1000_u64, any::<u128>(), (1..9_u64, 1..9_u64)).prop_map(
        |(session, offset, data, rest, hash, (term, index))| {
            let snapshot = SnapshotMeta {
                last: LogId::new(Term::new(term), LogIndex::new(index)),
                membership: membership(),
                membership_id: LogId::new(Term::new(1), LogIndex::new(1)),
                bytes: offset + data.len() as u64 + rest,
                hash,
            };
            Body::InstallSnapshot { session, snapshot: Box::new(snapshot), offset, data, done: rest == 0 }
        },
    )
}

fn refusal() -> impl Strategy<Value = SnapshotRefusal> {
    use SnapshotRefusal::{Content, Disk, NoRoom};
    prop_oneof![Just(NoRoom), Just(Disk), Just(Content)]
}

/// Every body without entries or chunks.
fn small_body() -> BoxedStrategy<Body> {
    let term = || counter().prop_map(Term::new);
    let index = || counter().prop_map(LogIndex::new);
    let round = || counter().prop_map(ReadRound::new);
    let incarnation =
        || (counter(), any::<u64>()).prop_map(|(number, nonce)| Incarnation::drawn(number, nonce));
    let question = || (incarnation(), counter());
    prop_oneof![
        (term(), log_id()).prop_map(|(campaign_term, last_log)| Body::PreVote { campaign_term, last_log }),
        term().prop_map(|campaign_term| Body::PreVoteGranted { campaign_term }),
        term().prop_map(|campaign_term| Body::PreVoteRejected { campaign_term }),
        (log_id(), any::<bool>()).prop_map(|(last_log, transfer)| Body::RequestVote { last_log, transfer }),
        Just(Body::VoteGranted),
        Just(Body::VoteRejected),
        (session(), index(), round(), answer_clock()).prop_map(|(session, match_index, round, clock)| {
            Body::AppendAccepted { session, match_index, round, clock }
        }),
        (session(), log_id(), log_id(), round(), answer_clock()).prop_map(
            |(session, rejected, hint, round, clock)| {
                Body::AppendRejected { session, rejected, hint, round, clock }
            }
        ),
        (round(), 0..=COUNTER_MAX, answer_clock()).prop_map(|(round, promised_micros, clock)| Body::Heard {
            round,
            promised_micros,
            clock
        }),
        (session(), log_id(), counter(), any::<bool>()).prop_map(
            |(session, snapshot, next_offset, is_lacking)| {
                Body::SnapshotProgress { session, snapshot, next_offset, is_lacking }
            }
        ),
        (session(), index())
            .prop_map(|(session, match_index)| Body::SnapshotInstalled { session, match_index }),
        (session(), log_id(), refusal()).prop_map(|(session, snapshot, why)| Body::SnapshotRefused {
            session,
            snapshot,
            why
        }),
        Just(Body::TimeoutNow),
        question().prop_map(|(incarnation, sequence)| Body::ReadIndex { incarnation, sequence }),
        (question(), index()).prop_map(|((incarnation, sequence), index)| {
            Body::ReadIndexReady { incarnation, sequence, index }
        }),
        (question(), prop_oneof![Just(ReadRefusal::NotLeading), Just(ReadRefusal::Overloaded)])
            .prop_map(|((incarnation, sequence), why)| Body::ReadIndexRefused { incarnation, sequence, why }),
        (log_id(), log_id())
            .prop_map(|(acknowledged, last)| Withdrawal::LostEntries { acknowledged, last })
            .prop_map(Body::Withdrawn),
        log_id().prop_map(|committed| Body::Withdrawn(Withdrawal::Contradicted { committed })),
        index().prop_map(|index| Body::Withdrawn(Withdrawal::Diverged { index })),
        any::<u64>()
            .prop_map(NodeId::new)
            .prop_map(|met_by| Body::Withdrawn(Withdrawal::OlderCopy { met_by })),
        any::<u64>()
            .prop_map(NodeId::new)
            .prop_map(|told_by| Body::Withdrawn(Withdrawal::Removed { told_by })),
    ]
    .boxed()
}

fn messages() -> impl Strategy<Value = Message> {
    let with_term = prop_oneof![
        4 => (counter(), small_body()),
        2 => append(),
        1 => (9..COUNTER_MAX, install_snapshot()),
    ];
    (any::<u64>(), any::<u64>(), with_term).prop_map(|(from, to, (term, body))| Message {
        from: NodeId::new(from),
        to: NodeId::new(to),
        term: Term::new(term),
        body,
    })
}

fn message(term: u64, body: Body) -> Message {
    Message { from: NodeId::new(1), to: NodeId::new(2), term: Term::new(term), body }
}

fn append_of(prev: (u64, u64), entries: &[(u64, u64)]) -> Body {
    let id = |(term, index)| LogId::new(Term::new(term), LogIndex::new(index));
    Body::AppendEntries {
        session: Session::new(7),
        prev: id(prev),
        acknowledged: LogId::ZERO,
        entries: entries.iter().map(|at| Entry::new(id(*at), EntryKind::Command, b"x")).collect(),
        commit: LogIndex::ZERO,
        round: ReadRound::ZERO,
        clock: AppendClock::default(),
    }
}

#[test]
fn entries_share_the_bytes_received() {
    let bytes = Bytes::from(encode(&message(2, append_of((1, 4), &[(1, 5), (2, 6)]))));
    let Body::AppendEntries { entries, .. } = Message::decode(bytes.clone()).unwrap().body else {
        panic!("an append was sent");
    };
    let within = bytes.as_ptr_range();
    assert!(entries.iter().all(|entry| within.contains(&entry.encoded().as_ptr())));
}

#[test]
fn entries_that_do_not_follow_each_other_are_refused() {
    for (why, prev, entries) in [
        ("a gap after prev", (1, 4), &[(1, 6)][..]),
        ("a gap between entries", (1, 4), &[(1, 5), (1, 7)]),
        ("the same index twice", (1, 4), &[(1, 5), (1, 5)]),
        ("a term below prev's", (2, 4), &[(1, 5)]),
        ("a falling term", (1, 4), &[(2, 5), (1, 6)]),
        ("a term above the leader's", (1, 4), &[(4, 5)]),
    ] {
        let decoded = decode(&encode(&message(3, append_of(prev, entries))));
        assert!(matches!(decoded, Err(DecodeError::Inconsistent { .. })), "{why}: {decoded:?}");
    }
    assert!(decode(&encode(&message(3, append_of((1, 4), &[(1, 5), (3, 6)])))).is_ok());
}

#[test]
fn a_count_of_entries_beyond_the_bytes_received_is_refused_before_allocation() {
    let mut bytes = encode(&message(3, append_of((1, 4), &[])));
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        decode(&bytes),
        Err(DecodeError::TooLong { what: "entries", length: u64::from(u32::MAX), limit: 0 })
    );
}

/// A node that installed it would be in an earlier term than its log.
#[test]
fn a_snapshot_of_a_later_term_than_its_leaders_is_refused() {
    for (term, sound) in [(4, false), (5, true), (6, true)] {
        let snapshot = SnapshotMeta {
            last: LogId::new(Term::new(5), LogIndex::new(9)),
            membership: membership(),
            membership_id: LogId::new(Term::new(1), LogIndex::new(1)),
            bytes: 10,
            hash: 5,
        };
        let body = Body::InstallSnapshot {
            session: Session::new(1),
            snapshot: Box::new(snapshot),
            offset: 0,
            data: Bytes::from_static(b"0123456789"),
            done: true,
        };
        assert_eq!(decode(&encode(&message(term, body))).is_ok(), sound, "{term}");
    }
}

#[test]
fn chunks_outside_their_snapshot_are_refused() {
    let snapshot = SnapshotMeta {
        last: LogId::new(Term::new(1), LogIndex::new(9)),
        membership: membership(),
        membership_id: LogId::new(Term::new(1), LogIndex::new(1)),
        bytes: 10,
        hash: 5,
    };
    for (offset, length, done, sound) in [
        (0, 10, true, true),
        (4, 6, true, true),
        (4, 6, false, true),
        (4, 5, true, false),
        (4, 7, false, false),
    ] {
        let data = Bytes::from(vec![0; length]);
        let body = Body::InstallSnapshot {
            session: Session::new(1),
            snapshot: Box::new(snapshot.clone()),
            offset,
            data,
            done,
        };
        assert_eq!(decode(&encode(&message(1, body))).is_ok(), sound, "{offset} {length} {done}");
    }
    let breakers: [fn(&mut SnapshotMeta); 4] = [
        |s| s.membership_id.index = LogIndex::new(10),
        |s| s.last.index = LogIndex::new(u64::MAX),
        |s| s.bytes = u64::MAX,
        |s| s.membership.voters.clear(),
    ];
    for (number, breaker) in breakers.iter().enumerate() {
        let mut snapshot = snapshot.clone();
        breaker(&mut snapshot);
        assert!(SnapshotMeta::decode(&snapshot.encode()).is_err(), "{number}");
    }
}

#[test]
fn counters_that_would_overflow_are_refused() {
    let clock = AnswerClock::default();
    let of_the_future = AnswerClock { sent_at: Time::new(COUNTER_MAX + 1), ..clock };
    for body in [
        Body::PreVoteGranted { campaign_term: Term::new(u64::MAX) },
        Body::Heard { round: ReadRound::new(COUNTER_MAX + 1), promised_micros: 0, clock },
        Body::Heard { round: ReadRound::ZERO, promised_micros: COUNTER_MAX + 1, clock },
        Body::Heard { round: ReadRound::ZERO, promised_micros: 0, clock: of_the_future },
        Body::SnapshotInstalled { session: Session::new(0), match_index: LogIndex::new(u64::MAX) },
    ] {
        assert!(matches!(decode(&encode(&message(1, body))), Err(DecodeError::Invalid { .. })));
    }
    assert!(decode(&encode(&message(u64::MAX, Body::TimeoutNow))).is_err(), "the header's term as well");
}

#[test]
fn unknown_tags_and_flags_are_refused() {
    let mut bytes = encode(&message(1, Body::TimeoutNow));
    for tag in [0, 21, 255] {
        bytes[0] = tag;
        assert_eq!(decode(&bytes), Err(DecodeError::Invalid { what: "message tag", value: u64::from(tag) }));
    }
    let mut bytes = encode(&message(1, Body::RequestVote { last_log: LogId::ZERO, transfer: true }));
    *bytes.last_mut().unwrap() = 2;
    assert_eq!(decode(&bytes), Err(DecodeError::Invalid { what: "transfer", value: 2 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn messages_survive_the_wire(message in messages()) {
        prop_assert_eq!(decode(&encode(&message)), Ok(message));
    }

    #[test]
    fn cut_or_extended_messages_are_refused(message in messages(), cut in any::<prop::sample::Index>()) {
        let mut bytes = encode(&message);
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(decode(&bytes).is_err());
    }

    /// A flipped bit is refused, or changes something that the frame's checksum covers; the entries
    /// have their own.
    #[test]
    fn flipped_bits_never_panic_nor_change_an_entry(
        message in messages(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let mut bytes = encode(&message);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(Message { body: Body::AppendEntries { entries, .. }, .. }) = decode(&bytes)
            && let Body::AppendEntries { entries: sent, .. } = message.body
        {
            prop_assert_eq!(entries, sent);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(tag in 0_u8..21, mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        bytes.insert(0, tag);
        let _ = decode(&bytes);
    }
}

#[test]
fn a_node_of_level_7_hears_a_refusal_without_its_reason() {
    let (from, to, term) = (NodeId::new(1), NodeId::new(2), Term::new(3));
    let refused = |why| {
        let incarnation = Incarnation::drawn(4, 5);
        Message { from, to, term, body: Body::ReadIndexRefused { incarnation, sequence: 6, why } }
    };
    let mut bytes = Vec::new();
    refused(ReadRefusal::Overloaded).encode_at(FeatureLevel::OLDEST, &mut bytes);
    assert_eq!((bytes[0], bytes.len()), (17, 1 + 6 * 8));
    assert_eq!(Message::decode(Bytes::from(bytes)), Ok(refused(ReadRefusal::NotLeading)));
}
