//! What a simulated disk holds, in the page cache and on the platter, and the faults that are on.

use crate::hardware::file_image::FileImage;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

pub(super) type Inode = u64;

/// A change of a directory that has not been synced.
#[derive(Clone, Debug)]
pub(super) enum DirectoryChange {
    CreateDirectory(PathBuf),
    RemoveDirectory(PathBuf),
    Link(PathBuf, Inode),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// Names, as one view of the disk has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Paths, compared as bytes: that is faster than by component.
    pub(super) directories: BTreeSet<OsString>,
    pub(super) files: BTreeMap<OsString, Inode>,
}

/// Faults that are switched on from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Nothing that needs new room succeeds.
    pub full: bool,
    /// The next fsync fails.
    pub fail_sync: bool,
    /// The next write fails.
    pub fail_write: bool,
    /// The next write lands one block further on.
    pub misdirect: bool,
    /// The next write that fails leaves this many of its bytes.
    pub keeps: usize,
    /// The next write lands one block before its place.
    pub misdirect_back: bool,
    /// The next write is acknowledged, and lost.
    pub lose_write: bool,
    /// The next read fails.
    pub fail_read: bool,
    /// The next change of a directory fails, or its sync.
    pub fail_name: bool,
    /// After this many more operations the power is gone: every operation fails.
    pub operations_left: Option<u32>,
}

impl DiskFaults {
    /// Switches off the faults that strike once and have not struck yet.
    pub const fn forget_single(&mut self) {
        (self.fail_sync, self.fail_write, self.keeps) = (false, false, 0);
        (self.misdirect, self.misdirect_back, self.lose_write) = (false, false, false);
        (self.fail_read, self.fail_name) = (false, false);
    }

    /// What becomes of a write: where it goes.
    pub(super) fn write(&mut self, content: &FileImage, length: usize, offset: u64) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_err(|_| full())?;
        if std::mem::take(&mut self.fail_write) {
            return Err(io::Error::other("simulated write error"));
        }
        if self.full && offset + length > content.len() {
            return Err(full());
        }
        if std::mem::take(&mut self.misdirect_back) {
            return Ok(offset.saturating_sub(4096));
        }
        Ok(if std::mem::take(&mut self.misdirect) { offset + 4096 } else { offset })
    }
}

/// A write that was acknowledged and lost, until its machine stops.
#[derive(Debug)]
pub(super) struct LostWrite {
    pub(super) inode: Inode,
    pub(super) offset: usize,
    pub(super) bytes: Vec<u8>,
    /// Something was written behind it.
    pub(super) is_followed: bool,
    /// And synced: something durable tells of it.
    pub(super) is_told: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) cached: Names,
    pub(super) durable: Names,
    pub(super) changes: Vec<DirectoryChange>,
    pub(super) contents: BTreeMap<Inode, FileImage>,
    pub(super) next_inode: Inode,
    pub(super) locks: BTreeMap<PathBuf, ()>,
    pub(super) faults: DiskFaults,
    /// A write that was acknowledged and lost.
    pub(super) lost: Option<LostWrite>,
    /// A fault was met since the last look.
    pub(super) trouble: bool,
    /// How many operations have been made, for coverage.
    pub(super) syncs: u64,
    /// Open files.
    pub(super) handles: u64,
    /// Names are as they were when they were last looked at.
    pub(super) are_names_seen: bool,
}

impl State {
    pub(super) fn change(&mut self, change: DirectoryChange) {
        self.cached.apply(&change);
        self.are_names_seen = false;
        self.changes.push(change);
    }
}

impl DirectoryChange {
    /// Whether it is durable once `dir` is synced.
    pub(super) fn is_in(&self, dir: &Path) -> bool {
        let is_in = |path: &PathBuf| path.parent().is_some_and(|parent| parent.as_os_str() == dir);
        match self {
            Self::CreateDirectory(path)
            | Self::RemoveDirectory(path)
            | Self::Link(path, _)
            | Self::Remove(path) => is_in(path),
            Self::Rename(from, to) => is_in(from) || is_in(to),
        }
    }
}

impl Names {
    pub(super) fn apply(&mut self, change: &DirectoryChange) {
        match change {
            DirectoryChange::CreateDirectory(path) => {
                self.directories.insert(path.clone().into());
            }
            DirectoryChange::RemoveDirectory(path) => {
                self.directories.retain(|directory| !Path::new(directory).starts_with(path));
                self.files.retain(|file, _| !Path::new(file).starts_with(path));
            }
            DirectoryChange::Link(path, inode) => {
                self.files.insert(path.clone().into(), *inode);
            }
            DirectoryChange::Rename(from, to) => {
                if let Some(inode) = self.files.remove(from.as_os_str()) {
                    self.files.insert(to.clone().into(), inode);
                }
            }
            DirectoryChange::Remove(path) => {
                self.files.remove(path.as_os_str());
            }
        }
    }

    /// A file whose directory never became durable is gone with it.
    pub(super) fn drop_orphans(&mut self) {
        let directories = self.directories.clone();
        let exists = |path: &Path| is_root(path) || directories.contains(path.as_os_str());
        self.directories.retain(|directory| Path::new(directory).ancestors().skip(1).all(exists));
        self.files.retain(|file, _| Path::new(file).parent().is_none_or(exists));
    }
}

pub(super) fn is_root(path: &Path) -> bool {
    path.parent().is_none()
}

pub(super) fn not_found(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("{}: no such file", path.display()))
}

pub(super) fn full() -> io::Error {
    io::Error::new(ErrorKind::StorageFull, "no space left on the simulated disk")
}
