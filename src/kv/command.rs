//! What clients can ask the state machine to change, and what it answers.

use crate::kv::query::{RangePage, RangeQuery};
use crate::kv::security::{Denial, Principal, SecurityChange, SecurityRefusal};
use crate::kv::types::{KeyRange, LeaseId, Revision, Settings};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// An idempotency key is at most this long.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

/// A command: what to do, for whom, and under which name it is done at most once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Command {
    /// The client's name for this command. A client that repeats it gets the first answer again.
    pub idempotency_key: Option<Bytes>,
    /// A revision of the store that its client had seen before it sent the command for the first
    /// time. Goes with an idempotency key, and is no part of what the command does: it says whether
    /// the answer to that first attempt can have been forgotten.
    pub since: Option<Revision>,
    /// Who wants it. `None`: nobody has said who they are, or a leader wants it itself.
    pub by: Option<Principal>,
    /// What to do.
    pub op: Op,
}

impl From<Op> for Command {
    fn from(op: Op) -> Self {
        Self { idempotency_key: None, since: None, by: None, op }
    }
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Sets a key to a value.
    Put(Put),
    /// Removes the keys of a range; without effect (and without a new revision) if there are none.
    Delete(KeyRange),
    /// Compares, and does one thing or the other, in one revision.
    Txn(Box<Txn>),
    /// Adds to a key whose value is a decimal number. A key that does not exist counts as 0.
    Increment {
        /// The key.
        key: Bytes,
        /// What is added.
        by: i64,
    },
    /// Forgets what was before a revision. A read at that revision still succeeds.
    Compact(Revision),
    /// Makes a lease.
    Grant {
        /// Its id; [`LeaseId::NONE`]: the store chooses one.
        id: LeaseId,
        /// How long it lives without a renewal, seconds. Less than the minimum is raised to it.
        ttl_seconds: u64,
    },
    /// Ends a lease, and removes its keys in one revision.
    Revoke(LeaseId),
    /// Leases whose time is up, as the leader of `term` finds. It has no effect in an entry of
    /// another term, nor on a lease that was granted anew. Clients cannot ask for it.
    Expire {
        /// The term of the leader that kept the time.
        term: u64,
        /// Each lease, and the number of its grant.
        leases: Vec<(LeaseId, u64)>,
    },
    /// Changes the cluster's limits.
    Configure(Settings),
    /// Changes who may do what.
    Secure(Box<SecurityChange>),
}

impl Op {
    /// Sets a key that ends with no lease.
    #[must_use]
    pub fn set(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put(Put { key: key.into(), value: value.into(), lease: LeaseId::NONE })
    }

    /// Removes one key.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete(KeyRange::one(key))
    }
}

/// Sets a key to a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Put {
    /// Any bytes, not empty.
    pub key: Bytes,
    /// Any bytes.
    pub value: Bytes,
    /// The lease that the key ends with. A put without one detaches the key.
    pub lease: LeaseId,
}

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Txn {
    /// All have to hold; none: they hold.
    pub compare: Vec<Compare>,
    /// What is done if they hold, in this order.
    pub success: Vec<TxnOp>,
    /// What is done if one does not.
    pub failure: Vec<TxnOp>,
}

/// A comparison: of a key, or of all keys in a range that exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Compare {
    /// Which keys. One key is compared even if it does not exist: its numbers are 0, and a
    /// comparison of its value does not hold.
    pub range: KeyRange,
    /// What of the key is compared, and to what.
    pub target: Target,
    /// Which relation of the two holds.
    pub order: CompareOrder,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The value.
    Value(Bytes),
    /// How often the key was set since it was created.
    Version(u64),
    /// The revision that created it.
    CreateRevision(Revision),
    /// The revision that last set it.
    ModRevision(Revision),
    /// Its lease.
    Lease(LeaseId),
}

/// How it is compared: the key's on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareOrder {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `>`
    Greater,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TxnOp {
    /// Sets a key.
    Put(Put),
    /// Removes the keys of a range.
    Delete(KeyRange),
    /// Reads. It sees what the steps before it did.
    Get(RangeQuery),
    /// A transaction within the transaction.
    Txn(Box<Txn>),
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The key has a new value.
    Put {
        /// Revision of this change, and now the key's `mod_revision`.
        revision: Revision,
        /// The key's version: 1 when it was created.
        version: u64,
    },
    /// No key of the range exists (any more).
    Deleted {
        /// The store's revision after the command.
        revision: Revision,
        /// How many existed.
        count: u64,
    },
    /// The transaction took one of its branches.
    Txn {
        /// The store's revision after the command.
        revision: Revision,
        /// Whether the comparisons held.
        succeeded: bool,
        /// What each step of the branch did.
        results: Vec<TxnResult>,
    },
    /// The number was added.
    Incremented {
        /// Revision of this change.
        revision: Revision,
        /// The key's version.
        version: u64,
        /// The number now.
        value: i64,
    },
    /// What was before this revision is forgotten.
    Compacted(Revision),
    /// The lease is granted.
    Granted {
        /// Its id.
        id: LeaseId,
        /// Its time, seconds.
        ttl_seconds: u64,
    },
    /// The lease, or the leases, ended.
    Revoked {
        /// The store's revision after the command.
        revision: Revision,
        /// How many keys ended with them.
        keys: u64,
    },
    /// The limits are in force.
    Configured(Settings),
    /// Users, roles and tokens are changed. The revision of the rules now.
    Secured(u64),
    /// Nothing was changed, and why.
    Refused(Refusal),
}

/// What a step of a transaction did.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TxnResult {
    /// The key's version now.
    Put {
        /// 1 when it was created.
        version: u64,
    },
    /// How many keys were removed.
    Deleted {
        /// How many existed.
        count: u64,
    },
    /// What was read.
    Range(RangePage),
    /// What the inner transaction did.
    Txn {
        /// Whether its comparisons held.
        succeeded: bool,
        /// What each step of its branch did.
        results: Vec<TxnResult>,
    },
}

/// Why a command that was committed changed nothing. Every member decides it alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The store would outgrow its quota.
    #[error(
        "the store would take {needs} bytes, and its quota is {quota}; delete keys, or raise quota_bytes"
    )]
    Quota {
        /// What it would take.
        needs: u64,
        /// What it may take.
        quota: u64,
    },
    /// There is no such lease.
    #[error("there is no lease {0}; it was never granted, or it has ended")]
    NoLease(LeaseId),
    /// There is such a lease already.
    #[error("there is a lease {0} already; choose another id, or 0")]
    LeaseExists(LeaseId),
    /// The revision was compacted.
    #[error("the revision was compacted; the oldest one that is there is {0}")]
    Compacted(Revision),
    /// The revision has not come yet.
    #[error("the revision has not come yet; the store is at {0}")]
    Future(Revision),
    /// The command would change too many keys at once.
    #[error(
        "{keys} keys would be changed, compared or looked back at in one command, or end with one lease, and {limit} may; use smaller ranges"
    )]
    TooManyChanges {
        /// How many keys.
        keys: u64,
        /// How many may.
        limit: u64,
    },
    /// The caller has made many leases, and attached keys to none of them.
    #[error("{limit} leases of yours have no keys, and no more may; attach keys to them, or revoke some")]
    TooManyLeases {
        /// How many may.
        limit: u64,
    },
    /// The key holds no decimal number.
    #[error("the value is no decimal number of 64 bits")]
    NotANumber,
    /// The sum does not fit 64 bits.
    #[error("the sum does not fit 64 bits")]
    Overflow,
    /// The caller may not do it.
    #[error("{denial}")]
    Denied {
        /// Which right the caller lacks.
        denial: Denial,
        /// Whether a command under the same idempotency key was carried out before: this one may
        /// have been done then.
        maybe_done: bool,
    },
    /// A change of users, roles and tokens that cannot be made.
    #[error("{0}")]
    Security(SecurityRefusal),
    /// Another command was done under this idempotency key.
    #[error("another command was done under this idempotency key; choose a new one")]
    KeyReused,
    /// The command may have been done before, and the answer be forgotten. It was not done now.
    #[error("{0}")]
    AnswerForgotten(ForgottenAnswer),
}

/// Why nobody knows of a first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ForgottenAnswer {
    /// What its client had seen before it.
    pub since: Revision,
    /// The revision of the newest answer that is forgotten; below `since`: the store's, which has
    /// not come so far.
    pub through: Revision,
}

impl fmt::Display for ForgottenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { since, through } = self;
        if through < since {
            write!(
                f,
                "revision {since} has not come yet, and the first attempt was made after it: that was another store, and what became of it nobody knows"
            )?;
        } else {
            write!(
                f,
                "answers up to revision {through} are forgotten, and the first attempt was made after revision {since}: whether it was done nobody knows"
            )?;
        }
        f.write_str("; it was not done again: read, and write under a new idempotency key if need be")
    }
}

impl Outcome {
    /// The store's revision after the command, where the outcome tells it.
    #[must_use]
    pub const fn revision(&self) -> Option<Revision> {
        match self {
            Self::Put { revision, .. }
            | Self::Deleted { revision, .. }
            | Self::Txn { revision, .. }
            | Self::Incremented { revision, .. }
            | Self::Revoked { revision, .. } => Some(*revision),
            Self::Compacted(_)
            | Self::Granted { .. }
            | Self::Configured(_)
            | Self::Secured(_)
            | Self::Refused(_) => None,
        }
    }
}
