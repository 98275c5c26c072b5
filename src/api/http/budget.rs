//! One budget of memory for everything that clients cause to be held: bodies while they arrive,
//! commands while they wait, answers until the client has taken them.
//!
//! A request reserves memory before it takes it. If there is no room it is refused, and requests
//! under way go on. What a connection always needs (its task, two small buffers) is not in here:
//! the number of connections bounds that.

//!
//! Large bodies together, and large answers together, get no more than three quarters each: clients
//! that do not read their answers must not keep others from writing, nor the other way round.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A larger part counts for its kind too.
const LARGE_BYTES: usize = 64 << 10;

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemoryUse {
    /// Heads, bodies, and what is made of them.
    Request,
    /// Answers.
    Answer,
}

/// Bytes that may be held at the same time.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    /// At most `bytes_max`, except for what is added and taken back at once.
    used: AtomicUsize,
    /// Of those, what large ones of each kind hold: at most three quarters of `bytes_max`.
    large: [AtomicUsize; 2],
    /// Requests that were refused.
    refused: AtomicU64,
}

/// A part of the budget. Dropping it gives the part back.
#[derive(Debug)]
pub(super) struct MemoryReservation {
    budget: Arc<Budget>,
    kind: MemoryUse,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        let (used, large, refused) = Default::default();
        Arc::new(Self { bytes_max, used, large, refused })
    }

    /// Sets `bytes` aside, or counts a refusal.
    pub(super) fn reserve(self: &Arc<Self>, kind: MemoryUse, bytes: usize) -> Option<MemoryReservation> {
        let taken = self.take(kind, bytes);
        if !taken {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken.then(|| MemoryReservation { budget: self.clone(), kind, bytes })
    }

    /// Whether an answer of `bytes` could be held now. If not, a refusal is counted.
    pub(super) fn has_room_for_answer(&self, bytes: usize) -> bool {
        // Small ones are not counted at all.
        let fits = bytes <= LARGE_BYTES || self.take(MemoryUse::Answer, bytes);
        if !fits {
            self.refused.fetch_add(1, Ordering::Relaxed);
        } else if bytes > LARGE_BYTES {
            self.give_back(MemoryUse::Answer, bytes);
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

    /// The largest answer for which there can be room at all.
    pub(super) fn answer_bytes_max(&self) -> usize {
        self.bytes_max - self.bytes_max / 4
    }

    /// Requests that were refused since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn take(&self, kind: MemoryUse, bytes: usize) -> bool {
        if !Self::add(&self.used, bytes, self.bytes_max) {
            return false;
        }
        let fits =
            bytes <= LARGE_BYTES || Self::add(&self.large[kind as usize], bytes, self.answer_bytes_max());
        if !fits {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Adds first and looks afterwards: one atomic operation if there is room.
    fn add(to: &AtomicUsize, bytes: usize, max: usize) -> bool {
        let before = to.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.checked_add(bytes).is_some_and(|after| after <= max);
        if !fits {
            to.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    fn give_back(&self, kind: MemoryUse, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "nobody gives back what was not taken");
        if bytes > LARGE_BYTES {
            self.large[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl MemoryReservation {
    /// Makes it `bytes` large. `false`, and a refusal, if there is no room for that. The caller
    /// then gives up what it is for.
    #[must_use]
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        // Taken anew as a whole, so that a small one that becomes large counts as such.
        self.budget.give_back(self.kind, self.bytes);
        if self.budget.take(self.kind, bytes) {
            self.bytes = bytes;
            return true;
        }
        self.budget.refused.fetch_add(1, Ordering::Relaxed);
        // Another request may have taken what was given back. Then this one holds nothing.
        if !self.budget.take(self.kind, self.bytes) {
            self.bytes = 0;
        }
        false
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.give_back(self.kind, self.bytes);
    }
}
