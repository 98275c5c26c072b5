//! Reads of the past, and of what changed since long ago, on workers of their own.
//!
//! How long one takes depends on how much has changed since the revision that it asks for. The
//! driver hands over a capture, which costs nothing, and goes on with heartbeats and entries. Each
//! kind has a worker: clients that catch up by the thousand do not hold reads up.

use crate::replica::{ClientError, ClientReply};
use crate::runtime::work::{WorkQueue, Worker};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Reads of a kind that wait, at most. Each holds a capture, and with it what was replaced since.
const WAITING_MAX: usize = 256;

/// The driver's end.
#[derive(Debug)]
pub(super) struct PastReads(pub Arc<WorkQueue<PastJob>>);

/// A reply that is to be worked out, and where it goes.
#[derive(Debug)]
pub(super) struct PastJob {
    reply: ClientReply,
    to: oneshot::Sender<ClientReply>,
}

impl PastReads {
    /// Answers later.
    pub(super) fn answer(&self, reply: ClientReply, to: oneshot::Sender<ClientReply>) {
        if self.0.len() >= WAITING_MAX {
            let _ = to.send(ClientReply::Failed(ClientError::Overloaded));
            return;
        }
        self.0.push_all(&mut vec![PastJob { reply, to }]);
    }
}

/// Answers reads of the past.
pub(super) struct PastWorker;

impl Worker for PastWorker {
    type Job = PastJob;
    const IS_PATIENT: bool = true;

    fn work(&mut self, jobs: Vec<PastJob>) -> bool {
        // A client that has gone needs no answer.
        for PastJob { reply, to } in jobs.into_iter().filter(|job| !job.to.is_closed()) {
            let _ = to.send(reply.worked_out());
        }
        true
    }
}
