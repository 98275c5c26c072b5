//! What a route is.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::runtime::Env;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use std::pin::Pin;

/// The methods of a route that only reads.
pub(super) const GET: &[&str] = &["GET", "HEAD"];
/// The method of a route that does something.
pub(super) const POST: &[&str] = &["POST"];

/// One route: a row of the table in `routes`.
pub(super) struct Route<E: Env> {
    /// The path, to the letter. It is the route's name in the metrics, too.
    pub(super) path: &'static str,
    /// Methods that it takes. Any other is answered 405, with these in the header `allow`.
    pub(super) methods: &'static [&'static str],
    /// Answers a request. Where [`Self::while_starting`] is not `Answers`, the node has started.
    pub(super) handler: Handler<E>,
    /// A probe reveals nothing worth a trick, and is answered under any name of a host.
    pub(super) is_probe: bool,
    /// What is answered while the node loads its data.
    pub(super) while_starting: WhileStarting,
    /// What it is for, in one line.
    pub(super) about: &'static str,
    /// Commands to paste; `HOST` stands for the node.
    pub(super) examples: &'static [&'static str],
}

/// A function that answers a request.
///
/// Its future is boxed: what one route needs does not make the future of every connection larger.
pub(super) type Handler<E> = for<'a> fn(&'a Context<E>, &'a mut Call) -> Answering<'a>;

/// An answer to come.
pub(super) type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

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

/// A request.
pub(super) struct Call {
    pub(super) head: Parts,
    /// Until the handler takes it. One that no handler takes lives as long as the request.
    body: Option<Incoming>,
}

impl Call {
    pub(super) fn new(head: Parts, body: Incoming) -> Self {
        Self { head, body: Some(body) }
    }

    /// What stands behind `?`.
    pub(super) fn query(&self) -> &str {
        self.head.uri.query().unwrap_or("")
    }

    /// The body, for the handler.
    pub(super) fn take_body(&mut self) -> Incoming {
        self.body.take().expect("a handler takes the body once")
    }
}
