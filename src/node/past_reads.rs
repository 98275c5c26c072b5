//! Reads of the past, on a worker of their own.
//!
//! How long one takes depends on how much has changed since the revision that it asks for. The
//! driver hands over a capture, which costs nothing, and goes on with heartbeats and entries.

use crate::kv::PastRead;
use crate::replica::{ClientError, ClientReply};
use crate::runtime::work::{WorkQueue, Worker};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Reads that wait, at most. Each holds a capture, and with it what was replaced since.
const WAITING_MAX: usize = 256;

/// The driver's end.
#[derive(Debug)]
pub(super) struct PastReads(pub Arc<WorkQueue<PastJob>>);

/// A read, and where its answer goes.
#[derive(Debug)]
pub(super) struct PastJob {
    read: Box<PastRead>,
    reply: oneshot::Sender<ClientReply>,
}

impl PastReads {
    /// Answers later.
    pub(super) fn answer(&self, read: Box<PastRead>, reply: oneshot::Sender<ClientReply>) {
        if self.0.len() >= WAITING_MAX {
            let _ = reply.send(ClientReply::Failed(ClientError::Overloaded));
            return;
        }
        self.0.push_all(&mut vec![PastJob { read, reply }]);
    }
}

/// Answers reads of the past.
pub(super) struct PastWorker;

impl Worker for PastWorker {
    type Job = PastJob;
    const IS_PATIENT: bool = true;

    fn work(&mut self, jobs: Vec<PastJob>) -> bool {
        // A client that has gone needs no answer.
        for PastJob { read, reply } in jobs.into_iter().filter(|job| !job.reply.is_closed()) {
            let _ = reply.send(ClientReply::Answer(read.answer()));
        }
        true
    }
}
