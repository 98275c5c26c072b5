//! The operating system's file system.

use crate::storage::disk::{Disk, DiskFile};
#[cfg(target_os = "linux")]
use rustix::fs::FallocateFlags;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{info, warn};

/// Mode of directories: only the node's user may use them.
const DIRECTORY_MODE: u32 = 0o700;
/// Mode of files: only the node's user may use them.
const FILE_MODE: u32 = 0o600;
/// What the group and others may do, in a mode.
const OTHERS: u32 = 0o077;
/// The mode bit of a directory that many users share.
const STICKY: u32 = 0o1000;
/// The first pause when there is no file descriptor; doubled for each one after it …
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// … up to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// `std::fs`, with positioned reads and writes, `fdatasync`, `fsync` of directories and `flock`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// An open file of the operating system.
#[derive(Debug)]
pub struct RealFile(File);

impl Disk for RealDisk {
    type File = RealFile;

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        // Where a relative path begins there is always a directory; its name is empty.
        let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
        waiting_for_room(dir, || DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir))?;
        for made in missing.into_iter().rev() {
            give_to_owner(&File::open(made)?, made);
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let file = waiting_for_room(path, || options.open(path))?;
        give_to_owner(&file, path);
        Ok(RealFile(file))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<RealFile> {
        waiting_for_room(path, || File::open(path)).map(RealFile)
    }

    fn open(&self, path: &Path) -> io::Result<RealFile> {
        waiting_for_room(path, || OpenOptions::new().read(true).write(true).open(path)).map(RealFile)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        waiting_for_room(dir, || {
            let mut names = Vec::new();
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if !entry.file_type()?.is_dir() {
                    names.push(PathBuf::from(entry.file_name()));
                }
            }
            names.sort();
            Ok(names)
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        waiting_for_room(path, || path.try_exists())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        waiting_for_room(from, || fs::rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        waiting_for_room(path, || fs::remove_file(path))
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        waiting_for_room(dir, || fs::remove_dir_all(dir))
    }

    fn make_private(&self, dir: &Path) -> io::Result<bool> {
        let mode = fs::metadata(dir)?.permissions().mode();
        // A directory that all users may write to, but in which none may remove the files of
        // others, belongs to the system (/tmp).
        let shared = mode & STICKY != 0;
        if shared || mode & OTHERS == 0 {
            return Ok(false);
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(mode & !OTHERS))?;
        Ok(true)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Opening is tried again; a sync that failed never is.
        waiting_for_room(dir, || File::open(dir))?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        // A network file system (NFS) locks only a file that is open for writing. A user who may
        // only read one that is there locks it as well, where the disk lets him.
        let open_there = || match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if may_be_read_alone(&error) => File::open(path),
            opened => opened,
        };
        let file = match waiting_for_room(path, open_there) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = waiting_for_room(path, || options.open(path));
                made.inspect(|file| give_to_owner(file, path)).or_else(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => open_there(),
                    _ => Err(error),
                })?
            }
            opened => opened?,
        };
        // The lock belongs to the open file: closing it, or the end of the process however it ends,
        // releases it.
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)?;
        // A file that a person removes takes its lock along, and the next one to come makes
        // another.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = waiting_for_room(dir, || File::open(dir))?;
        // Another error is no matter: not every file system locks directories (NFS), and the file
        // is locked.
        if let Err(Errno::WOULDBLOCK) = flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new((file, dir)))
    }
}

/// Whether a file that cannot be opened for writing may be opened for reading.
fn may_be_read_alone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Gives what root has made to the owner of the directory that it is in. Otherwise a command that a
/// person runs with `sudo` on a stopped node would leave files that the node may not read.
fn give_to_owner(file: &File, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let (Ok(dir), Ok(made)) = (fs::metadata(parent), file.metadata())
        && (dir.uid(), dir.gid()) != (made.uid(), made.gid())
        && dir.uid() != 0
    {
        // Where that is not possible, there are no owners.
        let _ = std::os::unix::fs::fchown(file, Some(dir.uid()), Some(dir.gid()));
    }
}

/// Runs `open` until it does not fail for want of file descriptors or memory of the system. Both
/// become free again, and nothing has been changed yet. So it is safe to wait here, which it is not
/// after a failed write.
fn waiting_for_room<T>(path: &Path, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut pause = PAUSE_MIN;
    loop {
        let opened = open();
        match &opened {
            Err(error) if is_shortage(error) => {
                if pause == PAUSE_MIN {
                    warn!(%error, file = %path.display(), "cannot open a file; trying again until it can be opened");
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
            _ => {
                if pause != PAUSE_MIN {
                    info!(file = %path.display(), "files can be opened again");
                }
                return opened;
            }
        }
    }
}

/// Whether the process, or the system, has no file descriptors or no memory left.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| shortages.iter().any(|errno| errno.raw_os_error() == code))
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, length: u64) -> io::Result<()> {
        rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length).map_err(io::Error::from)
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(target_os = "linux")]
    fn forget_cached(&self) {
        // A hint: pages that are not on the disk yet stay.
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
