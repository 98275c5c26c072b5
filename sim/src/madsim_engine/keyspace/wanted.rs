//! What a write has to become, and what was so when it was asked for.

use bytes::Bytes;
use infinitystore::kv::{Command, Op, Revision, TxnOp};
use infinitystore::replica::RequestId;
use rand::Rng;
use rand::rngs::SmallRng;

/// A condition of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Condition {
    Exists,
    IsMissing,
    Is(u64),
    IsNot(u64),
}

/// What a write has to become in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ExpectedWrite {
    /// This command.
    Op(Op),
    /// A transaction that does this to the key if the condition holds, and changes nothing
    /// otherwise.
    If(Condition, Bytes, TxnOp),
    /// A put of this key and value, with a lease that was made for it: seconds.
    Leased(Bytes, Bytes, u64),
}

impl ExpectedWrite {
    /// What it takes in the log, at most, under this idempotency key.
    pub(super) fn bytes_max(&self, name: Option<&Bytes>) -> usize {
        // The name of the proposal, the caller, and what a command says beside its keys and values.
        const REST: usize = 256;
        let content = match self {
            Self::Op(op) => {
                let mut command = Vec::new();
                Command::from(op.clone()).encode(&mut command);
                command.len()
            }
            // What is compared, changed, and looked at if the condition does not hold: each may be
            // a range, with two bounds.
            Self::If(_, key, TxnOp::Put(put)) => 5 * (key.len() + 1) + put.value.len(),
            Self::If(_, key, _) => 6 * (key.len() + 1),
            Self::Leased(key, value, _) => key.len() + value.len(),
        };
        content + name.map_or(0, Bytes::len) + REST
    }
}

impl Condition {
    /// One that a key may meet which is now at this revision (0: it does not exist).
    pub(super) fn draw(rng: &mut SmallRng, revision: u64) -> Self {
        let near = if rng.random_bool(0.7) { revision } else { revision.saturating_sub(1) };
        match rng.random_range(0..6) {
            0 => Self::Exists,
            1 => Self::IsMissing,
            2 => Self::IsNot(near),
            _ => Self::Is(near),
        }
    }

    /// Whether it holds of a key at this revision (0: it does not exist).
    pub(super) const fn holds(self, revision: u64) -> bool {
        match self {
            Self::Exists => revision > 0,
            Self::IsMissing => revision == 0,
            Self::Is(wanted) => revision == wanted,
            Self::IsNot(unwanted) => revision != unwanted,
        }
    }

    /// The same, in terms of the revision alone: what exists is not at revision 0.
    pub(super) const fn plain(self) -> Self {
        match self {
            Self::Exists => Self::IsNot(0),
            Self::IsMissing => Self::Is(0),
            other => other,
        }
    }

    /// The header that says so.
    pub(super) fn header(self, rng: &mut SmallRng) -> (&'static str, Vec<u8>) {
        let mut tag = |revision: u64| match rng.random_range(0..4) {
            0 => format!(" \"{revision}\" "),
            _ => format!("\"{revision}\""),
        };
        match self {
            Self::Exists => ("If-Match", b"*".to_vec()),
            Self::IsMissing => ("if-none-match", b"*".to_vec()),
            Self::Is(revision) => ("if-match", tag(revision).into_bytes()),
            Self::IsNot(revision) => ("If-None-Match", tag(revision).into_bytes()),
        }
    }
}

/// What was so when a request was sent.
#[derive(Clone, Debug)]
pub(in crate::madsim_engine) struct AtSending {
    pub slot: usize,
    pub life: u32,
    pub at: u64,
    /// Entries that were committed, and entries that the process had applied; 0: it was loading its
    /// data.
    pub committed: usize,
    pub applied: usize,
    /// The newest revision that any client had been told.
    pub floor: u64,
    /// The machine's term.
    pub term: u64,
    /// Its name for the checks of leases.
    pub id: RequestId,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is done, or there is something that forbids it.
    Told,
    /// A page, and what the next one has to be asked with.
    Page { cursor: String, resume: Bytes, at: Revision, count: u64 },
    /// It cannot be done now, and why. Whether the write may have happened.
    Refused { why: String, is_unknown: bool },
}
