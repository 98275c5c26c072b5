//! Outgoing connections, one for each peer that there is something to say to.

use crate::raft::NodeId;
use crate::replica::PeerMessage;
use crate::server::directory::Directory;
use crate::server::env::Env;
use crate::server::link::Link;
use crate::server::metrics::Metrics;
use crate::server::options::TransportOptions;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Messages to peers: each has a bounded queue, and a task that empties it into a connection.
///
/// A full queue drops what comes: Raft sends again what still matters, and nothing here may hold the replica up.
#[derive(Debug)]
pub(super) struct Links<E> {
    env: E,
    directory: Arc<Directory>,
    options: TransportOptions,
    metrics: Metrics,
    queues: BTreeMap<NodeId, Queue>,
}

#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<PeerMessage>,
    depth: Gauge,
}

impl<E: Env> Links<E> {
    /// No connections yet.
    pub(super) fn new(
        env: E,
        directory: Arc<Directory>,
        options: TransportOptions,
        metrics: Metrics,
    ) -> Self {
        Self { env, directory, options, metrics, queues: BTreeMap::new() }
    }

    /// Queues all messages; a connection is made where there is none.
    pub(super) fn send_all(&mut self, messages: Vec<PeerMessage>) {
        let mut dropped = 0;
        for message in messages {
            let to = message.to();
            if !self.queues.contains_key(&to) {
                if self.directory.address(to).is_none() {
                    dropped += 1;
                    continue;
                }
                self.open(to);
            }
            let sent = self.queues.get(&to).is_some_and(|queue| queue.sender.try_send(message).is_ok());
            dropped += u64::from(!sent);
        }
        if dropped > 0 {
            self.metrics.messages_dropped.inc_by(dropped);
        }
    }

    /// Brings the gauges of the queues up to date.
    pub(super) fn observe(&self) {
        for queue in self.queues.values() {
            let waiting = queue.sender.max_capacity() - queue.sender.capacity();
            queue.depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
    }

    /// Ends the connections to everyone for whom `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
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
            directory: self.directory.clone(),
            to,
            queue,
            options: self.options.clone(),
            metrics: self.metrics.clone(),
        };
        self.env.spawn(link.run());
        self.queues.insert(to, Queue { sender, depth: self.metrics.peer_queue(&to.to_string()) });
    }
}
