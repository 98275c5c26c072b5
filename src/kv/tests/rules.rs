//! The rules, one by one.

use crate::codec::Reader;
use crate::kv::{
    BadCommand, CHANGES_MAX, COMMAND_BYTES_MAX, ChangesQuery, Command, Compare, CompareOrder, Event,
    KEY_BYTES_MAX, KeyRange, LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN, LeaseId, Op, Outcome,
    PAGE_BYTES_MAX, PAGE_KEYS_MAX, Put, RangeQuery, ReadError, Refusal, Revision, RevisionChanges, Settings,
    Store, TXN_DEPTH_MAX, TXN_STEPS_MAX, Target, Txn, TxnOp, TxnResult, VALUE_BYTES_MAX,
};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

const TERM: u64 = 3;

fn apply(store: &mut Store, op: impl Into<Op>) -> Outcome {
    let op = op.into();
    assert_eq!(op.check(), Ok(()), "{op:?}");
    store.apply(TERM, &op.into())
}

impl From<Txn> for Op {
    fn from(txn: Txn) -> Self {
        Self::Txn(Box::new(txn))
    }
}

fn put(key: &'static str, value: &'static str) -> TxnOp {
    TxnOp::Put(Put { key: key.into(), value: value.into(), lease: LeaseId::NONE })
}

fn leased(key: &str, lease: u64) -> Put {
    Put { key: Bytes::copy_from_slice(key.as_bytes()), value: "v".into(), lease: LeaseId(lease) }
}

fn get(key: &'static str) -> TxnOp {
    TxnOp::Get(RangeQuery::of(KeyRange::one(key)))
}

fn then(success: impl Into<Vec<TxnOp>>) -> Txn {
    Txn { success: success.into(), ..Txn::default() }
}

fn nested(txn: Txn) -> TxnOp {
    TxnOp::Txn(Box::new(txn))
}

fn compare(key: &'static str, target: Target, order: CompareOrder) -> Compare {
    Compare { range: KeyRange::one(key), target, order }
}

fn at(range: KeyRange, revision: u64) -> RangeQuery {
    RangeQuery { at: Some(Revision(revision)), ..RangeQuery::of(range) }
}

fn changes_from(from: u64) -> ChangesQuery {
    ChangesQuery { range: KeyRange::all(), from: Revision(from), puts: true, deletions: true, previous: true }
}

fn configure(store: &mut Store, change: impl FnOnce(&mut Settings)) {
    let mut settings = *store.settings();
    change(&mut settings);
    assert_eq!(apply(store, Op::Configure(settings)), Outcome::Configured(settings));
}

/// The values of a range, as text.
fn values(store: &Store, query: &RangeQuery) -> Result<Vec<Bytes>, ReadError> {
    store.range(query).map(|page| page.kvs.into_iter().map(|found| found.value).collect())
}

fn holds(store: &Store, compare: Compare) -> bool {
    let txn = Txn { compare: [compare].into(), ..Txn::default() };
    match apply(&mut store.clone(), txn) {
        Outcome::Txn { succeeded, .. } => succeeded,
        other => panic!("{other:?}"),
    }
}

fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

// Revisions.

#[test]
fn a_delete_that_removes_nothing_makes_no_revision() {
    let mut store = Store::new();
    apply(&mut store, Op::set("a", "1"));
    for range in [KeyRange::one("b"), KeyRange::prefix("b"), KeyRange { start: "aa".into(), end: None }] {
        let outcome = apply(&mut store, Op::Delete(range));
        assert_eq!(outcome, Outcome::Deleted { revision: Revision(1), count: 0 });
    }
    assert_eq!(store.changes(&changes_from(1)).unwrap().revisions.len(), 1);
}

#[test]
fn a_transaction_that_only_reads_makes_no_revision() {
    let mut store = Store::new();
    apply(&mut store, Op::set("a", "1"));
    let txn = then([get("a"), TxnOp::Delete(KeyRange::one("b")), nested(then([get("a")]))]);
    let Outcome::Txn { revision, results, .. } = apply(&mut store, txn) else { panic!("it is one") };
    assert_eq!((revision, store.revision()), (Revision(1), Revision(1)));
    let TxnResult::Range(page) = &results[0] else { panic!("it is a read") };
    assert_eq!(page.revision, Revision(1));
}

#[test]
fn all_changes_of_a_transaction_are_one_revision_in_their_order() {
    let mut store = Store::new();
    apply(&mut store, Op::set("b", "0"));
    apply(&mut store, Op::set("c", "0"));
    let txn = then([put("z", "1"), TxnOp::Delete(KeyRange::prefix("b")), nested(then([put("a", "2")]))]);
    apply(&mut store, txn);
    let changes = store.changes(&changes_from(3)).unwrap();
    assert_eq!((changes.revisions.len(), changes.next), (1, Revision(4)));
    let RevisionChanges { revision, events } = &changes.revisions[0];
    let keys: Vec<&[u8]> = events.iter().map(|event| &event.key[..]).collect();
    assert_eq!((*revision, keys), (Revision(3), vec![&b"z"[..], b"b", b"a"]));
    assert!(events[1].now.is_none() && events[1].previous.is_some(), "a deletion carries its key");
}

#[test]
fn ends_of_leases_are_one_revision() {
    let mut store = Store::new();
    for id in [5, 6] {
        apply(&mut store, Op::Grant { id: LeaseId(id), ttl_seconds: 10 });
        apply(&mut store, Op::Put(leased(&format!("{id}a"), id)));
        apply(&mut store, Op::Put(leased(&format!("{id}b"), id)));
    }
    let mut revoked = store.clone();
    let outcome = apply(&mut revoked, Op::Revoke(LeaseId(5)));
    assert_eq!(outcome, Outcome::Revoked { revision: Revision(5), keys: 2 });
    let leases = [5, 6].map(|id| (LeaseId(id), store.lease(LeaseId(id)).unwrap().grant)).to_vec();
    let outcome = apply(&mut store, Op::Expire { term: TERM, leases });
    assert_eq!(outcome, Outcome::Revoked { revision: Revision(5), keys: 4 });
    assert!(store.is_empty());
}

// Reads of the past.

#[test]
fn a_read_at_exactly_the_compacted_revision_succeeds_and_below_it_is_refused() {
    let mut store = Store::new();
    for value in ["1", "2", "3", "4"] {
        apply(&mut store, Op::set("a", value));
    }
    assert_eq!(apply(&mut store, Op::Compact(Revision(3))), Outcome::Compacted(Revision(3)));
    assert_eq!(values(&store, &at(KeyRange::all(), 3)), Ok(vec!["3".into()]));
    assert_eq!(store.range(&at(KeyRange::all(), 2)), Err(ReadError::Compacted(Revision(3))));
    assert_eq!(store.range(&at(KeyRange::all(), 5)), Err(ReadError::Future(Revision(4))));
    assert_eq!(refused(apply(&mut store, Op::Compact(Revision(2)))), Refusal::Compacted(Revision(3)));
    assert_eq!(refused(apply(&mut store, Op::Compact(Revision(5)))), Refusal::Future(Revision(4)));
    assert_eq!(apply(&mut store, Op::Compact(Revision(4))), Outcome::Compacted(Revision(4)));
    assert_eq!(store.get(b"a").unwrap().value, "4", "a compaction forgets no live version");
}

#[test]
fn what_changed_from_a_compacted_revision_is_refused_with_the_first_that_is_there() {
    let mut store = Store::new();
    for value in ["1", "2", "3", "4"] {
        apply(&mut store, Op::set("a", value));
    }
    assert_eq!(store.changes(&changes_from(0)).unwrap().revisions.len(), 4);
    apply(&mut store, Op::Compact(Revision(2)));
    for from in [0, 1, 2] {
        assert_eq!(store.changes(&changes_from(from)), Err(ReadError::Compacted(Revision(3))));
    }
    assert_eq!(store.changes(&changes_from(3)).unwrap().revisions.len(), 2);
    let future = store.changes(&changes_from(9)).unwrap();
    assert_eq!((future.revisions.len(), future.next), (0, Revision(9)), "it waits");
}

#[test]
fn a_key_that_was_deleted_and_made_again_is_read_at_every_revision() {
    let mut store = Store::new();
    apply(&mut store, Op::set("a", "1"));
    apply(&mut store, Op::delete("a"));
    apply(&mut store, Op::set("a", "2"));
    apply(&mut store, Op::delete("a"));
    let expected: [&[&str]; 5] = [&[], &["1"], &[], &["2"], &[]];
    for (revision, expected) in (0..).zip(expected) {
        let found = values(&store, &at(KeyRange::one("a"), revision)).unwrap();
        assert_eq!(found, expected, "at {revision}");
    }
}

#[test]
fn a_page_of_the_past_goes_on_behind_a_key_with_a_long_history() {
    let mut store = Store::new();
    apply(&mut store, Op::set("b", "0"));
    for _ in 0..25_000 {
        apply(&mut store, Op::set("a", ""));
    }
    let whole = at(KeyRange::all(), 1);
    let (mut keys, mut resume) = (Vec::new(), None);
    for _ in 0..4 {
        let page = store.range(&RangeQuery { resume, ..whole.clone() }).unwrap();
        keys.extend(page.kvs.into_iter().map(|found| found.key));
        resume = page.next;
        if resume.is_none() {
            break;
        }
    }
    assert_eq!((keys, resume), (vec![Bytes::from("b")], None));
    // A transaction's reads share what one may look at.
    let many = (0..400).map(|_| TxnOp::Get(at(KeyRange::all(), 24_900))).collect::<Vec<_>>();
    let Outcome::Txn { results, .. } = apply(&mut store, then(many)) else { panic!("it is one") };
    for result in results {
        let TxnResult::Range(page) = result else { panic!("it is a read") };
        assert!(page.next.is_none_or(|next| next > "a"), "it gets on");
    }
}

#[test]
fn a_page_of_the_past_looks_at_so_much_and_says_where_the_next_one_begins() {
    let mut store = Store::new();
    for number in 0..25_000 {
        apply(&mut store, Op::set(format!("{number:05}"), ""));
    }
    apply(&mut store, Op::delete("24999"));
    let mut pages = 0;
    let mut query = at(KeyRange::all(), 1);
    loop {
        let page = store.range(&query).unwrap();
        assert_eq!(page.kvs.len(), usize::from(pages == 0));
        pages += 1;
        query.resume = page.next;
        if query.resume.is_none() {
            break;
        }
    }
    assert!((2..10).contains(&pages), "{pages} pages");
}

#[test]
fn the_reads_of_a_transaction_share_what_one_may_answer() {
    let mut store = Store::new();
    for number in 0..20 {
        apply(&mut store, Op::set(format!("{number:02}"), vec![7; 100_000]));
    }
    let reads = || TxnOp::Get(RangeQuery::of(KeyRange::all()));
    let txn = then([reads(), reads(), nested(then([reads(), reads()]))]);
    let Outcome::Txn { results, .. } = apply(&mut store, txn) else { panic!("it is one") };
    let TxnResult::Txn { results: inner, .. } = &results[2] else { panic!("it is one") };
    let mut bytes = 0;
    for result in results[..2].iter().chain(inner) {
        let TxnResult::Range(page) = result else { panic!("it is a read") };
        assert!(!page.kvs.is_empty() && page.next.is_some());
        bytes += page.kvs.iter().map(|found| found.bytes()).sum::<usize>();
    }
    assert!(bytes <= PAGE_BYTES_MAX + 4 * 100_002, "{bytes}");
}

#[test]
fn the_number_of_keys_is_that_before_any_limit_at_every_revision() {
    let mut store = Store::new();
    for key in ["a", "b", "c"] {
        apply(&mut store, Op::set(key, "1"));
    }
    apply(&mut store, Op::Delete(KeyRange::all()));
    for (revision, count) in [(0, 0), (1, 1), (3, 3), (4, 0)] {
        let query = RangeQuery { limit: 1, count: true, ..at(KeyRange::all(), revision) };
        assert_eq!(store.range(&query).unwrap().count, Some(count), "at {revision}");
    }
}

// History.

#[test]
fn history_stays_within_its_bytes_and_forgets_the_oldest_first() {
    for history_bytes in [0, 100, 1_000, 10_000, 100_000] {
        let mut store = Store::new();
        configure(&mut store, |settings| settings.history_bytes = history_bytes);
        for number in 0..2_000 {
            apply(&mut store, Op::set(format!("{}", number % 7), format!("{number:0100}")));
            assert!(store.history_bytes() <= history_bytes);
            let oldest = store.compacted().0;
            assert!(store.range(&at(KeyRange::all(), oldest)).is_ok());
            assert_eq!(store.changes(&changes_from(oldest + 1)).unwrap().next, store.revision().next());
        }
        let is_used = store.history_bytes() >= history_bytes / 2;
        assert!(is_used || history_bytes < 1_000, "{} of {history_bytes}", store.history_bytes());
        configure(&mut store, |settings| settings.history_bytes = 0);
        assert_eq!((store.history_bytes(), store.compacted()), (0, store.revision()));
    }
}

#[test]
fn a_revision_larger_than_the_history_is_not_kept_and_nothing_before_it() {
    let mut store = Store::new();
    configure(&mut store, |settings| settings.history_bytes = 3_000);
    for number in 0..10 {
        apply(&mut store, Op::set(format!("{number}"), format!("{number:0500}")));
    }
    apply(&mut store, Op::Delete(KeyRange::all()));
    assert_eq!((store.compacted(), store.history_bytes()), (Revision(11), 0));
    assert_eq!(store.range(&at(KeyRange::all(), 11)).unwrap().kvs, []);
    for number in 0..3 {
        apply(&mut store, Op::set(format!("{number}"), "x"));
    }
    assert_eq!(store.changes(&changes_from(12)).unwrap().revisions.len(), 3);
    assert_eq!(values(&store, &at(KeyRange::all(), 12)), Ok(vec!["x".into()]));
    let body: Vec<u8> = store.snapshot_pieces().flatten().collect();
    let mut reader = crate::kv::StoreReader::new();
    reader.push(&body).unwrap();
    assert_eq!(reader.finish().unwrap().state_hash(), store.state_hash());
}

#[test]
fn large_values_of_the_past_are_part_of_the_hash() {
    let store_of = |first: u8| {
        let mut store = Store::new();
        apply(&mut store, Op::set("a", vec![first; 600]));
        apply(&mut store, Op::set("a", "now"));
        store
    };
    assert_eq!(store_of(1).state_hash(), store_of(1).state_hash());
    assert_ne!(store_of(1).state_hash(), store_of(2).state_hash());
}

#[test]
fn where_the_history_is_cut_is_part_of_the_hash() {
    // What is forgotten at once hangs on it.
    let store_of = |history_bytes| {
        let mut store = Store::new();
        configure(&mut store, |settings| settings.history_bytes = history_bytes);
        for number in 0..5 {
            apply(&mut store, Op::set("a", format!("{number:0300}")));
        }
        configure(&mut store, |settings| *settings = Settings::default());
        store
    };
    let (coarse, fine) = (store_of(Settings::default().history_bytes), store_of(20_000));
    let query = changes_from(1);
    assert_eq!((coarse.compacted(), coarse.changes(&query)), (fine.compacted(), fine.changes(&query)));
    assert_ne!(coarse.state_hash(), fine.state_hash());
}

#[test]
fn a_snapshot_with_a_key_of_no_lease_is_refused() {
    let mut store = Store::new();
    apply(&mut store, Op::Grant { id: LeaseId(4), ttl_seconds: 9 });
    apply(&mut store, Op::Put(leased("a", 4)));
    let read = |store: &Store| {
        let mut reader = crate::kv::StoreReader::new();
        store.snapshot_pieces().try_for_each(|piece| reader.push(&piece))?;
        reader.finish().map(|again| again.state_hash())
    };
    assert_eq!(read(&store), Ok(store.state_hash()));
    store.leases.end(LeaseId(4));
    assert!(read(&store).is_err());
}

#[test]
fn a_page_of_changes_holds_whole_revisions_and_is_bounded() {
    let mut store = Store::new();
    for number in 0..100u8 {
        apply(
            &mut store,
            then([
                TxnOp::Put(Put { key: "a".into(), value: vec![number; 40_000].into(), lease: LeaseId::NONE }),
                put("b", "v"),
            ]),
        );
    }
    let (mut next, mut revisions) = (1, 0);
    while next <= 100 {
        let changes = store.changes(&ChangesQuery { previous: false, ..changes_from(next) }).unwrap();
        let bytes: usize = changes.revisions.iter().flat_map(|it| &it.events).map(Event::bytes).sum();
        assert!(bytes <= PAGE_BYTES_MAX + 50_000 && !changes.revisions.is_empty());
        for revision in &changes.revisions {
            assert_eq!((revision.revision.0, revision.events.len()), (next, 2));
            (next, revisions) = (next + 1, revisions + 1);
        }
        assert_eq!(changes.next.0, next);
    }
    assert_eq!(revisions, 100);
}

// Transactions.

#[test]
fn a_missing_key_compares_as_zero_and_its_value_not_at_all() {
    let store = Store::new();
    let numbers = |number: u64| {
        [
            Target::Version(number),
            Target::CreateRevision(Revision(number)),
            Target::ModRevision(Revision(number)),
            Target::Lease(LeaseId(number)),
        ]
    };
    for zero in numbers(0) {
        assert!(holds(&store, compare("a", zero.clone(), CompareOrder::Equal)));
        assert!(!holds(&store, compare("a", zero, CompareOrder::NotEqual)));
    }
    for one in numbers(1) {
        assert!(holds(&store, compare("a", one.clone(), CompareOrder::Less)));
        assert!(!holds(&store, compare("a", one, CompareOrder::Greater)));
    }
    for order in [CompareOrder::Equal, CompareOrder::NotEqual, CompareOrder::Less, CompareOrder::Greater] {
        assert!(!holds(&store, compare("a", Target::Value("".into()), order)), "{order:?}");
        assert!(!holds(&store, compare("a", Target::Value("x".into()), order)), "{order:?}");
    }
}

#[test]
fn a_comparison_of_a_range_is_of_all_keys_that_exist() {
    let mut store = Store::new();
    let of = |version| Compare {
        range: KeyRange::prefix("a"),
        target: Target::Version(version),
        order: CompareOrder::Equal,
    };
    assert!(holds(&store, of(7)), "there is none that differs");
    apply(&mut store, Op::set("a1", ""));
    apply(&mut store, Op::set("a2", ""));
    apply(&mut store, Op::set("b", ""));
    assert!(holds(&store, of(1)) && !holds(&store, of(2)));
    apply(&mut store, Op::set("a2", ""));
    assert!(!holds(&store, of(1)) && !holds(&store, of(2)));
}

#[test]
fn comparisons_see_the_state_before_the_transaction_and_reads_what_was_done_before_them() {
    let mut store = Store::new();
    let is_missing = compare("a", Target::Version(0), CompareOrder::Equal);
    let inner = Txn { compare: [is_missing].into(), success: [put("b", "1")].into(), ..Txn::default() };
    let outcome = apply(&mut store, then([get("a"), put("a", "1"), get("a"), nested(inner)]));
    let Outcome::Txn { revision, succeeded: true, results } = outcome else { panic!("{outcome:?}") };
    let [TxnResult::Range(before), TxnResult::Put { version: 1 }, TxnResult::Range(after), inner] =
        &results[..]
    else {
        panic!("{results:?}")
    };
    assert_eq!((before.revision, before.kvs.len()), (Revision(0), 0));
    assert_eq!((after.revision, after.kvs.len()), (revision, 1));
    assert_eq!(*inner, TxnResult::Txn { succeeded: true, results: [TxnResult::Put { version: 1 }].into() });
}

#[test]
fn a_transaction_that_puts_a_key_twice_is_refused_across_nesting() {
    let branches =
        |one: TxnOp, other: TxnOp| Txn { success: [one].into(), failure: [other].into(), ..Txn::default() };
    let (a, b) = (|| put("a", "1"), || put("b", "1"));
    let bad = [
        then([a(), a()]),
        then([a(), nested(then([a()]))]),
        then([nested(then([a()])), nested(then([a()]))]),
        then([nested(branches(b(), a())), a()]),
        then([nested(branches(b(), nested(branches(b(), a())))), a()]),
        branches(b(), nested(then([a(), a()]))),
    ];
    for txn in bad {
        assert_eq!(Op::from(txn.clone()).check(), Err(BadCommand::PutTwice), "{txn:?}");
    }
    for txn in [branches(a(), a()), then([nested(branches(a(), a())), b()])] {
        assert_eq!(Op::from(txn.clone()).check(), Ok(()), "only one branch is taken: {txn:?}");
    }
}

#[test]
fn a_put_into_a_range_that_is_deleted_is_refused_across_nesting() {
    let branches =
        |one: TxnOp, other: TxnOp| Txn { success: [one].into(), failure: [other].into(), ..Txn::default() };
    let (a, delete) = (|| put("a", "1"), || TxnOp::Delete(KeyRange::prefix("a")));
    let bad = [
        then([a(), delete()]),
        then([delete(), a()]),
        then([delete(), nested(then([a()]))]),
        then([nested(then([delete()])), a()]),
        then([nested(branches(put("b", ""), delete())), nested(branches(a(), put("c", "")))]),
    ];
    for txn in bad {
        assert_eq!(Op::from(txn.clone()).check(), Err(BadCommand::PutIntoDeleted), "{txn:?}");
    }
    let good = [
        branches(a(), delete()),
        then([nested(branches(a(), delete()))]),
        then([put("b", ""), nested(branches(nested(branches(a(), delete())), delete()))]),
        then([delete(), delete(), put("b", "")]),
    ];
    for txn in good {
        assert_eq!(Op::from(txn.clone()).check(), Ok(()), "{txn:?}");
    }
}

#[test]
fn a_transaction_is_bounded_in_steps_and_depth() {
    let deep = |depth| (1..depth).fold(then([]), |inner, _| then([nested(inner)]));
    assert_eq!(Op::from(deep(TXN_DEPTH_MAX)).check(), Ok(()));
    assert_eq!(Op::from(deep(TXN_DEPTH_MAX + 1)).check(), Err(BadCommand::Deep));
    let many = |count| then((0..count).map(|_| get("a")).collect::<Vec<_>>());
    assert_eq!(Op::from(many(TXN_STEPS_MAX)).check(), Ok(()));
    assert_eq!(Op::from(many(TXN_STEPS_MAX + 1)).check(), Err(BadCommand::ManySteps(TXN_STEPS_MAX + 1)));
    let mut inside = then([nested(many(TXN_STEPS_MAX - 1))]);
    assert_eq!(Op::from(inside.clone()).check(), Ok(()));
    inside.compare.push(compare("a", Target::Version(0), CompareOrder::Equal));
    assert_eq!(Op::from(inside).check(), Err(BadCommand::ManySteps(TXN_STEPS_MAX + 1)));
}

#[test]
fn what_passes_the_check_can_be_read_from_the_log() {
    let long = |length: usize| Bytes::from(vec![b'x'; length]);
    let range = || KeyRange::one(long(KEY_BYTES_MAX));
    let query = RangeQuery {
        range: range(),
        resume: Some(long(KEY_BYTES_MAX + 1)),
        delimiter: Some(long(KEY_BYTES_MAX)),
        ..RangeQuery::of(KeyRange::all())
    };
    let queries = [
        query.clone(),
        RangeQuery { resume: Some(long(KEY_BYTES_MAX + 2)), ..query.clone() },
        RangeQuery { delimiter: Some(long(KEY_BYTES_MAX + 2)), ..query.clone() },
        RangeQuery { delimiter: Some(Bytes::new()), resume: Some(Bytes::new()), ..query },
    ];
    let mut ops: Vec<Op> = queries.into_iter().map(|query| then([TxnOp::Get(query)]).into()).collect();
    let value =
        |length| Compare { range: range(), target: Target::Value(long(length)), order: CompareOrder::Equal };
    for length in [VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1, COMMAND_BYTES_MAX - 2 * KEY_BYTES_MAX - 1] {
        ops.push(Txn { compare: [value(length)].into(), ..Txn::default() }.into());
    }
    ops.push(Op::Delete(range()));
    ops.push(Op::Delete(KeyRange { start: long(KEY_BYTES_MAX), end: Some(long(KEY_BYTES_MAX + 1)) }));
    ops.push(Op::Expire { term: 1, leases: vec![(LeaseId(1), 1); 100_000] });
    ops.push(Op::Expire { term: 1, leases: vec![(LeaseId(1), 1); 10] });
    let mut passed = 0;
    for op in ops {
        let command = Command::from(op);
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        let read = Command::decode(Reader::new(bytes.into()));
        assert_eq!(read.is_ok(), command.check().is_ok(), "{:?}", command.check());
        passed += usize::from(read.is_ok());
    }
    assert!(passed >= 4, "{passed}");
}

#[test]
fn an_unknown_lease_or_an_unreadable_revision_fails_the_whole_transaction() {
    let mut store = Store::new();
    apply(&mut store, Op::set("a", "1"));
    let before = store.state_hash();
    let txn = then([put("b", "1"), TxnOp::Delete(KeyRange::one("a")), TxnOp::Put(leased("c", 7))]);
    assert_eq!(refused(apply(&mut store, txn)), Refusal::NoLease(LeaseId(7)));
    let txn = then([put("b", "1"), nested(then([TxnOp::Get(at(KeyRange::all(), 2))]))]);
    assert_eq!(refused(apply(&mut store, txn)), Refusal::Future(Revision(1)));
    assert_eq!(store.state_hash(), before);
    // In a branch that is not taken they do no harm.
    let missing = compare("a", Target::Version(0), CompareOrder::Equal);
    let txn =
        Txn { compare: [missing].into(), success: [TxnOp::Put(leased("c", 7))].into(), failure: [].into() };
    assert!(matches!(apply(&mut store, txn), Outcome::Txn { succeeded: false, .. }));
}

#[test]
fn a_transaction_looks_back_so_far_and_no_further() {
    let mut store = Store::new();
    for _ in 0..500 {
        apply(&mut store, then([put("a", "1"), put("b", "1")]));
    }
    let count = |reads: usize| {
        let query = RangeQuery { count: true, ..at(KeyRange::all(), 0) };
        then((0..reads).map(|_| TxnOp::Get(query.clone())).collect::<Vec<_>>())
    };
    assert!(matches!(apply(&mut store, count(100)), Outcome::Txn { .. }));
    let refusal = Refusal::TooManyChanges { keys: CHANGES_MAX + 2, limit: CHANGES_MAX };
    assert_eq!(refused(apply(&mut store, count(101))), refusal);
}

#[test]
fn the_first_read_that_cannot_be_answered_says_why() {
    let mut store = Store::new();
    for _ in 0..3 {
        apply(&mut store, Op::set("a", "1"));
    }
    apply(&mut store, Op::Compact(Revision(2)));
    let txn = then([TxnOp::Get(at(KeyRange::all(), 1)), TxnOp::Get(at(KeyRange::all(), 9))]);
    assert_eq!(refused(apply(&mut store, txn)), Refusal::Compacted(Revision(2)));
}

// Leases.

#[test]
fn a_time_to_live_is_raised_to_the_minimum_and_lowered_to_the_maximum() {
    let mut store = Store::new();
    for (asked, granted) in [
        (0, LEASE_TTL_SECONDS_MIN),
        (LEASE_TTL_SECONDS_MIN + 1, LEASE_TTL_SECONDS_MIN + 1),
        (u64::MAX, LEASE_TTL_SECONDS_MAX),
    ] {
        let outcome = apply(&mut store, Op::Grant { id: LeaseId::NONE, ttl_seconds: asked });
        let Outcome::Granted { id, ttl_seconds } = outcome else { panic!("{outcome:?}") };
        assert_eq!(ttl_seconds, granted);
        assert_eq!(store.lease(id).unwrap().ttl_seconds, granted);
    }
}

#[test]
fn a_client_may_choose_the_id_of_a_lease_and_the_store_chooses_one_that_is_free() {
    let mut store = Store::new();
    let grant = |store: &mut Store, id| match apply(store, Op::Grant { id: LeaseId(id), ttl_seconds: 9 }) {
        Outcome::Granted { id, .. } => Ok(id.0),
        other => Err(refused(other)),
    };
    assert_eq!(grant(&mut store, 2), Ok(2));
    assert_eq!(grant(&mut store, 2), Err(Refusal::LeaseExists(LeaseId(2))));
    assert_eq!(grant(&mut store, 0), Ok(3), "2 is taken");
    assert_eq!(grant(&mut store, u64::MAX), Ok(u64::MAX));
    apply(&mut store, Op::Put(leased("a", u64::MAX)));
    assert_eq!(store.lease(LeaseId(u64::MAX)).unwrap().keys, 1);
    assert_eq!(refused(apply(&mut store, Op::Revoke(LeaseId(99)))), Refusal::NoLease(LeaseId(99)));
}

#[test]
fn a_deposed_leader_ends_no_lease_and_nobody_one_that_was_granted_anew() {
    let mut store = Store::new();
    let grant = Op::Grant { id: LeaseId(4), ttl_seconds: 9 };
    apply(&mut store, grant.clone());
    apply(&mut store, Op::Put(leased("a", 4)));
    let first = store.lease(LeaseId(4)).unwrap().grant;
    let expire = |term, grant| Op::Expire { term, leases: [(LeaseId(4), grant)].into() };
    let nothing = Outcome::Revoked { revision: Revision(1), keys: 0 };
    assert_eq!(apply(&mut store, expire(TERM - 1, first)), nothing);
    assert_eq!(apply(&mut store, expire(TERM + 1, first)), nothing);
    apply(&mut store, Op::Revoke(LeaseId(4)));
    apply(&mut store, grant);
    apply(&mut store, Op::Put(leased("a", 4)));
    let nothing = Outcome::Revoked { revision: Revision(3), keys: 0 };
    assert_eq!(apply(&mut store, expire(TERM, first)), nothing);
    let second = store.lease(LeaseId(4)).unwrap().grant;
    assert_eq!(apply(&mut store, expire(TERM, second)), Outcome::Revoked { revision: Revision(4), keys: 1 });
}

#[test]
fn a_put_moves_a_key_to_its_lease_and_one_without_detaches_it() {
    let mut store = Store::new();
    for id in [1, 2] {
        apply(&mut store, Op::Grant { id: LeaseId(id), ttl_seconds: 9 });
    }
    let keys = |store: &Store| [1, 2].map(|id| store.lease(LeaseId(id)).unwrap().keys);
    for (lease, expected) in [(1, [1, 0]), (1, [1, 0]), (2, [0, 1]), (0, [0, 0]), (2, [0, 1])] {
        apply(&mut store, Op::Put(leased("a", lease)));
        assert_eq!((keys(&store), store.get(b"a").unwrap().lease), (expected, LeaseId(lease)));
    }
    apply(&mut store, Op::delete("a"));
    assert_eq!(keys(&store), [0, 0]);
    apply(&mut store, Op::set("a", "5"));
    apply(&mut store, Op::Revoke(LeaseId(2)));
    assert!(store.get(b"a").is_some());
}

#[test]
fn an_increment_keeps_the_lease_of_the_key() {
    let mut store = Store::new();
    apply(&mut store, Op::Grant { id: LeaseId(1), ttl_seconds: 9 });
    apply(&mut store, Op::Put(Put { key: "n".into(), value: "41".into(), lease: LeaseId(1) }));
    let outcome = apply(&mut store, Op::Increment { key: "n".into(), by: 1 });
    assert_eq!(outcome, Outcome::Incremented { revision: Revision(2), version: 2, value: 42 });
    assert_eq!(store.get(b"n").unwrap().lease, LeaseId(1));
}

#[test]
fn increments_refuse_what_is_no_number_and_what_does_not_fit() {
    let mut store = Store::new();
    let add = |key: &'static str, by| Op::Increment { key: key.into(), by };
    let outcome = apply(&mut store, add("new", -5));
    assert_eq!(outcome, Outcome::Incremented { revision: Revision(1), version: 1, value: -5 });
    apply(&mut store, Op::set("text", "x"));
    apply(&mut store, Op::set("bytes", vec![0xff]));
    apply(&mut store, Op::set("empty", ""));
    for key in ["text", "bytes", "empty"] {
        assert_eq!(refused(apply(&mut store, add(key, 1))), Refusal::NotANumber, "{key}");
    }
    apply(&mut store, Op::set("most", format!("{}", i64::MAX)));
    assert_eq!(refused(apply(&mut store, add("most", 1))), Refusal::Overflow);
    assert_eq!(store.revision(), Revision(5));
}

#[test]
fn a_lease_holds_so_many_keys_and_no_more() {
    let mut store = Store::new();
    configure(&mut store, |settings| settings.history_bytes = 1 << 20);
    apply(&mut store, Op::Grant { id: LeaseId(1), ttl_seconds: 9 });
    for number in 0..CHANGES_MAX {
        apply(&mut store, Op::Put(leased(&format!("{number}"), 1)));
    }
    let one_more = refused(apply(&mut store, Op::Put(leased("more", 1))));
    assert_eq!(one_more, Refusal::TooManyChanges { keys: CHANGES_MAX + 1, limit: CHANGES_MAX });
    let again = apply(&mut store, Op::Put(leased("7", 1)));
    assert!(matches!(again, Outcome::Put { version: 2, .. }), "it holds that key already: {again:?}");
    let outcome = apply(&mut store, Op::Revoke(LeaseId(1)));
    assert!(matches!(outcome, Outcome::Revoked { keys: CHANGES_MAX, .. }), "{outcome:?}");
    assert!(store.is_empty() && store.lease_count() == 0);
}

#[test]
fn a_command_changes_so_many_keys_and_no_more() {
    let mut store = Store::new();
    for number in 0..=CHANGES_MAX {
        apply(&mut store, Op::set(format!("{number:06}"), ""));
    }
    let refusal = Refusal::TooManyChanges { keys: CHANGES_MAX + 1, limit: CHANGES_MAX };
    assert_eq!(refused(apply(&mut store, Op::Delete(KeyRange::all()))), refusal);
    let txn = then([
        TxnOp::Delete(KeyRange::prefix("00")),
        TxnOp::Delete(KeyRange { start: "01".into(), end: None }),
    ]);
    assert_eq!(refused(apply(&mut store, txn)), refusal);
    let all = Compare { range: KeyRange::all(), target: Target::Version(1), order: CompareOrder::Equal };
    let txn = Txn { compare: [all].into(), ..Txn::default() };
    assert_eq!(refused(apply(&mut store, txn)), refusal);
    apply(&mut store, Op::delete("000000"));
    let outcome = apply(&mut store, Op::Delete(KeyRange::all()));
    assert!(matches!(outcome, Outcome::Deleted { count: CHANGES_MAX, .. }), "{outcome:?}");
}

// Quota.

#[test]
fn the_quota_refuses_what_grows_and_nothing_else() {
    let mut store = Store::new();
    apply(&mut store, Op::Grant { id: LeaseId(1), ttl_seconds: 9 });
    apply(&mut store, Op::set("a", "12345"));
    configure(&mut store, |settings| settings.quota_bytes = store_bytes(6));
    let quota = store.settings().quota_bytes;
    let needs = |more| Refusal::Quota { needs: quota + more, quota };
    assert_eq!(refused(apply(&mut store, Op::set("b", ""))), needs(1));
    assert_eq!(refused(apply(&mut store, Op::set("a", "123456"))), needs(1));
    assert_eq!(refused(apply(&mut store, then([put("a", "1"), put("bcdef", "x")]))), needs(2));
    assert_eq!(refused(apply(&mut store, Op::Grant { id: LeaseId(2), ttl_seconds: 9 })), needs(128));
    assert!(matches!(apply(&mut store, Op::set("a", "54321")), Outcome::Put { .. }), "it grows nothing");
    assert!(matches!(apply(&mut store, then([put("a", "1"), put("bc", "xy")])), Outcome::Txn { .. }));
    // Over a quota that was lowered, things still shrink.
    configure(&mut store, |settings| settings.quota_bytes = 1);
    assert!(matches!(apply(&mut store, Op::set("bc", "x")), Outcome::Put { .. }));
    assert!(matches!(apply(&mut store, Op::delete("bc")), Outcome::Deleted { count: 1, .. }));
    assert!(matches!(apply(&mut store, Op::Revoke(LeaseId(1))), Outcome::Revoked { .. }));
    assert!(matches!(refused(apply(&mut store, Op::set("a", "22"))), Refusal::Quota { needs: 3, quota: 1 }));
}

/// What a store takes that has one lease and so many bytes of keys and values.
fn store_bytes(bytes: u64) -> u64 {
    128 + bytes
}

// Idempotency keys.

#[test]
fn a_repeated_command_has_the_same_answer_and_another_one_under_its_key_is_refused() {
    let mut store = Store::new();
    let named = |op: Op| Command { idempotency_key: Some("once".into()), since: None, by: None, op };
    let add = |by| named(Op::Increment { key: "n".into(), by });
    let first = store.apply(TERM, &add(1));
    let before = store.state_hash();
    assert_eq!(store.apply(TERM + 1, &add(1)), first);
    for other in [add(2), named(Op::set("n", "1")), named(Op::Compact(Revision(1)))] {
        assert_eq!(refused(store.apply(TERM, &other)), Refusal::KeyReused);
    }
    assert_eq!((store.state_hash(), store.get(b"n").unwrap().version), (before, 1));
}

#[test]
fn answers_of_every_kind_are_remembered_refusals_too() {
    let mut store = Store::new();
    let named = |op: Op| Command { idempotency_key: Some("once".into()), since: None, by: None, op };
    let command = named(Op::Revoke(LeaseId(1)));
    let first = store.apply(TERM, &command);
    apply(&mut store, Op::Grant { id: LeaseId(1), ttl_seconds: 9 });
    assert_eq!(store.apply(TERM, &command), first);
    assert!(store.lease(LeaseId(1)).is_some());
    // What a transaction read too.
    for number in 0..30 {
        apply(&mut store, Op::set(format!("{number}"), format!("{number:04000}")));
    }
    let read = then([TxnOp::Get(RangeQuery::of(KeyRange::all()))]);
    let command = Command { idempotency_key: Some("read".into()), since: None, by: None, op: read.into() };
    let first = store.apply(TERM, &command);
    apply(&mut store, Op::Delete(KeyRange::all()));
    assert_eq!(store.apply(TERM, &command), first);
}

#[test]
fn the_oldest_answers_are_forgotten_first() {
    let mut store = Store::new();
    configure(&mut store, |settings| settings.answers_bytes = 1_000);
    let command = |number: u64| Command {
        idempotency_key: Some(format!("key {number}").into()),
        since: None,
        by: None,
        op: Op::Increment { key: "n".into(), by: 1 },
    };
    for number in 0..50 {
        store.apply(TERM, &command(number));
        assert!(store.answers_bytes() <= 1_000);
    }
    let kept = (0..50).rev().take_while(|number| {
        let before = store.revision();
        store.apply(TERM, &command(*number));
        store.revision() == before
    });
    let kept = kept.count();
    assert!((4..8).contains(&kept), "{kept} were remembered");
}

// Ranges.

#[test]
fn a_range_of_one_key_is_known_as_such_at_every_length() {
    for key in [vec![0], vec![0xff], vec![0; 3], vec![7; KEY_BYTES_MAX]] {
        let range = KeyRange::one(key.clone());
        assert_eq!(range.one_key().map(|key| &key[..]), Some(&key[..]));
        assert_eq!(Op::Delete(range.clone()).check(), Ok(()));
        assert!(range.contains(&key) && !range.contains(&[&key[..], &[0]].concat()));
    }
    let two = KeyRange { start: "a".into(), end: Some("a\0\0".into()) };
    assert_eq!(
        (two.one_key(), KeyRange::all().one_key(), KeyRange::prefix("a").one_key()),
        (None, None, None)
    );
    let no_key = KeyRange { start: Bytes::new(), end: Some(vec![0].into()) };
    assert_eq!(no_key.one_key(), None, "there is no empty key");
}

#[test]
fn a_prefix_ends_before_the_next_one() {
    let end = |prefix: &'static [u8]| KeyRange::prefix(prefix).end.map(|end| end.to_vec());
    assert_eq!(end(b"a"), Some(b"b".to_vec()));
    assert_eq!(end(b"a\xff"), Some(b"b".to_vec()));
    assert_eq!((end(b"\xff\xff"), end(b"")), (None, None));
}

#[test]
fn a_page_is_bounded_in_keys_and_in_bytes() {
    let mut store = Store::new();
    for number in 0..PAGE_KEYS_MAX + 5 {
        apply(&mut store, Op::set(format!("small {number:06}"), ""));
    }
    for number in 0..5u8 {
        apply(&mut store, Op::set(format!("large {number}"), vec![number; VALUE_BYTES_MAX / 2]));
    }
    let page = |range: KeyRange, limit| store.range(&RangeQuery { limit, ..RangeQuery::of(range) }).unwrap();
    let small = page(KeyRange::prefix("small"), 0);
    assert_eq!((small.kvs.len(), small.next.is_some()), (PAGE_KEYS_MAX, true));
    assert_eq!(page(KeyRange::prefix("small"), PAGE_KEYS_MAX + 1).kvs.len(), PAGE_KEYS_MAX);
    let large = page(KeyRange::prefix("large"), 0);
    assert_eq!((large.kvs.len(), large.next), (2, Some("large 2".into())));
}
