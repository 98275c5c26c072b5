//! Accepting connections, looking after them, and stopping.

use crate::raft::Time;
use crate::server::env::{Env, Listener, until};
use crate::server::handle::NodeHandle;
use crate::server::http::budget::Budget;
use crate::server::http::connection::{linger, serve};
use crate::server::http::context::Context;
use crate::server::http::control::{Control, Order, Phase};
use crate::server::http::options::HttpOptions;
use crate::server::metrics::Metrics;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

/// How often connections are looked at, microseconds. This is the unit of their time-outs too: a tick.
const SWEEP_MICROS: u64 = 1_000_000;
/// After a failed accept (no file descriptors left, say), so long nothing is accepted.
const ACCEPT_PAUSE_MICROS: u64 = 100_000;
/// Connections that are being turned away at the same time; more are closed without a word.
const REFUSALS_MAX: usize = 128;
/// What a connection above the limit is told.
const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
    retry-after: 1\r\ncontent-length: 23\r\n\r\n\"too many connections\"\n";

/// A running HTTP server. Dropping it does not stop it: [`Self::stop`] does.
pub struct HttpServer<E: Env> {
    pub(super) context: Arc<Context<E>>,
}

impl<E: Env> fmt::Debug for HttpServer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer")
            .field("open", &self.context.connections().open.len())
            .finish_non_exhaustive()
    }
}

impl<E: Env> HttpServer<E> {
    /// Serves `node` on a listener (from [`Env::listen`]), from now on.
    #[must_use]
    pub fn start(
        env: E,
        listener: E::Listener,
        options: HttpOptions,
        node: NodeHandle,
        metrics: Metrics,
    ) -> Self {
        let budget = Budget::new(options.memory_bytes_max);
        let context = Arc::new(Context {
            env,
            options,
            node,
            metrics,
            tick: AtomicU32::new(0),
            budget,
            connections: Mutex::default(),
            stopping: Notify::new(),
            ended: Notify::new(),
        });
        context.env.spawn(accept(context.clone(), listener));
        context.env.spawn(sweep(context.clone()));
        Self { context }
    }

    /// Accepts nothing more, lets the requests at hand be answered until `deadline`, and closes every connection.
    pub async fn stop(&self, deadline: Time) {
        let context = &self.context;
        {
            let mut connections = context.connections();
            connections.stopping = true;
            connections.open.values().for_each(|control| control.tell(Order::Finish));
        }
        context.stopping.notify_waiters();
        let all_ended = async {
            while !context.connections().open.is_empty() {
                context.ended.notified().await;
            }
        };
        if until(&context.env, deadline, all_ended).await.is_none() {
            context.connections().open.values().for_each(|control| control.tell(Order::Abort));
        }
    }
}

async fn accept<E: Env>(context: Arc<Context<E>>, mut listener: E::Listener) {
    loop {
        // Made before the flag is looked at: a stop in between is heard.
        let stopping = context.stopping.notified();
        if context.connections().stopping {
            return;
        }
        let accepted = tokio::select! {
            biased;
            () = stopping => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => admit(&context, stream, from),
            Err(error) => pause(&context, &error).await,
        }
    }
}

/// Accepting failed for want of something (file descriptors, memory): trying again at once would only burn time.
async fn pause<E: Env>(context: &Context<E>, error: &io::Error) {
    tracing::warn!(%error, "cannot accept an http connection; raise the limit of open files if that is what it says");
    context.env.sleep_until(context.env.now().plus(ACCEPT_PAUSE_MICROS)).await;
}

fn admit<E: Env>(context: &Arc<Context<E>>, stream: E::Stream, from: String) {
    let mut connections = context.connections();
    if connections.open.len() >= context.options.connections_max {
        context.metrics.connections_refused.inc();
        if connections.refusals < REFUSALS_MAX {
            connections.refusals += 1;
            context.env.spawn(refuse(context.clone(), stream));
        }
        return;
    }
    let id = connections.next_id;
    connections.next_id += 1;
    let control = Arc::new(Control::new(context.tick()));
    connections.open.insert(id, control.clone());
    context.metrics.connections.inc();
    let open = Open { context: context.clone(), id };
    context.env.spawn(async move {
        serve(open.context.clone(), control, stream, from).await;
        drop(open);
    });
}

/// A connection's place in the list, given back when its task ends, however it ends.
struct Open<E: Env> {
    context: Arc<Context<E>>,
    id: u64,
}

impl<E: Env> Drop for Open<E> {
    fn drop(&mut self) {
        self.context.connections().open.remove(&self.id);
        self.context.metrics.connections.dec();
        self.context.ended.notify_one();
    }
}

async fn refuse<E: Env>(context: Arc<Context<E>>, mut stream: E::Stream) {
    if stream.write_all(REFUSAL).await.is_ok() {
        linger(&context.env, &mut stream).await;
    }
    context.connections().refusals -= 1;
}

/// Ends the connections that are overdue, once a tick.
async fn sweep<E: Env>(context: Arc<Context<E>>) {
    loop {
        let stopping = context.stopping.notified();
        let next = context.env.now().plus(SWEEP_MICROS);
        if context.connections().stopping || until(&context.env, next, stopping).await.is_some() {
            return;
        }
        let now = context.tick.fetch_add(1, Ordering::Relaxed) + 1;
        for control in context.connections().open.values() {
            let (phase, since) = control.waits();
            let seconds = u64::from(now.saturating_sub(since));
            if overdue(&context.options, phase, seconds, control.allowance()) {
                control.tell(Order::Abort);
            }
        }
    }
}

/// Whether a connection has been in a phase for too long. A phase that began within a tick counts from the tick, so one more has to pass.
/// `allowance` is what a large answer gets in addition, seconds.
pub(super) fn overdue(options: &HttpOptions, phase: Phase, seconds: u64, allowance: u64) -> bool {
    match phase {
        Phase::Idle => seconds > options.idle_timeout_seconds,
        Phase::Head => seconds > options.header_timeout_seconds,
        Phase::Answering => false,
        Phase::Sending => seconds > options.write_timeout_seconds + allowance,
    }
}
