//! Calls of leases that wait for the leader's answer; `lease_calls` has what is done with them.

use crate::kv::{LeaseId, Principal};
use crate::raft::{Term, Time};
use crate::replica::api::RequestId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// The calls of this node's clients that the leader has not answered.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingCalls {
    /// By number.
    pub(super) calls: BTreeMap<u64, WaitingCall>,
    by_deadline: BTreeSet<(Time, u64)>,
    last_number: u64,
    /// Numbers of those that are to be sent now.
    pub(super) unsent: BTreeSet<u64>,
    /// Those that were sent are sent again at this time.
    pub(super) again_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingCall {
    pub(super) request: RequestId,
    pub(super) deadline: Time,
    pub(super) by: Option<Principal>,
    pub(super) lease: LeaseId,
    pub(super) renew: bool,
    /// The term in which it was sent last.
    pub(super) sent_in: Option<Term>,
}

impl WaitingCalls {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// When something is due here.
    pub(super) fn wake_at(&self) -> Option<Time> {
        let first = self.by_deadline.first().map(|(at, _)| *at);
        first.into_iter().chain(self.again_at.filter(|_| !self.calls.is_empty())).min()
    }

    pub(super) fn hold(
        &mut self,
        request: RequestId,
        deadline: Time,
        by: Option<Principal>,
        (lease, renew): (LeaseId, bool),
    ) {
        self.last_number += 1;
        let call = WaitingCall { request, deadline, by, lease, renew, sent_in: None };
        self.calls.insert(self.last_number, call);
        self.by_deadline.insert((deadline, self.last_number));
        self.unsent.insert(self.last_number);
    }

    pub(super) fn take(&mut self, number: u64) -> Option<WaitingCall> {
        let call = self.calls.remove(&number)?;
        self.by_deadline.remove(&(call.deadline, number));
        self.unsent.remove(&number);
        Some(call)
    }

    /// The requests whose time is up.
    pub(super) fn expire(&mut self, now: Time) -> Vec<RequestId> {
        let mut expired = Vec::new();
        while let Some((at, number)) = self.by_deadline.first().copied()
            && at <= now
        {
            expired.extend(self.take(number).map(|call| call.request));
        }
        expired
    }

    /// Everything that waits, to be failed.
    pub(super) fn give_up(&mut self) -> Vec<RequestId> {
        let calls = core::mem::take(self);
        calls.calls.into_values().map(|call| call.request).collect()
    }
}
