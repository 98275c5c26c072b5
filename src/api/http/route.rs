//! From a request to the handler of its path. No logic of its own.

use crate::api::http::answer::{Answer, AnswerBody};
use crate::api::http::context::Context;
use crate::api::http::{get, health, help, join, origin, set, status};
use crate::runtime::{Env, Route};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};

/// An answer, and whether the connection ends with it.
pub(super) struct Dispatched {
    pub(super) response: Response<AnswerBody>,
    pub(super) close: bool,
}

/// Answers a request and counts it.
pub(super) async fn dispatch<E: Env>(context: &Context<E>, request: Request<Incoming>) -> Dispatched {
    let started = context.env.now();
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or("");
    let route = route_of(head.uri.path());
    // Probes reveal nothing worth a trick, and come under all kinds of names.
    let is_probe = matches!(route, Route::Live | Route::Ready);
    let refusal = origin::refuse(&head.method, &head.headers, &context.options.hosts);
    let answer = match refusal.filter(|_| !is_probe) {
        // What was not read of it goes with the connection.
        Some(refusal) => refusal.closing(),
        None => handle(context, route, &head, query, body).await,
    };
    let answer = answer.counted(&context.budget);
    let micros = context.env.now().since(started);
    context.metrics.requests.observe(route, answer.status.as_u16(), micros);
    tracing::debug!(method = %head.method, path = head.uri.path(), code = answer.status.as_u16(), micros, "request");
    let close = answer.close;
    Dispatched { response: answer.into_response(head.headers), close }
}

async fn handle<E: Env>(
    context: &Context<E>,
    route: Route,
    head: &Parts,
    query: &str,
    body: Incoming,
) -> Answer {
    match (route, methods(route, &head.method)) {
        (Route::Unknown, _) => Answer::fixed(StatusCode::NOT_FOUND, "\"Not Found\"\n"),
        (_, Err(allowed)) => {
            Answer::fixed(StatusCode::METHOD_NOT_ALLOWED, "\"Method Not Allowed\"\n").allowing(allowed)
        }
        (Route::Live, Ok(())) => health::live(),
        (Route::Help, Ok(())) => help::handle(),
        (_, Ok(())) if context.slot.get().is_none() => {
            health::starting(route, context.metrics.disk_full.get() != 0)
        }
        (Route::Set, Ok(())) => set::handle(context, body).await,
        (Route::Get, Ok(())) => get::handle(context, query).await,
        // Boxed: what is rare does not make the future of every request larger.
        (Route::Join, Ok(())) => Box::pin(join::handle(context, query)).await,
        (Route::Status, Ok(())) => Box::pin(status::handle(context)).await,
        (Route::Ready, Ok(())) => Box::pin(health::ready(context, query)).await,
        (Route::Metrics, Ok(())) => Box::pin(status::metrics(context)).await,
    }
}

fn route_of(path: &str) -> Route {
    match path {
        "/set" => Route::Set,
        "/get" => Route::Get,
        "/join" => Route::Join,
        "/v1/status" => Route::Status,
        "/livez" => Route::Live,
        "/readyz" => Route::Ready,
        "/metrics" => Route::Metrics,
        "/" => Route::Help,
        _ => Route::Unknown,
    }
}

/// Whether the route takes the method; if not, the methods that it takes.
fn methods(route: Route, method: &Method) -> Result<(), &'static str> {
    match route {
        Route::Set | Route::Join => (method == Method::POST).then_some(()).ok_or("POST"),
        _ => (method == Method::GET || method == Method::HEAD).then_some(()).ok_or("GET, HEAD"),
    }
}
