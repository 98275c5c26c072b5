//! A data directory made of a state: a cluster of one that goes on where the state ends.

use crate::kv::Store;
use crate::raft::{ClusterId, HardState, LogId, LogIndex, Member, Membership, NodeId, Restored, Term};
use crate::replica::SnapshotSave;
use crate::storage::disk::Disk;
use crate::storage::error::OpenError;
use crate::storage::identity::{
    DirectoryOwner, Identity, begin_restore, check_name, end_restore, find, is_of_restore, make_generation,
};
use crate::storage::options::StorageOptions;
use crate::storage::repair::{PREDECESSOR, Predecessor, is_note, note_predecessor};
use crate::storage::snapshots::SnapshotFiles;
use crate::storage::start::{make_dir, make_log, not_writable, snapshot_failed};
use std::io;
use std::path::Path;

/// The id of the member that makes a cluster of itself.
pub(crate) const FIRST_MEMBER: NodeId = NodeId::new(1);
/// The name of the file that a running node locks. It holds nothing.
const LOCK: &str = "lock";

/// A state that a new cluster begins with.
#[derive(Clone, Debug)]
pub struct RestoredState {
    /// The new cluster.
    pub cluster: ClusterId,
    /// The cluster that the state comes from, if there was one. If anything of it still runs, there
    /// would be two.
    pub predecessor: Option<ClusterId>,
    /// Its only member.
    pub member: Member,
    /// The last entry that is in the state: the new cluster's log goes on behind it.
    pub last: LogId,
    /// The state.
    pub store: Store,
}

/// Makes a data directory of a state. It must not exist, be empty, or be what an interrupted
/// restore has left.
///
/// # Errors
/// [`OpenError`]. What was written is no data then, and no node starts on it.
pub fn restore<D: Disk>(
    disk: &D,
    options: &StorageOptions,
    state: RestoredState,
) -> Result<Identity, OpenError> {
    let RestoredState { cluster, predecessor, member, last, store } = state;
    let dir = &options.dir;
    check_name(&member.name)?;
    let last = if last.index == LogIndex::ZERO { LogId::new(Term::new(1), LogIndex::new(1)) } else { last };
    let identity = Identity {
        cluster,
        member: FIRST_MEMBER,
        store: member.store_id,
        name: member.name.clone(),
        generation: 1,
        level: store.level(),
    };
    let membership = Membership::bootstrap([member])
        .map_err(|why| OpenError::io("describing the only member of", dir)(io::Error::other(why)))?;
    if !options.speaks.contains(identity.level) {
        let why = format!(
            "the backup is of a cluster at feature level {}, and this program speaks {}: use the release that saved it, \
             or a newer one",
            identity.level, options.speaks
        );
        return Err(OpenError::io("restoring to", dir)(io::Error::other(why)));
    }
    refuse_data(disk, dir)?;
    make_dir(disk, dir)?;
    let _lock = disk.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.clone() },
        _ => not_writable(dir)(error),
    })?;
    // Once more: now nobody else makes it.
    refuse_data(disk, dir)?;
    begin_restore(disk, dir, &identity)?;
    make_generation(disk, dir, 2).and_then(|()| make_generation(disk, dir, 1))?;
    fill(disk, options, &identity, 0, (last, membership, store))?;
    if let Some(predecessor) = predecessor {
        note_predecessor(disk, dir, &Predecessor { cluster: predecessor, peers: Vec::new() })?;
    }
    end_restore(disk, dir)?;
    Ok(identity)
}

/// Fills the empty directories of a generation: a snapshot of the state, and a log that begins
/// behind it.
pub(crate) fn fill<D: Disk>(
    disk: &D,
    options: &StorageOptions,
    identity: &Identity,
    incarnation: u64,
    (last, membership, store): (LogId, Membership, Store),
) -> Result<(), OpenError> {
    let dir = identity.snapshot_dir(&options.dir);
    let files = SnapshotFiles::new(disk.clone(), dir, identity.cluster, identity.store, false);
    let save = SnapshotSave { last, membership, membership_id: last, store };
    let meta = files.save(save).map_err(snapshot_failed)?;
    let initial = Restored {
        hard_state: HardState { term: last.term, voted_for: None },
        snapshot: Some(meta),
        ..Restored::default()
    };
    make_log(disk, options, identity, incarnation, &initial)
}

/// Refuses a directory that has anything in it.
fn refuse_data<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    if !disk.exists(dir).map_err(OpenError::io("looking for", dir))? {
        return Ok(());
    }
    let not_empty = || OpenError::NotEmpty { dir: dir.to_path_buf() };
    match find(disk, dir) {
        Ok(DirectoryOwner::Nothing) => {}
        Err(OpenError::RestoreInterrupted { .. }) => {}
        Ok(_) | Err(OpenError::IdentityMissing { .. } | OpenError::IdentityDamaged { .. }) => {
            return Err(not_empty());
        }
        Err(error) => return Err(error),
    }
    let is_left = |name: &Path| is_of_restore(name) || is_note(name, PREDECESSOR);
    let listed = disk.list(dir).map_err(OpenError::io("listing", dir))?;
    if listed.iter().any(|name| name != Path::new(LOCK) && !is_left(name)) {
        Err(not_empty())
    } else {
        Ok(())
    }
}
