//! Makes a core's state of what storage recovered. It is checked before anything relies on it.

use crate::codec::FeatureLevel;
use crate::raft::config::ConfigError;
use crate::raft::log::entry::{Entry, EntryKind};
use crate::raft::log::log::Log;
use crate::raft::log::records::{LogRecords, Restored};
use crate::raft::membership::members::{Member, Membership};
use crate::raft::types::{HardState, LogId, LogIndex, Term};
use alloc::vec;
use alloc::vec::Vec;

/// The highest term that a node takes part in. Elections alone never come near it.
pub(in crate::raft) const TERM_MAX: Term = Term::new(1 << 61);

/// The highest entry that a snapshot may end at, so that entries can follow it.
pub(in crate::raft) const INDEX_MAX: LogIndex = LogIndex::new(1 << 61);

/// The largest step from a node's term to the term of a message: more than a century of elections,
/// one a second. A term is recorded for good and the numbers end somewhere, so no single message
/// may bring a node near the end.
const TERM_JUMP_MAX: u64 = 1 << 32;

impl Term {
    /// Whether elections alone can have brought a cluster to this term while a node in the term
    /// `ours` was away. A node that has not been in any term yet takes any term of its cluster.
    pub(in crate::raft) fn is_in_reach_of(self, ours: Self) -> bool {
        let is_far = ours > Self::ZERO && self.get() > ours.get().saturating_add(TERM_JUMP_MAX);
        !is_far && self <= TERM_MAX
    }
}

impl LogId {
    /// Whether a log or a snapshot may end here that a node in the term `ours` takes over from
    /// another one. Beyond, the number is no cluster's own: the node would have to report the term
    /// that it has taken, at its next start.
    #[must_use]
    pub fn is_in_reach_of(self, ours: Term) -> bool {
        self.term.is_in_reach_of(ours) && self.index <= INDEX_MAX
    }
}

/// Limits or recovered state that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A limit cannot work.
    #[error("the configuration cannot work: {0}")]
    Config(#[from] ConfigError),
    /// The log is not contiguous, or its terms go back.
    #[error("entry {found} does not follow entry {before} in the recovered log; restore the data directory")]
    Gap {
        /// The entry before.
        before: LogId,
        /// The one that does not follow.
        found: LogId,
    },
    /// The log begins after the snapshot's end, or contradicts it.
    #[error(
        "the recovered log does not join the snapshot that ends at {snapshot}; restore the data directory"
    )]
    Snapshot {
        /// The snapshot's last entry.
        snapshot: LogId,
    },
    /// The log is of a later term than the one on record.
    #[error("the recovered log ends in term {log}, after term {term} on record; restore the data directory")]
    Term {
        /// Term on record.
        term: Term,
        /// Term of the last entry.
        log: Term,
    },
    /// The commit index on record is beyond the end of the log.
    #[error(
        "entries up to {commit} were committed, but the recovered log ends at {last}; restore the data directory"
    )]
    Commit {
        /// What is on record.
        commit: LogIndex,
        /// The last entry.
        last: LogIndex,
    },
    /// Elections cannot have brought about the term on record.
    #[error(
        "term {0} is on record, which no election can have brought about: a faulty or hostile program spoke to this node. If \
         other members are sound, wipe this data directory and join the node again under its name; if none is, restore a \
         copy of the data directories from before"
    )]
    TermOutOfReach(Term),
    /// A membership entry that does not decode.
    #[error("the membership in entry {0} is damaged; restore the data directory")]
    Membership(LogId),
}

/// The durable state of a new cluster of these voters, which get the ids 1, 2, 3 … in their order.
/// Each of them starts from it, written to its disk before its first start.
///
/// # Errors
/// What is wrong with the members: none, too many, a name or a store that stands twice, a text that
/// is too long.
pub fn bootstrap_log(voters: impl IntoIterator<Item = Member>) -> Result<Restored, &'static str> {
    let id = LogId::new(Term::new(1), LogIndex::new(1));
    let membership = Membership::bootstrap(voters)?;
    Ok(Restored {
        hard_state: HardState { term: id.term, voted_for: None },
        snapshot: None,
        entries: vec![Entry::new(id, EntryKind::Membership, &membership.encode())],
        commit: LogIndex::ZERO,
        promised_micros: 0,
    })
}

impl Restored {
    /// Appends the entry that raises a new cluster to a level.
    pub fn raise_level(&mut self, level: FeatureLevel) {
        let before = self.entries.last().map_or(LogId::ZERO, Entry::id);
        let id = LogId::new(before.term, before.index.next());
        self.entries.push(Entry::new(id, EntryKind::Level, &level.to_data()));
    }

    /// Carries a write out on this state, as a disk would, for drivers that keep it in memory. A
    /// chunk of a snapshot goes into its file and is not kept here.
    pub fn apply(&mut self, records: &LogRecords) {
        if let Some(hard_state) = records.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = records.truncate_from {
            self.entries.retain(|entry| entry.index() < from);
        }
        if let Some(snapshot) = &records.snapshot {
            self.snapshot = Some((**snapshot).clone());
        }
        self.entries.extend(records.entries.iter().cloned());
    }
}

/// Checks the recovered log against itself, its snapshot and the term on record.
pub(in crate::raft) fn restore_log(restored: &mut Restored) -> Result<Log, RestoreError> {
    let entries = core::mem::take(&mut restored.entries);
    check_entries(&entries)?;
    let snapshot = restored.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.last);
    let log = join(snapshot, entries)?;
    let (term, last) = (restored.hard_state.term, log.last().term);
    if term > TERM_MAX {
        return Err(RestoreError::TermOutOfReach(term));
    }
    if last > term {
        return Err(RestoreError::Term { term, log: last });
    }
    let (commit, last) = (restored.commit, log.last().index);
    if commit > last {
        return Err(RestoreError::Commit { commit, last });
    }
    Ok(log)
}

fn check_entries(entries: &[Entry]) -> Result<(), RestoreError> {
    for pair in entries.windows(2) {
        let (before, found) = (pair[0].id(), pair[1].id());
        if found.index != before.index.next() || found.term < before.term {
            return Err(RestoreError::Gap { before, found });
        }
    }
    let memberships = entries.iter().filter(|entry| entry.kind() == EntryKind::Membership);
    for entry in memberships {
        Membership::decode(&entry.data()).map_err(|_| RestoreError::Membership(entry.id()))?;
    }
    Ok(())
}

/// A log that begins where the snapshot ends, or before: then what is below stays, for laggards.
fn join(snapshot: LogId, mut entries: Vec<Entry>) -> Result<Log, RestoreError> {
    let error = RestoreError::Snapshot { snapshot };
    let (Some(first), Some(last)) = (entries.first().map(Entry::id), entries.last().map(Entry::id)) else {
        return Ok(Log::new(snapshot, entries));
    };
    if first.index > snapshot.index.next() {
        return Err(error);
    }
    if last.index < snapshot.index {
        // An installed snapshot went past all of them.
        return Ok(Log::new(snapshot, Vec::new()));
    }
    let mut base = LogId::ZERO;
    if first.index == snapshot.index.next() {
        if first.term < snapshot.term {
            return Err(error);
        }
        base = snapshot;
    } else if first.index > LogIndex::new(1) {
        // The term before the first entry is not on record: it becomes the base itself.
        base = entries.remove(0).id();
    }
    let log = Log::new(base, entries);
    if snapshot.index > LogIndex::ZERO && !log.contains(snapshot) {
        return Err(error);
    }
    Ok(log)
}
