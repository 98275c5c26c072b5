//! Why a member takes no part any more; `follower::withdraw` has what follows from it.

use crate::raft::types::{LogId, LogIndex, NodeId};

/// Why a member takes no part any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Withdrawal {
    /// The leader says that this node acknowledged an entry that is not in its log.
    #[error(
        "entry {acknowledged}, which this member acknowledged, is not in its log, which ends at {last}: its data \
         directory is an older copy, or its disk lost what was synced; stop it, wipe its data directory, start it and \
         join it again under its name"
    )]
    LostEntries {
        /// The entry that it acknowledged.
        acknowledged: LogId,
        /// The end of its log.
        last: LogId,
    },
    /// The leader has another entry where this node has one that is committed (Leader Completeness,
    /// Raft §5.4).
    #[error(
        "the leader's log contradicts entry {committed}, which is committed here: the data of one of the two is not what \
         it was; compare state_hash in /v1/status of all members, stop the one that differs, wipe its data directory, \
         start it and join it again under its name"
    )]
    Contradicted {
        /// The committed entry that it contradicts, or the last one.
        committed: LogId,
    },
    /// The state here is not what the other members have at the same entry.
    #[error(
        "its state at entry {index} is not the one that the other members have: it sets its data aside, and joins again \
         under its name"
    )]
    Diverged {
        /// The entry at which the states were compared.
        index: LogIndex,
    },
    /// A member has met a later start of the same data directory.
    #[error(
        "its data directory is an older copy of one that member {met_by} has met in use: stop it, wipe its data \
         directory, start it and join it again under its name"
    )]
    OlderCopy {
        /// The member that met it.
        met_by: NodeId,
    },
    /// A member knows of a committed membership by which this node was removed.
    #[error(
        "this node was removed from its cluster, as member {told_by} says; stop it, and wipe its data directory before \
         it joins again"
    )]
    Removed {
        /// The member that knows.
        told_by: NodeId,
    },
}
