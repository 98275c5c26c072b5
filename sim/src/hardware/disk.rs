//! A simulated disk: what a program sees (the page cache), and what a power loss would leave.
//!
//! Every sector of 512 bytes that was written and not synced may survive a power loss or not, each
//! for itself; so may every change of a directory. Sectors are atomic. A failed fsync leaves what
//! Linux leaves: the pages are marked clean, so that a second fsync succeeds without having written
//! anything.

use crate::hardware::disk_state::{
    DirectoryChange, DiskFaults, Inode, LostWrite, State, full, is_root, not_found,
};
use crate::hardware::file_image::{FileImage, SECTOR_BYTES};
use infinitystore::storage::{Disk, DiskFile};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So much of the damage strikes the end of the newest file, if it strikes a log or snapshots …
const ROT_AT_END: f64 = 0.4;
/// … in this many of its last sectors: a few batches of a log.
const LAST_SECTORS: usize = 24;

/// One node's disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: Inode,
}

/// What kind of damage [`SimDisk::rot`] did.
#[derive(Clone, Debug)]
pub struct Rot {
    /// The file.
    pub path: PathBuf,
    /// The byte.
    pub offset: usize,
}

/// What a disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Files.
    pub files: u64,
    /// Snapshots among them.
    pub snapshots: u64,
    /// Bytes.
    pub bytes: u64,
    /// Files that are open.
    pub handles: u64,
    /// Torn tails that were set aside.
    pub torn: u64,
}

impl SimDisk {
    /// Changes the faults in force.
    pub fn faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.lock_state().faults);
    }

    /// Whether something that is switched on has not struck yet, or goes on.
    #[must_use]
    pub fn armed(&self) -> bool {
        self.lock_state().faults != DiskFaults::default()
    }

    /// Whether a write that comes will land elsewhere, or nowhere, and succeed.
    #[must_use]
    pub fn will_misplace(&self) -> bool {
        let faults = &self.lock_state().faults;
        faults.misdirect || faults.misdirect_back || faults.lose_write
    }

    /// The machine stops: an acknowledged write is lost only if something durable tells of it;
    /// otherwise it is put back. Whether one is lost.
    pub fn settle_lost_write(&self) -> bool {
        let mut state = self.lock_state();
        let Some(lost) = state.lost.take() else { return false };
        if !lost.is_told
            && let Some(content) = state.contents.get_mut(&lost.inode)
        {
            content.write(&lost.bytes, lost.offset);
            content.sync();
        }
        lost.is_told
    }

    /// Whether there is no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lock_state().faults.full
    }

    /// The process died: locks are free, files stay as the page cache has them, unsynced as they
    /// are.
    pub fn process_died(&self) {
        let mut state = self.lock_state();
        state.locks.clear();
        state.faults.operations_left = None;
        state.faults.forget_single();
    }

    /// The power went: of what was not synced, any part survives.
    pub fn power_lost(&self, rng: &mut SmallRng) {
        let mut state = self.lock_state();
        let state = &mut *state;
        state.locks.clear();
        state.faults.operations_left = None;
        state.faults.forget_single();
        let keep_all = rng.random_range(0..4);
        let survives = |rng: &mut SmallRng| match keep_all {
            0 => false,
            1 => true,
            _ => rng.random(),
        };
        for change in std::mem::take(&mut state.changes) {
            if survives(rng) {
                state.durable.apply(&change);
            }
        }
        state.durable.drop_orphans();
        state.cached = state.durable.clone();
        state.are_names_seen = false;
        let linked: BTreeSet<Inode> = state.durable.files.values().copied().collect();
        state.contents.retain(|inode, _| linked.contains(inode));
        for content in state.contents.values_mut() {
            content.power_lost(|| survives(rng));
        }
    }

    /// Everything is gone: another disk was put in.
    pub fn wipe(&self) {
        *self.lock_state() = State::default();
    }

    /// A copy of all files, as the page cache has them, on another disk that has them for good.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.lock_state();
        let contents = state.contents.iter().map(|(inode, content)| {
            let mut bytes = vec![0; content.len()];
            let read = content.read(&mut bytes, 0);
            let mut copy = FileImage::default();
            copy.write(&bytes[..read], 0);
            copy.sync();
            (*inode, copy)
        });
        let names = state.cached.clone();
        let copy = State {
            contents: contents.collect(),
            cached: names.clone(),
            durable: names,
            next_inode: state.next_inode,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(copy)) }
    }

    /// Replaces everything by the content of `copy`. Not while a process has files open here.
    pub fn put_back(&self, copy: Self) {
        let copy = std::mem::take(&mut *copy.lock_state());
        *self.lock_state() = copy;
    }

    /// Flips one bit of a file whose path contains `part`, in the cache and on disk; `None` if
    /// there is no such file.
    pub fn rot(&self, part: &str, rng: &mut SmallRng) -> Option<Rot> {
        let mut state = self.lock_state();
        let candidates: Vec<(PathBuf, Inode)> = state
            .cached
            .files
            .iter()
            .filter(|(path, _)| path.to_string_lossy().contains(part) && !is_set_aside(Path::new(path)))
            .map(|(path, inode)| (PathBuf::from(path), *inode))
            .collect();
        // Often where something was written last: there, damage looks like a write that was cut
        // off.
        let at_end = rng.random_bool(ROT_AT_END);
        let is_numbered =
            |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit());
        let newest = candidates.iter().rev().find(|(path, _)| at_end && is_numbered(path));
        let drawn = || candidates.get(rng.random_range(0..candidates.len().max(1)));
        let (path, inode) = newest.or_else(drawn)?.clone();
        let content = state.contents.get_mut(&inode)?;
        let written = content.written_sectors();
        let first = if at_end { written.len().saturating_sub(LAST_SECTORS) } else { 0 };
        let sector = *written.get(rng.random_range(first..written.len().max(1)))?;
        let begin = sector * SECTOR_BYTES;
        let offset = begin + rng.random_range(0..(content.len() - begin).clamp(1, SECTOR_BYTES));
        content.flip(offset, 1 << rng.random_range(0..8));
        Some(Rot { path, offset })
    }

    /// Whether an operation failed for a simulated reason since the last call.
    #[must_use]
    pub fn troubled(&self) -> bool {
        std::mem::take(&mut self.lock_state().trouble)
    }

    /// Whether an operation has failed, without forgetting it.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        self.lock_state().trouble
    }

    /// Whether the power that was to last for some more operations is gone.
    #[must_use]
    pub fn power_gone(&self) -> bool {
        self.lock_state().faults.operations_left == Some(0)
    }

    /// Whether a file in any directory has that name, as the page cache has it.
    #[must_use]
    pub fn has_file(&self, name: &str) -> bool {
        let state = self.lock_state();
        state.cached.files.keys().any(|path| Path::new(path).file_name().is_some_and(|file| file == name))
    }

    /// Bytes of all files, as the page cache has them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock_state().contents.values().map(FileImage::len).sum()
    }

    /// Bytes of its longest snapshot.
    #[must_use]
    pub fn snapshot_bytes(&self) -> u64 {
        let state = self.lock_state();
        let is_snapshot = |path: &OsString| Path::new(path).extension() == Some(OsStr::new("snap"));
        let snapshots = state.cached.files.iter().filter(|(path, _)| is_snapshot(path));
        let lengths = snapshots.filter_map(|(_, inode)| state.contents.get(inode)).map(FileImage::len);
        lengths.max().unwrap_or(0) as u64
    }

    /// What it holds, as the page cache has it.
    #[must_use]
    pub fn usage(&self) -> DiskUsage {
        let state = self.lock_state();
        let is_snapshot = |path: &&OsString| Path::new(path).extension() == Some(OsStr::new("snap"));
        let is_torn = |path: &&OsString| path.to_string_lossy().contains(".torn-");
        let used = || state.cached.files.iter().filter(|(path, _)| !is_set_aside(Path::new(path)));
        let linked = used().filter_map(|(_, inode)| state.contents.get(inode));
        DiskUsage {
            files: used().count() as u64,
            snapshots: used().map(|(path, _)| path).filter(is_snapshot).count() as u64,
            torn: used().map(|(path, _)| path).filter(is_torn).count() as u64,
            // A file that was removed frees its room, although the disk may still bring it back
            // after a power loss.
            bytes: linked.map(|content| content.len() as u64).sum(),
            handles: state.handles,
        }
    }

    /// Directories that hold a file, as the page cache has it, by their own names. Not those that a
    /// node has set aside.
    #[must_use]
    pub fn directories(&self) -> BTreeSet<String> {
        let state = self.lock_state();
        let used = state.cached.files.keys().map(Path::new).filter(|path| !is_set_aside(path));
        let parents = used.filter_map(|path| path.parent()?.file_name());
        parents.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// Names of its files, without their directories. Not of those that a node has set aside.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let state = self.lock_state();
        let used = state.cached.files.keys().map(Path::new).filter(|path| !is_set_aside(path));
        let names = used.filter_map(|path| path.file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// Names of its files, as [`Self::names`], if any has changed since they were asked for in this
    /// way.
    #[must_use]
    pub fn changed_names(&self) -> Option<Vec<String>> {
        let is_seen = std::mem::replace(&mut self.lock_state().are_names_seen, true);
        (!is_seen).then(|| self.names())
    }

    /// How many fsyncs have been made.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock_state().syncs
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One operation: fails once the power is gone.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock_state();
        match &mut state.faults.operations_left {
            Some(0) => {
                state.trouble = true;
                return Err(io::Error::other("the power is gone"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }

    /// An operation on a directory.
    fn operate_on_names(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.operate()?;
        if std::mem::take(&mut state.faults.fail_name) {
            state.trouble = true;
            return Err(io::Error::other("simulated directory error"));
        }
        Ok(state)
    }
}

/// Whether a node has set a file aside: damaged ones are kept for people.
fn is_set_aside(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"damaged"))
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.operate()?;
        let missing: Vec<PathBuf> = dir
            .ancestors()
            .filter(|path| !is_root(path) && !state.cached.directories.contains(path.as_os_str()))
            .map(Path::to_path_buf)
            .collect();
        for path in missing.into_iter().rev() {
            state.change(DirectoryChange::CreateDirectory(path));
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        let mut state = self.operate_on_names()?;
        if state.faults.full {
            state.trouble = true;
            return Err(full());
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.contents.insert(inode, FileImage::default());
        state.change(DirectoryChange::Link(path.to_path_buf(), inode));
        state.handles += 1;
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let mut state = self.operate()?;
        let inode = *state.cached.files.get(path.as_os_str()).ok_or_else(|| not_found(path))?;
        state.handles += 1;
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.operate()?;
        if !is_root(dir) && !state.cached.directories.contains(dir.as_os_str()) {
            return Err(not_found(dir));
        }
        let files = state.cached.files.keys().map(Path::new);
        let inside = files.filter(|path| path.parent().is_some_and(|parent| parent.as_os_str() == dir));
        Ok(inside.filter_map(Path::file_name).map(PathBuf::from).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.operate()?;
        let path = path.as_os_str();
        Ok(state.cached.files.contains_key(path) || state.cached.directories.contains(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.operate_on_names()?;
        if !state.cached.files.contains_key(from.as_os_str()) {
            return Err(not_found(from));
        }
        state.change(DirectoryChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.operate_on_names()?;
        if !state.cached.files.contains_key(path.as_os_str()) {
            return Err(not_found(path));
        }
        state.change(DirectoryChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.operate()?.change(DirectoryChange::RemoveDirectory(dir.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.operate_on_names()?;
        let state = &mut *state;
        state.syncs += 1;
        let mut kept = Vec::new();
        for change in std::mem::take(&mut state.changes) {
            if change.is_in(dir) {
                state.durable.apply(&change);
            } else {
                kept.push(change);
            }
        }
        state.changes = kept;
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.operate()?;
        if state.locks.insert(path.to_path_buf(), ()).is_some() {
            return Err(io::Error::new(ErrorKind::WouldBlock, "locked by another process"));
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_path_buf() }))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock_state().locks.remove(&self.path);
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.lock_state();
        state.handles = state.handles.saturating_sub(1);
    }
}

impl SimFile {
    /// Whether this write is acknowledged and lost; notes that it comes behind one that was.
    fn loses_write(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        let mut state = self.disk.lock_state();
        if let Some(lost) = state.lost.as_mut().filter(|lost| lost.inode == self.inode) {
            lost.is_followed = true;
        }
        let is_off = state.faults.operations_left == Some(0) || state.faults.full || state.faults.fail_write;
        if is_off || !std::mem::take(&mut state.faults.lose_write) {
            return Ok(false);
        }
        let offset = usize::try_from(offset).map_err(|_| full())?;
        let bytes = bytes.to_vec();
        state.lost = Some(LostWrite { inode: self.inode, offset, bytes, is_followed: false, is_told: false });
        Ok(true)
    }

    fn with<T>(
        &self,
        act: impl FnOnce(&mut FileImage, &mut DiskFaults, &mut u64) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.operate()?;
        let state = &mut *state;
        // An inode without a name lives on while it is open; after a power loss it is gone, and so
        // is its process.
        let content = state.contents.entry(self.inode).or_default();
        let result = act(content, &mut state.faults, &mut state.syncs);
        // An operation that fails here fails by simulation.
        state.trouble |= result.is_err();
        result
    }

    fn synced(&self) -> io::Result<()> {
        self.with(|content, faults, syncs| {
            *syncs += 1;
            if std::mem::take(&mut faults.fail_sync) {
                content.fail_sync();
                return Err(io::Error::other("simulated fsync error"));
            }
            content.sync();
            Ok(())
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|content, faults, _| {
            if std::mem::take(&mut faults.fail_read) {
                return Err(io::Error::other("simulated read error"));
            }
            Ok(content.read(buffer, usize::try_from(offset).unwrap_or(usize::MAX)))
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.loses_write(bytes, offset)? {
            return Ok(());
        }
        self.with(|content, faults, _| {
            let keeps = std::mem::take(&mut faults.keeps);
            let at = usize::try_from(offset).map_err(|_| full())?;
            let written = faults.write(content, bytes.len(), offset);
            if written.is_err() && keeps > 0 {
                content.write(&bytes[..keeps.min(bytes.len())], at);
            }
            content.write(bytes, written?);
            Ok(())
        })
    }

    fn write_zeros_at(&self, length: usize, offset: u64) -> io::Result<()> {
        self.with(|content, faults, _| {
            let offset = faults.write(content, length, offset)?;
            content.write_zeros(length, offset);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|content, _, _| Ok(content.len() as u64))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|content, faults, _| {
            let length = usize::try_from(length).map_err(|_| full())?;
            if faults.full && length > content.len() {
                return Err(full());
            }
            content.set_len(length);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.synced()?;
        if let Some(lost) = self.disk.lock_state().lost.as_mut().filter(|lost| lost.inode == self.inode) {
            lost.is_told = lost.is_followed;
        }
        Ok(())
    }
}
