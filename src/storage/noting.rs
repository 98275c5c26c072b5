//! What a node notes in its open data directory, beside its log.

use crate::raft::{ClusterId, NodeId, Withdrawal};
use crate::storage::data_dir::Storage;
use crate::storage::disk::Disk;
use crate::storage::error::OpenError;
use crate::storage::repair::{
    free_aside, note_alarms, note_called, note_peers, note_rebuild, note_started, note_withdrawn,
    times_rebuilt,
};
use std::path::{Path, PathBuf};

impl<D: Disk> Storage<D> {
    /// Notes where the other members are, for a repair that finds nothing else that says so.
    ///
    /// # Errors
    /// [`OpenError`]; the storage goes on.
    pub fn note_peers(&self, peers: &[String]) -> Result<(), OpenError> {
        note_peers(&self.disk, &self.options.dir, self.identity.cluster, peers)
    }

    /// Writes down the alarms that stand, a line each.
    ///
    /// # Errors
    /// [`OpenError`]; the storage goes on.
    pub fn note_alarms(&self, alarms: &[String]) -> Result<(), OpenError> {
        note_alarms(&self.disk, &self.options.dir, alarms)
    }

    /// Notes that this directory is not to be used as it is, and why: the next start sets it aside,
    /// and joins its cluster anew.
    ///
    /// # Errors
    /// [`OpenError`]; then it is not noted.
    pub fn note_rebuild(&self, why: &str) -> Result<(), OpenError> {
        note_rebuild(&self.disk, &self.options.dir, why)
    }

    /// How often the data of this node was set aside because of such a note, as far as it is still
    /// there.
    #[must_use]
    pub fn times_rebuilt(&self) -> usize {
        times_rebuilt(&self.disk, &self.options.dir)
    }

    /// Makes room: of the data that was set aside, removes all but the newest, or that too if there
    /// is nothing else. Which directories it was in.
    ///
    /// # Errors
    /// [`OpenError`]; the storage goes on.
    pub fn free_aside(&self) -> Result<Vec<PathBuf>, OpenError> {
        let freed = free_aside(&self.disk, &self.options.dir, true)?;
        if freed.is_empty() { free_aside(&self.disk, &self.options.dir, false) } else { Ok(freed) }
    }

    /// Notes, durably, that this member takes no part any more, and why: no start of it does.
    ///
    /// # Errors
    /// [`OpenError`]; then it is not noted.
    pub fn note_withdrawn(&self, why: &Withdrawal) -> Result<(), OpenError> {
        note_withdrawn(&self.disk, &self.options.dir, why)
    }

    /// Notes that another cluster calls this node, which has nothing of its own, as its member.
    ///
    /// # Errors
    /// [`OpenError`]; the storage goes on.
    pub fn note_called(&self, cluster: ClusterId, member: NodeId) -> Result<(), OpenError> {
        note_called(&self.disk, &self.options.dir, (cluster, member))
    }

    /// The identity, or the note of the newest start, was found gone or damaged: it is written anew
    /// if that is so. `None`: the file is another one.
    ///
    /// # Errors
    /// [`OpenError`] if it could not be written; the storage goes on, and it may be tried again.
    pub fn mend_note(&mut self, file: &Path) -> Option<Result<(), OpenError>> {
        let notes = self.log.wanted().notes().filter(|notes| notes.has(file))?;
        let promised = self.earlier_promise.0.max(self.options.promised_micros);
        Some(notes.mend(&self.disk, file, promised))
    }

    /// What an earlier start promised is over if this one ran for that long: the next one need not
    /// wait for it.
    pub(super) fn forget_earlier_promise(&mut self) {
        let (micros, since) = self.earlier_promise;
        let own = self.options.promised_micros;
        if micros > own && self.options.clock.now_micros().saturating_sub(since) > micros {
            // If that fails, the note that is there says more, and the next start waits for
            // nothing.
            self.earlier_promise = (own, since);
            let _ = note_started(&self.disk, &self.options.dir, self.log.incarnation(), own);
        }
    }
}
