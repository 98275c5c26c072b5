//! The way from the driver and the log's worker to the worker that scrubs.

use crate::runtime::work::WorkQueue;
use crate::storage::{Disk, Scrubber};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Jobs of the worker that scrubs.
#[derive(Debug)]
pub(super) enum ScrubJob<D: Disk> {
    /// To begin.
    Begin,
    /// To go on in another member's directory.
    Use(Box<Scrubber<D>>),
}

/// The driver's end of the worker that scrubs.
pub(super) struct ScrubQueue<D: Disk> {
    /// Its jobs.
    pub queue: Arc<WorkQueue<ScrubJob<D>>>,
    /// The node has ended.
    pub ended: Arc<AtomicBool>,
    /// Files that are damaged now, and for which an alarm was raised. Bounded by the files that
    /// there are.
    pub told: BTreeSet<PathBuf>,
}

impl<D: Disk> ScrubQueue<D> {
    /// Ends the worker, in the middle of a file if need be.
    pub(super) fn close(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.queue.close();
    }
}
