//! What connections find out about this node itself, and about its peers.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::raft::{ClusterId, NodeId};

/// What a connection found out. The driver decides what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// A member has met a later start of this node's data directory.
    OlderCopy {
        /// The member that met it.
        met_by: NodeId,
    },
    /// A member knows that this node was removed from the cluster.
    Removed {
        /// The cluster and member that this node named in its hello.
        me: (ClusterId, NodeId),
        /// The member that knows.
        told_by: NodeId,
    },
    /// The connection to a peer was closed, and a new one was refused: nothing listens there.
    PeerGone {
        /// The peer that was connected.
        peer: NodeId,
    },
    /// A peer has said in a hello which levels it speaks: fewer than this node.
    Speaks {
        /// The peer.
        peer: NodeId,
        /// What it speaks.
        speaks: FeatureLevels,
    },
    /// This node's cluster is at a level that this node does not speak, as a member says.
    Outgrown {
        /// The cluster and member that this node is to it.
        me: (ClusterId, NodeId),
        /// The level that this node's cluster is at.
        level: FeatureLevel,
        /// The member that knows.
        told_by: NodeId,
    },
    /// Another cluster calls this node as its member.
    Called {
        /// The cluster that calls.
        cluster: ClusterId,
        /// The member id that it calls.
        member: NodeId,
    },
}
