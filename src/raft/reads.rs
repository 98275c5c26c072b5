//! Linearizable reads without touching the log: ReadIndex (D §6.4), on any node.
//!
//! A read waits at its own node ([`LocalReads`]) until a leader answers with an index to apply
//! first. The leader takes its own reads and the questions of others into [`LeaderReads`], and
//! confirms with a round of heartbeats that it still leads. A read joins only a round that was not
//! sent yet. Otherwise an answer from before the read could confirm it.
//!
//! With leases ([`Config::lease_drift_ppm`](crate::raft::Config::lease_drift_ppm)) the answers to a
//! round are promises, too: until they end, no other node can be elected. A leader serves reads
//! without a round meanwhile (D §6.4.1). That needs clocks whose rates differ by no more
//! than the bound; a round needs none. A promise is counted from when its round began, by the
//! leader's clock, and from when the message came, by the follower's, which is later. It outlives
//! the term in which it was made, a hint that the leader is gone, and a restart.

use crate::raft::api::{InputError, RaftEvent, ReadReady};
use crate::raft::core::Raft;
use crate::raft::message::{Body, ReadRefusal};
use crate::raft::state::read_queues::{LocalRead, ReadIndexQuestion, Requester, Round};
use crate::raft::state::role::{Leader, Role};
use crate::raft::state::shared::Shared;
use crate::raft::types::{Incarnation, LogIndex, NodeId, ReadId, Time};
use alloc::vec::Vec;

impl Raft {
    /// A client's read.
    pub(super) fn handle_read(&mut self, id: ReadId, by_round: bool) -> Result<(), InputError> {
        if self.reads_waiting() >= self.shared.config.pending_reads_max {
            return Err(InputError::TooManyReads);
        }
        self.shared.reads.waiting.push_back(LocalRead { id, since: self.shared.now, by_round });
        Ok(())
    }

    fn reads_waiting(&self) -> usize {
        let confirming = if let Role::Leader(leader) = &self.role { leader.reads.len() } else { 0 };
        self.shared.reads.len() + confirming
    }

    /// A follower asks for a read index; the question joins the next round.
    pub(super) fn handle_read_index(&mut self, node: NodeId, incarnation: Incarnation, sequence: u64) {
        let has_room = self.reads_waiting() < self.shared.config.pending_reads_max;
        let why = match &mut self.role {
            Role::Leader(leader) if has_room => {
                return leader.reads.next.push(Requester::Remote { node, incarnation, sequence });
            }
            Role::Leader(_) => ReadRefusal::Overloaded,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => ReadRefusal::NotLeading,
        };
        // The node that asks is in the same term, so this says nothing that depends on a write.
        self.shared.send(node, Body::ReadIndexRefused { incarnation, sequence, why });
    }

    /// The answer to a question: it counts only for the question in flight, of this incarnation.
    pub(super) fn handle_read_index_ready(
        &mut self,
        incarnation: Incarnation,
        sequence: u64,
        index: LogIndex,
    ) {
        let shared = &mut self.shared;
        if incarnation != shared.incarnation {
            return;
        }
        if let Some(question) = shared.reads.question.take_if(|question| question.sequence == sequence) {
            let ready = question.reads.into_iter().map(|read| ReadReady { id: read.id, index });
            shared.outbox.reads.extend(ready);
        }
    }

    /// The node asked does not lead, or has too much to do: the reads wait, and ask again a little
    /// later.
    pub(super) fn handle_read_index_refused(
        &mut self,
        incarnation: Incarnation,
        sequence: u64,
        why: ReadRefusal,
    ) {
        let shared = &mut self.shared;
        if incarnation != shared.incarnation {
            return;
        }
        let question = shared.reads.question.take_if(|question| question.sequence == sequence);
        let Some(question) = question else { return };
        let reads = question.reads.iter().map(|read| read.id).collect();
        shared.outbox.events.push(RaftEvent::ReadsPutOff { reads, why });
        shared.reads.wait_again(question.reads);
        shared.reads.not_before = shared.now.plus(shared.config.heartbeat_interval_micros);
    }

    /// Makes confirmed reads ready. Starts a round for waiting reads, or asks the leader.
    pub(super) fn settle_reads(&mut self) {
        match &mut self.role {
            Role::Leader(leader) => {
                leader.reads.next.extend(self.shared.reads.take_all().map(Requester::Local));
                self.shared.finish_rounds(leader);
                self.shared.serve_by_lease(leader);
                self.shared.begin_round(leader);
                // A node that decides alone has confirmed it already.
                self.shared.finish_rounds(leader);
            }
            Role::Follower(follower) => {
                let leader = follower.leader;
                self.shared.ask_leader(leader);
            }
            Role::PreCandidate(_) | Role::Candidate(_) => self.shared.ask_leader(None),
        }
    }
}

impl Shared {
    /// Begins a round for all that wait, unless one is on its way: then they share the next.
    fn begin_round(&mut self, leader: &mut Leader) {
        let knows_commits = self.commit_index >= leader.term_start;
        // Before the first commit of its term a leader does not know what its predecessors
        // committed (Raft §8).
        if !knows_commits || leader.reads.next.is_empty() || !leader.reads.rounds.is_empty() {
            return;
        }
        let requesters = core::mem::take(&mut leader.reads.next);
        self.begin_round_with(leader, requesters);
    }

    fn begin_round_with(&self, leader: &mut Leader, requesters: Vec<Requester>) {
        leader.reads.last_round = leader.reads.last_round.next();
        leader.reads.begun_at = self.now;
        let round = Round { number: leader.reads.last_round, index: self.commit_index, requesters };
        leader.reads.rounds.push_back(round);
    }

    /// Answers the rounds that a quorum has confirmed, in their order.
    fn finish_rounds(&mut self, leader: &mut Leader) {
        while let Some(round) = leader.reads.rounds.front() {
            let confirmed = self.is_quorum(|id| {
                let peer = leader.peers.get(&id);
                id == self.id || peer.is_some_and(|peer| peer.confirmed_round >= round.number)
            });
            if !confirmed {
                break;
            }
            let round = leader.reads.rounds.pop_front().expect("it was there above");
            self.answer_reads(round.requesters, round.index);
        }
    }

    fn answer_reads(&mut self, requesters: Vec<Requester>, index: LogIndex) {
        for requester in requesters {
            match requester {
                Requester::Local(read) => self.outbox.reads.push(ReadReady { id: read.id, index }),
                Requester::Remote { node, incarnation, sequence } => {
                    self.send(node, Body::ReadIndexReady { incarnation, sequence, index });
                }
            }
        }
    }

    /// Until when no other node can be elected, by the promises that this leader has; `None`: that
    /// is not known, or it is over.
    fn lease_until(&self, leader: &Leader) -> Option<Time> {
        if self.config.lease_drift_ppm.is_none() || leader.has_told_successor {
            return None;
        }
        let promised = |id: NodeId| leader.peers.get(&id).map_or(Time::new(0), |peer| peer.promised_until);
        let lasts = |until: Time| self.is_quorum(|id| id == self.id || promised(id) >= until);
        leader.peers.values().map(|peer| peer.promised_until).filter(|until| lasts(*until)).max()
    }

    /// Serves waiting reads under the lease. Reads that ask for a round stay. At half of the lease
    /// it begins an empty round, which renews it.
    fn serve_by_lease(&mut self, leader: &mut Leader) {
        if leader.reads.next.is_empty() || self.commit_index < leader.term_start {
            return;
        }
        let Some(until) = self.lease_until(leader).filter(|until| self.now < *until) else { return };
        let by_round = |it: &Requester| matches!(it, Requester::Local(read) if read.by_round);
        let (waiting, served) = core::mem::take(&mut leader.reads.next).into_iter().partition(by_round);
        leader.reads.next = waiting;
        self.answer_reads(served, self.commit_index);
        let age = self.now.since(leader.reads.begun_at);
        // Those that want a round begin one now: a round without them would keep them waiting, and
        // where rounds take long so would the next one, and so on.
        let none_waits = leader.reads.next.is_empty();
        if none_waits && leader.reads.rounds.is_empty() && age >= until.since(self.now) {
            self.begin_round_with(leader, Vec::new());
        }
    }

    /// Asks the leader on behalf of all reads that wait; one question at a time, given up when the
    /// leader is another. After a silence it is asked again under the same number. The answer to
    /// any copy was made after its reads had come. Under a new number, if answers take longer than
    /// the silence, each would come too late.
    fn ask_leader(&mut self, leader: Option<NodeId>) {
        let silence = self.config.heartbeat_interval_micros;
        self.reads.give_up_question_unless_to(leader);
        let now = self.now;
        if let Some(question) = self.reads.question.as_mut()
            && now.since(question.asked_at) >= silence
        {
            question.asked_at = now;
            let (leader, sequence) = (question.leader, question.sequence);
            self.send(leader, Body::ReadIndex { incarnation: self.incarnation, sequence });
        }
        if leader.is_none() {
            self.refuse_old_reads();
        }
        let Some(leader) = leader else { return };
        let may_ask = self.reads.question.is_none() && self.now >= self.reads.not_before;
        if !may_ask || self.reads.waiting.is_empty() {
            return;
        }
        self.reads.last_sequence += 1;
        let sequence = self.reads.last_sequence;
        let reads = self.reads.waiting.drain(..).collect();
        self.reads.question = Some(ReadIndexQuestion { sequence, leader, asked_at: self.now, reads });
        self.send(leader, Body::ReadIndex { incarnation: self.incarnation, sequence });
    }

    /// Refuses reads that have waited for a leader too long, so that their clients are told.
    fn refuse_old_reads(&mut self) {
        let patience = self.reads_patience_micros();
        let now = self.now;
        let is_old = |read: &LocalRead| now.since(read.since) >= patience;
        if self.reads.waiting.front().is_none_or(|read| !is_old(read)) {
            return;
        }
        let mut refused = Vec::new();
        self.reads.waiting.retain(|read| {
            let old = is_old(read);
            if old {
                refused.push(read.id);
            }
            !old
        });
        self.outbox.events.push(RaftEvent::ReadsRefused(refused));
    }

    const fn reads_patience_micros(&self) -> u64 {
        2 * self.config.election_timeout_micros
    }

    /// When reads that wait here need the clock.
    pub(super) fn reads_wake_at(&self, has_leader: bool) -> Option<Time> {
        if let Some(question) = &self.reads.question {
            return Some(question.asked_at.plus(self.config.heartbeat_interval_micros));
        }
        let oldest = self.reads.waiting.front()?;
        let patience = oldest.since.plus(self.reads_patience_micros());
        Some(if has_leader { self.reads.not_before } else { patience })
    }
}
