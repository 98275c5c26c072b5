//! Accepting connections, looking after them, and stopping.

use crate::api::http::budget::{Budget, QUESTIONS_BYTES_MAX};
use crate::api::http::connection::serve;
use crate::api::http::context::{Connections, Context, LastQuorum, OpenConnection};
use crate::api::http::control::{Control, Order, Phase};
use crate::api::http::crowd::{CROWDED_PART, Crowd};
use crate::api::http::linger::linger;
use crate::api::http::options::HttpOptions;
use crate::api::http::rates::UserBuckets;
use crate::api::http::remote_end::RemoteEnd;
use crate::api::http::routes::Routes;
use crate::api::http::secured::secured;
use crate::api::http::streams::Streams;
use crate::api::http::turns::Turns;
use crate::api::http::v1::backup::BACKUPS_MAX;
use crate::api::service::Authenticator;
use crate::node::NodeSlot;
use crate::raft::Time;
use crate::runtime::door::{Caller, Episode, Full};
use crate::runtime::gate::Gate;
use crate::runtime::{Env, Listener, Metrics, until};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, Semaphore};

/// How often connections are looked at, microseconds. This is the unit of their time-outs too: a
/// tick.
const SWEEP_MICROS: u64 = 1_000_000;
/// After a failed accept (no file descriptors left, say), nothing is accepted for this time.
const ACCEPT_PAUSE_MICROS: u64 = 100_000;
/// The answer to a connection above the limit for one address.
const TOO_MANY_FROM_ADDRESS: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
    retry-after: 1\r\ninfinitystore-outcome: not-appended\r\ncontent-length: 41\r\n\r\n\
    \"too many connections from this address\"\n";
/// The answer to a connection above the limit.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
    retry-after: 1\r\ninfinitystore-outcome: not-appended\r\ncontent-length: 23\r\n\r\n\
    \"too many connections\"\n";

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
    /// Serves `node` on a listener (from [`Env::listen_to_clients`]), from now on. Until the node
    /// has started, `/livez` answers and the rest is refused.
    #[must_use]
    pub fn start(
        env: E,
        listener: E::Listener,
        options: HttpOptions,
        node: impl Into<NodeSlot>,
        metrics: Metrics,
    ) -> Self {
        let budget = Budget::new(options.memory_bytes_max);
        let connections = Mutex::new(Connections::new(&options));
        let authenticator = Authenticator::new(options.password_cost);
        let turns = Turns::new(options.requests_max);
        let handshakes = Gate::new(env.clone(), options.handshakes);
        let context = Arc::new(Context {
            env,
            options,
            slot: node.into(),
            requests: metrics.requests.of_routes(Routes::<E>::names()),
            metrics,
            tick: Arc::new(AtomicU32::new(0)),
            budget,
            questions: Budget::of_questions(QUESTIONS_BYTES_MAX),
            turns,
            rounds: Arc::default(),
            users: UserBuckets::default(),
            pages: Arc::default(),
            backups: Arc::new(Semaphore::new(BACKUPS_MAX)),
            authenticator,
            connections,
            quorum: LastQuorum::default(),
            crowded: AtomicBool::new(false),
            handshakes,
            stopping: Notify::new(),
            ended: Notify::new(),
        });
        context.env.spawn(accept(context.clone(), listener));
        context.env.spawn(sweep(context.clone()));
        context.env.spawn(context.rounds.clone().run());
        Self { context }
    }

    /// Accepts nothing more, lets the requests at hand be answered until `deadline`, and closes
    /// every connection.
    pub async fn stop(&self, deadline: Time) {
        let context = &self.context;
        {
            let mut connections = context.connections();
            connections.stopping = true;
            connections.open.values().for_each(|one| one.control.tell(Order::Finish));
        }
        context.stopping.notify_waiters();
        context.rounds.end();
        let all_ended = async {
            while !context.connections().open.is_empty() {
                context.ended.notified().await;
            }
        };
        if until(&context.env, deadline, all_ended).await.is_none() {
            context.connections().open.values().for_each(|one| one.control.tell(Order::Abort));
        }
    }
}

async fn accept<E: Env>(context: Arc<Context<E>>, mut listener: E::Listener) {
    let mut trouble = Episode::default();
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
            Ok((stream, from)) => {
                if let Some(failures) = trouble.ended(context.env.now()) {
                    tracing::info!(failures, "http connections are accepted again");
                }
                admit(&context, stream, from);
            }
            Err(error) => {
                if trouble.failed(context.env.now()) {
                    tracing::warn!(%error, "cannot accept http connections; raise the limit of open files if that is what it says");
                }
                // Trying again at once would only burn time.
                context.env.sleep_until(context.env.now().plus(ACCEPT_PAUSE_MICROS)).await;
            }
        }
    }
}

fn admit<E: Env>(context: &Arc<Context<E>>, stream: E::Stream, from: String) {
    let mut connections = context.connections();
    let caller = Caller::of(&from);
    let taken = match connections.places.take(&caller) {
        Err(Full::All) if connections.make_room_for(&caller, context.tick()) => {
            context.metrics.connections_evicted.inc();
            connections.places.take(&caller)
        }
        taken => taken,
    };
    if let Err(full) = taken {
        context.metrics.connections_refused.inc();
        // A client that speaks TLS could not read the answer without a handshake, which costs more
        // than all the rest of a connection.
        let is_plain = context.options.tls.is_none();
        if is_plain && connections.refusals < context.options.refusals_max {
            connections.refusals += 1;
            context.env.spawn(refuse(context.clone(), stream, full));
        }
        return;
    }
    let is_low = connections.places.is_low();
    context.crowded.store(is_low, Ordering::Relaxed);
    if is_low && connections.low.failed(context.env.now()) {
        tracing::warn!(
            open = connections.places.taken(),
            max = context.options.connections_max,
            "nearly all http connections are taken; raise --http-connections, and the limit of open files with it"
        );
    }
    let id = connections.next_id;
    connections.next_id += 1;
    let control = Arc::new(Control::new(context.tick()));
    let streams = Streams::new(control.clone(), context.tick.clone());
    let one = OpenConnection { control: control.clone(), streams: streams.clone(), caller: caller.clone() };
    connections.open.insert(id, one);
    context.metrics.connections.inc();
    let account = connections.accounts.of(&caller);
    let open = Open { context: context.clone(), id, caller };
    let told = control.clone();
    let is_told_to_end = move || told.order() == Order::Abort;
    context.env.spawn(context.rounds.take_part(account.line(), is_told_to_end, async move {
        if let Some(secured) = secured(&open.context, &control, stream, &from).await {
            let peer = Arc::new(RemoteEnd { address: from, account });
            serve(open.context.clone(), (control, streams), secured, peer).await;
        }
        drop(open);
    }));
}

/// A connection's place in the list, given back when its task ends, however it ends.
struct Open<E: Env> {
    context: Arc<Context<E>>,
    id: u64,
    caller: Caller,
}

impl<E: Env> Drop for Open<E> {
    fn drop(&mut self) {
        let mut connections = self.context.connections();
        // If it had to make room for another one, its place is that one's.
        if connections.open.remove(&self.id).is_some() {
            connections.places.give_back(&self.caller);
        }
        drop(connections);
        self.context.metrics.connections.dec();
        self.context.ended.notify_one();
    }
}

async fn refuse<E: Env>(context: Arc<Context<E>>, mut stream: E::Stream, full: Full) {
    let refusal = match full {
        Full::All => TOO_MANY,
        Full::Address => TOO_MANY_FROM_ADDRESS,
    };
    if stream.write_all(refusal).await.is_ok() {
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
        context.rounds.tick();
        let mut connections = context.connections();
        // What a connection had taken may be held for longer than the connection is there.
        connections.accounts.forget_unused(context.env.now());
        context.users.forget_full(context.env.now());
        let crowded = connections.places.is_low();
        context.crowded.store(crowded, Ordering::Relaxed);
        if !crowded {
            connections.low.ended(context.env.now());
        }
        let is_overdue = |control: &Control| {
            let (phase, since) = control.waits();
            let seconds = u64::from(now.saturating_sub(since));
            let crowd = Crowd { crowded, is_known: control.is_known.load(Ordering::Relaxed) };
            overdue(&context.options, phase, seconds, control.allowance(), crowd)
        };
        for OpenConnection { control, streams, .. } in connections.open.values() {
            let incomplete = control.incomplete_since().map(|since| u64::from(now.saturating_sub(since)));
            if is_overdue(control)
                || incomplete.is_some_and(|seconds| seconds > context.options.header_timeout_seconds)
            {
                control.tell(Order::Abort);
            }
            streams.end_overdue(is_overdue);
        }
    }
}

/// Whether a connection has been in a phase for too long. A phase that began within a tick counts
/// from the tick, so one more has to pass. `allowance` is what a large answer gets in addition,
/// seconds. In a crowd no connection is idle for long, and strangers have to take their answers
/// sooner.
pub(super) fn overdue(
    options: &HttpOptions,
    phase: Phase,
    seconds: u64,
    allowance: u64,
    crowd: Crowd,
) -> bool {
    match phase {
        Phase::Idle if crowd.crowded => seconds > options.idle_timeout_seconds / CROWDED_PART,
        Phase::Idle => seconds > options.idle_timeout_seconds,
        Phase::Head => seconds > options.header_timeout_seconds,
        Phase::Answering => false,
        Phase::Sending => seconds > crowd.part_of(options.write_timeout_seconds) + allowance,
    }
}
