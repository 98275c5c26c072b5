//! A log entry: encoded once, and the same bytes go to the write-ahead log and to every peer.

use crate::codec::{DecodeError, FeatureLevel, Reader, Writer, checksum};
use crate::raft::types::{LogId, LogIndex, Term};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// Bytes before an entry's data: checksum u32, data length u32, index u64, term u64, kind u8.
pub const ENTRY_HEADER_BYTES: usize = 25;

/// Bytes of an entry's data, at most: a bound for decoders, above every configurable limit.
pub const ENTRY_DATA_BYTES_MAX: usize = 64 << 20;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// The entry with which a new leader commits its predecessors' entries (Raft §8). Carries no
    /// data.
    Empty,
    /// A command for the state machine: opaque bytes here.
    Command,
    /// A [`Membership`](crate::raft::Membership), in force as soon as it is appended
    /// (D §4.1).
    Membership,
    /// Raises the [level](FeatureLevel) of the cluster, for the state machine. A kind of its own:
    /// a release of the level before does not take it for a command that it may skip.
    Level,
}

/// A log entry. Cheap to clone: its bytes are shared.
///
/// Invariant: `encoded` decodes to exactly this entry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    id: LogId,
    kind: EntryKind,
    encoded: Bytes,
}

impl Entry {
    /// Makes an entry and encodes it.
    ///
    /// # Panics
    /// If `data` is longer than [`ENTRY_DATA_BYTES_MAX`]: proposals are bounded far below it.
    #[must_use]
    pub fn new(id: LogId, kind: EntryKind, data: &[u8]) -> Self {
        assert!(data.len() <= ENTRY_DATA_BYTES_MAX, "proposals are bounded before they become entries");
        let mut bytes = Vec::with_capacity(ENTRY_HEADER_BYTES + data.len());
        bytes.put_u32(0);
        bytes.put_u32(u32::try_from(data.len()).expect("bounded above"));
        bytes.put_u64(id.index.get());
        bytes.put_u64(id.term.get());
        bytes.put_u8(kind_to_u8(kind));
        bytes.extend_from_slice(data);
        let sum = checksum(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        Self { id, kind, encoded: Bytes::from(bytes) }
    }

    /// Reads one entry from the front of `reader` and verifies its checksum. The entry shares the
    /// reader's bytes.
    ///
    /// # Errors
    /// [`DecodeError`] if it is cut short, damaged or undefined.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let has = reader.remaining();
        let header = reader.peek();
        if has < ENTRY_HEADER_BYTES {
            return Err(DecodeError::Short { what: "entry", needs: ENTRY_HEADER_BYTES, has });
        }
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > ENTRY_DATA_BYTES_MAX {
            let (length, limit) = (length as u64, ENTRY_DATA_BYTES_MAX as u64);
            return Err(DecodeError::TooLong { what: "entry data", length, limit });
        }
        let encoded = reader.take("entry", ENTRY_HEADER_BYTES + length)?;
        let mut fields = Reader::new(encoded.clone());
        let expected = fields.u32("entry checksum")?;
        let found = checksum(&encoded[4..]);
        if found != expected {
            return Err(DecodeError::Checksum { what: "entry", found, expected });
        }
        let _length = fields.u32("entry length")?;
        let index = LogIndex::new(fields.u64("entry index")?);
        let term = Term::new(fields.u64("entry term")?);
        let kind = kind_from_u8(fields.u8("entry kind")?)?;
        if index == LogIndex::ZERO || term == Term::ZERO {
            return Err(DecodeError::Invalid { what: "entry index or term", value: 0 });
        }
        Ok(Self { id: LogId::new(term, index), kind, encoded })
    }

    /// Term and index.
    #[must_use]
    pub const fn id(&self) -> LogId {
        self.id
    }

    /// Position in the log.
    #[must_use]
    pub const fn index(&self) -> LogIndex {
        self.id.index
    }

    /// Term of the leader that made it.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.id.term
    }

    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> EntryKind {
        self.kind
    }

    /// Its data, shared.
    #[must_use]
    pub fn data(&self) -> Bytes {
        self.encoded.slice(ENTRY_HEADER_BYTES..)
    }

    /// The level to which it raises the cluster, if it is one that does.
    #[must_use]
    pub fn level(&self) -> Option<FeatureLevel> {
        match self.kind {
            EntryKind::Level => FeatureLevel::from_data(self.data()).ok(),
            EntryKind::Empty | EntryKind::Command | EntryKind::Membership => None,
        }
    }

    /// The whole entry as it stands in the log file and in messages.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Length of [`Self::encoded`].
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} ({} bytes)", self.id, self.kind, self.encoded.len() - ENTRY_HEADER_BYTES)
    }
}

const fn kind_to_u8(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Empty => 0,
        EntryKind::Command => 1,
        EntryKind::Membership => 2,
        EntryKind::Level => 3,
    }
}

const fn kind_from_u8(value: u8) -> Result<EntryKind, DecodeError> {
    match value {
        0 => Ok(EntryKind::Empty),
        1 => Ok(EntryKind::Command),
        2 => Ok(EntryKind::Membership),
        3 => Ok(EntryKind::Level),
        other => Err(DecodeError::Invalid { what: "entry kind", value: other as u64 }),
    }
}

#[cfg(test)]
mod tests;
