//! One budget of memory for everything that clients cause to be held: bodies while they arrive, commands while they wait,
//! answers until the client has taken them.
//!
//! A request reserves before it takes. Where there is no room it is refused, and what is under way goes on. What a
//! connection always needs (its task, two small buffers) is not in here: the number of connections bounds that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that may be held at the same time.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    /// At most `bytes_max`, but for what is added and taken back at once.
    used: AtomicUsize,
    /// Requests that were refused.
    refused: AtomicU64,
}

/// A part of the budget. Dropping it gives the part back.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicUsize::new(0), refused: AtomicU64::new(0) })
    }

    /// Sets `bytes` aside, or counts a refusal.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        self.take(bytes).then(|| Reservation { budget: self.clone(), bytes })
    }

    /// Whether `bytes` could be set aside now; a refusal is counted where not.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let fits = self.used().checked_add(bytes).is_some_and(|after| after <= self.bytes_max);
        if !fits {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Bytes held now.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be held.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Requests that were refused since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        // Added first and looked at afterwards: one atomic operation where there is room.
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.checked_add(bytes).is_some_and(|after| after <= self.bytes_max);
        if !fits {
            self.give_back(bytes);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "nobody gives back what was not taken");
    }
}

impl Reservation {
    /// Makes it `bytes` large. `false` where that is more than there is room for; it stays as it was then.
    #[must_use]
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes {
            if !self.budget.take(bytes - self.bytes) {
                return false;
            }
        } else {
            self.budget.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}
