//! A command as it stands in the log: the client's operation behind the name of the proposal it came with.

use crate::codec::{DecodeError, Reader, Writer};
use crate::kv::Op;
use crate::raft::{Incarnation, NodeId};
use alloc::vec::Vec;
use bytes::Bytes;

/// Bytes before the operation: origin u64, incarnation (number u64, nonce u64), sequence u64.
const PROPOSAL_HEADER_BYTES: usize = 32;

/// Names one proposal for ever: which node's client, in which life of that node, the how-manieth. No two starts share an
/// incarnation, not even those on two copies of one disk: the name of an entry that is lost is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId {
    /// The node whose client waits for it.
    pub origin: NodeId,
    /// The life of that node.
    pub incarnation: Incarnation,
    /// Grows by one with each proposal of that life.
    pub sequence: u64,
}

/// Encodes a proposal: the data of a [`Command`](crate::raft::EntryKind::Command) entry.
#[must_use]
pub(in crate::replica) fn encode(id: ProposalId, op: &Op) -> Bytes {
    let (key, value) = match op {
        Op::Set { key, value } => (key.len(), value.len()),
        Op::Delete { key } => (key.len(), 0),
    };
    let mut bytes = Vec::with_capacity(PROPOSAL_HEADER_BYTES + 16 + key + value);
    bytes.put_u64(id.origin.get());
    bytes.put_u64(id.incarnation.number());
    bytes.put_u64(id.incarnation.nonce());
    bytes.put_u64(id.sequence);
    op.encode(&mut bytes);
    Bytes::from(bytes)
}

/// Decodes the data of a [`Command`](crate::raft::EntryKind::Command) entry: whose proposal it is, and what it does.
///
/// # Errors
/// [`DecodeError`] for anything else.
pub fn decode(data: Bytes) -> Result<(ProposalId, Op), DecodeError> {
    let mut reader = Reader::new(data);
    let origin = NodeId::new(reader.u64("proposal origin")?);
    let number = reader.u64("proposal incarnation")?;
    let incarnation = Incarnation::drawn(number, reader.u64("proposal nonce")?);
    let sequence = reader.u64("proposal sequence")?;
    let op = Op::decode(reader)?;
    Ok((ProposalId { origin, incarnation, sequence }, op))
}
