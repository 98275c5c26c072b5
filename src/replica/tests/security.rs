//! Rights: judged by the state that a request reads or changes, on whichever member it was asked.

use super::{Cluster, set};
use crate::kv::{
    Access, AdminRights, ChangesQuery, Command, Denial, Grant, KeyRange, LeaseId, Op, Outcome, Principal,
    Put, Query, ROOT_ROLE, Refusal, Revision, SecurityChange, Subject,
};
use crate::raft::NodeId;
use crate::replica::{ClientError, ClientReply, ClientRequest, Event, Level, ReplicaConfig, RequestId};

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA";

impl Cluster {
    fn ask_as(&mut self, node: NodeId, by: Option<Principal>, request: ClientRequest) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let deadline = self.now.plus(5_000_000);
        self.give(node, Event::Client { id, deadline, by, request });
        id
    }

    fn answer_to(&mut self, node: NodeId, by: Option<Principal>, request: ClientRequest) -> ClientReply {
        let request = self.ask_as(node, by, request);
        self.run_until_answered(request)
    }

    fn change(&mut self, node: NodeId, by: Option<Principal>, change: SecurityChange) {
        let op = Op::Secure(Box::new(change));
        let reply = self.answer_to(node, by, ClientRequest::write(op));
        assert!(matches!(reply, ClientReply::Written(Outcome::Secured(_))), "{reply:?}");
    }

    /// As a node sees it, the user with this name.
    fn user(&self, node: NodeId, name: &str) -> Option<Principal> {
        let rules = self.replicas[&node].store().security();
        let subject = Subject::User(rules.user(name)?.id);
        Some(Principal { subject, as_of: rules.revision() })
    }

    /// `root` may do everything, and `app` what is below `app/`.
    fn secure(&mut self, node: NodeId) {
        let grants = vec![Grant { range: KeyRange::prefix("app/"), access: Access::ReadWrite }];
        let (name, admin) = ("app".to_owned(), AdminRights::NONE);
        self.change(node, None, SecurityChange::AddRole { name, grants, admin });
        for (name, role) in [("root", ROOT_ROLE), ("app", "app")] {
            let (name, password, roles) = (name.to_owned(), Some(HASH.to_owned()), vec![role.to_owned()]);
            self.change(node, None, SecurityChange::AddUser { name, password, roles });
        }
        self.change(node, None, SecurityChange::Enable);
        self.run(300_000);
    }

    fn take_the_role_away(&mut self, node: NodeId) {
        let (name, revoke) = ("app".to_owned(), vec!["app".to_owned()]);
        let by = self.user(node, "root");
        self.change(node, by, SecurityChange::ChangeUser { name, grant: vec![], revoke });
    }
}

fn watch(prefix: &'static str) -> ClientRequest {
    let (range, from) = (KeyRange::prefix(prefix), Revision(1));
    ClientRequest::Watch(ChangesQuery { range, from, puts: true, deletions: true, previous: true })
}

fn denied(denial: Denial) -> ClientReply {
    ClientReply::Failed(ClientError::Denied(denial))
}

fn refused(denial: Denial) -> ClientReply {
    ClientReply::Written(Outcome::Refused(Refusal::Denied { denial, maybe_done: false }))
}

#[test]
fn a_watch_ends_with_its_right_before_it_is_told_more() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.secure(leader);
    let app = cluster.user(follower, "app");
    let waiting = cluster.ask_as(follower, app, watch("app/"));
    let root = cluster.user(follower, "root");
    let roots = cluster.ask_as(follower, root, watch("app/"));
    assert_eq!(cluster.answer_to(follower, app, watch("")), denied(Denial::MayNotRead));
    // The right goes and the key is put in one breath: both may be applied together.
    let (name, revoke) = ("app".to_owned(), vec!["app".to_owned()]);
    let change = SecurityChange::ChangeUser { name, grant: vec![], revoke };
    cluster.ask_as(leader, root, ClientRequest::write(Op::Secure(Box::new(change))));
    let put = cluster.ask_as(leader, root, ClientRequest::write(set("app/a", "unseen")));
    cluster.run_until_answered(put);
    assert_eq!(cluster.run_until_answered(waiting), denied(Denial::MayNotRead));
    assert!(matches!(cluster.run_until_answered(roots), ClientReply::Changes(Ok(_))));
}

#[test]
fn a_write_that_was_under_way_is_judged_when_it_is_applied() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.secure(leader);
    let app = cluster.user(follower, "app");
    // The follower has not heard of it, and its client's write arrives after the change.
    cluster.cut.insert((leader, follower));
    cluster.take_the_role_away(leader);
    assert!(cluster.user(follower, "app").is_some());
    let late = cluster.ask_as(follower, app, ClientRequest::write(set("app/a", "late")));
    cluster.run(20_000);
    cluster.heal();
    assert_eq!(cluster.run_until_answered(late), refused(Denial::MayNotWrite));
    assert!(cluster.replicas.values().all(|replica| replica.store().get(b"app/a").is_none()));
}

#[test]
fn a_linearizable_read_is_judged_where_it_is_served_and_a_local_one_by_what_it_reads() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.secure(leader);
    let app = cluster.user(follower, "app");
    cluster.cut.insert((leader, follower));
    cluster.take_the_role_away(leader);
    let read = |level| ClientRequest::Read { query: Query::Key("app/a".into()), level };
    let local = cluster.answer_to(follower, app, read(Level::Local));
    assert!(matches!(local, ClientReply::Answer(_)), "its state is older than the change: {local:?}");
    let linearizable = cluster.ask_as(follower, app, read(Level::Linearizable));
    cluster.run(20_000);
    cluster.heal();
    assert_eq!(cluster.run_until_answered(linearizable), denied(Denial::MayNotRead));
}

#[test]
fn the_leader_judges_the_calls_of_leases_that_others_pass_on() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.secure(leader);
    let (root, app) = (cluster.user(follower, "root"), cluster.user(follower, "app"));
    let lease = LeaseId(7);
    let grant = ClientRequest::write(Op::Grant { id: lease, ttl_seconds: 60 });
    cluster.answer_to(follower, root, grant);
    let call = |renew| ClientRequest::Lease { lease, renew };
    // Without keys it is its maker's.
    assert!(matches!(cluster.answer_to(follower, root, call(true)), ClientReply::LeaseTime(Some(_))));
    assert_eq!(cluster.answer_to(follower, app, call(true)), denied(Denial::AnothersLease));
    let put = Put { key: "other".into(), value: "x".into(), lease };
    cluster.answer_to(follower, root, ClientRequest::write(Op::Put(put)));
    for node in [leader, follower] {
        assert_eq!(cluster.answer_to(node, app, call(true)), denied(Denial::MayNotWrite));
        assert_eq!(cluster.answer_to(node, app, call(false)), denied(Denial::MayNotRead));
        assert_eq!(cluster.answer_to(node, None, call(true)), denied(Denial::NoCredentials));
    }
    let revoke = ClientRequest::write(Op::Revoke(lease));
    assert_eq!(cluster.answer_to(follower, app, revoke.clone()), denied(Denial::MayNotWrite));
    assert!(matches!(
        cluster.answer_to(follower, root, revoke),
        ClientReply::Written(Outcome::Revoked { .. })
    ));
}

#[test]
fn what_comes_without_a_name_is_refused_and_leases_end_all_the_same() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.secure(leader);
    assert_eq!(
        cluster.answer_to(follower, None, ClientRequest::write(set("a", "x"))),
        denied(Denial::NoCredentials)
    );
    // A command cannot say by itself whose it is.
    let by = cluster.user(follower, "root");
    let forged = Command { by, ..Command::from(set("a", "x")) };
    let reply = cluster.answer_to(follower, None, ClientRequest::Write(forged));
    assert_eq!(reply, denied(Denial::NoCredentials));
    let expire = Op::Expire { term: cluster.replicas[&leader].raft().term().get(), leases: vec![] };
    let reply = cluster.answer_to(follower, by, ClientRequest::write(expire));
    assert!(matches!(reply, ClientReply::Failed(ClientError::Denied(_))), "{reply:?}");
    let lease = LeaseId(7);
    cluster.answer_to(follower, by, ClientRequest::write(Op::Grant { id: lease, ttl_seconds: 2 }));
    let put = Put { key: "leased".into(), value: "x".into(), lease };
    cluster.answer_to(follower, by, ClientRequest::write(Op::Put(put)));
    assert!(cluster.replicas[&follower].store().get(b"leased").is_some());
    cluster.run(4_000_000);
    assert!(cluster.replicas.values().all(|replica| replica.store().get(b"leased").is_none()));
}

#[test]
fn a_write_that_its_caller_may_not_do_never_reaches_the_log() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.secure(leader);
    let app = cluster.user(follower, "app");
    let put = || Command::from(set("other", "x"));
    let before = cluster.replicas[&leader].raft().last_log();
    for node in [leader, follower] {
        let reply = cluster.answer_to(node, app, ClientRequest::Write(put()));
        assert_eq!(reply, denied(Denial::MayNotWrite));
    }
    assert_eq!(cluster.replicas[&leader].raft().last_log(), before, "nothing was appended");
    // A late copy must not take effect once there is a right to it, so all have to remember this.
    let named = Command { idempotency_key: Some("name".into()), ..put() };
    assert_eq!(cluster.answer_to(follower, app, ClientRequest::Write(named)), refused(Denial::MayNotWrite));
    assert_eq!(cluster.replicas[&leader].raft().last_log().index, before.index.next());
}

#[test]
fn a_right_that_a_member_has_not_heard_of_yet_counts() {
    let mut cluster = Cluster::new(3);
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.secure(leader);
    let (root, app) = (cluster.user(leader, "root"), cluster.user(leader, "app"));
    cluster.cut.insert((leader, follower));
    let grants = vec![Grant { range: KeyRange::prefix("new/"), access: Access::ReadWrite }];
    let (name, revoke, none) = ("app".to_owned(), vec![], AdminRights::NONE);
    let (grant_admin, revoke_admin) = (none, none);
    let change = SecurityChange::ChangeRole { name, grant: grants, revoke, grant_admin, revoke_admin };
    cluster.change(leader, root, change);
    let put = cluster.ask_as(follower, app, ClientRequest::write(set("new/a", "x")));
    cluster.run(20_000);
    assert_eq!(cluster.reply(put), None, "its state is older than the right");
    cluster.heal();
    let reply = cluster.run_until_answered(put);
    assert!(matches!(reply, ClientReply::Written(Outcome::Put { .. })), "{reply:?}");
}

#[test]
fn writes_that_wait_to_be_judged_are_bounded_and_none_is_forgotten() {
    let config = ReplicaConfig { pending_write_bytes_max: 250, ..ReplicaConfig::default() };
    let mut cluster = Cluster::without_leader(3, &config);
    cluster.elect();
    let (leader, follower) = (cluster.leader().unwrap(), cluster.follower());
    cluster.secure(leader);
    let app = cluster.user(follower, "app");
    cluster.isolate(follower);
    let value = "x".repeat(80);
    let put = || ClientRequest::write(set("other", &value));
    let waiting = [(); 2].map(|()| cluster.ask_as(follower, app, put()));
    let overloaded = ClientReply::Failed(ClientError::Overloaded);
    let more = cluster.ask_as(follower, app, put());
    assert_eq!(cluster.reply(more), Some(&overloaded));
    for put in waiting {
        let late = cluster.run_until_answered(put);
        assert_eq!(late, ClientReply::Failed(ClientError::NoLeader), "it was not appended");
    }
    let last = cluster.ask_as(follower, app, put());
    let replica = cluster.replicas.get_mut(&follower).unwrap();
    assert_eq!(replica.give_up(), [(last, ClientReply::Failed(ClientError::Stopping))]);
    assert!(replica.held().contains(&("bytes of writes that wait to be judged", 0)));
}
