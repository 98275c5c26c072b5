//! What a node knows of its damaged log, and what it lacks. Pure: no disk, no peer.
//!
//! Two logs that have an entry of the same index and term are the same up to that entry (Raft §5.3,
//! the Log Matching Property). So a range that was lost may be taken from any log that has the
//! *anchor*: the first entry behind the range that this node still has, or the last entry of its
//! log if it has none.

use crate::raft::{Entry, EntryKind, HardState, LogId, LogIndex, Membership, SnapshotMeta};
use crate::storage::repair::run::Rest;
use std::collections::BTreeMap;

/// The sound part of a damaged log.
#[derive(Clone, Debug)]
pub struct Sound {
    /// Term and vote.
    hard_state: HardState,
    /// The last entry of the log.
    end: LogId,
    /// Entries up to here are known to be committed. At most the last one.
    commit: LogIndex,
    /// A snapshot that is whole.
    base: Option<SnapshotMeta>,
    /// Entries that are certainly part of the log, none at or below the base.
    certain: BTreeMap<LogIndex, Entry>,
}

/// Entries that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The entry before the first one.
    pub after: LogIndex,
    /// The last one.
    pub through: LogIndex,
    /// A log that has this entry has the missing ones, too.
    pub anchor: LogId,
}

/// Why entries or a snapshot of a peer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SupplyError {
    /// They do not follow what this node has.
    #[error("entry {found} does not follow entry {before}")]
    Gap {
        /// What this node has.
        before: LogId,
        /// What came.
        found: LogId,
    },
    /// They contradict the anchor.
    #[error("entry {found} cannot stand before entry {anchor}")]
    Anchor {
        /// What came.
        found: LogId,
        /// What this node has.
        anchor: LogId,
    },
    /// A membership that does not decode.
    #[error("the membership in entry {0} cannot be read")]
    Membership(LogId),
    /// A level that does not decode.
    #[error("the level in entry {0} cannot be read")]
    Level(LogId),
    /// A snapshot that is of no use.
    #[error("the snapshot {found} does not reach entry {needed}")]
    Short {
        /// The snapshot.
        found: LogId,
        /// What it has to reach.
        needed: LogIndex,
    },
    /// No cluster comes there by elections and entries: a node does not start on it.
    #[error("no snapshot can end at {0}")]
    OutOfReach(LogId),
    /// It contradicts what is known to be committed, or is out of reach.
    #[error("no leader's log can end at {0}")]
    Leader(LogId),
}

impl Sound {
    /// What was found: `certain` entries of a log that ends with `end`, and the newest snapshot
    /// that is whole.
    #[must_use]
    pub(in crate::storage) fn new(
        hard_state: HardState,
        end: LogId,
        commit: LogIndex,
        base: Option<SnapshotMeta>,
        certain: BTreeMap<LogIndex, Entry>,
    ) -> Self {
        let mut sound = Self { hard_state, end, commit: commit.min(end.index), base: None, certain };
        if let Some(base) = base {
            sound.rest_on(base);
        }
        sound
    }

    /// Term and vote.
    pub(super) const fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The last entry of the log.
    #[must_use]
    pub const fn end(&self) -> LogId {
        self.end
    }

    /// Entries up to here are known to be committed.
    pub(in crate::storage) const fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The snapshot that the log rests on.
    #[must_use]
    pub const fn base(&self) -> Option<&SnapshotMeta> {
        self.base.as_ref()
    }

    fn base_id(&self) -> LogId {
        self.base.as_ref().map_or(LogId::ZERO, |base| base.last)
    }

    /// The entries after the snapshot, as far as they follow each other.
    pub(in crate::storage) fn entries(&self) -> Vec<Entry> {
        self.certain.values().cloned().collect()
    }

    /// The first entries that are missing; `None` if none is.
    #[must_use]
    pub fn missing(&self) -> Option<Missing> {
        let mut before = self.base_id().index;
        for (index, entry) in &self.certain {
            if *index != before.next() {
                return Some(Missing { after: before, through: index.previous(), anchor: entry.id() });
            }
            before = *index;
        }
        (before < self.end.index).then_some(Missing {
            after: before,
            through: self.end.index,
            anchor: self.end,
        })
    }

    /// How many entries are missing.
    #[must_use]
    pub fn missing_count(&self) -> u64 {
        self.end.index.since(self.base_id().index) - self.certain.len() as u64
    }

    /// An entry of this log that is certain, if it is at hand.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.certain.get(&index)
    }

    /// Whether this very entry is part of the log.
    #[must_use]
    pub fn has(&self, id: LogId) -> bool {
        id == self.end || id == self.base_id() || self.entry(id.index).is_some_and(|entry| entry.id() == id)
    }

    /// Entries of a peer's log that has the anchor of [`Self::missing`]: the first of those that
    /// are missing.
    ///
    /// # Errors
    /// [`SupplyError`]; then nothing was taken.
    pub fn supply(&mut self, missing: &Missing, entries: Vec<Entry>) -> Result<(), SupplyError> {
        let held = self.entry(missing.after).map(Entry::id);
        let mut before = held.unwrap_or_else(|| self.base_id());
        for entry in &entries {
            let found = entry.id();
            if found.index != before.index.next() || found.term < before.term {
                return Err(SupplyError::Gap { before, found });
            }
            let anchor = missing.anchor;
            let is_anchor = found.index == anchor.index;
            if found.index > missing.through || found.term > anchor.term || (is_anchor && found != anchor) {
                return Err(SupplyError::Anchor { found, anchor });
            }
            let is_membership = entry.kind() == EntryKind::Membership;
            if is_membership && Membership::decode(&entry.data()).is_err() {
                return Err(SupplyError::Membership(found));
            }
            if entry.kind() == EntryKind::Level && entry.level().is_none() {
                return Err(SupplyError::Level(found));
            }
            before = found;
        }
        self.certain.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
        Ok(())
    }

    /// An entry of this log at or behind `index`: a log that has it is the same as this one up to
    /// there.
    #[must_use]
    pub fn anchor_behind(&self, index: LogIndex) -> LogId {
        self.certain.range(index..).next().map_or(self.end, |(_, entry)| entry.id())
    }

    /// Whether a snapshot that ends with `last` can take the place of what is missing. `verified`
    /// is an entry that the log has from which the snapshot was made.
    ///
    /// # Errors
    /// [`SupplyError::Short`] if nothing shows that the rest of this log continues the snapshot,
    /// [`SupplyError::OutOfReach`].
    pub fn check_base(&self, last: LogId, verified: Option<LogId>) -> Result<(), SupplyError> {
        if !last.is_in_reach_of(self.hard_state.term) {
            return Err(SupplyError::OutOfReach(last));
        }
        let verifies = |id: LogId| id.index >= last.index && self.has(id);
        let needed = self.anchor_behind(last.index).index;
        let is_of_use = last.index > self.base_id().index;
        let is_known = last.index >= self.end.index || self.entry(last.index).is_some();
        if is_of_use && (is_known || verified.is_some_and(verifies)) {
            return Ok(());
        }
        Err(SupplyError::Short { found: last, needed })
    }

    /// A peer's snapshot, which is whole and at hand. Snapshots are committed state: what this log
    /// has in conflict with it was never committed.
    ///
    /// # Errors
    /// As [`Self::check_base`].
    pub fn supply_base(&mut self, meta: SnapshotMeta, verified: Option<LogId>) -> Result<(), SupplyError> {
        self.check_base(meta.last, verified)?;
        self.rest_on(meta);
        Ok(())
    }

    fn rest_on(&mut self, meta: SnapshotMeta) {
        let last = meta.last;
        let in_conflict = self.entry(last.index).is_some_and(|entry| entry.id() != last);
        if last.index >= self.end.index || in_conflict {
            self.end = last;
            self.certain.clear();
        } else {
            self.certain = self.certain.split_off(&last.index.next());
        }
        if self.hard_state.term < last.term {
            // It has voted in no such term.
            self.hard_state = HardState { term: last.term, voted_for: None };
        }
        self.commit = self.commit.max(last.index).min(self.end.index);
        self.base = Some(meta);
    }

    /// A leader's log ends with `end`. A quorum confirmed its leadership after this node had asked,
    /// and this node had no part in that. So whatever this node may have acknowledged and that
    /// counts is in the leader's log. What this log has beyond what is known to be committed goes.
    ///
    /// # Errors
    /// [`SupplyError::Leader`] if a leader's log cannot end there: it has all that is committed.
    /// Then nothing has changed.
    pub fn follow(&mut self, end: LogId) -> Result<(), SupplyError> {
        let known = self.certain.range(..=self.commit).next_back();
        let known = known.map_or(self.base_id(), |(_, entry)| entry.id());
        let continues = end.index > known.index && end.index >= self.commit && end.term >= known.term;
        let is_known = end == known && end.index == self.commit;
        if !(continues || is_known) || !end.is_in_reach_of(self.hard_state.term) {
            return Err(SupplyError::Leader(end));
        }
        let uncommitted = self.certain.split_off(&self.commit.next());
        drop(uncommitted);
        self.end = end;
        if self.hard_state.term < end.term {
            self.hard_state = HardState { term: end.term, voted_for: None };
        }
        Ok(())
    }

    /// Keeps what is whole from the beginning on, and gives up the rest. Of what is `uncertain` it
    /// keeps what stood right behind that: nobody is left to say what took its place, if anything
    /// did. Returns how much: the last entry that is kept and the last one that the log had.
    pub(in crate::storage) fn accept_loss(&mut self, uncertain: &[Rest]) -> (LogId, LogId) {
        let lost = self.end;
        while let Some(Missing { after, through, anchor }) = self.missing() {
            let kept = self.entry(after).map_or(self.base_id(), Entry::id);
            let can_be = |entry: &&Entry| {
                let id = entry.id();
                id.index <= through && id.term <= anchor.term && (id.index < anchor.index || id == anchor)
            };
            let more = uncertain.iter().map(|rest| rest.behind(kept).take_while(can_be).cloned());
            let more: Vec<Entry> = more.map(Iterator::collect).max_by_key(Vec::len).unwrap_or_default();
            let end = more.last().map_or(kept, Entry::id);
            // One leader made both entries, one right behind the other: nothing is missing between
            // them but batches without entries.
            let joins = end == anchor || (end.index == through && end.term == anchor.term);
            if !joins {
                let beyond = self.certain.split_off(&after.next());
                drop(beyond);
                self.end = end;
                self.commit = self.commit.min(kept.index);
            }
            self.certain.extend(more.into_iter().map(|entry| (entry.index(), entry)));
        }
        (self.end, lost)
    }
}
