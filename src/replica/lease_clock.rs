//! When each lease ends. The leader alone keeps this time.
//!
//! A renewal moves a deadline and does not go through the log. That is safe for two reasons. A
//! leader promises time only after a quorum has confirmed that it still leads, as for a
//! linearizable read, and counts it from before it asked. And a new leader gives every lease its
//! full time again, from the moment when it has applied the whole log of the terms before its own.
//! So a lease never ends earlier than its time to live after the last renewal that was answered, by
//! the clock of the leader that ends it.
//!
//! The end of a lease is a command ([`Op::Expire`](crate::kv::Op::Expire)). It names the term, and
//! which grant of the lease it means: a lease that was revoked and granted anew is another lease.

use crate::kv::{Lease, LeaseId, Store};
use crate::raft::{Term, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// One command ends at most this many leases.
const BATCH_LEASES: usize = 1_000;
/// A command ends no further lease once the ones before have this many keys.
const BATCH_KEYS: u64 = 10_000;
/// A batch that could not be proposed is tried again after this time.
const RETRY_MICROS: u64 = 100_000;

/// The deadlines, on the leader of a term; nothing on any other node.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseClock {
    /// The term in which this node leads, once it has applied an entry of that term.
    term: Option<Term>,
    deadlines: BTreeMap<LeaseId, Deadline>,
    /// The same, by time. Leases whose end was proposed are not in it.
    due: BTreeSet<(Time, LeaseId)>,
    /// Nothing is proposed before this time.
    retry_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    grant: u64,
    at: Time,
    /// Its end was proposed, and nobody may renew it any more.
    is_ending: bool,
}

impl LeaseClock {
    /// Whether this node keeps the time in `term`.
    pub(super) fn runs_in(&self, term: Term) -> bool {
        self.term == Some(term)
    }

    /// This node leads `term`, and has applied an entry of it: every lease gets its full time.
    pub(super) fn begin(&mut self, term: Term, store: &Store, now: Time) {
        *self = Self { term: Some(term), ..Self::default() };
        for lease in store.leases(LeaseId::NONE) {
            self.start(&lease, now);
        }
    }

    /// This node leads no longer.
    pub(super) fn stop(&mut self) {
        if self.term.is_some() {
            *self = Self::default();
        }
    }

    /// A command about this lease was applied: what the store says counts.
    pub(super) fn applied(&mut self, id: LeaseId, store: &Store, now: Time) {
        if self.term.is_none() {
            return;
        }
        let known = self.deadlines.get(&id).copied();
        match store.lease(id) {
            Some(lease) if known.is_none_or(|known| known.grant != lease.grant) => {
                self.forget(id);
                self.start(&lease, now);
            }
            Some(_) => {}
            None => self.forget(id),
        }
    }

    /// The lease is renewed: its time begins anew, at `from`, unless it lasts longer already.
    /// `None`: there is no such lease, or its end was proposed.
    pub(super) fn renew(&mut self, id: LeaseId, store: &Store, from: Time) -> Option<Lease> {
        let deadline = self.deadlines.get_mut(&id).filter(|deadline| !deadline.is_ending)?;
        let lease = store.lease(id)?;
        self.due.remove(&(deadline.at, id));
        deadline.at = deadline.at.max(from.plus(lease.ttl_seconds.saturating_mul(1_000_000)));
        self.due.insert((deadline.at, id));
        Some(lease)
    }

    /// How much time is left, microseconds. `None`: there is no such lease.
    pub(super) fn left(&self, id: LeaseId, now: Time) -> Option<u64> {
        let deadline = self.deadlines.get(&id)?;
        Some(if deadline.is_ending { 0 } else { deadline.at.since(now) })
    }

    /// When the next lease ends.
    pub(super) fn next(&self) -> Option<Time> {
        let (at, _) = self.due.first()?;
        Some(self.retry_at.map_or(*at, |retry| retry.max(*at)))
    }

    /// The leases whose time is up: at most a batch of them.
    pub(super) fn due(&self, store: &Store, now: Time) -> Vec<(LeaseId, u64)> {
        if self.retry_at.is_some_and(|retry| now < retry) {
            return Vec::new();
        }
        let mut keys = 0;
        let mut batch = Vec::new();
        for (_, id) in self.due.iter().take_while(|(at, _)| *at <= now).take(BATCH_LEASES) {
            let Some(lease) = store.lease(*id) else { continue };
            if !batch.is_empty() && keys + lease.keys > BATCH_KEYS {
                break;
            }
            keys += lease.keys;
            batch.push((*id, lease.grant));
        }
        batch
    }

    /// Their end was proposed.
    pub(super) fn proposed(&mut self, batch: &[(LeaseId, u64)]) {
        self.retry_at = None;
        for (id, _) in batch {
            if let Some(deadline) = self.deadlines.get_mut(id) {
                deadline.is_ending = true;
                self.due.remove(&(deadline.at, *id));
            }
        }
    }

    /// It could not be proposed now.
    pub(super) fn retry_later(&mut self, now: Time) {
        self.retry_at = Some(now.plus(RETRY_MICROS));
    }

    fn start(&mut self, lease: &Lease, now: Time) {
        let at = now.plus(lease.ttl_seconds.saturating_mul(1_000_000));
        self.deadlines.insert(lease.id, Deadline { grant: lease.grant, at, is_ending: false });
        self.due.insert((at, lease.id));
    }

    fn forget(&mut self, id: LeaseId) {
        if let Some(deadline) = self.deadlines.remove(&id) {
            self.due.remove(&(deadline.at, id));
        }
    }
}
