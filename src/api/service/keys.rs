//! What is done to one key.

use crate::api::service::error::{ErrorCode, ServiceError, WriteOutcome};
use crate::api::service::service::{Call, Service, strange};
use crate::kv::{
    Compare, CompareOrder, Detail, Found, KeyRange, KeyValue, LeaseId, Op, Outcome, Put, Query, RangeQuery,
    Revision, Target, Txn, TxnOp, TxnResult,
};
use crate::replica::Level;
use crate::runtime::Env;
use bytes::Bytes;

/// The lease that a key ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LeaseChoice {
    #[default]
    None,
    /// One that is there.
    Given(LeaseId),
    /// A new one, seconds.
    New(u64),
}

/// What must hold of a key before it is changed, or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Exists,
    IsMissing,
    Is(Revision),
    IsNot(Revision),
}

/// Sets a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PutCall {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) lease: LeaseChoice,
    pub(crate) condition: Option<Condition>,
}

/// The key has a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PutDone {
    pub(crate) revision: Revision,
    pub(crate) version: u64,
    /// The lease that was made for it, and its time in seconds.
    pub(crate) granted: Option<(LeaseId, u64)>,
}

/// Keys were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) revision: Revision,
    pub(crate) count: u64,
}

impl Condition {
    /// Whether it holds of a key.
    pub(crate) fn holds(self, key: Option<&KeyValue>) -> bool {
        let revision = key.map_or(Revision(0), |key| key.mod_revision);
        match self {
            Self::Exists => key.is_some(),
            Self::IsMissing => key.is_none(),
            Self::Is(wanted) => revision == wanted,
            Self::IsNot(unwanted) => revision != unwanted,
        }
    }

    fn compare(self, key: Bytes) -> Compare {
        let (order, revision) = match self {
            Self::Exists => (CompareOrder::NotEqual, Revision(0)),
            Self::IsMissing => (CompareOrder::Equal, Revision(0)),
            Self::Is(revision) => (CompareOrder::Equal, revision),
            Self::IsNot(revision) => (CompareOrder::NotEqual, revision),
        };
        Compare { range: KeyRange::one(key), target: Target::ModRevision(revision), order }
    }
}

impl<E: Env> Service<'_, E> {
    /// Sets a key, if the condition holds.
    pub(crate) async fn put(&self, call: &Call, wanted: PutCall) -> Result<PutDone, ServiceError> {
        let PutCall { key, value, lease, condition } = wanted;
        let op = |lease| {
            let put = Put { key: key.clone(), value: value.clone(), lease };
            match condition {
                None => Op::Put(put),
                Some(condition) => conditional(condition, &key, TxnOp::Put(put)),
            }
        };
        let (lease, granted) = match lease {
            LeaseChoice::None => (LeaseId::NONE, None),
            LeaseChoice::Given(lease) => (lease, None),
            LeaseChoice::New(ttl_seconds) => {
                // What is refused anyhow leaves no lease behind.
                op(LeaseId::NONE).check()?;
                let (lease, ttl_seconds) = self.grant(call, ttl_seconds).await?;
                (lease, Some((lease, ttl_seconds)))
            }
        };
        let done = match condition {
            None => match self.write(call, op(lease)).await {
                Ok(Outcome::Put { revision, version }) => Ok(PutDone { revision, version, granted }),
                Ok(other) => Err(strange(&other)),
                Err(error) => Err(error),
            },
            Some(_) => match self.conditionally(call, op(lease)).await {
                Ok((revision, TxnResult::Put { version })) => Ok(PutDone { revision, version, granted }),
                Ok((_, other)) => Err(strange(&other)),
                Err(error) => Err(error),
            },
        };
        if let (Err(error), Some((lease, _))) = (&done, granted)
            && error.outcome != Some(WriteOutcome::Unknown)
            // The client asks another node under the same name, which is told of the same lease.
            && !(call.idempotency_key.is_some() && error.is_of_the_node())
        {
            // Nobody knows this lease. If this fails too, it ends by itself.
            let _ = self.command(call.step("revoke", Op::Revoke(lease))).await;
        }
        done
    }

    /// Removes a key, if the condition holds.
    pub(crate) async fn delete(
        &self,
        call: &Call,
        key: Bytes,
        condition: Option<Condition>,
    ) -> Result<Deleted, ServiceError> {
        if key.is_empty() {
            return Err(crate::kv::BadCommand::EmptyKey.into());
        }
        let Some(condition) = condition else {
            return self.delete_range(call, KeyRange::one(key)).await;
        };
        let op = conditional(condition, &key, TxnOp::Delete(KeyRange::one(key.clone())));
        match self.conditionally(call, op).await? {
            (revision, TxnResult::Deleted { count }) => Ok(Deleted { revision, count }),
            (_, other) => Err(strange(&other)),
        }
    }

    /// Removes the keys of a range.
    pub(crate) async fn delete_range(&self, call: &Call, range: KeyRange) -> Result<Deleted, ServiceError> {
        match self.write(call, Op::Delete(range)).await? {
            Outcome::Deleted { revision, count } => Ok(Deleted { revision, count }),
            other => Err(strange(&other)),
        }
    }

    /// Reads a key, now or as it was. Comes with the store's revision.
    pub(crate) async fn get(
        &self,
        key: Bytes,
        at: Option<Revision>,
        level: Level,
    ) -> Result<(Revision, Option<KeyValue>), ServiceError> {
        if at.is_some() {
            let query = RangeQuery { at, limit: 1, ..RangeQuery::of(KeyRange::one(key)) };
            let mut page = self.range(query, level).await?;
            return Ok((page.revision, page.kvs.pop()));
        }
        let answer = self.read(Query::Key(key), level).await?;
        match answer.found {
            Found::Key(found) => Ok((answer.revision, found)),
            other => Err(strange(&other)),
        }
    }

    /// Makes a lease for a call that needs one for something else.
    pub(super) async fn grant(&self, call: &Call, ttl_seconds: u64) -> Result<(LeaseId, u64), ServiceError> {
        call.check().map_err(ServiceError::not_applied)?;
        let grant = Op::Grant { id: LeaseId::NONE, ttl_seconds };
        match self.command(call.step("grant", grant)).await? {
            Outcome::Granted { id, ttl_seconds } => Ok((id, ttl_seconds)),
            other => Err(strange(&other)),
        }
    }

    /// Does the first step of a transaction that [`conditional`] made.
    async fn conditionally(&self, call: &Call, op: Op) -> Result<(Revision, TxnResult), ServiceError> {
        match self.write(call, op).await? {
            Outcome::Txn { revision, succeeded: true, mut results } if results.len() == 1 => {
                let result = results.pop().ok_or_else(|| strange(&"no result"))?;
                Ok((revision, result))
            }
            Outcome::Txn { revision, succeeded: false, mut results } => {
                let present = match results.pop() {
                    Some(TxnResult::Range(mut page)) => page.kvs.pop(),
                    _ => None,
                };
                Err(condition_failed(revision, present).not_applied())
            }
            other => Err(strange(&other)),
        }
    }
}

/// The condition did not hold of the key as it is.
pub(crate) fn condition_failed(revision: Revision, present: Option<KeyValue>) -> ServiceError {
    let detail = match &present {
        Some(key) => format!(
            "the condition does not hold: the key's revision is {}; read it, and try again with that",
            key.mod_revision
        ),
        None => "the condition does not hold: the key does not exist".to_owned(),
    };
    let present = present.map(Box::new);
    ServiceError { present, ..ServiceError::new(ErrorCode::ConditionFailed, detail).about(revision) }
}

/// Does something if a condition holds, and looks at the key otherwise.
fn conditional(condition: Condition, key: &Bytes, then: TxnOp) -> Op {
    let look = RangeQuery { detail: Detail::Keys, ..RangeQuery::of(KeyRange::one(key.clone())) };
    Op::Txn(Box::new(Txn {
        compare: vec![condition.compare(key.clone())],
        success: vec![then],
        failure: vec![TxnOp::Get(look)],
    }))
}
