//! What a damaged data directory holds.

use crate::codec::FeatureLevel;
use crate::kv::Store;
use crate::raft::{ClusterId, LogId, LogIndex, Membership, SnapshotMeta, StoreId};
use crate::storage::disk::Disk;
use crate::storage::error::{Damage, OpenError, SnapshotError, says_nothing_of_the_disk};
use crate::storage::identity::{DirectoryOwner, Identity, find};
use crate::storage::options::StorageOptions;
use crate::storage::recovery::{recover, segment_names};
use crate::storage::repair::notes::{
    check_started, read_peers, read_peers_cluster, read_rebuild, read_rejoin, read_withdrawn,
};
use crate::storage::repair::run::Rest;
use crate::storage::repair::sound::Sound;
use crate::storage::repair::walk::{Walked, is_unknown, walk};
use crate::storage::replay::Replay;
use crate::storage::snapshot_file::SnapshotReader;
use crate::storage::snapshots::{SnapshotFiles, snapshot_id};
use crate::storage::start::{choose_snapshot, not_writable};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A damaged data directory, locked, and what is sound in it.
pub struct Survey<D: Disk> {
    pub(in crate::storage) disk: D,
    pub(in crate::storage) options: StorageOptions,
    /// The `--node-id`.
    pub(super) name: String,
    pub(super) identity: Option<Identity>,
    /// What is wrong, at least one thing.
    pub(super) damages: Vec<String>,
    /// The damaged files.
    pub(super) damaged_files: BTreeSet<PathBuf>,
    /// What the log says.
    pub(super) sound: Option<Sound>,
    /// Entries that the log had before damage. Of use only where nobody is left to ask: what has
    /// replaced them may be lost.
    uncertain: Vec<Rest>,
    /// Why the log alone does not say how it ended, or what this node had promised.
    pub(super) in_doubt: Option<String>,
    /// The directory as a whole is not to be used, whatever its log says.
    is_condemned: bool,
    /// The newest start, and the random numbers of that start and those before it.
    pub(in crate::storage) starts: (u64, Vec<u64>),
    /// The newest membership that was found.
    pub(super) membership: Option<Membership>,
    /// Where it stands in the log.
    pub(super) membership_at: LogIndex,
    /// The cluster that the files of the newest membership name, or else any file.
    pub(super) cluster_in_files: Option<ClusterId>,
    /// Without an identity: the generations, and whose files are in them.
    owners: BTreeSet<(u32, ClusterId, StoreId)>,
    /// Held as long as this is.
    pub(in crate::storage) _lock: Box<dyn Send + Sync>,
}

/// What can be done.
#[derive(Debug)]
pub enum Prognosis {
    /// It is known what is missing, if anything is.
    Mendable(Box<Sound>),
    /// It is not known what this node had acknowledged, or promised, and why. It cannot go on as
    /// the member that it was.
    Replaceable(String),
}

impl<D: Disk> Survey<D> {
    /// Reads all of a directory that could not be opened, and why not. Changes nothing. `None` if
    /// the error is no damage, and another process, person or program can help.
    ///
    /// # Errors
    /// [`OpenError`] if the directory cannot be read or locked, or is of another release.
    pub fn of(
        disk: D,
        options: StorageOptions,
        name: &str,
        error: &OpenError,
    ) -> Result<Option<Self>, OpenError> {
        let dir = options.dir.clone();
        // An identity of this format owns no file of another: a number in it is damaged.
        let is_other_format = match error {
            OpenError::NewerFormat { file, .. } | OpenError::OlderFormat { file, .. } => {
                file.extension().is_some_and(|end| end == "seg")
                    && matches!(find(&disk, &dir), Ok(DirectoryOwner::Identity(_)))
            }
            _ => false,
        };
        if !error.is_damage() && !is_other_format {
            return Ok(None);
        }
        let lock = disk.lock(&dir.join("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.clone() },
            _ => not_writable(&dir)(error),
        })?;
        let identity = match find(&disk, &dir) {
            Ok(DirectoryOwner::Identity(identity)) => {
                // What a later release has written is no damage.
                identity.check_level(&dir, options.speaks)?;
                Some(identity)
            }
            Err(error @ (OpenError::NewerFormat { .. } | OpenError::OlderFormat { .. })) => {
                return Err(error);
            }
            _ => None,
        };
        let mut survey = Self {
            disk,
            options,
            name: name.to_owned(),
            identity: identity.clone(),
            damages: vec![error.to_string()],
            damaged_files: BTreeSet::new(),
            sound: None,
            uncertain: Vec::new(),
            in_doubt: None,
            is_condemned: matches!(error, OpenError::Condemned { .. }),
            starts: (0, Vec::new()),
            membership: None,
            membership_at: LogIndex::ZERO,
            cluster_in_files: None,
            owners: BTreeSet::new(),
            _lock: lock,
        };
        match identity {
            Some(identity) => survey.read(&identity)?,
            None => survey.look_for_members()?,
        }
        if let OpenError::Condemned { why, .. } = error {
            survey.in_doubt = Some(why.clone());
        } else if survey.in_doubt.is_none()
            && let Err(OpenError::Condemned { why, .. }) = check_started(&survey.disk, &dir, survey.starts.0)
        {
            // Damage came before an older log was noticed.
            survey.in_doubt = Some(why);
            survey.is_condemned = true;
        }
        Ok(Some(survey))
    }

    /// Looks whether a directory is damaged, for a person who gives up what is lost. Changes
    /// nothing. `None` if it is sound.
    ///
    /// # Errors
    /// [`OpenError`] if it is in use, cannot be read, holds no data, or cannot be used for another
    /// reason.
    pub fn inspect(disk: D, options: StorageOptions) -> Result<Option<Self>, OpenError> {
        match judge(&disk, &options.dir) {
            Ok(()) => Ok(None),
            Err(error) => match Self::for_a_person(disk, options, &error)? {
                Some(survey) => Ok(Some(survey)),
                None => Err(error),
            },
        }
    }

    /// As [`Self::of`]. If the identity alone is lost, and the files agree on whose they are, that
    /// is taken for the identity. A node does not do that: it may have been replaced meanwhile.
    pub(crate) fn for_a_person(
        disk: D,
        options: StorageOptions,
        error: &OpenError,
    ) -> Result<Option<Self>, OpenError> {
        let name = match find(&disk, &options.dir) {
            Ok(DirectoryOwner::Identity(identity)) => identity.name,
            _ => String::new(),
        };
        let Some(mut survey) = Self::of(disk, options, &name, error)? else { return Ok(None) };
        if survey.identity.is_none()
            && let Some(identity) = survey.identity_in_files()
        {
            let in_doubt = survey.in_doubt.take();
            survey.name.clone_from(&identity.name);
            survey.identity = Some(identity.clone());
            survey.read(&identity)?;
            survey.in_doubt = survey.in_doubt.or(in_doubt);
        }
        if survey.in_doubt.is_none() {
            // It would be kept out of use after the repair, too.
            survey.in_doubt = read_rebuild(&survey.disk, &survey.options.dir)?;
        }
        Ok(Some(survey))
    }

    /// Whose directory this is by what its files say, if there is one generation, and all of them
    /// say the same.
    fn identity_in_files(&self) -> Option<Identity> {
        let mut owners = self.owners.iter();
        let (Some(&(generation, cluster, store)), None) = (owners.next(), owners.next()) else { return None };
        let members = &self.membership.as_ref()?.members;
        let (member, described) = members.iter().find(|(_, member)| member.store_id == store)?;
        let (member, name) = (*member, described.name.clone());
        // It is not known what the files speak of: no older release is to open them.
        Some(Identity { cluster, member, store, name, generation, level: FeatureLevel::NEWEST })
    }

    /// Keeps what is whole from the beginning on, and gives up the rest. Nobody may know whether
    /// the last entries that are kept were committed. Returns what is kept, and the last entry that
    /// there was, as far as that can be told. `None` if what is left names no member: then it is no
    /// use.
    #[must_use]
    pub fn accept_loss(&self) -> Option<(Sound, LogId)> {
        let mut sound = self.sound.clone()?;
        let (kept, lost) = sound.accept_loss(&self.uncertain);
        (kept != LogId::ZERO).then_some((sound, lost))
    }

    /// What is wrong, in words; at least one line.
    #[must_use]
    pub fn damages(&self) -> &[String] {
        &self.damages
    }

    /// The identity on record, if it can be read.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whose directory this seems to be. If its identity is lost that is what its files say, if all
    /// say the same: good enough to be told that the member was removed.
    #[must_use]
    pub fn supposed_identity(&self) -> Option<Identity> {
        let found = || self.identity_in_files().filter(|found| self.cluster() == Some(found.cluster));
        self.identity.clone().or_else(found)
    }

    /// The cluster that this directory's member was in, as far as anything in it says so.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        let (disk, dir) = (&self.disk, &self.options.dir);
        let rejoins = || read_rejoin(disk, dir).ok().flatten().and_then(|rejoin| rejoin.cluster);
        let identity = self.identity.as_ref().map(|identity| identity.cluster);
        identity.or_else(rejoins).or_else(|| read_peers_cluster(disk, dir)).or(self.cluster_in_files)
    }

    /// What can be done.
    #[must_use]
    pub fn prognosis(&self) -> Prognosis {
        match (&self.in_doubt, &self.sound) {
            (None, Some(sound)) => Prognosis::Mendable(Box::new(sound.clone())),
            (Some(why), _) => Prognosis::Replaceable(why.clone()),
            (None, None) => Prognosis::Replaceable("nothing of the log can be read".into()),
        }
    }

    /// What other nodes that repair theirs may have of this log, also if its end is in doubt: what
    /// stood before an entry that it had is certain, whatever came later. Nothing of a directory
    /// that is not to be used: what its member did may contradict the others.
    #[must_use]
    pub fn lendable(&self) -> Option<Sound> {
        let condemned = self.is_condemned
            || !matches!(read_rebuild(&self.disk, &self.options.dir), Ok(None))
            || !matches!(read_withdrawn(&self.disk, &self.options.dir), Ok(None));
        self.sound.clone().filter(|_| !condemned)
    }

    /// The newest membership that was found, committed or not.
    #[must_use]
    pub const fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// The raft addresses of the other members, as far as the directory tells them.
    #[must_use]
    pub fn peers(&self) -> Vec<String> {
        let members = self.membership.iter().flat_map(|membership| membership.members.values());
        let others = members.filter(|member| member.name != self.name);
        let mut peers: BTreeSet<String> = others.map(|member| member.raft_addr.clone()).collect();
        peers.extend(read_peers(&self.disk, &self.options.dir));
        // An attempt to set it aside may have moved the rest.
        let rejoin = read_rejoin(&self.disk, &self.options.dir).ok().flatten();
        peers.extend(rejoin.into_iter().flat_map(|rejoin| rejoin.peers));
        peers.into_iter().collect()
    }

    fn read(&mut self, identity: &Identity) -> Result<(), OpenError> {
        let dir = &self.options.dir;
        let owner = Some((identity.cluster, identity.store));
        let wal_dir = identity.wal_dir(dir);
        let paths = if self.exists(&wal_dir)? { segment_names(&self.disk, &wal_dir)? } else { Vec::new() };
        let walked = walk(&self.disk, &paths, owner)?;
        let Walked { damages, certain, uncertain, commit, mark, .. } = walked;
        let Walked { unknown_end, starts, memberships, markers, .. } = walked;
        self.uncertain = uncertain;
        for damage in damages {
            self.note_damage(&damage);
        }
        self.note_memberships(identity.cluster, memberships);
        self.note_snapshots(&identity.snapshot_dir(&self.options.dir))?;
        let end = mark.map(|mark| mark.end);
        let unknown =
            || end.filter(|end| is_unknown(*end)).map(|_| "the term of its last entry is lost".into());
        self.in_doubt = unknown_end.or_else(unknown);
        self.starts = starts.unwrap_or_default();
        if let Some(mark) = mark.filter(|mark| !is_unknown(mark.end)) {
            let mut sound = Sound::new(mark.hard_state, mark.end, commit, None, certain);
            self.choose_base(identity, &markers, &mut sound)?;
            self.sound = Some(sound);
        }
        Ok(())
    }

    /// Rests the log on the newest snapshot that is whole and joins it: one whose marker is in the
    /// log does; another one has to show it.
    fn choose_base(
        &mut self,
        identity: &Identity,
        markers: &[SnapshotMeta],
        sound: &mut Sound,
    ) -> Result<(), OpenError> {
        let snapshot_dir = identity.snapshot_dir(&self.options.dir);
        for meta in self.snapshots(&snapshot_dir, identity.cluster, identity.store)? {
            let verified = markers.contains(&meta).then(|| sound.end());
            if sound.supply_base(meta, verified).is_ok() {
                break;
            }
        }
        Ok(())
    }

    /// The snapshots in `dir` that are whole, newest first. Read one at a time.
    pub(super) fn snapshots(
        &mut self,
        dir: &Path,
        cluster: ClusterId,
        store: StoreId,
    ) -> Result<Vec<SnapshotMeta>, OpenError> {
        if !self.exists(dir)? {
            return Ok(Vec::new());
        }
        let files = SnapshotFiles::new(self.disk.clone(), dir.to_path_buf(), cluster, store, false);
        let listed = self.disk.list(dir).map_err(OpenError::io("listing", dir))?;
        let mut names: Vec<_> =
            listed.into_iter().filter_map(|name| snapshot_id(&name).map(|id| (id.index, name))).collect();
        names.sort();
        let mut whole = Vec::new();
        for (_, name) in names.into_iter().rev() {
            let path = dir.join(name);
            let found = SnapshotReader::open(&self.disk, &path).and_then(|reader| {
                let meta = reader.header.meta.clone();
                files.load(&meta).map(|_| meta)
            });
            match found {
                Ok(meta) => whole.push(meta),
                Err(SnapshotError::Io { operation, file, source }) if says_nothing_of_the_disk(&source) => {
                    return Err(OpenError::Io { operation, file, source });
                }
                Err(error) => {
                    self.damages.push(error.to_string());
                    self.damaged_files.insert(path);
                }
            }
        }
        Ok(whole)
    }

    /// Without an identity, nothing that is left can be used but the addresses of others.
    fn look_for_members(&mut self) -> Result<(), OpenError> {
        let dir = self.options.dir.clone();
        for generation in [1, 2] {
            let (wal, snapshots) =
                (dir.join(format!("wal-{generation}")), dir.join(format!("snapshots-{generation}")));
            if self.exists(&wal)? {
                let walked = walk(&self.disk, &segment_names(&self.disk, &wal)?, None)?;
                if let Some((cluster, store)) = walked.owner {
                    self.owners.insert((generation, cluster, store));
                    self.note_memberships(cluster, walked.memberships);
                }
            }
            for (cluster, store) in self.note_snapshots(&snapshots)? {
                self.owners.insert((generation, cluster, store));
            }
        }
        self.in_doubt = Some("it is not known which member this directory belongs to".into());
        Ok(())
    }

    /// Notes the members that the snapshots' headers name; returns whose they are.
    fn note_snapshots(&mut self, dir: &Path) -> Result<Vec<(ClusterId, StoreId)>, OpenError> {
        let mut owners = Vec::new();
        if !self.exists(dir)? {
            return Ok(owners);
        }
        let listed = self.disk.list(dir).map_err(OpenError::io("listing", dir))?;
        for name in listed.into_iter().filter(|name| snapshot_id(name).is_some()) {
            if let Ok(reader) = SnapshotReader::open(&self.disk, &dir.join(name)) {
                let meta = &reader.header.meta;
                let found = vec![(meta.membership_id.index, meta.membership.clone())];
                owners.push((reader.header.cluster, reader.header.store));
                self.note_memberships(reader.header.cluster, found);
            }
        }
        Ok(owners)
    }

    fn note_damage(&mut self, damage: &Damage) {
        self.damaged_files.insert(damage.file.clone());
        let text = damage.in_words();
        if !self.damages.iter().any(|known| known.starts_with(&text)) {
            self.damages.push(text);
        }
    }

    /// The membership that stands last counts. A directory without an identity may hold two logs;
    /// both name members of clusters that this node was in.
    fn note_memberships(&mut self, cluster: ClusterId, memberships: Vec<(LogIndex, Membership)>) {
        self.cluster_in_files.get_or_insert(cluster);
        for (index, membership) in memberships {
            if self.membership_at <= index {
                (self.membership_at, self.membership) = (index, Some(membership));
                self.cluster_in_files = Some(cluster);
            }
        }
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenError> {
        self.disk.exists(path).map_err(OpenError::io("looking for", path))
    }
}

/// What a start would find.
pub(crate) struct Looked {
    pub(crate) replay: Replay,
    pub(crate) snapshot: Option<SnapshotMeta>,
    /// The state machine at that snapshot.
    pub(crate) store: Store,
    /// The start that wrote the log last.
    pub(crate) start: u64,
}

/// Judges a directory as a start would. Changes nothing.
///
/// # Errors
/// [`OpenError`]: why a node would not start on it as it is.
pub fn judge<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    let refused = |why: &str| OpenError::io("looking at", dir)(io::Error::other(why.to_owned()));
    let identity = match find(disk, dir)? {
        DirectoryOwner::Identity(identity) => identity,
        DirectoryOwner::Nothing => {
            return Err(refused("it holds no node's data; name the directory that has `identity` in it"));
        }
        DirectoryOwner::Interrupted => {
            return Err(refused(
                "making it was interrupted, and it holds nothing yet; a start makes it anew",
            ));
        }
    };
    look(disk, dir, &identity)?;
    match read_rebuild(disk, dir)? {
        Some(why) => Err(OpenError::Condemned { dir: dir.to_path_buf(), why }),
        None => Ok(()),
    }
}

/// Reads what a start would read.
pub(crate) fn look<D: Disk>(disk: &D, dir: &Path, identity: &Identity) -> Result<Looked, OpenError> {
    let wal_dir = identity.wal_dir(dir);
    let missing = || OpenError::LogMissing { dir: dir.to_path_buf(), wal: wal_dir.clone() };
    if !disk.exists(&wal_dir).map_err(OpenError::io("looking for", &wal_dir))? {
        return Err(missing());
    }
    let mut recovered = recover(disk, &wal_dir, identity.cluster, identity.store)?.ok_or_else(missing)?;
    let start = recovered.tail.header.incarnation;
    check_started(disk, dir, start)?;
    let replay = std::mem::take(&mut recovered.replay);
    let snapshot_dir = identity.snapshot_dir(dir);
    let files = SnapshotFiles::new(disk.clone(), snapshot_dir, identity.cluster, identity.store, false);
    let (snapshot, store) = choose_snapshot(&files, &replay, &recovered, &mut Vec::new())?;
    Ok(Looked { replay, snapshot, store, start })
}

impl<D: Disk> fmt::Debug for Survey<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey").field("damages", &self.damages).finish_non_exhaustive()
    }
}
