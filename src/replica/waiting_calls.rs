//! Calls of leases that wait for the leader's answer; `lease_calls` has what is done with them.

use crate::kv::{LeaseId, Principal};
use crate::raft::{Term, Time};
use crate::replica::api::RequestId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// The calls of this node's clients that the leader has not answered.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitingCalls {
    /// By the number that this node gave the call.
    pub(super) calls: BTreeMap<u64, WaitingCall>,
    by_deadline: BTreeSet<(Time, u64)>,
    last_number: u64,
    /// Numbers of those that are to be sent now.
    unsent: BTreeSet<u64>,
    /// The others, by when each is sent again.
    sent: BTreeSet<(Time, u64)>,
    /// The term whose leader they were sent to.
    sent_in: Option<Term>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingCall {
    pub(super) request: RequestId,
    pub(super) deadline: Time,
    pub(super) by: Option<Principal>,
    pub(super) lease: LeaseId,
    pub(super) renew: bool,
    /// When it is sent again; `None`: it is to be sent now.
    again_at: Option<Time>,
}

impl WaitingCalls {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// When something is due here.
    pub(super) fn wake_at(&self) -> Option<Time> {
        let first = self.by_deadline.first().map(|(at, _)| *at);
        first.into_iter().chain(self.sent.first().map(|(at, _)| *at)).min()
    }

    pub(super) fn hold(
        &mut self,
        request: RequestId,
        deadline: Time,
        by: Option<Principal>,
        (lease, renew): (LeaseId, bool),
    ) {
        self.last_number += 1;
        let call = WaitingCall { request, deadline, by, lease, renew, again_at: None };
        self.calls.insert(self.last_number, call);
        self.by_deadline.insert((deadline, self.last_number));
        self.unsent.insert(self.last_number);
    }

    pub(super) fn take(&mut self, number: u64) -> Option<WaitingCall> {
        let call = self.calls.remove(&number)?;
        self.by_deadline.remove(&(call.deadline, number));
        self.unsent.remove(&number);
        if let Some(at) = call.again_at {
            self.sent.remove(&(at, number));
        }
        Some(call)
    }

    /// A call was not taken on, or was lost for sure: it is sent with the next.
    pub(super) fn send_again(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if let Some(at) = call.again_at.take() {
            self.sent.remove(&(at, number));
        }
        self.unsent.insert(number);
    }

    /// No leader is known, so there is nobody to wait for. The next one is asked at once.
    pub(super) fn forget_leader(&mut self) {
        self.sent_in = None;
        self.sent.clear();
    }

    /// What is to be sent to the leader of `term` now: what was not sent to it, and what it has not
    /// answered for `patience` microseconds.
    pub(super) fn take_unsent(&mut self, term: Term, now: Time, patience: u64) -> Vec<(u64, WaitingCall)> {
        if self.sent_in != Some(term) {
            self.sent_in = Some(term);
            self.sent.clear();
            self.unsent.extend(self.calls.keys());
        }
        while let Some((at, number)) = self.sent.first().copied()
            && at <= now
        {
            self.sent.pop_first();
            self.unsent.insert(number);
        }
        let again_at = now.plus(patience);
        let mut calls = Vec::with_capacity(self.unsent.len());
        for number in core::mem::take(&mut self.unsent) {
            let call = self.calls.get_mut(&number).expect("what is to be sent waits");
            call.again_at = Some(again_at);
            self.sent.insert((again_at, number));
            calls.push((number, *call));
        }
        calls
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
