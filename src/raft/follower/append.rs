//! AppendEntries on the side that receives it (Raft §5.3).

use crate::raft::core::Raft;
use crate::raft::log::entry::{Entry, EntryKind};
use crate::raft::membership::members::Membership;
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{AnswerClock, Append, AppendClock, Body, ClockReading};
use crate::raft::state::role::Role;
use crate::raft::state::shared::Shared;
use crate::raft::types::{LogId, LogIndex, NodeId, ReadRound, Term, Time};
use alloc::vec::Vec;

impl Raft {
    /// AppendEntries from the leader of this term.
    pub(in crate::raft) fn handle_append(&mut self, from: NodeId, append: Append) {
        if !self.follow(from) {
            return;
        }
        let Append { session, prev, acknowledged, entries, commit, round, clock } = append;
        let shared = &mut self.shared;
        if let Err(reason) = check_entries(prev, &entries, shared.term()) {
            return shared.bad_message(from, reason);
        }
        if shared.lacks(acknowledged) {
            let last = shared.log.last();
            return self.withdraw(Withdrawal::LostEntries { acknowledged, last });
        }
        shared.learn_age(clock, commit);
        let clock = shared.answer_clock(clock.sent_at);
        if shared.is_install_pending() {
            // The log is about to be replaced; what is appended now would be lost with it. The
            // leader is told only that this node follows it.
            return self.answer_heard(from, round, clock, false);
        }
        let tail = prev.index.plus(entries.len() as u64);
        let is_heartbeat = entries.is_empty();
        let known = shared.commit_index;
        if prev.index >= known && !shared.log.contains(prev) {
            let term = prev.term;
            let hint = shared.log.last_match_candidate(prev.index.previous(), term);
            let leaves_at_once = shared.writes.is_term_durable();
            self.answer_heard(from, round, clock, leaves_at_once);
            let rejected = Body::AppendRejected { session, rejected: prev, hint, round, clock };
            return self.shared.hold_for_term(from, rejected);
        }
        if shared.contradicts(prev) || !shared.merge(entries) {
            let committed = LogId::new(shared.log.term_at(known).unwrap_or_default(), known);
            return self.withdraw(Withdrawal::Contradicted { committed });
        }
        // Beyond its tail the message says nothing about our log.
        shared.commit_to(commit.min(tail));
        let is_news_of_commit = is_heartbeat && round == ReadRound::ZERO && shared.commit_index > known;
        if is_news_of_commit && self.has_just_answered() {
            return;
        }
        let accepted = Body::AppendAccepted { session, match_index: tail, round, clock };
        self.answer_append(from, accepted, round, clock);
    }

    /// Acknowledges an append up to its tail, once that is durable.
    fn answer_append(&mut self, from: NodeId, accepted: Body, round: ReadRound, clock: AnswerClock) {
        let leaves_at_once = self.shared.writes.all_durable();
        self.answer_heard(from, round, clock, leaves_at_once);
        self.shared.hold(from, accepted);
    }

    /// Tells the leader at once that this node heard it, while the acknowledgement waits for the
    /// disk. So a leader that a quorum hears stays leader however long a write takes
    /// (check-quorum), and its rounds of reads are confirmed. Sent at most twice in a heartbeat
    /// interval, unless a round waits for it.
    pub(super) fn answer_heard(
        &mut self,
        from: NodeId,
        round: ReadRound,
        clock: AnswerClock,
        leaves_at_once: bool,
    ) {
        let is_due = round > ReadRound::ZERO || !self.has_just_answered();
        let shared = &mut self.shared;
        let Role::Follower(follower) = &mut self.role else { return };
        // Only this answer tells of a promise. One that nobody was told of would only delay an
        // election.
        let promised_micros = if round > ReadRound::ZERO { shared.config.promise_micros() } else { 0 };
        if leaves_at_once || is_due {
            follower.last_answer_at = Some(shared.now);
        }
        if promised_micros > 0 {
            let until = shared.now.plus(promised_micros);
            shared.promised_until = shared.promised_until.max(until);
        }
        if promised_micros > 0 || (is_due && !leaves_at_once) {
            shared.send(from, Body::Heard { round, promised_micros, clock });
        }
    }

    fn has_just_answered(&self) -> bool {
        let soon = self.shared.config.heartbeat_interval_micros / 2;
        let Role::Follower(follower) = &self.role else { return false };
        follower.last_answer_at.is_some_and(|answered| self.shared.now.since(answered) < soon)
    }
}

impl Shared {
    /// Takes in how old a leader's commit index is at most. What an earlier start of this node said
    /// is measured by another clock.
    fn learn_age(&mut self, clock: AppendClock, commit: LogIndex) {
        let is_ours =
            |reading: ClockReading| reading.incarnation == self.incarnation && reading.at <= self.now;
        let Some(age) = clock.age.filter(|age| is_ours(age.reading)) else { return };
        if let Some(at) = age.reading.at.get().checked_sub(age.micros) {
            self.freshness.learn(Time::new(at), commit, self.last_applied);
        }
    }

    /// What an answer made now says of time.
    pub(in crate::raft) const fn answer_clock(&self, sent_at: Time) -> AnswerClock {
        AnswerClock { sent_at, reading: ClockReading { incarnation: self.incarnation, at: self.now } }
    }

    /// Whether an entry that this node acknowledged to the leader of this term is not in its log.
    /// An acknowledged entry is durable, and until the term ends only that leader truncates, and
    /// never an entry that it has itself. A message that comes late names an earlier entry, so the
    /// order of messages does not matter.
    fn lacks(&self, acknowledged: LogId) -> bool {
        // What is compacted is committed.
        acknowledged.index > self.log.base().index && !self.log.contains(acknowledged)
    }

    /// Whether the leader has another entry where this node has a committed one (Leader
    /// Completeness, Raft §5.4).
    pub(super) fn contradicts(&self, theirs: LogId) -> bool {
        let ours = self.log.term_at(theirs.index);
        theirs.index <= self.commit_index && ours.is_some_and(|term| term != theirs.term)
    }

    /// Takes entries into the log: those that are there already are skipped, and only a conflict
    /// truncates. `false` if one contradicts a committed entry, which no entry of a correct leader
    /// does (Leader Completeness).
    fn merge(&mut self, entries: Vec<Entry>) -> bool {
        let Some(first) = entries.first() else { return true };
        if first.index() == self.log.last().index.next() {
            entries.into_iter().for_each(|entry| self.append(entry));
            return true;
        }
        let mut rest = entries.into_iter().peekable();
        while let Some(entry) = rest.peek() {
            let (id, committed) = (entry.id(), entry.index() <= self.commit_index);
            match self.log.term_at(id.index) {
                Some(term) if term == id.term => {}
                // Compacted, so committed, so the same.
                None if committed => {}
                Some(_) if committed => return false,
                Some(_) => {
                    self.truncate_from(id.index);
                    break;
                }
                None => break,
            }
            rest.next();
        }
        rest.for_each(|entry| self.append(entry));
        true
    }
}

/// Checks that the entries are those of a correct leader: contiguous, of terms that never decrease,
/// up to the leader's own.
fn check_entries(prev: LogId, entries: &[Entry], leader_term: Term) -> Result<(), &'static str> {
    let mut before = prev;
    for entry in entries {
        if entry.index() != before.index.next() || entry.term() < before.term {
            return Err("entries that do not follow each other");
        }
        if entry.kind() == EntryKind::Membership && Membership::decode(&entry.data()).is_err() {
            return Err("a membership that makes no sense");
        }
        if entry.kind() == EntryKind::Level && entry.level().is_none() {
            return Err("a level that makes no sense");
        }
        before = entry.id();
    }
    if before.term > leader_term {
        return Err("an entry of a term after the leader's");
    }
    Ok(())
}
