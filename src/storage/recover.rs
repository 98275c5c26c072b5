//! What a member has of a cluster that has lost its majority for good, and a cluster of one made of
//! it.

use crate::kv::Store;
use crate::raft::{ClusterId, EntryKind, LogId, LogIndex, Member, Membership, Restored, StoreId};
use crate::replica::decode_proposal;
use crate::storage::data_dir::{Opened, Storage};
use crate::storage::disk::Disk;
use crate::storage::error::OpenError;
use crate::storage::identity::{Bootstrap, DirectoryOwner, Identity, find};
use crate::storage::options::StorageOptions;
use crate::storage::restore::RestoredState;
use std::fmt;
use std::io;

/// An open data directory of a member, and all that its log says.
pub struct Remains<D: Disk> {
    storage: Storage<D>,
    identity: Identity,
    membership: Membership,
    last: LogId,
    commit: LogIndex,
    /// With every entry of the log, also those of which nobody knows whether they were committed: a
    /// write that was acknowledged may be among them.
    store: Store,
}

impl<D: Disk> Remains<D> {
    /// Opens a directory that no node uses, as a start does.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn of(disk: D, options: StorageOptions) -> Result<Self, OpenError> {
        let dir = options.dir.clone();
        let DirectoryOwner::Identity(identity) = find(&disk, &dir)? else {
            let error = io::Error::other("it holds no node's data");
            return Err(OpenError::io("recovering", &dir)(error));
        };
        let bootstrap = Bootstrap {
            name: identity.name.clone(),
            cluster: identity.cluster,
            member: identity.member,
            store: identity.store,
            initial: Restored::default(),
        };
        let (storage, opened) = Storage::open(disk, options, &bootstrap)?;
        let Opened { identity, restored, mut store, .. } = opened;
        let snapshot = restored.snapshot.as_ref();
        let mut last = snapshot.map_or(LogId::ZERO, |meta| meta.last);
        let mut membership = snapshot.map(|meta| meta.membership.clone());
        let snapshot_index = last.index;
        for entry in restored.entries.iter().filter(|entry| entry.index() > snapshot_index) {
            last = entry.id();
            match entry.kind() {
                EntryKind::Command => {
                    // What does not decode is skipped by every member.
                    if let Ok((_, command)) = decode_proposal(entry.data()) {
                        store.apply(entry.term().get(), &command);
                    }
                }
                EntryKind::Membership => membership = Membership::decode(&entry.data()).ok().or(membership),
                EntryKind::Empty => {}
            }
        }
        let Some(membership) = membership else {
            let error = io::Error::other("its log names no members");
            return Err(OpenError::io("recovering", &dir)(error));
        };
        let commit = restored.commit.max(snapshot.map_or(LogIndex::ZERO, |meta| meta.last.index));
        Ok(Self { storage, identity, membership, last, commit, store })
    }

    /// Whose directory it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The names of the cluster's members.
    #[must_use]
    pub fn member_names(&self) -> Vec<&str> {
        self.membership.members.values().map(|member| member.name.as_str()).collect()
    }

    /// The last entry in its log.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.last
    }

    /// Entries up to here are known to be committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// Makes a cluster of one of it, in the same directory, by one rename: a crash leaves the old
    /// member or the new cluster. Nothing of the old cluster talks to it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn recover(self, cluster: ClusterId, store_id: StoreId) -> Result<Identity, OpenError> {
        let known = self.membership.members.get(&self.identity.member);
        let address =
            |of: fn(&Member) -> &String| known.map_or_else(String::new, |member| of(member).clone());
        let member = Member {
            name: self.identity.name.clone(),
            raft_addr: address(|member| &member.raft_addr),
            http_addr: address(|member| &member.http_addr),
            store_id,
        };
        self.storage.recover(RestoredState { cluster, member, last: self.last, store: self.store })
    }
}

impl<D: Disk> fmt::Debug for Remains<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remains")
            .field("identity", &self.identity)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}
