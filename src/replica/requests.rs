//! Requests of this node's clients, and those that other nodes forward to the leader.

use crate::codec::{FeatureLevel, Reader};
use crate::kv::{Command, Principal, Query};
use crate::raft::Time;
use crate::raft::{InputError, NodeId, RoleName, Withdrawal};
use crate::replica::api::{ClientError, ClientReply, ClientRequest, Level, RequestId};
use crate::replica::client_writes::ClientWrite;
use crate::replica::message::{Forward, ForwardRefused, PeerMessage, RefusedBecause};
use crate::replica::notice::Notice;
use crate::replica::proposal::{self, ProposalId};
use crate::replica::reads::{Asker, Read, Wanted};
use crate::replica::replica::Replica;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::{Bound, Range, RangeBounds};

/// Bytes of commands in one forward, at most (but at least one command).
const FORWARD_BYTES_MAX: usize = 1 << 20;

/// What clients of a member are told that takes no part any more.
pub(super) fn refusal_after(why: Withdrawal) -> ClientError {
    match why {
        Withdrawal::Removed { .. } => ClientError::Removed,
        _ => ClientError::Refused(why.to_string()),
    }
}

impl Replica {
    pub(super) fn handle_client(
        &mut self,
        id: RequestId,
        deadline: Time,
        by: Option<Principal>,
        request: ClientRequest,
    ) {
        if let Some(why) = self.raft.withdrawn() {
            // Not even a local read can be trusted.
            return self.fail(id, refusal_after(why));
        }
        match request {
            // The command is the caller's, whatever it says itself.
            ClientRequest::Write(command) => self.handle_write(id, deadline, Command { by, ..command }),
            // It may have heard of its removal from the log, and not have withdrawn.
            ClientRequest::Read { level: Level::Local | Level::Fresh { .. }, .. } if self.is_removed() => {
                self.fail(id, ClientError::Removed);
            }
            ClientRequest::Read { level: Level::Local | Level::Fresh { .. }, .. } if self.is_starting() => {
                self.fail(id, ClientError::Starting);
            }
            ClientRequest::Read { level: Level::Fresh { max_staleness_micros }, .. }
                if self.silent_micros(self.now).is_none_or(|silent| silent > max_staleness_micros) =>
            {
                self.fail(id, ClientError::Stale);
            }
            ClientRequest::Read { query, level: Level::Local | Level::Fresh { .. } } => {
                self.answer_query(id, by, &query);
            }
            ClientRequest::Read { query, level: Level::Linearizable } => {
                self.handle_read(id, deadline, by, Wanted::Query(query));
            }
            ClientRequest::Barrier => self.handle_read(id, deadline, by, Wanted::Barrier),
            ClientRequest::Watch(query) => self.handle_watch(id, deadline, by, query),
            ClientRequest::Lease { lease, renew } => match self.refuses_reads() {
                Some(error) => self.fail(id, error),
                None => self.handle_lease_call(id, deadline, by, (lease, renew)),
            },
            ClientRequest::ChangeMembership(order) => self.handle_order(id, deadline, order),
            ClientRequest::TransferLeadership(to) => self.handle_transfer(id, deadline, to),
        }
    }

    fn handle_write(&mut self, id: RequestId, deadline: Time, mut command: Command) {
        if let Some(error) = self.refuses_writes() {
            return self.fail(id, error);
        }
        let waiting = self.writes.bytes() + self.reads.bytes();
        if waiting + command.bytes() as u64 > self.config.pending_write_bytes_max {
            return self.fail(id, ClientError::Overloaded);
        }
        if let Err(error) = command.check() {
            return self.fail(id, ClientError::BadCommand(error));
        }
        // At a lower level nobody has words for it, nor a use.
        if self.store.level() < FeatureLevel::DATES_ANSWERS {
            command.since = None;
        }
        // A copy of its own: the request's strings may be parts of a much larger buffer.
        let mut encoded = Vec::with_capacity(command.bytes() + 16);
        command.encode(&mut encoded);
        let encoded = Bytes::from(encoded);
        // Under an idempotency key a denial is remembered in the log: a late copy must not take
        // effect once there is a right to it.
        let is_denied = || self.store.judge(command.by.as_ref(), &command.op).is_err();
        if command.idempotency_key.is_none() && is_denied() {
            self.handle_read(id, deadline, command.by, Wanted::Right(encoded));
        } else {
            self.writes.queue(ClientWrite { request: id, deadline, command: encoded });
        }
    }

    /// A write that the state here denied, which was perhaps an old one. What was committed when it
    /// was asked for is applied now. If that denies it too, the log never hears of it.
    pub(super) fn judge_again(&mut self, id: RequestId, deadline: Time, encoded: Bytes) {
        let command = Command::decode(Reader::new(encoded.clone())).expect("it was encoded here");
        if let Err(denial) = self.store.judge(command.by.as_ref(), &command.op) {
            self.fail(id, ClientError::Denied(denial));
        } else if let Some(error) = self.refuses_writes() {
            self.fail(id, error);
        } else {
            self.writes.queue(ClientWrite { request: id, deadline, command: encoded });
        }
    }

    /// Answers a query by the state as it is now, and by the rights in it.
    pub(super) fn answer_query(&mut self, id: RequestId, by: Option<Principal>, query: &Query) {
        let reply = match self.store.judge_query(by.as_ref(), query) {
            Err(denial) => ClientReply::Failed(ClientError::Denied(denial)),
            Ok(()) => match self.store.past_read(query) {
                Some(read) => ClientReply::Past(Box::new(read)),
                None => ClientReply::Answer(self.store.answer(query)),
            },
        };
        self.reply(id, reply);
    }

    fn handle_read(&mut self, id: RequestId, deadline: Time, by: Option<Principal>, wanted: Wanted) {
        match self.refuses_reads() {
            Some(error) => self.fail(id, error),
            None => self.reads.push(Read::new(Asker::Client(id), by, deadline, wanted, self.now)),
        }
    }

    fn refuses_reads(&self) -> Option<ClientError> {
        if self.is_reserved() {
            // It could only read the empty state of a cluster of one that is about to end.
            Some(ClientError::Reserved)
        } else if self.is_founding() {
            Some(ClientError::Founding)
        } else if self.is_removed() {
            Some(ClientError::Removed)
        } else if self.reads.len() + self.lease_calls.len() >= self.config.pending_requests_max {
            Some(ClientError::Overloaded)
        } else {
            None
        }
    }

    fn refuses_writes(&self) -> Option<ClientError> {
        if self.is_reserved() {
            Some(ClientError::Reserved)
        } else if self.is_founding() {
            Some(ClientError::Founding)
        } else if self.is_removed() {
            Some(ClientError::Removed)
        } else if self.log_full || self.disk_full && self.raft.role() == RoleName::Leader {
            // A member whose log has no room may never learn what becomes of a write.
            Some(ClientError::DiskFull)
        } else if self.writes.len() >= self.config.pending_requests_max {
            Some(ClientError::Overloaded)
        } else {
            None
        }
    }

    /// Commands of another node's clients. A command that is not proposed is refused, and never
    /// will be proposed.
    pub(super) fn handle_forward(&mut self, forward: Forward) {
        let leads = self.raft.role() == RoleName::Leader && self.raft.term() == forward.term;
        if forward.to != self.raft.id() || !self.raft.membership().members.contains_key(&forward.from) {
            return;
        }
        if !leads {
            return self.refuse_late_forward(&forward);
        }
        for late in self.origins.overtaken(&forward) {
            self.refuse_numbers(&forward, late, RefusedBecause::Overtaken);
        }
        let Some(seen) = self.origins.admit(&forward) else { return };
        if seen == forward.commands.len() {
            return;
        }
        if self.is_reserved() {
            return self.refuse_forward(&forward, seen.., RefusedBecause::Overloaded);
        }
        if self.is_founding() {
            // They wait at their origin, and come again.
            return self.refuse_forward(&forward, seen.., RefusedBecause::HandingOver);
        }
        if self.has_no_room() {
            // Noted as seen first: a second copy must not be appended when there is room again.
            return self.refuse_forward(&forward, seen.., RefusedBecause::DiskFull);
        }
        for (offset, command) in forward.commands.iter().enumerate().skip(seen) {
            // The log never holds a command that cannot be decoded, or that names another origin.
            let sequence = forward.first_sequence.saturating_add(offset as u64);
            let name = ProposalId { origin: forward.from, incarnation: forward.incarnation, sequence };
            if !proposal::decode(command.clone()).is_ok_and(|(id, _)| id == name) {
                let reason =
                    String::from("forwarded a command that does not decode, or not under its own name");
                self.actions.notices.push(Notice::BadMessage { from: forward.from, reason });
                return self.refuse_forward(&forward, offset.., RefusedBecause::Malformed);
            }
            match self.raft.propose(self.now, command) {
                Ok(_) => {}
                Err(InputError::TooLarge { bytes, limit }) => {
                    let why = RefusedBecause::TooLarge { bytes, limit };
                    self.refuse_forward(&forward, offset..=offset, why);
                }
                Err(InputError::Transferring) => {
                    return self.refuse_forward(&forward, offset.., RefusedBecause::HandingOver);
                }
                Err(_) => return self.refuse_forward(&forward, offset.., RefusedBecause::Overloaded),
            }
        }
    }

    /// A forward for a term that this node does not lead. A refusal promises that nothing of it was
    /// or will be appended in that term. If this node may have led the term and appended a first
    /// copy, it keeps silent, and the outcome of the origin's writes is unknown.
    fn refuse_late_forward(&mut self, forward: &Forward) {
        let led_in_an_earlier_life = forward.term <= self.first_term;
        if let Some(from) = self.origins.maybe_proposed(forward)
            && from < forward.commands.len()
            && !led_in_an_earlier_life
        {
            self.refuse_forward(forward, from.., RefusedBecause::NotLeading);
        }
    }

    /// Refuses the commands in `range` of a forward.
    fn refuse_forward(&mut self, forward: &Forward, range: impl RangeBounds<usize>, why: RefusedBecause) {
        let Bound::Included(&from) = range.start_bound() else { return };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => forward.commands.len(),
        };
        let number = |position: usize| forward.first_sequence.saturating_add(position as u64);
        self.refuse_numbers(forward, number(from)..number(end), why);
    }

    fn refuse_numbers(&mut self, forward: &Forward, numbers: Range<u64>, why: RefusedBecause) {
        let refused = ForwardRefused {
            from: self.raft.id(),
            to: forward.from,
            term: forward.term,
            incarnation: forward.incarnation,
            first_sequence: numbers.start,
            count: numbers.end.saturating_sub(numbers.start),
            why,
        };
        self.actions.messages.push(PeerMessage::ForwardRefused(refused));
    }

    pub(super) fn handle_forward_refused(&mut self, refused: &ForwardRefused) {
        if refused.incarnation != self.incarnation || refused.to != self.raft.id() {
            return;
        }
        let writes = self.writes.refused(refused.term, refused.first_sequence, refused.count);
        let error = match refused.why {
            RefusedBecause::NotLeading => {
                // They are certainly not in that term's log, and never will be: they wait for the
                // next term's leader.
                self.leaderless_term = self.leaderless_term.max(refused.term);
                return self.writes.requeue(writes);
            }
            RefusedBecause::HandingOver => {
                // They wait for the next leader. This leader is asked again a little later: its
                // transfer may fail.
                let pause = self.config.raft.heartbeat_interval_micros;
                self.handing_over = Some((refused.term, self.now.plus(pause)));
                return self.writes.requeue(writes);
            }
            // They go to the same leader again, under new numbers.
            RefusedBecause::Overtaken => return self.writes.requeue(writes),
            RefusedBecause::Overloaded => ClientError::Overloaded,
            RefusedBecause::DiskFull => ClientError::DiskFull,
            RefusedBecause::TooLarge { bytes, limit } => ClientError::CommandTooLarge { bytes, limit },
            RefusedBecause::Malformed => {
                ClientError::Refused(String::from("the leader could not read the command; see its log"))
            }
        };
        for write in writes {
            self.fail(write.request, error.clone());
        }
    }

    /// When queued writes may go again to a leader that said that it hands over; `None` if that
    /// time has passed, or the term has ended.
    pub(super) fn forwards_wait_until(&self) -> Option<Time> {
        let (term, until) = self.handing_over?;
        (term == self.raft.term() && self.now < until).then_some(until)
    }

    /// Proposes what is queued, or forwards it to the leader.
    pub(super) fn send_writes(&mut self) {
        if self.writes.queued() == 0 {
            return;
        }
        if self.raft.role() == RoleName::Leader {
            self.propose_writes();
        } else if let Some(leader) = self.takes_forwards()
            && self.forwards_wait_until().is_none()
        {
            self.forward_writes(leader);
            self.note_forwarded();
        }
    }

    fn propose_writes(&mut self) {
        let term = self.raft.term();
        while let Some((write, sequence)) = self.writes.next_queued() {
            let id = ProposalId { origin: self.raft.id(), incarnation: self.incarnation, sequence };
            let command = proposal::encode(id, &write.command);
            match self.raft.propose(self.now, &command) {
                Ok(_) => self.writes.mark_sent(term),
                Err(InputError::Transferring | InputError::NotLeader(_)) => break,
                Err(error) => {
                    if let Some(request) = self.writes.refuse_queued() {
                        self.fail(request, refusal(&error));
                    }
                }
            }
        }
    }

    fn forward_writes(&mut self, leader: NodeId) {
        let (id, term) = (self.raft.id(), self.raft.term());
        while let Some((_, first_sequence)) = self.writes.next_queued() {
            let mut commands = Vec::new();
            let mut bytes = 0;
            while bytes < FORWARD_BYTES_MAX
                && let Some((write, sequence)) = self.writes.next_queued()
            {
                let name = ProposalId { origin: id, incarnation: self.incarnation, sequence };
                let command = proposal::encode(name, &write.command);
                bytes += command.len();
                commands.push(command);
                self.writes.mark_sent(term);
            }
            let incarnation = self.incarnation;
            let forward = Forward { from: id, to: leader, term, incarnation, first_sequence, commands };
            self.actions.messages.push(PeerMessage::Forward(forward));
        }
    }
}

/// What a client is told of an input that the core refused.
pub(super) fn refusal(error: &InputError) -> ClientError {
    match error {
        InputError::NotLeader(hint) => ClientError::NotLeader(hint.leader),
        InputError::Transferring => ClientError::NoLeader,
        InputError::Uncommitted { .. } | InputError::TooManyReads => ClientError::Overloaded,
        InputError::ChangePending => ClientError::ChangePending,
        InputError::BadChange(why) => ClientError::BadChange(why),
        InputError::OtherMembership { index } => ClientError::OtherMembership(*index),
        InputError::QuorumAtRisk { silent } => ClientError::QuorumAtRisk(silent.clone()),
        InputError::BadTransferTarget => ClientError::CannotLead,
        InputError::TooLarge { bytes, limit } => {
            ClientError::CommandTooLarge { bytes: *bytes, limit: *limit }
        }
    }
}
