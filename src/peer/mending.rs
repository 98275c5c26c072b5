//! What a node that repairs its data directory asks of others, and what they answer.

use crate::raft::{ClusterId, LogId, LogIndex, NodeId, StoreId};
use serde::{Deserialize, Serialize};

/// Bytes of entries in one answer, about; one larger entry goes alone.
pub(crate) const PAGE_BYTES: u64 = 1 << 20;
/// Bytes of an answer, at most: the largest entry has to fit.
pub(crate) const ANSWER_BYTES_MAX: u32 = 8 << 20;

/// A question of a node that repairs its data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MendCall {
    /// The member that it is; `None` if its directory does not tell any more.
    pub caller: Option<MendCaller>,
    /// Its cluster, if anything in its directory tells that.
    pub cluster: Option<ClusterId>,
    /// What it wants.
    pub wants: MendWants,
}

/// A member that repairs its data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MendCaller {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub member: NodeId,
    /// Its store.
    pub store: StoreId,
}

/// What it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MendWants {
    /// Entries of a log that has `anchor`.
    Entries {
        /// The entry before the first one.
        after: LogIndex,
        /// The last one.
        through: LogIndex,
        /// The entry that proves that the two logs are the same up to it.
        anchor: LogId,
    },
    /// A chunk of a snapshot.
    Chunk {
        /// Its last entry; `None`: the newest one.
        snapshot: Option<LogId>,
        /// Where the chunk starts.
        offset: u64,
    },
    /// The end of the log of a leader that a quorum has confirmed since the question came.
    Leader,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MendReply {
    /// The first of the entries, encoded one after the other.
    Entries(Vec<u8>),
    /// They are not at hand any more.
    Gone {
        /// The newest snapshot here.
        snapshot: Option<LogId>,
        /// Whether the log has the anchor. If not, it is compacted, too.
        has_anchor: bool,
    },
    /// The log here does not have the anchor.
    Lacks {
        /// Its last entry.
        last: LogId,
    },
    /// A chunk of a snapshot.
    Chunk {
        /// The snapshot's description, encoded.
        snapshot: Vec<u8>,
        /// Where the chunk starts.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
        /// It is the last one.
        done: bool,
    },
    /// This node leads, and its log ends here.
    Leads {
        /// The last entry.
        end: LogId,
    },
    /// This node does not lead.
    Elsewhere {
        /// The raft address of the leader, if one is known.
        leader: Option<String>,
    },
    /// It cannot be answered, and why.
    Refused(String),
    /// By a committed membership the caller is no member any more.
    Removed {
        /// The member that knows.
        told_by: NodeId,
    },
}
