//! The one ordered stream of writes, and the messages that wait for it.
//!
//! Persist before send is structural here: code that sends a message about durable state calls
//! [`Writes::hold`]. That stamps the message with the newest write there is (issued, or about to
//! be), whether or not the message caused it. Messages leave when receipts reach their stamp, never
//! before.

use crate::raft::log::entry::Entry;
use crate::raft::log::log::Log;
use crate::raft::log::records::{Durable, LogRecords, LogWrite};
use crate::raft::message::{AnswerClock, Body, Message};
use crate::raft::types::{HardState, Incarnation, LogIndex, Term, Time, WriteSequence};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What is to be written, what is being written, and the messages that wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Writes {
    incarnation: Incarnation,
    /// Becomes the next [`LogWrite`]; emptied by [`Self::issue`].
    pub(super) pending: LogRecords,
    /// The newest write handed out. Only grows.
    last_issued: WriteSequence,
    /// The newest write known to be durable. Only grows; at most `last_issued`.
    durable: WriteSequence,
    /// Handed out and not durable, oldest first. Bounded by the bytes that a leader or its peers
    /// have in flight.
    outstanding: VecDeque<Outstanding>,
    /// Messages that wait, at most `held_max`; all of the current term.
    held: Vec<Held>,
    held_max: usize,
    /// The write that carries the newest term and vote.
    hard_state_at: WriteSequence,
    /// Bytes of entries pending or outstanding.
    unsynced_bytes: u64,
    /// Bytes of entries in `pending`.
    pending_bytes: u64,
}

/// A write that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Outstanding {
    sequence: WriteSequence,
    /// When it is durable, the log is durable up to here. Lowered when the log is truncated below,
    /// so that a late receipt cannot acknowledge entries that have been overwritten since.
    through: LogIndex,
    issued_at: Time,
    bytes: u64,
}

/// A message that waits for a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    after: WriteSequence,
    message: Message,
}

impl Writes {
    /// An idle stream. At most `held_max` messages wait in it; more are dropped, which is harmless.
    pub(super) fn new(incarnation: Incarnation, held_max: usize) -> Self {
        Self {
            incarnation,
            pending: LogRecords::default(),
            last_issued: WriteSequence::ZERO,
            durable: WriteSequence::ZERO,
            outstanding: VecDeque::new(),
            held: Vec::new(),
            held_max,
            hard_state_at: WriteSequence::ZERO,
            unsynced_bytes: 0,
            pending_bytes: 0,
        }
    }

    /// Makes states that must not be, for tests: `issued` writes handed out, `pending_bytes`
    /// pending.
    #[cfg(test)]
    pub(super) const fn plant(&mut self, last_issued: WriteSequence, pending_bytes: u64) {
        (self.last_issued, self.pending_bytes) = (last_issued, pending_bytes);
    }

    /// # Panics
    /// If the fields contradict each other, or the log's `last` index, as far as that is seen in
    /// O(1).
    pub(super) fn assert_invariants(&self, term: Term, last: LogIndex) {
        let under_way = self.outstanding.len() as u64;
        let expected = self.last_issued.get().checked_sub(self.durable.get());
        assert!(expected == Some(under_way), "{under_way} writes are under way, not {expected:?}");
        assert!(self.hard_state_at <= self.stamp(), "the term is in a write");
        // Terms only grow, and messages of an earlier one are dropped: the oldest speaks for all.
        let held = self.held.first().map(|held| held.message.term);
        assert!(held.is_none_or(|held| held == term), "a message of term {held:?} waits in term {term}");
        assert!(self.pending_bytes <= self.unsynced_bytes, "what is pending is not synced");
        let pending = self.pending.entries.last().map(Entry::index);
        assert!(pending.is_none_or(|it| it == last), "entry {pending:?} is written last, of {last}");
    }

    /// Term or vote changed. Messages of an earlier term have lost their meaning: the caller drops
    /// them.
    pub(super) fn hard_state(&mut self, hard_state: HardState) {
        self.pending.hard_state = Some(hard_state);
        self.hard_state_at = self.last_issued.next();
    }

    /// Drops the messages that wait: their term is over.
    pub(super) fn forget_held(&mut self) {
        self.held.clear();
    }

    /// An entry was appended to the log.
    pub(super) fn append(&mut self, entry: Entry) {
        let bytes = entry.encoded_bytes() as u64;
        self.unsynced_bytes += bytes;
        self.pending_bytes += bytes;
        self.pending.entries.push(entry);
    }

    /// The log was truncated from `index` on.
    pub(super) fn truncate_from(&mut self, index: LogIndex) {
        while self.pending.entries.last().is_some_and(|entry| entry.index() >= index) {
            let bytes = self.pending.entries.pop().map_or(0, |entry| entry.encoded_bytes() as u64);
            self.unsynced_bytes -= bytes;
            self.pending_bytes -= bytes;
        }
        for write in &mut self.outstanding {
            write.through = write.through.min(index.previous());
        }
        let from = self.pending.truncate_from.map_or(index, |earlier| earlier.min(index));
        self.pending.truncate_from = Some(from);
    }

    /// The log was replaced by a snapshot that ends at `last`: no write under way says anything
    /// about what follows.
    pub(super) fn log_replaced(&mut self, last: LogIndex) {
        for write in &mut self.outstanding {
            write.through = write.through.min(last);
        }
    }

    /// How many writes are pending, or under way.
    pub(super) fn under_way(&self) -> usize {
        self.outstanding.len() + usize::from(self.has_pending())
    }

    /// How many messages wait.
    pub(super) const fn held_len(&self) -> usize {
        self.held.len()
    }

    /// Whether something waits to be issued.
    pub(super) fn has_pending(&self) -> bool {
        let LogRecords { hard_state, truncate_from, snapshot_chunks, snapshot, entries } = &self.pending;
        hard_state.is_some()
            || truncate_from.is_some()
            || !snapshot_chunks.is_empty()
            || snapshot.is_some()
            || !entries.is_empty()
    }

    /// The newest write there is, counting the one that [`Self::issue`] will make of what is
    /// pending.
    pub(super) fn stamp(&self) -> WriteSequence {
        if self.has_pending() { self.last_issued.next() } else { self.last_issued }
    }

    /// Whether the write with this stamp is durable.
    pub(super) fn is_durable(&self, stamp: WriteSequence) -> bool {
        stamp <= self.durable
    }

    /// Whether the current term (and the vote in it) is durable.
    pub(super) fn is_term_durable(&self) -> bool {
        self.is_durable(self.hard_state_at)
    }

    /// Whether everything that was ever to be written is durable: what is said now need not wait.
    pub(super) fn all_durable(&self) -> bool {
        self.is_durable(self.stamp())
    }

    /// Holds a message that speaks of durable state until everything written so far is durable.
    pub(super) fn hold(&mut self, message: Message) {
        self.hold_after(self.stamp(), message);
    }

    /// Holds a message that speaks of nothing durable but its term until that is.
    pub(super) fn hold_for_term(&mut self, message: Message) {
        self.hold_after(self.hard_state_at, message);
    }

    fn hold_after(&mut self, after: WriteSequence, message: Message) {
        if let Some(last) = self.held.last_mut()
            && last.after == after
            && merge(&mut last.message, &message)
        {
            return;
        }
        if self.held.len() < self.held_max {
            self.held.push(Held { after, message });
        }
    }

    /// Drops the held acknowledgements of a snapshot that turned out not to be stored.
    pub(super) fn forget_snapshot_answers(&mut self) {
        let is_answer =
            |body: &Body| matches!(body, Body::SnapshotInstalled { .. } | Body::SnapshotProgress { .. });
        self.held.retain(|held| !is_answer(&held.message.body));
    }

    /// Makes one write of everything that is pending.
    pub(super) fn issue(&mut self, now: Time, through: LogIndex) -> Option<LogWrite> {
        if !self.has_pending() {
            return None;
        }
        self.last_issued = self.last_issued.next();
        let entries = &self.pending.entries;
        let covered = entries.first().map_or(0, |first| through.next().since(first.index()));
        assert!(covered == entries.len() as u64, "the entries of a write are contiguous, up to {through}");
        let bytes = core::mem::take(&mut self.pending_bytes);
        self.outstanding.push_back(Outstanding {
            sequence: self.last_issued,
            through,
            issued_at: now,
            bytes,
        });
        let receipt = Durable { incarnation: self.incarnation, sequence: self.last_issued };
        Some(LogWrite { records: core::mem::take(&mut self.pending), receipt })
    }

    /// Takes a receipt in. `false` if it is not one of this incarnation's outstanding writes.
    pub(super) fn complete(&mut self, receipt: &Durable, log: &mut Log) -> bool {
        let Durable { incarnation, sequence } = *receipt;
        if incarnation != self.incarnation || sequence <= self.durable {
            return false;
        }
        assert!(
            sequence <= self.last_issued,
            "a receipt for write {sequence}, of {} handed out",
            self.last_issued
        );
        self.durable = sequence;
        while let Some(write) = self.outstanding.front()
            && write.sequence <= sequence
        {
            self.unsynced_bytes -= write.bytes;
            log.set_durable(write.through.max(log.base().index));
            self.outstanding.pop_front();
        }
        true
    }

    /// Moves the messages whose writes are durable to `messages`, in the order in which they were
    /// made.
    pub(super) fn release(&mut self, messages: &mut Vec<Message>) {
        let durable = self.durable;
        messages.extend(self.held.extract_if(.., |held| held.after <= durable).map(|held| held.message));
    }

    /// Bytes of entries that are not durable here.
    pub(super) const fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// When the oldest write that is not durable was handed out.
    pub(super) fn oldest_issued_at(&self) -> Option<Time> {
        self.outstanding.front().map(|write| write.issued_at)
    }
}

#[cfg(feature = "model")]
impl Writes {
    /// Numbers the writes from the oldest that is not durable, as if they had been handed out at
    /// `now`. Forgets how often and in what order the messages that wait were made: each stays
    /// once, at the place where it leaves first. What was the newest durable write is
    /// [`WriteSequence::ZERO`] now.
    pub(super) fn recount(&mut self, now: Time) -> WriteSequence {
        let durable = core::mem::replace(&mut self.durable, WriteSequence::ZERO);
        self.last_issued = self.last_issued.after(durable);
        self.hard_state_at = self.hard_state_at.after(durable);
        for write in &mut self.outstanding {
            (write.sequence, write.issued_at) = (write.sequence.after(durable), now);
        }
        for held in &mut self.held {
            held.after = held.after.after(durable);
        }
        for held in &mut self.held {
            held.message.forget_time();
        }
        let text = |held: &Held| alloc::format!("{:?}", held.message);
        self.held.sort_by_cached_key(|held| (text(held), held.after));
        self.held.dedup_by(|later, first| later.message == first.message);
        // Acknowledgements come first. Behind another message, the next acknowledgement is not
        // merged with the newest of them. So in any order in which they were made, all that would
        // leave does leave, and perhaps one more.
        let is_accepted = |held: &Held| matches!(held.message.body, Body::AppendAccepted { .. });
        self.held.sort_by_key(|held| (!is_accepted(held), held.after));
        durable
    }
}

/// Whether `later` says all that `earlier` says, and more: acknowledgements of the same writes
/// become one.
fn merge(earlier: &mut Message, later: &Message) -> bool {
    if earlier == later {
        return true;
    }
    if (earlier.to, earlier.term) != (later.to, later.term) {
        return false;
    }
    match (&mut earlier.body, &later.body) {
        (
            Body::AppendAccepted { session, match_index, round, clock },
            Body::AppendAccepted {
                session: later_session,
                match_index: later_match,
                round: later_round,
                clock: later_clock,
            },
        ) if session == later_session => {
            *match_index = (*match_index).max(*later_match);
            *round = (*round).max(*later_round);
            // Of the same start, and made later. Messages may have come in another order.
            let sent_at = clock.sent_at.max(later_clock.sent_at);
            *clock = AnswerClock { sent_at, ..*later_clock };
            true
        }
        (
            Body::SnapshotProgress { session, snapshot, next_offset, is_lacking },
            Body::SnapshotProgress {
                session: later_session,
                snapshot: later_snapshot,
                next_offset: later_next,
                is_lacking: later_lacking,
            },
        ) if (*session, *snapshot) == (*later_session, *later_snapshot) => {
            *next_offset = *later_next;
            *is_lacking |= *later_lacking;
            true
        }
        _ => false,
    }
}
