use super::Ledger;
use infinitystore::codec::FeatureLevel;
use infinitystore::kv::{
    Command, Denial, Found, KeyRange, LeaseId, Op, Outcome, Put, Query, QueryAnswer, ROOT_ROLE, Refusal,
    Revision, SecurityChange, Settings, Store,
};
use infinitystore::raft::{Entry, EntryKind, LogId, LogIndex, NodeId, Term};
use infinitystore::replica::{ClientError, ClientReply, ClientRequest, Level, RequestId};

const ORIGIN: NodeId = NodeId::new(1);

fn set(key: &'static str, value: &'static str) -> Op {
    Op::set(key, value)
}

fn delete(key: &'static str) -> Op {
    Op::delete(key)
}

/// An entry as the origin's clients make it.
fn entry(index: u64, op: &Op) -> Entry {
    entry_of(index, &Command::from(op.clone()))
}

fn entry_of(index: u64, command: &Command) -> Entry {
    let mut data = Vec::new();
    for word in [ORIGIN.get(), 1, 1, index] {
        data.extend_from_slice(&word.to_le_bytes());
    }
    command.encode(&mut data);
    Entry::new(LogId::new(Term::new(1), LogIndex::new(index)), EntryKind::Command, &data)
}

fn at(index: u64) -> LogIndex {
    LogIndex::new(index)
}

fn committed(ops: &[Op]) -> Ledger {
    let mut ledger = Ledger::default();
    for (number, op) in (1..).zip(ops) {
        ledger.asked(RequestId(number), ORIGIN, (None, &ClientRequest::write(op.clone())), LogIndex::ZERO);
        ledger.commit(&entry(number, op)).unwrap();
    }
    ledger
}

#[test]
fn a_write_returns_what_the_committed_log_says() {
    let ops = [set("key1", "a"), set("key1", "b"), delete("key1"), delete("key1")];
    let right = [
        Outcome::Put { revision: Revision(1), version: 1 },
        Outcome::Put { revision: Revision(2), version: 2 },
        Outcome::Deleted { revision: Revision(3), count: 1 },
        Outcome::Deleted { revision: Revision(3), count: 0 },
    ];
    let mut ledger = committed(&ops);
    for (number, outcome) in (1..).zip(right) {
        let reply = ClientReply::Written(outcome.clone());
        assert_eq!(ledger.answered(RequestId(number), &reply, at(4)), Ok(false), "{outcome:?}");
    }
    let wrong = [
        (1, Outcome::Put { revision: Revision(2), version: 1 }, 4),
        (2, Outcome::Put { revision: Revision(2), version: 1 }, 4),
        (3, Outcome::Deleted { revision: Revision(3), count: 0 }, 3),
        (4, Outcome::Deleted { revision: Revision(4), count: 0 }, 4),
        (1, Outcome::Put { revision: Revision(1), version: 1 }, 0),
    ];
    for (number, outcome, applied) in wrong {
        let mut ledger = committed(&ops);
        let reply = ClientReply::Written(outcome.clone());
        assert!(ledger.answered(RequestId(number), &reply, at(applied)).is_err(), "{outcome:?}");
    }
}

#[test]
fn two_answers_need_two_entries() {
    let mut ledger = committed(&[delete("key1")]);
    ledger.asked(RequestId(9), ORIGIN, (None, &ClientRequest::write(delete("key1"))), LogIndex::ZERO);
    ledger.asked(RequestId(8), ORIGIN, (None, &ClientRequest::write(set("key1", "a"))), LogIndex::ZERO);
    let reply = ClientReply::Written(Outcome::Deleted { revision: Revision(0), count: 0 });
    assert_eq!(ledger.answered(RequestId(1), &reply, at(1)), Ok(false));
    assert!(ledger.answered(RequestId(9), &reply, at(1)).is_err(), "it was committed before");
    let read = ClientReply::Answer(QueryAnswer { revision: Revision(0), found: Found::Key(None) });
    assert!(ledger.answered(RequestId(8), &read, at(1)).is_err(), "a read's answer to a write");
}

#[test]
fn what_was_refused_or_never_asked_for_is_not_committed() {
    let refused = ClientReply::Failed(ClientError::NoLeader);
    for op in [set("key1", "b"), delete("key1")] {
        let mut ledger = committed(&[set("key1", "a")]);
        ledger.asked(RequestId(5), ORIGIN, (None, &ClientRequest::write(op.clone())), LogIndex::ZERO);
        let mut later = committed(&[set("key1", "a"), op.clone()]);
        assert!(later.answered(RequestId(2), &refused, at(2)).is_err(), "it is committed already");
        assert_eq!(ledger.answered(RequestId(5), &refused, at(1)), Ok(false));
        assert!(ledger.commit(&entry(2, &op)).is_err(), "it is committed afterwards");
    }
    let mut ledger = committed(&[set("key1", "a")]);
    assert!(ledger.commit(&entry(2, &set("key2", "a"))).is_err(), "another key's value");
    assert!(ledger.commit(&entry(3, &set("key1", "c"))).is_err(), "nobody's value");
}

#[test]
fn a_read_returns_a_state_since_it_was_asked_for() {
    let ops = [set("key1", "a"), set("key1", "b"), delete("key1"), set("key1", "c")];
    let mut store = Store::new();
    let states: Vec<_> = ops
        .iter()
        .map(|op| {
            store.apply(1, &op.clone().into());
            store.answer(&Query::Key("key1".into()))
        })
        .collect();
    let read = ClientRequest::read("key1", Level::Linearizable);
    let ask = |asked_at: usize, applied: u64, state: usize| {
        let mut ledger = committed(&ops[..asked_at]);
        ledger.asked(RequestId(9), ORIGIN, (None, &read), LogIndex::ZERO);
        for (number, op) in (1..).zip(&ops).skip(asked_at) {
            ledger.asked(
                RequestId(number),
                ORIGIN,
                (None, &ClientRequest::write(op.clone())),
                LogIndex::ZERO,
            );
            ledger.commit(&entry(number, op)).unwrap();
        }
        ledger.answered(RequestId(9), &ClientReply::Answer(states[state].clone()), at(applied)).is_ok()
    };
    assert!(ask(2, 4, 1) && ask(2, 4, 2) && ask(2, 4, 3));
    assert!(!ask(2, 4, 0), "an older state than was committed");
    assert!(!ask(2, 3, 3), "a state that the machine has not applied");
    for revision in [0, 1, 3, 4, 5] {
        let mut ledger = committed(&ops);
        ledger.asked(RequestId(9), ORIGIN, (None, &read), LogIndex::ZERO);
        let answer = QueryAnswer { revision: Revision(revision), ..states[3].clone() };
        let is_right = ledger.answered(RequestId(9), &ClientReply::Answer(answer), at(4)).is_ok();
        assert_eq!(is_right, revision == 4, "the right state, as of revision {revision}");
    }
}

#[test]
fn a_store_is_compared_key_by_key() {
    let ops = [set("key1", "a"), set("key2", "b"), delete("key1")];
    let ledger = committed(&ops);
    let mut store = Store::new();
    assert_eq!(ledger.check_snapshot(ORIGIN, at(0), &store), Ok(()));
    for (number, op) in (1..).zip(&ops) {
        assert!(ledger.check_store(ORIGIN, at(number), &store).is_err(), "{op:?} is missing");
        store.apply(1, &op.clone().into());
        assert_eq!(ledger.check_snapshot(ORIGIN, at(number), &store), Ok(()));
    }
    let mut other = Store::new();
    [set("key2", "a"), set("key3", "b"), delete("key3")].iter().for_each(|op| {
        other.apply(1, &op.clone().into());
    });
    assert!(ledger.check_store(ORIGIN, at(3), &other).is_err(), "the sums agree, the values do not");
}

#[test]
fn a_range_is_deleted_in_one_revision() {
    let range = Op::Delete(KeyRange::prefix("key"));
    let ops = [set("key1", "a"), set("key2", "b"), set("other", "c"), range.clone(), range];
    let mut ledger = committed(&ops);
    for (number, count) in [(4, 2), (5, 0)] {
        let outcome = Outcome::Deleted { revision: Revision(4), count };
        assert_eq!(ledger.answered(RequestId(number), &ClientReply::Written(outcome), at(5)), Ok(false));
    }
    let mut store = Store::new();
    for op in ops {
        store.apply(1, &op.into());
    }
    assert_eq!(ledger.check_snapshot(ORIGIN, at(5), &store), Ok(()));
}

#[test]
fn settings_are_compared() {
    let settings = Settings { history_bytes: 7, ..Settings::default() };
    let ledger = committed(&[Op::Configure(settings)]);
    let mut store = Store::new();
    assert!(ledger.check_store(ORIGIN, at(1), &store).is_err(), "they are not configured yet");
    assert_eq!(store.apply(1, &Op::Configure(settings).into()), Outcome::Configured(settings));
    assert_eq!(ledger.check_snapshot(ORIGIN, at(1), &store), Ok(()));
}

#[test]
fn commands_of_every_kind_are_judged() {
    let leased = Op::Put(Put { key: "key1".into(), value: "a".into(), lease: LeaseId(7) });
    let add = Op::Increment { key: "number".into(), by: 5 };
    let ops = [leased, add.clone(), add, Op::Compact(Revision(2))];
    let right = [
        Outcome::Refused(Refusal::NoLease(LeaseId(7))),
        Outcome::Incremented { revision: Revision(1), version: 1, value: 5 },
        Outcome::Incremented { revision: Revision(2), version: 2, value: 10 },
        Outcome::Compacted(Revision(2)),
    ];
    let wrong = [
        Outcome::Put { revision: Revision(1), version: 1 },
        Outcome::Incremented { revision: Revision(1), version: 1, value: 6 },
        Outcome::Incremented { revision: Revision(1), version: 1, value: 5 },
        Outcome::Compacted(Revision(1)),
    ];
    for (number, (right, wrong)) in (1..).zip(right.into_iter().zip(wrong)) {
        let reply = ClientReply::Written(right.clone());
        assert_eq!(committed(&ops).answered(RequestId(number), &reply, at(4)), Ok(false), "{right:?}");
        let reply = ClientReply::Written(wrong.clone());
        assert!(committed(&ops).answered(RequestId(number), &reply, at(4)).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_command_is_denied_without_the_log_only_where_the_rules_deny_it() {
    let root = SecurityChange::AddUser {
        name: "root".to_owned(),
        password: Some("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA".to_owned()),
        roles: vec![ROOT_ROLE.to_owned()],
    };
    let secure = |change| Op::Secure(Box::new(change));
    let put = Command::from(set("key1", "a"));
    let denied = ClientReply::Failed(ClientError::Denied(Denial::NoCredentials));
    let answer = |command: Command, applied: u64| {
        let mut ledger = committed(&[secure(root.clone()), secure(SecurityChange::Enable)]);
        ledger.asked(RequestId(9), ORIGIN, (None, &ClientRequest::Write(command)), at(0));
        ledger.answered(RequestId(9), &denied, at(applied))
    };
    assert_eq!(answer(put.clone(), 2), Ok(false));
    let other = ClientReply::Failed(ClientError::Denied(Denial::MayNotWrite));
    let mut ledger = committed(&[secure(root.clone())]);
    ledger.asked(RequestId(9), ORIGIN, (None, &ClientRequest::Write(put.clone())), at(0));
    assert!(ledger.answered(RequestId(9), &other, at(1)).is_err(), "the cluster is open");
    let named = Command { idempotency_key: Some("name".into()), ..put };
    assert!(answer(named, 2).is_err(), "a late copy may take effect");
}

/// A member that knows of no level that has words for it leaves out what a client had seen.
#[test]
fn what_a_client_had_seen_is_in_the_log_from_the_level_on() {
    let since = Some(Revision(0));
    let said = Command { idempotency_key: Some("name".into()), since, ..delete("k").into() };
    let unsaid = Command { since: None, ..said.clone() };
    let done = ClientReply::Written(Outcome::Deleted { revision: Revision(0), count: 0 });
    let refused = ClientReply::Failed(ClientError::NoLeader);
    for (is_raised, knows, logged, is_right) in [
        (false, false, &unsaid, true),
        (false, false, &said, false),
        (true, false, &unsaid, true),
        (true, false, &said, true),
        (true, true, &said, true),
        (true, true, &unsaid, false),
    ] {
        let level = if is_raised { FeatureLevel::NEWEST } else { FeatureLevel::OLDEST };
        let mut ledger = Ledger::default();
        let id = LogId::new(Term::new(1), LogIndex::new(1));
        ledger.commit(&Entry::new(id, EntryKind::Level, &level.to_data())).unwrap();
        let ask = (None, &ClientRequest::Write(said.clone()));
        ledger.asked(RequestId(1), ORIGIN, ask, at(u64::from(knows)));
        let entry = entry_of(2, logged);
        let is_taken = ledger.commit(&entry).is_ok() && ledger.answered(RequestId(1), &done, at(2)).is_ok();
        assert_eq!(is_taken, is_right, "{is_raised} {knows} {logged:?}");
        ledger.asked(RequestId(2), ORIGIN, ask, at(u64::from(knows)));
        assert!(ledger.answered(RequestId(2), &refused, at(2)).is_ok());
        assert!(ledger.commit(&entry_of(3, logged)).is_err(), "it was refused");
    }
}
