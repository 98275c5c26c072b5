//! What a damaged data directory holds.

use crate::raft::{ClusterId, LogId, LogIndex, Membership, SnapshotMeta, StoreId};
use crate::storage::disk::Disk;
use crate::storage::error::{Damage, OpenError};
use crate::storage::identity::{DirectoryOwner, Identity, find};
use crate::storage::options::StorageOptions;
use crate::storage::recovery::{recover, segment_names};
use crate::storage::repair::notes::{check_started, read_peers};
use crate::storage::repair::sound::Sound;
use crate::storage::repair::walk::{Walked, is_unknown, walk};
use crate::storage::snapshot_file::SnapshotReader;
use crate::storage::snapshots::{SnapshotFiles, snapshot_id};
use crate::storage::start::{choose_snapshot, not_writable};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A damaged data directory, locked, and what is sound in it.
pub struct Survey<D: Disk> {
    pub(super) disk: D,
    pub(super) options: StorageOptions,
    /// The `--node-id`.
    pub(super) name: String,
    pub(super) identity: Option<Identity>,
    /// What is wrong, at least one thing.
    pub(super) damages: Vec<String>,
    /// The damaged files.
    pub(super) damaged_files: BTreeSet<PathBuf>,
    /// What the log says.
    pub(super) sound: Option<Sound>,
    /// Why the log alone does not say how it ended, or what this node had promised.
    pub(super) in_doubt: Option<String>,
    /// The newest start, and the random numbers of that start and those before it.
    pub(super) starts: (u64, Vec<u64>),
    /// The newest membership that was found.
    pub(super) membership: Option<Membership>,
    /// Where it stands in the log.
    pub(super) membership_at: LogIndex,
    /// Held as long as this is.
    pub(super) _lock: Box<dyn Send + Sync>,
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
    /// [`OpenError`] if the directory cannot be read or locked.
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
            Ok(DirectoryOwner::Identity(identity)) => Some(identity),
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
            in_doubt: None,
            starts: (0, Vec::new()),
            membership: None,
            membership_at: LogIndex::ZERO,
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
        }
        Ok(Some(survey))
    }

    /// Looks whether a directory is damaged. Changes nothing. `None` if it is sound.
    ///
    /// # Errors
    /// [`OpenError`] if it is in use, cannot be read, or cannot be used for another reason.
    pub fn inspect(disk: D, options: StorageOptions) -> Result<Option<Self>, OpenError> {
        let dir = options.dir.clone();
        let (name, found) = match find(&disk, &dir) {
            Ok(DirectoryOwner::Identity(identity)) => (identity.name.clone(), look(&disk, &dir, &identity)),
            Ok(_) => return Ok(None),
            Err(error) => (String::new(), Err(error)),
        };
        match found {
            Ok(()) => Ok(None),
            Err(error) => match Self::of(disk, options, &name, &error)? {
                Some(survey) => Ok(Some(survey)),
                None => Err(error),
            },
        }
    }

    /// Keeps what is whole from the beginning on, and gives up the rest. Returns what is kept, and
    /// the last entry that there was, as far as that can be told. `None` if what is left names no
    /// member: then it is no use.
    #[must_use]
    pub fn accept_loss(&self) -> Option<(Sound, LogId)> {
        let mut sound = self.sound.clone()?;
        let (kept, lost) = sound.accept_loss();
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

    /// What can be done.
    #[must_use]
    pub fn prognosis(&self) -> Prognosis {
        match (&self.in_doubt, &self.sound) {
            (None, Some(sound)) => Prognosis::Mendable(Box::new(sound.clone())),
            (Some(why), _) => Prognosis::Replaceable(why.clone()),
            (None, None) => Prognosis::Replaceable("nothing of the log can be read".into()),
        }
    }

    /// The raft addresses of the other members, as far as the directory tells them.
    #[must_use]
    pub fn peers(&self) -> Vec<String> {
        let members = self.membership.iter().flat_map(|membership| membership.members.values());
        let others = members.filter(|member| member.name != self.name);
        let mut peers: BTreeSet<String> = others.map(|member| member.raft_addr.clone()).collect();
        peers.extend(read_peers(&self.disk, &self.options.dir));
        peers.into_iter().collect()
    }

    fn read(&mut self, identity: &Identity) -> Result<(), OpenError> {
        let dir = &self.options.dir;
        let owner = Some((identity.cluster, identity.store));
        let wal_dir = identity.wal_dir(dir);
        let paths = if self.exists(&wal_dir)? { segment_names(&self.disk, &wal_dir)? } else { Vec::new() };
        let walked = walk(&self.disk, &paths, owner);
        let Walked { damages, certain, commit, mark, unknown_end, starts, memberships, markers, .. } = walked;
        for damage in damages {
            self.note_damage(&damage);
        }
        self.note_memberships(memberships);
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
                let walked = walk(&self.disk, &segment_names(&self.disk, &wal)?, None);
                self.note_memberships(walked.memberships);
            }
            self.note_snapshots(&snapshots)?;
        }
        self.in_doubt = Some("it is not known which member this directory belongs to".into());
        Ok(())
    }

    /// The members that the snapshots' headers name.
    fn note_snapshots(&mut self, dir: &Path) -> Result<(), OpenError> {
        if !self.exists(dir)? {
            return Ok(());
        }
        let listed = self.disk.list(dir).map_err(OpenError::io("listing", dir))?;
        for name in listed.into_iter().filter(|name| snapshot_id(name).is_some()) {
            if let Ok(reader) = SnapshotReader::open(&self.disk, &dir.join(name)) {
                let meta = &reader.header.meta;
                self.note_memberships(vec![(meta.membership_id.index, meta.membership.clone())]);
            }
        }
        Ok(())
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
    fn note_memberships(&mut self, memberships: Vec<(LogIndex, Membership)>) {
        for (index, membership) in memberships {
            if self.membership_at <= index {
                (self.membership_at, self.membership) = (index, Some(membership));
            }
        }
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenError> {
        self.disk.exists(path).map_err(OpenError::io("looking for", path))
    }
}

/// Reads what a start would read.
fn look<D: Disk>(disk: &D, dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    let wal_dir = identity.wal_dir(dir);
    let missing = || OpenError::LogMissing { dir: dir.to_path_buf(), wal: wal_dir.clone() };
    if !disk.exists(&wal_dir).map_err(OpenError::io("looking for", &wal_dir))? {
        return Err(missing());
    }
    let recovered = recover(disk, &wal_dir, identity.cluster, identity.store)?.ok_or_else(missing)?;
    check_started(disk, dir, recovered.tail.header.incarnation)?;
    let snapshot_dir = identity.snapshot_dir(dir);
    let files = SnapshotFiles::new(disk.clone(), snapshot_dir, identity.cluster, identity.store, false);
    choose_snapshot(&files, &recovered.replay, &recovered, &mut Vec::new()).map(|_| ())
}

impl<D: Disk> fmt::Debug for Survey<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey").field("damages", &self.damages).finish_non_exhaustive()
    }
}
