//! What clients ask of a healthy cluster.

use crate::kv::{
    Command, Found, KeyRange, LeaseId, Op, Outcome, Put, Query, QueryAnswer, RangeQuery, ReadError, Revision,
    Txn, TxnOp,
};
use crate::raft::{Body, Incarnation, LogIndex, Message, ReadRefusal};
use crate::replica::tests::{Cluster, add_member, id, set, start};
use crate::replica::{
    ClientError, ClientReply, ClientRequest, Event, Level, PeerMessage, ReplicaConfig, RequestId,
};
use bytes::Bytes;

#[test]
fn a_write_on_any_node_is_seen_by_a_read_on_any_other_at_once() {
    let mut cluster = Cluster::new(3);
    for (number, (writer, reader)) in [(1, 2), (2, 3), (3, 1)].into_iter().enumerate() {
        let value = format!("v{number}");
        let write = cluster.write(id(writer), "k", &value);
        assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(Outcome::Put { .. })));
        let read = cluster.read(id(reader), "k", Level::Linearizable);
        cluster.run_until_answered(read);
        assert_eq!(cluster.value(read), Some(value));
    }
}

#[test]
fn the_answer_to_a_forwarded_write_comes_after_its_own_node_has_applied_it() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let write = cluster.write(follower, "k", "v");
    cluster.run_until_answered(write);
    let read = cluster.read(follower, "k", Level::Local);
    assert_eq!(cluster.value(read), Some("v".into()), "a local read on the node that answered");
}

#[test]
fn writes_of_one_batch_share_one_log_write_and_one_append_a_peer() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.network.clear();
    let now = cluster.now;
    let replica = cluster.replicas.get_mut(&leader).unwrap();
    for number in 0..100 {
        let request = ClientRequest::write(set("k", &number.to_string()));
        replica.step(
            now,
            Event::Client { id: RequestId(1_000 + number), deadline: now.plus(1_000_000), by: None, request },
        );
    }
    let actions = replica.take_actions();
    assert_eq!(actions.storage.len(), 1);
    assert_eq!(actions.messages.len(), 2);
}

#[test]
fn a_read_of_the_past_is_handed_out_with_its_state_and_not_worked_out() {
    let mut cluster = Cluster::new(1);
    for value in ["1", "2"] {
        let written = cluster.write(id(1), "k", value);
        cluster.run_until_answered(written);
    }
    let read = |cluster: &mut Cluster, at| {
        let range = KeyRange::one("k");
        let query = Query::Range(RangeQuery { at: Some(Revision(at)), ..RangeQuery::of(range) });
        let request = cluster.ask(id(1), ClientRequest::Read { query, level: Level::Linearizable });
        cluster.run_until_answered(request)
    };
    let past = read(&mut cluster, 1);
    assert!(matches!(past, ClientReply::Past(_)), "{past:?}");
    let written = cluster.write(id(1), "k", "3");
    cluster.run_until_answered(written);
    let found = |reply| match reply {
        ClientReply::Answer(QueryAnswer { revision, found: Found::Range(page) }) => {
            (revision.0, page.map(|page| page.kvs[0].value.clone()))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(found(past.worked_out()), (2, Ok("1".into())));
    assert_eq!(found(read(&mut cluster, 3)), (3, Ok("3".into())), "the present costs nothing");
    assert_eq!(found(read(&mut cluster, 4)), (3, Err(ReadError::Future(Revision(3)))));
}

#[test]
fn reads_of_one_batch_share_one_round() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let now = cluster.now;
    let replica = cluster.replicas.get_mut(&leader).unwrap();
    for number in 0..100 {
        let request = ClientRequest::read("k", Level::Linearizable);
        replica.step(
            now,
            Event::Client { id: RequestId(1_000 + number), deadline: now.plus(1_000_000), by: None, request },
        );
    }
    let actions = replica.take_actions();
    assert_eq!(actions.messages.len(), 2, "one message to each of the others");
    assert!(actions.replies.is_empty(), "nothing is served before a quorum has confirmed");
}

#[test]
fn a_delete_says_how_many_keys_existed() {
    let mut cluster = Cluster::new(1);
    let write = cluster.write(id(1), "k", "v");
    cluster.run_until_answered(write);
    for count in [1, 0] {
        let delete = cluster.ask(id(1), ClientRequest::write(Op::delete("k")));
        let expected = ClientReply::Written(Outcome::Deleted { revision: Revision(2), count });
        assert_eq!(cluster.run_until_answered(delete), expected);
    }
}

#[test]
fn a_forward_that_is_delivered_twice_is_applied_once() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.write(follower, "k", "v");
    let forward =
        cluster.network.iter().find(|message| matches!(message, PeerMessage::Forward(_))).cloned().unwrap();
    cluster.network.push_back(forward.clone());
    cluster.deliver();
    cluster.network.push_back(forward);
    cluster.run(100_000);
    let store = cluster.replicas[&leader].store();
    assert_eq!(store.get(b"k").unwrap().version, 1);
}

#[test]
fn a_forward_of_a_stranger_or_under_a_false_name_is_not_proposed() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.write(follower, "k", "v");
    let Some(PeerMessage::Forward(forward)) = cluster.network.pop_front() else { panic!("it is forwarded") };
    let mut stranger = forward.clone();
    stranger.from = id(9);
    let mut other_life = forward.clone();
    other_life.incarnation = Incarnation::drawn(1, 7);
    let mut garbage = forward;
    garbage.commands = vec![Bytes::from_static(b"no command")];
    for forward in [stranger, other_life, garbage] {
        cluster.give(leader, Event::Peer(PeerMessage::Forward(forward)));
    }
    cluster.run(100_000);
    assert!(cluster.replicas[&leader].store().is_empty());
}

#[test]
fn requests_beyond_the_limit_are_refused_and_the_others_served() {
    let config = ReplicaConfig { pending_requests_max: 2, ..ReplicaConfig::default() };
    let mut cluster = Cluster::without_leader(3, &config);
    let requests: Vec<RequestId> = (0..3).map(|_| cluster.write(id(1), "k", "v")).collect();
    assert_eq!(cluster.reply(requests[2]), Some(&ClientReply::Failed(ClientError::Overloaded)));
    for request in &requests[..2] {
        assert!(matches!(cluster.run_until_answered(*request), ClientReply::Written(_)));
    }
}

#[test]
fn the_bytes_of_writes_that_wait_are_bounded_and_counted_wherever_they_end() {
    let config = ReplicaConfig { pending_write_bytes_max: 250, ..ReplicaConfig::default() };
    let mut cluster = Cluster::without_leader(3, &config);
    let value = "v".repeat(99);
    let overloaded = Some(&ClientReply::Failed(ClientError::Overloaded));
    let node = id(1);
    // Held for ever, sent and held again, answered: each time there is room for two again.
    for round in 0..4 {
        let requests = [(); 3].map(|()| cluster.write(node, "k", &value));
        assert_eq!(cluster.reply(requests[2]), overloaded, "in round {round}");
        assert!(
            requests[..2].iter().all(|request| cluster.reply(*request) != overloaded),
            "in round {round}"
        );
        match round {
            0 => cluster.isolate(node),
            1 => {
                cluster.heal();
                cluster.run_until(|cluster| cluster.leader().is_some());
            }
            _ => {}
        }
        for request in &requests[..2] {
            cluster.run_until_answered(*request);
        }
    }
}

#[test]
fn a_write_that_waits_keeps_nothing_of_the_buffer_that_it_came_in() {
    let mut cluster = Cluster::without_leader(3, &ReplicaConfig::default());
    let buffer = Bytes::from(vec![b'x'; 100_000]);
    let named = Command {
        idempotency_key: Some(buffer.slice(1..3)),
        since: None,
        by: None,
        op: Op::delete(buffer.slice(10..13)),
    };
    for command in [Op::set(buffer.slice(10..13), buffer.slice(20..40)).into(), named] {
        let write = cluster.ask(id(1), ClientRequest::Write(command));
        assert_eq!(cluster.reply(write), None, "it waits");
    }
    assert!(buffer.is_unique(), "a slice of the buffer lives on in the replica");
}

#[test]
fn a_command_that_breaks_a_rule_is_refused_before_it_is_logged() {
    let mut cluster = Cluster::new(1);
    let twice = Txn { success: vec![put("k"), put("k")], ..Txn::default() };
    let long = Command {
        idempotency_key: Some(Bytes::from(vec![b'i'; 257])),
        since: None,
        by: None,
        op: Op::delete("k"),
    };
    for command in [Op::set("", "v").into(), Op::Txn(Box::new(twice)).into(), long] {
        let last = cluster.replicas[&id(1)].raft().last_log();
        let write = cluster.ask(id(1), ClientRequest::Write(command));
        let refused = matches!(cluster.reply(write), Some(ClientReply::Failed(ClientError::BadCommand(_))));
        assert!(refused, "{:?}", cluster.reply(write));
        assert_eq!(cluster.replicas[&id(1)].raft().last_log(), last);
    }
}

fn put(key: &'static str) -> TxnOp {
    TxnOp::Put(Put { key: key.into(), value: Bytes::new(), lease: LeaseId::NONE })
}

#[test]
fn a_reserved_node_takes_no_writes_until_it_is_released() {
    let mut cluster = Cluster::new(1);
    assert!(cluster.replicas[&id(1)].is_pristine());
    let until = cluster.now.plus(10_000_000);
    cluster.give(id(1), Event::Reserve { until });
    assert!(!cluster.replicas[&id(1)].is_pristine(), "not for a second reservation");
    let write = cluster.write(id(1), "k", "v");
    assert_eq!(cluster.reply(write), Some(&ClientReply::Failed(ClientError::Reserved)));
    cluster.give(id(1), Event::Release);
    let write = cluster.write(id(1), "k", "v");
    assert!(matches!(cluster.run_until_answered(write), ClientReply::Written(_)));
    assert!(!cluster.replicas[&id(1)].is_pristine(), "it has data now");
}

#[test]
fn a_reserved_node_answers_no_linearizable_read() {
    // It would answer from the empty state of a cluster that is about to be no more, to a client of
    // the one it joins.
    let mut cluster = Cluster::new(1);
    let until = cluster.now.plus(10_000_000);
    cluster.give(id(1), Event::Reserve { until });
    let read = cluster.read(id(1), "k", Level::Linearizable);
    assert_eq!(cluster.reply(read), Some(&ClientReply::Failed(ClientError::Reserved)));
    cluster.give(id(1), Event::Release);
    let read = cluster.read(id(1), "k", Level::Linearizable);
    assert_eq!(cluster.run_until_answered(read).key(), Some(&None));
}

#[test]
fn a_node_with_an_uncommitted_write_is_not_pristine() {
    let mut cluster = Cluster::new(1);
    cluster.disks_work = false;
    cluster.write(id(1), "k", "v");
    assert!(!cluster.replicas[&id(1)].is_pristine());
}

#[test]
fn a_node_whose_snapshots_hold_nothing_is_pristine() {
    // One that waits to be taken into a cluster, and restarts so often that its own elections fill
    // a snapshot.
    let mut config = ReplicaConfig { snapshot_log_entries: 2, ..ReplicaConfig::default() };
    config.raft.log_tail_entries = 0;
    let mut cluster = Cluster::without_leader(1, &config);
    cluster.elect();
    cluster.run_until(|cluster| cluster.replicas[&id(1)].status(cluster.now).snapshot.index.get() > 0);
    assert!(cluster.replicas[&id(1)].is_pristine());
    for _ in 0..2 {
        let write = cluster.write(id(1), "k", "v");
        cluster.run_until_answered(write);
    }
    cluster.run_until(|cluster| cluster.replicas[&id(1)].raft().log_after(LogIndex::ZERO).is_empty());
    assert!(!cluster.replicas[&id(1)].is_pristine(), "its data is in the snapshot alone");
}

#[test]
fn a_member_is_added_and_promoted() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let write = cluster.write(leader, "k", "v");
    cluster.run_until_answered(write);
    let change = cluster.ask(leader, add_member(4));
    assert_eq!(cluster.run_until_answered(change), ClientReply::MembershipChanged(vec![id(4)]));
    let newcomer = start(id(4), &ReplicaConfig::default(), Default::default(), 1);
    cluster.replicas.insert(id(4), newcomer);
    cluster.run_until(|cluster| {
        let membership = cluster.replicas[&id(4)].membership();
        membership.voters.contains(&id(4)) && membership.outgoing.is_none()
    });
    let read = cluster.read(id(4), "k", Level::Linearizable);
    cluster.run_until_answered(read);
    assert_eq!(cluster.value(read), Some("v".into()));
}

#[test]
fn a_change_of_membership_on_a_follower_names_the_leader() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let change = cluster.ask(follower, add_member(4));
    assert_eq!(cluster.reply(change), Some(&ClientReply::Failed(ClientError::NotLeader(leader))));
}

/// A question that the leader refused is asked again. If the time is up first, the client is told
/// why it was refused.
#[test]
fn a_read_that_a_leader_had_too_much_to_do_for_says_so() {
    for (why, expected) in
        [(ReadRefusal::Overloaded, ClientError::Overloaded), (ReadRefusal::NotLeading, ClientError::NoQuorum)]
    {
        let mut cluster = Cluster::new(3);
        let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
        let read = cluster.read(follower, "k", Level::Linearizable);
        let asked = core::mem::take(&mut cluster.network);
        let question = asked.iter().find_map(|message| match message {
            PeerMessage::Raft(message) => match message.body {
                Body::ReadIndex { incarnation, sequence } => Some((incarnation, sequence)),
                _ => None,
            },
            _ => None,
        });
        let (incarnation, sequence) = question.expect("the leader is asked");
        cluster.cut.insert((follower, leader));
        let body = Body::ReadIndexRefused { incarnation, sequence, why };
        let term = cluster.replicas[&leader].raft().term();
        let refused = PeerMessage::Raft(Message { from: leader, to: follower, term, body });
        cluster.give(follower, Event::Peer(refused));
        assert_eq!(cluster.run_until_answered(read), ClientReply::Failed(expected));
    }
}

#[test]
fn a_read_that_this_node_had_too_much_to_do_for_says_so() {
    let mut config = ReplicaConfig::default();
    config.raft.pending_reads_max = 1;
    let mut cluster = Cluster::without_leader(3, &config);
    let leader = cluster.elect();
    cluster.isolate(leader);
    let deadline = cluster.now.plus(250_000);
    let mut ask = || {
        cluster.last_request += 1;
        let id = RequestId(cluster.last_request);
        let request = ClientRequest::read("k", Level::Linearizable);
        cluster.give(leader, Event::Client { id, deadline, by: None, request });
        id
    };
    let (taken, put_off) = (ask(), ask());
    assert_eq!(cluster.run_until_answered(taken), ClientReply::Failed(ClientError::NoQuorum));
    assert_eq!(cluster.run_until_answered(put_off), ClientReply::Failed(ClientError::Overloaded));
}
