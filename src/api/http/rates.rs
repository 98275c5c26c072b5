//! How many requests a second one address may make, and one user, where an operator has set that.

use crate::kv::Subject;
use crate::raft::Time;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// A bucket holds the requests of this time: so many may come at once.
const BURST_NANOS: u64 = NANOS_PER_SECOND;
/// A request waits for so long for its turn, at most, microseconds.
pub(super) const WAIT_MICROS_MAX: u64 = 1_000_000;
/// A site of IPv6 may make so many times the requests of an address.
pub(super) const SITE_FACTOR: NonZeroU32 = NonZeroU32::MIN.saturating_add(3);

/// A token bucket. It is full at first.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// When it is full again, nanoseconds of the monotonic clock.
    full_at: AtomicU64,
}

/// Too many requests wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Empty;

/// Buckets of those whose name is known.
#[derive(Debug, Default)]
pub(super) struct UserBuckets {
    state: Mutex<Users>,
}

#[derive(Debug, Default)]
struct Users {
    by_subject: BTreeMap<Subject, Bucket>,
    /// Of certificates, where the cluster is open and knows no users.
    by_certificate: BTreeMap<String, Bucket>,
}

impl Bucket {
    /// Takes a request out. Returns when it may go on: now, or within [`WAIT_MICROS_MAX`].
    ///
    /// # Errors
    /// [`Empty`]: it would have to wait for longer. Nothing is taken.
    pub(super) fn take(&self, now: Time, rate: NonZeroU32) -> Result<Time, Empty> {
        let now_nanos = nanos(now);
        let latest = now_nanos + WAIT_MICROS_MAX * 1_000;
        let interval = NANOS_PER_SECOND / u64::from(rate.get());
        let begins_at = |full_at: u64| full_at.saturating_sub(BURST_NANOS);
        let next = |full_at: u64| full_at.max(now_nanos) + interval;
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            Some(next(full_at)).filter(|next| begins_at(*next) <= latest)
        });
        let begins_at = begins_at(next(taken.map_err(|_| Empty)?));
        Ok(Time::new(begins_at.div_ceil(1_000)).max(now))
    }

    /// Whether there is nothing to remember of it.
    pub(super) fn is_full(&self, now: Time) -> bool {
        self.full_at.load(Ordering::Relaxed) <= nanos(now)
    }
}

impl UserBuckets {
    /// Takes a request out of the bucket of a user or a token.
    ///
    /// # Errors
    /// [`Empty`].
    pub(super) fn take(&self, subject: Subject, now: Time, rate: NonZeroU32) -> Result<Time, Empty> {
        self.lock().by_subject.entry(subject).or_default().take(now, rate)
    }

    /// The same of a certificate whose name nobody looks up.
    ///
    /// # Errors
    /// [`Empty`].
    pub(super) fn take_of_certificate(&self, name: &str, now: Time, rate: NonZeroU32) -> Result<Time, Empty> {
        let known = &mut self.lock().by_certificate;
        match known.get(name) {
            Some(bucket) => bucket.take(now, rate),
            None => known.entry(name.to_owned()).or_default().take(now, rate),
        }
    }

    /// Forgets buckets that are full.
    pub(super) fn forget_full(&self, now: Time) {
        let mut users = self.lock();
        users.by_subject.retain(|_, bucket| !bucket.is_full(now));
        users.by_certificate.retain(|_, bucket| !bucket.is_full(now));
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanos(time: Time) -> u64 {
    time.get().saturating_mul(1_000)
}

#[cfg(test)]
mod tests;
