//! Locks and elections: a queue of keys, each with a lease.
//!
//! A candidate is a key `\0lock/NAME\0LEASE` (of an election `\0election/NAME\0LEASE`), where LEASE
//! is the id of its lease in 16 hexadecimal digits. The candidate whose key was created first holds
//! the lock. Its fencing number is the revision that created its key, so the numbers of those that
//! hold the lock one after the other rise. A candidate that ends, for whatever reason, loses its
//! lease and with it its place. A name has no byte 0 in it, so no name's candidates lie among
//! another's.
//!
//! There is nothing here that a client could not do with leases and transactions alone.

use crate::api::service::error::{ErrorCode, ServiceError, WriteOutcome};
use crate::api::service::keys::{Deleted, LeaseChoice};
use crate::api::service::service::{Call, Service, strange};
use crate::kv::{
    ChangesQuery, Compare, CompareOrder, Detail, KeyRange, KeyValue, LeaseId, Op, Outcome, Put, RangePage,
    RangeQuery, Revision, Target, Txn, TxnOp,
};
use crate::raft::Time;
use crate::replica::Level;
use crate::runtime::Env;
use bytes::Bytes;
use std::future::Future;

/// A name is at most this long.
pub(crate) const CONTEST_NAME_BYTES_MAX: usize = 256;
/// How often a question whose answer changes while it is asked is asked again.
const TRIES_MAX: usize = 5;
/// A candidate that waits is renewed, and looks again, this often within its lease's time.
const LOOKS_PER_TTL: u64 = 3;
/// After a failure that passes by itself, nothing is asked for this time.
const PAUSE_MICROS: u64 = 250_000;

/// What is contested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContestKind {
    Lock,
    Election,
}

/// A lock or an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contest {
    kind: ContestKind,
    prefix: Bytes,
}

/// A candidate that won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Won {
    pub(crate) lease: LeaseId,
    /// The time of the lease, if it was made for this; seconds.
    pub(crate) ttl_seconds: Option<u64>,
    /// The fencing number.
    pub(crate) fence: Revision,
}

/// The candidate that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its key; its lease, its value, and, as `create_revision`, its fencing number.
    pub(crate) key: KeyValue,
    /// How many others wait.
    pub(crate) waiting: usize,
    /// The store's revision.
    pub(crate) revision: Revision,
}

/// Where a candidate stands.
enum Standing {
    First(Revision),
    /// Behind this key, as of a revision.
    Behind(Bytes, Revision),
    Gone,
}

impl Contest {
    /// The one with this name.
    pub(crate) fn new(kind: ContestKind, name: &[u8]) -> Result<Self, ServiceError> {
        if name.is_empty() || name.len() > CONTEST_NAME_BYTES_MAX || name.contains(&0) {
            let detail = format!("a name has 1 to {CONTEST_NAME_BYTES_MAX} bytes, none of which is 0");
            return Err(ServiceError::new(ErrorCode::BadName, detail));
        }
        let folder: &[u8] = match kind {
            ContestKind::Lock => b"\0lock/",
            ContestKind::Election => b"\0election/",
        };
        Ok(Self { kind, prefix: Bytes::from([folder, name, b"\0"].concat()) })
    }

    /// The key of the candidate with that lease.
    pub(crate) fn key(&self, lease: LeaseId) -> Bytes {
        Bytes::from([&self.prefix[..], format!("{:016x}", lease.0).as_bytes()].concat())
    }

    fn candidates(&self) -> RangeQuery {
        RangeQuery { detail: Detail::Keys, ..RangeQuery::of(KeyRange::prefix(self.prefix.clone())) }
    }

    fn noun(&self) -> &'static str {
        match self.kind {
            ContestKind::Lock => "the lock",
            ContestKind::Election => "the election",
        }
    }

    /// Where the candidate with that key stands among all.
    fn standing(&self, own: &Bytes, page: &RangePage) -> Result<Standing, ServiceError> {
        if page.next.is_some() {
            let detail = format!("too many wait for {} already; try again later", self.noun());
            return Err(ServiceError::new(ErrorCode::Overloaded, detail));
        }
        let Some(mine) = page.kvs.iter().find(|key| key.key == *own) else { return Ok(Standing::Gone) };
        let before = page.kvs.iter().filter(|key| key.create_revision < mine.create_revision);
        Ok(match before.max_by_key(|key| key.create_revision) {
            None => Standing::First(mine.create_revision),
            Some(before) => Standing::Behind(before.key.clone(), page.revision),
        })
    }
}

impl<E: Env> Service<'_, E> {
    /// Stands for a contest, and waits until it is won, at most until `deadline`, or until this
    /// node is `stopping`.
    pub(crate) async fn campaign(
        &self,
        call: &Call,
        contest: &Contest,
        (lease, value): (LeaseChoice, Bytes),
        deadline: Time,
        stopping: impl Future<Output = ()>,
    ) -> Result<Won, ServiceError> {
        let (lease, ttl_seconds) = match lease {
            LeaseChoice::Given(lease) => (lease, None),
            LeaseChoice::New(ttl_seconds) => {
                let (lease, ttl_seconds) = self.grant(call, ttl_seconds).await?;
                (lease, Some(ttl_seconds))
            }
            LeaseChoice::None => {
                return Err(ServiceError::new(ErrorCode::NoLease, "a candidate needs a lease").not_applied());
            }
        };
        let won = match self.enter(call, contest, lease, value).await {
            Ok(page) => {
                let turn = self.wait_for_turn(contest, (lease, ttl_seconds), page, deadline);
                tokio::select! {
                    biased;
                    turn = turn => turn,
                    () = stopping => Err(ServiceError::stopping().not_applied()),
                }
            }
            Err(error) => Err(error),
        };
        match won {
            Ok(fence) => Ok(Won { lease, ttl_seconds, fence }),
            Err(mut error) => {
                // Leaves the queue.
                let leave = match ttl_seconds {
                    Some(_) => Op::Revoke(lease),
                    None => Op::delete(contest.key(lease)),
                };
                if self
                    .command(call.step("leave", leave))
                    .await
                    .is_err_and(|error| error.code != ErrorCode::NoLease)
                {
                    // It may still win, and ends with its lease.
                    error.outcome = Some(WriteOutcome::Unknown);
                }
                Err(error)
            }
        }
    }

    /// Its holder.
    pub(crate) async fn holder(
        &self,
        contest: &Contest,
        level: Level,
    ) -> Result<Option<Holder>, ServiceError> {
        for _ in 0..TRIES_MAX {
            let page = self.range(contest.candidates(), level).await?;
            let Some(first) = page.kvs.iter().min_by_key(|key| key.create_revision) else { return Ok(None) };
            // The candidates' values may be large; one is wanted.
            let (revision, found) = self.get(first.key.clone(), None, level).await?;
            if let Some(key) = found.filter(|key| key.create_revision == first.create_revision) {
                return Ok(Some(Holder { key, waiting: page.kvs.len() - 1, revision }));
            }
        }
        Err(ServiceError::new(
            ErrorCode::Overloaded,
            format!("{} changes hands too fast; try again", contest.noun()),
        ))
    }

    /// Gives it up, or a place in the queue.
    pub(crate) async fn resign(
        &self,
        call: &Call,
        contest: &Contest,
        lease: LeaseId,
    ) -> Result<Deleted, ServiceError> {
        let done = self.delete_range(call, KeyRange::one(contest.key(lease))).await?;
        if done.count == 0 {
            return Err(not_holder(contest, lease));
        }
        Ok(done)
    }

    /// Gives the candidate that won another value.
    pub(crate) async fn proclaim(
        &self,
        call: &Call,
        contest: &Contest,
        lease: LeaseId,
        value: Bytes,
    ) -> Result<Revision, ServiceError> {
        let key = contest.key(lease);
        let page = self.range(contest.candidates(), Level::Linearizable).await?;
        let Some(own) = page.kvs.iter().find(|candidate| candidate.key == key) else {
            return Err(not_holder(contest, lease));
        };
        let created = |order, revision| (order, Target::CreateRevision(Revision(revision)));
        let (is_mine, is_first) = (
            created(CompareOrder::Equal, own.create_revision.0),
            created(CompareOrder::Greater, own.create_revision.0.saturating_sub(1)),
        );
        let compare = |range, (order, target)| Compare { range, target, order };
        let put = Put { key: key.clone(), value, lease };
        let txn = Txn {
            compare: vec![
                compare(KeyRange::one(key), is_mine),
                compare(KeyRange::prefix(contest.prefix.clone()), is_first),
            ],
            success: vec![TxnOp::Put(put)],
            failure: Vec::new(),
        };
        match self.write(call, Op::Txn(Box::new(txn))).await? {
            Outcome::Txn { succeeded: true, revision, .. } => Ok(revision),
            Outcome::Txn { .. } => Err(not_holder(contest, lease)),
            other => Err(strange(&other)),
        }
    }

    /// Makes the candidate's key, unless it is there, and looks at all candidates.
    async fn enter(
        &self,
        call: &Call,
        contest: &Contest,
        lease: LeaseId,
        value: Bytes,
    ) -> Result<RangePage, ServiceError> {
        let key = contest.key(lease);
        let is_new = Compare {
            range: KeyRange::one(key.clone()),
            target: Target::CreateRevision(Revision(0)),
            order: CompareOrder::Equal,
        };
        let txn = Txn {
            compare: vec![is_new],
            success: vec![TxnOp::Put(Put { key, value, lease })],
            failure: Vec::new(),
        };
        match self.command(call.step("enter", Op::Txn(Box::new(txn)))).await? {
            Outcome::Txn { .. } => {}
            other => return Err(strange(&other)),
        }
        // Read now, also where the answer to the transaction was remembered from long ago.
        self.range(contest.candidates(), Level::Linearizable).await
    }

    async fn wait_for_turn(
        &self,
        contest: &Contest,
        (lease, ttl_seconds): (LeaseId, Option<u64>),
        mut page: RangePage,
        deadline: Time,
    ) -> Result<Revision, ServiceError> {
        let own = contest.key(lease);
        loop {
            let (before, revision) = match contest.standing(&own, &page).map_err(ServiceError::not_applied)? {
                Standing::First(fence) => return Ok(fence),
                Standing::Behind(before, revision) => (before, revision),
                Standing::Gone => {
                    let detail =
                        format!("lease {lease} ended while it waited for {}; try again", contest.noun());
                    return Err(ServiceError::new(ErrorCode::NoLease, detail).not_applied());
                }
            };
            let left = deadline.since(self.env.now());
            if left == 0 {
                return Err(held(contest, &page).not_applied());
            }
            let look_micros = ttl_seconds
                .map_or(u64::MAX, |seconds| seconds.saturating_mul(1_000_000) / LOOKS_PER_TTL)
                .min(left);
            let ends = ChangesQuery {
                range: KeyRange::one(before),
                from: revision.next(),
                puts: false,
                deletions: true,
                previous: false,
            };
            match self.wait_and_look(contest, ends, look_micros, ttl_seconds.map(|_| lease)).await {
                Ok(found) => page = found,
                // Its lease goes on meanwhile, and if it ends this is heard later.
                Err(error) if error.is_passing() => {
                    self.env.sleep_until(self.env.now().plus(PAUSE_MICROS.min(left))).await;
                }
                Err(error) => return Err(error.not_applied()),
            }
        }
    }

    /// Waits for changes, renews a lease, and looks at the candidates.
    async fn wait_and_look(
        &self,
        contest: &Contest,
        ends: ChangesQuery,
        micros: u64,
        renewed: Option<LeaseId>,
    ) -> Result<RangePage, ServiceError> {
        match self.changes(ends, micros).await {
            Err(error) if error.code != ErrorCode::Compacted => return Err(error),
            // So much has happened since that it is time to look anyhow.
            Ok(_) | Err(_) => {}
        }
        if let Some(lease) = renewed {
            self.lease_time(lease, true).await?;
        }
        self.range(contest.candidates(), Level::Linearizable).await
    }
}

fn held(contest: &Contest, page: &RangePage) -> ServiceError {
    let holder = page.kvs.iter().min_by_key(|key| key.create_revision).cloned();
    let noun = contest.noun();
    let detail = match &holder {
        Some(key) => format!("lease {} holds {noun}; wait longer, or try again when it is over", key.lease),
        None => format!("another lease holds {noun}; try again"),
    };
    ServiceError { present: holder.map(Box::new), ..ServiceError::new(ErrorCode::Held, detail) }
}

fn not_holder(contest: &Contest, lease: LeaseId) -> ServiceError {
    let detail =
        format!("lease {lease} does not hold {}; it was given up, or the lease has ended", contest.noun());
    ServiceError::new(ErrorCode::NotHolder, detail).not_applied()
}
