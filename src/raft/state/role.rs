//! The four roles: what a node has only while it plays one.

use crate::raft::api::RoleName;
use crate::raft::state::progress::Peer;
use crate::raft::state::read_queues::LeaderReads;
use crate::raft::state::sending::Pace;
use crate::raft::types::{LogIndex, NodeId, Session, Time, WriteSequence};
use alloc::collections::{BTreeMap, BTreeSet};

/// What a node is, with what it needs to be that (Raft §5.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) enum Role {
    /// Follows a leader, or waits for one.
    Follower(Follower),
    /// Asks whether an election could be won (D §9.6).
    PreCandidate(PreCandidate),
    /// Stands for election (Raft §5.2).
    Candidate(Candidate),
    /// Leads.
    Leader(Leader),
}

impl Role {
    /// The role's name.
    pub(in crate::raft) const fn name(&self) -> RoleName {
        match self {
            Self::Follower(_) => RoleName::Follower,
            Self::PreCandidate(_) => RoleName::PreCandidate,
            Self::Candidate(_) => RoleName::Candidate,
            Self::Leader(_) => RoleName::Leader,
        }
    }
}

/// A follower's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Follower {
    /// The leader of this term, once it was heard from.
    pub leader: Option<NodeId>,
    /// When the leader was last heard from. Meaningless without a leader.
    pub last_heard: Time,
    /// The leader's process has ended, as far as its machine says. Believed until the leader is
    /// heard again.
    pub is_leader_gone: bool,
    /// When it campaigns, unless it hears from a leader or grants a vote before.
    pub election_deadline: Time,
    /// When an answer to this leader last left without waiting for the disk. Soon after that, an
    /// append that only brings a new commit index needs no answer, and an answer that waits needs
    /// no [`Heard`](crate::raft::Body::Heard) before it.
    pub last_answer_at: Option<Time>,
}

/// Answers to a pre-vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct PreCandidate {
    /// The nodes that answered, and whether each would vote for this one.
    pub votes: BTreeMap<NodeId, bool>,
    /// When it asks again.
    pub election_deadline: Time,
}

/// Answers to an election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Candidate {
    /// The nodes that answered, and whether each gave its vote. The candidate's own vote appears
    /// once it is durable.
    pub votes: BTreeMap<NodeId, bool>,
    /// The other voters that are expected to vote for it: those that granted the pre-vote, or all
    /// where a leader hands over. Their disks may be slow.
    pub willing: BTreeSet<NodeId>,
    /// A leader hands over to it.
    pub transfer: bool,
    /// The write that carries its own vote.
    pub vote_at: WriteSequence,
    /// When it asks for votes again.
    pub ask_again_at: Time,
    /// When it starts over, unless it may yet win.
    pub election_deadline: Time,
    /// It does not start over before this time while it may yet win.
    pub patient_until: Time,
}

/// A leader's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Leader {
    /// Every other member, and members that have just left.
    pub peers: BTreeMap<NodeId, Peer>,
    /// The last session given to a relation with a peer; never used twice within the term.
    pub last_session: Session,
    /// The first entry of its term. While it is not committed, no read is served and no membership
    /// is changed.
    pub term_start: LogIndex,
    /// Bytes of entries above the commit index.
    pub uncommitted_bytes: u64,
    /// Reads that wait for a round.
    pub reads: LeaderReads,
    /// How fast chunks of snapshots leave.
    pub pace: Pace,
    /// When it last looked whether a quorum still answers.
    pub checked_at: Time,
    /// Leadership on its way to another member; `None` if no transfer is under way.
    pub transfer: Option<Transfer>,
    /// Whether a member was told to campaign in this term. Others vote for it in spite of what they
    /// promised, however late that message arrives: this leader has no lease any more.
    pub has_told_successor: bool,
}

impl Leader {
    /// A number for a relation that begins.
    pub(in crate::raft) const fn next_session(&mut self) -> Session {
        self.last_session = self.last_session.next();
        self.last_session
    }
}

/// A transfer under way: no proposal is taken until it succeeds or is given up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::raft) struct Transfer {
    /// The member that takes over.
    pub target: NodeId,
    /// When the transfer is given up: an election timeout after it began.
    pub deadline: Time,
    /// Whether the target was told to campaign. It is told once; the deadline covers a loss of that
    /// message.
    pub is_target_told: bool,
}
