//! When each lease ends. The leader alone keeps this time.
//!
//! A renewal moves a deadline and does not go through the log. That is safe for two reasons. A
//! leader promises time only after a quorum has confirmed that it still leads, as for a
//! linearizable read, and counts it from before it asked. And a new leader gives every lease its
//! full time again, from the moment when it has applied the whole log of the terms before its own.
//! So a lease never ends earlier than its time to live after the last renewal that was answered, by
//! the clock of the leader that ends it.
//!
//! A step's work does not grow with the number of leases. A new leader keeps the time of its start,
//! which is what a lease without a deadline of its own counts from, and reads the leases into the
//! table some thousands at a time. And however many are due at once, a few batches are on their way
//! through the log at a time.
//!
//! The end of a lease is a command ([`Op::Expire`](crate::kv::Op::Expire)). It names the term, and
//! which grant of the lease it means: a lease that was revoked and granted anew is another lease.

use crate::kv::{Lease, LeaseGrant, LeaseId, Store};
use crate::raft::{Term, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// One command ends at most this many leases.
const BATCH_LEASES: usize = 1_000;
/// A command ends no further lease once the ones before have this many keys.
const BATCH_KEYS: u64 = 10_000;
/// So many batches are proposed before the first of them has to be applied.
const BATCHES_MAX: usize = 4;
/// After a change of leader, so many leases are read at a time.
const READ_LEASES: usize = 2_000;
/// And then nothing for this time.
const READ_PAUSE_MICROS: u64 = 1_000;
/// A batch that could not be proposed is tried again after this time.
const RETRY_MICROS: u64 = 100_000;

/// The deadlines, on the leader of a term; nothing on any other node.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseClock {
    /// The term in which this node leads, once it has applied an entry of that term.
    term: Option<Term>,
    /// When that was: a lease that was there and has no deadline yet has its time from then on.
    begun: Time,
    /// The last grant then.
    last_grant: u64,
    /// The leases from this one on were not read yet; `None`: all were.
    unread: Option<LeaseId>,
    /// The next of them are read at this time.
    read_at: Time,
    deadlines: BTreeMap<LeaseId, Deadline>,
    /// The same, by time. Leases whose end was proposed are not in it.
    due: BTreeSet<(Time, LeaseId)>,
    /// Batches that were proposed and not applied.
    batches: usize,
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

impl Deadline {
    /// Of a lease whose time begins at `from`.
    fn of(lease: &LeaseGrant, from: Time) -> Self {
        let at = from.plus(lease.ttl_seconds.saturating_mul(1_000_000));
        Self { grant: lease.grant, at, is_ending: false }
    }
}

impl LeaseClock {
    /// Whether this node keeps the time in `term`.
    pub(super) fn runs_in(&self, term: Term) -> bool {
        self.term == Some(term)
    }

    /// This node leads `term`, and has applied an entry of it: every lease gets its full time.
    pub(super) fn begin(&mut self, term: Term, store: &Store, now: Time) {
        let (begun, last_grant) = (now, store.last_grant());
        let unread = Some(LeaseId::NONE);
        *self = Self { term: Some(term), begun, last_grant, unread, ..Self::default() };
        self.read_on(store, now);
    }

    /// Reads the next leases that were there when it began.
    pub(super) fn read_on(&mut self, store: &Store, now: Time) {
        let Some(from) = self.unread.filter(|_| self.read_at <= now) else { return };
        let mut grants = store.lease_grants(from);
        for grant in grants.by_ref().take(READ_LEASES) {
            if !self.deadlines.contains_key(&grant.id) {
                self.start(&grant, self.begun);
            }
        }
        self.unread = grants.next().map(|grant| grant.id);
        self.read_at = now.plus(READ_PAUSE_MICROS);
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
            // One that was not read yet is as old as the others.
            Some(lease)
                if known.map_or(lease.grant > self.last_grant, |known| known.grant != lease.grant) =>
            {
                self.forget(id);
                self.start(&LeaseGrant::of(&lease), now);
            }
            Some(_) => {}
            None => self.forget(id),
        }
    }

    /// A batch of ends that was proposed in a term was applied.
    pub(super) fn batch_applied(&mut self, term: u64) {
        if self.term.is_some_and(|own| own.get() == term) {
            self.batches = self.batches.saturating_sub(1);
        }
    }

    /// The lease is renewed: its time begins anew, at `from`, unless it lasts longer already.
    /// `None`: there is no such lease, or its end was proposed.
    pub(super) fn renew(&mut self, id: LeaseId, store: &Store, from: Time) -> Option<Lease> {
        let lease = store.lease(id)?;
        let mut deadline = Some(self.deadline(&lease)).filter(|deadline| !deadline.is_ending)?;
        self.due.remove(&(deadline.at, id));
        deadline.at = deadline.at.max(from.plus(lease.ttl_seconds.saturating_mul(1_000_000)));
        self.due.insert((deadline.at, id));
        self.deadlines.insert(id, deadline);
        Some(lease)
    }

    /// How much time is left to a lease that is there, microseconds.
    pub(super) fn left(&self, lease: &Lease, now: Time) -> u64 {
        let deadline = self.deadline(lease);
        if deadline.is_ending { 0 } else { deadline.at.since(now) }
    }

    fn deadline(&self, lease: &Lease) -> Deadline {
        let known = self.deadlines.get(&lease.id).copied();
        known.unwrap_or_else(|| Deadline::of(&LeaseGrant::of(lease), self.begun))
    }

    /// When there is something to do: the next lease ends, or leases are to be read.
    pub(super) fn next(&self) -> Option<Time> {
        // What was proposed has to be applied first, and brings a step.
        let due = self.due.first().filter(|_| self.batches < BATCHES_MAX);
        let ends = due.map(|(at, _)| self.retry_at.map_or(*at, |retry| retry.max(*at)));
        self.unread.map(|_| self.read_at).into_iter().chain(ends).min()
    }

    /// The leases whose time is up: at most a batch of them.
    pub(super) fn due(&self, store: &Store, now: Time) -> Vec<(LeaseId, u64)> {
        if self.batches >= BATCHES_MAX || self.retry_at.is_some_and(|retry| now < retry) {
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
        self.batches += 1;
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

    fn start(&mut self, lease: &LeaseGrant, now: Time) {
        let deadline = Deadline::of(lease, now);
        self.deadlines.insert(lease.id, deadline);
        self.due.insert((deadline.at, lease.id));
    }

    fn forget(&mut self, id: LeaseId) {
        if let Some(deadline) = self.deadlines.remove(&id) {
            self.due.remove(&(deadline.at, id));
        }
    }
}

#[cfg(test)]
mod tests;
