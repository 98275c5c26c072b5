//! Words that commands and queries share.

use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use serde::{Deserialize, Serialize};

/// A key is at most this long; refused before it reaches the log.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// A value is at most this long; refused before it reaches the log.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Number of a change of the keyspace, from 1. The newest one is the revision of the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Identifies a lease; [`Self::NONE`] is no lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

impl LeaseId {
    /// No lease. In a grant: the store chooses an id.
    pub const NONE: Self = Self(0);

    /// Whether it names no lease.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Keys from `start` on that are below `end`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key. Empty: the range begins with the first key there is.
    pub start: Bytes,
    /// The first key that is not in it; `None`: there is no such key.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self { start: Bytes::new(), end: None }
    }

    /// One key.
    #[must_use]
    pub fn one(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let mut end = Vec::with_capacity(start.len() + 1);
        end.extend_from_slice(&start);
        end.push(0);
        Self { start, end: Some(Bytes::from(end)) }
    }

    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = successor_of_prefix(&start);
        Self { start, end }
    }

    /// The only key that can be in it, if there is only one.
    #[must_use]
    pub fn one_key(&self) -> Option<&Bytes> {
        let end = self.end.as_ref()?;
        let is_one =
            end.len() == self.start.len() + 1 && end.last() == Some(&0) && end.starts_with(&self.start);
        (is_one && !self.start.is_empty()).then_some(&self.start)
    }

    /// Whether `key` is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// Whether no key can be in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether a key can be in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let begins_before =
            |range: &Self, end: &Option<Bytes>| end.as_ref().is_none_or(|end| range.start < *end);
        begins_before(self, &other.end)
            && begins_before(other, &self.end)
            && !self.is_empty()
            && !other.is_empty()
    }

    /// Bytes of its bounds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.start.len() + self.end.as_ref().map_or(0, Bytes::len)
    }
}

/// The first key after all that begin with `prefix`; `None` if there is none.
pub(super) fn successor_of_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Bytes::from(end))
}

/// A key, its value and its versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty where only keys were asked for.
    pub value: Bytes,
    /// Revision that created the key (since it last did not exist).
    pub create_revision: Revision,
    /// Revision that last set it.
    pub mod_revision: Revision,
    /// How often it was set since it was created, from 1.
    pub version: u64,
    /// The lease that it ends with.
    pub lease: LeaseId,
}

impl KeyValue {
    /// Bytes of its key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// Limits that the whole cluster shares. They are replicated, and changed by a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// When past versions take more bytes than this, the oldest revisions are compacted.
    pub history_bytes: u64,
    /// A command that would let keys, values and leases take more bytes than this is refused.
    pub quota_bytes: u64,
    /// When remembered answers of idempotency keys take more bytes than this, the oldest ones are
    /// forgotten.
    pub answers_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { history_bytes: 64 << 20, quota_bytes: 4 << 30, answers_bytes: 16 << 20 }
    }
}
