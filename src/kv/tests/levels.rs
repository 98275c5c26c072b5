//! The same commands at both levels: what a release of the older level reads, counts and hashes is
//! as it was, and what the newer one adds begins where the level is raised.

use crate::codec::FeatureLevel;
use crate::kv::tests::against_the_model::rebuilt;
use crate::kv::{
    Command, ForgottenAnswer, KeyRange, LeaseId, Op, Outcome, Principal, ROOT_ROLE, RangeQuery, Refusal,
    Revision, SecurityChange, Settings, Store, Subject, Txn, TxnOp,
};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use xxhash_rust::xxh3::xxh3_128;

/// The answer to a read of a value of so many bytes is the largest one that is kept.
const LARGEST: usize = 130_992;
const TERM: u64 = 1;

fn named(name: impl Into<String>, op: Op) -> Command {
    let name: String = name.into();
    let mut command = Command::from(op);
    command.idempotency_key = Some(name.into());
    command
}

fn configured(answers_bytes: u64) -> Command {
    Op::Configure(Settings { answers_bytes, ..Settings::default() }).into()
}

/// A transaction that reads a value of so many bytes.
fn read() -> Op {
    let get = TxnOp::Get(RangeQuery::of(KeyRange::one("large")));
    Op::Txn(Box::new(Txn { success: vec![get], ..Txn::default() }))
}

/// Answers of every kind, more of them than there is room for; one that is as large as one may be,
/// and one that is a byte larger; one that has no room at all; denials.
fn commands() -> Vec<Command> {
    let mut all = vec![configured(2_000)];
    for number in 0..40i64 {
        let op = match number % 5 {
            0 => Op::Increment { key: "n".into(), by: number },
            1 => Op::set(format!("{number}"), "value"),
            2 => Op::delete(format!("{}", number - 1)),
            3 => Op::Grant { id: LeaseId::NONE, ttl_seconds: 60 },
            _ => Op::Revoke(LeaseId(9)),
        };
        all.push(named(format!("{number}"), op));
        all.push(named(format!("{}", number / 2), Op::delete("n")));
    }
    all.push(configured(1 << 20));
    for length in [LARGEST, LARGEST + 1] {
        all.push(Op::set("large", vec![7; length]).into());
        all.push(named(format!("read {length}"), read()));
    }
    all.push(configured(100));
    all.push(named("without room", Op::set("k", "v")));
    all.push(configured(20_000));
    for number in 0..50 {
        all.push(named(format!("again {number}"), Op::set("k", format!("{number}"))));
    }
    let add = |name: &str, password: Option<&str>, roles: &[&str]| {
        let roles = roles.iter().map(ToString::to_string).collect();
        let password = password.map(Into::into);
        Op::Secure(Box::new(SecurityChange::AddUser { name: name.into(), password, roles }))
    };
    let hash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA";
    all.push(add("root", Some(hash), &[ROOT_ROLE]).into());
    all.push(Op::Secure(Box::new(SecurityChange::Enable)).into());
    for number in 0..20 {
        let by = Some(Principal { subject: Subject::User(77), as_of: 2 });
        all.push(Command { by, ..named(format!("denied {number}"), Op::set("k", "")) });
    }
    all
}

fn body(store: &Store) -> Vec<u8> {
    store.snapshot_pieces().flatten().collect()
}

/// The numbers are those of a release that speaks the older level alone.
#[test]
fn at_the_older_level_all_is_as_it_was() {
    let mut store = Store::new();
    let mut hashes = Vec::new();
    for command in commands() {
        store.apply(TERM, &command);
        hashes.extend(store.state_hash().to_le_bytes());
    }
    assert_eq!(xxh3_128(&hashes), 0x149c_8db0_58cf_5fbb_650d_752b_42a7_6da2);
    assert_eq!(xxh3_128(&body(&store)), 0x7ffc_8a96_e5ad_3cc1_770a_4908_1c86_cf47);
    let answers = (store.last_answer(), store.oldest_answer(), store.answers_bytes());
    assert_eq!(answers, (122, Some(53), 9_914));
    assert_eq!(store.answers_forgotten_below(), Revision(0), "nobody knows");
}

/// Nobody says it there, and nobody decides anything by it.
#[test]
fn at_the_older_level_nothing_is_refused_for_what_its_client_had_seen() {
    let (mut store, mut other) = (Store::new(), Store::new());
    for command in commands() {
        let since = command.idempotency_key.as_ref().map(|key| Revision(key.len() as u64 % 3 * 20));
        assert_eq!(other.apply(TERM, &Command { since, ..command.clone() }), store.apply(TERM, &command));
        assert_eq!(other.state_hash(), store.state_hash());
    }
}

#[test]
fn all_answers_from_before_the_level_was_raised_count_as_forgotten_or_are_remembered() {
    let mut store = Store::new();
    store.apply(TERM, &configured(1 << 20));
    store.apply(TERM, &Op::set("k", "v").into());
    let add = |since| Command {
        since: Some(Revision(since)),
        ..named("first", Op::Increment { key: "n".into(), by: 1 })
    };
    let first = store.apply(TERM, &add(0));
    let (hash, bytes) = (store.state_hash(), store.answers_bytes());
    assert!(store.raise_level(FeatureLevel::DATES_ANSWERS));
    assert_eq!((store.answers_forgotten_below(), store.answers_bytes()), (Revision(3), bytes));
    assert_ne!(store.state_hash(), hash);
    let refused = |since, through| {
        let why = ForgottenAnswer { since: Revision(since), through: Revision(through) };
        Outcome::Refused(Refusal::AnswerForgotten(why))
    };
    for store in [&mut store.clone(), &mut rebuilt(&store, &[])] {
        assert_eq!(store.apply(TERM, &add(0)), first, "it is remembered");
        // An answer that was forgotten before may have been made at the revision that was there.
        let other = |since| Command { since: Some(Revision(since)), ..named("other", Op::set("k", "w")) };
        assert_eq!(store.apply(TERM, &other(2)), refused(2, 2));
        store.apply(TERM, &Op::set("k", "x").into());
        assert_eq!(store.apply(TERM, &other(2)), refused(2, 2));
        let done = store.apply(TERM, &other(3));
        assert!(matches!(done, Outcome::Put { .. }), "{done:?}");
        let head_and_overhead = 32 + 128;
        assert!(store.answers_bytes() > bytes + head_and_overhead, "this one has its revision");
        let answers = rebuilt(store, &[]);
        assert_eq!(answers.state_hash(), store.state_hash());
        // Both kinds go in their turn.
        for limit in [store.answers_bytes() - 1, 10] {
            let below = if limit > 10 { 3 } else { 5 };
            store.apply(TERM, &configured(limit));
            assert_eq!(store.answers_forgotten_below(), Revision(below));
            assert_eq!(rebuilt(store, &[]).state_hash(), store.state_hash());
        }
    }
}

#[test]
fn a_new_cluster_begins_with_nothing_forgotten() {
    let mut store = Store::new();
    assert!(store.raise_level(FeatureLevel::NEWEST) && store.is_untouched());
    assert_eq!(store.answers_forgotten_below(), Revision(0));
    assert!(rebuilt(&store, &[]).is_untouched());
    let first = Command { since: Some(Revision(0)), ..named("first", Op::set("k", "v")) };
    assert!(matches!(store.apply(TERM, &first), Outcome::Put { .. }));
    // A later level dates nothing anew.
    let (next, hash) = (FeatureLevel::new(FeatureLevel::NEWEST.get() + 1), rebuilt(&store, &[]).state_hash());
    assert_eq!(store.state_hash(), hash);
    assert!(store.raise_level(next) && store.answers_forgotten_below() == Revision(0));
}
