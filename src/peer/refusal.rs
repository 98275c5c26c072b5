//! Why a caller on the raft port is not let in.

use crate::codec::{FeatureLevel, FeatureLevels};
use crate::raft::{ClusterId, Incarnation, NodeId, StoreId};

/// Why a caller is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not of this cluster.
    #[error("{called} belongs to cluster {ours}, the caller to cluster {theirs}")]
    OtherCluster {
        /// This node's name.
        called: String,
        /// This node's cluster.
        ours: ClusterId,
        /// The caller's.
        theirs: ClusterId,
    },
    /// Of the cluster that this node is about to move into: it may call again in a moment.
    #[error("{called} is about to join cluster {theirs}, and not there yet")]
    NotYet {
        /// This node's name.
        called: String,
        /// The caller's cluster.
        theirs: ClusterId,
    },
    /// The caller wants another member.
    #[error("this is member {me} ({called}), not member {wanted}")]
    NotMe {
        /// This node's name.
        called: String,
        /// This node.
        me: NodeId,
        /// The member that was called.
        wanted: NodeId,
    },
    /// The id of a member, but another data directory.
    #[error(
        "member {id} has the store {known}, not {found}: its data directory was replaced; wipe the data directory and \
         join the node again under its name"
    )]
    WrongStore {
        /// The member that the caller says it is.
        id: NodeId,
        /// That member's store, as on record.
        known: StoreId,
        /// The caller's store.
        found: StoreId,
    },
    /// Its data directory is an older copy of one that was met in use.
    #[error(
        "member {id} called with start {found} of its data directory, after start {known} of it had been met here: the \
         directory is an older copy, and what it acknowledged since is lost; stop that node, wipe its data directory, \
         start it and join it again under its name"
    )]
    OlderCopy {
        /// The member that calls from the older copy.
        id: NodeId,
        /// The newest start of that member that was let in here.
        known: Incarnation,
        /// The caller's start.
        found: Incarnation,
    },
    /// Another process already speaks for the same member.
    #[error(
        "TWO PROCESSES USE COPIES OF ONE DATA DIRECTORY: member {id} called with start {found} of its data directory while \
         start {known} is connected; the second is not let in: stop it and wipe its data directory (after a crash of the \
         machine this may be the end of the old connection, and passes)"
    )]
    Twin {
        /// The member that both processes say they are.
        id: NodeId,
        /// The start that is connected.
        known: Incarnation,
        /// The start that was not let in.
        found: Incarnation,
    },
    /// The certificate of another node.
    #[error(
        "the caller says that it is member {id}, and its certificate is of {found:?}, which is another node"
    )]
    OtherName {
        /// The member that it wants to be.
        id: NodeId,
        /// The name in its certificate.
        found: String,
    },
    /// Nobody who is known here says that there is such a member.
    #[error(
        "{called} does not know member {id} yet, and no member that it reaches says that {found:?}, of whom the \
         certificate is, is that member; it is asked again (if all the members that {called} knows are gone, start it with \
         --join and the address of one that is there)"
    )]
    Unconfirmed {
        /// This node's name.
        called: String,
        /// The member that the caller wants to be.
        id: NodeId,
        /// The name in its certificate.
        found: String,
    },
    /// The two speak no level that their cluster can be at.
    #[error(
        "the caller, member {id}, speaks level {theirs} of the protocol, and {called} level {ours}, in a cluster at level          {needs}: {}", if theirs.highest() < ours.highest() { "upgrade the caller to this node's release" } else { "upgrade this node to the caller's release" }
    )]
    OtherLevel {
        /// This node's name.
        called: String,
        /// The member that calls.
        id: NodeId,
        /// What this node speaks.
        ours: FeatureLevels,
        /// What the caller speaks.
        theirs: FeatureLevels,
        /// The level of their cluster, as far as either knows.
        needs: FeatureLevel,
    },
    /// It was a member, and has been removed.
    #[error(
        "member {id} was removed from the cluster; to have the node back, wipe its data directory and join it again"
    )]
    Removed {
        /// The member that was removed, and calls.
        id: NodeId,
    },
}

impl Refusal {
    /// The kind of refusal, without what the caller said.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::OtherCluster { .. } => "other cluster",
            Self::NotYet { .. } => "not yet",
            Self::NotMe { .. } => "not me",
            Self::WrongStore { .. } => "wrong store",
            Self::OtherName { .. } => "other name",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::Removed { .. } => "removed",
            Self::OtherLevel { .. } => "other level",
            Self::OlderCopy { .. } => "older copy",
            Self::Twin { .. } => "twin",
        }
    }
}
