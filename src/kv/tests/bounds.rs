//! What one command or one read may take: bytes, work, and what others have.

use crate::kv::answers::Answers;
use crate::kv::{
    CHANGES_MAX, ChangesQuery, Command, Denial, Found, KEY_BYTES_MAX, KeyRange, LeaseId, Op, Outcome,
    PAGE_BYTES_MAX, PAGE_KEYS_MAX, Put, Query, RangeQuery, Refusal, Revision, Settings, Store, StoreReader,
    Txn, TxnOp, TxnResult, VALUE_BYTES_MAX,
};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

const TERM: u64 = 3;

fn apply(store: &mut Store, op: Op) -> Outcome {
    assert_eq!(op.check(), Ok(()));
    store.apply(TERM, &op.into())
}

fn apply_once(store: &mut Store, name: &str, op: Op) -> Outcome {
    let name = Some(Bytes::copy_from_slice(name.as_bytes()));
    store.apply(TERM, &Command { idempotency_key: name, since: None, by: None, op })
}

fn configured(change: impl FnOnce(&mut Settings)) -> Store {
    let mut store = Store::new();
    let mut settings = Settings::default();
    change(&mut settings);
    apply(&mut store, Op::Configure(settings));
    store
}

fn txn(success: Vec<TxnOp>) -> Op {
    Op::Txn(Box::new(Txn { success, ..Txn::default() }))
}

fn put(key: &'static str, value: &'static str) -> TxnOp {
    TxnOp::Put(Put { key: key.into(), value: value.into(), lease: LeaseId::NONE })
}

fn get(range: KeyRange) -> TxnOp {
    TxnOp::Get(RangeQuery::of(range))
}

fn pages(outcome: &Outcome) -> Vec<&crate::kv::RangePage> {
    let Outcome::Txn { results, .. } = outcome else { panic!("{outcome:?}") };
    let pages = results.iter().filter_map(|result| match result {
        TxnResult::Range(page) => Some(page),
        _ => None,
    });
    pages.collect()
}

fn rebuilt(store: &Store) -> Store {
    let mut reader = StoreReader::new();
    store.snapshot_pieces().for_each(|piece| reader.push(&piece).unwrap());
    let again = reader.finish().unwrap();
    assert_eq!(again.state_hash(), store.state_hash());
    again
}

// Answers.

#[test]
fn a_large_answer_under_a_large_limit_leaves_snapshots_readable() {
    let mut store = configured(|settings| settings.answers_bytes = 64 << 20);
    apply(&mut store, Op::set("big", vec![7; VALUE_BYTES_MAX]));
    let reads = (0..40).map(|_| get(KeyRange::one("big"))).collect();
    apply_once(&mut store, "reads", txn(reads));
    rebuilt(&store);
}

#[test]
fn a_large_answer_is_remembered_without_what_was_read_and_pushes_out_no_other() {
    let mut store = Store::new();
    apply(&mut store, Op::set("big", vec![7; VALUE_BYTES_MAX]));
    let add = || Op::Increment { key: "n".into(), by: 1 };
    let first = apply_once(&mut store, "a", add());
    let mut steps: Vec<TxnOp> = (0..30).map(|_| get(KeyRange::one("big"))).collect();
    steps.extend([put("b", "1"), get(KeyRange::one("none"))]);
    let large = apply_once(&mut store, "b", txn(steps.clone()));
    assert_eq!(pages(&large)[0].kvs.len(), 1);
    for mut store in [store.clone(), rebuilt(&store)] {
        let before = store.state_hash();
        assert_eq!(apply_once(&mut store, "a", add()), first);
        let again = apply_once(&mut store, "b", txn(steps.clone()));
        assert_eq!(store.state_hash(), before, "it is not done again");
        assert_eq!(again.revision(), large.revision());
        let (pages, none) = (pages(&again), pages(&again)[30]);
        assert!(pages[..30].iter().all(|page| page.kvs.is_empty() && page.next.is_some()));
        assert!(none.kvs.is_empty() && none.next.is_none(), "it read nothing");
        let Outcome::Txn { results, .. } = &again else { panic!("{again:?}") };
        assert_eq!(results[30], TxnResult::Put { version: 1 });
    }
}

#[test]
fn an_answer_without_room_pushes_out_no_other() {
    let mut store = configured(|settings| settings.answers_bytes = 400);
    apply(&mut store, Op::set("some", vec![7; 500]));
    let add = || Op::Increment { key: "n".into(), by: 1 };
    let first = apply_once(&mut store, "a", add());
    apply_once(&mut store, "b", txn(vec![get(KeyRange::one("some"))]));
    assert_eq!(apply_once(&mut store, "a", add()), first);
    rebuilt(&store);
}

#[test]
fn denials_push_out_denials_and_no_other_answer() {
    let limit = 4_000;
    let mut answers = Answers::default();
    answers.date(Revision(0));
    let done = Outcome::Put { revision: Revision(1), version: 1 };
    let now = Revision(1);
    answers.remember(b"done", (1, &done), now, limit);
    let denial = Refusal::Denied { denial: Denial::MayNotWrite, maybe_done: false };
    for number in 0..1_000 {
        let key = format!("{number}");
        answers.remember(key.as_bytes(), (2, &Outcome::Refused(denial.clone())), now, limit);
    }
    assert!(answers.are_known_since(Revision(0)), "nothing was done that is forgotten");
    assert!(answers.get(b"done").is_some() && answers.get(b"999").is_some() && answers.get(b"0").is_none());
    let denied = answers.bytes();
    assert!(denied < limit / 8, "{denied}");
    for number in 0..1_000 {
        answers.remember(format!("done {number}").as_bytes(), (3, &done), now, limit);
    }
    assert!(!answers.are_known_since(now) && answers.are_known_since(now.next()));
    assert!(answers.get(b"done").is_none() && answers.get(b"999").is_some());
    assert!(answers.bytes() <= limit + limit / 16);
}

// Reads of a transaction.

#[test]
fn many_reads_of_one_large_key_answer_no_more_than_a_page_and_a_key() {
    let mut store = Store::new();
    apply(&mut store, Op::set("big", vec![0; VALUE_BYTES_MAX]));
    apply(&mut store, Op::set("big", vec![0; VALUE_BYTES_MAX]));
    let past = RangeQuery { at: Some(Revision(1)), ..RangeQuery::of(KeyRange::one("big")) };
    for read in [get(KeyRange::one("big")), TxnOp::Get(past)] {
        let outcome = apply(&mut store, txn(vec![read; 511]));
        let pages = pages(&outcome);
        let bytes: usize = pages.iter().flat_map(|page| &page.kvs).map(|found| found.bytes()).sum();
        assert!(bytes <= PAGE_BYTES_MAX + VALUE_BYTES_MAX + KEY_BYTES_MAX, "{bytes}");
        assert!(pages.iter().all(|page| page.kvs.len() == 1 || page.next == Some("big".into())));
    }
}

#[test]
fn many_reads_of_many_small_keys_answer_no_more_keys_than_a_page() {
    let mut store = Store::new();
    for number in 0..200 {
        apply(&mut store, Op::set(format!("{number:03}"), ""));
    }
    let outcome = apply(&mut store, txn(vec![get(KeyRange::all()); 400]));
    let pages = pages(&outcome);
    assert_eq!(pages.iter().map(|page| page.kvs.len()).sum::<usize>(), PAGE_KEYS_MAX);
    assert!(pages.iter().all(|page| page.kvs.len() == 200 || page.next.is_some()));
}

// The quota.

#[test]
fn a_transaction_that_frees_what_it_puts_is_carried_out_at_the_quota() {
    let mut store = configured(|settings| settings.quota_bytes = 20);
    apply(&mut store, Op::set("jobs/1", "0123456789"));
    let delete = || TxnOp::Delete(KeyRange::one("jobs/1"));
    let refused = apply(&mut store, txn(vec![delete(), put("taken/1", "0123456789abcd")]));
    assert_eq!(refused, Outcome::Refused(Refusal::Quota { needs: 21, quota: 20 }));
    let all = || TxnOp::Delete(KeyRange::prefix("jobs/"));
    // A key that is deleted twice is freed once.
    let refused = apply(&mut store, txn(vec![delete(), all(), put("taken/1", "0123456789abcd")]));
    assert_eq!(refused, Outcome::Refused(Refusal::Quota { needs: 21, quota: 20 }));
    let moved = apply(&mut store, txn(vec![all(), delete(), put("taken/1", "0123456789abc")]));
    assert!(matches!(moved, Outcome::Txn { .. }), "{moved:?}");
    assert_eq!(store.bytes(), 20);
}

// History.

#[test]
fn one_large_revision_is_kept_where_the_history_has_room() {
    let mut store = configured(|settings| settings.history_bytes = 1 << 30);
    let (padding, value) = ("k".repeat(290), Bytes::from(vec![b'v'; 450]));
    for number in 0..CHANGES_MAX {
        apply(&mut store, Op::set(format!("{number:06}{padding}"), value.clone()));
    }
    apply(&mut store, Op::Delete(KeyRange::all()));
    let last = store.revision();
    assert_eq!(store.compacted(), Revision(0));
    let again = rebuilt(&store);
    let query = ChangesQuery {
        range: KeyRange::prefix("0777"),
        from: last,
        puts: true,
        deletions: true,
        previous: false,
    };
    for store in [&store, &again] {
        let changes = store.changes(&query).unwrap();
        assert_eq!((changes.revisions[0].events.len(), changes.next), (100, last.next()));
    }
    // What is wanted of it is found without a look at all of it.
    let mut looks = 0;
    let found = store.history.record(last).within(&query.range, &mut looks).count();
    assert_eq!(found, 100);
    assert!(looks < 130, "{looks} changes were looked at");
}

#[test]
fn what_is_wanted_of_a_revision_is_found_in_every_order_of_keys() {
    let mut store = Store::new();
    let keys: [&'static str; 6] = ["b", "d", "a", "e", "c", "f"];
    apply(&mut store, txn(keys.iter().map(|key| put(key, "1")).collect()));
    apply(&mut store, Op::Delete(KeyRange::all()));
    let range = KeyRange { start: "b".into(), end: Some("e".into()) };
    let at = |revision| -> Vec<String> {
        let mut looks = 0;
        let found = store.history.record(Revision(revision)).within(&range, &mut looks);
        found.map(|change| String::from_utf8(change.key.to_vec()).unwrap()).collect()
    };
    assert_eq!(
        (at(1), at(2)),
        (vec!["b".into(), "d".into(), "c".into()], ["b", "c", "d"].map(String::from).to_vec())
    );
    rebuilt(&store);
}

// Leases.

#[test]
fn a_page_of_the_keys_of_a_lease_is_bounded_in_bytes() {
    let mut store = Store::new();
    apply(&mut store, Op::Grant { id: LeaseId(1), ttl_seconds: 9 });
    for number in 0..40u8 {
        let key = [&[number][..], &vec![b'k'; KEY_BYTES_MAX - 1]].concat();
        apply(&mut store, Op::Put(Put { key: key.into(), value: Bytes::new(), lease: LeaseId(1) }));
    }
    let (mut all, mut from) = (Vec::new(), Some(Bytes::new()));
    while let Some(start) = from {
        let Found::LeaseKeys { keys, next } = store.answer(&Query::LeaseKeys(LeaseId(1), start, 9_999)).found
        else {
            panic!("it is asked for keys")
        };
        assert!(
            !keys.is_empty() && keys.iter().map(Bytes::len).sum::<usize>() <= PAGE_BYTES_MAX + KEY_BYTES_MAX
        );
        all.extend(keys);
        from = next;
    }
    assert!(all.iter().map(|key| key[0]).eq(0..40));
}
