//! What a machine's disk has to remember: an independent model of the log, fed with the writes that
//! were acknowledged.
//!
//! It answers two questions. When a message leaves: is what it says durable? And after a restart:
//! is what was recovered exactly what was acknowledged, plus perhaps some writes that were under
//! way, in order and none in part?

#[cfg(test)]
mod tests;

use crate::hardware::disk::SimDisk;
use infinitystore::raft::{HardState, LogId, LogIndex, LogRecords, Restored, Term};
use infinitystore::storage::SnapshotFiles;
use std::ffi::OsStr;
use std::path::Path;

/// The durable state of one member, as its acknowledged writes made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurableModel {
    /// Term and vote.
    pub hard_state: HardState,
    /// The newest snapshot.
    pub snapshot: LogId,
    /// The one before it, if it is sound and the log reaches back to it; `ZERO`: none.
    older: LogId,
    /// The highest commit index that the replica told its storage, durable or not.
    commit: LogIndex,
    /// Whether a snapshot was damaged since the newest.
    is_snapshot_damaged: bool,
    /// The process was told to stop, and has written down what is committed.
    is_closed: bool,
    /// What its present process, or its last one, knew to be committed.
    known_commit: LogIndex,
    /// Above the snapshot, and some below.
    log: Terms,
}

/// Terms of contiguous entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Terms {
    /// The index before the first.
    before: LogIndex,
    terms: Vec<Term>,
}

impl Terms {
    fn last(&self) -> LogIndex {
        self.before.plus(self.terms.len() as u64)
    }

    fn at(&self, index: LogIndex) -> Option<Term> {
        let position = index.get().checked_sub(self.before.get() + 1)?;
        self.terms.get(usize::try_from(position).ok()?).copied()
    }

    fn truncate_from(&mut self, from: LogIndex) {
        let kept = from.previous().since(self.before);
        self.terms.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    fn put(&mut self, id: LogId) {
        if id.index <= self.before || id.index > self.last().next() {
            // A snapshot has taken the place of what was before.
            (self.before, self.terms) = (id.index.previous(), Vec::new());
        }
        self.truncate_from(id.index);
        self.terms.push(id.term);
    }
}

/// What one write does, without its data.
#[derive(Clone, Debug, Default)]
pub struct WriteSketch {
    hard_state: Option<HardState>,
    truncate_from: Option<LogIndex>,
    snapshot: Option<LogId>,
    entries: Vec<LogId>,
}

impl WriteSketch {
    /// The sketch of these records.
    #[must_use]
    pub fn of(records: &LogRecords) -> Self {
        Self {
            hard_state: records.hard_state,
            truncate_from: records.truncate_from,
            snapshot: records.snapshot.as_ref().map(|meta| meta.last),
            entries: records.entries.iter().map(infinitystore::raft::Entry::id).collect(),
        }
    }

    /// The snapshot that came with it did not verify: its marker, and what belongs to it, was left
    /// out.
    pub fn without_snapshot(&mut self) {
        self.snapshot = None;
        self.truncate_from = None;
    }

    /// The process that was to make this write has ended. If the snapshot is not on its disk, it
    /// was refused as above, and the replica was not told. If it is, its marker has to be there as
    /// well once the rest is.
    pub fn settle_snapshot(&mut self, disk: &SimDisk) {
        if self.snapshot.is_some_and(|last| !disk.has_file(&SnapshotFiles::<SimDisk>::file_name(last))) {
            self.without_snapshot();
        }
    }

    /// The snapshot it marks.
    #[must_use]
    pub const fn snapshot(&self) -> Option<LogId> {
        self.snapshot
    }
}

impl DurableModel {
    /// What a first start made.
    #[must_use]
    pub fn of(restored: &Restored) -> Self {
        let mut log = Terms::default();
        restored.entries.iter().for_each(|entry| log.put(entry.id()));
        let snapshot = restored.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.last);
        Self {
            hard_state: restored.hard_state,
            snapshot,
            older: LogId::ZERO,
            commit: restored.commit,
            is_snapshot_damaged: false,
            is_closed: false,
            known_commit: restored.commit,
            log,
        }
    }

    /// The replica told its storage what is committed.
    pub fn note_commit(&mut self, index: LogIndex) {
        self.commit = self.commit.max(index);
        self.known_commit = self.known_commit.max(index);
    }

    /// The process was told to stop, and has stopped.
    pub const fn closed(&mut self) {
        self.is_closed = true;
    }

    /// It is not known any more whether what is committed can be read.
    pub const fn reopened(&mut self) {
        self.is_closed = false;
    }

    /// A write became durable.
    pub fn apply(&mut self, write: &WriteSketch) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = write.truncate_from {
            self.log.truncate_from(from);
        }
        if let Some(snapshot) = write.snapshot {
            if snapshot > self.snapshot {
                // A snapshot from the leader replaces what is truncated.
                let is_gone = write.truncate_from.is_some() || self.is_snapshot_damaged;
                self.older = if is_gone { LogId::ZERO } else { self.snapshot };
                self.is_snapshot_damaged = false;
            }
            self.snapshot = self.snapshot.max(snapshot);
        }
        write.entries.iter().for_each(|id| self.log.put(*id));
    }

    /// The file of that name is damaged. Returns whether it is the newest snapshot and an older one
    /// will do.
    pub fn damaged(&mut self, name: &OsStr) -> bool {
        if Path::new(name).extension() != Some(OsStr::new("snap")) {
            return false;
        }
        let is_newest = *name == *SnapshotFiles::<SimDisk>::file_name(self.snapshot);
        let older = std::mem::replace(&mut self.older, LogId::ZERO);
        self.is_snapshot_damaged = true;
        is_newest && older != LogId::ZERO
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> LogId {
        let index = self.log.last();
        match self.log.at(index) {
            Some(term) if index > self.snapshot.index => LogId::new(term, index),
            _ => self.snapshot,
        }
    }

    /// Whether this entry is in the log, or was compacted away.
    #[must_use]
    pub fn has(&self, id: LogId) -> bool {
        id.index <= self.snapshot.index || self.log.at(id.index) == Some(id.term)
    }

    /// Whether `restored` is what this model holds.
    fn explains(&self, restored: &Restored) -> bool {
        let snapshot = restored.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.last);
        // Two snapshots are kept: if the newer one's file cannot be read, the older one and the log
        // between do as well.
        let last = restored.entries.last().map_or(snapshot, |entry| entry.id().max(snapshot));
        restored.hard_state == self.hard_state
            && snapshot <= self.snapshot
            && last == self.last()
            && restored.entries.iter().all(|entry| {
                let known = self.log.at(entry.index());
                known == Some(entry.term()) || known.is_none() && entry.index() <= self.snapshot.index
            })
    }

    /// Compares what a node recovered from a mended directory with what was acknowledged there.
    /// What came from peers may reach further, and an end that was never committed may be gone.
    ///
    /// # Errors
    /// What is missing, or should not be there.
    pub fn check_repair(&self, under_way: &[WriteSketch], restored: &Restored) -> Result<Self, String> {
        let mut model = self.clone();
        let mut states = vec![model.hard_state];
        for write in under_way {
            model.apply(write);
            states.push(model.hard_state);
        }
        let found = restored.hard_state;
        // A peer's entries may be of a later term. A vote in it that was under way has not left.
        let is_later = found.term > self.hard_state.term && found.voted_for.is_none();
        if !(is_later || states.contains(&found)) {
            return Err(format!("a mended directory says {found:?}; acknowledged was {:?}", self.hard_state));
        }
        let snapshot = restored.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.last);
        let last = restored.entries.last().map_or(snapshot, |entry| entry.id().max(snapshot));
        // A follower may know that entries are committed which are not durable here yet.
        let known = self.known_commit.min(self.last().index);
        if last.index < known {
            return Err(format!("a mended log ends at {last}; it knew of {known} as committed"));
        }
        let differs = |entry: &&infinitystore::raft::Entry| {
            let known = self.log.at(entry.index());
            entry.index() <= self.known_commit && known.is_some_and(|term| term != entry.term())
        };
        if let Some(entry) = restored.entries.iter().find(differs) {
            return Err(format!("a mended log has entry {} where another was committed", entry.id()));
        }
        // Everything that it had is there again, unless a later leader's log took its place.
        let is_lost = last.term <= self.last().term && last < self.last();
        if is_lost {
            return Err(format!("a mended log ends at {last}; acknowledged was {}", self.last()));
        }
        let commit = self.commit.max(restored.commit);
        Ok(Self { commit, known_commit: restored.commit, ..Self::of(restored) })
    }

    /// Compares what was recovered with what was acknowledged; `under_way` are the writes of the
    /// batch that was being written.
    ///
    /// # Errors
    /// What is missing, or should not be there.
    pub fn check_recovery(&self, under_way: &[WriteSketch], restored: &Restored) -> Result<Self, String> {
        if restored.commit > self.commit {
            let (found, noted) = (restored.commit, self.commit);
            return Err(format!("recovered {found} as committed; the replica knew of {noted}"));
        }
        if self.is_closed && restored.commit < self.known_commit {
            let (found, noted) = (restored.commit, self.known_commit);
            return Err(format!("recovered {found} as committed; it was told to stop, and knew of {noted}"));
        }
        let mut model = self.clone();
        (model.is_closed, model.known_commit) = (false, restored.commit);
        if model.explains(restored) {
            return Ok(model);
        }
        for write in under_way {
            model.apply(write);
            if model.explains(restored) {
                return Ok(model);
            }
        }
        let found = restored.entries.last().map_or(LogId::ZERO, infinitystore::raft::Entry::id);
        Err(format!(
            "recovered {:?}, log to {found}, snapshot {}; acknowledged were {:?}, log to {}, snapshot {} ({} writes were under way)",
            restored.hard_state,
            restored.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.last),
            self.hard_state,
            self.last(),
            self.snapshot,
            under_way.len(),
        ))
    }
}
