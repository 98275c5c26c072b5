//! What a replica knows of its snapshots: when one is due, which one is being written, which
//! failed. `snapshots` has the rules.

use crate::kv::Store;
use crate::raft::{LogId, LogIndex, Time};
use alloc::string::String;

/// The pause after a save that failed, microseconds. It doubles with each further failure …
const RETRY_MIN_MICROS: u64 = 1_000_000;
/// … up to this.
const RETRY_MAX_MICROS: u64 = 60_000_000;
/// A file that was damaged this long after the last one begins the count anew.
const REPAIRS_KEPT_MICROS: u64 = 10 * RETRY_MAX_MICROS;

/// The pause before the next try, after `failures` in a row.
pub(super) fn pause_micros(failures: u32) -> u64 {
    let factor = failures.checked_sub(1).map_or(0, |shift| 1_u64.checked_shl(shift).unwrap_or(u64::MAX));
    RETRY_MIN_MICROS.saturating_mul(factor).min(RETRY_MAX_MICROS)
}

/// When snapshots are due.
#[derive(Clone, Debug, Default)]
pub(super) struct SnapshotPolicy {
    /// Bytes of entries applied since the last snapshot that succeeded was begun.
    pub(super) log_bytes: u64,
    /// Entries applied since then.
    pub(super) log_entries: u64,
    /// Bytes and keys of the store at the last snapshot that succeeded, when it was begun.
    pub(super) store_bytes: u64,
    pub(super) store_keys: u64,
    /// The snapshot that is being written. One at most.
    pub(super) saving: Option<Saving>,
    /// The newest snapshot, if it cannot be read. Another one replaces it, even if the log has not
    /// grown enough.
    pub(super) unreadable: Option<LogId>,
    /// A damaged segment of the log is needed until a snapshot reaches this far.
    pub(super) needed_through: Option<LogIndex>,
    /// A member needs a newer snapshot than the newest one here.
    pub(super) is_newer_wanted: bool,
    /// Why the last one came to nothing; `None` since one succeeded.
    pub(super) failure: Option<String>,
    /// Saves that failed in a row.
    pub(super) failures: u32,
    /// Snapshots in a row that were written because one was damaged, or could not be read to its
    /// end.
    pub(super) repairs: u32,
    /// When the last of these was asked for.
    repaired_at: Time,
    /// No snapshot is begun before this time, since the last save failed.
    pub(super) retry_at: Option<Time>,
    /// No snapshot is begun before this time, since the disk damages them.
    repair_at: Option<Time>,
}

/// A snapshot that is being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saving {
    /// Its last entry.
    pub(super) last: LogId,
    /// [`SnapshotPolicy::log_bytes`] when it was begun.
    pub(super) log_bytes: u64,
    /// [`SnapshotPolicy::log_entries`] when it was begun.
    pub(super) log_entries: u64,
    /// Bytes of the store it holds.
    pub(super) store_bytes: u64,
    /// Keys of the store it holds.
    pub(super) store_keys: u64,
}

impl SnapshotPolicy {
    /// At a start, from a snapshot with this content.
    pub(super) fn new(store: &Store) -> Self {
        Self { store_bytes: store.bytes(), store_keys: store.len() as u64, ..Self::default() }
    }

    /// A snapshot has to be written because one is damaged: the first time at once. A disk that
    /// damages what is written to it must not be written to without end.
    pub(super) fn put_off_repair(&mut self, now: Time) {
        if now.since(self.repaired_at) > REPAIRS_KEPT_MICROS {
            self.repairs = 0;
        }
        let pause_ends = now.plus(pause_micros(self.repairs));
        self.repair_at = self.repair_at.max(Some(pause_ends));
        (self.repairs, self.repaired_at) = (self.repairs.saturating_add(1), now);
    }

    /// When the next snapshot may be begun; `None`: at once.
    pub(super) fn resumes_at(&self) -> Option<Time> {
        self.retry_at.max(self.repair_at)
    }

    /// Whether a snapshot may be begun.
    pub(super) fn may_begin(&mut self, now: Time) -> bool {
        self.retry_at = self.retry_at.filter(|at| now < *at);
        self.repair_at = self.repair_at.filter(|at| now < *at);
        self.resumes_at().is_none()
    }

    /// The disk has room again. That may be what the last saves lacked.
    pub(super) const fn room_is_back(&mut self) {
        (self.failures, self.retry_at) = (0, None);
    }

    /// A snapshot up to `last` has succeeded.
    pub(super) fn succeeded(&mut self, last: LogId) {
        self.failure = None;
        if self.needed_through.is_some_and(|through| through <= last.index) {
            self.needed_through = None;
            // The older snapshot went with the segments. The next one takes its place.
            self.is_newer_wanted = true;
        }
        if self.unreadable.is_some_and(|unreadable| unreadable <= last) {
            self.unreadable = None;
        }
    }

    /// The state was replaced by a leader's snapshot. A save that is under way goes on.
    pub(super) fn begin_anew(&mut self, store: &Store) {
        let saving = self.saving.map(|saving| Saving { log_bytes: 0, log_entries: 0, ..saving });
        *self = Self { saving, ..Self::new(store) };
    }
}
