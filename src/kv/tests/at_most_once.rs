//! A command under an idempotency key is done once at most, also after its answer is forgotten, if
//! its repetitions say what their client had seen before the first attempt.

use crate::codec::FeatureLevel;
use crate::kv::tests::against_the_model::rebuilt;
use crate::kv::{
    Command, Denial, ForgottenAnswer, LeaseId, Op, Outcome, Principal, ROOT_ROLE, Refusal, Revision,
    SecurityChange, Settings, Store, Subject,
};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use proptest::collection::vec as any_vec;
use proptest::option::weighted;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::{Index, select};

const TERM: u64 = 1;
/// Room for three answers.
const LITTLE: u64 = 600;

fn configured(answers_bytes: u64) -> Op {
    Op::Configure(Settings { answers_bytes, ..Settings::default() })
}

/// A store of a level at which answers are dated.
fn dated() -> Store {
    let mut store = Store::new();
    assert!(store.raise_level(FeatureLevel::DATES_ANSWERS));
    store
}

/// A store that remembers little.
fn forgetful() -> Store {
    let mut store = dated();
    store.apply(TERM, &configured(LITTLE).into());
    store
}

fn named(name: impl Into<String>, since: Option<u64>, op: Op) -> Command {
    let name: String = name.into();
    Command { idempotency_key: Some(name.into()), since: since.map(Revision), by: None, op }
}

fn add(since: Option<u64>) -> Command {
    named("once", since, Op::Increment { key: "n".into(), by: 1 })
}

/// Pushes out what was remembered before.
fn push_out(store: &mut Store) {
    for number in 0..5 {
        store.apply(TERM, &named(format!("other {number}"), None, Op::set("other", "")));
    }
}

fn refused(since: u64, through: u64) -> Outcome {
    let why = ForgottenAnswer { since: Revision(since), through: Revision(through) };
    Outcome::Refused(Refusal::AnswerForgotten(why))
}

fn number(store: &Store) -> Vec<u8> {
    store.get(b"n").map(|found| found.value.to_vec()).unwrap_or_default()
}

#[test]
fn a_repetition_whose_answer_is_forgotten_is_refused_and_not_done() {
    let mut store = forgetful();
    store.apply(TERM, &Op::set("k", "v").into());
    store.apply(TERM, &add(None));
    push_out(&mut store);
    // Of the five others the first two are forgotten, too.
    for store in [&mut store.clone(), &mut rebuilt(&store, &[])] {
        for since in [0, 1, 4] {
            let before = store.state_hash();
            assert_eq!(store.apply(TERM, &add(Some(since))), refused(since, 4));
            assert_eq!((number(store), store.state_hash()), (b"1".to_vec(), before));
        }
        // Its client had seen what came after all that is forgotten.
        assert!(matches!(store.apply(TERM, &add(Some(5))), Outcome::Incremented { value: 2, .. }));
    }
    // Without that, nobody knows better.
    assert!(matches!(store.apply(TERM, &add(None)), Outcome::Incremented { value: 2, .. }));
}

#[test]
fn an_answer_that_is_remembered_is_given_whatever_was_seen() {
    let mut store = forgetful();
    push_out(&mut store);
    let first = store.apply(TERM, &add(Some(5)));
    assert!(matches!(first, Outcome::Incremented { value: 1, .. }));
    for since in [None, Some(0), Some(5), Some(6), Some(99)] {
        assert_eq!(store.apply(TERM, &add(since)), first, "{since:?}: it is the same command");
    }
    let other = named("once", Some(0), Op::set("n", "9"));
    assert_eq!(store.apply(TERM, &other), Outcome::Refused(Refusal::KeyReused));
}

#[test]
fn nothing_is_refused_while_nothing_is_forgotten() {
    let mut store = dated();
    assert!(matches!(store.apply(TERM, &add(Some(0))), Outcome::Incremented { value: 1, .. }));
    push_out(&mut store);
    let grant = Op::Grant { id: LeaseId(7), ttl_seconds: 9 };
    assert!(matches!(store.apply(TERM, &named("lease", Some(0), grant)), Outcome::Granted { .. }));
}

/// At the revision that its client had seen, and not behind it.
#[test]
fn an_answer_that_made_no_revision_counts_where_it_was_made() {
    let mut store = forgetful();
    store.apply(TERM, &Op::set("k", "v").into());
    let grant = |since| named("lease", since, Op::Grant { id: LeaseId::NONE, ttl_seconds: 9 });
    store.apply(TERM, &grant(None));
    for number in 0..5 {
        store.apply(TERM, &named(format!("other {number}"), None, Op::delete("nothing")));
    }
    assert_eq!(store.apply(TERM, &grant(Some(1))), refused(1, 1));
    assert_eq!(store.last_grant(), 1);
}

#[test]
fn an_answer_without_room_is_forgotten_at_once() {
    let mut store = dated();
    store.apply(TERM, &configured(100).into());
    store.apply(TERM, &add(None));
    for store in [&mut store.clone(), &mut rebuilt(&store, &[])] {
        assert_eq!(store.apply(TERM, &add(Some(0))), refused(0, 1));
        assert_eq!(number(store), b"1");
    }
    // It left a trace, whatever the limit is now.
    for is_answered in [false, true] {
        let mut store = dated();
        store.apply(TERM, &configured(100).into());
        if is_answered {
            store.apply(TERM, &named("lost", None, Op::Revoke(LeaseId(9))));
        }
        store.apply(TERM, &configured(Settings::default().answers_bytes).into());
        assert_eq!(store.is_untouched(), !is_answered);
    }
}

#[test]
fn a_smaller_limit_forgets() {
    let mut store = dated();
    store.apply(TERM, &add(None));
    store.apply(TERM, &configured(10).into());
    assert_eq!(store.apply(TERM, &add(Some(0))), refused(0, 1));
    // And a larger one remembers nothing again.
    store.apply(TERM, &configured(1 << 20).into());
    assert_eq!(store.apply(TERM, &add(Some(0))), refused(0, 1));
    assert_eq!(number(&store), b"1");
}

#[test]
fn a_revision_that_has_not_come_is_of_another_store() {
    let mut store = forgetful();
    store.apply(TERM, &Op::set("k", "v").into());
    assert_eq!(store.apply(TERM, &add(Some(2))), refused(2, 1));
    assert!(matches!(store.apply(TERM, &add(Some(1))), Outcome::Incremented { value: 1, .. }));
}

#[test]
fn a_denial_after_an_answer_that_is_forgotten_promises_nothing() {
    let mut store = dated();
    store.apply(TERM, &configured(4_000).into());
    let order = |store: &mut Store, change| {
        let by = store.security().user("root").map(|user| user.id);
        let as_of = store.security().revision();
        let by = by.map(|id| Principal { subject: Subject::User(id), as_of });
        let done = store.apply(TERM, &Command { by, ..Op::Secure(Box::new(change)).into() });
        assert!(matches!(done, Outcome::Secured(_)), "{done:?}");
    };
    let hash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA";
    for name in ["root", "b"] {
        let (name, roles) = (name.to_string(), vec![ROOT_ROLE.to_string()]);
        order(&mut store, SecurityChange::AddUser { name, password: Some(hash.into()), roles });
    }
    order(&mut store, SecurityChange::Enable);
    let id = store.security().user("b").unwrap().id;
    let by = Some(Principal { subject: Subject::User(id), as_of: store.security().revision() });
    let add = |since| Command { by, ..add(since) };
    assert!(matches!(store.apply(TERM, &add(None)), Outcome::Incremented { value: 1, .. }));
    for number in 0..30 {
        let other = named(format!("other {number}"), None, Op::set("other", ""));
        store.apply(TERM, &Command { by, ..other });
    }
    let role = || vec![ROOT_ROLE.to_string()];
    let withdraw = SecurityChange::ChangeUser { name: "b".into(), grant: vec![], revoke: role() };
    order(&mut store, withdraw);
    let denied = |maybe_done| Outcome::Refused(Refusal::Denied { denial: Denial::MayNotRead, maybe_done });
    // A copy that says nothing is denied under the name, and one that does is told what is true.
    assert_eq!(store.apply(TERM, &add(None)), denied(false));
    assert_eq!(store.apply(TERM, &add(Some(0))), denied(true));
    let grant = SecurityChange::ChangeUser { name: "b".into(), grant: role(), revoke: vec![] };
    order(&mut store, grant);
    assert_eq!(store.apply(TERM, &add(Some(0))), denied(true), "also of a denial that is remembered");
    assert_eq!(number(&store), b"1");
}

/// What clients do, one step after the other.
#[derive(Clone, Debug)]
enum Step {
    /// The command of this number comes for the first time, or is repeated. It says what its client
    /// had seen, or, the first time, perhaps nothing; or it is lost.
    Command {
        number: usize,
        is_lost: bool,
        says: bool,
    },
    /// Somebody else's, under a name of its own or without one.
    Other {
        is_named: bool,
        length: usize,
    },
    Configure(u64),
    /// From here on the store is what its snapshot makes of it.
    Rebuild,
    /// The level is raised, if it is still the older one.
    Raise,
}

fn any_step() -> impl Strategy<Value = Step> {
    let command = (0..6usize, any::<bool>(), any::<bool>());
    prop_oneof![
        6 => command.prop_map(|(number, is_lost, says)| Step::Command { number, is_lost, says }),
        6 => (any::<bool>(), 0..90usize).prop_map(|(is_named, length)| Step::Other { is_named, length }),
        1 => select(&[0, 220, 450, 700, 1_500, 1 << 20][..]).prop_map(Step::Configure),
        1 => Just(Step::Rebuild),
        1 => Just(Step::Raise),
    ]
}

proptest! {
    /// The commands of even numbers add to numbers, the others make leases, which is no revision.
    /// At the older level nobody says what was seen, and a command may be done twice.
    #[test]
    fn whatever_is_forgotten_no_command_is_done_twice(
        begins_at in select(&[FeatureLevel::OLDEST, FeatureLevel::DATES_ANSWERS][..]),
        steps in any_vec(any_step(), 1..120),
        limit in weighted(0.8, 0..1_500u64),
        cuts in any_vec(any::<Index>(), 0..4),
    ) {
        let mut store = Store::new();
        store.raise_level(begins_at);
        if let Some(limit) = limit {
            store.apply(TERM, &configured(limit).into());
        }
        let mut seen: [Option<u64>; 6] = [None; 6];
        let mut done = [0; 6];
        let mut others = 0;
        for step in steps {
            match step {
                Step::Command { number, is_lost, says } => {
                    let is_first = seen[number].is_none();
                    let since = *seen[number].get_or_insert(store.revision().0);
                    if is_lost {
                        continue;
                    }
                    let op = match number % 2 {
                        0 => Op::Increment { key: format!("{number}").into(), by: 1 },
                        _ => Op::Grant { id: LeaseId::NONE, ttl_seconds: number as u64 + 2 },
                    };
                    let before = (store.revision(), store.last_grant());
                    let forgotten_below = store.answers_forgotten_below();
                    let is_dated = store.level() >= FeatureLevel::DATES_ANSWERS;
                    let says = is_dated && (says || !is_first);
                    let outcome = store.apply(TERM, &named(format!("{number}"), says.then_some(since), op));
                    if (store.revision(), store.last_grant()) != before {
                        prop_assert!(!is_dated || done[number] == 0, "{} was done twice", number);
                        done[number] += 1;
                    }
                    if let Outcome::Refused(refusal) = outcome {
                        let through = Revision(forgotten_below.0.saturating_sub(1));
                        let why = ForgottenAnswer { since: Revision(since), through };
                        prop_assert_eq!(refusal, Refusal::AnswerForgotten(why));
                        prop_assert!(says && through.0 >= since && forgotten_below.0 > 0);
                    } else {
                        prop_assert!(done[number] > 0);
                    }
                }
                Step::Other { is_named, length } => {
                    let op = Op::set("other", vec![7; length]);
                    let name = format!("{others} {}", "x".repeat(length));
                    let command = if is_named { named(name, None, op) } else { op.into() };
                    store.apply(TERM, &command);
                    others += 1;
                }
                Step::Configure(limit) => drop(store.apply(TERM, &configured(limit).into())),
                Step::Rebuild => store = rebuilt(&store, &cuts),
                Step::Raise => drop(store.raise_level(FeatureLevel::DATES_ANSWERS)),
            }
        }
    }
}
