//! Why a data directory cannot be opened, and why it cannot be written any more. `Display` names
//! the remedy.

use crate::codec::FeatureLevels;
use crate::raft::{LogId, SnapshotRefusal};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a data directory cannot be opened. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("the data directory {} is in use by another process; stop that one, or choose another --data-dir", dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// It may not be written.
    #[error("the data directory {} cannot be written ({source}); give this user the right to, or choose another --data-dir", dir.display())]
    NotWritable {
        /// The data directory.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is to be made, and has something in it.
    #[error("{} is not empty, and a restore overwrites nothing; name a --data-dir that does not exist, or remove it if it is of no use", dir.display())]
    NotEmpty {
        /// The data directory.
        dir: PathBuf,
    },
    /// A restore was to make it, and did not come to its end.
    #[error("making {} of a backup was interrupted, and it holds nothing yet; restore into it again, or remove it", dir.display())]
    RestoreInterrupted {
        /// The data directory.
        dir: PathBuf,
    },
    /// It belongs to a node of another name.
    #[error("the data directory {} belongs to the node {recorded:?}, not {given:?}; start it with --node-id {recorded}, or choose another --data-dir", dir.display())]
    OtherNode {
        /// The data directory.
        dir: PathBuf,
        /// The name on record.
        recorded: String,
        /// The name given.
        given: String,
    },
    /// A name that cannot be put on record.
    #[error("{name:?} cannot be a --node-id: it must be 1 to 255 bytes without control characters")]
    BadName {
        /// The name given.
        name: String,
    },
    /// A newer version of this program wrote it.
    #[error("{} has format version {found}; this program reads version {reads}: start the version that wrote it, or a newer one", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// Those that this program reads.
        reads: FeatureLevels,
    },
    /// An older version of this program wrote it, and this one does not read its format any more.
    #[error("{} has format version {found}, which this program does not read any more (it reads version {reads}); go on with the program that wrote it, or, if other members of the cluster are alive, wipe the data directory and join this node again", file.display())]
    OlderFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// Those that this program reads.
        reads: FeatureLevels,
    },
    /// The identity file is damaged.
    #[error("{} is damaged ({why}); {REMEDY}", file.display())]
    IdentityDamaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is a log, or there are snapshots, or the note of a start, but no identity.
    #[error("the data directory {} has {} but no identity file; put that file back, or: {REMEDY}", dir.display(), found.display())]
    IdentityMissing {
        /// The data directory.
        dir: PathBuf,
        /// What was found in it.
        found: PathBuf,
    },
    /// There is an identity, but no log.
    #[error("the data directory {} has an identity but no log in {}; put that directory back, or: {REMEDY}", dir.display(), wal.display())]
    LogMissing {
        /// The data directory.
        dir: PathBuf,
        /// Where the log should be.
        wal: PathBuf,
    },
    /// A note in it says that it is not to be used as it is.
    #[error("the data directory {} is not to be used as it is: {why}", dir.display())]
    Condemned {
        /// The data directory.
        dir: PathBuf,
        /// What the note says.
        why: String,
    },
    /// Acknowledged bytes are damaged or missing.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// An operation failed.
    #[error("{operation} {} failed: {source}{}", file.display(), hint(source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

const REMEDY: &str = "a member repairs itself from the others when it starts; a cluster of one can go on without what is lost: \
                      infinitystore wal repair DIR";

fn hint(error: &io::Error) -> &'static str {
    if is_full(error) {
        "; make room on the disk and start again"
    } else if is_denied(error) {
        "; give the node's user the right to it (its owner may have become another user, as by a command run with sudo), \
         and start again"
    } else if says_nothing_of_the_disk(error) {
        "; the data may be sound: start the node again once that has passed"
    } else {
        ""
    }
}

/// Whether an operation failed for want of something that the process or the system may have again
/// later: descriptors, memory, a right, a network in front of the disk. What is on the disk may be
/// sound.
pub(crate) fn says_nothing_of_the_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{
        Interrupted, OutOfMemory, ResourceBusy, StaleNetworkFileHandle, TimedOut, WouldBlock,
    };
    let passes = [Interrupted, OutOfMemory, ResourceBusy, StaleNetworkFileHandle, TimedOut, WouldBlock];
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    is_denied(error)
        || passes.contains(&error.kind())
        || shortages.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Whether the user may not do that. What is there is as sound as it was.
fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether the disk has no room (or the user none left).
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Damage to what was acknowledged: where it is, and what it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file.
    pub file: PathBuf,
    /// Where in it, bytes.
    pub offset: u64,
    /// The first index of the log that it concerns, if known.
    pub first_index: Option<u64>,
    /// The last one, if known.
    pub last_index: Option<u64>,
    /// What is wrong.
    pub why: String,
}

impl Damage {
    /// What and where it is, without the remedy.
    #[must_use]
    pub fn in_words(&self) -> String {
        let at = format!("{} is damaged at byte {}", self.file.display(), self.offset);
        let indices = match (self.first_index, self.last_index) {
            (Some(first), Some(last)) => format!(" (log index {first} to {last})"),
            (Some(first), None) => format!(" (log index {first} and above)"),
            _ => String::new(),
        };
        format!("{at}{indices}: {}", self.why)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {REMEDY}", self.in_words())
    }
}

impl std::error::Error for Damage {}

impl OpenError {
    /// Whether there was no room on the disk. The same operation may succeed later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    /// Whether what was written is damaged or gone. Peers may have it.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_)
            | Self::Condemned { .. }
            | Self::IdentityDamaged { .. }
            | Self::IdentityMissing { .. }
            | Self::LogMissing { .. } => true,
            Self::Io { operation, source, .. } => {
                *operation == "reading" && !says_nothing_of_the_disk(source)
            }
            _ => false,
        }
    }

    /// A file whose format is not this program's.
    pub(crate) fn other_format(file: &Path, found: u32, reads: FeatureLevels) -> Self {
        let file = file.to_path_buf();
        if found > reads.highest().get().into() {
            Self::NewerFormat { file, found, reads }
        } else {
            Self::OlderFormat { file, found, reads }
        }
    }

    pub(crate) fn io(operation: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, file: file.to_path_buf(), source }
    }
}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        let source = io::Error::new(error.source.kind(), error.source.to_string());
        Self::Io { operation: error.operation, file: error.file, source }
    }
}

/// A write or sync failed. The storage takes nothing more. It cannot know what the disk did with
/// the bytes, and a second try could report as durable what is not. The node has to stop; its next
/// start finds out.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {} failed: {source}; the node stops, because it cannot know what is durable; check the disk, then start it again", file.display())]
pub struct StorageError {
    /// What was tried.
    pub operation: &'static str,
    /// On which file.
    pub file: PathBuf,
    /// What the operating system said.
    pub source: Arc<io::Error>,
}

impl StorageError {
    pub(crate) fn new(operation: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { operation, file: file.to_path_buf(), source: Arc::new(source) }
    }
}

/// A snapshot file could not be written, or not be read. The node goes on; another one may be tried
/// later.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// An operation failed.
    #[error("{operation} {} failed: {source}", file.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{} is damaged: {why}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The content is not what its description says.
    #[error("snapshot {last}: {why}")]
    Content {
        /// Last entry of the snapshot.
        last: LogId,
        /// What is wrong.
        why: String,
    },
}

impl SnapshotError {
    pub(crate) fn io(operation: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, file: file.to_path_buf(), source }
    }

    /// What to tell the leader whose snapshot could not be stored.
    pub(crate) fn refusal(&self) -> SnapshotRefusal {
        match self {
            Self::Io { source, .. } if is_full(source) => SnapshotRefusal::NoRoom,
            Self::Io { .. } => SnapshotRefusal::Disk,
            Self::Damaged { .. } | Self::Content { .. } => SnapshotRefusal::Content,
        }
    }
}
