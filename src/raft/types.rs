//! The words everything else is written in: terms, indices, nodes, time.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Declares a `u64` newtype that prints as its number and serializes transparently.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw number.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The raw number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A term: logical time, divided by elections (Raft §5.1). `Term::ZERO` is before the first
    /// election.
    Term
}
number! {
    /// Position of an entry in the log, from 1. `LogIndex::ZERO` is the position before the log.
    LogIndex
}
number! {
    /// The id of a member: given by the leader that adds it, never used twice in a cluster. Not the
    /// `--node-id`, which is the member's *name*.
    NodeId
}
number! {
    /// Microseconds on a monotonic clock of this process; only differences mean anything.
    Time
}
number! {
    /// Position in the one ordered stream of writes that a core hands to its storage, from 1 in
    /// each incarnation.
    WriteSequence
}
number! {
    /// Number of a round of heartbeats that confirms leadership for reads (D §6.4);
    /// grows within a term.
    ReadRound
}

/// Identifies a start of a node, among all starts on any copy of its data.
///
/// The number grows with every start on the same data. But it is counted on the disk: if an older
/// copy of the disk is put back, the number is given again. The nonce is drawn at random at each
/// start, so number and nonce together are never given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    number: u64,
    nonce: u64,
}

impl Incarnation {
    /// The start `number` without a nonce, for nodes whose disk is never put back (tests, models).
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self::drawn(number, 0)
    }

    /// The start `number`, for which `nonce` was drawn.
    #[must_use]
    pub const fn drawn(number: u64, nonce: u64) -> Self {
        Self { number, nonce }
    }

    /// The number of this start on its data, from 1.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.number
    }

    /// The random number drawn at this start.
    #[must_use]
    pub const fn nonce(self) -> u64 {
        self.nonce
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nonce {
            0 => write!(f, "{}", self.number),
            nonce => write!(f, "{}-{nonce:016x}", self.number),
        }
    }
}

impl Term {
    /// Before the first election.
    pub const ZERO: Self = Self(0);

    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl LogIndex {
    /// The position before the first entry.
    pub const ZERO: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; `ZERO` stays `ZERO`.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// This position moved on by `count` entries.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }

    /// Entries from `earlier` (exclusive) to this one (inclusive); 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Time {
    /// This instant moved on by `micros` microseconds.
    #[must_use]
    pub const fn plus(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this instant; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl WriteSequence {
    /// Before the first write.
    pub const ZERO: Self = Self(0);

    /// The write after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Session {
    /// No relation: only an answer to an older term carries it.
    pub const ZERO: Self = Self(0);

    /// The session after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ReadRound {
    /// Before the first round of a term.
    pub const ZERO: Self = Self(0);

    /// The round after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Term and index of an entry: what identifies it (Log Matching, Raft §5.3).
///
/// Ordered by term first, then index: the order of "at least as up-to-date" (Raft §5.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// Term of the entry; `Term::ZERO` before the log.
    pub term: Term,
    /// Index of the entry; `LogIndex::ZERO` before the log.
    pub index: LogIndex,
}

impl LogId {
    /// Before the log.
    pub const ZERO: Self = Self { term: Term::ZERO, index: LogIndex::ZERO };

    /// An entry's identity.
    #[must_use]
    pub const fn new(term: Term, index: LogIndex) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// The random identity of a data directory: made with it, never changed, gone with it (a wiped node
/// gets another).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(pub u128);

/// The random identity of a cluster, made by the node that bootstraps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub u128);

macro_rules! hexadecimal {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
    };
}
hexadecimal!(StoreId);
hexadecimal!(ClusterId);

/// What must survive a restart beside the log (Raft figure 2, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// Latest term seen; never goes back.
    pub term: Term,
    /// The node that this node voted for in `term`. Reset when the term grows, never otherwise.
    pub voted_for: Option<NodeId>,
}

number! {
    /// Number of a leader's relation to one peer, within a term. Answers echo it. So the leader
    /// recognises a late answer from before the peer was removed and added again, or from before a
    /// snapshot was started again.
    Session
}
number! {
    /// Identifies a read at the core that it was given to. The caller chooses it.
    ReadId
}
