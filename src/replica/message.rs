//! What replicas say to each other: the core's messages, and commands on their way to the leader.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::kv::{Denial, LeaseId, Principal};
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
    /// How long a member's disk takes, for the leader.
    DiskPace(DiskPaceSaid),
    /// Clients' calls of leases, for the leader.
    LeaseCalls(LeaseCalls),
    /// The leader's answers.
    LeaseAnswers(LeaseAnswers),
    /// The levels that a member speaks, for the leader.
    Levels(LevelsSaid),
}

/// The levels that the sender speaks. For the leader; losing one is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelsSaid {
    /// The member.
    pub from: NodeId,
    /// The leader.
    pub to: NodeId,
    /// The term of that leader.
    pub term: Term,
    /// The levels.
    pub speaks: FeatureLevels,
}

/// One message passes on at most this many calls of leases.
pub(super) const LEASE_CALLS_MAX: usize = 1_000;

/// How much time a lease has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// Its id.
    pub id: LeaseId,
    /// How long it lives without a renewal, seconds.
    pub ttl_seconds: u64,
    /// How long it lives now without a renewal, microseconds.
    pub left_micros: u64,
    /// How many keys end with it.
    pub keys: u64,
}

/// Calls of leases that an origin's clients wait for. Losing one is harmless: it is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseCalls {
    /// The origin.
    pub from: NodeId,
    /// The leader.
    pub to: NodeId,
    /// The origin's incarnation.
    pub incarnation: Incarnation,
    /// The calls.
    pub calls: Vec<LeaseCall>,
}

/// One call of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseCall {
    /// The origin's number for it.
    pub number: u64,
    /// Which lease.
    pub lease: LeaseId,
    /// Who asks. The leader judges it.
    pub by: Option<Principal>,
    /// Whether its time begins anew.
    pub renew: bool,
}

/// What a leader says of a lease: `None`: there is no such lease.
pub type LeaseAnswer = Result<Option<LeaseTime>, LeaseRefusal>;

/// Why a leader does not answer a call of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseRefusal {
    /// The caller may not ask this.
    Denied(Denial),
    /// The leader has too much to do.
    Overloaded,
}

/// A leader's answers to calls of leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAnswers {
    /// The leader.
    pub from: NodeId,
    /// The origin.
    pub to: NodeId,
    /// The incarnation of the calls.
    pub incarnation: Incarnation,
    /// The answers, each with the number that the origin gave the call.
    pub answers: Vec<(u64, LeaseAnswer)>,
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
    /// Question, answer, verdict, or that there is none.
    pub kind: StateHashKind,
    /// The last entry applied.
    pub index: LogIndex,
    /// The hash.
    pub hash: u128,
}

/// How long the sender's disk takes for a write. For the leader; losing one is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskPaceSaid {
    /// The member whose disk it is.
    pub from: NodeId,
    /// The leader.
    pub to: NodeId,
    /// The term of that leader.
    pub term: Term,
    /// From when the disk had nothing else to write to the receipt, in the mean over about a
    /// second.
    pub write_micros: u64,
    /// There is no room for more of the log.
    pub is_full: bool,
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
    /// The leader's hash, where nobody can say which state is right. A receiver with another one
    /// raises an alarm.
    Undecided,
}

/// Commands of an origin's clients, on their way to the leader of `term`. The leader appends each
/// number once, however often it comes; one of which nothing is heard is *unknown* until the log
/// proves that it is not in it.
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
    /// The term of the request.
    pub term: Term,
    /// The incarnation of the request.
    pub incarnation: Incarnation,
    /// The first command that was refused.
    pub first_sequence: u64,
    /// How many were refused.
    pub count: u64,
    /// Why they were refused: one reason for all of them.
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
            Self::LeaseCalls(calls) => calls.calls.len() * size_of::<LeaseCall>(),
            Self::LeaseAnswers(answers) => answers.answers.len() * size_of::<(u64, LeaseAnswer)>(),
            Self::ForwardRefused(_) | Self::StateHash(_) | Self::DiskPace(_) | Self::Levels(_) => 0,
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
            Self::DiskPace(m) => m.from,
            Self::LeaseCalls(m) => m.from,
            Self::LeaseAnswers(m) => m.from,
            Self::Levels(m) => m.from,
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
            Self::DiskPace(m) => m.to,
            Self::LeaseCalls(m) => m.to,
            Self::LeaseAnswers(m) => m.to,
            Self::Levels(m) => m.to,
        }
    }

    /// Whether the words of a level are enough to say it. An entry that raises the cluster to a
    /// level is said at that level and above alone: nobody hears of it who would not understand
    /// what follows.
    #[must_use]
    pub fn is_sayable_at(&self, level: FeatureLevel) -> bool {
        match self {
            Self::Levels(_) => level >= FeatureLevel::NEGOTIATES,
            Self::Raft(Message { body: Body::AppendEntries { entries, .. }, .. }) => {
                entries.iter().all(|entry| entry.level().is_none_or(|raised| raised <= level))
            }
            _ => true,
        }
    }
}
