use super::{AnsweredChange, Orders, follows};
use infinitystore::raft::{Change, LogId, LogIndex, Member, Membership, NodeId, StoreId, Term};
use infinitystore::replica::{ClientRequest, RequestId};

fn member(number: u128) -> Member {
    let (raft_addr, http_addr) = (format!("m{number}:1"), format!("m{number}:2"));
    Member { name: format!("m{number}"), raft_addr, http_addr, store_id: StoreId(number) }
}

fn add(number: u128, promote: bool) -> Change {
    Change::AddMembers { members: vec![member(number)], replaces: [].into(), promote }
}

fn at(index: u64) -> LogId {
    LogId::new(Term::new(1), LogIndex::new(index))
}

#[test]
fn a_change_takes_its_steps_and_no_other() {
    let alone = Membership::bootstrap([member(1)]).unwrap();
    let (learning, _) = alone.apply_change(&add(2, true)).unwrap();
    let joint = learning.promote(NodeId::new(2)).unwrap();
    let both = joint.leave_joint();
    for (before, next) in [(&alone, &learning), (&learning, &joint), (&joint, &both)] {
        assert_eq!(follows(before, next), Ok(()));
    }
    for (before, next) in [(&alone, &both), (&learning, &both), (&joint, &learning), (&alone, &joint)] {
        assert!(follows(before, next).is_err(), "{next:?} after {before:?}");
    }
    let (stays, _) = alone.apply_change(&add(2, false)).unwrap();
    assert_eq!(follows(&alone, &stays), Ok(()));
    assert!(follows(&stays, &joint).is_err(), "it was to stay a learner");
}

#[test]
fn what_was_promised_has_to_be_committed_by_then() {
    let alone = Membership::bootstrap([member(1)]).unwrap();
    let (learning, _) = alone.apply_change(&add(2, true)).unwrap();
    let (after, through) = (LogIndex::new(1), LogIndex::new(3));
    let promise = AnsweredChange {
        by: NodeId::new(1),
        change: add(2, true),
        expected: None,
        added: vec![NodeId::new(2)],
        after,
        through,
    };
    for (index, is_kept) in [(1, false), (2, true), (3, true), (4, false)] {
        let mut orders = Orders::default();
        orders.promised.push(promise.clone());
        orders.configurations.push((at(index), learning.clone()));
        assert_eq!(orders.reached(LogIndex::new(2)), Ok(()), "what is committed at 3 is not known");
        assert_eq!(orders.reached(through).is_ok(), is_kept, "committed at {index}");
        assert_eq!(orders.reached(LogIndex::new(4)), Ok(()), "it was judged");
    }
}

#[test]
fn only_a_node_that_was_asked_for_joins() {
    let alone = Membership::bootstrap([member(1)]).unwrap();
    let (learning, _) = alone.apply_change(&add(2, true)).unwrap();
    let mut orders = Orders::default();
    let ask = |store| ClientRequest::ChangeMembership(add(store, true).into());
    orders.asked(RequestId(1), &ask(3), LogIndex::ZERO, Term::new(1));
    orders.commit(at(1), alone.clone()).unwrap();
    assert!(orders.commit(at(2), learning.clone()).is_err(), "another one was asked for");
    let mut orders = Orders::default();
    orders.asked(RequestId(1), &ask(2), LogIndex::ZERO, Term::new(1));
    orders.commit(at(1), alone).unwrap();
    orders.commit(at(2), learning).unwrap();
}
