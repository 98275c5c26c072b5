//! What a member has of a cluster that has lost its majority for good, and a cluster of one made of
//! it.

use crate::kv::Store;
use crate::raft::{ClusterId, Entry, EntryKind, LogId, LogIndex, Member, Membership, SnapshotMeta, StoreId};
use crate::replica::decode_proposal;
use crate::storage::disk::Disk;
use crate::storage::error::OpenError;
use crate::storage::identity::{DirectoryOwner, Identity, find, make_generation, switch};
use crate::storage::lost::{keep_lost, note_lost};
use crate::storage::options::StorageOptions;
use crate::storage::repair::{
    Predecessor, Survey, forget_marks, look, note_predecessor, read_peers, read_predecessor, read_rebuild,
    read_started, read_withdrawn, settle_identity,
};
use crate::storage::restore::{FIRST_MEMBER, fill};
use crate::storage::snapshots::SnapshotFiles;
use crate::storage::start::{not_writable, snapshot_failed};
use std::collections::BTreeSet;
use std::fmt;
use std::io;

/// The data directory of a member, locked, and all that its log says. Nothing in it was changed.
pub struct Remains<D: Disk> {
    disk: D,
    options: StorageOptions,
    identity: Identity,
    membership: Membership,
    last: LogId,
    commit: LogIndex,
    /// The newest start that the log names.
    start: u64,
    /// With every entry of the log, also those of which nobody knows whether they were committed: a
    /// write that was acknowledged may be among them.
    store: Store,
    /// Why no node would use it as it is.
    warnings: Vec<String>,
    /// Whether a part of what stands here is given up.
    is_damaged: bool,
    /// Held as long as this is.
    _lock: Box<dyn Send + Sync>,
}

/// A log, on the way to a state.
struct Replayed {
    store: Store,
    last: LogId,
    membership: Option<Membership>,
}

impl Replayed {
    fn of<'e>(
        (base, store): (Option<&SnapshotMeta>, Store),
        entries: impl IntoIterator<Item = &'e Entry>,
    ) -> Self {
        let last = base.map_or(LogId::ZERO, |meta| meta.last);
        let mut replayed = Self { store, last, membership: base.map(|meta| meta.membership.clone()) };
        for entry in entries.into_iter().filter(|entry| entry.index() > last.index) {
            replayed.apply(entry);
        }
        replayed
    }

    fn apply(&mut self, entry: &Entry) {
        self.last = entry.id();
        match entry.kind() {
            EntryKind::Command => {
                // What does not decode is skipped by every member.
                if let Ok((_, command)) = decode_proposal(entry.data()) {
                    self.store.apply(entry.term().get(), &command);
                }
            }
            EntryKind::Membership => {
                self.membership = Membership::decode(&entry.data()).ok().or(self.membership.take());
            }
            EntryKind::Level => {
                if let Some(level) = entry.level() {
                    self.store.raise_level(level);
                }
            }
            EntryKind::Empty => {}
        }
    }
}

impl<D: Disk> Remains<D> {
    /// Reads a directory that no node uses, as a start does, and changes nothing. Of one that is
    /// damaged it takes what is whole from the beginning on.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn of(disk: D, options: StorageOptions) -> Result<Self, OpenError> {
        let dir = options.dir.clone();
        let refused = |why: &str| OpenError::io("recovering", &dir)(io::Error::other(why.to_owned()));
        if let Ok(DirectoryOwner::Nothing | DirectoryOwner::Interrupted) = find(&disk, &dir) {
            return Err(refused("it holds no node's data"));
        }
        let lock = disk.lock(&dir.join("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.clone() },
            _ => not_writable(&dir)(error),
        })?;
        let looked = match find(&disk, &dir) {
            Ok(DirectoryOwner::Identity(identity)) => {
                look(&disk, &dir, &identity).map(|found| (identity, found))
            }
            Ok(_) => return Err(refused("it holds no node's data")),
            Err(error) => Err(error),
        };
        let (identity, found) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                drop(lock);
                return Self::of_damaged(disk, options, &error)?.ok_or(error);
            }
        };
        let replayed = Replayed::of((found.snapshot.as_ref(), found.store), &found.replay.entries);
        let Some(membership) = replayed.membership else { return Err(refused("its log names no members")) };
        let covered = found.snapshot.map_or(LogIndex::ZERO, |meta| meta.last.index);
        let mut warnings = Vec::new();
        warnings.extend(read_rebuild(&disk, &dir)?);
        match read_withdrawn(&disk, &dir) {
            Ok(why) => warnings.extend(why.map(|why| why.to_string())),
            Err(error) => warnings.push(error.to_string()),
        }
        Ok(Self {
            identity,
            membership,
            last: replayed.last,
            commit: found.replay.commit.max(covered),
            start: found.start,
            store: replayed.store,
            warnings,
            is_damaged: false,
            disk,
            options,
            _lock: lock,
        })
    }

    /// As [`Self::of`]; `None` if the error is no damage, or nothing is left.
    fn of_damaged(disk: D, options: StorageOptions, error: &OpenError) -> Result<Option<Self>, OpenError> {
        let dir = options.dir.clone();
        let Some(survey) = Survey::for_a_person(disk, options, error)? else { return Ok(None) };
        let (Some((sound, lost)), Some(identity)) = (survey.accept_loss(), survey.identity().cloned()) else {
            return Ok(None);
        };
        let mut warnings = survey.damages().to_vec();
        let kept = sound.end();
        warnings.push(if lost.index > kept.index {
            format!(
                "entries {} to {} of its log are LOST, and what may have come after them",
                kept.index.next(),
                lost.index
            )
        } else {
            format!("what may have come after entry {} of its log is LOST", kept.index)
        });
        let Survey { disk, options, starts, _lock: lock, .. } = survey;
        let files = SnapshotFiles::new(
            disk.clone(),
            identity.snapshot_dir(&dir),
            identity.cluster,
            identity.store,
            false,
        );
        let base = sound.base();
        let store =
            base.map_or_else(|| Ok(Store::new()), |meta| files.load(meta).map_err(snapshot_failed))?;
        let replayed = Replayed::of((base, store), sound.entries().iter());
        let Some(membership) = replayed.membership else { return Ok(None) };
        Ok(Some(Self {
            identity,
            membership,
            last: replayed.last,
            commit: sound.commit().min(replayed.last.index),
            start: starts.0,
            store: replayed.store,
            warnings,
            is_damaged: true,
            disk,
            options,
            _lock: lock,
        }))
    }

    /// Why no node would use it as it is; nothing, if one would.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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

    /// Makes a cluster of one of it, in the same directory: in a new generation of directories, by
    /// one rename of the identity. A crash leaves the old member or the new cluster. Nothing of the
    /// old cluster talks to it. What stood here stays until the next start; if it was damaged, it
    /// moves to `lost-N`, and stays there.
    ///
    /// # Errors
    /// [`OpenError`]; the directory is the old member's or the new cluster's. If it is the new
    /// cluster's, the recovery may have to be repeated.
    pub fn recover(self, cluster: ClusterId, store_id: StoreId) -> Result<Identity, OpenError> {
        let Self { disk, options, identity: old, membership, last, start, store, is_damaged, .. } = self;
        let dir = &options.dir;
        let known = membership.members.get(&old.member);
        let address =
            |of: fn(&Member) -> &String| known.map_or_else(String::new, |member| of(member).clone());
        let member = Member {
            name: old.name.clone(),
            raft_addr: address(|member| &member.raft_addr),
            http_addr: address(|member| &member.http_addr),
            store_id,
        };
        let generation = old.other_generation();
        let (name, level) = (old.name.clone(), old.level.max(store.level()));
        let identity = Identity { cluster, member: FIRST_MEMBER, store: store_id, name, generation, level };
        let alone = Membership::bootstrap([member])
            .map_err(|why| OpenError::io("describing the only member of", dir)(io::Error::other(why)))?;
        let incarnation = start.max(read_started(&disk, dir));
        settle_identity(&disk, dir, &old)?;
        make_generation(&disk, dir, generation)?;
        fill(&disk, &options, &identity, incarnation, (last, alone, store))?;
        // A recovery that is repeated is one of the same cluster.
        let is_repeated = membership.members.len() < 2 && read_predecessor(&disk, dir).is_some();
        if !is_repeated {
            let others = membership.members.iter().filter(|(id, _)| **id != old.member);
            let mut peers: BTreeSet<String> = others.map(|(_, member)| member.raft_addr.clone()).collect();
            peers.extend(read_peers(&disk, dir));
            let predecessor = Predecessor { cluster: old.cluster, peers: peers.into_iter().collect() };
            note_predecessor(&disk, dir, &predecessor)?;
        }
        if is_damaged {
            note_lost(&disk, dir, old.generation)?;
        }
        switch(&disk, dir, &identity)?;
        // Until then they kept the old member out.
        forget_marks(&disk, dir)?;
        keep_lost(&disk, dir, old.generation)?;
        Ok(identity)
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
