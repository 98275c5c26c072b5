//! Clients that wait for a change.

use super::{Cluster, id, set};
use crate::kv::{Changes, ChangesQuery, KeyRange, Op, ReadError, Revision, Settings};
use crate::raft::NodeId;
use crate::replica::{ClientError, ClientReply, ClientRequest, Event, RequestId};
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
