//! The log as the core holds it: a window from a base upwards, in memory.

use crate::raft::log::entry::Entry;
use crate::raft::types::{LogId, LogIndex, Term};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Bytes that an entry takes in memory beside its own: its place in the queue (whose room grows by
/// doubling), and the counters and headers of its allocation. A log of small entries is mostly
/// this.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// The replicated log from `base` (exclusive) upwards; what is below has left memory.
///
/// Invariants: entries are contiguous from `base.index + 1`; terms never decrease; `base.index ≤
/// durable ≤ last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Log {
    /// The entry before the first one held. Grows with compaction, replaced by an installed
    /// snapshot.
    base: LogId,
    entries: VecDeque<Entry>,
    /// Bytes that `entries` take in memory. Derived; kept so that a compaction need not count a
    /// long log.
    bytes: u64,
    /// Entries up to here are on this node's disk. Falls with truncation.
    durable: LogIndex,
}

impl Log {
    /// A log that holds these entries durably. The caller has checked that they are contiguous from
    /// `base`.
    pub(in crate::raft) fn new(base: LogId, entries: Vec<Entry>) -> Self {
        let durable = entries.last().map_or(base.index, Entry::index);
        let bytes = entries.iter().map(held_bytes).sum();
        Self { base, entries: entries.into(), bytes, durable }
    }

    /// Plants a state that must not be.
    #[cfg(test)]
    pub(in crate::raft) const fn plant_durable(&mut self, durable: LogIndex) {
        self.durable = durable;
    }

    /// # Panics
    /// If the invariants above do not hold, as far as that is seen in O(1).
    pub(in crate::raft) fn assert_invariants(&self) {
        let (base, durable, last) = (self.base.index, self.durable, self.last().index);
        assert!(base <= durable, "entries up to {base} left the log, durable only up to {durable}");
        assert!(durable <= last, "durable up to {durable}, but the log ends at {last}");
        let first = self.entries.front().map_or(base.next(), Entry::index);
        assert!(first == base.next(), "the log begins with entry {first}, after {base}");
        let count = self.entries.len() as u64;
        assert!(last == base.plus(count), "the log has {count} entries from {base} to {last}");
    }

    /// The entry before the first one held.
    pub(in crate::raft) const fn base(&self) -> LogId {
        self.base
    }

    /// The last entry (the base if there is none).
    pub(in crate::raft) fn last(&self) -> LogId {
        self.entries.back().map_or(self.base, Entry::id)
    }

    /// What the entries take in memory, bytes.
    pub(in crate::raft) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that the entries after `after` take in memory.
    pub(in crate::raft) fn bytes_after(&self, after: LogIndex) -> u64 {
        self.range(after, self.last().index).map(held_bytes).sum()
    }

    /// Entries up to here are on this node's disk.
    pub(in crate::raft) const fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The term at `index`, if the log knows it: from the base to the last entry.
    pub(in crate::raft) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index { Some(self.base.term) } else { self.get(index).map(Entry::term) }
    }

    /// Whether this very entry is in the log (or is its base).
    pub(in crate::raft) fn contains(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term)
    }

    /// The entry at `index`, if it is held.
    pub(super) fn get(&self, index: LogIndex) -> Option<&Entry> {
        if index <= self.base.index {
            return None;
        }
        self.entries.get(self.offset(index))
    }

    /// Entries from `after` (exclusive) to `through` (inclusive), as far as they are held.
    pub(in crate::raft) fn range(&self, after: LogIndex, through: LogIndex) -> impl Iterator<Item = &Entry> {
        let from = self.offset(after.max(self.base.index).next()).min(self.entries.len());
        let to = self.offset(through.max(self.base.index).next()).min(self.entries.len());
        self.entries.range(from..to.max(from))
    }

    /// The first entries of [`Self::range`], as many as fit into both limits; at least one if there
    /// is any.
    pub(in crate::raft) fn slice(
        &self,
        after: LogIndex,
        through: LogIndex,
        entries_max: usize,
        bytes_max: u64,
    ) -> Vec<Entry> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += entry.encoded_bytes() as u64;
            is_first || bytes <= bytes_max
        };
        self.range(after, through).take(entries_max).take_while(fits).cloned().collect()
    }

    /// Entries after `after`, up to `through`, as many as fit into `bytes_max`; at least one if
    /// there is any. With their bytes.
    pub(in crate::raft) fn batch(
        &self,
        after: LogIndex,
        through: LogIndex,
        bytes_max: u64,
    ) -> (Vec<Entry>, u64) {
        let from = self.offset(after.next());
        let (mut count, mut bytes) = (0, 0);
        for entry in self.entries.range(from.min(self.entries.len())..) {
            let length = entry.encoded_bytes() as u64;
            if entry.index() > through || count > 0 && bytes + length > bytes_max {
                break;
            }
            count += 1;
            bytes += length;
        }
        (self.entries.range(from..from + count).cloned().collect(), bytes)
    }

    /// Appends an entry (in memory; its write is the caller's).
    ///
    /// # Panics
    /// If it does not follow the last entry: every caller has checked that.
    pub(in crate::raft) fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert!(entry.index() == last.index.next(), "entries are contiguous");
        assert!(entry.term() >= last.term, "terms never decrease along the log");
        self.bytes += held_bytes(&entry);
        self.entries.push_back(entry);
    }

    /// Removes the entry at `index` and all after it.
    ///
    /// # Panics
    /// If that reaches below the base: what is compacted is committed.
    pub(in crate::raft) fn truncate_from(&mut self, index: LogIndex) {
        assert!(index > self.base.index, "compacted entries are committed and stay");
        let kept = self.offset(index).min(self.entries.len());
        self.bytes -= self.entries.drain(kept..).map(|entry| held_bytes(&entry)).sum::<u64>();
        self.durable = self.durable.min(index.previous());
    }

    /// A write through `index` is on disk.
    pub(in crate::raft) fn set_durable(&mut self, index: LogIndex) {
        assert!(index <= self.last().index, "only what is in the log becomes durable");
        self.durable = self.durable.max(index);
    }

    /// The last entry at or below `index` whose term is at most `term`: the last that could match a
    /// log which has `term` at `index` (terms never decrease). The base if there is none.
    pub(in crate::raft) fn last_match_candidate(&self, index: LogIndex, term: Term) -> LogId {
        let below_index = usize::try_from(index.since(self.base.index)).unwrap_or(usize::MAX);
        let below_term = self.entries.partition_point(|entry| entry.term() <= term);
        let count = below_index.min(below_term).min(self.entries.len());
        count.checked_sub(1).and_then(|position| self.entries.get(position)).map_or(self.base, Entry::id)
    }

    /// The index before the longest tail of entries up to `last` that has at most `entries_max`
    /// entries and `bytes_max` bytes.
    pub(in crate::raft) fn before_tail(&self, last: LogIndex, entries_max: u64, bytes_max: u64) -> LogIndex {
        let (mut before, mut entries, mut bytes) = (last, 0, 0);
        while let Some(entry) = self.get(before) {
            entries += 1;
            bytes += entry.encoded_bytes() as u64;
            if entries > entries_max || bytes > bytes_max {
                break;
            }
            before = before.previous();
        }
        before
    }

    /// Drops entries up to `through` from memory. They are applied and durable. A snapshot covers
    /// them, or [`Self::trim`] asked for it.
    ///
    /// # Panics
    /// If `through` is beyond the last entry.
    pub(in crate::raft) fn compact(&mut self, through: LogIndex) {
        if through <= self.base.index {
            return;
        }
        let term = self.term_at(through).expect("what leaves memory was applied, so it is in the log");
        let count = self.offset(through.next());
        self.bytes -= self.entries.drain(..count).map(|entry| held_bytes(&entry)).sum::<u64>();
        self.give_back_room();
        self.base = LogId::new(term, through);
        self.durable = self.durable.max(through);
    }

    /// Drops the oldest entries from memory, none after `through`, until at most `bytes` are held.
    ///
    /// # Panics
    /// If `through` is beyond the last entry.
    pub(in crate::raft) fn trim(&mut self, through: LogIndex, bytes: u64) {
        let (mut held, mut last) = (self.bytes, self.base.index);
        for entry in &self.entries {
            if held <= bytes || entry.index() > through {
                break;
            }
            held -= held_bytes(entry);
            last = entry.index();
        }
        self.compact(last);
    }

    /// Forgets everything: an installed snapshot takes its place.
    pub(in crate::raft) fn reset(&mut self, base: LogId) {
        self.entries = VecDeque::new();
        self.bytes = 0;
        self.base = base;
        self.durable = base.index;
    }

    /// A queue that was long once does not keep its room when it is short.
    fn give_back_room(&mut self) {
        if self.entries.capacity() / 4 > self.entries.len() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Position of `index` among the entries held; `index` is above the base.
    fn offset(&self, index: LogIndex) -> usize {
        usize::try_from(index.since(self.base.index) - 1).expect("the log in memory is smaller than memory")
    }
}

fn held_bytes(entry: &Entry) -> u64 {
    entry.encoded_bytes() as u64 + ENTRY_OVERHEAD_BYTES
}
