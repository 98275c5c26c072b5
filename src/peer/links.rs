//! Outgoing connections, one for each peer.

use crate::peer::address_book::AddressBook;
use crate::peer::discovery::Discovery;
use crate::peer::link::{Link, Queued};
use crate::peer::options::TransportOptions;
use crate::raft::NodeId;
use crate::replica::PeerMessage;
use crate::runtime::{Env, Metrics};
use prometheus_client::metrics::gauge::Gauge;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Messages to peers: each has a bounded queue, and a task that empties it into a connection.
///
/// A full queue drops what comes. Raft sends again what still matters, and nothing here may hold up
/// the replica.
#[derive(Debug)]
pub(crate) struct Links<E> {
    env: E,
    address_book: Arc<AddressBook>,
    options: TransportOptions,
    metrics: Metrics,
    discoveries: mpsc::Sender<Discovery>,
    queues: BTreeMap<NodeId, Queue>,
}

#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<Queued>,
    /// Bytes of the messages that wait.
    bytes: Arc<AtomicUsize>,
    depth: Gauge,
}

impl Queue {
    /// Queues a message. `false` if there is no room for it.
    fn push(&self, message: PeerMessage, bytes_max: usize) -> bool {
        let bytes = message.bytes();
        // Only here it grows. One that is longer than all there may be waits alone.
        let waiting = self.bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting + bytes > bytes_max {
            return false;
        }
        self.sender.try_send(Queued::new(message, bytes, &self.bytes)).is_ok()
    }
}

impl<E: Env> Links<E> {
    /// No connections yet.
    pub(crate) fn new(
        env: E,
        address_book: Arc<AddressBook>,
        options: TransportOptions,
        metrics: Metrics,
        discoveries: mpsc::Sender<Discovery>,
    ) -> Self {
        Self { env, address_book, options, metrics, discoveries, queues: BTreeMap::new() }
    }

    /// Calls these peers, so that they know which start of this node lives.
    pub(crate) fn introduce(&mut self, to: impl IntoIterator<Item = NodeId>) {
        for id in to {
            if !self.queues.contains_key(&id) && self.address_book.address(id).is_some() {
                self.open(id);
            }
        }
    }

    /// Queues all messages; a connection is made where there is none.
    pub(crate) fn send_all(&mut self, messages: Vec<PeerMessage>) {
        let mut dropped = 0;
        for message in messages {
            let to = message.to();
            if !self.queues.contains_key(&to) {
                if self.address_book.address(to).is_none() {
                    dropped += 1;
                    continue;
                }
                self.open(to);
            }
            let bytes_max = self.options.peer_queue_bytes_max;
            let sent = self.queues.get(&to).is_some_and(|queue| queue.push(message, bytes_max));
            dropped += u64::from(!sent);
        }
        if dropped > 0 {
            self.metrics.messages_dropped.inc_by(dropped);
        }
    }

    /// Brings the gauges of the queues up to date.
    pub(crate) fn observe(&self) {
        for queue in self.queues.values() {
            let waiting = queue.sender.max_capacity() - queue.sender.capacity();
            queue.depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
    }

    /// The peers that have links.
    pub(crate) fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.queues.keys().copied()
    }

    /// Messages that wait, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let queues = self.queues.values();
        let messages = queues.clone().map(|queue| queue.sender.max_capacity() - queue.sender.capacity());
        (messages.sum(), queues.map(|queue| queue.bytes.load(Ordering::Relaxed)).sum())
    }

    /// Ends the connections to all peers for which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        let metrics = &self.metrics;
        self.queues.retain(|&id, _| {
            let kept = keep(id);
            if !kept {
                metrics.remove_peer(&id.to_string());
            }
            kept
        });
    }

    fn open(&mut self, to: NodeId) {
        let (sender, queue) = mpsc::channel(self.options.peer_queue_max);
        let link = Link {
            env: self.env.clone(),
            address_book: self.address_book.clone(),
            to,
            queue,
            options: self.options.clone(),
            metrics: self.metrics.clone(),
            discoveries: self.discoveries.clone(),
        };
        self.env.spawn(link.run());
        let (bytes, depth) = (Arc::default(), self.metrics.peer_queue(&to.to_string()));
        self.queues.insert(to, Queue { sender, bytes, depth });
    }
}

#[cfg(test)]
mod tests;
