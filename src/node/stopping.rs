//! How a driver ends: a leader hands over first, requests that wait are answered, and the storage
//! finishes what it has.

use crate::node::clients::Waiting;
use crate::node::driver::{Driver, Stopping};
use crate::node::handle::DriverOrder;
use crate::node::options::NodeExit;
use crate::node::storage_workers::WorkerNews;
use crate::raft::Time;
use crate::replica::{ClientError, ClientReply, ClientRequest, Event};
use crate::runtime::Env;
use tokio::sync::oneshot;
use tracing::{debug, info};

impl<E: Env> Driver<E> {
    /// It is asked to end.
    pub(super) fn begin_stop(&mut self, now: Time) {
        if self.stopping.is_some() {
            return;
        }
        info!("stopping");
        let give_up = now.plus(self.config.raft.election_timeout_micros);
        self.stopping = Some(Stopping { give_up, has_asked: false });
        if self.adoption.is_none() {
            self.replica.step(now, Event::EndWatches);
        }
    }

    /// A leader that is to end hands over, once another transfer is over that was under way.
    pub(super) fn maybe_hand_over(&mut self) {
        let now = self.env.now();
        let patience = self.config.raft.election_timeout_micros;
        let is_busy = self.adoption.is_some() || self.replica.raft().is_handing_over();
        let Some(stopping) = self.stopping.as_mut().filter(|stopping| !stopping.has_asked && !is_busy) else {
            return;
        };
        *stopping = Stopping { give_up: now.plus(patience), has_asked: true };
        let deadline = stopping.give_up;
        // Answered at once if this node does not lead, or no member can take over.
        let (reply, _) = oneshot::channel();
        let id = self.clients.insert(Waiting { since: now, write: false, reply });
        let request = ClientRequest::TransferLeadership(None);
        self.replica.step(now, Event::Client { id, deadline, by: None, request });
    }

    /// Whether what it owed before its end is done, or its time is up.
    pub(super) fn has_stopped(&mut self) -> bool {
        let now = self.env.now();
        let Some(stopping) = &self.stopping else { return false };
        // The transfer is one of the requests that wait. Writes that came during it go to the new
        // leader, and are answered.
        let is_done = stopping.has_asked && self.clients.is_empty();
        self.adoption.is_none() && (is_done || now >= stopping.give_up)
    }

    /// Lets the storage finish what it has.
    pub(super) async fn close(&mut self) -> NodeExit {
        self.log.close();
        self.snapshots.close();
        self.scrub.close();
        self.past_reads.0.close();
        self.past_changes.0.close();
        loop {
            let news = tokio::select! {
                biased;
                news = self.inbox.storage.recv() => news,
                // A disk may hang for long. What asks nothing of it is answered meanwhile.
                Some(order) = self.inbox.orders.recv() => {
                    if let DriverOrder::Status(reply) = order {
                        let _ = reply.send(self.status(self.env.now(), None));
                    }
                    continue;
                }
                Some(call) = self.inbox.clients.recv() => {
                    let _ = call.reply.send(ClientReply::Failed(ClientError::Stopping));
                    continue;
                }
            };
            match news {
                Some(WorkerNews::Closed) if self.exits_when_removed && self.replica.is_removed() => {
                    return NodeExit::Removed;
                }
                Some(WorkerNews::Closed) => return NodeExit::Stopped,
                Some(WorkerNews::Failed(reason)) => return NodeExit::Failed(reason),
                Some(WorkerNews::DiskFailed(reason)) => return NodeExit::DiskFailed(reason),
                Some(WorkerNews::StorageEvent(_) | WorkerNews::Adopted(_)) => {}
                Some(WorkerNews::Scrubbed(_) | WorkerNews::Mended(_)) => {}
                Some(WorkerNews::StaysWithdrawn(_) | WorkerNews::Condemned(_)) => {}
                None => break,
            }
        }
        NodeExit::Failed("the storage thread ended without a word".to_owned())
    }

    /// Answers all clients that still wait.
    pub(super) fn leave(&mut self, exit: &NodeExit) {
        let stopped = match exit {
            NodeExit::Stopped => "it was asked to stop".to_owned(),
            NodeExit::Removed => "it was removed from its cluster".to_owned(),
            NodeExit::Failed(reason)
            | NodeExit::DiskFailed(reason)
            | NodeExit::Rebuild(reason)
            | NodeExit::Outgrown(reason) => reason.clone(),
        };
        let status = self.status(self.env.now(), Some(stopped));
        let _ = self.last.set(status);
        for (id, reply) in self.replica.give_up() {
            self.answer(self.env.now(), id, reply);
        }
        // These have not been taken in.
        self.inbox.clients.close();
        while let Ok(call) = self.inbox.clients.try_recv() {
            let _ = call.reply.send(ClientReply::Failed(ClientError::Stopping));
        }
        self.fail_all(|write| if write { ClientError::Unknown } else { ClientError::NoQuorum });
        debug!("the driver has ended");
    }
}
