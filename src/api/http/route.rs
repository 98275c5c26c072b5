//! What a route is.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::api::http::control::Control;
use crate::api::http::remote_end::RemoteEnd;
use crate::api::http::turns::TurnPlace;
use crate::api::service::{Asker, Service};
use crate::kv::AdminRight;
use crate::runtime::Env;
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

/// One route: a row of the table in `routes`.
pub(super) struct Route<E: Env> {
    /// The path, to the letter. `{name}` stands for one segment; at the end, after `/v1/kv/` and
    /// the like, for all the rest ([`Self::rest`]). It is the route's name in the metrics, too.
    pub(super) path: &'static str,
    /// Whether a `{name}` at the end takes slashes too.
    pub(super) rest: bool,
    /// What it does. Any other method is answered 405, with these in the header `allow`.
    pub(super) operations: &'static [Operation<E>],
    /// A probe reveals nothing worth a trick, and is answered under any name of a host.
    pub(super) is_probe: bool,
}

/// What one method of a route does.
pub(super) struct Operation<E: Env> {
    /// `GET` answers `HEAD` too.
    pub(super) method: &'static str,
    /// Answers a request. Where [`Self::while_starting`] is not `Answers`, the node has started.
    pub(super) handler: Handler<E>,
    /// What is answered while the node loads its data.
    pub(super) while_starting: WhileStarting,
    /// What the caller needs, once the cluster is not open any more.
    pub(super) needs: Needs,
    /// What it is for, in one line.
    pub(super) about: &'static str,
    /// Its name in `/openapi.json`, which clients are generated from; empty: it is not in there.
    pub(super) id: &'static str,
    /// The parameters of its query. `None`: those that are not known are passed over, as the
    /// original does.
    pub(super) parameters: Option<&'static [Parameter]>,
    /// Headers that it looks at.
    pub(super) headers: &'static [&'static str],
    /// What it takes.
    pub(super) body: BodyKind,
    /// What it answers when it succeeds.
    pub(super) success: BodyKind,
    /// Commands to paste; `HOST` stands for the node.
    pub(super) examples: &'static [&'static str],
}

/// A parameter of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: ParameterKind,
    pub(super) about: &'static str,
}

/// How a parameter is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParameterKind {
    /// Any bytes, percent-encoded.
    Bytes,
    /// Base64.
    Base64,
    /// A whole number, not negative.
    Number,
    /// A whole number.
    Signed,
    /// `10s`, `500ms`, `2m`, `1h`, or seconds.
    Duration,
    /// There, or not.
    Flag,
    /// `linearizable` or `local`.
    Level,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    None,
    Raw,
    Json,
    Text,
    Events,
}

/// A function that answers a request.
///
/// Its future is boxed: what one route needs does not make the future of every connection larger.
pub(super) type Handler<E> = for<'a> fn(&'a Arc<Context<E>>, &'a mut Call) -> Answering<'a>;

/// An answer to come.
pub(super) type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// What a request needs, once the cluster is not open any more. This is what is documented, and
/// tested: the service and the store judge each request, whatever stands here. Where it says that
/// credentials are needed, a request without them is refused before its body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing.
    Nothing,
    /// Nothing for whether the node lives and is ready; credentials for the rest.
    CredentialsForAll,
    /// Credentials of anybody.
    Credentials,
    /// Rights to the keys that it reads and writes.
    Keys,
    /// A right to administer.
    Right(AdminRight),
}

/// What a route answers while the node loads its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhileStarting {
    /// The same as ever: it needs no node.
    Answers,
    /// That the node is not ready, and why.
    NotReady,
    /// 503.
    Refuses,
    /// 503, and that the write has not happened.
    RefusesWrite,
}

impl<E: Env> Route<E> {
    /// Whether `path` is this route's, and where in it that stands which the route has a `{name}`
    /// for.
    pub(super) fn matches(&self, path: &str) -> Option<Option<Range<usize>>> {
        let Some((before, variable)) = self.path.split_once('{') else {
            return (path == self.path).then_some(None);
        };
        let after = variable.split_once('}').map_or("", |(_, after)| after);
        let found = path.strip_prefix(before)?.strip_suffix(after)?;
        (self.rest || !found.contains('/')).then(|| Some(before.len()..before.len() + found.len()))
    }

    /// What it does for a method.
    pub(super) fn operation(&self, method: &str) -> Option<&'static Operation<E>> {
        let operation = if method == "HEAD" { "GET" } else { method };
        self.operations.iter().find(|one| one.method == operation)
    }

    /// The header `allow`.
    pub(super) fn allowed(&self) -> String {
        let names = self.operations.iter().flat_map(|one| match one.method {
            "GET" => ["GET", "HEAD"].as_slice(),
            _ => std::slice::from_ref(&one.method),
        });
        names.copied().collect::<Vec<_>>().join(", ")
    }

    /// Whether its errors are problems (RFC 9457).
    pub(super) fn has_problems(&self) -> bool {
        is_versioned(self.path)
    }
}

/// Whether a path is one of the versioned API.
pub(super) fn is_versioned(path: &str) -> bool {
    path.starts_with("/v1/")
}

/// A request.
pub(super) struct Call {
    pub(super) head: Parts,
    /// Until the handler takes it. One that no handler takes lives as long as the request.
    body: Option<Incoming>,
    /// Where, in the path, that stands which the route has a `{name}` for.
    pub(super) variable: Option<Range<usize>>,
    /// The caller.
    pub(super) asker: Asker,
    /// The connection, or the stream of HTTP/2.
    control: Arc<Control>,
    /// The other end of the connection.
    pub(super) peer: Arc<RemoteEnd>,
    /// Its place among the requests under way.
    pub(super) place: Option<TurnPlace>,
}

impl Call {
    pub(super) fn new(head: Parts, body: Incoming, (control, peer): (Arc<Control>, Arc<RemoteEnd>)) -> Self {
        Self { head, body: Some(body), variable: None, asker: Asker::default(), control, peer, place: None }
    }

    /// The answer waits for something to happen. From now on a client that closes its side is gone,
    /// and the handler with it. It makes
    /// no work meanwhile.
    pub(super) fn watch_client(&mut self) {
        self.place = None;
        self.control.watch_client();
    }

    /// Whether the caller has shown who it is.
    pub(super) fn is_known(&self) -> bool {
        self.asker.who.as_ref().is_some_and(|who| who.by.is_some())
    }

    /// What stands behind `?`.
    pub(super) fn query(&self) -> &str {
        self.head.uri.query().unwrap_or("")
    }

    /// What stands in the path for the route's `{name}`, percent-encoded as it came.
    pub(super) fn variable(&self) -> &str {
        self.variable.clone().and_then(|place| self.head.uri.path().get(place)).unwrap_or("")
    }

    /// A header's value, if it is there.
    pub(super) fn header(&self, name: &str) -> Option<&[u8]> {
        self.head.headers.get(name).map(|value| value.as_bytes())
    }

    /// Whether the client has sent all of it.
    pub(super) fn is_read(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    /// The body, if no handler took it.
    pub(super) fn take_unread(&mut self) -> Option<Incoming> {
        self.body.take()
    }

    /// The body, for the handler.
    pub(super) fn take_body(&mut self) -> Incoming {
        self.body.take().expect("a handler takes the body once")
    }
}

/// The service, as this request uses it.
pub(super) fn service<'c, E: Env>(context: &'c Context<E>, call: &Call) -> Service<'c, E> {
    Service::new(&context.env, context.node(), call.asker.clone())
}
