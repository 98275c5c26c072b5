//! How long writes to the disk take, here and at the other members.
//!
//! What counts is the time of the disk itself: from the moment when it had nothing else to write,
//! to the receipt. A write that waits behind others says how many there are, and not how slow the
//! disk is.

use crate::raft::{Durable, NodeId, Term, Time, WriteSequence};
use alloc::collections::{BTreeMap, VecDeque};

/// Writes are judged together for so long.
pub(super) const WINDOW_MICROS: u64 = 1_000_000;
/// What a member said counts for so long.
const SAID_MICROS: u64 = 3 * WINDOW_MICROS;
/// A disk is slow, or quick again, after this many windows in a row that say so.
const WINDOWS: u32 = 3;
/// A disk that was slow, and was asked for nothing in this many windows, does not count as slow any
/// more: nobody waits for it, and nothing would ever say otherwise.
const WINDOWS_AT_REST: u32 = 30;

/// To whom it was said that there is no room, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToldFull {
    pub(super) leader: NodeId,
    pub(super) term: Term,
    pub(super) at: Time,
}

/// What is known of the disks.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskPace {
    /// Writes that the storage has not answered, oldest first. As many as the core has under way.
    under_way: VecDeque<(WriteSequence, Time)>,
    /// When the window began; `None`: with the next write.
    since: Option<Time>,
    /// When the disk was done with what it had, last.
    done_at: Time,
    /// Of what became durable in the window: how long the disk took, and in how many goes.
    sum_micros: u64,
    count: u64,
    /// How long a write took in the mean, in the last window that had one.
    pub(super) mean_micros: u64,
    /// Windows in a row that were slow, and that were quick.
    slow: u32,
    quick: u32,
    /// Windows in a row without a write.
    at_rest: u32,
    /// The disk is slow.
    pub(super) is_slow: bool,
    /// What others said of theirs, and when.
    pub(super) others: BTreeMap<NodeId, Said>,
    /// A leader tries to hand over at this time at the earliest.
    pub(super) hand_over_at: Time,
}

/// What a member said of its disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    /// When it came.
    at: Time,
    /// How long a write takes.
    write_micros: u64,
    /// There is no room for more of the log.
    is_full: bool,
}

impl Said {
    pub(super) const fn new(at: Time, write_micros: u64, is_full: bool) -> Self {
        Self { at, write_micros, is_full }
    }

    /// How long a write takes, if that was said lately, and there is room.
    pub(super) fn write_micros(&self, now: Time) -> Option<u64> {
        (now.since(self.at) <= SAID_MICROS && !self.is_full).then_some(self.write_micros)
    }

    /// Whether it was said, at whatever time, that there is no room.
    pub(super) const fn was_full(&self) -> bool {
        self.is_full
    }

    /// Whether it was said lately that there is no room.
    pub(super) const fn is_full(&self, now: Time) -> bool {
        now.since(self.at) <= SAID_MICROS && self.is_full
    }
}

impl DiskPace {
    /// A write is on its way to the disk.
    pub(super) fn issued(&mut self, now: Time, write: WriteSequence) {
        self.since.get_or_insert(now);
        self.under_way.push_back((write, now));
    }

    /// Everything up to this receipt's write is durable.
    pub(super) fn durable(&mut self, now: Time, receipt: &Durable) {
        let begun = self.begun();
        while self.under_way.front().is_some_and(|(write, _)| *write <= receipt.sequence()) {
            self.under_way.pop_front();
        }
        // Receipts that come at one time are of one go of the disk.
        if let Some(begun) = begun
            && now > self.done_at
        {
            self.sum_micros += now.since(begun);
            self.count += 1;
            self.done_at = now;
        }
    }

    /// There is no room for what is under way: the disk does not write it, however quick it is.
    pub(super) fn has_no_room(&mut self, now: Time) {
        self.done_at = now;
    }

    /// Since when the disk has been busy with the oldest write that is under way.
    fn begun(&self) -> Option<Time> {
        self.under_way.front().map(|(_, issued)| self.done_at.max(*issued))
    }

    /// Ends the window if it is over. Returns how long the disk took for a go in it, in the mean;
    /// what is still under way counts with its age.
    pub(super) fn end_window(&mut self, now: Time) -> Option<u64> {
        let is_over = self.since.is_some_and(|since| now.since(since) >= WINDOW_MICROS);
        if !is_over {
            return None;
        }
        let oldest = self.begun().map(|begun| now.since(begun));
        let mean = self.sum_micros.checked_div(self.count).max(oldest);
        (self.sum_micros, self.count) = (0, 0);
        self.at_rest = if mean.is_some() { 0 } else { self.at_rest.saturating_add(1) };
        self.since = (oldest.is_some() || self.is_slow).then_some(now);
        self.mean_micros = mean.unwrap_or(self.mean_micros);
        mean
    }

    /// When the window ends, while the disk counts as slow: perhaps nothing else happens by then.
    pub(super) fn wake_at(&self) -> Option<Time> {
        self.since.filter(|_| self.is_slow).map(|since| since.plus(WINDOW_MICROS))
    }

    /// Whether it is news that the disk is not slow any more, since it has been asked for nothing
    /// for long.
    pub(super) fn forgets(&mut self) -> bool {
        let forgets = self.is_slow && self.at_rest >= WINDOWS_AT_REST;
        if forgets {
            (self.is_slow, self.slow, self.quick) = (false, 0, 0);
            (self.since, self.mean_micros) = (None, 0);
        }
        forgets
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
