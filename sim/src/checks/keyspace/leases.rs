//! The promise of a lease: it does not end before its time after the last renewal that was
//! answered.
//!
//! What is promised exactly: the time begins, at the latest, when the renewal is asked for, since
//! its answer may take as long as it takes. It is measured on the clock of the machine that leads
//! when the end is proposed, with all that this clock did meanwhile: its rate and its jumps.

use crate::checks::keyspace::model::Model;
use crate::checks::keyspace::rights::NeededRight;
use crate::record::violation::{Violation, check};
use infinitystore::kv::{Command, Lease, LeaseId, Op, Outcome, Principal};
use infinitystore::raft::Time;
use infinitystore::replica::{ClientReply, LeaseTime, RequestId};
use std::collections::{BTreeMap, BTreeSet};

/// A question for a lease's time.
#[derive(Clone, Debug)]
struct Call {
    lease: LeaseId,
    renew: bool,
    by: Option<Principal>,
    /// What was committed then.
    committed: usize,
    /// What the clock of each machine showed then.
    clocks: Vec<Time>,
}

/// So much time was promised when the clocks showed this.
#[derive(Clone, Debug)]
struct TimePromise {
    clocks: Vec<Time>,
    micros: u64,
}

/// An end that a leader has proposed: on which machine, and what its clock showed.
#[derive(Clone, Copy, Debug)]
struct End {
    slot: usize,
    at: Time,
}

/// A lease: its id, and the number of its grant.
type Granted = (LeaseId, u64);

/// What leases were promised, and how they ended.
#[derive(Debug, Default)]
pub struct Leases {
    calls: BTreeMap<RequestId, Call>,
    promises: BTreeMap<Granted, Vec<TimePromise>>,
    /// By term.
    elected: BTreeMap<u64, End>,
    proposed: BTreeMap<(u64, Granted), End>,
    /// Leases whose end was proposed by anybody.
    doomed: BTreeSet<LeaseId>,
    ended: BTreeMap<Granted, End>,
    /// What a replica does is carried out at most this much after the time by which it goes.
    pub slack_micros: u64,
}

impl Leases {
    /// A machine leads a term from now on.
    pub fn elected(&mut self, term: u64, slot: usize, at: Time) {
        self.elected.entry(term).or_insert(End { slot, at });
    }

    /// The leader of a term has proposed the end of leases.
    pub fn proposed(&mut self, term: u64, slot: usize, at: Time, leases: &[Granted]) {
        for lease in leases {
            self.doomed.insert(lease.0);
            self.proposed.entry((term, *lease)).or_insert(End { slot, at });
        }
    }

    /// A machine is asked for the time of a lease.
    pub fn asked(
        &mut self,
        id: RequestId,
        (lease, renew): (LeaseId, bool),
        by: Option<Principal>,
        committed: usize,
        clocks: Vec<Time>,
    ) {
        self.calls.insert(id, Call { lease, renew, by, committed, clocks });
    }

    /// The process has ended.
    pub fn forget(&mut self, id: RequestId) {
        self.calls.remove(&id);
    }

    /// A command was committed, at an index and of an entry of a term, when the clocks showed
    /// this. `true`: it ended a lease whose time was up.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn committed(
        &mut self,
        model: &Model,
        (index, term): (usize, u64),
        (command, outcome): (&Command, &Outcome),
        clocks: &[Time],
    ) -> Result<bool, Violation> {
        let is_repeated = model.at(index).is_some_and(|sums| sums.is_repeated);
        if let (Outcome::Granted { id, ttl_seconds }, false) = (outcome, is_repeated)
            && let Some(Lease { grant, .. }) = model.lease_at(*id, index)
        {
            let micros = (ttl_seconds * 1_000_000).saturating_sub(self.slack_micros);
            let promise = TimePromise { clocks: clocks.to_vec(), micros };
            self.promises.entry((*id, grant)).or_default().push(promise);
        }
        let Op::Expire { term: of, leases } = &command.op else { return Ok(false) };
        let mut has_ended = false;
        for lease in leases.iter().filter(|_| *of == term) {
            let before = model.lease_at(lease.0, index - 1).filter(|before| before.grant == lease.1);
            let Some(before) = before else { continue };
            has_ended = true;
            let (Some(end), Some(elected)) =
                (self.proposed.get(&(term, *lease)).copied(), self.elected.get(&term))
            else {
                let what =
                    format!("{lease:?} ends at {index}, and nobody saw the leader of term {term} propose it");
                return Err(Violation { check: "a leader ends a lease", what });
            };
            let leads = end.at.since(elected.at) + self.slack_micros;
            check!(
                "a new leader gives a lease its full time",
                end.slot == elected.slot && leads >= before.ttl_seconds * 1_000_000,
                "{before:?} ended {leads} µs after machine {} began to lead term {term}",
                elected.slot
            );
            self.ended.insert(*lease, end);
            for promise in self.promises.get(lease).into_iter().flatten() {
                kept(*lease, promise, end)?;
            }
        }
        Ok(has_ended)
    }

    /// A machine has answered. What was met, for the marks.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn answered(
        &mut self,
        model: &Model,
        id: RequestId,
        reply: &ClientReply,
    ) -> Result<Option<&'static str>, Violation> {
        let Some(call) = self.calls.remove(&id) else { return Ok(None) };
        let wanted = NeededRight::Lease(call.lease, call.renew);
        if model.check_right(call.by.as_ref(), &wanted, reply, call.committed..=model.applied())? {
            return Ok(Some("lease call denied"));
        }
        let mut window = (call.committed..=model.applied()).rev();
        match reply {
            ClientReply::LeaseTime(Some(time)) => {
                let is_it = |found: &Lease| {
                    (found.id, found.ttl_seconds, found.keys) == (time.id, time.ttl_seconds, time.keys)
                };
                let found = window.find_map(|index| model.lease_at(call.lease, index).filter(is_it));
                let full = time.ttl_seconds.saturating_mul(1_000_000);
                let is_time = time.left_micros <= full;
                check!(
                    "a lease that is answered for is there",
                    found.is_some() && is_time,
                    "{call:?} is answered with {time:?}; there is {:?}",
                    model.lease_at(call.lease, model.applied())
                );
                self.promised(model, &call, time)?;
                Ok(Some(if call.renew { "lease renewed" } else { "lease's time asked for" }))
            }
            ClientReply::LeaseTime(None) => {
                let is_gone = window.any(|index| model.lease_at(call.lease, index).is_none());
                let ends = call.renew && self.doomed.contains(&call.lease);
                check!(
                    "a lease that is there is answered for",
                    is_gone || ends,
                    "{call:?} is answered with None; there is {:?}",
                    model.lease_at(call.lease, model.applied())
                );
                Ok(Some("lease unknown"))
            }
            ClientReply::Failed(_) => Ok(None),
            reply => {
                let what = format!("{call:?} was answered with {reply:?}");
                Err(Violation { check: "an answer answers the question", what })
            }
        }
    }

    /// The time that was answered is a promise for the lease, if it is clear which grant was meant.
    fn promised(&mut self, model: &Model, call: &Call, time: &LeaseTime) -> Result<(), Violation> {
        let grant_at = |index| model.lease_at(call.lease, index).map(|lease| lease.grant);
        let grants: BTreeSet<u64> = (call.committed..=model.applied()).filter_map(grant_at).collect();
        let (Some(grant), true) = (grants.first(), grants.len() == 1) else { return Ok(()) };
        let lease = (call.lease, *grant);
        let promise = TimePromise { clocks: call.clocks.clone(), micros: time.left_micros };
        if let Some(end) = self.ended.get(&lease) {
            kept(lease, &promise, *end)?;
        }
        self.promises.entry(lease).or_default().push(promise);
        Ok(())
    }
}

fn kept(lease: Granted, promise: &TimePromise, end: End) -> Result<(), Violation> {
    let lived = end.at.since(promise.clocks[end.slot]);
    check!(
        "no lease ends before its time",
        lived >= promise.micros,
        "{lease:?} was promised {} µs, and ended after {lived} µs by the clock of machine {}",
        promise.micros,
        end.slot
    );
    Ok(())
}
