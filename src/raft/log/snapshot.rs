//! What the core knows of a snapshot: never its content.

use crate::codec::{COUNTER_MAX, DecodeError, from_bytes, to_bytes};
use crate::raft::membership::members::Membership;
use crate::raft::types::{LogId, LogIndex, NodeId, Session};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A snapshot's description (Raft §7). Goes into the snapshot file, the log's marker and
/// InstallSnapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry it includes.
    pub last: LogId,
    /// The membership in force *at* `last`: of the latest membership entry at or below it.
    pub membership: Membership,
    /// Where that membership stands in the log.
    pub membership_id: LogId,
    /// Bytes of the snapshot file's body: what InstallSnapshot transfers.
    pub bytes: u64,
    /// Hash of the body, checked before it is installed.
    pub hash: u128,
}

impl SnapshotMeta {
    /// The description as it stands in markers and messages.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Decodes a description that fills `bytes`, and checks it.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that does not describe a possible snapshot.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let meta: Self = from_bytes("snapshot description", bytes)?;
        let inconsistent = |why| Err(DecodeError::Inconsistent { what: "snapshot description", why });
        if let Err(why) = meta.membership.validate() {
            return inconsistent(why);
        }
        let (from, last) = (meta.membership_id, meta.last);
        if last.index == LogIndex::ZERO || from.index > last.index || from.term > last.term {
            return inconsistent("its membership lies beyond its last entry");
        }
        if [meta.last.index.get(), meta.last.term.get(), meta.bytes]
            .iter()
            .any(|number| *number > COUNTER_MAX)
        {
            return inconsistent("a number in it is beyond any that can be reached");
        }
        Ok(meta)
    }
}

/// A chunk of an incoming snapshot, for the storage to write. Rides in the one ordered stream of
/// writes, with others that came together with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotChunk {
    /// Description of the snapshot.
    pub snapshot: Box<SnapshotMeta>,
    /// Where the chunk starts. 0 starts the file anew.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
    /// The last chunk: the storage verifies size and hash, syncs file and directory, and only then
    /// writes the marker that is in the same [`LogWrite`](crate::raft::LogWrite).
    pub done: bool,
}

/// Why a member did not take a snapshot that was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SnapshotRefusal {
    /// Its disk, or the share of it that this user may have, is full.
    #[error("its disk has no room for the snapshot")]
    NoRoom,
    /// Its disk failed in another way.
    #[error("its disk could not store the snapshot")]
    Disk,
    /// What arrived is not what the description says.
    #[error("what arrived is not the snapshot that was announced")]
    Content,
}

/// The core wants a chunk of its newest snapshot, to send it to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotRead {
    /// The peer that the chunk is for. Handed back with the answer.
    pub to: NodeId,
    /// The session with that peer. Handed back with the answer.
    pub session: Session,
    /// Last entry of the snapshot.
    pub snapshot: LogId,
    /// The first byte to read.
    pub offset: u64,
    /// Bytes to read, at most.
    pub bytes_max: u64,
}
