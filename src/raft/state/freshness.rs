//! How fresh the state of a follower is.

use crate::raft::types::{LogIndex, Time};

/// Since when the state may lack something that a leader has committed.
///
/// Times here are those for which it is proven, by this node's clock. That a message has just come
/// proves nothing: it may have been on its way for long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Freshness {
    /// All that any leader had committed then is applied.
    known_at: Option<Time>,
    /// A commit index that is not applied yet, and a time at which no leader had committed more.
    /// That time is later than `known_at` was.
    next: Option<(LogIndex, Time)>,
}

impl Freshness {
    /// At `at` no leader had committed more than `commit`. Here entries up to `applied` are
    /// applied.
    pub(in crate::raft) fn learn(&mut self, at: Time, commit: LogIndex, applied: LogIndex) {
        self.known_at = self.known_at(applied);
        self.next = self.next.filter(|(commit, _)| *commit > applied);
        if self.known_at.is_some_and(|known| known >= at) {
            return;
        }
        if commit <= applied {
            self.known_at = Some(at);
        } else {
            // The earliest is met first, also while more and more is committed.
            self.next.get_or_insert((commit, at));
        }
    }

    /// When the state here was last known to be that of a leader; `None`: never since the start.
    pub(in crate::raft) fn known_at(&self, applied: LogIndex) -> Option<Time> {
        self.next.filter(|(commit, _)| *commit <= applied).map(|(_, at)| at).max(self.known_at)
    }
}
