//! What a process has written to its log, as far as the log may still hold it.

use std::collections::VecDeque;

/// Snapshots after which a segment that was full before the first of them is gone: two are kept,
/// one is written, one is sent.
const SNAPSHOTS: usize = 4;
/// Bytes that a write takes beside its entries, at most: its block, and a spare part of the
/// segment.
const WRITE_BYTES: u64 = 4096 + 512;

/// What a process has written.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// Bytes in all, with what was there at its start.
    pub bytes: u64,
    /// `bytes` at each of the last snapshots.
    pub at_snapshots: VecDeque<u64>,
    /// Since when its disk holds too much.
    pub above_since: Option<u64>,
}

impl Written {
    /// For a process that finds `bytes` on its disk.
    pub(super) fn from(bytes: usize) -> Self {
        Self { bytes: bytes as u64, ..Self::default() }
    }

    /// A write with `bytes` of entries is asked for.
    pub(super) const fn write(&mut self, bytes: u64) {
        self.bytes += bytes + WRITE_BYTES;
    }

    /// A snapshot was taken, or installed.
    pub(super) fn snapshot(&mut self) {
        if self.at_snapshots.len() == SNAPSHOTS {
            self.at_snapshots.pop_front();
        }
        self.at_snapshots.push_back(self.bytes);
    }

    /// Bytes that the log may still hold.
    pub(super) fn live(&self) -> u64 {
        let gone = if self.at_snapshots.len() == SNAPSHOTS { self.at_snapshots[0] } else { 0 };
        self.bytes - gone
    }
}
