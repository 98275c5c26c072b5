//! A command as it stands in the log: the name of the proposal, and then the client's command.

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::Command;
use crate::raft::{Incarnation, NodeId};
use alloc::vec::Vec;
use bytes::Bytes;

/// Bytes before the command: origin u64, incarnation (number u64, nonce u64), sequence u64.
const PROPOSAL_HEADER_BYTES: usize = 32;

/// Identifies a proposal: the node whose client made it, which start of that node, and its number
/// within that start. No two starts share an incarnation, not even starts on two copies of one
/// disk. So the name of an entry that is lost is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId {
    /// The node whose client waits for it.
    pub origin: NodeId,
    /// Which start of that node.
    pub incarnation: Incarnation,
    /// Grows by one with each proposal of that start.
    pub sequence: u64,
}

impl ProposalId {
    /// The name of what a leader proposes by itself: no client waits for it.
    pub(super) const fn of_leader(incarnation: Incarnation) -> Self {
        Self { origin: NodeId::new(0), incarnation, sequence: 0 }
    }
}

/// Encodes a proposal of an encoded command: the data of a
/// [`Command`](crate::raft::EntryKind::Command) entry.
#[must_use]
pub(super) fn encode(id: ProposalId, command: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(PROPOSAL_HEADER_BYTES + command.len());
    bytes.put_u64(id.origin.get());
    bytes.put_u64(id.incarnation.number());
    bytes.put_u64(id.incarnation.nonce());
    bytes.put_u64(id.sequence);
    bytes.extend_from_slice(command);
    Bytes::from(bytes)
}

/// Decodes the data of a [`Command`](crate::raft::EntryKind::Command) entry: the name of the
/// proposal, and its command.
///
/// # Errors
/// [`DecodeError`] for anything else.
pub fn decode(data: Bytes) -> Result<(ProposalId, Command), DecodeError> {
    let mut reader = Reader::new(data);
    let origin = NodeId::new(reader.u64("proposal origin")?);
    let number = reader.u64("proposal incarnation")?;
    let incarnation = Incarnation::drawn(number, reader.u64("proposal nonce")?);
    let sequence = reader.u64("proposal sequence")?;
    let command = Command::decode(reader)?;
    Ok((ProposalId { origin, incarnation, sequence }, command))
}
