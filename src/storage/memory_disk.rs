//! A disk in memory that loses what was not synced, fails and fills up when it is told to.

use crate::storage::disk::{Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;

/// A file system in memory, for tests. It keeps two images of everything: what programs see, and
/// what a loss of power would leave. File contents become durable by 512-byte sectors, in any order
/// before a sync; names become durable one operation at a time. Clones share the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

/// An open file of a [`MemoryDisk`]; dead after [`MemoryDisk::crash`].
#[derive(Clone, Debug)]
pub struct MemoryFile {
    disk: MemoryDisk,
    inode: usize,
    epoch: u64,
}

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Writes to files.
    Write,
    /// [`DiskFile::sync_data`].
    SyncData,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::create`].
    Create,
    /// [`Disk::remove`].
    Remove,
    /// Reads of files.
    Read,
}

#[derive(Debug, Default)]
struct State {
    /// What programs see. Directories have no inode.
    names: BTreeMap<PathBuf, Option<usize>>,
    /// What a loss of power would leave.
    durable_names: BTreeMap<PathBuf, Option<usize>>,
    /// Operations on names that are not durable yet, in order, each with the directory it happened
    /// in.
    pending: Vec<(PathBuf, NameOperation)>,
    inodes: Vec<Inode>,
    locks: BTreeSet<PathBuf>,
    /// Grows with each crash: handles and locks of earlier epochs are dead.
    epoch: u64,
    faults: Vec<Fault>,
    /// Bytes of files that the disk does not give back.
    unreadable: Vec<(PathBuf, Range<u64>)>,
    capacity: Option<u64>,
    /// Changes left until the power fails; `None` if it does not.
    power: Option<u64>,
    changes: u64,
    syncs: u64,
}

#[derive(Clone, Debug)]
enum NameOperation {
    Link(PathBuf, Option<usize>),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
}

#[derive(Debug)]
struct Fault {
    kind: FaultKind,
    /// A part of the path: the fault hits only files whose path contains it.
    path: String,
    /// Operations that still succeed.
    after: u64,
    error: io::ErrorKind,
}

impl MemoryDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The power fails: of everything that was not synced, `keep` says what is left. It is asked
    /// once for each unsynced sector, length and operation on a name (with the number of the
    /// question). Files that were open are dead, locks are gone, faults are forgotten; then the
    /// power is back.
    pub fn crash(&self, mut keep: impl FnMut(u64) -> bool) {
        let mut state = self.state();
        let mut question = 0;
        let mut ask = || {
            question += 1;
            keep(question - 1)
        };
        for inode in &mut state.inodes {
            let inode = &mut *inode;
            let length = if inode.live.len() != inode.durable.len() && ask() {
                inode.live.len()
            } else {
                inode.durable.len()
            };
            let mut image = std::mem::take(&mut inode.durable);
            image.resize(length, 0);
            for &sector in &inode.dirty {
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(inode.live.len()).min(length);
                if range.start < range.end && ask() {
                    let live = &inode.live[range.clone()];
                    image[range].copy_from_slice(live);
                }
            }
            inode.live.clone_from(&image);
            inode.durable = image;
            inode.dirty.clear();
        }
        let pending = std::mem::take(&mut state.pending);
        let mut names = std::mem::take(&mut state.durable_names);
        for (_, operation) in pending {
            if ask() {
                operation.apply(&mut names);
            }
        }
        // Names below a directory that is not there are not there either.
        let whole: BTreeMap<PathBuf, Option<usize>> = names
            .iter()
            .filter(|(path, _)| parents_exist(&names, path))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        state.names.clone_from(&whole);
        state.durable_names = whole;
        state.locks.clear();
        state.forget_faults();
        state.power = None;
        state.epoch += 1;
    }

    /// The process ends without the power failing: files that were open are dead, locks are gone,
    /// and everything written is still seen, synced or not.
    pub fn kill(&self) {
        let mut state = self.state();
        state.locks.clear();
        state.forget_faults();
        state.power = None;
        state.epoch += 1;
    }

    /// From the `count`-th change on (writes, syncs, names), everything fails until [`Self::crash`]
    /// or [`Self::kill`].
    pub fn fail_power_after(&self, count: u64) {
        self.state().power = Some(count);
    }

    /// After `after` more that succeed, operations of this kind on paths that contain `path` fail,
    /// until [`Self::clear_faults`].
    pub fn fail(&self, kind: FaultKind, path: &str, after: u64, error: io::ErrorKind) {
        self.state().faults.push(Fault { kind, path: path.into(), after, error });
    }

    /// Reads of these bytes of the file fail, as those of a bad sector do, until
    /// [`Self::clear_faults`]. The rest of it is read as before, under this name.
    pub fn make_unreadable(&self, path: &Path, bytes: Range<u64>) {
        self.state().unreadable.push((path.to_path_buf(), bytes));
    }

    /// No more faults.
    pub fn clear_faults(&self) {
        self.state().forget_faults();
    }

    /// Limits the sum of the lengths of all files; growing beyond it fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Sum of the lengths of all files that have a name.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Changes so far: writes, syncs, operations on names.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// File syncs so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Every file, in order of path.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        state.names.iter().filter(|(_, node)| node.is_some()).map(|(path, _)| path.clone()).collect()
    }

    /// A file's content; `None` if it does not exist.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = (*state.names.get(path)?)?;
        Some(state.inodes[inode].live.clone())
    }

    /// Replaces the content of a file, durably, and creates the file if needed, as a failing disk
    /// or a person would.
    pub fn overwrite(&self, path: &Path, content: Vec<u8>) {
        let mut guard = self.state();
        let state = &mut *guard;
        let inode = state.names.get(path).copied().flatten().unwrap_or_else(|| {
            state.inodes.push(Inode::default());
            state.inodes.len() - 1
        });
        for names in [&mut state.names, &mut state.durable_names] {
            names.insert(path.to_path_buf(), Some(inode));
        }
        state.inodes[inode] = Inode { durable: content.clone(), live: content, dirty: BTreeSet::new() };
    }

    /// Flips one bit of a file, durably. `false` if there is no such byte.
    pub fn flip_bit(&self, path: &Path, byte: usize, bit: u8) -> bool {
        let mut state = self.state();
        let Some(inode) = state.names.get(path).copied().flatten() else { return false };
        let Inode { live, durable, .. } = &mut state.inodes[inode];
        let (Some(live), Some(durable)) = (live.get_mut(byte), durable.get_mut(byte)) else { return false };
        *live ^= 1 << (bit % 8);
        *durable ^= 1 << (bit % 8);
        true
    }

    /// A separate disk with the same content, all of it durable, and without faults.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.state();
        let durable = |inode: &Inode| Inode {
            live: inode.live.clone(),
            durable: inode.live.clone(),
            dirty: BTreeSet::new(),
        };
        Self(Arc::new(Mutex::new(State {
            names: state.names.clone(),
            durable_names: state.names.clone(),
            inodes: state.inodes.iter().map(durable).collect(),
            ..State::default()
        })))
    }

    /// The disk hangs until this is dropped.
    #[cfg(test)]
    pub(crate) fn hang(&self) -> impl Drop + '_ {
        self.state()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn used_bytes(&self) -> u64 {
        let inodes: BTreeSet<usize> = self.names.values().filter_map(|node| *node).collect();
        inodes.into_iter().map(|inode| self.inodes[inode].live.len() as u64).sum()
    }

    /// Counts a change, or fails it.
    fn change(&mut self, kind: FaultKind, path: &Path) -> io::Result<()> {
        if let Some(left) = &mut self.power {
            if *left == 0 {
                return Err(io::Error::other("the power is off"));
            }
            *left -= 1;
        }
        self.changes += 1;
        self.strike(kind, path)
    }

    /// Fails an operation, if it is to fail.
    fn strike(&mut self, kind: FaultKind, path: &Path) -> io::Result<()> {
        let path = path.to_string_lossy();
        for fault in self.faults.iter_mut().filter(|fault| fault.kind == kind && path.contains(&fault.path)) {
            if fault.after == 0 {
                return Err(fault.error.into());
            }
            fault.after -= 1;
        }
        Ok(())
    }

    /// Fails a read of a file that comes upon a bad sector.
    fn strike_read(&self, path: &Path, bytes: &Range<u64>) -> io::Result<()> {
        let is_bad = |(file, bad): &(PathBuf, Range<u64>)| {
            file == path && bad.start < bytes.end && bytes.start < bad.end
        };
        if self.unreadable.iter().any(is_bad) {
            return Err(io::Error::other("a sector cannot be read"));
        }
        Ok(())
    }

    fn forget_faults(&mut self) {
        self.faults.clear();
        self.unreadable.clear();
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        if parents_exist(&self.names, path) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn name(&mut self, operation: NameOperation) {
        let dir = match &operation {
            NameOperation::Link(path, _)
            | NameOperation::Unlink(path)
            | NameOperation::Rename(_, path, _) => parent(path),
        };
        operation.apply(&mut self.names);
        self.pending.push((dir, operation));
    }

    fn path_of(&self, inode: usize) -> PathBuf {
        let found = self.names.iter().find(|(_, node)| **node == Some(inode));
        found.map(|(path, _)| path.clone()).unwrap_or_default()
    }
}

impl NameOperation {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Option<usize>>) {
        match self {
            Self::Link(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Unlink(path) => names.retain(|name, _| !name.starts_with(path)),
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), Some(*inode));
            }
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The root and the working directory are always there.
fn is_root(path: &Path) -> bool {
    matches!(path.to_str(), Some("" | "/" | "."))
}

fn parents_exist(names: &BTreeMap<PathBuf, Option<usize>>, path: &Path) -> bool {
    path.ancestors().skip(1).all(|dir| is_root(dir) || matches!(names.get(dir), Some(None)))
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let mut missing: Vec<&Path> =
            dir.ancestors().filter(|dir| !is_root(dir) && !state.names.contains_key(*dir)).collect();
        missing.reverse();
        for dir in missing {
            state.change(FaultKind::Create, dir)?;
            state.name(NameOperation::Link(dir.to_path_buf(), None));
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<MemoryFile> {
        let mut state = self.state();
        state.check_parent(path)?;
        state.change(FaultKind::Create, path)?;
        let inode = match state.names.get(path) {
            Some(None) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(Some(inode)) => {
                let inode = *inode;
                state.inodes[inode].live.clear();
                inode
            }
            None => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.name(NameOperation::Link(path.to_path_buf(), Some(inode)));
                inode
            }
        };
        Ok(MemoryFile { disk: self.clone(), inode, epoch: state.epoch })
    }

    fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        let state = self.state();
        match state.names.get(path) {
            Some(Some(inode)) => Ok(MemoryFile { disk: self.clone(), inode: *inode, epoch: state.epoch }),
            Some(None) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        if !is_root(dir) && !matches!(state.names.get(dir), Some(None)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let within = |path: &&PathBuf| path.parent() == Some(dir);
        let files = state.names.iter().filter(|(_, node)| node.is_some()).map(|(path, _)| path);
        Ok(files.filter(within).filter_map(|path| path.file_name().map(PathBuf::from)).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(is_root(path) || self.state().names.contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check_parent(to)?;
        state.change(FaultKind::Rename, to)?;
        let inode = state.names.get(from).copied().flatten().ok_or(io::ErrorKind::NotFound)?;
        state.name(NameOperation::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(FaultKind::Remove, path)?;
        if !matches!(state.names.get(path), Some(Some(_))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name(NameOperation::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inside: Vec<PathBuf> = state.names.keys().filter(|path| path.starts_with(dir)).cloned().collect();
        for path in inside.into_iter().rev() {
            state.change(FaultKind::Remove, &path)?;
            state.name(NameOperation::Unlink(path));
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(FaultKind::SyncDir, dir)?;
        let (durable, pending) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|(of, _)| of == dir || (is_root(of) && is_root(dir)));
        state.pending = pending;
        let durable: Vec<(PathBuf, NameOperation)> = durable;
        for (_, operation) in durable {
            operation.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        drop(if self.exists(path)? { self.open(path)? } else { self.create(path)? });
        let mut state = self.state();
        if !state.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock { disk: self.clone(), path: path.to_path_buf(), epoch: state.epoch }))
    }
}

struct Lock {
    disk: MemoryDisk,
    path: PathBuf,
    epoch: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.epoch == self.epoch {
            state.locks.remove(&self.path);
        }
    }
}

impl MemoryFile {
    fn with<T>(&self, run: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.epoch != self.epoch {
            return Err(io::Error::other("the file was open when the power failed"));
        }
        run(&mut state, self.inode)
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, inode| {
            if !(state.faults.is_empty() && state.unreadable.is_empty()) {
                let path = state.path_of(inode);
                state.strike(FaultKind::Read, &path)?;
                state.strike_read(&path, &(offset..offset + buffer.len() as u64))?;
            }
            let live = &state.inodes[inode].live;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
            let count = buffer.len().min(live.len() - start);
            buffer[..count].copy_from_slice(&live[start..start + count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|state, inode| {
            let path = state.path_of(inode);
            state.change(FaultKind::Write, &path)?;
            let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let end = start + bytes.len();
            let grows = end.saturating_sub(state.inodes[inode].live.len()) as u64;
            if grows > 0 && state.capacity.is_some_and(|capacity| state.used_bytes() + grows > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let inode = &mut state.inodes[inode];
            if inode.live.len() < end {
                inode.live.resize(end, 0);
            }
            inode.live[start..end].copy_from_slice(bytes);
            if !bytes.is_empty() {
                inode.dirty.extend(start / SECTOR..=(end - 1) / SECTOR);
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state, inode| Ok(state.inodes[inode].live.len() as u64))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|state, inode| {
            let path = state.path_of(inode);
            state.change(FaultKind::Write, &path)?;
            let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let inode = &mut state.inodes[inode];
            let old = inode.live.len();
            inode.live.resize(length, 0);
            // A cut and regrown tail reads as zeros: those are changes like any other.
            inode.dirty.extend(old.min(length) / SECTOR..old.max(length).div_ceil(SECTOR));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, inode| {
            let path = state.path_of(inode);
            state.change(FaultKind::SyncData, &path)?;
            state.syncs += 1;
            let inode = &mut state.inodes[inode];
            let length = inode.live.len();
            inode.durable.resize(length, 0);
            for sector in std::mem::take(&mut inode.dirty) {
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(length);
                if range.start < range.end {
                    inode.durable[range.clone()].copy_from_slice(&inode.live[range]);
                }
            }
            Ok(())
        })
    }
}
