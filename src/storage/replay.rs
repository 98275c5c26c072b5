//! Replays records: from what was written, in order, to what a core starts from.

use crate::raft::{Entry, HardState, LogId, LogIndex, SnapshotMeta, Term};
use crate::storage::batch::{BatchHeader, BatchMark};
use crate::storage::record::Record;
use crate::storage::segment::SegmentHeader;

/// The state that the log describes, up to some record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) hard_state: HardState,
    /// Markers, oldest first; all that the segments still hold.
    pub(crate) markers: Vec<SnapshotMeta>,
    /// The index before the first entry held.
    pub(crate) start: LogIndex,
    /// Its term; zero if a truncation left it unknown.
    pub(crate) start_term: Term,
    /// Contiguous, from `start + 1`.
    pub(crate) entries: Vec<Entry>,
    /// Entries up to here were known to be committed. At most the last index.
    pub(crate) commit: LogIndex,
}

impl Replay {
    /// The state before a segment's first batch.
    pub(crate) fn from_header(header: &SegmentHeader) -> Self {
        Self {
            hard_state: header.hard_state,
            markers: header.markers.clone(),
            start: header.last.index,
            start_term: header.last.term,
            entries: Vec::new(),
            commit: LogIndex::ZERO,
        }
    }

    /// The log's last index.
    pub(crate) fn last_index(&self) -> LogIndex {
        self.start.plus(self.entries.len() as u64)
    }

    /// The log's last entry. Its term is zero if a truncation left it unknown.
    pub(crate) fn last_id(&self) -> LogId {
        self.entries.last().map_or(LogId::new(self.start_term, self.start), Entry::id)
    }

    /// A batch, whose records were taken in, says what the log adds up to: it must be this.
    pub(crate) fn check_mark(&self, header: &BatchHeader) -> Result<(), String> {
        if header.mark == BatchMark::default() {
            // A seal.
            return Ok(());
        }
        let BatchMark { hard_state, end } = header.mark;
        let last = self.last_id();
        let same_term = last.term == end.term || last.term == Term::ZERO || end.term == Term::ZERO;
        if hard_state != self.hard_state || end.index != last.index || !same_term {
            let (found, said) = (self.hard_state, hard_state);
            return Err(format!(
                "the log adds up to {found:?} and ends at {last}, but the batch says {said:?} and {end}"
            ));
        }
        Ok(())
    }

    /// Takes in the next record.
    pub(crate) fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Vote(hard_state) => {
                if hard_state.term < self.hard_state.term {
                    return Err(format!(
                        "the term goes back from {} to {}",
                        self.hard_state.term, hard_state.term
                    ));
                }
                self.hard_state = hard_state;
            }
            Record::Truncate(from) => self.truncate(from),
            Record::Snapshot(meta) => self.mark(meta),
            Record::Entry(entry) => {
                let next = self.last_index().next();
                if entry.index() > next {
                    return Err(format!("entry {} follows entry {}", entry.id(), self.last_index()));
                }
                if entry.index() < next {
                    self.truncate(entry.index());
                }
                self.entries.push(entry);
            }
            Record::Seal(_) => {}
        }
        Ok(())
    }

    /// A batch, whose records were taken in, says what was known to be committed.
    pub(crate) fn note_commit(&mut self, commit: LogIndex) -> Result<(), String> {
        if commit > self.last_index() {
            return Err(format!(
                "entries up to {commit} were committed, but the log ends at {}",
                self.last_index()
            ));
        }
        self.commit = self.commit.max(commit);
        Ok(())
    }

    fn truncate(&mut self, from: LogIndex) {
        if from <= self.start {
            self.entries.clear();
            (self.start, self.start_term) = (from.previous(), Term::ZERO);
        } else {
            let keep = from.previous().since(self.start);
            self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        }
    }

    /// If the log agrees with a snapshot, it stays as it is (Raft figure 13, step 6: entries that
    /// follow are kept). If the log does not reach the snapshot, or contradicts it, the snapshot
    /// replaces the whole log (step 7).
    fn mark(&mut self, meta: SnapshotMeta) {
        let at = meta.last.index;
        let held = at > self.start && at <= self.last_index();
        let position = usize::try_from(at.since(self.start).saturating_sub(1)).unwrap_or(usize::MAX);
        let agrees = !held || self.entries.get(position).is_some_and(|entry| entry.id() == meta.last);
        if at > self.last_index() || !agrees {
            self.entries.clear();
            (self.start, self.start_term) = (at, meta.last.term);
        }
        self.markers.retain(|marker| marker.last != meta.last);
        self.markers.push(meta);
        self.markers.sort_by_key(|marker| marker.last.index);
    }
}
