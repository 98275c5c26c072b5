//! A run of batches that follow each other: what they say of the log, with holes where the records
//! of a batch are lost and its header is not.

use crate::raft::{Entry, HardState, LogId, LogIndex, SnapshotMeta, Term};
use crate::storage::batch::{BatchHeader, BatchMark};
use crate::storage::record::Record;
use crate::storage::segment::SegmentHeader;
use std::collections::BTreeMap;

/// What a run of batches says of the log.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) hard_state: HardState,
    /// The log's last entry. Its term is zero if it is not known.
    pub(super) last: LogId,
    /// The entries that are known.
    pub(super) entries: BTreeMap<LogIndex, Entry>,
    /// The entry before the first of these. Its term is zero if it is not known.
    before: LogId,
    /// Entries up to here were known to be committed.
    pub(super) commit: LogIndex,
}

/// The entries of a run that was cut off which nobody knew to be committed. They were in the log;
/// a later write, which is lost, can have replaced them.
#[derive(Clone, Debug, Default)]
pub(in crate::storage) struct Rest {
    entries: BTreeMap<LogIndex, Entry>,
    /// The entry before the first of these. Its term is zero if it is not known.
    before: LogId,
}

impl Rest {
    /// The log had `entries` behind `before`.
    pub(in crate::storage) const fn new(before: LogId, entries: BTreeMap<LogIndex, Entry>) -> Self {
        Self { entries, before }
    }

    /// A later batch ends the log at `end`, and has the entries from `first` on, if any.
    pub(super) fn cut(&mut self, first: LogIndex, end: LogIndex) {
        let from = if first > LogIndex::ZERO { first.min(end.next()) } else { end.next() };
        self.entries.split_off(&from);
    }

    /// Those that follow `kept` without a hole; none if this was another log there.
    pub(super) fn behind(&self, kept: LogId) -> impl Iterator<Item = &Entry> {
        let is_same = match self.entries.get(&kept.index) {
            Some(entry) => entry.id() == kept,
            None => {
                let is_term = [Term::ZERO, kept.term].contains(&self.before.term);
                self.before.index == kept.index && is_term
            }
        };
        let mut next = kept.index;
        let follow = self.entries.range(kept.index.next()..).filter(move |_| is_same);
        follow.map(|(_, entry)| entry).take_while(move |entry| {
            next = next.next();
            entry.index() == next
        })
    }
}

impl Run {
    /// The state before a segment's first batch.
    pub(super) fn from_header(header: &SegmentHeader) -> Self {
        Self { hard_state: header.hard_state, last: header.last, before: header.last, ..Self::default() }
    }

    /// The log as far as it is known before the first batch behind damage: it reaches as far as the
    /// batch says, and nothing of it is at hand.
    pub(super) fn behind_damage(header: &BatchHeader, records: &[Record]) -> Self {
        let BatchMark { hard_state, end } = header.mark;
        let votes = records.iter().any(|record| matches!(record, Record::Vote(_)));
        let highest = LogIndex::new(header.last_index);
        let last = if highest > end.index { LogId::new(Term::ZERO, highest) } else { end };
        Self {
            hard_state: if votes { HardState::default() } else { hard_state },
            last,
            before: last,
            ..Self::default()
        }
    }

    /// The run ends at damage. Returns the entries that are final, and the rest.
    pub(super) fn end(mut self) -> (BTreeMap<LogIndex, Entry>, Rest) {
        let rest = self.entries.split_off(&self.commit.next());
        let before = self.entries.values().next_back().map_or(self.before, Entry::id);
        (self.entries, Rest::new(before, rest))
    }

    /// Takes in the next record.
    pub(super) fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Vote(hard_state) => {
                if hard_state.term < self.hard_state.term {
                    return Err("a term goes back".into());
                }
                self.hard_state = hard_state;
            }
            Record::Truncate(from) => self.truncate(from),
            Record::Snapshot(meta) => self.mark(&meta),
            Record::Entry(entry) => {
                if entry.index() > self.last.index.next() {
                    return Err(format!("entry {} follows entry {}", entry.id(), self.last));
                }
                self.truncate(entry.index());
                self.last = entry.id();
                self.entries.insert(entry.index(), entry);
            }
            Record::Seal(_) => {}
        }
        Ok(())
    }

    /// What a batch says beside its records.
    pub(super) fn check(&mut self, header: &BatchHeader) -> Result<(), String> {
        let commit = LogIndex::new(header.commit);
        if header.mark != BatchMark::default() {
            let BatchMark { hard_state, end } = header.mark;
            let same_term = [self.last.term, end.term].contains(&Term::ZERO) || self.last.term == end.term;
            if hard_state != self.hard_state || end.index != self.last.index || !same_term {
                return Err(format!("the log adds up to entry {}, but the batch says {end}", self.last));
            }
            self.last = if end.term > Term::ZERO { end } else { self.last };
        }
        if commit > self.last.index {
            return Err(format!("entries up to {commit} were committed, but the log ends at {}", self.last));
        }
        self.commit = self.commit.max(commit);
        Ok(())
    }

    /// Goes on behind a batch whose records are lost. `false` if its header does not tell which
    /// entries it replaced.
    ///
    /// A batch of entries replaces those from its lowest index on, and nothing before. One that has
    /// entries and ends elsewhere truncated in between. One without entries left the log as it was,
    /// or installed a snapshot: that is a batch of its own.
    pub(super) fn pass(&mut self, header: &BatchHeader) -> bool {
        let BatchMark { hard_state, end } = header.mark;
        let (first, highest) = (LogIndex::new(header.first_index), LogIndex::new(header.last_index));
        let replaces = first > LogIndex::ZERO && first <= self.last.index.next() && highest == end.index;
        let keeps = first == LogIndex::ZERO && end == self.last;
        if !(replaces || keeps) || hard_state.term < self.hard_state.term {
            return false;
        }
        if replaces {
            self.truncate(first);
        }
        (self.hard_state, self.last) = (hard_state, end);
        self.commit = self.commit.max(LogIndex::new(header.commit).min(end.index));
        true
    }

    fn truncate(&mut self, from: LogIndex) {
        self.entries.split_off(&from);
        if from <= self.last.index {
            let before = from.previous();
            self.last = self.entries.get(&before).map_or(LogId::new(Term::ZERO, before), Entry::id);
            if before < self.before.index {
                self.before = self.last;
            }
        }
    }

    /// A log that does not reach a snapshot, or contradicts it, is replaced by it.
    fn mark(&mut self, meta: &SnapshotMeta) {
        let contradicts = self.entries.get(&meta.last.index).is_some_and(|entry| entry.id() != meta.last);
        if meta.last.index > self.last.index || contradicts {
            self.entries.clear();
            (self.last, self.before) = (meta.last, meta.last);
        }
    }
}
