//! `GET /v1/watch`: changes as they happen, as server-sent events.
//!
//! A watch is a chain of questions, each from where the answer before ended. Between two of them
//! nothing is kept for it but the revision where it goes on. So a client that does not read costs
//! one page, and no more however much changes meanwhile: what it misses is read from history when
//! it goes on, or it is told that this is gone.

use crate::api::http::account::Account;
use crate::api::http::answer::{Answer, Content};
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::stream::EventStream;
use crate::api::http::v1::json::Json;
use crate::api::http::v1::page_cache::{Counted, TakenPage};
use crate::api::http::v1::pages::message;
use crate::api::http::v1::parameters::{Parameters, conflict};
use crate::api::http::v1::problem::Problem;
use crate::api::http::v1::questions::PROGRESS_MICROS;
use crate::api::http::v1::range;
use crate::api::service::{Asker, ErrorCode, ServiceError};
use crate::codec::COUNTER_MAX;
use crate::kv::{ChangesQuery, KeyRange, Query, Revision};
use crate::raft::Time;
use crate::replica::Level;
use crate::runtime::Env;
use bytes::Bytes;
use hyper::Method;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

/// After a failure that passes by itself, nothing is asked for this time.
const PAUSE_MICROS: u64 = 250_000;

/// Begins to watch.
pub(super) async fn handle<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let query = wanted(call, &parameters)?;
    service(context, call).check_watch(&query.range)?;
    if call.head.method == Method::HEAD {
        return Ok(Answer::streaming(Content::Events, None));
    }
    let from = match query.from {
        Revision(0) => {
            service(context, call).read(Query::Settings, Level::Linearizable).await?.revision.next()
        }
        from => from,
    };
    let watcher = Watcher {
        context: context.clone(),
        query: ChangesQuery { from, ..query },
        asker: call.asker.clone(),
        account: call.peer.account.clone(),
        state: State::New,
        page: None,
        last: None,
        _counted: context.pages.count(),
    };
    let stream = Events { context: context.clone(), watcher: Some(Box::new(watcher)), coming: None };
    Ok(Answer::streaming(Content::Events, Some(Box::new(stream))))
}

/// What is asked for; from revision 0 stands for "from now on".
fn wanted(call: &Call, parameters: &Parameters) -> Result<ChangesQuery, Problem> {
    let range = match (parameters.bytes("key", "key64")?, parameters.range()?) {
        (Some(_), Some(_)) => return Err(conflict(&["key", "a range"])),
        (Some(key), None) if key.is_empty() => {
            return Err(Problem::bad("empty-key", "the key is empty; to watch all keys, leave it out"));
        }
        (Some(key), None) => KeyRange::one(key),
        (None, Some(range)) => range,
        (None, None) => KeyRange::all(),
    };
    range::check(&range)?;
    let (puts_only, deletes_only) = (parameters.flag("puts_only")?, parameters.flag("deletes_only")?);
    if puts_only && deletes_only {
        return Err(conflict(&["puts_only", "deletes_only"]));
    }
    // A browser that comes again asks for the same, and says what it had.
    let from = match call.header("last-event-id") {
        Some(id) => {
            let id = std::str::from_utf8(id).ok().and_then(|id| id.trim().parse::<u64>().ok());
            let bad = || Problem::bad("bad-event-id", "Last-Event-ID is no id of an event: a revision");
            Revision(id.filter(|id| *id <= COUNTER_MAX).ok_or_else(bad)?).next()
        }
        None => match parameters.revision("from")? {
            Some(from) => from.max(Revision(1)),
            None => Revision(0),
        },
    };
    Ok(ChangesQuery {
        range,
        from,
        puts: !deletes_only,
        deletions: !puts_only,
        previous: parameters.flag("previous")?,
    })
}

/// A client that watches.
struct Watcher<E: Env> {
    context: Arc<Context<E>>,
    /// What it asks for next.
    query: ChangesQuery,
    asker: Asker,
    account: Arc<Account>,
    state: State,
    /// What it was given last, until it has taken it.
    page: Option<TakenPage>,
    /// When that came.
    last: Option<Time>,
    _counted: Counted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Watching,
    Ended,
}

impl<E: Env> Watcher<E> {
    /// How far it has come. Never further than this node: one that begins in the future hears a
    /// comment until then, which keeps the connection alive.
    fn progress(&self) -> Bytes {
        let done = Revision(self.query.from.0.saturating_sub(1));
        if self.context.slot.get().is_some_and(|node| done <= node.facts().revision()) {
            Bytes::from(progress(done))
        } else {
            Bytes::from_static(b": waiting\n\n")
        }
    }

    /// What is sent next.
    async fn next(&mut self) -> Option<Bytes> {
        self.page = None;
        match self.state {
            State::Ended => return None,
            State::New => {
                // So that the client knows where it stands, and that it watches.
                self.state = State::Watching;
                return Some(self.progress());
            }
            State::Watching => {}
        }
        let context = self.context.clone();
        let began = context.env.now();
        loop {
            let caller = (&self.asker, &self.account);
            match context.pages.get(&context, caller, &self.query, self.last).await {
                Ok(taken) => {
                    let page = &taken.page;
                    self.query.from = page.next;
                    self.last = Some(page.at);
                    if page.bytes.is_empty() {
                        return Some(self.progress());
                    }
                    let bytes = page.bytes.clone();
                    self.page = Some(taken);
                    return Some(bytes);
                }
                Err(error) if error.is_passing() => {
                    context.env.sleep_until(context.env.now().plus(PAUSE_MICROS)).await;
                    if context.env.now().since(began) >= PROGRESS_MICROS {
                        // The client hears that this node is there, and where it stands.
                        return Some(self.progress());
                    }
                }
                Err(error) => {
                    self.state = State::Ended;
                    return Some(Bytes::from(last_message(&error)));
                }
            }
        }
    }
}

/// Everything up to this revision has been sent.
fn progress(revision: Revision) -> Vec<u8> {
    let mut json = Json::object();
    json.number("revision", revision.0);
    let mut out = Vec::new();
    message(&mut out, Some("progress"), Some(revision), &json.end());
    out
}

/// Why a watch ends, and where to go on.
fn last_message(error: &ServiceError) -> Vec<u8> {
    let mut json = Json::object();
    if let Some(revision) = error.revision {
        json.number("revision", revision.0);
    }
    let is_compacted = error.code == ErrorCode::Compacted && error.revision.is_some();
    let name = if is_compacted { "compacted" } else { "failed" };
    json.text("code", error.code.name()).text("detail", &error.detail);
    let mut out = Vec::new();
    message(&mut out, Some(name), None, &json.end());
    out
}

/// The body of a watch's answer.
struct Events<E: Env> {
    context: Arc<Context<E>>,
    /// Between two pieces.
    watcher: Option<Box<Watcher<E>>>,
    /// The piece to come.
    coming: Option<Coming<E>>,
}

/// Gives the watcher back with what it sends.
type Coming<E> = Pin<Box<dyn Future<Output = (Box<Watcher<E>>, Option<Bytes>)> + Send>>;

impl<E: Env> EventStream for Events<E> {
    /// It may end after any event: its client goes on from there.
    fn is_whole(&self) -> bool {
        true
    }

    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        if let Some(mut watcher) = self.watcher.take() {
            self.coming = Some(Box::pin(async move {
                let bytes = watcher.next().await;
                (watcher, bytes)
            }));
        }
        let Some(coming) = &mut self.coming else { return Poll::Ready(None) };
        let (watcher, bytes) = ready!(coming.as_mut().poll(cx));
        self.coming = None;
        self.watcher = Some(watcher);
        Poll::Ready(bytes)
    }

    fn ends_with_client(&self) -> bool {
        true
    }

    fn tick(&self) -> u32 {
        self.context.tick()
    }
}

impl<E: Env> fmt::Debug for Events<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
