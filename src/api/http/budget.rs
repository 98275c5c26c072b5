//! One budget of memory for everything that clients cause to be held: bodies while they arrive,
//! commands while they wait, answers until the client has taken them.
//!
//! A request reserves memory before it takes it. If there is no room it is refused, and requests
//! under way go on. What a connection always needs (its task, two small buffers) is not in here:
//! the number of connections bounds that.
//!
//! No caller takes all of it: the last quarter is for callers that hold less than an eighth, and so
//! is the last sixteenth of what large ones may take. A caller is an address; of IPv6
//! all networks of one site, of 48 bits, together are no more than one.
//!
//! Large bodies together, and large answers together, get no more than three quarters each: clients
//! that do not read their answers must not keep others from writing, nor the other way round.

use crate::api::http::account::{Account, Resource};
use crate::kv::KeyRange;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Questions that wait for a change, and the ranges that they ask for, take so much of the node:
/// its replica refuses more, whoever asks.
pub(super) const QUESTIONS_BYTES_MAX: usize = 32 << 20;
/// Each as much beside its range: there are 65,536 at most.
const QUESTION_BYTES: usize = 512;

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
    of: Resource,
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
    /// Whose it is; `None`: it is shared by callers, who have a [`SharedPart`] each.
    account: Option<Arc<Account>>,
    kind: MemoryUse,
    bytes: usize,
}

/// What a caller holds of what callers share. It is in the budget once, however many hold it.
#[derive(Debug)]
pub(super) struct SharedPart {
    account: Arc<Account>,
    of: Resource,
    bytes: usize,
}

impl Budget {
    /// Of memory.
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Self::of(Resource::Memory, bytes_max)
    }

    /// Of questions that wait for a change.
    pub(super) fn of_questions(bytes_max: usize) -> Arc<Self> {
        Self::of(Resource::Questions, bytes_max)
    }

    fn of(of: Resource, bytes_max: usize) -> Arc<Self> {
        let (used, large, refused) = Default::default();
        Arc::new(Self { of, bytes_max, used, large, refused })
    }

    /// Takes a question about that range, until what this returns is dropped. `None`: the caller
    /// has too many, or there are too many in all.
    pub(super) fn reserve_question(
        self: &Arc<Self>,
        account: &Arc<Account>,
        range: &KeyRange,
    ) -> Option<MemoryReservation> {
        self.reserve(account, MemoryUse::Request, QUESTION_BYTES + range.bytes())
    }

    /// Whether such a question may be one too many of that caller, and not of others.
    pub(super) fn has_many_questions(&self, account: &Account, range: &KeyRange) -> bool {
        self.holds_much(account, QUESTION_BYTES + range.bytes())
    }

    /// Whether so much may be too much for that caller, and not for others.
    pub(super) fn holds_much(&self, account: &Account, bytes: usize) -> bool {
        !self.is_much(0, bytes) && self.is_much(account.held(self.of), bytes)
    }

    /// Sets `bytes` aside for a caller, or counts a refusal.
    pub(super) fn reserve(
        self: &Arc<Self>,
        account: &Arc<Account>,
        kind: MemoryUse,
        bytes: usize,
    ) -> Option<MemoryReservation> {
        if self.take(Some(account), kind, bytes) {
            let account = Some(account.clone());
            return Some(MemoryReservation { budget: self.clone(), account, kind, bytes });
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Whether `bytes` could be held now for that caller. If not, a refusal is counted.
    pub(super) fn has_room(&self, account: &Account, kind: MemoryUse, bytes: usize) -> bool {
        // Small ones are tried when they are taken, if they are counted at all.
        let fits = bytes <= LARGE_BYTES || self.take(Some(account), kind, bytes);
        if !fits {
            self.refused.fetch_add(1, Ordering::Relaxed);
        } else if bytes > LARGE_BYTES {
            self.give_back(Some(account), kind, bytes);
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

    /// The largest answer for which there can be room at all: as much as one caller gets.
    pub(super) fn answer_bytes_max(&self) -> usize {
        self.max_for(Some(0), self.bytes_max).1
    }

    /// Requests that were refused since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts a part that callers share in what one of them holds, or counts a refusal. It is taken
    /// already, so that there has to be room for nothing more.
    pub(super) fn share(&self, account: &Arc<Account>, kind: MemoryUse, bytes: usize) -> Option<SharedPart> {
        let part = SharedPart { account: account.clone(), of: self.of, bytes };
        let (max, large_max) = self.max_for(Some(account.add(self.of, bytes)), bytes);
        let is_within = self.used() <= max
            && (bytes <= LARGE_BYTES || self.large[kind as usize].load(Ordering::Relaxed) <= large_max);
        if !is_within {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        is_within.then_some(part)
    }

    /// Whether a caller that holds so much has a lot with `bytes` more.
    fn is_much(&self, held: usize, bytes: usize) -> bool {
        held.saturating_add(bytes) > self.bytes_max / 16 * 2
    }

    /// What may be held in all, and of large parts, with `bytes` for a caller that held so much
    /// before; `None`: they are for several.
    fn max_for(&self, held: Option<usize>, bytes: usize) -> (usize, usize) {
        let (quarter, sixteenth) = (self.bytes_max / 4, self.bytes_max / 16);
        if held.is_some_and(|held| self.is_much(held, bytes)) {
            (self.bytes_max - quarter, self.bytes_max - quarter - sixteenth)
        } else {
            (self.bytes_max, self.bytes_max - quarter)
        }
    }

    fn take(&self, account: Option<&Account>, kind: MemoryUse, bytes: usize) -> bool {
        let (max, large_max) = self.max_for(account.map(|account| account.add(self.of, bytes)), bytes);
        let mut fits = Self::add(&self.used, bytes, max);
        if fits && bytes > LARGE_BYTES && !Self::add(&self.large[kind as usize], bytes, large_max) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            fits = false;
        }
        if let Some(account) = account
            && !fits
        {
            account.take_off(self.of, bytes);
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

    fn give_back(&self, account: Option<&Account>, kind: MemoryUse, bytes: usize) {
        if let Some(account) = account {
            account.take_off(self.of, bytes);
        }
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "nobody gives back what was not taken");
        if bytes > LARGE_BYTES {
            self.large[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl MemoryReservation {
    /// It is not its caller's alone any more: those who hold it have a [`SharedPart`] each.
    pub(super) fn shared(mut self) -> Self {
        if let Some(account) = self.account.take() {
            account.take_off(self.budget.of, self.bytes);
        }
        self
    }

    /// Makes it `bytes` large. `false`, and a refusal, if there is no room for that. The caller
    /// then gives up what it is for.
    #[must_use]
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        if bytes == self.bytes {
            return true;
        }
        // Taken anew as a whole, so that a small one that becomes large counts as such.
        let account = self.account.as_deref();
        self.budget.give_back(account, self.kind, self.bytes);
        if self.budget.take(account, self.kind, bytes) {
            self.bytes = bytes;
            return true;
        }
        self.budget.refused.fetch_add(1, Ordering::Relaxed);
        // Another request may have taken what was given back. Then this one holds nothing.
        if !self.budget.take(account, self.kind, self.bytes) {
            self.bytes = 0;
        }
        false
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.budget.give_back(self.account.as_deref(), self.kind, self.bytes);
    }
}

impl Drop for SharedPart {
    fn drop(&mut self) {
        self.account.take_off(self.of, self.bytes);
    }
}

#[cfg(test)]
mod tests;
