//! The one door to a node.

use crate::api::service::error::{ErrorCode, ServiceError};
use crate::kv::{
    Answer, Changes, ChangesQuery, Command, Found, IDEMPOTENCY_KEY_BYTES_MAX, LeaseId, Op, Outcome, Query,
    RangePage, RangeQuery, Refusal,
};
use crate::node::{MemberOrder, MembersView, NodeHandle, OrderDone, OrderTerms};
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
}

impl Call {
    /// The command of one step of a call that makes several: each has a name of its own.
    pub(super) fn step(&self, name: &str, op: Op) -> Command {
        debug_assert!(name.len() < STEP_NAME_BYTES_MAX, "the limit leaves room for it");
        let idempotency_key = self
            .idempotency_key
            .as_ref()
            .map(|key| Bytes::from([key, b"\0".as_slice(), name.as_bytes()].concat()));
        Command { idempotency_key, op }
    }

    /// The command of a call that makes one.
    pub(crate) fn only(&self, op: Op) -> Command {
        Command { idempotency_key: self.idempotency_key.clone(), op }
    }

    pub(super) fn check(&self) -> Result<(), ServiceError> {
        let longest = IDEMPOTENCY_KEY_BYTES_MAX - STEP_NAME_BYTES_MAX;
        match self.idempotency_key.as_ref().map_or(1, Bytes::len) {
            0 => Err(ServiceError::new(ErrorCode::BadIdempotencyKey, "an idempotency key is not empty")),
            length if length > longest => Err(ServiceError::new(
                ErrorCode::BadIdempotencyKey,
                format!("an idempotency key has at most {longest} bytes, and this one {length}"),
            )),
            _ => Ok(()),
        }
    }
}

/// The service of a node.
#[derive(Debug)]
pub(crate) struct Service<'n, E> {
    pub(super) env: &'n E,
    node: &'n NodeHandle,
}

impl<'n, E: Env> Service<'n, E> {
    pub(crate) const fn new(env: &'n E, node: &'n NodeHandle) -> Self {
        Self { env, node }
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

    /// Reads.
    pub(crate) async fn read(&self, query: Query, level: Level) -> Result<Answer, ServiceError> {
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
        match level {
            Level::Linearizable => match self.ask(ClientRequest::Barrier).await {
                ClientReply::UpToDate => {}
                other => return Err(failed(&other, false)),
            },
            // Refused if this node is too far behind, as any such read.
            level => drop(self.read(Query::Settings, level).await?),
        }
        let starting =
            || ServiceError::new(ErrorCode::Overloaded, "this node has no state to give now; try again");
        self.node.capture().await.ok_or_else(starting)
    }

    /// Carries an order about the members out.
    pub(crate) async fn manage(
        &self,
        order: MemberOrder,
        terms: OrderTerms,
    ) -> Result<OrderDone, ServiceError> {
        Ok(self.node.manage(order, terms).await?)
    }

    /// The members, as the leader sees them, or this node.
    pub(crate) async fn members(&self, of_leader: bool) -> Result<MembersView, ServiceError> {
        let stopped = || ServiceError::of_client(&ClientError::Stopping, false);
        self.node.members(of_leader).await.ok_or_else(stopped)
    }

    async fn ask(&self, request: ClientRequest) -> ClientReply {
        self.ask_within(request, None).await
    }

    /// The one door. What a principal may do is decided here.
    async fn ask_within(&self, request: ClientRequest, micros: Option<u64>) -> ClientReply {
        match micros {
            None => self.node.request(request).await,
            Some(micros) => self.node.request_within(request, micros).await,
        }
    }
}

/// Of an answer that is none to the request.
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
