//! Clients that wait for a change.

use super::{Cluster, id, set};
use crate::kv::{Changes, ChangesQuery, KeyRange, Op, ReadError, Revision, Settings};
use crate::raft::NodeId;
use crate::replica::{ClientError, ClientReply, ClientRequest, Event, ReplicaConfig, RequestId};
use alloc::sync::Arc;

fn of(range: KeyRange, from: u64) -> ClientRequest {
    let from = Revision(from);
    ClientRequest::Watch(ChangesQuery { range, from, puts: true, deletions: true, previous: false })
}

impl Cluster {
    fn watch(&mut self, node: NodeId, range: KeyRange, from: u64) -> RequestId {
        self.ask(node, of(range, from))
    }

    fn changes(&self, request: RequestId) -> Option<Arc<Changes>> {
        match self.reply(request)? {
            ClientReply::Changes(Ok(changes)) => Some(changes.clone()),
            other => panic!("a watch was answered {other:?}"),
        }
    }

    fn seen(&self, request: RequestId) -> Option<Vec<(u64, usize)>> {
        let changes = self.changes(request)?;
        Some(changes.revisions.iter().map(|seen| (seen.revision.0, seen.events.len())).collect())
    }
}

#[test]
fn a_watch_is_answered_by_the_next_change_of_its_keys_and_by_no_other() {
    let mut cluster = Cluster::new(3);
    let follower = cluster.follower();
    let one = cluster.watch(follower, KeyRange::one("a"), 1);
    let prefix = cluster.watch(follower, KeyRange::prefix("b/"), 1);
    let written = cluster.write(follower, "other", "1");
    cluster.run_until_answered(written);
    assert_eq!((cluster.seen(one), cluster.seen(prefix)), (None, None));
    let written = cluster.write(follower, "a", "1");
    cluster.run_until_answered(written);
    assert_eq!((cluster.seen(one), cluster.seen(prefix)), (Some(vec![(2, 1)]), None));
    let written = cluster.write(follower, "b/x", "1");
    cluster.run_until_answered(written);
    assert_eq!(cluster.seen(prefix), Some(vec![(3, 1)]));
    assert_eq!(cluster.changes(prefix).unwrap().next, Revision(4));
}

/// A step has heartbeats to send: what takes long is worked out beside it.
#[test]
fn watches_that_are_far_behind_are_handed_out_with_their_state() {
    let mut cluster = Cluster::new(1);
    for number in 1..=1_500 {
        cluster.write(id(1), &format!("k/{}", number % 10), "x");
    }
    cluster.run(10_000);
    let last = Revision(1_500);
    assert_eq!(cluster.replicas[&id(1)].store().revision(), last);
    // A key that did not change is known without a look; a range is not.
    let quiet = cluster.watch(id(1), KeyRange::one("a"), 1);
    let near = cluster.watch(id(1), KeyRange::prefix("k/3"), 1_000);
    let far = cluster.watch(id(1), KeyRange::prefix("k/3"), 1);
    let nothing = cluster.watch(id(1), KeyRange::prefix("a"), 1);
    assert_eq!(cluster.reply(quiet), None);
    assert_eq!(cluster.seen(near).map(|seen| seen.len()), Some(50));
    let written = cluster.write(id(1), "a", "later");
    cluster.run_until_answered(written);
    let worked_out = |cluster: &Cluster, request| match cluster.reply(request).cloned() {
        Some(reply @ ClientReply::PastChanges(_)) => match reply.worked_out() {
            ClientReply::Changes(Ok(changes)) => (changes.revisions.len(), changes.next),
            other => panic!("{other:?}"),
        },
        other => panic!("it is answered {other:?}"),
    };
    assert_eq!(worked_out(&cluster, far), (150, last.next()), "as it was when it was asked");
    assert_eq!(worked_out(&cluster, nothing), (0, last.next()), "so far there is nothing");
    assert_eq!(cluster.seen(quiet), Some(vec![(1_501, 1)]));
}

#[test]
fn a_step_looks_at_so_many_changes_for_watches_however_many_there_are() {
    let mut cluster = Cluster::new(1);
    for number in 1..=800 {
        cluster.write(id(1), &format!("k/{}", number % 10), "x");
    }
    cluster.run(10_000);
    let deadline = cluster.now.plus(5_000_000);
    let mut answers = || {
        let replica = cluster.replicas.get_mut(&id(1)).unwrap();
        for number in 0..100 {
            let request = of(KeyRange::prefix(format!("k/{}", number % 10)), 1);
            let event = Event::Client { id: RequestId(5_000 + number), deadline, by: None, request };
            replica.step(cluster.now, event);
        }
        let replies = replica.take_actions().replies;
        assert_eq!(replies.len(), 100);
        replies.iter().filter(|(_, reply)| matches!(reply, ClientReply::Changes(_))).count()
    };
    // Each looks at 800 revisions.
    let first = answers();
    assert!((5..=15).contains(&first), "{first} are answered within the step");
    assert_eq!(answers(), first, "the next step has as many looks again");
}

#[test]
fn a_watch_from_the_past_is_answered_at_once_with_all_of_it() {
    let mut cluster = Cluster::new(1);
    for value in ["1", "2", "3"] {
        let written = cluster.write(id(1), "a", value);
        cluster.run_until_answered(written);
    }
    let deleted = cluster.ask(id(1), ClientRequest::write(Op::delete("a")));
    cluster.run_until_answered(deleted);
    let watch = cluster.watch(id(1), KeyRange::one("a"), 2);
    assert_eq!(cluster.seen(watch), Some(vec![(2, 1), (3, 1), (4, 1)]));
    let future = cluster.watch(id(1), KeyRange::all(), 6);
    let written = cluster.write(id(1), "a", "5");
    cluster.run_until_answered(written);
    assert_eq!(cluster.seen(future), None, "revision 5 is not wanted");
    let written = cluster.write(id(1), "a", "6");
    cluster.run_until_answered(written);
    assert_eq!(cluster.seen(future), Some(vec![(6, 1)]));
}

#[test]
fn at_the_deadline_a_watch_is_told_how_far_it_was_looked_at() {
    let mut cluster = Cluster::new(1);
    let watch = cluster.watch(id(1), KeyRange::one("a"), 1);
    let written = cluster.write(id(1), "b", "1");
    cluster.run_until_answered(written);
    cluster.run(5_100_000);
    assert_eq!(cluster.seen(watch), Some(Vec::new()));
    assert_eq!(cluster.changes(watch).unwrap().next, Revision(2));
}

#[test]
fn a_watch_from_what_was_compacted_is_told_where_to_go_on() {
    let mut cluster = Cluster::new(1);
    for value in ["1", "2", "3"] {
        let written = cluster.write(id(1), "a", value);
        cluster.run_until_answered(written);
    }
    let compact = cluster.ask(id(1), ClientRequest::write(Op::Compact(Revision(2))));
    cluster.run_until_answered(compact);
    let watch = cluster.watch(id(1), KeyRange::one("a"), 2);
    let compacted = ClientReply::Changes(Err(ReadError::Compacted(Revision(3))));
    assert_eq!(cluster.reply(watch), Some(&compacted));
}

/// Others may fill the room for those that wait. One for which something is there need not.
#[test]
fn a_change_that_is_there_is_told_whatever_waits() {
    for full in [
        ReplicaConfig { pending_watch_bytes_max: 182, ..ReplicaConfig::default() },
        ReplicaConfig { pending_requests_max: 1, ..ReplicaConfig::default() },
    ] {
        let mut cluster = Cluster::without_leader(1, &full);
        cluster.elect();
        let written = cluster.write(id(1), "a", "1");
        cluster.run_until_answered(written);
        // 181 bytes.
        let waits = cluster.watch(id(1), KeyRange::one("x".repeat(90)), 2);
        let refused = cluster.watch(id(1), KeyRange::one("y".repeat(90)), 2);
        assert_eq!(cluster.reply(refused), Some(&ClientReply::Failed(ClientError::Overloaded)));
        let told = cluster.watch(id(1), KeyRange::one("a"), 1);
        assert_eq!(cluster.seen(told), Some(vec![(1, 1)]));
        assert_eq!(cluster.reply(waits), None);
    }
}

#[test]
fn a_node_that_ends_lets_no_client_wait_for_a_change() {
    let mut cluster = Cluster::new(1);
    let watch = cluster.watch(id(1), KeyRange::all(), 1);
    cluster.give(id(1), Event::EndWatches);
    assert_eq!(cluster.reply(watch), Some(&ClientReply::Failed(ClientError::Stopping)));
}

#[test]
fn many_watches_of_one_key_share_one_answer() {
    let mut cluster = Cluster::new(1);
    let watches: Vec<RequestId> = (0..100).map(|_| cluster.watch(id(1), KeyRange::one("a"), 1)).collect();
    let written = cluster.ask(id(1), ClientRequest::write(set("a", "1")));
    cluster.run_until_answered(written);
    let first = cluster.changes(watches[0]).expect("it was answered");
    for watch in &watches {
        assert!(Arc::ptr_eq(&first, &cluster.changes(*watch).expect("it was answered")));
    }
}

#[test]
fn a_revision_too_large_for_the_history_ends_no_watch_of_a_key_that_is_as_it_was() {
    let mut cluster = Cluster::new(1);
    let do_it = |cluster: &mut Cluster, op: Op| {
        let request = cluster.ask(id(1), ClientRequest::write(op));
        cluster.run_until_answered(request);
    };
    do_it(&mut cluster, Op::Configure(Settings { history_bytes: 300, ..Settings::default() }));
    do_it(&mut cluster, set("mine", "1"));
    do_it(&mut cluster, set("large", &"x".repeat(400)));
    let from = cluster.replicas[&id(1)].store().revision().0 + 1;
    let mine = cluster.watch(id(1), KeyRange::one("mine"), from);
    let other = cluster.watch(id(1), KeyRange::one("large"), from);
    do_it(&mut cluster, Op::delete("large"));
    assert_eq!(cluster.reply(mine), None, "nothing of it has changed");
    assert!(matches!(cluster.reply(other), Some(ClientReply::Changes(Err(ReadError::Compacted(_))))));
    do_it(&mut cluster, set("mine", "2"));
    assert_eq!(cluster.seen(mine), Some(vec![(from + 1, 1)]));
}
