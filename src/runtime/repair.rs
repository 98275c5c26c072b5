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

    /// A repair begins. Whether that is news: it is none if the last one was given up, and the
    /// damage is the same.
    pub(crate) fn begin(&self, damages: Vec<String>) -> bool {
        let mut status = self.lock();
        let is_news = status.doing.is_empty() || status.damages != damages;
        let doing = if is_news { String::new() } else { std::mem::take(&mut status.doing) };
        let mended = status.mended;
        *status = RepairStatus { is_under_way: true, damages, doing, mended, ..RepairStatus::default() };
        is_news
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
        (status.is_under_way, status.doing) = (false, String::new());
        status.mended += u64::from(well);
    }

    /// It was given up, and the directory is looked at again.
    pub(crate) fn give_up(&self) {
        self.lock().is_under_way = false;
    }

    /// The directory is sound. Whether a repair of it was given up before.
    pub(crate) fn is_sound(&self) -> bool {
        !std::mem::take(&mut self.lock().doing).is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, RepairStatus> {
        // Plain values: consistent wherever a panic could have struck.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
