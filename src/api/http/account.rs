//! What one caller has of a server, over all of its connections.

use crate::api::http::rates::{Bucket, Empty, SITE_FACTOR};
use crate::api::http::rounds::Line;
use crate::raft::Time;
use crate::runtime::door::Caller;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// What one caller has: an address, or a site of IPv6 (a network of 48 bits) with all the networks
/// of 64 bits in it.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Bytes of each budget.
    bytes: [AtomicUsize; 2],
    /// Requests under way.
    pub(super) under_way: UnderWay,
    /// Its connections and streams, and which of them wait to be polled.
    line: Arc<Line>,
    /// Requests that it may make, where their rate is limited.
    bucket: Bucket,
    /// The same for probes.
    probes: Bucket,
    /// The account of its site.
    site: Option<Arc<Self>>,
}

/// What a budget is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// Memory for requests and answers.
    Memory,
    /// Questions that wait for a change, and the ranges that they ask for.
    Questions,
}

/// The requests of one caller that are under way.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    pub(super) count: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    /// Told when the next one that waits may try.
    pub(super) turn: Notify,
}

impl Account {
    /// One of that site.
    pub(super) fn of_site(site: Arc<Self>) -> Self {
        Self { site: Some(site), ..Self::default() }
    }

    /// The account of its site; its own, if it has none.
    pub(super) fn site(self: &Arc<Self>) -> &Arc<Self> {
        self.site.as_ref().unwrap_or(self)
    }

    /// The tasks of its site, or its own, if it has none.
    pub(super) fn line(self: &Arc<Self>) -> Arc<Line> {
        self.site().line.clone()
    }

    /// Takes a request out of its bucket, and out of its site's, which is larger.
    ///
    /// # Errors
    /// [`Empty`].
    pub(super) fn take_request(&self, now: Time, rate: NonZeroU32) -> Result<Time, Empty> {
        let own = self.bucket.take(now, rate)?;
        let Some(site) = &self.site else { return Ok(own) };
        Ok(own.max(site.bucket.take(now, rate.saturating_mul(SITE_FACTOR))?))
    }

    /// The same for a probe, out of a bucket of its own.
    ///
    /// # Errors
    /// [`Empty`].
    pub(super) fn take_probe(&self, now: Time, rate: NonZeroU32) -> Result<Time, Empty> {
        let own = self.probes.take(now, rate)?;
        let Some(site) = &self.site else { return Ok(own) };
        Ok(own.max(site.probes.take(now, rate.saturating_mul(SITE_FACTOR))?))
    }

    /// Adds `bytes` to what it holds of a budget. Returns what it, or its site if that is more,
    /// held before.
    pub(super) fn add(&self, of: Resource, bytes: usize) -> usize {
        let of_site = self.site.as_ref().map_or(0, |site| site.add(of, bytes));
        self.bytes[of as usize].fetch_add(bytes, Ordering::Relaxed).max(of_site)
    }

    /// What it, or its site if that is more, holds of a budget.
    pub(super) fn held(&self, of: Resource) -> usize {
        let of_site = self.site.as_ref().map_or(0, |site| site.held(of));
        self.bytes[of as usize].load(Ordering::Relaxed).max(of_site)
    }

    /// Takes `bytes` off again.
    pub(super) fn take_off(&self, of: Resource, bytes: usize) {
        self.bytes[of as usize].fetch_sub(bytes, Ordering::Relaxed);
        if let Some(site) = &self.site {
            site.take_off(of, bytes);
        }
    }
}

/// The accounts of all callers that hold anything, are connected, or were a moment ago.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_caller: BTreeMap<Caller, Arc<Account>>,
    by_site: BTreeMap<Ipv6Addr, Arc<Account>>,
}

impl Accounts {
    /// The caller's.
    pub(super) fn of(&mut self, caller: &Caller) -> Arc<Account> {
        if let Some(known) = self.by_caller.get(caller) {
            return known.clone();
        }
        let site = caller.site().map(|site| self.by_site.entry(site).or_default().clone());
        let account = Arc::new(site.map_or_else(Account::default, Account::of_site));
        self.by_caller.insert(caller.clone(), account.clone());
        account
    }

    /// Forgets those that nobody uses, and whose bucket is full again.
    pub(super) fn forget_unused(&mut self, now: Time) {
        let is_used = |account: &Arc<Account>| {
            Arc::strong_count(account) > 1 || !account.bucket.is_full(now) || !account.probes.is_full(now)
        };
        self.by_caller.retain(|_, account| is_used(account));
        self.by_site.retain(|_, account| is_used(account));
    }
}

#[cfg(test)]
mod tests;
