//! Sets a damaged directory aside, so that the node can join its cluster anew.

use crate::storage::disk::Disk;
use crate::storage::error::OpenError;
use crate::storage::repair::notes::{Rejoin, begin_aside, end_aside, write_rejoin};
use crate::storage::repair::survey::Survey;
use std::path::{Path, PathBuf};

/// Directories of that kind that are looked at.
const ASIDE_MAX: usize = 64;

/// How many directories that were set aside hold the note that they were not to be used.
pub(crate) fn times_rebuilt<D: Disk>(disk: &D, dir: &Path) -> usize {
    let holds_note =
        |number: &usize| disk.exists(&dir.join(format!("damaged-{number}/rebuild"))).unwrap_or(false);
    (1..=ASIDE_MAX).filter(holds_note).count()
}

impl<D: Disk> Survey<D> {
    /// Moves everything that is left of the member aside, within the directory; nothing is deleted.
    /// Before that, the directory says that the node has to join anew, and which cluster.
    ///
    /// What says whose directory it is goes last, and until then a note says that it is not to be
    /// used. So a start that comes upon half of it does not take that for a member, and knows which
    /// cluster to join.
    ///
    /// # Errors
    /// [`OpenError`]. It may be begun again then.
    pub fn set_aside(self, peers: &[String]) -> Result<PathBuf, OpenError> {
        let dir = self.options.dir.clone();
        write_rejoin(&self.disk, &dir, &Rejoin { cluster: self.cluster(), peers: peers.to_vec() })?;
        begin_aside(&self.disk, &dir)?;
        let mut number = 1;
        let mut aside = dir.join(format!("damaged-{number}"));
        while self.disk.exists(&aside).map_err(OpenError::io("looking for", &aside))? {
            number += 1;
            aside = dir.join(format!("damaged-{number}"));
        }
        // Names that lead to what is moved are durable before it leaves its place.
        self.disk.create_dir_all(&aside).map_err(OpenError::io("creating", &aside))?;
        self.disk.sync_dir(&dir).map_err(OpenError::io("syncing the directory", &dir))?;
        for generation in [1, 2] {
            for what in ["wal", "snapshots"] {
                let name = format!("{what}-{generation}");
                let (from, to) = (dir.join(&name), aside.join(&name));
                if self.disk.exists(&from).map_err(OpenError::io("looking for", &from))? {
                    self.disk.create_dir_all(&to).map_err(OpenError::io("creating", &to))?;
                    self.disk.sync_dir(&aside).map_err(OpenError::io("syncing the directory", &aside))?;
                    self.move_files(&from, &to, &[])?;
                    self.disk.remove_dir_all(&from).map_err(OpenError::io("removing", &from))?;
                }
            }
        }
        self.move_files(&dir, &aside, &["started", "called"])?;
        self.move_files(&dir, &aside, &["identity", "identity.creating"])?;
        self.move_files(&dir, &aside, &["rebuild", "withdrawn"])?;
        end_aside(&self.disk, &dir)?;
        Ok(aside)
    }

    /// Moves the files in `from` (those of these names, or all) to `to`, durably.
    fn move_files(&self, from: &Path, to: &Path, names: &[&str]) -> Result<(), OpenError> {
        let listed = self.disk.list(from).map_err(OpenError::io("listing", from))?;
        let wanted =
            listed.into_iter().filter(|name| names.is_empty() || names.iter().any(|n| Path::new(n) == name));
        for name in wanted {
            let target = to.join(&name);
            self.disk.rename(&from.join(&name), &target).map_err(OpenError::io("renaming", &target))?;
        }
        for dir in [to, from] {
            self.disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
        }
        Ok(())
    }
}
