//! Pages of events that watchers share: those that somebody waits for, and those that are kept.

use crate::api::http::account::Account;
use crate::api::http::budget::{Budget, MemoryReservation, MemoryUse, SharedPart};
use crate::api::service::ServiceError;
use crate::kv::{ChangesQuery, Principal, Revision};
use crate::raft::Time;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use tokio::sync::Notify;

/// Pages that are kept take at most this many bytes, …
const KEPT_BYTES_MAX: usize = 8 << 20;
/// … and are at most so many.
const KEPT_MAX: usize = 1024;
/// A page waits at least this long for company after the one before, …
const PACE_MICROS: u64 = 1_000;
/// … longer by this for each watcher there is, since each takes a write of its own, …
const PACE_PER_WATCHER_NANOS: u64 = 6_000;
/// … but not longer than this.
const PACE_MICROS_MAX: u64 = 60_000;

/// Pages that somebody waits for, and those that are kept.
#[derive(Debug, Default)]
pub(in crate::api::http) struct Pages {
    known: Mutex<PageCache>,
    watchers: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct PageCache {
    pub(super) by_query: HashMap<PageKey, Arc<Coming>>,
    /// Those that have come, oldest first, and what they take.
    kept: VecDeque<(PageKey, usize)>,
    kept_bytes: usize,
}

/// What watchers share: the changes that they ask for, and the right to them. So a page that one
/// was given is given to others of the same principal, while the rules are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PageKey {
    pub(super) query: ChangesQuery,
    pub(super) by: Option<Principal>,
    pub(super) rules: u64,
}

/// A page that comes, or has come.
#[derive(Debug, Default)]
pub(super) struct Coming {
    page: OnceLock<Result<Arc<Page>, NoPage>>,
    came: Notify,
}

impl Coming {
    pub(super) async fn wait(&self) -> Result<Arc<Page>, NoPage> {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            if let Some(page) = self.page.get() {
                return page.clone();
            }
            came.await;
        }
    }
}

/// Why a page does not come.
#[derive(Clone, Debug)]
pub(super) struct NoPage {
    pub(super) error: ServiceError,
    /// The caller that has too much already, where others may have room; `None`: there is none for
    /// anybody.
    pub(super) whose: Option<Arc<Account>>,
}

impl From<ServiceError> for NoPage {
    fn from(error: ServiceError) -> Self {
        Self { error, whose: None }
    }
}

/// Changes as they are sent.
#[derive(Debug)]
pub(super) struct Page {
    /// A message for each revision; empty if nothing changed.
    pub(super) bytes: Bytes,
    /// Where the next page begins.
    pub(super) next: Revision,
    /// When it came.
    pub(super) at: Time,
    /// Its part of the budget, bytes.
    pub(super) counted: usize,
    /// What those who have it hold of that, by the address of their account.
    pub(super) parts: Mutex<HashMap<usize, Weak<SharedPart>>>,
}

/// A page that a watcher has.
#[derive(Debug)]
pub(super) struct TakenPage {
    pub(super) page: Arc<Page>,
    /// Counts it for the caller: once, however many watchers it has.
    _part: Option<Arc<SharedPart>>,
}

impl Page {
    /// Counts it for a caller. `None`: the caller holds too much.
    pub(super) fn taken(self: &Arc<Self>, budget: &Arc<Budget>, account: &Arc<Account>) -> Option<TakenPage> {
        if self.counted == 0 {
            return Some(TakenPage { page: self.clone(), _part: None });
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = parts.entry(Arc::as_ptr(account) as usize).or_default();
        let part = match known.upgrade() {
            Some(part) => part,
            None => {
                let part = Arc::new(budget.share(account, MemoryUse::Answer, self.counted)?);
                *known = Arc::downgrade(&part);
                part
            }
        };
        Some(TakenPage { page: self.clone(), _part: Some(part) })
    }
}

/// A page's bytes, with their part of the budget for as long as anybody has them.
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) _held: MemoryReservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A watcher, to be counted.
#[derive(Debug)]
pub(in crate::api::http) struct Counted(Arc<Pages>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.watchers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.known().forget();
        }
    }
}

impl PageCache {
    /// Nobody watches: what was kept is for nobody.
    pub(super) fn forget(&mut self) {
        for (query, _) in self.kept.drain(..) {
            self.by_query.remove(&query);
        }
        self.kept_bytes = 0;
    }
}

impl Pages {
    /// Counts a watcher until what this returns is dropped.
    pub(in crate::api::http) fn count(self: &Arc<Self>) -> Counted {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// How many watch.
    pub(in crate::api::http) fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }

    /// How long a page waits for company.
    pub(super) fn pace_micros(&self) -> u64 {
        let watchers = self.watchers() as u64;
        (PACE_MICROS + watchers * PACE_PER_WATCHER_NANOS / 1000).min(PACE_MICROS_MAX)
    }

    pub(super) fn came(&self, query: &PageKey, coming: &Arc<Coming>, page: Result<Arc<Page>, NoPage>) {
        let mut known = self.known();
        let bytes = page.as_ref().ok().filter(|page| !page.bytes.is_empty()).map(|page| page.bytes.len());
        let _first = coming.page.set(page);
        match bytes {
            // A client that asks the same later is to look again.
            None => {
                known.by_query.remove(query);
            }
            Some(bytes) => {
                known.kept.push_back((query.clone(), bytes));
                known.kept_bytes += bytes;
            }
        }
        while known.kept_bytes > KEPT_BYTES_MAX || known.kept.len() > KEPT_MAX {
            let Some((oldest, bytes)) = known.kept.pop_front() else { break };
            known.kept_bytes -= bytes;
            known.by_query.remove(&oldest);
        }
        if self.watchers() == 0 {
            known.forget();
        }
        drop(known);
        coming.came.notify_waiters();
    }

    pub(super) fn known(&self) -> MutexGuard<'_, PageCache> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
