//! The disk as the storage sees it. The operating system's file system implements it, and so do
//! disks for tests and for the simulator.

use std::io;
use std::path::{Path, PathBuf};

/// A file system, as far as a data directory needs one. Synchronous. Nothing is durable until the
/// file's [`DiskFile::sync_data`] and, for names, the directory's [`Disk::sync_dir`] have returned.
/// An implementation waits out a shortage of file descriptors, so that an error of any of these
/// operations is the disk's.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Creates a directory and its parents; no error if it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Creates a file, or empties it.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens an existing file for reading alone: that needs no right to write it.
    fn open_to_read(&self, path: &Path) -> io::Result<Self::File> {
        self.open(path)
    }
    /// Names of the files (not directories) directly in `dir`, in order.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether a file or directory exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything in it.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Takes all rights to a directory from all users but its owner. Returns whether there were
    /// any. Does nothing if the disk has no users.
    fn make_private(&self, _dir: &Path) -> io::Result<bool> {
        Ok(false)
    }
    /// Makes the directory's entries durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on a file (created if needed), and on the directory that it is in,
    /// until the returned guard is dropped; `WouldBlock` if another process or handle holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes `length` zeros at `offset`: as [`Self::write_at`] does, not a hole.
    fn write_zeros_at(&self, length: usize, offset: u64) -> io::Result<()> {
        self.write_at(&vec![0; length], offset)
    }
    /// Makes the file `length` bytes long and takes the room for it, without writing: what was not
    /// written reads as zeros.
    ///
    /// # Errors
    /// `Unsupported` where the file system cannot; nothing has changed then.
    fn reserve(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.write_zeros_at(length, 0)
    }
    /// What is read next comes from the disk, and not from a copy in memory, as far as that can be
    /// had. Does nothing if the disk has no such copy.
    fn forget_cached(&self) {}
    /// Length, bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with a hole).
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Makes its content and length durable.
    fn sync_data(&self) -> io::Result<()>;
}
