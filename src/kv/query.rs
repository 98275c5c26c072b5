//! What clients can read.

use crate::kv::security::{AdminRight, Security};
use crate::kv::types::{KeyRange, KeyValue, LeaseId, Revision, Settings};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;

/// A page holds at most this many keys, whatever the limit.
pub const PAGE_KEYS_MAX: usize = 10_000;
/// A page ends once its keys and values take this many bytes.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// What can be asked of the store as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// One key.
    Key(Bytes),
    /// A range.
    Range(RangeQuery),
    /// One lease.
    Lease(LeaseId),
    /// The leases from an id on, ascending; so many at most.
    Leases(LeaseId, usize),
    /// The keys that end with a lease, from a key on, ascending; so many at most.
    LeaseKeys(LeaseId, Bytes, usize),
    /// The limits in force.
    Settings,
    /// Users, roles and tokens.
    Security,
    /// Nothing: whether it may be asked is the answer.
    Permission(AdminRight),
}

/// What the store answers, as of [`Self::revision`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryAnswer {
    /// The store's revision when it was asked.
    pub revision: Revision,
    /// What was found.
    pub found: Found,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The key, if it exists.
    Key(Option<KeyValue>),
    /// A page, or why there is none.
    Range(Result<RangePage, ReadError>),
    /// The lease, if it is there.
    Lease(Option<Lease>),
    /// Leases.
    Leases(Vec<Lease>),
    /// Keys of a lease.
    LeaseKeys {
        /// A page of them: no further one once they take [`PAGE_BYTES_MAX`].
        keys: Vec<Bytes>,
        /// The first key that is not in it.
        next: Option<Bytes>,
    },
    /// The limits in force.
    Settings(Settings),
    /// Users, roles and tokens.
    Security(Arc<Security>),
    /// It may be done.
    Permitted,
}

/// Asks for the keys of a range, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RangeQuery {
    /// Which keys.
    pub range: KeyRange,
    /// The page begins here, if this is behind the range's start: what [`RangePage::next`] of the
    /// page before said.
    pub resume: Option<Bytes>,
    /// As of which revision; `None`: now.
    pub at: Option<Revision>,
    /// How many keys (or, with a delimiter, keys and prefixes) at most; 0: as many as a page holds.
    pub limit: usize,
    /// What is wanted of each key.
    pub detail: Detail,
    /// Keys that have this in them behind the range's start are gathered: of each group only the
    /// beginning, delimiter included, is answered.
    pub delimiter: Option<Bytes>,
    /// Whether the number of all keys in the range is wanted too.
    pub count: bool,
}

/// What is wanted of each key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Detail {
    /// The key, its value and its versions.
    #[default]
    Values,
    /// The key and its versions.
    Keys,
    /// Nothing: only how many there are.
    Count,
}

impl RangeQuery {
    /// All of a range, now.
    #[must_use]
    pub const fn of(range: KeyRange) -> Self {
        Self {
            range,
            resume: None,
            at: None,
            limit: 0,
            detail: Detail::Values,
            delimiter: None,
            count: false,
        }
    }
}

/// A part of a range, as of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangePage {
    /// The store's revision when it was read.
    pub revision: Revision,
    /// The keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// Beginnings of keys that the delimiter gathered, ascending.
    pub prefixes: Vec<Bytes>,
    /// How many keys the range holds, where that was asked for.
    pub count: Option<u64>,
    /// The range goes on here: the first key (or prefix) that is not in this page.
    pub next: Option<Bytes>,
}

/// Asks for what changed in a range, from a revision on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangesQuery {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision that is wanted.
    pub from: Revision,
    /// Whether puts are wanted.
    pub puts: bool,
    /// Whether deletions are wanted.
    pub deletions: bool,
    /// Whether the version that each change replaced is wanted.
    pub previous: bool,
}

/// What changed, up to some revision: whole revisions, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Revisions with changes that are wanted.
    pub revisions: Vec<RevisionChanges>,
    /// Everything before this revision has been looked at: go on from here.
    pub next: Revision,
}

/// The changes of one revision that are wanted, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionChanges {
    /// The revision.
    pub revision: Revision,
    /// At least one.
    pub events: Vec<Event>,
}

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Bytes,
    /// What it is now; `None`: it was deleted.
    pub now: Option<KeyValue>,
    /// What it was, where that was asked for and it existed.
    pub previous: Option<KeyValue>,
}

/// Why a read at some revision cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The revision was compacted.
    #[error("the revision was compacted; the oldest one that is there is {0}")]
    Compacted(Revision),
    /// The revision has not come yet.
    #[error("the revision has not come yet; the store is at {0}")]
    Future(Revision),
}

/// A lease as the store knows it. How much time is left, only the leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives without a renewal, seconds.
    pub ttl_seconds: u64,
    /// The number of its grant: no two grants share one, not even of the same id.
    pub grant: u64,
    /// How many keys end with it.
    pub keys: u64,
}

/// A [`Lease`] without how many keys end with it, which takes longer to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives without a renewal, seconds.
    pub ttl_seconds: u64,
    /// The number of its grant.
    pub grant: u64,
}

impl LeaseGrant {
    /// That of a lease.
    #[must_use]
    pub const fn of(lease: &Lease) -> Self {
        Self { id: lease.id, ttl_seconds: lease.ttl_seconds, grant: lease.grant }
    }
}
