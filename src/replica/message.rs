//! What replicas say to each other: the core's messages, and commands on their way to the leader.

use crate::raft::{Body, Entry, Incarnation, LogIndex, Message, NodeId, Term};
use alloc::vec::Vec;
use bytes::Bytes;

/// A message between two replicas: one frame of the peer transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// The core's.
    Raft(Message),
    /// Commands for the leader.
    Forward(Forward),
    /// They were not appended.
    ForwardRefused(ForwardRefused),
    /// The hash of a member's state.
    StateHash(StateHash),
}

/// The hash of the sender's state once it has applied `index`. Losing one is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateHash {
    /// The member whose state it is, or the leader that judges.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The term in which the leader asked.
    pub term: Term,
    /// Question, answer or verdict.
    pub kind: StateHashKind,
    /// The last entry applied.
    pub index: LogIndex,
    /// The hash.
    pub hash: u128,
}

/// What a state hash is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateHashKind {
    /// The leader's hash. The receiver is asked for its own.
    Question,
    /// The hash of the member that was asked.
    Answer,
    /// The hash that the others have. A receiver with another one withdraws.
    Verdict,
}

/// Commands of an origin's clients, on their way to the leader of `term`. Never sent twice under
/// one number: a lost one is *unknown* until the log proves that it is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The origin.
    pub from: NodeId,
    /// The leader of `term` when it was sent.
    pub to: NodeId,
    /// The only term in which it may be appended.
    pub term: Term,
    /// The origin's incarnation.
    pub incarnation: Incarnation,
    /// Sequence of the first command; the others follow. Grows within (term, incarnation).
    pub first_sequence: u64,
    /// Encoded proposals.
    pub commands: Vec<Bytes>,
}

/// Commands from `first_sequence` on were not appended, and never will be in that term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardRefused {
    /// The node that refused.
    pub from: NodeId,
    /// The origin.
    pub to: NodeId,
    /// Of the request.
    pub term: Term,
    /// Of the request.
    pub incarnation: Incarnation,
    /// The first command that was refused.
    pub first_sequence: u64,
    /// How many were refused.
    pub count: u64,
    /// Why.
    pub why: RefusedBecause,
}

/// Why forwarded commands were refused: the origin tells its clients, or holds the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBecause {
    /// The node does not lead that term (any more), and no other node will. The origin holds the
    /// commands for the leader of a later term.
    NotLeading,
    /// The leader hands over. The origin holds the commands for the next leader, or for this one if
    /// the transfer fails.
    HandingOver,
    /// Too many bytes wait to be committed.
    Overloaded,
    /// The leader's disk is full.
    DiskFull,
    /// The command is longer than an entry may be.
    TooLarge {
        /// Length of the command.
        bytes: u64,
        /// The leader's limit.
        limit: u64,
    },
    /// The command does not decode, or not under its own name.
    Malformed,
    /// A command with a higher number came before. The origin sends the command under a new number.
    Overtaken,
}

impl PeerMessage {
    /// About how many bytes it keeps alive: the bytes of its entries, commands or chunk, and a
    /// little for the rest.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const REST: usize = 128;
        let content = match self {
            Self::Raft(message) => match &message.body {
                Body::AppendEntries { entries, .. } => entries.iter().map(Entry::encoded_bytes).sum(),
                Body::InstallSnapshot { data, .. } => data.len(),
                _ => 0,
            },
            Self::Forward(forward) => forward.commands.iter().map(Bytes::len).sum(),
            Self::ForwardRefused(_) | Self::StateHash(_) => 0,
        };
        REST + content
    }

    /// The sender.
    #[must_use]
    pub const fn from(&self) -> NodeId {
        match self {
            Self::Raft(m) => m.from,
            Self::Forward(m) => m.from,
            Self::ForwardRefused(m) => m.from,
            Self::StateHash(m) => m.from,
        }
    }

    /// The addressee.
    #[must_use]
    pub const fn to(&self) -> NodeId {
        match self {
            Self::Raft(m) => m.to,
            Self::Forward(m) => m.to,
            Self::ForwardRefused(m) => m.to,
            Self::StateHash(m) => m.to,
        }
    }
}
