//! The writes of this node's clients, from their arrival to their answer.
//!
//! A write is *queued* until a leader is known, then *sent* (proposed here, or forwarded) under a
//! sequence number of its own, and answered when an entry with that number is applied here. The
//! newest that was forwarded is sent again after a silence, under the same number: the leader drops
//! a copy. A write of which nothing is heard is *unknown* when its time is up.
//!
//! A write gets another number only by a proof that it is not in the log, and never will be under
//! the old one. Then it goes back to the queued ones.
//!
//! - Terms never fall along the log (Raft §5.3). So once an entry of a higher term has been
//!   applied, a write sent in a lower term that has not been applied yet never will be. So clients
//!   of a follower, or of a deposed leader, live through a failover without an error.
//! - A leader appends the writes of one origin in the order of their numbers, and drops what comes
//!   after a higher one. So once an entry with a number of this node has been applied, no lower
//!   number that has not been applied yet ever will be: it was lost, or overtaken on its way.

use crate::raft::{Term, Time};
use crate::replica::api::RequestId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;

/// A client that waits for its write.
#[derive(Clone, Debug)]
pub(super) struct ClientWrite {
    /// The request to answer.
    pub(super) request: RequestId,
    /// When its client is told that the write failed, or that its outcome is unknown.
    pub(super) deadline: Time,
    /// The encoded command; kept for the case that it is proven lost.
    pub(super) command: Bytes,
}

/// A write on its way through the log.
#[derive(Clone, Debug)]
struct Sent {
    write: ClientWrite,
    /// The only term in which its entry can have been appended.
    term: Term,
}

/// When the newest forward is sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForwardAgain {
    pub(super) at: Time,
    /// The silence before that, microseconds.
    pub(super) pause_micros: u64,
}

/// The writes that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientWrites {
    /// Not sent yet, in order of arrival.
    queued: VecDeque<ClientWrite>,
    /// By sequence number, from `first_sequence`; `None` once answered or back among the queued.
    sent: VecDeque<Option<Sent>>,
    /// The number of `sent`'s front. Never falls.
    first_sequence: u64,
    /// Slots of `sent` that are `Some`. Derived; kept because it bounds the queue on every request.
    sent_count: usize,
    /// Bytes of commands in `queued` and `sent`. Derived; kept because it bounds the queue on
    /// every request.
    bytes: u64,
    /// No write is due before this.
    next_deadline: Option<Time>,
}

impl ClientWrites {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queued.len() + self.sent_count
    }

    /// Places in the table of sent writes.
    pub(super) fn places(&self) -> usize {
        self.sent.len()
    }

    /// Bytes of the commands of the writes that wait.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many wait for a leader.
    pub(super) fn queued(&self) -> usize {
        self.queued.len()
    }

    /// Takes a client's write in.
    pub(super) fn queue(&mut self, write: ClientWrite) {
        self.note_deadline(write.deadline);
        self.bytes += write.command.len() as u64;
        self.queued.push_back(write);
    }

    /// The write to be sent next, with the number it gets if it is.
    pub(super) fn next_queued(&self) -> Option<(&ClientWrite, u64)> {
        let sequence = self.first_sequence + self.sent.len() as u64;
        self.queued.front().map(|write| (write, sequence))
    }

    /// The first queued write has been sent in `term`.
    pub(super) fn mark_sent(&mut self, term: Term) {
        if let Some(write) = self.queued.pop_front() {
            self.sent.push_back(Some(Sent { write, term }));
            self.sent_count += 1;
        }
    }

    /// The newest write that was sent in `term` and is not answered, with its number.
    pub(super) fn newest_sent(&self, term: Term) -> Option<(&ClientWrite, u64)> {
        let is_of_term = |slot: &Option<Sent>| slot.as_ref().is_some_and(|sent| sent.term == term);
        let offset = self.sent.iter().rposition(is_of_term)?;
        let sent = self.sent[offset].as_ref()?;
        Some((&sent.write, self.first_sequence + offset as u64))
    }

    /// The first queued write is refused.
    pub(super) fn refuse_queued(&mut self) -> Option<RequestId> {
        let write = self.queued.pop_front()?;
        self.bytes -= write.command.len() as u64;
        Some(write.request)
    }

    /// The entry with this number was applied. Returns the request that waits for it. Writes that
    /// were sent before it and are still unanswered were lost, and are queued again.
    pub(super) fn applied(&mut self, sequence: u64) -> Option<RequestId> {
        self.lose_below(sequence);
        let sent = self.take(sequence)?;
        self.drop_answered();
        Some(sent.write.request)
    }

    /// `count` sent writes from number `first` on were certainly refused: they are handed back.
    pub(super) fn refused(&mut self, term: Term, first: u64, count: u64) -> Vec<ClientWrite> {
        let end = first.saturating_add(count).min(self.first_sequence + self.sent.len() as u64);
        let mut writes = Vec::new();
        for sequence in first.max(self.first_sequence)..end {
            if self.slot(sequence).is_some_and(|sent| sent.term == term)
                && let Some(sent) = self.take(sequence)
            {
                writes.push(sent.write);
            }
        }
        self.drop_answered();
        writes
    }

    /// An entry of `term` has been applied. Writes that were sent in an earlier term and are still
    /// unanswered were lost, and are queued again.
    pub(super) fn lose_before(&mut self, term: Term) {
        let lost: Vec<ClientWrite> = self.take_sent(|sent| sent.term < term);
        self.requeue(lost);
    }

    /// Writes that were sent under a lower number than this were lost.
    fn lose_below(&mut self, sequence: u64) {
        let mut lost = Vec::new();
        while self.first_sequence < sequence
            && let Some(slot) = self.sent.pop_front()
        {
            self.first_sequence += 1;
            if let Some(sent) = slot {
                self.sent_count -= 1;
                self.bytes -= sent.write.command.len() as u64;
                lost.push(sent.write);
            }
        }
        if !lost.is_empty() {
            self.requeue(lost);
            self.drop_answered();
        }
    }

    /// Puts writes that are certainly not in the log back in front of the queued ones, in their
    /// order.
    pub(super) fn requeue(&mut self, writes: Vec<ClientWrite>) {
        for write in writes.into_iter().rev() {
            self.bytes += write.command.len() as u64;
            self.queued.push_front(write);
        }
    }

    /// The log was replaced by a snapshot: whether it contains a sent write is unknown.
    pub(super) fn forget_sent(&mut self) -> Vec<RequestId> {
        self.take_sent(|_| true).into_iter().map(|write| write.request).collect()
    }

    /// All that wait: the queued (certainly not appended), and the sent (unknown).
    pub(super) fn give_up(&mut self) -> (Vec<RequestId>, Vec<RequestId>) {
        let queued = core::mem::take(&mut self.queued);
        self.bytes -= queued.iter().map(|write| write.command.len() as u64).sum::<u64>();
        (queued.into_iter().map(|write| write.request).collect(), self.forget_sent())
    }

    /// The writes whose time is up: the queued (certainly not appended), and the sent (unknown).
    pub(super) fn expire(&mut self, now: Time) -> (Vec<RequestId>, Vec<RequestId>) {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return (Vec::new(), Vec::new());
        }
        let unknown = self.take_sent(|sent| sent.write.deadline <= now);
        let unknown = unknown.into_iter().map(|write| write.request).collect();
        let mut not_appended = Vec::new();
        self.queued.retain(|write| {
            let keep = write.deadline > now;
            if !keep {
                not_appended.push(write.request);
                self.bytes -= write.command.len() as u64;
            }
            keep
        });
        let sent = self.sent.iter().flatten().map(|sent| sent.write.deadline);
        self.next_deadline = self.queued.iter().map(|write| write.deadline).chain(sent).min();
        (not_appended, unknown)
    }

    /// The earliest time at which [`Self::expire`] has something to do.
    pub(super) const fn next_deadline(&self) -> Option<Time> {
        self.next_deadline
    }

    fn note_deadline(&mut self, deadline: Time) {
        self.next_deadline = Some(self.next_deadline.map_or(deadline, |next| next.min(deadline)));
    }

    fn slot(&self, sequence: u64) -> Option<&Sent> {
        let offset = usize::try_from(sequence.checked_sub(self.first_sequence)?).ok()?;
        self.sent.get(offset)?.as_ref()
    }

    fn take(&mut self, sequence: u64) -> Option<Sent> {
        let offset = usize::try_from(sequence.checked_sub(self.first_sequence)?).ok()?;
        let sent = self.sent.get_mut(offset)?.take()?;
        self.sent_count -= 1;
        self.bytes -= sent.write.command.len() as u64;
        Some(sent)
    }

    fn take_sent(&mut self, mut which: impl FnMut(&Sent) -> bool) -> Vec<ClientWrite> {
        let mut taken = Vec::new();
        for slot in &mut self.sent {
            if slot.as_ref().is_some_and(&mut which)
                && let Some(sent) = slot.take()
            {
                taken.push(sent.write);
            }
        }
        self.sent_count -= taken.len();
        self.bytes -= taken.iter().map(|write| write.command.len() as u64).sum::<u64>();
        self.drop_answered();
        taken
    }

    fn drop_answered(&mut self) {
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first_sequence += 1;
        }
    }
}
