//! What the HTTP server (and anyone else in the process) may ask of a running node.

use crate::raft::{ClusterId, Membership, NodeId, StoreId, Withdrawal};
use crate::replica::{ClientError, ClientReply, ClientRequest, Status};
use crate::server::watch;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// A node, for those who ask it things. Cheap to clone. Survives the node's move into another cluster.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    /// Clients' requests. Full means overloaded.
    pub(in crate::server) clients: mpsc::Sender<ClientCall>,
    /// Orders for the driver.
    pub(in crate::server) control: mpsc::Sender<Control>,
    /// Joins, for the task that may talk to other nodes.
    pub(in crate::server) joins: mpsc::Sender<JoinCall>,
    /// The membership, as the driver publishes it.
    pub(in crate::server) membership: watch::Receiver<MembershipView>,
    /// Left behind by the driver when it ends.
    pub(in crate::server) last: Arc<OnceLock<NodeStatus>>,
}

/// A place for the handle of a node that is still starting. Cheap to clone; all clones are one place.
#[derive(Clone, Debug, Default)]
pub struct NodeSlot(Arc<OnceLock<NodeHandle>>);

impl NodeSlot {
    /// The node has started. The first handle stays.
    pub fn fill(&self, node: NodeHandle) {
        let _first = self.0.set(node);
    }

    /// The node's handle, once it has started.
    #[must_use]
    pub fn get(&self) -> Option<&NodeHandle> {
        self.0.get()
    }
}

impl From<NodeHandle> for NodeSlot {
    fn from(node: NodeHandle) -> Self {
        let slot = Self::default();
        slot.fill(node);
        slot
    }
}

/// A join that somebody in this process asked for.
#[derive(Debug)]
pub(super) struct JoinCall {
    /// The node's name.
    pub name: String,
    /// Its raft address.
    pub raft_addr: String,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Joined, JoinError>>,
}

/// A join that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The member's id.
    pub id: NodeId,
}

/// Why a join failed. `Display` says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum JoinError {
    /// No leader can be reached. (400 `"Not a leader"`)
    #[error("no leader can be reached; try again, or name another node")]
    NoLeader,
    /// A parameter makes no sense. (400)
    #[error("{0}")]
    BadRequest(String),
    /// The node has data, belongs to another cluster, or is reserved. (409)
    #[error("{0}")]
    Conflict(String),
    /// It could not be added; it may go on in the background. (500)
    #[error("{0}")]
    Failed(String),
    /// The same node is being joined already; to be tried again. (503)
    #[error("{0}")]
    Busy(String),
}

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
    /// Why the node does not serve, if it does not (a damaged log, a failed disk, …).
    pub stopped: Option<String>,
    /// What is held for somebody who waits, or for something under way, by name: at rest all of it is zero.
    pub held: Vec<(&'static str, u64)>,
}

impl NodeHandle {
    /// Asks the replica; always answered (after the request time-out with `ClientError::Unknown` or `NoQuorum`).
    pub async fn request(&self, request: ClientRequest) -> ClientReply {
        let unanswered = match request {
            ClientRequest::Read { .. } | ClientRequest::Barrier => ClientError::NoQuorum,
            _ => ClientError::Unknown,
        };
        let (reply, answer) = oneshot::channel();
        match self.clients.try_send(ClientCall { request, reply }) {
            Ok(()) => answer.await.unwrap_or(ClientReply::Failed(unanswered)),
            Err(TrySendError::Full(_)) => ClientReply::Failed(ClientError::Overloaded),
            Err(TrySendError::Closed(_)) => {
                ClientReply::Failed(ClientError::Refused("this node has stopped".to_owned()))
            }
        }
    }

    /// Adds the node that listens on `raft_addr` under `name`, wherever the leader is; returns when it is a voter.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(&self, name: String, raft_addr: String) -> Result<Joined, JoinError> {
        let stopped = || JoinError::Failed("this node has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        let sent = self.joins.send(JoinCall { name, raft_addr, reply }).await;
        sent.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The node's view of itself and the cluster; at once, without asking anyone.
    ///
    /// # Panics
    /// Only if the driver panicked.
    pub async fn status(&self) -> NodeStatus {
        let (reply, answer) = oneshot::channel();
        if self.control.send(Control::Status(reply)).await.is_ok()
            && let Ok(status) = answer.await
        {
            return status;
        }
        self.last.get().cloned().expect("a driver that ends leaves its last status behind")
    }
}

/// A client's request and where its answer goes.
#[derive(Debug)]
pub(super) struct ClientCall {
    /// What it asks.
    pub request: ClientRequest,
    /// Where the answer goes.
    pub reply: oneshot::Sender<ClientReply>,
}

/// What a node that is absorbed by another cluster needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Adoption {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member id given by its leader.
    pub id: NodeId,
    /// The store id that the node promised to take when it was reserved.
    pub store: StoreId,
    /// Where it is reached, in its leader's words.
    pub raft_addr: String,
    /// Members, and where they are reached.
    pub addresses: Vec<(NodeId, String)>,
}

/// Orders for the driver itself, and questions that only it can answer.
#[derive(Debug)]
pub(super) enum Control {
    /// What is this node's state?
    Status(oneshot::Sender<NodeStatus>),
    /// Reserve this node, a pristine cluster of one, for that cluster; answered with the store id of its next life.
    Reserve {
        /// For whom.
        cluster: ClusterId,
        /// For how long.
        micros: u64,
        /// The store id, or why not.
        reply: oneshot::Sender<Result<StoreId, String>>,
    },
    /// Forget the reservation for that cluster.
    Release(ClusterId),
    /// Become a member of another cluster.
    Adopt(Adoption, oneshot::Sender<Result<(), String>>),
    /// A join of another node begins (`true`) or has ended here: meanwhile this node cannot be reserved itself.
    Joining(bool),
    /// This node has proof that it must not be counted on.
    Withdraw(Withdrawal),
    /// Another cluster calls this node as its member.
    Called {
        /// Which cluster.
        cluster: ClusterId,
        /// As which member.
        member: NodeId,
    },
    /// Hand leadership over, finish the log, end.
    Stop,
}

/// The membership as the driver knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MembershipView {
    /// The membership in force.
    pub membership: Membership,
    /// Whether its entry is known to be committed.
    pub committed: bool,
}
