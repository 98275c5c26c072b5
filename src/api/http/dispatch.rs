//! From a request to the handler of its path. No logic of its own.

use crate::api::http::answer::{Answer, AnswerBody};
use crate::api::http::context::Context;
use crate::api::http::route::{Call, Route, WhileStarting};
use crate::api::http::routes::Routes;
use crate::api::http::{health, origin};
use crate::runtime::Env;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

/// An answer, and whether the connection ends with it.
pub(super) struct Dispatched {
    pub(super) response: Response<AnswerBody>,
    pub(super) close: bool,
}

/// Answers a request and counts it.
pub(super) async fn dispatch<E: Env>(context: &Context<E>, request: Request<Incoming>) -> Dispatched {
    let started = context.env.now();
    let (head, body) = request.into_parts();
    let (place, route) = Routes::of(head.uri.path());
    let is_probe = route.is_some_and(|route| route.is_probe);
    let refusal = origin::refuse(&head.method, &head.headers, &context.options.hosts);
    let mut call = Call::new(head, body);
    let answer = match refusal.filter(|_| !is_probe) {
        // What was not read of it goes with the connection.
        Some(refusal) => refusal.closing(),
        None => handle(context, route, &mut call).await,
    };
    let head = call.head;
    let answer = answer.counted(&context.budget);
    let micros = context.env.now().since(started);
    context.requests[place].observe(answer.status.as_u16(), micros);
    tracing::debug!(method = %head.method, path = head.uri.path(), code = answer.status.as_u16(), micros, "request");
    let close = answer.close;
    Dispatched { response: answer.into_response(head.headers), close }
}

async fn handle<E: Env>(context: &Context<E>, route: Option<&Route<E>>, call: &mut Call) -> Answer {
    let Some(route) = route else {
        return Answer::fixed(StatusCode::NOT_FOUND, "\"Not Found\"\n");
    };
    if !route.methods.contains(&call.head.method.as_str()) {
        return Answer::fixed(StatusCode::METHOD_NOT_ALLOWED, "\"Method Not Allowed\"\n")
            .allowing(route.methods);
    }
    if route.while_starting != WhileStarting::Answers && context.slot.get().is_none() {
        return health::starting(route.while_starting, context.metrics.disk_full.get() != 0);
    }
    (route.handler)(context, call).await
}
