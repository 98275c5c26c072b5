//! Sets a damaged directory aside, so that the node can join its cluster anew.

use crate::raft::Withdrawal;
use crate::storage::disk::Disk;
use crate::storage::error::OpenError;
use crate::storage::lost::{move_dir, move_files};
use crate::storage::repair::notes::{
    Rejoin, begin_aside, end_aside, note_rebuild, read_withdrawn, write_rejoin,
};
use crate::storage::repair::survey::Survey;
use std::path::{Path, PathBuf};

/// Numbers of such directories that are looked for, at least. A person may have removed some.
const ASIDE_MAX: usize = 64;

/// What is large of a member.
const LARGE: [&str; 4] = ["wal-1", "snapshots-1", "wal-2", "snapshots-2"];

/// How many directories that were set aside hold the note that they were not to be used.
pub(crate) fn times_rebuilt<D: Disk>(disk: &D, dir: &Path) -> usize {
    let holds_note =
        |number: &usize| disk.exists(&dir.join(format!("damaged-{number}/rebuild"))).unwrap_or(false);
    (1..=ASIDE_MAX).filter(holds_note).count()
}

/// Looks at the note that the member takes no part any more. If that is because its state differed
/// again and again, and a person has removed since what it had set aside, it is to join once more.
///
/// # Errors
/// [`OpenError`] if a note cannot be read or written; [`OpenError::Condemned`] if it is damaged.
pub(crate) fn settle_withdrawal<D: Disk>(disk: &D, dir: &Path, rebuilds_max: usize) -> Result<(), OpenError> {
    match read_withdrawn(disk, dir)? {
        Some(why @ Withdrawal::Diverged { .. }) if times_rebuilt(disk, dir) < rebuilds_max => {
            note_rebuild(disk, dir, &why.to_string())
        }
        _ => Ok(()),
    }
}

/// The directories that were set aside, and their numbers, oldest first. The last one has the
/// highest number that was ever given, unless a person has removed it.
pub(crate) fn all_aside<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<(usize, PathBuf)>, OpenError> {
    let mut found = Vec::new();
    for number in 1.. {
        let aside = dir.join(format!("damaged-{number}"));
        if disk.exists(&aside).map_err(OpenError::io("looking for", &aside))? {
            found.push((number, aside));
        } else if number > ASIDE_MAX {
            break;
        }
    }
    Ok(found)
}

/// Removes the logs and the snapshots of what was set aside, of all, or of all but the newest.
/// What says whose they were, and why they were set aside, stays: it is small, and is counted.
/// Returns the directories that had any.
///
/// The cluster has gone on without the members that these were: a leader with a quorum without them
/// had answered before they were set aside.
///
/// # Errors
/// [`OpenError`]. It may be tried again.
pub(crate) fn free_aside<D: Disk>(
    disk: &D,
    dir: &Path,
    keeps_newest: bool,
) -> Result<Vec<PathBuf>, OpenError> {
    let mut all = all_aside(disk, dir)?;
    if keeps_newest {
        all.pop();
    }
    let mut freed = Vec::new();
    for (_, aside) in all {
        let mut had_any = false;
        for name in LARGE {
            let large = aside.join(name);
            if disk.exists(&large).map_err(OpenError::io("looking for", &large))? {
                disk.remove_dir_all(&large).map_err(OpenError::io("removing", &large))?;
                had_any = true;
            }
        }
        if had_any {
            freed.push(aside);
        }
    }
    Ok(freed)
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
        let number = all_aside(&self.disk, &dir)?.last().map_or(1, |(number, _)| number + 1);
        let aside = dir.join(format!("damaged-{number}"));
        // Names that lead to what is moved are durable before it leaves its place.
        self.disk.create_dir_all(&aside).map_err(OpenError::io("creating", &aside))?;
        self.disk.sync_dir(&dir).map_err(OpenError::io("syncing the directory", &dir))?;
        for name in LARGE {
            move_dir(&self.disk, &dir.join(name), &aside.join(name))?;
        }
        for names in [["started", "called"], ["identity", "identity.creating"], ["rebuild", "withdrawn"]] {
            move_files(&self.disk, &dir, &aside, &names)?;
        }
        end_aside(&self.disk, &dir)?;
        Ok(aside)
    }
}
