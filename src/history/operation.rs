//! One operation of one client, as it saw it.

use bytes::Bytes;
use core::fmt;

/// What an operation did, with what it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Set the key to this value.
    Set(Bytes),
    /// Removed the key.
    Delete,
    /// Read this value; `None`: the key did not exist. Without meaning if the outcome is unknown.
    Get(Option<Bytes>),
}

/// One operation of one client. Times are of one clock for the whole history, in any unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Operation {
    /// Who. For the reader of an explanation: order comes from the times alone.
    pub client: u64,
    /// The key it was about.
    pub key: Bytes,
    /// What it did.
    pub kind: Kind,
    /// When it was called, at the latest just before the request was sent.
    pub call: u64,
    /// When the answer had come; `None`: the outcome is unknown. Equal times are concurrent.
    pub ret: Option<u64>,
    /// The key's mod_revision, where it was observed: the one that a set made, or that a get saw.
    pub revision: Option<u64>,
}

impl Operation {
    /// Whether this returned before `other` was called: then no order may put it behind.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        self.ret.is_some_and(|ret| ret < other.call)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} ..", self.call)?;
        match self.ret {
            Some(ret) => write!(f, " {ret}]")?,
            None => write!(f, " ?]")?,
        }
        write!(f, " client {}: ", self.client)?;
        match &self.kind {
            Kind::Set(value) => write!(f, "set {} to {}", Short(&self.key), Short(value))?,
            Kind::Delete => write!(f, "delete {}", Short(&self.key))?,
            Kind::Get(None) => write!(f, "get {} = nothing", Short(&self.key))?,
            Kind::Get(Some(value)) => write!(f, "get {} = {}", Short(&self.key), Short(value))?,
        }
        if let Some(revision) = self.revision {
            write!(f, " (revision {revision})")?;
        }
        Ok(())
    }
}

/// Bytes for a reader: quoted, escaped, cut to a length that fits a line.
pub(super) struct Short<'a>(pub(super) &'a [u8]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES_MAX: usize = 40;
        let shown = &self.0[..self.0.len().min(SHOWN_BYTES_MAX)];
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if shown.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}
