//! Which files a data directory has to hold, as the log knows it. A directory alone does not say
//! which of its files were removed by somebody else.

use crate::raft::{LogId, SnapshotMeta};
use crate::storage::identity::Identity;
use crate::storage::own_notes::OwnNotes;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The files that have to be there. All clones are one: the log keeps the list, and scrubbing reads
/// it.
///
/// Invariant: a file is put on the list when it has its name, and taken off it before it loses that
/// name. So a file that is on the list after it was not found is missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedFiles(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    /// Segments that are complete.
    sealed: BTreeSet<PathBuf>,
    /// The segment that is being written.
    active: Option<PathBuf>,
    /// The snapshots whose markers are durable: two at most.
    snapshots: Vec<LogId>,
    /// The identity, and the number of the newest start.
    notes: Option<OwnNotes>,
}

impl WantedFiles {
    /// The list of a log that has just been opened.
    pub(crate) fn set(&self, sealed: BTreeSet<PathBuf>, active: PathBuf, markers: &[SnapshotMeta]) {
        let mut files = self.lock();
        (files.sealed, files.active) = (sealed, Some(active));
        files.snapshots = markers.iter().map(|marker| marker.last).collect();
    }

    /// The notes of the directory, which has just been opened.
    pub(crate) fn set_notes(&self, notes: OwnNotes) {
        self.lock().notes = Some(notes);
    }

    /// The identity may be any of these: it is about to change, or has.
    pub(crate) fn expect_identity(&self, identities: &[&Identity]) {
        if let Some(notes) = &mut self.lock().notes {
            notes.expect(identities);
        }
    }

    /// The notes of the directory; `None` once the log is closed.
    pub(crate) fn notes(&self) -> Option<OwnNotes> {
        self.lock().notes.clone()
    }

    /// The segment that was being written is complete, and the next one is there.
    pub(crate) fn go_on_in(&self, next: &Path) {
        let mut files = self.lock();
        let sealed = files.active.replace(next.to_path_buf());
        files.sealed.extend(sealed);
    }

    /// A segment is about to go.
    pub(crate) fn forget_segment(&self, path: &Path) {
        self.lock().sealed.remove(path);
    }

    /// The marker of a snapshot is durable.
    pub(crate) fn add_snapshot(&self, last: LogId) {
        let mut files = self.lock();
        if !files.snapshots.contains(&last) {
            files.snapshots.push(last);
        }
    }

    /// The snapshots of other markers are about to go.
    pub(crate) fn keep_snapshots(&self, markers: &[SnapshotMeta]) {
        self.lock().snapshots.retain(|last| markers.iter().any(|marker| marker.last == *last));
    }

    /// The log is closed, and its directory may be another's.
    pub(crate) fn clear(&self) {
        *self.lock() = Files::default();
    }

    /// The segments that are complete, oldest first, and the snapshots.
    pub(crate) fn at_rest(&self) -> (Vec<PathBuf>, Vec<LogId>) {
        let files = self.lock();
        (files.sealed.iter().cloned().collect(), files.snapshots.clone())
    }

    /// The segment that is being written.
    pub(crate) fn active(&self) -> Option<PathBuf> {
        self.lock().active.clone()
    }

    /// Whether this is a note that has to be there.
    pub(crate) fn has_note(&self, path: &Path) -> bool {
        self.lock().notes.as_ref().is_some_and(|notes| notes.has(path))
    }

    /// Whether a segment has to be there.
    pub(crate) fn has_segment(&self, path: &Path) -> bool {
        let files = self.lock();
        files.sealed.contains(path) || files.active.as_deref() == Some(path)
    }

    /// Whether a snapshot has to be there.
    pub(crate) fn has_snapshot(&self, last: LogId) -> bool {
        self.lock().snapshots.contains(&last)
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        // Plain lists: consistent wherever a panic could have struck.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
