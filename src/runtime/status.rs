//! What a node says of itself.

use crate::raft::{ClusterId, StoreId};
use crate::replica::Status;

/// A node's identity beside its replica's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its `--node-id`.
    pub name: String,
    /// Its data directory's identity.
    pub store: StoreId,
    /// The replica's view.
    pub replica: Status,
    /// Microseconds since the process started.
    pub uptime_micros: u64,
    /// Log records waiting for the disk.
    pub storage_queue: usize,
    /// Events waiting for the replica.
    pub event_queue: usize,
    /// Whether this node is known to have been removed from its cluster.
    pub removed: bool,
    /// Whether it waits until a cluster takes it in. What it says of a leader is then of itself
    /// alone.
    pub joining: bool,
    /// Whether the node has data of its own, or has been a member of a cluster of several.
    pub has_data: bool,
    /// Why the node does not serve, if it does not (a damaged log, a failed disk, …).
    pub stopped: Option<String>,
    /// What is held for requests that wait, and for things under way, by name. At rest all of it is
    /// zero.
    pub held: Vec<(&'static str, u64)>,
}
