//! How long writes to the disk take, here and at the other members.

use crate::raft::{Durable, NodeId, Time, WriteSequence};
use alloc::collections::{BTreeMap, VecDeque};

/// Writes are judged together for so long.
pub(super) const WINDOW_MICROS: u64 = 1_000_000;
/// A disk is slow, or quick again, after this many windows in a row that say so.
const WINDOWS: u32 = 3;

/// What is known of the disks.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskPace {
    /// Writes that the storage has not answered, oldest first. As many as the core has under way.
    under_way: VecDeque<(WriteSequence, Time)>,
    /// When the window began; `None`: with the next write.
    since: Option<Time>,
    /// Of the writes that became durable in it.
    sum_micros: u64,
    count: u64,
    /// How long a write took in the mean, in the last window that had one.
    pub(super) mean_micros: u64,
    /// Windows in a row that were slow, and that were quick.
    slow: u32,
    quick: u32,
    /// The disk is slow.
    pub(super) is_slow: bool,
    /// What others said of theirs, and when.
    pub(super) others: BTreeMap<NodeId, (Time, u64)>,
    /// A leader tries to hand over at this time at the earliest.
    pub(super) hand_over_at: Time,
}

impl DiskPace {
    /// A write is on its way to the disk.
    pub(super) fn issued(&mut self, now: Time, write: WriteSequence) {
        self.since.get_or_insert(now);
        self.under_way.push_back((write, now));
    }

    /// Everything up to this receipt's write is durable.
    pub(super) fn durable(&mut self, now: Time, receipt: &Durable) {
        while let Some((write, issued)) = self.under_way.front().copied()
            && write <= receipt.sequence()
        {
            self.under_way.pop_front();
            self.sum_micros += now.since(issued);
            self.count += 1;
        }
    }

    /// Ends the window if it is over. Returns how long a write took in it, in the mean; one that is
    /// still under way counts with its age.
    pub(super) fn end_window(&mut self, now: Time) -> Option<u64> {
        let is_over = self.since.is_some_and(|since| now.since(since) >= WINDOW_MICROS);
        if !is_over {
            return None;
        }
        let oldest = self.under_way.front().map(|(_, issued)| now.since(*issued));
        let mean = self.sum_micros.checked_div(self.count).max(oldest);
        (self.sum_micros, self.count) = (0, 0);
        self.since = oldest.map(|_| now);
        self.mean_micros = mean.unwrap_or(self.mean_micros);
        mean
    }

    /// Whether it is news that the disk is slow, or is not any more. `limit_micros`: what a write
    /// may take.
    pub(super) fn judge(&mut self, mean: u64, limit_micros: u64) -> bool {
        let (is_slow, is_quick) = (mean >= limit_micros, mean < limit_micros / 2);
        self.slow = if is_slow { self.slow + 1 } else { 0 };
        self.quick = if is_quick { self.quick + 1 } else { 0 };
        let was_slow = self.is_slow;
        self.is_slow = if was_slow { self.quick < WINDOWS } else { self.slow >= WINDOWS };
        self.is_slow != was_slow
    }
}
