//! What reaches the driver, in the order in which it is taken.

use crate::node::handle::{ClientCall, DriverOrder};
use crate::node::storage_workers::WorkerNews;
use crate::peer::discovery::Discovery;
use crate::peer::incoming::PeerBatch;
use crate::runtime::Env;
use crate::runtime::timer::Timer;
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Things of one kind taken in at once, at most, so that other kinds do not wait for long.
const TAKEN_AT_ONCE: usize = 4096;

/// The driver's queues.
#[derive(Debug)]
pub(super) struct Inbox {
    /// From the storage workers. Not bounded by itself: each news answers a request, and the core
    /// bounds those.
    pub storage: mpsc::UnboundedReceiver<WorkerNews>,
    /// From the sockets.
    pub peers: mpsc::Receiver<PeerBatch>,
    /// What connections found out about this node.
    pub discoveries: mpsc::Receiver<Discovery>,
    /// Orders for the node.
    pub orders: mpsc::Receiver<DriverOrder>,
    /// Requests of clients.
    pub clients: mpsc::Receiver<ClientCall>,
}

/// Everything taken in at once. Vectors are reused.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// News of the storage.
    pub storage: Vec<WorkerNews>,
    /// Peers' messages.
    pub peers: Vec<PeerBatch>,
    /// What connections found out about this node.
    pub discoveries: Vec<Discovery>,
    /// Orders.
    pub orders: Vec<DriverOrder>,
    /// Clients' requests.
    pub clients: Vec<ClientCall>,
}

impl Inbox {
    /// Waits until there is something, or `timer` has passed, and takes all there is.
    pub(super) async fn take<E: Env>(&mut self, arrivals: &mut Arrivals, timer: &mut Timer<E>) {
        poll_fn(|context| {
            let found = self.poll_take(arrivals, context);
            let passed = timer.poll(context).is_ready();
            if found || passed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Takes all there is, and waits for nothing.
    pub(super) async fn take_what_is_there(&mut self, arrivals: &mut Arrivals) {
        poll_fn(|context| {
            self.poll_take(arrivals, context);
            Poll::Ready(())
        })
        .await;
    }

    /// How many things wait.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.storage.len()
            + self.peers.len()
            + self.discoveries.len()
            + self.orders.len()
            + self.clients.len()
    }

    /// Fills the batch with what is there; registers for more where there is nothing.
    fn poll_take(&mut self, arrivals: &mut Arrivals, context: &mut Context<'_>) -> bool {
        let some = |polled: Poll<usize>| matches!(polled, Poll::Ready(1..));
        let limit = TAKEN_AT_ONCE;
        let storage = some(self.storage.poll_recv_many(context, &mut arrivals.storage, limit));
        let peers = some(self.peers.poll_recv_many(context, &mut arrivals.peers, limit));
        let discoveries = some(self.discoveries.poll_recv_many(context, &mut arrivals.discoveries, limit));
        let orders = some(self.orders.poll_recv_many(context, &mut arrivals.orders, limit));
        let clients = some(self.clients.poll_recv_many(context, &mut arrivals.clients, limit));
        storage | peers | discoveries | orders | clients
    }
}
