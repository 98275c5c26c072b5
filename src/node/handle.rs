//! What the HTTP server and other code in the process may ask of a running node.

use crate::kv::{Principal, Revision, Security};
use crate::peer::mending::{MendCall, MendReply};
use crate::peer::orders::{MemberOrder, MembersView, OrderCode, OrderConditions, OrderDone, OrderError};
use crate::peer::rpc::{Adoption, JoinError};
use crate::raft::{ClusterId, Membership, NodeId, StoreId, Term, Time};
use crate::replica::{ClientError, ClientReply, ClientRequest};
use crate::runtime::{NodeStatus, watch};
use crate::storage::BackupSource;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// A handle to ask a running node. Cheap to clone. Survives the node's move into another cluster.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    /// Clients' requests. Full means overloaded.
    pub(crate) clients: mpsc::Sender<ClientCall>,
    /// Orders for the driver.
    pub(crate) orders: mpsc::Sender<DriverOrder>,
    /// What operators order, for the task that may talk to other nodes.
    pub(crate) joins: mpsc::Sender<OperatorCall>,
    /// The membership, as the driver publishes it.
    pub(crate) membership: watch::Receiver<MembershipView>,
    /// The driver's last status, set when it ends.
    pub(crate) last: Arc<OnceLock<NodeStatus>>,
    /// What each answer to a client tells of the node.
    pub(crate) facts: Arc<NodeFacts>,
}

/// What each answer to a client tells of the node. Read without asking the driver.
#[derive(Debug, Default)]
pub(crate) struct NodeFacts {
    /// Its `--node-id`.
    pub(crate) name: String,
    term: AtomicU64,
    revision: AtomicU64,
    /// When it last knew that its state is that of a leader, microseconds by the clock of its
    /// `Env`, and one; 0: never since its start.
    fresh_at_plus_one: AtomicU64,
    /// Whether everybody may do everything, as far as this node knows; unset before it knows. One
    /// load for each request of a cluster that is open.
    is_open: AtomicBool,
    /// The driver has said all this once. Before that, the node is starting.
    is_noted: AtomicBool,
    /// Users, roles and tokens, as this node has them.
    security: RwLock<Arc<Security>>,
}

impl NodeFacts {
    pub(crate) fn of(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Notes the term and the revision that the driver has now. The driver alone calls it.
    pub(crate) fn note(&self, term: Term, revision: Revision) {
        self.term.store(term.get(), Ordering::Relaxed);
        self.revision.store(revision.0, Ordering::Relaxed);
    }

    /// The rules as they are now. Not `is_known`: the node has not applied yet what it had when it
    /// ended, so that they may be older. The driver alone calls it.
    pub(crate) fn note_security(&self, security: &Arc<Security>, is_known: bool) {
        let is_same = Arc::ptr_eq(&self.security.read().unwrap_or_else(PoisonError::into_inner), security);
        if !is_same {
            *self.security.write().unwrap_or_else(PoisonError::into_inner) = security.clone();
        }
        self.is_open.store(!security.is_enabled() && is_known, Ordering::Release);
        self.is_noted.store(true, Ordering::Release);
    }

    /// Whether the driver has settled the replica, and so said where the node stands.
    pub(crate) fn is_noted(&self) -> bool {
        self.is_noted.load(Ordering::Acquire)
    }

    /// Whether everybody may do everything, as far as this node knows.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Users, roles and tokens, as this node has them. Of a request that was answered, all that it
    /// changed is in it.
    pub(crate) fn security(&self) -> Arc<Security> {
        self.security.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It knew at that time that its state is that of a leader. The driver alone calls it.
    pub(crate) fn note_fresh(&self, at: Time) {
        self.fresh_at_plus_one.store(at.get().saturating_add(1), Ordering::Relaxed);
    }

    /// Its state is another one now: that of another cluster. The driver alone calls it.
    pub(crate) fn forget_fresh(&self) {
        self.fresh_at_plus_one.store(0, Ordering::Relaxed);
    }

    /// When it last knew that its state is that of a leader; `None`: never since its start. What is
    /// read later is at least as new.
    pub(crate) fn fresh_at(&self) -> Option<Time> {
        self.fresh_at_plus_one.load(Ordering::Relaxed).checked_sub(1).map(Time::new)
    }

    /// The term that the driver noted last.
    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    /// Its store's revision. A request that was answered is in it.
    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Relaxed))
    }
}

/// A place for the handle of a node that is still starting. Cheap to clone; all clones are one
/// place.
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

/// What an operator asked of this process.
#[derive(Debug)]
pub(crate) enum OperatorCall {
    /// A join.
    Join {
        /// The node's name.
        name: String,
        /// Its raft address.
        raft_addr: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Joined, JoinError>>,
    },
    /// An order about the members.
    Manage {
        /// The order.
        order: MemberOrder,
        /// When it may be carried out.
        conditions: OrderConditions,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<OrderDone, OrderError>>,
    },
    /// The members.
    Members {
        /// As the leader sees them, if it answers; otherwise as this node does.
        of_leader: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<MembersView>,
    },
}

/// A join that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The member's id.
    pub id: NodeId,
}

impl NodeHandle {
    /// Asks the replica; always answered (after the request time-out with `ClientError::Unknown` or
    /// `NoQuorum`).
    ///
    /// Nobody has said who asks: once requests are judged, this is refused ([`Self::request_as`]).
    pub async fn request(&self, request: ClientRequest) -> ClientReply {
        self.call(None, request, None).await
    }

    /// The same, for somebody whose credentials were checked.
    pub async fn request_as(&self, by: Option<Principal>, request: ClientRequest) -> ClientReply {
        self.call(by, request, None).await
    }

    /// The same, with a time-out of its own, microseconds: for a client that waits for a change.
    pub async fn request_within(
        &self,
        by: Option<Principal>,
        request: ClientRequest,
        micros: u64,
    ) -> ClientReply {
        self.call(by, request, Some(micros)).await
    }

    async fn call(
        &self,
        by: Option<Principal>,
        request: ClientRequest,
        patience_micros: Option<u64>,
    ) -> ClientReply {
        let unanswered = match request {
            ClientRequest::Read { .. }
            | ClientRequest::Barrier
            | ClientRequest::Watch(_)
            | ClientRequest::Lease { .. } => ClientError::NoQuorum,
            _ => ClientError::Unknown,
        };
        let (reply, answer) = oneshot::channel();
        match self.clients.try_send(ClientCall { by, request, patience_micros, reply }) {
            Ok(()) => answer.await.unwrap_or(ClientReply::Failed(unanswered)),
            Err(TrySendError::Full(_)) => ClientReply::Failed(ClientError::Overloaded),
            Err(TrySendError::Closed(_)) => {
                ClientReply::Failed(ClientError::Refused("this node has stopped".to_owned()))
            }
        }
    }

    /// Adds the node that listens on `raft_addr` under `name`, wherever the leader is; returns when
    /// it is a voter.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(&self, name: String, raft_addr: String) -> Result<Joined, JoinError> {
        let stopped = || JoinError::Failed("this node has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        let sent = self.joins.send(OperatorCall::Join { name, raft_addr, reply }).await;
        sent.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Carries an order about the members out, wherever the leader is.
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn manage(
        &self,
        order: MemberOrder,
        conditions: OrderConditions,
    ) -> Result<OrderDone, OrderError> {
        let (reply, answer) = oneshot::channel();
        let stopped = |code| OrderError::new(code, "this node has stopped");
        let sent = self.joins.send(OperatorCall::Manage { order, conditions, reply }).await;
        sent.map_err(|_| stopped(OrderCode::Unavailable))?;
        answer.await.unwrap_or_else(|_| Err(stopped(OrderCode::Unknown)))
    }

    /// The members, as the leader sees them, or this node if the leader does not answer. With
    /// `of_leader` unset, as this node sees them. `None`: this node has stopped.
    pub async fn members(&self, of_leader: bool) -> Option<MembersView> {
        let (reply, answer) = oneshot::channel();
        self.joins.send(OperatorCall::Members { of_leader, reply }).await.ok()?;
        answer.await.ok()
    }

    /// What each answer tells of the node.
    pub(crate) fn facts(&self) -> &NodeFacts {
        &self.facts
    }

    /// The state as this node has it, captured: that costs nothing, and holds nothing up. `None`:
    /// the node is starting, or has stopped.
    pub(crate) async fn capture(&self) -> Option<BackupSource> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(DriverOrder::Capture(reply)).await.ok()?;
        answer.await.ok()?
    }

    /// The alarms have changed: they are written down.
    pub async fn note_alarms(&self) {
        let _ = self.orders.send(DriverOrder::NoteAlarms).await;
    }

    /// The node's view of itself and the cluster. At once, without a message to another node.
    pub async fn status(&self) -> NodeStatus {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(DriverOrder::Status(reply)).await.is_ok()
            && let Ok(status) = answer.await
        {
            return status;
        }
        self.last.get().cloned().expect("a driver that ends leaves its last status behind")
    }
}

/// A client's request and where its answer goes.
#[derive(Debug)]
pub(crate) struct ClientCall {
    /// The caller's principal.
    pub by: Option<Principal>,
    /// What it asks.
    pub request: ClientRequest,
    /// How long it waits at most; `None`: as long as requests do.
    pub patience_micros: Option<u64>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<ClientReply>,
}

/// Orders for the driver itself, and questions that only it can answer.
#[derive(Debug)]
pub(crate) enum DriverOrder {
    /// What is this node's state?
    Status(oneshot::Sender<NodeStatus>),
    /// The state as it is now; `None`: it is not there yet, since the node is starting.
    Capture(oneshot::Sender<Option<BackupSource>>),
    /// Reserve this node, a pristine cluster of one, for that cluster; answered with the store id
    /// that it will have there.
    Reserve {
        /// The cluster that this node is reserved for.
        cluster: ClusterId,
        /// How long it is reserved, microseconds.
        micros: u64,
        /// The store id, or why not.
        reply: oneshot::Sender<Result<StoreId, String>>,
    },
    /// Make a cluster: this node is its first member, and joins no other one.
    Found,
    /// Forget the reservation for that cluster.
    Release(ClusterId),
    /// Become a member of another cluster.
    Adopt(Adoption, oneshot::Sender<Result<(), String>>),
    /// A join of another node begins (`true`) or has ended here: meanwhile this node cannot be
    /// reserved itself.
    Joining(bool),
    /// A node that repairs its data directory asks for something.
    Mend(MendCall, oneshot::Sender<MendReply>),
    /// The end of this leader's log, if it leads in that term still.
    Leads(Term, oneshot::Sender<MendReply>),
    /// The alarms have changed.
    NoteAlarms,
    /// There is proof that this node cannot be relied on.
    #[cfg(test)]
    Withdraw(crate::raft::Withdrawal),
    /// Hand leadership over, finish the log, end.
    Stop,
}

/// The membership as the driver knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MembershipView {
    /// The membership in force.
    pub membership: Membership,
    /// Whether its entry is known to be committed.
    pub committed: bool,
}
