//! How far a repair of the data directory is, for the node's operator.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How far the repair of a damaged data directory is. All clones are one; shared between the node
/// that is being repaired and the HTTP server that answers meanwhile.
#[derive(Clone, Debug, Default)]
pub struct RepairProgress(Arc<Mutex<RepairStatus>>);

/// What is known of the repairs since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairStatus {
    /// A repair is under way.
    pub is_under_way: bool,
    /// What was damaged when the last one began, in words.
    pub damages: Vec<String>,
    /// What mends it, or why nothing does yet.
    pub doing: String,
    /// Entries that are still missing, and bytes of snapshots.
    pub entries_missing: u64,
    /// Entries that peers gave.
    pub entries_fetched: u64,
    /// Bytes that peers gave.
    pub bytes_fetched: u64,
    /// Repairs that ended well since the process started.
    pub mended: u64,
}

impl RepairProgress {
    /// As of now.
    #[must_use]
    pub fn status(&self) -> RepairStatus {
        self.lock().clone()
    }

    /// What a client is told while a repair is under way; `None` while none is. Anybody may ask,
    /// for there are no rules yet to judge by. So what is missing, and which members have it, is in
    /// the node's log alone.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        let text = "this node is repairing its data directory; its log says more";
        self.lock().is_under_way.then(|| text.to_owned())
    }

    /// A repair begins.
    pub(crate) fn begin(&self, damages: Vec<String>) {
        let mut status = self.lock();
        *status =
            RepairStatus { is_under_way: true, damages, mended: status.mended, ..RepairStatus::default() };
    }

    /// It is doing this now. Whether that is news.
    pub(crate) fn note(&self, doing: &str, entries_missing: u64) -> bool {
        let mut status = self.lock();
        let is_news = status.doing != doing;
        (status.doing, status.entries_missing) = (doing.to_owned(), entries_missing);
        is_news
    }

    /// A peer gave so much.
    pub(crate) fn fetched(&self, entries: u64, bytes: u64) {
        let mut status = self.lock();
        status.entries_fetched += entries;
        status.bytes_fetched += bytes;
    }

    /// It has ended.
    pub(crate) fn end(&self, well: bool) {
        let mut status = self.lock();
        status.is_under_way = false;
        status.mended += u64::from(well);
    }

    fn lock(&self) -> MutexGuard<'_, RepairStatus> {
        // Plain values: consistent wherever a panic could have struck.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
