//! The membership in force, and those before it.

use crate::raft::log::entry::{Entry, EntryKind};
use crate::raft::membership::members::Membership;
use crate::raft::types::{LogId, LogIndex, NodeId};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

/// The memberships of the log, oldest first. The last is in force, committed or not
/// (D §4.1).
///
/// Invariant: never empty; ascending by index; the first is the one in force at the log's base.
/// (After a start: at the end of the snapshot, where the log goes back further than that.)
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Memberships(Vec<(LogId, Membership)>);

impl Memberships {
    /// Starts from the membership of a snapshot, or from none.
    pub(in crate::raft) fn new(base: Option<(LogId, Membership)>) -> Self {
        Self(vec![base.unwrap_or_else(|| (LogId::ZERO, empty_membership()))])
    }

    /// Plants a state that must not be.
    #[cfg(test)]
    pub(in crate::raft) fn plant(&mut self, id: LogId) {
        self.0.push((id, empty_membership()));
    }

    /// # Panics
    /// If the invariants above do not hold, as far as that is seen in O(1): in the two newest.
    pub(in crate::raft) fn assert_invariants(&self, handed_out: LogIndex, last: LogIndex) {
        let latest = self.latest().0.index;
        assert!(latest <= last, "the membership in force is of entry {latest}, but the log ends at {last}");
        let before = self.0.iter().nth_back(1).map(|(id, _)| id.index);
        assert!(before.is_none_or(|before| before < latest), "memberships ascend");
        let first = self.0.first().map_or(LogIndex::ZERO, |(id, _)| id.index);
        assert!(first <= handed_out, "the oldest membership, of entry {first}, was in force before");
    }

    /// The membership in force, and where it stands.
    pub(in crate::raft) fn latest(&self) -> &(LogId, Membership) {
        self.0.last().expect("there is always a membership, if only the empty one")
    }

    /// The membership before the one in force, if the log still knows it.
    pub(in crate::raft) fn previous(&self) -> Option<&Membership> {
        self.0.iter().nth_back(1).map(|(_, membership)| membership)
    }

    /// The membership in force at `index`.
    pub(in crate::raft) fn at(&self, index: LogIndex) -> &(LogId, Membership) {
        let count = self.0.partition_point(|(id, _)| id.index <= index);
        &self.0[count.saturating_sub(1)]
    }

    /// Puts the membership in `entry` in force; `false` if `entry` holds none.
    ///
    /// # Panics
    /// If its membership does not decode: peers' entries are checked before they are appended.
    pub(in crate::raft) fn append(&mut self, entry: &Entry) -> bool {
        if entry.kind() != EntryKind::Membership {
            return false;
        }
        let membership = Membership::decode(&entry.data()).expect("checked before it was appended");
        if self.latest().0.index < entry.index() {
            self.0.push((entry.id(), membership));
        }
        true
    }

    /// Rolls back to what was in force before `index`; `true` if that changed anything.
    pub(in crate::raft) fn truncate_from(&mut self, index: LogIndex) -> bool {
        let before = self.0.len();
        while self.0.len() > 1 && self.latest().0.index >= index {
            self.0.pop();
        }
        self.0.len() < before
    }

    /// Forgets what was in force only below `base`.
    pub(in crate::raft) fn compact(&mut self, base: LogIndex) {
        let count = self.0.partition_point(|(id, _)| id.index <= base);
        self.0.drain(..count.saturating_sub(1));
    }
}

/// The membership of a node that does not know one yet.
fn empty_membership() -> Membership {
    Membership {
        voters: BTreeSet::new(),
        outgoing: None,
        learners: BTreeMap::new(),
        members: BTreeMap::new(),
        next_member_id: NodeId::new(1),
    }
}
