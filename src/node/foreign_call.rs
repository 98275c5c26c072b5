//! Another cluster calls this node as its member: whether it serves clients all the same.

use crate::raft::{ClusterId, NodeId, Time};

/// A node that another cluster called as its member goes on as its own cluster when it has not been
/// called for this time.
const CALLED_MICROS: u64 = 60_000_000;

/// Another cluster takes this node for its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Called {
    /// The cluster.
    pub(super) cluster: ClusterId,
    /// The member id that it calls.
    pub(super) member: NodeId,
    /// Counts until this time, unless it calls again.
    pub(super) until: Time,
}

impl Called {
    /// It calls now.
    pub(super) const fn at(now: Time, (cluster, member): (ClusterId, NodeId)) -> Self {
        Self { cluster, member, until: now.plus(CALLED_MICROS) }
    }

    /// Why this node serves no client, and what to do.
    pub(super) fn reason(&self) -> String {
        format!(
            "cluster {} calls this node as its member {}, but its data directory is empty and knows nothing of that: it was emptied or \
             replaced. It takes no part and serves nobody. Join it again under its name (POST /join at a member of that \
             cluster), or remove member {} there",
            self.cluster, self.member, self.member
        )
    }
}
