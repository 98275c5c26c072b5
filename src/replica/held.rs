//! What a replica holds for clients that wait, and for things under way. A simulation looks at it
//! to see whether anything is left behind.

use crate::replica::replica::Replica;
use alloc::vec::Vec;

impl Replica {
    /// What is held, by name, with what its core holds. At rest all of it is zero. For simulations
    /// and for diagnosis; it looks at every table.
    #[must_use]
    pub fn held(&self) -> Vec<(&'static str, u64)> {
        let mut held = self.raft.held();
        let is_promised =
            self.policy.is_newer_wanted || self.policy.saving.is_some() || self.raft.awaits_marker();
        let forgotten = self.raft.is_snapshot_wanted() && !is_promised;
        held.extend([
            ("writes that wait for a leader", self.writes.queued() as u64),
            ("writes on their way through the log", self.writes.places() as u64),
            ("bytes of writes that wait", self.writes.bytes()),
            ("writes that are counted", self.writes.len() as u64),
            ("reads that wait", self.reads.tables() as u64),
            ("reads that are counted", self.reads.len() as u64),
            ("bytes of writes that wait to be judged", self.reads.bytes()),
            ("clients that wait for a change", self.watches.len() as u64),
            ("bytes of clients that wait for a change", self.watches.bytes()),
            ("calls of leases that wait", self.lease_calls.len() as u64),
            ("changes of membership", u64::from(self.change.is_some())),
            ("operators' transfers", u64::from(self.transfer.is_some())),
            ("snapshots that are saved", u64::from(self.policy.saving.is_some())),
            ("snapshots that cannot be read", u64::from(self.policy.unreadable.is_some())),
            ("damaged segments of the log", u64::from(self.policy.needed_through.is_some())),
            ("snapshots that are installed", u64::from(self.installing.is_some())),
            ("snapshots that were asked for, and are not taken", u64::from(forgotten)),
            ("leaders that hand over", u64::from(self.handing_over.is_some_and(|(_, at)| self.now < at))),
            (
                "questions for a hash that wait for an entry",
                u64::from(self.agreement.open_question.is_some()),
            ),
        ]);
        held
    }
}
