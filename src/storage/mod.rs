//! Durable state: the `Disk` trait, the segmented write-ahead log, snapshot files, the identity of
//! a data directory.
//!
//! The promise of this floor: **what was acknowledged is either recovered or reported as damaged;
//! it is never silently shortened.** `docs/wal-format.md` draws the bytes and explains the
//! decisions.
//!
//! # Code map
//! - [`Storage`] opens a data directory and carries requests out: [`Storage::open`], then
//!   [`Storage::handle`] with the requests that wait, [`Storage::idle`] when there are none,
//!   [`Storage::close`] at the end.
//! - `sector` → `batch`, `record` → `segment` → `scan`: the bytes of the log, from the inside out.
//! - `replay`, `recovery`: what the log says at start, and whether its end is torn or damaged.
//! - `wal`, `spare`: appending, switching segments, and segments prepared ahead.
//! - `snapshot_file`, `snapshots`, `incoming_snapshot`: snapshot files, written here or received.
//! - `identity`, `format`, `start`: the node that a directory belongs to, its format, and the steps
//!   of a start.
//! - `repair`: what is sound in a damaged directory, and a new log made of that and of what peers
//!   give.
//! - `scrub`: what is at rest, read again; `wanted`: which files have to be there; `own_notes`:
//!   what the identity has to say.
//! - `dump`: the log in words, for people; `damaged`: where damaged files are kept for them.
//! - `recover`: a cluster of one, made of what a member has of a larger one.
//! - `backup`, `restore`: a state as a stream that says whether it is whole; a data directory made
//!   of a state.
//! - [`Disk`]: what all of it runs on. [`RealDisk`] is the operating system's; [`MemoryDisk`]
//!   forgets what was not synced, fails and fills up when it is told to.
//!
//! # Absences
//! No clock (one may be handed in, for metrics), no socket, no randomness but a seed. One thread of
//! its own at most, which prepares segments, and none with [`SpareMode::Inline`].

mod backup;
mod batch;
mod damaged;
mod data_dir;
mod disk;
mod dump;
mod error;
mod format;
mod identity;
mod incoming_snapshot;
mod lost;
mod memory_disk;
mod names;
mod noting;
mod options;
mod own_notes;
mod real_disk;
mod record;
mod recover;
mod recovery;
mod repair;
mod replay;
mod restore;
mod scan;
mod scrub;
mod sector;
mod segment;
mod snapshot_file;
mod snapshots;
mod spare;
mod start;
mod wal;
mod wanted;

#[cfg(test)]
mod tests;

pub use backup::{BackupError, BackupHeader, BackupReader, BackupSource, BackupWriter};
pub use data_dir::{Opened, Storage};
pub use disk::{Disk, DiskFile};
pub use dump::{DumpItem, dump};
pub use error::{Damage, OpenError, SnapshotError, StorageError};
pub(crate) use identity::check_name;
pub use identity::{Bootstrap, Identity};
pub use memory_disk::{FaultKind, MemoryDisk, MemoryFile};
pub use options::{SpareMode, StorageClock, StorageOptions};
pub use real_disk::{RealDisk, RealFile};
pub use recover::Remains;
pub use recovery::RecoveryNote;
pub use repair::{
    LentSnapshots, Missing, Predecessor, Prognosis, Rejoin, RepairSnapshot, Sound, SupplyError, Survey,
    judge, read_rejoin,
};
pub(crate) use repair::{
    all_aside, free_aside, note_alarms, read_alarms, read_called, read_predecessor, read_rebuild,
    read_withdrawn, remove_rejoin, settle_withdrawal,
};
pub use restore::{RestoredState, restore};
pub use scrub::{Pace, ScrubDamage, Scrubbed, Scrubber};
pub use snapshots::{SnapshotFiles, SnapshotLook, look_at_snapshot};
