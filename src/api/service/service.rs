//! The one door to a node.

use crate::api::service::audit::{self, AuditLog, Deed};
use crate::api::service::error::{ErrorCode, ServiceError};
use crate::api::service::identity::Identity;
use crate::kv::{
    AdminRight, BadCommand, Changes, ChangesQuery, Command, Found, IDEMPOTENCY_KEY_BYTES_MAX, KeyRange,
    LeaseId, Op, Outcome, Principal, Query, QueryAnswer, RangePage, RangeQuery, Refusal, Revision,
};
use crate::node::{JoinError, MemberOrder, MembersView, NodeHandle, NodeStatus, OrderConditions, OrderDone};
use crate::replica::{ClientError, ClientReply, ClientRequest, LeaseTime, Level};
use crate::runtime::Env;
use crate::storage::BackupSource;
use bytes::Bytes;
use std::sync::Arc;

/// What the store adds to a client's idempotency key where one call makes several commands.
pub(super) const STEP_NAME_BYTES_MAX: usize = 16;

/// How a call is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// The client's name for it: it is done at most once.
    pub(crate) idempotency_key: Option<Bytes>,
    /// A revision that the client had seen before it made the call for the first time.
    pub(crate) since: Option<Revision>,
}

impl Call {
    /// The command of one step of a call that makes several: each has a name of its own.
    pub(super) fn step(&self, name: &str, op: Op) -> Command {
        debug_assert!(name.len() < STEP_NAME_BYTES_MAX, "the limit leaves room for it");
        let idempotency_key = self
            .idempotency_key
            .as_ref()
            .map(|key| Bytes::from([key, b"\0".as_slice(), name.as_bytes()].concat()));
        Command { idempotency_key, since: self.since, by: None, op }
    }

    /// The command of a call that makes one.
    pub(crate) fn only(&self, op: Op) -> Command {
        let idempotency_key = self.idempotency_key.clone();
        Command { idempotency_key, since: self.since, by: None, op }
    }

    pub(super) fn check(&self) -> Result<(), ServiceError> {
        let longest = IDEMPOTENCY_KEY_BYTES_MAX - STEP_NAME_BYTES_MAX;
        match self.idempotency_key.as_ref().map_or(1, Bytes::len) {
            0 => Err(ServiceError::new(ErrorCode::BadIdempotencyKey, "an idempotency key is not empty")),
            length if length > longest => Err(ServiceError::new(
                ErrorCode::BadIdempotencyKey,
                format!("an idempotency key has at most {longest} bytes, and this one {length}"),
            )),
            _ if self.since.is_some() && self.idempotency_key.is_none() => Err(BadCommand::Since.into()),
            _ => Ok(()),
        }
    }
}

/// Who asks, and where it is written down. Cheap to clone; of an open cluster without an audit log,
/// nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker {
    pub(crate) who: Option<Arc<Identity>>,
    pub(crate) audit: Option<AuditLog>,
}

/// The service of a node, as somebody uses it.
#[derive(Debug)]
pub(crate) struct Service<'n, E> {
    pub(super) env: &'n E,
    node: &'n NodeHandle,
    pub(super) asker: Asker,
}

impl<'n, E: Env> Service<'n, E> {
    pub(crate) const fn new(env: &'n E, node: &'n NodeHandle, asker: Asker) -> Self {
        Self { env, node, asker }
    }

    /// Does something. What it does not do is an error, and never a [`Outcome::Refused`].
    pub(crate) async fn write(&self, call: &Call, op: Op) -> Result<Outcome, ServiceError> {
        call.check().map_err(ServiceError::not_applied)?;
        self.command(call.only(op)).await
    }

    pub(super) async fn command(&self, command: Command) -> Result<Outcome, ServiceError> {
        command.check()?;
        match self.ask(ClientRequest::Write(command)).await {
            ClientReply::Written(Outcome::Refused(refusal)) => Err(refusal.into()),
            ClientReply::Written(outcome) => Ok(outcome),
            other => Err(failed(&other, true)),
        }
    }

    /// Answers a query at this level.
    pub(crate) async fn read(&self, query: Query, level: Level) -> Result<QueryAnswer, ServiceError> {
        match self.ask(ClientRequest::Read { query, level }).await {
            ClientReply::Answer(answer) => Ok(answer),
            other => Err(failed(&other, false)),
        }
    }

    /// Reads a part of a range.
    pub(crate) async fn range(&self, query: RangeQuery, level: Level) -> Result<RangePage, ServiceError> {
        match self.read(Query::Range(query), level).await?.found {
            Found::Range(page) => Ok(page?),
            other => Err(strange(&other)),
        }
    }

    /// Waits for changes, at most so long. If none came, the answer holds none, and says up to
    /// where there are none.
    pub(crate) async fn changes(
        &self,
        query: ChangesQuery,
        micros: u64,
    ) -> Result<Arc<Changes>, ServiceError> {
        match self.ask_within(ClientRequest::Watch(query), Some(micros)).await {
            ClientReply::Changes(changes) => Ok(changes?),
            other => Err(failed(&other, false)),
        }
    }

    /// How much time a lease has; with `renew`, its time begins anew.
    pub(crate) async fn lease_time(&self, lease: LeaseId, renew: bool) -> Result<LeaseTime, ServiceError> {
        match self.ask(ClientRequest::Lease { lease, renew }).await {
            ClientReply::LeaseTime(Some(time)) => Ok(time),
            ClientReply::LeaseTime(None) => {
                let error = ServiceError::from(Refusal::NoLease(lease));
                // Only a write has an outcome.
                Err(if renew { error } else { ServiceError { outcome: None, ..error } })
            }
            other => Err(failed(&other, false)),
        }
    }

    /// The state as this node has it: at the default level with every write that was answered
    /// before.
    pub(crate) async fn capture(&self, level: Level) -> Result<BackupSource, ServiceError> {
        let deed = || Deed::admin("back up", None);
        // Refused if this node is too far behind, as any such read.
        let permission = Query::Permission(AdminRight::Backups);
        self.permit(AdminRight::Backups, level, deed).await?;
        let starting =
            || ServiceError::new(ErrorCode::Overloaded, "this node has no state to give now; try again");
        let source = self.node.capture().await.ok_or_else(starting)?;
        // By the rights in what is given out, too: it may be newer than what was judged.
        let judged = source.store.judge_query(self.by()?.as_ref(), &permission).map_err(ServiceError::from);
        self.note(deed(), judged.as_ref().map(|()| Some(source.store.revision().0)));
        judged.map(|()| source)
    }

    /// Carries an order about the members out.
    pub(crate) async fn manage(
        &self,
        order: MemberOrder,
        conditions: OrderConditions,
    ) -> Result<OrderDone, ServiceError> {
        let words = self.asker.audit.is_some().then(|| format!("{order:?}"));
        let deed = || Deed::admin("order", words.clone());
        self.order_members(deed).await?;
        let done = self.node.manage(order, conditions).await.map_err(ServiceError::from);
        self.note(deed(), done.as_ref().map(|_| None));
        done
    }

    /// Acknowledges an alarm of this node, if the caller may do that, as the members may be
    /// changed.
    pub(crate) async fn acknowledge<T>(
        &self,
        id: u64,
        acknowledge: impl FnOnce() -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        let deed = || Deed::admin("acknowledge", Some(format!("alarm {id}")));
        // It is this node's own, and nothing of the cluster: an open cluster need not answer.
        if !self.node.facts().is_open() {
            self.order_members(deed).await?;
        }
        let done = acknowledge();
        self.note(deed(), done.as_ref().map(|_| None));
        done
    }

    /// Adds a node, as the original's API does.
    pub(crate) async fn join(&self, name: String, raft_addr: String) -> Result<(), JoinCallError> {
        let deed = Deed::admin("join", Some(name.clone()));
        match self.order_members(|| deed.clone()).await {
            Err(error) if error.code == ErrorCode::NoLeader => {
                return Err(JoinCallError::Failed(JoinError::NoLeader));
            }
            judged => judged.map_err(JoinCallError::Denied)?,
        }
        let done = self.node.join(name, raft_addr).await;
        let noted = done
            .as_ref()
            .map(|_| None)
            .map_err(|error| ServiceError::new(ErrorCode::Refused, error.to_string()));
        self.note(deed, noted.as_ref().map(|revision| *revision));
        done.map(|_| ()).map_err(JoinCallError::Failed)
    }

    /// The members, as the leader sees them, or this node.
    pub(crate) async fn members(&self, of_leader: bool) -> Result<MembersView, ServiceError> {
        self.check_known()?;
        let stopped = || ServiceError::of_client(&ClientError::Stopping, false);
        self.node.members(of_leader).await.ok_or_else(stopped)
    }

    /// What this node says of itself, and of the cluster. By the rules that this node has: it can
    /// be asked when no other one answers.
    pub(crate) async fn status(&self) -> Result<NodeStatus, ServiceError> {
        self.check_known()?;
        Ok(self.node.status().await)
    }

    /// Asks the replica, for faces that have words of their own for what it answers.
    pub(crate) async fn ask(&self, request: ClientRequest) -> ClientReply {
        self.ask_within(request, None).await
    }

    async fn ask_within(&self, request: ClientRequest, micros: Option<u64>) -> ClientReply {
        let is_noted = self.asker.who.is_some() && self.asker.audit.is_some();
        let deed = is_noted.then(|| Deed::of(&request));
        let reply = self.ask_unnoted(request, micros).await;
        if let Some(deed) = deed {
            let done = audit::done_of(&reply);
            self.note(deed, done.as_ref().map(|revision| *revision));
        }
        reply
    }

    /// The one door. The principal goes with the request, down to where the state is that it reads
    /// or changes: there it is judged ([`Store::judge`](crate::kv::Store::judge)). The caller of
    /// this writes it down.
    async fn ask_unnoted(&self, request: ClientRequest, micros: Option<u64>) -> ClientReply {
        let Some(who) = &self.asker.who else { return self.pass_on(None, request, micros).await };
        match who.left_micros(self.env.wall_micros()) {
            // Nobody waits for a change longer than their credentials count.
            Ok(left) => self.pass_on(who.by, request, micros.map(|micros| micros.min(left))).await,
            Err(denial) => ClientReply::Failed(ClientError::Denied(denial)),
        }
    }

    async fn pass_on(
        &self,
        by: Option<Principal>,
        request: ClientRequest,
        micros: Option<u64>,
    ) -> ClientReply {
        match micros {
            None => self.node.request_as(by, request).await,
            Some(micros) => self.node.request_within(by, request, micros).await,
        }
    }

    /// What the credentials have proved, as long as they count.
    fn by(&self) -> Result<Option<Principal>, ServiceError> {
        let Some(who) = &self.asker.who else { return Ok(None) };
        who.left_micros(self.env.wall_micros())?;
        Ok(who.by)
    }

    /// Whether a range may be watched, by the rules that this node has: so that a watch is refused
    /// before it begins. Each of its pages is judged again.
    pub(crate) fn check_watch(&self, range: &KeyRange) -> Result<(), ServiceError> {
        let facts = self.node.facts();
        if facts.is_open() {
            return Ok(());
        }
        let judged = facts.security().check_read(self.by()?.as_ref(), range).map_err(ServiceError::from);
        if judged.is_err() {
            self.note(Deed::watch(range), judged.as_ref().map(|()| None));
        }
        judged
    }

    /// The caller is known, by the rules that this node has.
    fn check_known(&self) -> Result<(), ServiceError> {
        let facts = self.node.facts();
        if facts.is_open() {
            return Ok(());
        }
        let security = facts.security();
        if !security.is_enabled() {
            // It may have been, when this node ended.
            return Err(ServiceError::of_client(&ClientError::Starting, false));
        }
        Ok(security.check_known(self.by()?.as_ref())?)
    }

    /// Whether the caller may give orders about the members. An order does not go through the log,
    /// where it would be judged, so the leader is asked first. A node that takes its cluster for an
    /// open one asks as well: it may not have applied yet that it is open no more.
    async fn order_members(&self, deed: impl FnOnce() -> Deed) -> Result<(), ServiceError> {
        let judged = self.permit(AdminRight::Members, Level::Linearizable, deed).await;
        judged.map_err(|error| match error.code {
            // Of an order that says the same.
            ErrorCode::NoQuorum => ServiceError::of_client(&ClientError::NoLeader, true),
            _ => error.not_applied(),
        })
    }

    /// Whether the caller may do that with the cluster, by a state of that level. If not, `deed` is
    /// written down as refused.
    pub(super) async fn permit(
        &self,
        right: AdminRight,
        level: Level,
        deed: impl FnOnce() -> Deed,
    ) -> Result<(), ServiceError> {
        let request = ClientRequest::Read { query: Query::Permission(right), level };
        let judged = match self.ask_unnoted(request, None).await {
            ClientReply::Answer(_) => return Ok(()),
            other => failed(&other, false),
        };
        self.note(deed(), Err(&judged));
        Err(judged)
    }

    /// Writes something down, if it is wanted.
    pub(super) fn note(&self, deed: Deed, done: Result<Option<u64>, &ServiceError>) {
        if let (Some(audit), Some(who)) = (&self.asker.audit, &self.asker.who)
            && deed.is_wanted(done)
        {
            audit.note(self.env, who, deed, done);
        }
    }
}

/// Why a node was not added over the original's API.
#[derive(Debug)]
pub(crate) enum JoinCallError {
    Denied(ServiceError),
    Failed(JoinError),
}

/// The error for a reply that does not fit the request.
pub(crate) fn strange(answer: &impl std::fmt::Debug) -> ServiceError {
    debug_assert!(false, "answered {answer:?}");
    ServiceError::new(ErrorCode::Refused, "the node gave no answer to this request; its log says more")
}

fn failed(reply: &ClientReply, is_write: bool) -> ServiceError {
    match reply {
        ClientReply::Failed(error) => ServiceError::of_client(error, is_write),
        other => strange(other),
    }
}
