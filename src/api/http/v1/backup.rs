//! `GET /v1/snapshot`: a backup, as a stream.
//!
//! The state is captured, which costs nothing, and written piece by piece on a worker of its own:
//! each piece when the client has taken the one before. So neither the size of the state nor a slow
//! client holds up the node. What is captured is let go as it is written; what has not been written
//! keeps the memory that later writes would have used again, so a client that takes too long is cut
//! off, and only so many backups are under way at once.

use crate::api::http::account::Account;
use crate::api::http::answer::{Answer, Content};
use crate::api::http::budget::{MemoryReservation, MemoryUse};
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::stream::EventStream;
use crate::api::http::v1::input::Freshness;
use crate::api::http::v1::parameters::Parameters;
use crate::api::http::v1::problem::Problem;
use crate::api::service::{ErrorCode, ServiceError};
use crate::raft::Time;
use crate::runtime::Env;
use crate::runtime::work::{WorkQueue, Worker};
use crate::storage::BackupWriter;
use bytes::Bytes;
use hyper::Method;
use std::fmt;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Backups under way at the same time.
pub(in crate::api::http) const BACKUPS_MAX: usize = 2;

/// Begins a backup.
pub(super) async fn handle<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let level = parameters.level()?;
    let overloaded = |detail: &str| Problem::from(ServiceError::new(ErrorCode::Overloaded, detail));
    let Ok(permit) = context.backups.clone().try_acquire_owned() else {
        return Err(overloaded("other backups are under way on this node; ask another one, or try again"));
    };
    let freshness = Freshness::of(context, level);
    let source = service(context, call).capture(level).await?;
    let writer = BackupWriter::new(source);
    let revision = writer.header().revision;
    let answer = if call.head.method == Method::HEAD {
        Answer::streaming(Content::Raw, None)
    } else {
        let (out, pieces) = mpsc::unbounded_channel();
        let queue = WorkQueue::new();
        let worker = PieceWorker { writer, out };
        context.env.start_worker("backup", worker, queue.clone()).map_err(|error| {
            tracing::warn!(%error, "a backup has no thread");
            overloaded("this node has no thread for a backup now; try again")
        })?;
        let stream = Backup {
            context: context.clone(),
            account: call.peer.account.clone(),
            queue,
            pieces,
            is_asked: false,
            is_whole: false,
            begun: context.env.now(),
            sent_bytes: 0,
            _permit: permit,
        };
        Answer::streaming(Content::Raw, Some(Box::new(stream)))
    };
    Ok(freshness.told(context, answer.at(revision)))
}

/// Writes a piece for each job.
struct PieceWorker {
    writer: BackupWriter,
    /// There is at most one job, and so one piece, on its way. `None`: that was all.
    out: mpsc::UnboundedSender<Option<Vec<u8>>>,
}

impl Worker for PieceWorker {
    type Job = ();

    fn work(&mut self, jobs: Vec<()>) -> bool {
        jobs.iter().all(|()| {
            let piece = self.writer.next();
            let goes_on = piece.is_some();
            self.out.send(piece).is_ok() && goes_on
        })
    }
}

/// The body of a backup's answer.
struct Backup<E: Env> {
    context: Arc<Context<E>>,
    account: Arc<Account>,
    queue: Arc<WorkQueue<()>>,
    pieces: mpsc::UnboundedReceiver<Option<Vec<u8>>>,
    /// The next piece is being written.
    is_asked: bool,
    /// The last one was given out.
    is_whole: bool,
    begun: Time,
    sent_bytes: usize,
    _permit: OwnedSemaphorePermit,
}

/// A piece, with its part of the budget until it was sent.
struct Piece {
    bytes: Vec<u8>,
    _held: MemoryReservation,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<E: Env> Backup<E> {
    /// Whether the client takes it too slowly.
    fn is_late(&self) -> bool {
        let options = &self.context.options;
        let allowed = (self.sent_bytes / options.write_bytes_per_second_min) as u64;
        let micros = (options.write_timeout_seconds + allowed).saturating_mul(1_000_000);
        self.context.env.now().since(self.begun) > micros
    }
}

impl<E: Env> EventStream for Backup<E> {
    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        if !self.is_asked {
            if self.is_late() {
                tracing::warn!(bytes = self.sent_bytes, "a backup is taken too slowly, and is cut off");
                return Poll::Ready(None);
            }
            self.is_asked = true;
            self.queue.push_all(&mut vec![()]);
        }
        let Some(next) = ready!(self.pieces.poll_recv(cx)) else {
            tracing::warn!(bytes = self.sent_bytes, "the thread of a backup has ended; it is cut off");
            return Poll::Ready(None);
        };
        let Some(bytes) = next else {
            self.is_whole = true;
            return Poll::Ready(None);
        };
        self.is_asked = false;
        self.sent_bytes += bytes.len();
        let Some(_held) = self.context.budget.reserve(&self.account, MemoryUse::Answer, bytes.len()) else {
            tracing::warn!(
                bytes = self.sent_bytes,
                "there is no memory for a backup's next piece; it is cut off"
            );
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Bytes::from_owner(Piece { bytes, _held })))
    }

    fn ends_with_client(&self) -> bool {
        false
    }

    fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn tick(&self) -> u32 {
        self.context.tick()
    }
}

impl<E: Env> Drop for Backup<E> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl<E: Env> fmt::Debug for Backup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("sent_bytes", &self.sent_bytes).finish_non_exhaustive()
    }
}
