//! How fresh the state of a follower is.

use crate::raft::types::{LogIndex, Time};

/// Since when the state may lack something that a leader has committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Freshness {
    /// A leader's message came then, and all that it called committed is applied.
    known_at: Option<Time>,
    /// The commit index of a message that came later, and when it came.
    next: Option<(LogIndex, Time)>,
}

impl Freshness {
    /// A message of the leader has come. The leader has committed up to `commit`; here entries up
    /// to `applied` are.
    pub(in crate::raft) fn heard(&mut self, now: Time, commit: LogIndex, applied: LogIndex) {
        self.known_at = self.known_at(applied);
        self.next = self.next.filter(|(commit, _)| *commit > applied);
        if commit <= applied {
            self.known_at = Some(now);
        } else {
            // The earliest is met first, also while more and more is committed.
            self.next.get_or_insert((commit, now));
        }
    }

    /// When the state here was last known to be that of a leader; `None`: never since the start.
    pub(in crate::raft) fn known_at(&self, applied: LogIndex) -> Option<Time> {
        self.next.filter(|(commit, _)| *commit <= applied).map(|(_, at)| at).or(self.known_at)
    }
}
