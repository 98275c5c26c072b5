//! Which machines stand, and what they were asked and answered while they stood (`serving`).

use crate::madsim_engine::time::now;
use crate::schedule::{MILLI, SECOND, Settings};
use infinitystore::raft::{Membership, NodeId};
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// This many failures in a row are no accident where no packets are lost …
const STREAK_QUIET: usize = 4;
/// … and this many where packets are lost.
const STREAK_LOSSY: usize = 12;
/// And the failures have to go on for this long.
const STREAK_MICROS: u64 = 500 * MILLI;

/// The machines that stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The machines, with their processes.
    pub machines: BTreeMap<usize, u32>,
    /// The voters.
    pub voters: BTreeSet<NodeId>,
}

/// What was asked of machines that stood, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    pub standing: Option<Standing>,
    pub since: u64,
    /// Grows whenever other machines stand, or something disturbs those that do.
    pub epoch: u64,
    /// The last one that a leader knew to be committed.
    pub membership: Option<Membership>,
    /// When to look next which machines stand.
    pub look_at: u64,
    /// And what nodes hold.
    pub budgets_at: u64,
    pub asked: u64,
    pub failed: u64,
    /// Why the last one failed.
    pub last_failure: String,
    /// Failures since the last success, of each machine.
    pub streaks: BTreeMap<usize, Streak>,
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streak {
    all: Failures,
    /// Of what was asked when no packets were lost any more: one that is lost before the faults end
    /// fails a request after that.
    quiet: Failures,
}

/// How many they are, and when the first was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub count: usize,
    pub first: u64,
}

impl Failures {
    fn add(&mut self, at: u64) {
        if self.count == 0 {
            self.first = at;
        }
        self.count += 1;
    }

    const fn are(self, enough: usize, at: u64) -> bool {
        self.count >= enough && at >= self.first + STREAK_MICROS
    }
}

impl Streak {
    /// Another failure, of a question that was asked when packets were lost, or not. The failures
    /// that are no accident any more.
    pub(super) fn failed(&mut self, was_quiet: bool, at: u64) -> Option<Failures> {
        self.all.add(at);
        if was_quiet {
            self.quiet.add(at);
        }
        let (all, quiet) = (self.all, self.quiet);
        if quiet.are(STREAK_QUIET, at) {
            return Some(quiet);
        }
        all.are(STREAK_LOSSY, at).then_some(all)
    }
}

/// A question that has to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub epoch: u64,
    pub slot: usize,
    /// Whether no packets are lost when it is asked.
    pub is_quiet: bool,
}

impl Attendance {
    /// Something happened that takes the cluster a while.
    pub(super) fn disturb(&mut self) {
        self.since = now();
        self.epoch += 1;
        self.streaks.clear();
    }

    /// All is well: this machine has to answer its clients.
    pub(super) const fn in_peace(&self, slot: usize) -> Due {
        Due { epoch: self.epoch, slot, is_quiet: true }
    }

    /// Whether a majority stands.
    pub(super) const fn stands(&self) -> bool {
        self.standing.is_some()
    }

    /// Whether the machines that stood then have stood since.
    pub(super) const fn holds(&self, due: Due) -> bool {
        due.epoch == self.epoch
    }

    /// How many were asked and failed.
    pub(super) const fn counts(&self) -> (u64, u64) {
        (self.asked, self.failed)
    }
}

/// Whether a write that goes straight to its end takes a fraction of what clients wait.
pub(super) fn is_quick(settings: &Settings, clients: u64) -> bool {
    2 * way(settings, clients) <= settings.client_timeout_micros
}

/// How long a write takes that goes straight to its end.
pub(super) fn way(settings: &Settings, clients: u64) -> u64 {
    let hop = settings.delay_max_micros * u64::from(settings.link_spread.max(1));
    // Where an append carries one entry, those that wait go one after the other.
    let one_by_one = settings.append_bytes_max < 1_000 && settings.inflight_messages_max < 8;
    let queue = if one_by_one { clients } else { 2 };
    4 * hop + 3 * settings.sync_max_micros + queue * (2 * hop + settings.sync_max_micros)
}

/// How long a majority needs to have a leader and connections again: a vote that was split, and
/// back-off between attempts.
pub(super) fn grace(settings: &Settings) -> u64 {
    8 * settings.election_timeout_micros + 2 * SECOND
}
