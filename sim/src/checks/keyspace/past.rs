//! How much of the past is kept, and what it says.

use crate::checks::keyspace::model::{Model, Sums};
use crate::record::violation::{Violation, check};
use infinitystore::kv::{ChangesQuery, Event, KeyRange, KeyValue, Op, Outcome, RangeQuery, Revision, Store};

/// A change takes no more than this in the history, beside its key and values.
const CHANGE_BYTES_MAX: u64 = 96;
/// A chunk of the history takes this much beside its records.
const CHUNK_BYTES: u64 = 256;
/// A chunk is full with a part of the limit, or with this.
const CHUNK_FULL_BYTES: u64 = 32 << 10;
const CHUNKS: u64 = 32;

impl Model {
    /// How many bytes of the history the changes of the next revision take.
    pub(super) fn count(&mut self, changes: &[Event], limit: u64) {
        self.full.push((limit / CHUNKS).min(CHUNK_FULL_BYTES));
        let length = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, |kv| kv.value.len() as u64);
        let least: u64 = changes
            .iter()
            .map(|event| event.key.len() as u64 + length(&event.now) + length(&event.previous))
            .sum();
        let most = least + CHANGE_BYTES_MAX * changes.len() as u64;
        self.least.push(self.least.last().copied().unwrap_or(0) + least);
        self.most.push(self.most.last().copied().unwrap_or(0) + most);
        self.largest = self.largest.max(most);
    }

    /// The history is cut short as far as it has to be, and no further.
    pub(super) fn compaction(
        &self,
        before: &Sums,
        now: &Sums,
        op: &Op,
        outcome: &Outcome,
    ) -> Result<(), Violation> {
        let (from, to) = (before.compacted, now.compacted);
        check!("a compaction goes ahead", from <= to && to <= now.revision, "from {from} to {to} of {now:?}");
        if let (Op::Compact(asked), Outcome::Compacted(_), false) = (op, outcome, now.is_repeated) {
            check!("a compaction goes as far as asked", to == asked.0, "{asked} was asked for; it is {to}");
            return Ok(());
        }
        let limit = now.settings.history_bytes;
        let place = |revision: u64| usize::try_from(revision).unwrap_or(usize::MAX);
        let kept = |sums: &[u64]| sums[place(now.revision)] - sums[place(to)];
        check!(
            "the history keeps to its bytes",
            self.shadow.history_bytes() <= limit && kept(&self.least) <= limit,
            "what came after revision {to} takes {} bytes at least ({} by its own account); {limit} may be kept",
            kept(&self.least),
            self.shadow.history_bytes()
        );
        if to == from {
            return Ok(());
        }
        // The chunk that went last did not fit.
        let full = self.full[place(to)];
        let since = &self.full[place(to)..];
        // Each change of the limit may begin another one.
        let limits = since.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64;
        let least_full = since.iter().copied().min().unwrap_or(0).max(1);
        let chunks = (kept(&self.most) / least_full + limits).min(now.revision - to) + 2;
        let most = kept(&self.most) + full + 2 * self.largest + CHUNK_BYTES * chunks;
        check!(
            "the history is kept while it fits",
            most > limit,
            "{op:?} forgot what was up to {to} (before: {from}) of {}; with it at most {most} bytes were kept, and {limit} may be",
            now.revision
        );
        Ok(())
    }

    /// The product's history has the changes of the newest revision.
    pub(super) fn same_changes(&self) -> Result<(), Violation> {
        let now = self.now();
        if now.compacted >= now.revision {
            return Ok(());
        }
        let query = everything(now.revision);
        let found = self.shadow.changes(&query);
        let right = &self.changes[usize::try_from(now.revision).unwrap_or(0)];
        check!(
            "the history says what changed",
            found
                .as_ref()
                .is_ok_and(|found| found.revisions.len() == 1 && found.revisions[0].events == *right),
            "revision {}: {found:?} should be {right:?}",
            now.revision
        );
        Ok(())
    }

    /// Whether all of a past state, and all that changed since the oldest one, is in a store.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_history(&self, store: &Store) -> Result<(), String> {
        let (compacted, revision) = (store.compacted().0, store.revision().0);
        let mut from = compacted + 1;
        while from <= revision {
            let query = everything(from);
            let changes = store.changes(&query).map_err(|error| error.to_string())?;
            for at in from..changes.next.0.min(revision + 1) {
                let right = self.wanted(&query, at);
                let found = changes.revisions.iter().find(|found| found.revision.0 == at);
                if found.is_none_or(|found| found.events != right) {
                    return Err(format!("at revision {at} changed {found:?} and should have {right:?}"));
                }
            }
            from = changes.next.0.max(from + 1);
        }
        for at in [compacted, compacted.midpoint(revision)] {
            let query = RangeQuery { at: Some(Revision(at)), ..RangeQuery::of(KeyRange::all()) };
            let (found, right) = (store.range(&query), self.page(&query, at, revision));
            if found.as_ref() != Ok(&right) {
                return Err(format!("at revision {at} was {found:?} and should have been {right:?}"));
            }
        }
        Ok(())
    }
}

/// Asks for all that changed from a revision on.
fn everything(from: u64) -> ChangesQuery {
    ChangesQuery { range: KeyRange::all(), from: Revision(from), puts: true, deletions: true, previous: true }
}
