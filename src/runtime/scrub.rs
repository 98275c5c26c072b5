//! How far scrubbing is, for the node's operator.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far the reading of what is at rest is. All clones are one; shared between the worker that
/// reads and the HTTP server.
#[derive(Clone, Debug, Default)]
pub struct ScrubProgress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: AtomicU64,
    status: Mutex<ScrubStatus>,
}

/// What is known of scrubbing since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes read, in all passes.
    pub bytes: u64,
    /// Bytes of the files of the pass that is under way; 0 between two passes.
    pub pass_bytes: u64,
    /// How many of them have been read.
    pub pass_read: u64,
    /// Passes that came to their end.
    pub passes: u64,
    /// When the last one ended, microseconds by the node's clock; `None`: none has.
    pub last_pass_micros: Option<u64>,
    /// Files that are damaged now, and what is wrong with each.
    pub damaged: BTreeMap<String, String>,
    /// Files that were damaged, and are whole again or not needed any more.
    pub mended: u64,
}

impl ScrubProgress {
    /// As of now.
    #[must_use]
    pub fn status(&self) -> ScrubStatus {
        ScrubStatus { bytes: self.0.bytes.load(Ordering::Relaxed), ..self.lock().clone() }
    }

    /// So many bytes are about to be read.
    pub(crate) fn read(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut status = self.lock();
        status.pass_read = status.pass_bytes.min(status.pass_read + bytes);
    }

    /// A pass over so many bytes begins.
    pub(crate) fn begin_pass(&self, bytes: u64) {
        let mut status = self.lock();
        (status.pass_bytes, status.pass_read) = (bytes, 0);
    }

    /// It has come to its end.
    pub(crate) fn end_pass(&self, now_micros: u64) {
        let mut status = self.lock();
        (status.pass_bytes, status.pass_read) = (0, 0);
        status.passes += 1;
        status.last_pass_micros = Some(now_micros);
    }

    /// The file is damaged.
    pub(crate) fn damaged(&self, file: &str, why: &str) {
        self.lock().damaged.insert(file.to_owned(), why.to_owned());
    }

    /// The files that were read are of no matter any more: the node goes on in other ones.
    pub(crate) fn forget(&self) {
        let mut status = self.lock();
        status.damaged.clear();
        (status.pass_bytes, status.pass_read) = (0, 0);
    }

    /// The file is sound, or gone. Whether it was damaged.
    pub(crate) fn sound(&self, file: &str) -> bool {
        let mut status = self.lock();
        let was_damaged = status.damaged.remove(file).is_some();
        status.mended += u64::from(was_damaged);
        was_damaged
    }

    fn lock(&self) -> MutexGuard<'_, ScrubStatus> {
        // Plain values: consistent wherever a panic could have struck.
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
