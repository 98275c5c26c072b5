//! Renewals, and questions how much time a lease has: only the leader can answer them.
//!
//! The leader answers like a linearizable read, once a quorum has confirmed that it leads. Another
//! member passes the call on. A call may be carried out twice without harm. So one without an
//! answer is sent again, to the member that leads then.

use crate::kv::{Command, Lease, LeaseId, Op, Outcome, Principal};
use crate::raft::{Incarnation, NodeId, RoleName, Term, Time};
use crate::replica::api::{ClientError, ClientReply, RequestId};
use crate::replica::message::{
    LEASE_CALLS_MAX, LeaseAnswer, LeaseAnswers, LeaseCall, LeaseCalls, LeaseRefusal, LeaseTime, PeerMessage,
};
use crate::replica::notice::Notice;
use crate::replica::proposal::{self, ProposalId};
use crate::replica::reads::{Asker, Read, Wanted};
use crate::replica::replica::Replica;
use crate::replica::waiting_calls::WaitingCall;
use alloc::vec::Vec;

/// How long the leader tries to answer a call of another member. The member asks again by itself.
const PASSED_ON_MICROS: u64 = 1_000_000;

impl Replica {
    pub(super) fn handle_lease_call(
        &mut self,
        id: RequestId,
        deadline: Time,
        by: Option<Principal>,
        call: (LeaseId, bool),
    ) {
        self.lease_calls.hold(id, deadline, by, call);
    }

    /// Sends what waits to the leader, if one is known; the leader asks itself.
    pub(super) fn send_lease_calls(&mut self) {
        let hint = self.raft.leader_hint();
        let calls = &mut self.lease_calls;
        if calls.calls.is_empty() {
            return;
        }
        let Some(leader) = hint.leader else { return calls.forget_leader() };
        let to_send = calls.take_unsent(hint.term, self.now, self.config.raft.election_timeout_micros);
        if to_send.is_empty() {
            return;
        }
        if leader == self.raft.id() {
            self.read_lease_calls(to_send);
            return;
        }
        let (from, incarnation) = (self.raft.id(), self.incarnation);
        for part in to_send.chunks(LEASE_CALLS_MAX) {
            let calls = part
                .iter()
                .map(|(number, call)| LeaseCall {
                    number: *number,
                    by: call.by,
                    lease: call.lease,
                    renew: call.renew,
                })
                .collect();
            self.actions.messages.push(PeerMessage::LeaseCalls(LeaseCalls {
                from,
                to: leader,
                incarnation,
                calls,
            }));
        }
    }

    /// Calls of this leader's own clients become reads, each once and no more than may wait.
    fn read_lease_calls(&mut self, calls: Vec<(u64, WaitingCall)>) {
        let waiting = self.reads.own_calls();
        for (number, call) in calls.into_iter().filter(|(number, _)| !waiting.contains(number)) {
            if self.reads.len() >= self.config.pending_requests_max {
                // Tried again with the next step.
                self.lease_calls.send_again(number);
                continue;
            }
            let asker = Asker::Own(number);
            let wanted = Wanted::Lease { lease: call.lease, renew: call.renew };
            self.reads.push(Read::new(asker, call.by, call.deadline, wanted, self.now));
        }
    }

    /// Calls of another member's clients. A node that does not lead keeps silent: the member will
    /// learn who leads, and asks again.
    pub(super) fn handle_lease_calls(&mut self, calls: LeaseCalls) {
        let is_member = self.raft.membership().members.contains_key(&calls.from);
        if calls.to != self.raft.id() || !is_member || self.raft.role() != RoleName::Leader {
            return;
        }
        let deadline = self.now.plus(PASSED_ON_MICROS);
        let mut refused = 0;
        for call in calls.calls {
            if self.reads.len() >= self.config.pending_requests_max {
                refused += 1;
                let answer = Err(LeaseRefusal::Overloaded);
                self.answer_lease(calls.from, calls.incarnation, call.number, answer);
                continue;
            }
            let asker = Asker::Member { id: calls.from, incarnation: calls.incarnation, number: call.number };
            let wanted = Wanted::Lease { lease: call.lease, renew: call.renew };
            self.reads.push(Read::new(asker, call.by, deadline, wanted, self.now));
        }
        if refused > 0 {
            self.actions.notices.push(Notice::LeaseCallsRefused { from: calls.from, count: refused });
        }
    }

    /// A read was not served in time, and why. The client of a call of a lease is told by now only
    /// if there was too much to do: any other call may find the next leader until its own time is
    /// up.
    pub(super) fn fail_read(&mut self, asker: Asker, error: ClientError) {
        match asker {
            Asker::Client(request) => self.fail(request, error),
            Asker::Own(number) if error == ClientError::Overloaded => {
                if let Some(call) = self.lease_calls.take(number) {
                    self.fail(call.request, error);
                }
            }
            Asker::Member { id, incarnation, number } if error == ClientError::Overloaded => {
                self.answer_lease(id, incarnation, number, Err(LeaseRefusal::Overloaded));
            }
            Asker::Own(_) | Asker::Member { .. } => {}
        }
    }

    /// The leader's answers to calls of this node's clients.
    pub(super) fn handle_lease_answers(&mut self, answers: LeaseAnswers) {
        if answers.to != self.raft.id() || answers.incarnation != self.incarnation {
            return;
        }
        for (number, time) in answers.answers {
            if let Some(call) = self.lease_calls.take(number) {
                self.reply(call.request, lease_reply(time));
            }
        }
    }

    /// A quorum has confirmed that this node led when it was asked, and it has applied what was
    /// committed then. A renewal counts from `asked`: another member may lead by now, and that one
    /// has given the lease its full time no earlier than the quorum confirmed this node.
    pub(super) fn serve_lease(
        &mut self,
        asker: Asker,
        by: Option<Principal>,
        (lease, renew): (LeaseId, bool),
        (asked, asked_in): (Time, Term),
    ) {
        let term = self.raft.term();
        if asked_in != term || !self.lease_clock.runs_in(term) {
            // It leads no longer, or again: another leader may have confirmed the question. The
            // member that asked asks again. An own call is sent to the next leader.
            if let Asker::Own(number) = asker {
                self.lease_calls.send_again(number);
            }
            return;
        }
        // By the rights of this state, wherever the client asked.
        let judged = self.store.judge_lease(by.as_ref(), lease, renew).map_err(LeaseRefusal::Denied);
        let time = judged.map(|()| self.lease_time(lease, renew.then_some(asked)));
        match asker {
            Asker::Client(request) => self.reply(request, lease_reply(time)),
            Asker::Own(number) => {
                if let Some(call) = self.lease_calls.take(number) {
                    self.reply(call.request, lease_reply(time));
                }
            }
            Asker::Member { id, incarnation, number } => self.answer_lease(id, incarnation, number, time),
        }
    }

    fn lease_time(&mut self, lease: LeaseId, renewed_at: Option<Time>) -> Option<LeaseTime> {
        let found = match renewed_at {
            Some(at) => self.lease_clock.renew(lease, &self.store, at)?,
            None => self.store.lease(lease)?,
        };
        let left_micros = self.lease_clock.left(&found, self.now);
        let Lease { id, ttl_seconds, keys, .. } = found;
        Some(LeaseTime { id, ttl_seconds, left_micros, keys })
    }

    fn answer_lease(&mut self, to: NodeId, incarnation: Incarnation, number: u64, time: LeaseAnswer) {
        // Answers to one member that leave together share a message.
        if let Some(PeerMessage::LeaseAnswers(last)) = self.actions.messages.last_mut()
            && last.to == to
            && last.incarnation == incarnation
            && last.answers.len() < LEASE_CALLS_MAX
        {
            last.answers.push((number, time));
            return;
        }
        let from = self.raft.id();
        let answers = Vec::from([(number, time)]);
        self.actions.messages.push(PeerMessage::LeaseAnswers(LeaseAnswers {
            from,
            to,
            incarnation,
            answers,
        }));
    }

    /// The leader proposes the end of the leases whose time is up.
    pub(super) fn maybe_end_leases(&mut self) {
        let term = self.raft.term();
        if self.raft.role() != RoleName::Leader || !self.lease_clock.runs_in(term) {
            return self.lease_clock.stop();
        }
        self.lease_clock.read_on(&self.store, self.now);
        loop {
            let leases = self.lease_clock.due(&self.store, self.now);
            if leases.is_empty() {
                return;
            }
            let command = Command::from(Op::Expire { term: term.get(), leases: leases.clone() });
            let mut encoded = Vec::new();
            command.encode(&mut encoded);
            let data = proposal::encode(ProposalId::of_leader(self.incarnation), &encoded);
            if self.has_no_room() || self.raft.propose(self.now, &data).is_err() {
                return self.lease_clock.retry_later(self.now);
            }
            self.lease_clock.proposed(&leases);
        }
    }

    /// A command was applied: the deadlines of the leases that it is about follow.
    pub(super) fn note_leases(&mut self, command: &Command, outcome: &Outcome) {
        let ids: Vec<LeaseId> = match (&command.op, outcome) {
            (_, Outcome::Granted { id, .. }) | (Op::Revoke(id), _) => Vec::from([*id]),
            (Op::Expire { term, leases }, _) => {
                self.lease_clock.batch_applied(*term);
                leases.iter().map(|(id, _)| *id).collect()
            }
            _ => return,
        };
        for id in ids {
            self.lease_clock.applied(id, &self.store, self.now);
        }
    }
}

fn lease_reply(answer: LeaseAnswer) -> ClientReply {
    match answer {
        Ok(time) => ClientReply::LeaseTime(time),
        Err(LeaseRefusal::Denied(denial)) => ClientReply::Failed(ClientError::Denied(denial)),
        Err(LeaseRefusal::Overloaded) => ClientReply::Failed(ClientError::Overloaded),
    }
}
