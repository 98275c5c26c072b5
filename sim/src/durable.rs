//! What a machine's disk has to remember: an independent model of the log, fed with the writes that were acknowledged.
//!
//! It answers two questions. When a message leaves: is what it says durable? And after a restart: is what was recovered
//! exactly what was acknowledged, plus perhaps some writes that were under way, in order and none in part?

use infinitystore::raft::{HardState, LogId, LogIndex, LogRecords, Restored, Term};
use std::collections::BTreeMap;

/// The durable state of one member, as its acknowledged writes made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DurableModel {
    /// Term and vote.
    pub hard_state: HardState,
    /// The newest snapshot.
    pub snapshot: LogId,
    /// Terms of the entries; above the snapshot, and some below.
    pub log: BTreeMap<LogIndex, Term>,
}

/// What one write does, without its data.
#[derive(Clone, Debug, Default)]
pub struct WriteSketch {
    hard_state: Option<HardState>,
    truncate_from: Option<LogIndex>,
    snapshot: Option<LogId>,
    entries: Vec<LogId>,
}

impl WriteSketch {
    /// Of these records.
    #[must_use]
    pub fn of(records: &LogRecords) -> Self {
        Self {
            hard_state: records.hard_state,
            truncate_from: records.truncate_from,
            snapshot: records.snapshot.as_ref().map(|meta| meta.last),
            entries: records.entries.iter().map(infinitystore::raft::Entry::id).collect(),
        }
    }

    /// The snapshot that came with it did not verify: its marker, and what belongs to it, was left out.
    pub fn without_snapshot(&mut self) {
        self.snapshot = None;
        self.truncate_from = None;
    }

    /// The snapshot it marks.
    #[must_use]
    pub const fn snapshot(&self) -> Option<LogId> {
        self.snapshot
    }
}

impl DurableModel {
    /// What a first start made.
    #[must_use]
    pub fn of(restored: &Restored) -> Self {
        let log = restored.entries.iter().map(|entry| (entry.index(), entry.term())).collect();
        let snapshot = restored.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.last);
        Self { hard_state: restored.hard_state, snapshot, log }
    }

    /// A write became durable.
    pub fn apply(&mut self, write: &WriteSketch) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = write.truncate_from {
            self.log.split_off(&from);
        }
        if let Some(snapshot) = write.snapshot {
            self.snapshot = self.snapshot.max(snapshot);
        }
        for entry in &write.entries {
            self.log.insert(entry.index, entry.term);
        }
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> LogId {
        match self.log.last_key_value() {
            Some((&index, &term)) if index > self.snapshot.index => LogId::new(term, index),
            _ => self.snapshot,
        }
    }

    /// Whether this entry is in the log, or was compacted away.
    #[must_use]
    pub fn has(&self, id: LogId) -> bool {
        id.index <= self.snapshot.index || self.log.get(&id.index) == Some(&id.term)
    }

    /// Whether `restored` is what this model holds.
    fn explains(&self, restored: &Restored) -> bool {
        let snapshot = restored.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.last);
        // Two snapshots are kept: if the newer one's file cannot be read, the older one and the log between do as well.
        let last = restored.entries.last().map_or(snapshot, |entry| entry.id().max(snapshot));
        restored.hard_state == self.hard_state
            && snapshot <= self.snapshot
            && last == self.last()
            && restored.entries.iter().all(|entry| {
                entry.index() <= self.snapshot.index && !self.log.contains_key(&entry.index())
                    || self.log.get(&entry.index()) == Some(&entry.term())
            })
    }

    /// Compares what was recovered with what was acknowledged; `under_way` are the writes of the batch that was being written.
    ///
    /// # Errors
    /// What is missing, or should not be there.
    pub fn check_recovery(&self, under_way: &[WriteSketch], restored: &Restored) -> Result<Self, String> {
        let mut models = vec![self.clone()];
        for write in std::iter::once(&WriteSketch::default()).chain(under_way) {
            // Where a snapshot does not verify or finds no room, the rest of its write is written; of a batch that failed
            // nobody learns whether that was so.
            let mut without = models.clone();
            models.iter_mut().for_each(|model| model.apply(write));
            if write.snapshot.is_some() {
                let mut rest = write.clone();
                rest.without_snapshot();
                without.iter_mut().for_each(|model| model.apply(&rest));
                models.append(&mut without);
            }
            if let Some(position) = models.iter().position(|model| model.explains(restored)) {
                return Ok(models.swap_remove(position));
            }
        }
        let found = restored.entries.last().map_or(LogId::ZERO, infinitystore::raft::Entry::id);
        Err(format!(
            "recovered {:?}, log to {found}, snapshot {}; acknowledged were {:?}, log to {}, snapshot {} ({} writes were under way)",
            restored.hard_state,
            restored.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.last),
            self.hard_state,
            self.last(),
            self.snapshot,
            under_way.len(),
        ))
    }
}
