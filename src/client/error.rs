//! Why a call has no result, and what that says of a write.

use crate::client::endpoint::Endpoint;
use crate::kv::{KeyValue, Revision};
use std::{fmt, io};

/// Characters of an answer that an error quotes, at most.
const QUOTE_CHARS_MAX: usize = 300;

/// What is known of a write that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It has not happened and will not. It may be sent again.
    NotApplied,
    /// It may have happened, or may still happen. Read before you write again, if it matters.
    Unknown,
}

/// What kind of failure it is: for programs that tell a few apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong in itself.
    BadRequest,
    /// What is asked for does not exist, or not any more.
    NotFound,
    /// A condition does not hold, or another one holds the lock.
    ConditionFailed,
    /// The credentials are missing or wrong, or there is no right to it.
    Denied,
    /// No node that was asked can do it now. Of a write: it has not happened.
    Unavailable,
    /// A write that may have happened, or may still happen.
    OutcomeUnknown,
    /// Anything else: the store is full, a value is no number, the answer is none of a node.
    Other,
}

/// A call that has no result: the node that was asked last, and what went wrong there. If nobody
/// listens at the last address, it is the node before that.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint}: {failure}")]
pub struct CallError {
    /// The node that was asked last.
    pub endpoint: Endpoint,
    /// What went wrong.
    pub failure: CallFailure,
    /// Whether the call changes something.
    pub is_write: bool,
    /// Whether a node that was asked before may have done it.
    pub maybe_done: bool,
}

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum CallFailure {
    /// The request makes no HTTP; nothing was sent.
    #[error("this cannot be asked over HTTP: {0}")]
    Unaskable(String),
    /// There is no connection; nothing was sent.
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    /// The answer did not come in time.
    #[error("no answer in time")]
    Late,
    /// The connection ended before the answer did.
    #[error("the connection broke before the answer was complete: {0}")]
    Lost(String),
    /// The answer is none of a node.
    #[error("that is no answer of an InfinityStore node: {0}")]
    Nonsense(String),
    /// A message of a watch is longer than the client takes, so many bytes. Another node would send
    /// the same.
    #[error("a message of the watch is longer than {0} bytes; watch fewer keys, or go on behind it")]
    TooLong(usize),
    /// The node answered that it did not do it.
    #[error("{0}")]
    Refused(RefusedCall),
}

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RefusedCall {
    /// The status: 400 to 599.
    pub status: u16,
    /// The detail of a problem, or the body up to its newline; of a long one, the beginning.
    pub text: String,
    /// The code of a problem.
    pub code: Option<String>,
    /// The revision that a problem is about: the oldest one that is there, the newest one, or the
    /// store's when a condition failed.
    pub revision: Option<Revision>,
    /// What stands in the way, where a condition failed: the key as it is, without its value.
    pub present: Option<Box<KeyValue>>,
    /// The header `infinitystore-reason`: why, in words.
    pub reason: Option<String>,
    /// What is known of the request, if it was a write.
    pub outcome: WriteOutcome,
}

impl CallError {
    /// What is known of the write that has failed. Of a read it says nothing.
    #[must_use]
    pub fn outcome(&self) -> WriteOutcome {
        // Whatever is said of the repetition, the first one may have been carried out. A node that
        // refuses by itself knows nothing of it. And the cluster gives the answer of the first one
        // only while it remembers that. Later it refuses the repetition, and knows no more.
        if self.maybe_done {
            return WriteOutcome::Unknown;
        }
        self.failure.outcome()
    }

    /// The code of the node's answer, if there was one and it is a problem.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.refusal()?.code.as_deref()
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        if self.is_write && self.outcome() == WriteOutcome::Unknown {
            return ErrorKind::OutcomeUnknown;
        }
        match &self.failure {
            CallFailure::Unaskable(_) | CallFailure::TooLong(_) => ErrorKind::BadRequest,
            CallFailure::Unreachable(_) | CallFailure::Late | CallFailure::Lost(_) => ErrorKind::Unavailable,
            CallFailure::Nonsense(_) => ErrorKind::Other,
            CallFailure::Refused(refusal) => refusal.kind(),
        }
    }

    /// The node's answer, if there was one and it said no.
    #[must_use]
    pub fn refusal(&self) -> Option<&RefusedCall> {
        match &self.failure {
            CallFailure::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl RefusedCall {
    fn kind(&self) -> ErrorKind {
        let code = self.code.as_deref().unwrap_or_default();
        match (self.status, code) {
            (_, "no-such-route") => ErrorKind::Other,
            // Without a code it is no answer of a node, but of a proxy, say.
            (404 | 410 | 412, "") => ErrorKind::Other,
            (404 | 410, _) => ErrorKind::NotFound,
            (412, _) | (409, "held" | "lease-exists") => ErrorKind::ConditionFailed,
            (401 | 403, _) if code != "other-origin" => ErrorKind::Denied,
            (429, _) => ErrorKind::Unavailable,
            (409, _) | (507, "quota-exceeded") => ErrorKind::Other,
            (400..500, _) => ErrorKind::BadRequest,
            _ => ErrorKind::Unavailable,
        }
    }
}

impl fmt::Display for RefusedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({code})", self.text),
            None => write!(f, "{} {}", self.status, self.text),
        }
    }
}

impl CallFailure {
    /// What is known of the write that has failed in this way.
    #[must_use]
    pub fn outcome(&self) -> WriteOutcome {
        match self {
            Self::Unaskable(_) | Self::Unreachable(_) | Self::TooLong(_) => WriteOutcome::NotApplied,
            Self::Refused(refusal) => refusal.outcome,
            Self::Late | Self::Lost(_) | Self::Nonsense(_) => WriteOutcome::Unknown,
        }
    }

    /// Whether nobody listens at the address.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Self::Unreachable(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Whether another node may be able to do it: the fault is not the request's own.
    pub(super) fn is_of_the_node(&self) -> bool {
        match self {
            Self::Unaskable(_) | Self::TooLong(_) => false,
            Self::Refused(refusal) => refusal.status >= 500,
            Self::Unreachable(_) | Self::Late | Self::Lost(_) | Self::Nonsense(_) => true,
        }
    }
}

/// The beginning of a text from a node, on one line, to be quoted.
pub(super) fn quote(bytes: &[u8]) -> String {
    // A character has at most four bytes.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * QUOTE_CHARS_MAX)]);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.trim_end().chars().take(QUOTE_CHARS_MAX).map(clean).collect()
}
