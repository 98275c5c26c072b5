//! What a replica has to tell, for logs, metrics and simulations.

use crate::codec::FeatureLevel;
use crate::raft::{LogId, LogIndex, Membership, NodeId, RoleName, SnapshotRefusal, Term};
use alloc::string::String;

/// Something that happened, for logs, metrics and simulations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Role, term or leader are new.
    RoleChanged {
        /// The role now.
        role: RoleName,
        /// The term now.
        term: Term,
        /// Its leader, if known.
        leader: Option<NodeId>,
    },
    /// Another membership is in force.
    MembershipChanged {
        /// The one in force.
        membership: Membership,
        /// Whether its entry is committed.
        committed: bool,
    },
    /// This membership is known to be committed, although a later one is in force already.
    MembershipCommitted(Membership),
    /// A snapshot is complete; the log before it is gone, but for a tail.
    SnapshotTaken(LogId),
    /// The state was replaced by a leader's snapshot.
    SnapshotInstalled(LogId),
    /// A snapshot could not be written, read or stored, and why; another try follows.
    SnapshotFailed(String),
    /// A member did not take the snapshot that this leader sent to it; it is sent again later.
    SnapshotNotTaken {
        /// The member that did not take the snapshot.
        peer: NodeId,
        /// Why the member did not take it.
        why: SnapshotRefusal,
        /// How often in a row, this time included.
        times: u32,
    },
    /// A member needs one snapshot after the other: it has installed so many in a row.
    SnapshotRepeated {
        /// The member that needs them.
        peer: NodeId,
        /// How many it has installed in a row.
        times: u32,
    },
    /// This node takes no part any more, and serves no client: why, and what to do.
    Withdrawn(String),
    /// A member takes no part any more, as it told this leader.
    PeerWithdrew {
        /// The member that withdrew.
        peer: NodeId,
        /// Why, and what to do.
        why: String,
    },
    /// At this entry the state here differs from another member's, and no quorum agrees on one:
    /// nobody can say which is right. Told again and again while it is so.
    StatesDiffer(LogIndex),
    /// Writes to this node's disk take far longer than they should, or no longer do.
    DiskSlow {
        /// Whether they do.
        is_slow: bool,
        /// How long one takes, in the mean.
        write_micros: u64,
    },
    /// This leader hands over, since its disk is far slower than those of a quorum.
    LeftLeadToQuicker {
        /// The member that is to lead.
        successor: NodeId,
        /// How long a write takes here, in the mean.
        write_micros: u64,
    },
    /// The cluster is at this level from here on.
    LevelRaised(FeatureLevel),
    /// A member's log raises the cluster to a level that this release does not speak. This node has
    /// taken nothing of it in, and has to end.
    LevelAbove {
        /// The level that the log raises the cluster to.
        level: FeatureLevel,
        /// The member whose log says so.
        told_by: NodeId,
    },
    /// Calls of leases of another member's clients were refused: this leader has too many reads
    /// waiting.
    LeaseCallsRefused {
        /// The member whose clients' calls were refused.
        from: NodeId,
        /// How many calls.
        count: u64,
    },
    /// A peer said something that no correct peer says.
    BadMessage {
        /// The peer that sent it.
        from: NodeId,
        /// What was wrong.
        reason: String,
    },
}
