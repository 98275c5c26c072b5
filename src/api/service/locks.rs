//! Locks and elections: a queue of keys, each with a lease.
//!
//! A candidate is a key `\0lock/NAME\0LEASE` (of an election `\0election/NAME\0LEASE`), where LEASE
//! is the id of its lease in 16 hexadecimal digits. The candidate whose key was created first holds
//! the lock. Its fencing number is the revision that created its key, so the numbers of those that
//! hold the lock one after the other rise. A candidate that ends, for whatever reason, loses its
//! lease and with it its place. A name has no byte 0 in it, so no name's candidates lie among
//! another's.
//!
//! # Who leaves the queue, and when
//! A place goes with its lease. It is taken away earlier only where it is certain that nobody wants
//! it any more. A client whose node stops, or whose connection breaks, asks another node for the
//! same: with the same lease, or under the same idempotency key. It finds its place again. The
//! request that it left behind may go on for a while beside the new one. So it must do nothing that
//! hurts the new one: it never takes a place away that has become the first, for the other request
//! may have been told so.
//!
//! There is nothing here that a client could not do with leases and transactions alone.

use crate::api::service::error::{ErrorCode, ServiceError};
use crate::api::service::keys::{Deleted, LeaseChoice};
use crate::api::service::service::{Call, Service, strange};
use crate::kv::{
    ChangesQuery, Compare, CompareOrder, Detail, KeyRange, KeyValue, LeaseId, Op, Outcome, Put, RangeQuery,
    Revision, Target, Txn, TxnOp,
};
use crate::raft::Time;
use crate::replica::Level;
use crate::runtime::Env;
use bytes::Bytes;
use std::future::Future;

/// A name is at most this long.
pub(crate) const CONTEST_NAME_BYTES_MAX: usize = 256;
/// As many candidates as are looked at. One behind them is refused.
const CANDIDATES_MAX: usize = 20_000;
/// How often a question whose answer changes while it is asked is asked again.
const TRIES_MAX: usize = 5;
/// A candidate that waits is renewed, and looks again, this often within its lease's time.
const LOOKS_PER_TTL: u64 = 3;
/// A candidate whose lease others renew looks again after this time: its place may be gone.
const LOOK_MICROS_MAX: u64 = 30_000_000;
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

/// What a candidate brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidacy {
    pub(crate) lease: LeaseChoice,
    /// What the others see of it.
    pub(crate) value: Bytes,
    /// Until then it waits for its turn.
    pub(crate) deadline: Time,
    /// Whether it keeps its place when that time is over.
    pub(crate) stays: bool,
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

/// All candidates, as of one revision.
struct Candidates {
    /// In the order of their keys.
    all: Vec<KeyValue>,
    revision: Revision,
}

/// Where a candidate stands.
enum PlaceInLine {
    /// It holds it; its fencing number.
    First(Revision),
    Behind {
        /// The revision that created its key.
        created: Revision,
        /// The key before it.
        before: Bytes,
        /// The first one's key, without its value.
        holder: Box<KeyValue>,
        /// As of which revision.
        revision: Revision,
    },
    Gone,
}

/// The lease of a candidate.
#[derive(Clone, Copy, Debug)]
struct Stake {
    lease: LeaseId,
    /// The lease was made for this and has this time, seconds. Only we renew it.
    ttl_seconds: Option<u64>,
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

    /// What its keys begin with, readably.
    pub(crate) fn beginning_of_keys(&self) -> String {
        let length = self.prefix.len();
        // No name has a byte 0 in it: there is one before it, and one behind it.
        format!("\\0{}\\0", self.prefix[1..length - 1].escape_ascii())
    }

    /// The key of the candidate with that lease.
    pub(crate) fn key(&self, lease: LeaseId) -> Bytes {
        Bytes::from([&self.prefix[..], format!("{:016x}", lease.0).as_bytes()].concat())
    }

    /// The candidate with that lease is the one that was created then.
    fn is(&self, lease: LeaseId, created: Revision) -> Compare {
        let target = Target::CreateRevision(created);
        Compare { range: KeyRange::one(self.key(lease)), target, order: CompareOrder::Equal }
    }

    /// No candidate was created before that.
    fn is_first(&self, created: Revision) -> Compare {
        let target = Target::CreateRevision(Revision(created.0.saturating_sub(1)));
        Compare { range: KeyRange::prefix(self.prefix.clone()), target, order: CompareOrder::Greater }
    }

    fn noun(&self) -> &'static str {
        match self.kind {
            ContestKind::Lock => "the lock",
            ContestKind::Election => "the election",
        }
    }
}

impl Stake {
    /// Whether somebody can come back to the place: the owner of the lease, or a client that asks
    /// again under the same name.
    fn outlives(self, call: &Call) -> bool {
        self.ttl_seconds.is_none() || call.idempotency_key.is_some()
    }
}

impl Candidates {
    /// Where the candidate with that key stands.
    fn place_in_line(&self, own: &Bytes) -> PlaceInLine {
        let Some(mine) = self.all.iter().find(|key| key.key == *own) else { return PlaceInLine::Gone };
        let created = mine.create_revision;
        let before = self.all.iter().filter(|key| key.create_revision < created);
        match (before.max_by_key(|key| key.create_revision), self.first()) {
            (Some(before), Some(first)) => PlaceInLine::Behind {
                created,
                before: before.key.clone(),
                holder: Box::new(first.clone()),
                revision: self.revision,
            },
            _ => PlaceInLine::First(created),
        }
    }

    fn first(&self) -> Option<&KeyValue> {
        self.all.iter().min_by_key(|key| key.create_revision)
    }
}

impl<E: Env> Service<'_, E> {
    /// Stands for a contest, and waits until it is won, at most until the deadline, or until
    /// `interrupted` ends: this node stops, or the client has gone.
    pub(crate) async fn campaign(
        &self,
        call: &Call,
        contest: &Contest,
        candidacy: Candidacy,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Won, ServiceError> {
        let Candidacy { lease, value, deadline, stays } = candidacy;
        let stake = match lease {
            LeaseChoice::Given(lease) => Stake { lease, ttl_seconds: None },
            LeaseChoice::New(ttl_seconds) => {
                let (lease, ttl_seconds) = self.grant(call, ttl_seconds).await?;
                Stake { lease, ttl_seconds: Some(ttl_seconds) }
            }
            LeaseChoice::None => {
                return Err(ServiceError::new(ErrorCode::NoLease, "a candidate needs a lease").not_applied());
            }
        };
        let won = |fence| Ok(Won { lease: stake.lease, ttl_seconds: stake.ttl_seconds, fence });
        if let Err(error) = self.enter(call, contest, stake.lease, value).await {
            return Err(self.refused(call, stake, error).await);
        }
        let mut created = None;
        let error = tokio::select! {
            biased;
            turn = self.wait_for_turn(contest, stake, deadline, &mut created) => match turn {
                Ok(fence) => return won(fence),
                Err(error) => error,
            },
            () = interrupted => ServiceError::stopping(),
        };
        if error.is_of_the_node() {
            return Err(self.refused(call, stake, error.of_unknown_outcome()).await);
        }
        if stays && error.code == ErrorCode::Held {
            return Err(error.of_unknown_outcome());
        }
        let left = match (error.code, created) {
            // It is gone already.
            (ErrorCode::NoLease | ErrorCode::NotHolder, _) => true,
            (_, None) => false,
            (_, Some(created)) => match self.leave(contest, stake.lease, created).await {
                // Its turn came just now.
                Ok(Some(fence)) => return won(fence),
                left => left.is_ok(),
            },
        };
        // Not what another request under the same name may have won meanwhile.
        let may_end = stake.ttl_seconds.is_some() && (left || !stake.outlives(call));
        let ended = may_end && error.code != ErrorCode::NoLease && self.give_back(stake.lease).await;
        Err(if left || ended { error.not_applied() } else { error.of_unknown_outcome() })
    }

    /// A candidate won, and nobody is there any more to be told. The lock passes on at once, unless
    /// somebody can come back to it.
    pub(crate) async fn abandon(&self, call: &Call, won: Won) {
        let stake = Stake { lease: won.lease, ttl_seconds: won.ttl_seconds };
        if !stake.outlives(call) {
            self.give_back(won.lease).await;
        }
    }

    /// What is told of a candidate that got no answer from the cluster, or whose node could not go
    /// on. It leaves the queue only if nobody can come back to its place.
    async fn refused(&self, call: &Call, stake: Stake, error: ServiceError) -> ServiceError {
        if stake.ttl_seconds.is_none() || (stake.outlives(call) && error.is_of_the_node()) {
            return error;
        }
        // Without its lease the candidate's key cannot be there, nor come later.
        if self.give_back(stake.lease).await { error.not_applied() } else { error }
    }

    /// Ends a lease that was made for one call, before its time. If that fails it ends by itself.
    ///
    /// Not under the call's name: what was remembered of it would say nothing of now.
    async fn give_back(&self, lease: LeaseId) -> bool {
        match self.command(Call::default().only(Op::Revoke(lease))).await {
            Ok(_) => true,
            Err(error) => error.code == ErrorCode::NoLease,
        }
    }

    /// Leaves the queue, unless its turn has come: then its fencing number.
    ///
    /// It takes away the key that was created at that revision, and no later one of the same lease.
    async fn leave(
        &self,
        contest: &Contest,
        lease: LeaseId,
        created: Revision,
    ) -> Result<Option<Revision>, ServiceError> {
        let key = contest.key(lease);
        let delete = Txn {
            compare: vec![contest.is(lease, created)],
            success: vec![TxnOp::Delete(KeyRange::one(key))],
            failure: Vec::new(),
        };
        let txn = Txn {
            compare: vec![contest.is(lease, created), contest.is_first(created)],
            success: Vec::new(),
            failure: vec![TxnOp::Txn(Box::new(delete))],
        };
        match self.command(Call::default().only(Op::Txn(Box::new(txn)))).await? {
            Outcome::Txn { succeeded, .. } => Ok(succeeded.then_some(created)),
            other => Err(strange(&other)),
        }
    }

    /// Its holder.
    pub(crate) async fn holder(
        &self,
        contest: &Contest,
        level: Level,
    ) -> Result<Option<Holder>, ServiceError> {
        for _ in 0..TRIES_MAX {
            let candidates = self.candidates(contest, level).await?;
            let Some(first) = candidates.first() else { return Ok(None) };
            // The candidates' values may be large; one is wanted.
            let (revision, found) = self.get(first.key.clone(), None, level).await?;
            if let Some(key) = found.filter(|key| key.create_revision == first.create_revision) {
                return Ok(Some(Holder { key, waiting: candidates.all.len() - 1, revision }));
            }
        }
        Err(too_fast(contest))
    }

    /// All that stand for it, as of one revision.
    async fn candidates(&self, contest: &Contest, level: Level) -> Result<Candidates, ServiceError> {
        let query =
            RangeQuery { detail: Detail::Keys, ..RangeQuery::of(KeyRange::prefix(contest.prefix.clone())) };
        for _ in 0..TRIES_MAX {
            let mut page = self.range(query.clone(), level).await?;
            let mut found = Candidates { all: std::mem::take(&mut page.kvs), revision: page.revision };
            loop {
                let Some(next) = page.next else { return Ok(found) };
                if found.all.len() >= CANDIDATES_MAX {
                    let detail = format!("too many wait for {} already; try again later", contest.noun());
                    return Err(ServiceError::new(ErrorCode::Overloaded, detail));
                }
                // This node has had that revision already.
                let rest = RangeQuery { resume: Some(next), at: Some(found.revision), ..query.clone() };
                page = match self.range(rest, Level::Local).await {
                    Ok(page) => page,
                    Err(error) if error.code == ErrorCode::Compacted => break,
                    Err(error) => return Err(error),
                };
                found.all.append(&mut page.kvs);
            }
        }
        Err(too_fast(contest))
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
        let candidates = self.candidates(contest, Level::Linearizable).await?;
        let Some(own) = candidates.all.iter().find(|candidate| candidate.key == key) else {
            return Err(not_holder(contest, lease));
        };
        let created = own.create_revision;
        let txn = Txn {
            compare: vec![contest.is(lease, created), contest.is_first(created)],
            success: vec![TxnOp::Put(Put { key, value, lease })],
            failure: Vec::new(),
        };
        match self.write(call, Op::Txn(Box::new(txn))).await? {
            Outcome::Txn { succeeded: true, revision, .. } => Ok(revision),
            Outcome::Txn { .. } => Err(not_holder(contest, lease)),
            other => Err(strange(&other)),
        }
    }

    /// Makes the candidate's key, unless it is there and ends with this lease.
    ///
    /// Under the call's name, if it has one: a copy of the command that is late must not stand for
    /// a client that has given up.
    async fn enter(
        &self,
        call: &Call,
        contest: &Contest,
        lease: LeaseId,
        value: Bytes,
    ) -> Result<(), ServiceError> {
        let key = contest.key(lease);
        let is_there = Compare {
            range: KeyRange::one(key.clone()),
            target: Target::Lease(lease),
            order: CompareOrder::Equal,
        };
        let txn = Txn {
            compare: vec![is_there],
            success: Vec::new(),
            failure: vec![TxnOp::Put(Put { key, value, lease })],
        };
        call.check().map_err(ServiceError::not_applied)?;
        match self.command(call.step("enter", Op::Txn(Box::new(txn)))).await? {
            Outcome::Txn { .. } => Ok(()),
            other => Err(strange(&other)),
        }
    }

    /// Waits until the candidate is the first. `created` is when its key was created, once that is
    /// known.
    async fn wait_for_turn(
        &self,
        contest: &Contest,
        stake: Stake,
        deadline: Time,
        created: &mut Option<Revision>,
    ) -> Result<Revision, ServiceError> {
        let own = contest.key(stake.lease);
        let mut ahead = None;
        let mut look = self.candidates(contest, Level::Linearizable).await;
        loop {
            let left = deadline.since(self.env.now());
            match look.map(|candidates| candidates.place_in_line(&own)) {
                Ok(PlaceInLine::First(fence)) => return Ok(fence),
                Ok(PlaceInLine::Behind { created: mine, before, holder, revision }) => {
                    *created = Some(mine);
                    ahead = Some((before, holder, revision));
                }
                Ok(PlaceInLine::Gone) => return Err(self.gone(contest, stake.lease).await),
                // Its lease goes on meanwhile, and if it ends this is heard later.
                Err(error) if error.is_passing() && left > 0 => {
                    self.env.sleep_until(self.env.now().plus(PAUSE_MICROS.min(left))).await;
                }
                Err(error) => match ahead {
                    Some((_, holder, _)) if error.is_passing() => return Err(held(contest, holder)),
                    _ => return Err(error),
                },
            }
            look = match &ahead {
                None => self.candidates(contest, Level::Linearizable).await,
                Some((_, holder, _)) if left == 0 => return Err(held(contest, holder.clone())),
                Some((before, _, revision)) => {
                    let ends = ChangesQuery {
                        range: KeyRange::one(before.clone()),
                        from: revision.next(),
                        puts: false,
                        deletions: true,
                        previous: false,
                    };
                    self.wait_and_look(contest, stake, ends, left).await
                }
            };
        }
    }

    /// Waits for changes, renews a lease, and looks at the candidates.
    async fn wait_and_look(
        &self,
        contest: &Contest,
        stake: Stake,
        ends: ChangesQuery,
        left: u64,
    ) -> Result<Candidates, ServiceError> {
        let pace = stake.ttl_seconds.map(|seconds| seconds.saturating_mul(1_000_000) / LOOKS_PER_TTL);
        let micros = pace.unwrap_or(LOOK_MICROS_MAX).min(left);
        match self.changes(ends, micros).await {
            Ok(_) => {}
            // So much has happened since that it is time to look anyhow.
            Err(error) if error.code == ErrorCode::Compacted => {}
            // Its lease must not end because nobody can wait now.
            Err(error) if error.is_passing() => {
                self.env.sleep_until(self.env.now().plus(PAUSE_MICROS.min(micros))).await;
            }
            Err(error) => return Err(error),
        }
        if stake.ttl_seconds.is_some() {
            self.lease_time(stake.lease, true).await?;
        }
        self.candidates(contest, Level::Linearizable).await
    }

    /// Why a candidate stands in the queue no more.
    async fn gone(&self, contest: &Contest, lease: LeaseId) -> ServiceError {
        match self.lease_time(lease, false).await {
            Ok(_) => not_holder(contest, lease),
            Err(error) if error.code == ErrorCode::NoLease => {
                let detail = format!("lease {lease} ended while it waited for {}; try again", contest.noun());
                ServiceError::new(ErrorCode::NoLease, detail).not_applied()
            }
            Err(error) => error,
        }
    }
}

fn held(contest: &Contest, holder: Box<KeyValue>) -> ServiceError {
    let noun = contest.noun();
    let detail = format!("lease {} holds {noun}; wait longer, or try again when it is over", holder.lease);
    ServiceError { present: Some(holder), ..ServiceError::new(ErrorCode::Held, detail) }
}

fn not_holder(contest: &Contest, lease: LeaseId) -> ServiceError {
    let detail =
        format!("lease {lease} does not hold {}; it was given up, or the lease has ended", contest.noun());
    ServiceError::new(ErrorCode::NotHolder, detail).not_applied()
}

fn too_fast(contest: &Contest) -> ServiceError {
    let detail = format!("{} changes hands too fast; try again", contest.noun());
    ServiceError::new(ErrorCode::Overloaded, detail)
}
