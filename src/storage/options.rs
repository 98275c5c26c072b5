//! What a data directory is opened with.

use crate::codec::FeatureLevels;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Options of a [`Storage`](crate::storage::Storage).
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// The data directory; created if it does not exist.
    pub dir: PathBuf,
    /// Bytes of a segment of the log; at least 64 KiB, a multiple of 4 KiB. The first ones of a new
    /// log are smaller.
    pub segment_bytes: u64,
    /// A batch ends when its records reach this many bytes (one larger write still goes alone).
    pub batch_bytes_max: usize,
    /// Where the next segment is prepared.
    pub spare_mode: SpareMode,
    /// Files of torn tails that are kept, the newest ones; at least 1.
    pub torn_files_max: usize,
    /// Source of the random numbers that tell this start from every other one on a copy of the same
    /// directory, and the lives of a segment file apart. Drawn anew for each start.
    pub seed: u64,
    /// What this start may promise a leader
    /// ([`Config::promise_micros`](crate::raft::Config::promise_micros)). The next start is told,
    /// so that it keeps the promise.
    pub promised_micros: u64,
    /// The levels that this node speaks: a directory of another one is not opened.
    pub speaks: FeatureLevels,
    /// Measures syncs, for metrics, and tells when a promise of an earlier start is over.
    pub clock: StorageClock,
}

impl StorageOptions {
    /// Defaults, for a data directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            batch_bytes_max: 8 << 20,
            spare_mode: SpareMode::Thread,
            torn_files_max: 4,
            seed: 0,
            promised_micros: 0,
            speaks: FeatureLevels::OF_THIS_RELEASE,
            clock: StorageClock::system(),
        }
    }
}

/// Where the next segment is prepared while this one fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpareMode {
    /// On a thread of its own, so that the log does not wait for it.
    Thread,
    /// In [`Storage::handle`](crate::storage::Storage::handle), after the writes: no thread, for
    /// simulations.
    Inline,
}

/// A monotonic clock in microseconds.
#[derive(Clone)]
pub struct StorageClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl StorageClock {
    /// A clock of the caller's.
    pub fn new(now_micros: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_micros))
    }

    /// The operating system's.
    #[must_use]
    pub fn system() -> Self {
        let start = Instant::now();
        Self::new(move || u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// A clock that stands still, for simulations that do not look at sync times.
    #[must_use]
    pub fn still() -> Self {
        Self::new(|| 0)
    }

    pub(crate) fn now_micros(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for StorageClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageClock")
    }
}
