//! Leases: the leader keeps the time, and nobody loses a lease that was renewed.

use super::{Cluster, id};
use crate::kv::{LeaseId, Op, Outcome, Put};
use crate::raft::NodeId;
use crate::replica::{
    ClientError, ClientReply, ClientRequest, Event, LeaseTime, Level, Notice, PeerMessage, ReplicaConfig,
    RequestId,
};
use bytes::Bytes;

const LEASE: LeaseId = LeaseId(7);

impl Cluster {
    fn do_it(&mut self, node: NodeId, op: Op) -> Outcome {
        let request = self.ask(node, ClientRequest::write(op));
        match self.run_until_answered(request) {
            ClientReply::Written(outcome) => outcome,
            other => panic!("a command was answered {other:?}"),
        }
    }

    fn grant(&mut self, node: NodeId, ttl_seconds: u64) {
        let granted = self.do_it(node, Op::Grant { id: LEASE, ttl_seconds });
        assert_eq!(granted, Outcome::Granted { id: LEASE, ttl_seconds });
        let (key, value) = (Bytes::from_static(b"leased"), Bytes::from_static(b"value"));
        let put = self.do_it(node, Op::Put(Put { key, value, lease: LEASE }));
        assert!(matches!(put, Outcome::Put { .. }), "{put:?}");
    }

    fn call(&mut self, node: NodeId, renew: bool) -> RequestId {
        self.ask(node, ClientRequest::Lease { lease: LEASE, renew })
    }

    fn time(&mut self, node: NodeId, renew: bool) -> Option<LeaseTime> {
        let request = self.call(node, renew);
        match self.run_until_answered(request) {
            ClientReply::LeaseTime(time) => time,
            other => panic!("a call of a lease was answered {other:?}"),
        }
    }

    fn has_key(&mut self, node: NodeId) -> bool {
        let request = self.read(node, "leased", Level::Local);
        self.value(request).as_deref() == Some("value")
    }
}

#[test]
fn a_lease_ends_after_its_time_and_takes_its_keys_along() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    let begun = cluster.now;
    cluster.grant(leader, 3);
    cluster.run(2_900_000);
    assert!(cluster.has_key(leader), "before its time");
    cluster.run_until(|cluster| {
        cluster.replicas.values().all(|replica| replica.store().get(b"leased").is_none())
    });
    assert!(cluster.now.since(begun) >= 3_000_000, "it ended after {} µs", cluster.now.since(begun));
    assert_eq!(cluster.time(leader, true), None, "a lease that ended cannot be renewed");
}

#[test]
fn a_renewal_at_any_member_begins_the_time_anew() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.grant(leader, 3);
    for node in [follower, leader, follower, leader, follower] {
        cluster.run(2_000_000);
        let time = cluster.time(node, true).expect("it is there");
        assert_eq!((time.id, time.ttl_seconds, time.keys), (LEASE, 3, 1));
        assert!(time.left_micros > 2_900_000, "{} µs are left", time.left_micros);
    }
    cluster.run(1_000_000);
    let left = cluster.time(follower, false).expect("it is there").left_micros;
    assert!((1_500_000..2_100_000).contains(&left), "{left} µs are left");
    cluster.run(2_100_000);
    assert!(!cluster.has_key(leader), "a question is no renewal");
}

#[test]
fn a_leader_with_a_lease_of_its_own_renews_none_and_stands_for_no_end_of_a_log() {
    let mut config = ReplicaConfig::default();
    config.raft.lease_drift_ppm = Some(10_000);
    let mut cluster = Cluster::without_leader(3, &config);
    let leader = cluster.elect();
    cluster.grant(leader, 30);
    let first = cluster.read(leader, "leased", Level::Linearizable);
    cluster.run_until_answered(first);
    cluster.isolate(leader);
    let read = cluster.read(leader, "leased", Level::Linearizable);
    cluster.run(1_000);
    let renewal = cluster.call(leader, true);
    let barrier = cluster.ask(leader, ClientRequest::Barrier);
    cluster.run(100_000);
    let answered = |request| cluster.replies.contains_key(&request);
    assert!(answered(read), "the leader's lease is enough for a read");
    assert!(!answered(renewal) && !answered(barrier), "what others act on needs a round");
}

#[test]
fn a_renewal_counts_from_before_the_quorum_was_asked() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.grant(leader, 5);
    cluster.run(1_000_000);
    let renewal = cluster.call(leader, true);
    // The others answer at once. The leader stands still, and another one may follow it meanwhile.
    for question in core::mem::take(&mut cluster.network) {
        cluster.give(question.to(), Event::Peer(question));
    }
    cluster.now = cluster.now.plus(300_000);
    cluster.deliver();
    let Some(ClientReply::LeaseTime(Some(time))) = cluster.reply(renewal) else {
        panic!("it is answered {:?}", cluster.reply(renewal))
    };
    assert!((4_600_000..=4_700_000).contains(&time.left_micros), "{} µs are left", time.left_micros);
    let left = time.left_micros;
    cluster.run(left - 10_000);
    assert!(cluster.has_key(leader), "what was promised is kept");
}

#[test]
fn a_new_leader_gives_every_lease_its_full_time_again() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader().unwrap();
    cluster.grant(old, 5);
    cluster.run(4_000_000);
    cluster.isolate(old);
    let leader = cluster.run_until_succeeded(old);
    cluster.run(4_500_000);
    assert!(cluster.has_key(leader), "it lives for its full time under the new leader");
    cluster.run(1_500_000);
    assert!(!cluster.has_key(leader));
}

#[test]
fn a_deposed_leader_renews_nothing_and_ends_nothing() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader().unwrap();
    cluster.grant(old, 2);
    cluster.isolate(old);
    let renewal = cluster.call(old, true);
    let leader = cluster.run_until_succeeded(old);
    // The new leader's clients keep it alive; the old one's time runs out.
    for _ in 0..4 {
        cluster.run(1_000_000);
        assert!(cluster.time(leader, true).is_some());
    }
    assert!(
        !matches!(cluster.reply(renewal), Some(ClientReply::LeaseTime(_))),
        "no quorum confirmed it: {:?}",
        cluster.reply(renewal)
    );
    cluster.heal();
    cluster.run(500_000);
    for node in cluster.replicas.keys().copied().collect::<Vec<_>>() {
        assert!(cluster.has_key(node), "what the old leader proposed alone is not in the log");
    }
}

/// A member that is cut off together with the leader that was deposed asks it like before.
#[test]
fn a_deposed_leader_renews_nothing_for_a_member_that_is_cut_off_with_it() {
    let mut cluster = Cluster::new(5);
    let old = cluster.leader().unwrap();
    cluster.grant(old, 3);
    let beside = cluster.follower();
    let others: Vec<NodeId> =
        cluster.replicas.keys().copied().filter(|node| ![old, beside].contains(node)).collect();
    for other in others {
        for node in [old, beside] {
            cluster.cut.extend([(node, other), (other, node)]);
        }
    }
    let renewals = [cluster.call(beside, true), cluster.call(old, true)];
    let leader = cluster.run_until_succeeded(old);
    assert!(![old, beside].contains(&leader), "two of five elect nobody");
    cluster.run(1_000_000);
    for renewal in renewals {
        let told = cluster.reply(renewal);
        assert!(!matches!(told, Some(ClientReply::LeaseTime(_))), "no quorum confirmed it: {told:?}");
    }
    cluster.heal();
    cluster.run(500_000);
    assert!(cluster.time(beside, true).is_some(), "the one that leads now renews it");
}

#[test]
fn the_end_of_a_lease_spares_the_one_that_was_granted_after_it() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    cluster.grant(leader, 2);
    // Its end is proposed, but nothing is written; a revocation and another grant follow in the
    // log.
    cluster.disks_work = false;
    cluster.isolate(leader);
    cluster.run(2_100_000);
    let revoke = cluster.ask(leader, ClientRequest::write(Op::Revoke(LEASE)));
    let grant = cluster.ask(leader, ClientRequest::write(Op::Grant { id: LEASE, ttl_seconds: 60 }));
    cluster.heal();
    cluster.disks_work = true;
    cluster.run_until(|cluster| cluster.reply(revoke).is_some() && cluster.reply(grant).is_some());
    cluster.run(3_000_000);
    let leader = cluster.leader().unwrap();
    assert!(cluster.time(leader, false).is_some(), "{:?}", cluster.reply(grant));
}

#[test]
fn thousands_of_leases_end_in_batches() {
    let mut cluster = Cluster::new(1);
    for number in 1..=2_500 {
        let grant = Op::Grant { id: LeaseId(number), ttl_seconds: 2 };
        cluster.ask(id(1), ClientRequest::write(grant));
    }
    cluster.run(10_000);
    assert_eq!(cluster.replicas[&id(1)].store().lease_count(), 2_500);
    let before = cluster.replicas[&id(1)].raft().last_log().index;
    cluster.run(2_500_000);
    assert_eq!(cluster.replicas[&id(1)].store().lease_count(), 0);
    let entries = cluster.replicas[&id(1)].raft().last_log().index.since(before);
    assert!((3..=6).contains(&entries), "{entries} entries");
}

#[test]
fn a_call_that_was_lost_is_sent_again_while_others_come() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.grant(leader, 60);
    let lost = cluster.call(follower, true);
    cluster.network.retain(|message| !matches!(message, PeerMessage::LeaseCalls(_)));
    // The next call comes before the time to send the lost one again, and so on.
    for _ in 0..20 {
        cluster.call(follower, true);
        cluster.run(100_000);
    }
    assert!(cluster.replies.contains_key(&lost), "within two seconds");
}

/// In the middle of what it can take a leader refuses the rest, and says why.
#[test]
fn a_leader_with_too_much_to_do_says_so_to_the_clients_of_others() {
    let config = ReplicaConfig { pending_requests_max: 2, ..ReplicaConfig::default() };
    let mut cluster = Cluster::without_leader(3, &config);
    let leader = cluster.elect();
    cluster.grant(leader, 60);
    let others: Vec<NodeId> = cluster.replicas.keys().copied().filter(|id| *id != leader).collect();
    let taken = [(); 2].map(|()| cluster.call(others[0], true));
    let refused = cluster.call(others[1], true);
    let overloaded = ClientReply::Failed(ClientError::Overloaded);
    assert_eq!(cluster.run_until_answered(refused), overloaded);
    for call in taken {
        let reply = cluster.run_until_answered(call);
        assert!(matches!(reply, ClientReply::LeaseTime(Some(_))), "{reply:?}");
    }
    let counted = Notice::LeaseCallsRefused { from: others[1], count: 1 };
    assert!(cluster.notices.contains(&(leader, counted)), "{:?}", cluster.notices);
}
