//! What clients can ask of the state machine, and what it answers.

use crate::codec::{DecodeError, Reader, Writer};
use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A key is at most this long; refused before it reaches the log.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// A value is at most this long; refused before it reaches the log.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Number of a mutation of the store, from 1. The newest one is the version of the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Sets a key to a value.
    Set {
        /// Any bytes, not empty.
        key: Bytes,
        /// Any bytes.
        value: Bytes,
    },
    /// Removes a key; without effect (and without a new revision) if it does not exist.
    Delete {
        /// Any bytes, not empty.
        key: Bytes,
    },
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The key has a new value.
    Set {
        /// Revision of this mutation, and now the key's `mod_revision`.
        revision: Revision,
        /// The key's version: 1 when it was created.
        version: u64,
    },
    /// The key does not exist (any more).
    Deleted {
        /// The store's revision after the command.
        revision: Revision,
        /// Whether it existed.
        existed: bool,
    },
}

/// First byte of an encoded [`Op::Set`].
const TAG_SET: u8 = 1;
/// First byte of an encoded [`Op::Delete`].
const TAG_DELETE: u8 = 2;

impl Op {
    /// The key it is about.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Set { key, .. } | Self::Delete { key } => key,
        }
    }

    /// The same command in an allocation of its own size. Its strings may be parts of a buffer that
    /// a request came in, which may be many times as large: code that keeps a command for long
    /// keeps this copy.
    #[must_use]
    pub fn detached(&self) -> Self {
        let (key, value) = match self {
            Self::Set { key, value } => (key, Some(value)),
            Self::Delete { key } => (key, None),
        };
        let mut both = Vec::with_capacity(self.bytes());
        both.extend_from_slice(key);
        both.extend_from_slice(value.map_or(&[], |value| value));
        let both = Bytes::from(both);
        let (at, own) = (key.len(), both.slice(..key.len()));
        match value {
            Some(_) => Self::Set { key: own, value: both.slice(at..) },
            None => Self::Delete { key: own },
        }
    }

    /// Bytes of its key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Set { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }

    /// Appends the encoded command to `out`: a tag byte, the key and, for a set, the value, each
    /// behind its u32 length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Set { key, value } => {
                out.reserve(9 + key.len() + value.len());
                out.put_u8(TAG_SET);
                out.put_bytes(key);
                out.put_bytes(value);
            }
            Self::Delete { key } => {
                out.reserve(5 + key.len());
                out.put_u8(TAG_DELETE);
                out.put_bytes(key);
            }
        }
    }

    /// Reads a command that fills the reader to its end; the strings share the reader's bytes.
    ///
    /// # Errors
    /// [`DecodeError`] if it is cut short, too long or undefined, or its key is empty.
    pub fn decode(mut reader: Reader) -> Result<Self, DecodeError> {
        let tag = reader.u8("command")?;
        if tag != TAG_SET && tag != TAG_DELETE {
            return Err(DecodeError::Invalid { what: "command", value: u64::from(tag) });
        }
        let key = reader.bytes("key", KEY_BYTES_MAX)?;
        if key.is_empty() {
            return Err(DecodeError::Invalid { what: "length of the key", value: 0 });
        }
        let op = if tag == TAG_SET {
            Self::Set { key, value: reader.bytes("value", VALUE_BYTES_MAX)? }
        } else {
            Self::Delete { key }
        };
        reader.finish("command")?;
        Ok(op)
    }
}

#[cfg(test)]
mod tests;
