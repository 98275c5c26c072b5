//! Linearizable reads of this node's clients: all that arrive together share one question to the
//! core.

use crate::kv::{LeaseId, Principal, Query};
use crate::raft::{Incarnation, LogIndex, NodeId, ReadId, ReadRefusal, Term, Time};
use crate::replica::api::{ClientError, RequestId};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;

/// Where the answer to a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of this node.
    Client(RequestId),
    /// A client of this node, whose call of a lease has this number.
    Own(u64),
    /// A client of another member, which passed its call of a lease on under this number.
    Member { id: NodeId, incarnation: Incarnation, number: u64 },
}

impl Wanted {
    /// Whether a quorum has to confirm it, and the leader's lease is not enough. A repair drops
    /// what a leader lacks, and a holder of a lock acts on its lease: neither may rest on a clock
    /// that stood still.
    const fn is_by_round(&self) -> bool {
        match self {
            Self::Query(_) | Self::Right(_) => false,
            Self::Barrier | Self::Lease { .. } => true,
        }
    }

    /// Bytes of the write that waits.
    fn bytes(&self) -> u64 {
        if let Self::Right(command) = self { command.len() as u64 } else { 0 }
    }
}

impl Asker {
    /// The request of a client of this node that waits for this read alone.
    pub(super) const fn client(self) -> Option<RequestId> {
        match self {
            Self::Client(request) => Some(request),
            Self::Own(_) | Self::Member { .. } => None,
        }
    }
}

/// What is read.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// What the state machine answers.
    Query(Query),
    /// Nothing: to be up to date is all.
    Barrier,
    /// How much time a lease has, after its renewal if it is to be renewed.
    Lease { lease: LeaseId, renew: bool },
    /// Whether the caller may do this: an encoded command that the state here denies, which may be
    /// old.
    Right(Bytes),
}

/// A read that waits.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// Where its answer goes.
    pub(super) asker: Asker,
    /// Who asks.
    pub(super) by: Option<Principal>,
    /// When its client is told that no quorum answered.
    pub(super) deadline: Time,
    /// What is read.
    pub(super) wanted: Wanted,
    /// When the core was asked last. If it confirms that this node leads, it led then.
    pub(super) asked: Time,
    /// In which term that was.
    pub(super) asked_in: Term,
    /// Whether the node that was asked last had too much to do: this one, or the leader.
    pub(super) is_put_off: bool,
}

impl Read {
    pub(super) const fn new(
        asker: Asker,
        by: Option<Principal>,
        deadline: Time,
        wanted: Wanted,
        now: Time,
    ) -> Self {
        Self { asker, by, deadline, wanted, asked: now, asked_in: Term::ZERO, is_put_off: false }
    }

    /// What its client is told when its time is up.
    const fn lateness(&self) -> ClientError {
        match self.wanted {
            _ if self.is_put_off => ClientError::Overloaded,
            Wanted::Right(_) => ClientError::NoLeader,
            Wanted::Query(_) | Wanted::Barrier | Wanted::Lease { .. } => ClientError::NoQuorum,
        }
    }
}

/// The reads that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientReads {
    /// Not asked yet: they share the next question.
    new: Vec<Read>,
    /// Asked, by question.
    waiting_for_index: BTreeMap<ReadId, Vec<Read>>,
    /// Confirmed, by the index that has to be applied first.
    waiting_to_apply: BTreeMap<LogIndex, Vec<Read>>,
    /// The number of the last question.
    last_question: ReadId,
    /// How many wait. Derived; kept because it bounds the queue on every request.
    count: usize,
    /// Bytes of the writes among them. Derived; kept because it bounds the queue on every write.
    bytes: u64,
    /// No read is due before this.
    next_deadline: Option<Time>,
    /// Refused questions are asked again at this time.
    retry_at: Option<Time>,
}

impl ClientReads {
    /// How many wait.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Bytes of the writes that wait to be judged.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many wait, by the tables.
    pub(super) fn tables(&self) -> usize {
        let in_tables = self
            .waiting_for_index
            .values()
            .chain(self.waiting_to_apply.values())
            .map(|reads| reads.len().max(1));
        self.new.len() + in_tables.sum::<usize>()
    }

    /// The calls of leases of this node's own clients that wait here, by number.
    pub(super) fn own_calls(&self) -> BTreeSet<u64> {
        let waiting = self
            .new
            .iter()
            .chain(self.waiting_for_index.values().flatten())
            .chain(self.waiting_to_apply.values().flatten());
        let own = waiting.filter_map(|read| match read.asker {
            Asker::Own(number) => Some(number),
            Asker::Client(_) | Asker::Member { .. } => None,
        });
        own.collect()
    }

    /// Takes a client's read in.
    pub(super) fn push(&mut self, read: Read) {
        self.next_deadline = Some(self.next_deadline.map_or(read.deadline, |next| next.min(read.deadline)));
        self.count += 1;
        self.bytes += read.wanted.bytes();
        self.new.push(read);
    }

    /// Asks for all that are new, under one number, and whether by a round alone; `None` if there
    /// are none, or if they were refused a moment ago.
    pub(super) fn ask(&mut self, now: Time, term: Term) -> Option<(ReadId, bool)> {
        if self.new.is_empty() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        self.new.iter_mut().for_each(|read| (read.asked, read.asked_in) = (now, term));
        let by_round = self.new.iter().any(|read| read.wanted.is_by_round());
        self.last_question = ReadId::new(self.last_question.get() + 1);
        self.waiting_for_index.insert(self.last_question, core::mem::take(&mut self.new));
        Some((self.last_question, by_round))
    }

    /// The node that the core asked has not answered a question, which the core asks again.
    pub(super) fn put_off(&mut self, question: ReadId, why: ReadRefusal) {
        for read in self.waiting_for_index.get_mut(&question).into_iter().flatten() {
            read.is_put_off = why == ReadRefusal::Overloaded;
        }
    }

    /// The core refused a question: it is asked again at `retry_at`, or when a leader is known.
    pub(super) fn refused(&mut self, question: ReadId, retry_at: Time, why: ReadRefusal) {
        self.put_off(question, why);
        if let Some(mut reads) = self.waiting_for_index.remove(&question) {
            self.new.append(&mut reads);
            self.retry_at = Some(retry_at);
        }
    }

    /// A leader is known: what was refused may be asked at once.
    pub(super) const fn retry_now(&mut self) {
        self.retry_at = None;
    }

    /// The core confirmed a question: its reads see the state at `index` or later.
    pub(super) fn confirmed(&mut self, question: ReadId, index: LogIndex) {
        if let Some(mut reads) = self.waiting_for_index.remove(&question) {
            self.waiting_to_apply.entry(index).or_default().append(&mut reads);
        }
    }

    /// The reads that may be served by a state that has applied up to `applied`.
    pub(super) fn servable(&mut self, applied: LogIndex) -> Vec<Read> {
        match self.waiting_to_apply.first_key_value() {
            Some((&index, _)) if index <= applied => {}
            _ => return Vec::new(),
        }
        let later = self.waiting_to_apply.split_off(&applied.next());
        let now: Vec<Read> =
            core::mem::replace(&mut self.waiting_to_apply, later).into_values().flatten().collect();
        self.count -= now.len();
        self.bytes -= now.iter().map(|read| read.wanted.bytes()).sum::<u64>();
        now
    }

    /// Everything that waits, to be failed.
    pub(super) fn give_up(&mut self) -> Vec<Asker> {
        let reads = core::mem::replace(self, Self { last_question: self.last_question, ..Self::default() });
        let asked = reads.waiting_for_index.into_values().chain(reads.waiting_to_apply.into_values());
        reads.new.into_iter().chain(asked.flatten()).map(|read| read.asker).collect()
    }

    /// The clients whose writes wait to be judged: this node is about to end.
    pub(super) fn take_writers(&mut self) -> Vec<RequestId> {
        let mut writers = Vec::new();
        let mut keep = |read: &Read| {
            let is_write = matches!(read.wanted, Wanted::Right(_));
            writers.extend(read.asker.client().filter(|_| is_write));
            !is_write
        };
        self.new.retain(&mut keep);
        self.waiting_for_index.values_mut().for_each(|reads| reads.retain(&mut keep));
        self.waiting_to_apply.values_mut().for_each(|reads| reads.retain(&mut keep));
        (self.count, self.bytes) = (self.count - writers.len(), 0);
        writers
    }

    /// The reads whose time is up: who waits for them, and what those are told.
    pub(super) fn expire(&mut self, now: Time) -> Vec<(Asker, ClientError)> {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        let (mut expired, mut bytes) = (Vec::new(), 0);
        let mut keep = |read: &Read| {
            let keep = read.deadline > now;
            if !keep {
                expired.push((read.asker, read.lateness()));
                bytes += read.wanted.bytes();
            }
            keep
        };
        self.new.retain(&mut keep);
        self.waiting_for_index.values_mut().for_each(|reads| reads.retain(&mut keep));
        self.waiting_to_apply.values_mut().for_each(|reads| reads.retain(&mut keep));
        self.waiting_for_index.retain(|_, reads| !reads.is_empty());
        self.waiting_to_apply.retain(|_, reads| !reads.is_empty());
        self.count -= expired.len();
        self.bytes -= bytes;
        let waiting = self
            .new
            .iter()
            .chain(self.waiting_for_index.values().flatten())
            .chain(self.waiting_to_apply.values().flatten());
        self.next_deadline = waiting.map(|read| read.deadline).min();
        expired
    }

    /// The earliest time at which something is due here.
    pub(super) fn wake_at(&self) -> Option<Time> {
        let retry = if self.new.is_empty() { None } else { self.retry_at };
        self.next_deadline.into_iter().chain(retry).min()
    }
}
