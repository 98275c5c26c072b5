use super::Ledger;
use bytes::Bytes;
use infinitystore::kv::{Op, Outcome, Revision, Store};
use infinitystore::raft::{Entry, EntryKind, LogId, LogIndex, NodeId, Term};
use infinitystore::replica::{ClientError, ClientReply, ClientRequest, Level, RequestId};

const ORIGIN: NodeId = NodeId::new(1);

fn set(key: &'static str, value: &'static str) -> Op {
    Op::Set { key: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(value.as_bytes()) }
}

fn delete(key: &'static str) -> Op {
    Op::Delete { key: Bytes::from_static(key.as_bytes()) }
}

/// An entry as the origin's clients make it.
fn entry(index: u64, op: &Op) -> Entry {
    let mut data = Vec::new();
    for word in [ORIGIN.get(), 1, 1, index] {
        data.extend_from_slice(&word.to_le_bytes());
    }
    op.encode(&mut data);
    Entry::new(LogId::new(Term::new(1), LogIndex::new(index)), EntryKind::Command, &data)
}

fn at(index: u64) -> LogIndex {
    LogIndex::new(index)
}

fn committed(ops: &[Op]) -> Ledger {
    let mut ledger = Ledger::default();
    for (number, op) in (1..).zip(ops) {
        ledger.asked(RequestId(number), ORIGIN, &ClientRequest::Write(op.clone()), LogIndex::ZERO);
        ledger.commit(&entry(number, op)).unwrap();
    }
    ledger
}

#[test]
fn a_write_returns_what_the_committed_log_says() {
    let ops = [set("key1", "a"), set("key1", "b"), delete("key1"), delete("key1")];
    let right = [
        Outcome::Set { revision: Revision(1), version: 1 },
        Outcome::Set { revision: Revision(2), version: 2 },
        Outcome::Deleted { revision: Revision(3), existed: true },
        Outcome::Deleted { revision: Revision(3), existed: false },
    ];
    let mut ledger = committed(&ops);
    for (number, outcome) in (1..).zip(right) {
        let reply = ClientReply::Written(outcome);
        assert_eq!(ledger.answered(RequestId(number), &reply, at(4)), Ok(()), "{outcome:?}");
    }
    let wrong = [
        (1, Outcome::Set { revision: Revision(2), version: 1 }, 4),
        (2, Outcome::Set { revision: Revision(2), version: 1 }, 4),
        (3, Outcome::Deleted { revision: Revision(3), existed: false }, 3),
        (4, Outcome::Deleted { revision: Revision(4), existed: false }, 4),
        (1, Outcome::Set { revision: Revision(1), version: 1 }, 0),
    ];
    for (number, outcome, applied) in wrong {
        let mut ledger = committed(&ops);
        let reply = ClientReply::Written(outcome);
        assert!(ledger.answered(RequestId(number), &reply, at(applied)).is_err(), "{outcome:?}");
    }
}

#[test]
fn two_answers_need_two_entries() {
    let mut ledger = committed(&[delete("key1")]);
    ledger.asked(RequestId(9), ORIGIN, &ClientRequest::Write(delete("key1")), LogIndex::ZERO);
    ledger.asked(RequestId(8), ORIGIN, &ClientRequest::Write(set("key1", "a")), LogIndex::ZERO);
    let reply = ClientReply::Written(Outcome::Deleted { revision: Revision(0), existed: false });
    assert_eq!(ledger.answered(RequestId(1), &reply, at(1)), Ok(()));
    assert!(ledger.answered(RequestId(9), &reply, at(1)).is_err(), "it was committed before");
    let read = ClientReply::Value(None);
    assert!(ledger.answered(RequestId(8), &read, at(1)).is_err(), "a read's answer to a write");
}

#[test]
fn what_was_refused_or_never_asked_for_is_not_committed() {
    let refused = ClientReply::Failed(ClientError::NoLeader);
    for op in [set("key1", "b"), delete("key1")] {
        let mut ledger = committed(&[set("key1", "a")]);
        ledger.asked(RequestId(5), ORIGIN, &ClientRequest::Write(op.clone()), LogIndex::ZERO);
        let mut later = committed(&[set("key1", "a"), op.clone()]);
        assert!(later.answered(RequestId(2), &refused, at(2)).is_err(), "it is committed already");
        assert_eq!(ledger.answered(RequestId(5), &refused, at(1)), Ok(()));
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
            store.apply(op);
            store.get(b"key1")
        })
        .collect();
    let read = ClientRequest::Read { key: Bytes::from_static(b"key1"), level: Level::Linearizable };
    let ask = |asked_at: usize, applied: u64, state: usize| {
        let mut ledger = committed(&ops[..asked_at]);
        ledger.asked(RequestId(9), ORIGIN, &read, LogIndex::ZERO);
        for (number, op) in (1..).zip(&ops).skip(asked_at) {
            ledger.asked(RequestId(number), ORIGIN, &ClientRequest::Write(op.clone()), LogIndex::ZERO);
            ledger.commit(&entry(number, op)).unwrap();
        }
        ledger.answered(RequestId(9), &ClientReply::Value(states[state].clone()), at(applied)).is_ok()
    };
    assert!(ask(2, 4, 1) && ask(2, 4, 2) && ask(2, 4, 3));
    assert!(!ask(2, 4, 0), "an older state than was committed");
    assert!(!ask(2, 3, 3), "a state that the machine has not applied");
}

#[test]
fn a_store_is_compared_key_by_key() {
    let ops = [set("key1", "a"), set("key2", "b"), delete("key1")];
    let ledger = committed(&ops);
    let mut store = Store::new();
    assert_eq!(ledger.check_snapshot(ORIGIN, at(0), &store), Ok(()));
    for (number, op) in (1..).zip(&ops) {
        assert!(ledger.check_store(ORIGIN, at(number), &store).is_err(), "{op:?} is missing");
        store.apply(op);
        assert_eq!(ledger.check_snapshot(ORIGIN, at(number), &store), Ok(()));
    }
    let mut other = Store::new();
    [set("key2", "a"), set("key3", "b"), delete("key3")].iter().for_each(|op| {
        other.apply(op);
    });
    assert!(ledger.check_store(ORIGIN, at(3), &other).is_err(), "the sums agree, the values do not");
}
