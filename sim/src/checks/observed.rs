//! Rare paths of the product, recognised by what it shows. Coverage marks say whether a campaign
//! met them.

use crate::checks::answer_times::AnswerTimes;
use crate::record::marks::Marks;
use infinitystore::raft::{Entry, LogId, LogIndex, RoleName, Term};
use infinitystore::replica::{Notice, Replica};
use infinitystore::storage::RecoveryNote;

/// What a process' replica showed when it was last looked at.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The last index it had applied.
    pub applied: LogIndex,
    /// Entries that were in memory before the last step, and may have left it in that step. Kept
    /// only in runs in which the log in memory is short.
    pub ahead: Vec<Entry>,
    /// When the answers that it remembers were made.
    pub answers: AnswerTimes,
    /// Whether its disk is slow, as it was told last.
    pub is_slow: bool,
    before: Option<Before>,
}

#[derive(Clone, Copy, Debug)]
struct Before {
    role: RoleName,
    term: Term,
    last: LogId,
    /// Where the membership in force stands.
    membership: LogId,
}

impl Observed {
    /// A process starts, on a snapshot that ends at `applied`.
    #[must_use]
    pub fn at_start(applied: LogIndex) -> Self {
        Self { applied, ..Self::default() }
    }

    /// Marks what became of the replica since it was last looked at.
    pub fn mark(&mut self, replica: &Replica, notices: &[Notice], marks: &mut Marks) {
        let raft = replica.raft();
        let (role, term, last) = (raft.role(), raft.term(), raft.last_log());
        for notice in notices {
            if let Notice::DiskSlow { is_slow, .. } = notice {
                self.is_slow = *is_slow;
            }
        }
        let membership_changed =
            notices.iter().any(|notice| matches!(notice, Notice::MembershipChanged { .. }));
        let membership = match self.before {
            Some(before) if !membership_changed => before.membership,
            _ => raft.membership_at(last.index).1,
        };
        let now = Before { role, term, last, membership };
        let Some(before) = self.before.replace(now) else { return };
        let mut mark = |name, condition: bool| {
            if condition {
                *marks.entry(name).or_default() += 1;
            }
        };
        let (led, leads) = (before.role == RoleName::Leader, role == RoleName::Leader);
        mark("leader deposed", led && !leads && term > before.term);
        mark("leader steps down by itself", led && !leads && term == before.term);
        mark("election lost", before.role == RoleName::Candidate && !leads && term == before.term);
        mark("leader elected in a joint state", leads && !led && raft.membership().is_joint());
        let is_gone =
            raft.term_at(before.last.index).map_or(last < before.last, |term| term != before.last.term);
        mark("entries truncated", is_gone);
        mark("membership rolled back", membership.index < before.membership.index && is_gone);
    }
}

/// Marks what a start found.
pub fn mark_recovery(notes: &[RecoveryNote], marks: &mut Marks) {
    for note in notes {
        let name = match note {
            RecoveryNote::TornTail { .. } => "torn tail cut off",
            RecoveryNote::OlderSnapshot { .. } => "older snapshot used",
            RecoveryNote::CreationResumed => "creation resumed",
            _ => continue,
        };
        *marks.entry(name).or_default() += 1;
    }
}
