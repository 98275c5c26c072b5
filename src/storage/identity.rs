//! The identity of a data directory: one small readable file.

use crate::codec::{FeatureLevel, FeatureLevels, checksum};
use crate::raft::{ClusterId, NodeId, Restored, StoreId};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::error::OpenError;
use crate::storage::format::{format_of, level_of};
use crate::storage::lost::{forget_lost, keep_lost};
use crate::storage::names::STARTED;
use crate::storage::segment::read_whole;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

pub(super) const FILE: &str = "identity";
/// Exists while a new data directory is being made. It lets a start tell an interrupted creation
/// from a lost identity.
const CREATING: &str = "identity.creating";
/// Exists until a directory is made of a backup: a start is not to make an empty one there.
const RESTORING: &str = "identity.restoring";
const WRITING: &str = "identity.tmp";
const TITLE: &str = "infinitystore identity";
const IDENTITY_NAME_BYTES_MAX: usize = 255;

/// The node that a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member id in it.
    pub member: NodeId,
    /// The data directory's own id.
    pub store: StoreId,
    /// The `--node-id`.
    pub name: String,
    /// Which of the two pairs of directories, `wal-<generation>` and `snapshots-<generation>`, is
    /// in use: 1 or 2.
    pub generation: u32,
    /// The level of the cluster that the log or a snapshot speaks of, at most. An older release
    /// does not open the directory: it would misread what it does not know.
    pub level: FeatureLevel,
}

/// What a data directory starts from, if it is a new one.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The `--node-id`. Checked against the one on record if the directory is not new.
    pub name: String,
    /// Id of the cluster of one that a new directory makes; random.
    pub cluster: ClusterId,
    /// The member's id in it.
    pub member: NodeId,
    /// Id of the new data directory; random.
    pub store: StoreId,
    /// The log of that cluster, as `raft::bootstrap_log` makes it; without a snapshot.
    pub initial: Restored,
}

impl Identity {
    /// Where the log is.
    pub(crate) fn wal_dir(&self, dir: &Path) -> PathBuf {
        generation_dirs(dir, self.generation)[0].clone()
    }

    /// Where the snapshots are.
    pub(crate) fn snapshot_dir(&self, dir: &Path) -> PathBuf {
        generation_dirs(dir, self.generation)[1].clone()
    }

    /// Refuses a directory with what a release that speaks these levels would misread.
    pub(crate) fn check_level(&self, dir: &Path, speaks: FeatureLevels) -> Result<(), OpenError> {
        if speaks.contains(self.level) {
            return Ok(());
        }
        Err(OpenError::other_format(&dir.join(FILE), format_of(self.level), speaks))
    }

    /// The other generation, which a node uses once another cluster has absorbed it.
    pub(crate) fn other_generation(&self) -> u32 {
        3 - self.generation
    }

    pub(super) fn to_text(&self) -> String {
        let Self { cluster, member, store, name, generation, level } = self;
        let format = format_of(*level);
        let mut text = format!(
            "{TITLE}\nformat = {format}\ncluster = {cluster}\nmember = {member}\nstore = {store}\nname = {name}\ngeneration = {generation}\n"
        );
        let sum = checksum(text.as_bytes());
        writeln!(text, "checksum = {sum:08x}").expect("writing to a string does not fail");
        text
    }

    pub(super) fn parse(text: &[u8], file: &Path) -> Result<Self, OpenError> {
        let damaged = |why: &str| OpenError::IdentityDamaged { file: file.to_path_buf(), why: why.into() };
        let text = std::str::from_utf8(text).map_err(|_| damaged("it is not text"))?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(damaged("its first line is not the one it has to be"));
        }
        let mut field = |key: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.ok_or_else(|| damaged(&format!("the line {key:?} is missing")))
        };
        let format: u32 = field("format")?.parse().map_err(|_| damaged("its format is no number"))?;
        let Some(level) = level_of(format) else {
            // A checksum that fits a format of this program says that the number alone is damaged.
            let known = FeatureLevel::OLDEST.get()..=FeatureLevel::NEWEST.get();
            let fits = known.into_iter().any(|ours| {
                let ours = text.replacen(&format!("format = {format}\n"), &format!("format = {ours}\n"), 1);
                let sum = ours.rsplit_once("checksum = ").map(|(body, _)| checksum(body.as_bytes()));
                sum.is_some_and(|sum| ours.ends_with(&format!("checksum = {sum:08x}\n")))
            });
            if fits {
                return Err(damaged("its format is not the one that its checksum covers"));
            }
            return Err(OpenError::other_format(file, format, FeatureLevels::OF_THIS_RELEASE));
        };
        let hexadecimal =
            |value: &str| u128::from_str_radix(value, 16).map_err(|_| damaged("an id is no number"));
        let decimal = |value: &str| value.parse::<u64>().map_err(|_| damaged("an id is no number"));
        let identity = Self {
            cluster: ClusterId(hexadecimal(field("cluster")?)?),
            member: NodeId::new(decimal(field("member")?)?),
            store: StoreId(hexadecimal(field("store")?)?),
            name: field("name")?.to_owned(),
            generation: field("generation")?.parse().map_err(|_| damaged("its generation is no number"))?,
            level,
        };
        // The whole text is compared: another spelling of the same fields is refused, even if its
        // checksum matches.
        if identity.to_text() != text || !matches!(identity.generation, 1 | 2) {
            return Err(damaged("its lines do not match its checksum"));
        }
        Ok(identity)
    }
}

/// What a data directory says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryOwner {
    /// Nothing: it is new.
    Nothing,
    /// An earlier start was interrupted while it made the directory.
    Interrupted,
    /// It belongs to a node.
    Identity(Identity),
}

/// Reads the identity. Changes nothing.
pub(crate) fn find<D: Disk>(disk: &D, dir: &Path) -> Result<DirectoryOwner, OpenError> {
    let path = dir.join(FILE);
    if let Some(text) = read_if_there(disk, &path)? {
        return Identity::parse(&text, &path).map(DirectoryOwner::Identity);
    }
    let restoring = dir.join(RESTORING);
    if disk.exists(&restoring).map_err(OpenError::io("looking for", &restoring))? {
        return Err(OpenError::RestoreInterrupted { dir: dir.to_path_buf() });
    }
    let mut leftovers = Vec::new();
    for generation in [1, 2] {
        for left in generation_dirs(dir, generation) {
            if disk.exists(&left).map_err(OpenError::io("looking for", &left))? {
                leftovers.push(left);
            }
        }
    }
    let creating = dir.join(CREATING);
    let interrupted = match read_if_there(disk, &creating)? {
        Some(text) => Identity::parse(&text, &creating).is_ok(),
        None => false,
    };
    // A start is noted in a directory that has its identity. The one cannot be there without the
    // other: a new cluster made here would be condemned by that note.
    let started = dir.join(STARTED);
    if leftovers.is_empty() && disk.exists(&started).map_err(OpenError::io("looking for", &started))? {
        return Err(OpenError::IdentityMissing { dir: dir.to_path_buf(), found: started });
    }
    match leftovers.into_iter().next() {
        None => Ok(DirectoryOwner::Nothing),
        Some(_) if interrupted => Ok(DirectoryOwner::Interrupted),
        Some(found) => Err(OpenError::IdentityMissing { dir: dir.to_path_buf(), found }),
    }
}

/// Checks a `--node-id`.
pub(crate) fn check_name(name: &str) -> Result<(), OpenError> {
    let good =
        !name.is_empty() && name.len() <= IDENTITY_NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if good { Ok(()) } else { Err(OpenError::BadName { name: name.into() }) }
}

/// Says, durably, that the data directory is being made of a backup.
pub(crate) fn begin_restore<D: Disk>(disk: &D, dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    write(disk, dir, WRITING, identity)?;
    put_in_place(disk, dir, WRITING, RESTORING)?;
    begin_creation(disk, dir, identity)
}

/// Whether a file of that name is what an interrupted restore has left.
pub(crate) fn is_of_restore(name: &Path) -> bool {
    [RESTORING, CREATING, WRITING].iter().any(|left| name == Path::new(left))
}

/// The directory that was made of a backup is whole, and has its identity.
pub(crate) fn end_restore<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    end_creation(disk, dir)?;
    let path = dir.join(RESTORING);
    disk.remove(&path).map_err(OpenError::io("removing", &path))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))
}

/// Says, durably, that the data directory is being made: before anything else is written into it.
pub(crate) fn begin_creation<D: Disk>(disk: &D, dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    // By rename: an earlier start that was interrupted may have left such a file, which still
    // vouches for what that start had begun.
    write(disk, dir, WRITING, identity)?;
    put_in_place(disk, dir, WRITING, CREATING)
}

/// Makes the identity the data directory's own, by one rename: everything it names is complete and
/// synced.
pub(crate) fn end_creation<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    put_in_place(disk, dir, CREATING, FILE)
}

/// Replaces the identity by another one, by one rename: a crash leaves either the old or the new
/// one.
pub(crate) fn switch<D: Disk>(disk: &D, dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    write(disk, dir, WRITING, identity)?;
    put_in_place(disk, dir, WRITING, FILE)
}

/// Removes what an interrupted creation or adoption left behind, beside the identity's own
/// generation.
pub(crate) fn remove_leftovers<D: Disk>(disk: &D, dir: &Path, identity: &Identity) -> Result<(), OpenError> {
    let mut removed = remove_generation(disk, dir, identity.other_generation())?;
    forget_lost(disk, dir)?;
    for name in [CREATING, WRITING, RESTORING] {
        let path = dir.join(name);
        if disk.exists(&path).map_err(OpenError::io("looking for", &path))? {
            disk.remove(&path).map_err(OpenError::io("removing", &path))?;
            removed = true;
        }
    }
    if removed {
        disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    }
    Ok(())
}

/// Makes the empty directories of a generation, durably; what stood there before is gone, durably
/// too.
pub(crate) fn make_generation<D: Disk>(disk: &D, dir: &Path, generation: u32) -> Result<(), OpenError> {
    if remove_generation(disk, dir, generation)? {
        disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))?;
    }
    for path in generation_dirs(dir, generation) {
        disk.create_dir_all(&path).map_err(OpenError::io("creating", &path))?;
    }
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))
}

fn remove_generation<D: Disk>(disk: &D, dir: &Path, generation: u32) -> Result<bool, OpenError> {
    keep_lost(disk, dir, generation)?;
    let mut removed = false;
    for path in generation_dirs(dir, generation) {
        if disk.exists(&path).map_err(OpenError::io("looking for", &path))? {
            disk.remove_dir_all(&path).map_err(OpenError::io("removing", &path))?;
            removed = true;
        }
    }
    Ok(removed)
}

fn generation_dirs(dir: &Path, generation: u32) -> [PathBuf; 2] {
    [dir.join(format!("wal-{generation}")), dir.join(format!("snapshots-{generation}"))]
}

fn write<D: Disk>(disk: &D, dir: &Path, name: &str, identity: &Identity) -> Result<(), OpenError> {
    let path = dir.join(name);
    let file = disk.create(&path).map_err(OpenError::io("creating", &path))?;
    file.write_at(identity.to_text().as_bytes(), 0).map_err(OpenError::io("writing", &path))?;
    file.sync_data().map_err(OpenError::io("syncing", &path))
}

fn put_in_place<D: Disk>(disk: &D, dir: &Path, from: &str, to: &str) -> Result<(), OpenError> {
    let path = dir.join(to);
    disk.rename(&dir.join(from), &path).map_err(OpenError::io("renaming into place", &path))?;
    disk.sync_dir(dir).map_err(OpenError::io("syncing the directory", dir))
}

fn read_if_there<D: Disk>(disk: &D, path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    match read_whole(disk, path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io("reading", path)(error)),
    }
}
