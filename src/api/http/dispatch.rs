//! From a request to the handler of its path. No logic of its own.

use crate::api::http::admission::{admit, admit_known, admit_probe};
use crate::api::http::answer::{Answer, AnswerBody, ServedBy, header_value};
use crate::api::http::body::let_come;
use crate::api::http::context::Context;
use crate::api::http::control::Control;
use crate::api::http::identify::{Looked, identify, not_looked_at, refusal};
use crate::api::http::not_taken::NotTaken;
use crate::api::http::remote_end::RemoteEnd;
use crate::api::http::route::{Call, Route, WhileStarting, is_versioned};
use crate::api::http::routes::Routes;
use crate::api::http::secured::caller;
use crate::api::http::v1::problem::Problem;
use crate::api::http::{health, origin};
use crate::node::NodeHandle;
use crate::runtime::Env;
use hyper::body::{Body, Incoming};
use hyper::header::EXPECT;
use hyper::{Request, Response, StatusCode, Version};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// An answer, and whether the connection ends with it.
pub(super) struct Dispatched {
    pub(super) response: Response<AnswerBody>,
    pub(super) close: bool,
}

/// Answers a request and counts it.
pub(super) async fn dispatch<E: Env>(
    context: &Arc<Context<E>>,
    (peer, control): (&Arc<RemoteEnd>, &Arc<Control>),
    request: Request<Incoming>,
) -> Dispatched {
    let started = context.env.now();
    let (head, body) = request.into_parts();
    let (place, matched) = Routes::of(head.uri.path());
    let is_probe = matched.as_ref().is_some_and(|(route, _)| route.is_probe);
    let has_problems =
        matched.as_ref().map_or(is_versioned(head.uri.path()), |(route, _)| route.has_problems());
    let refusal = origin::refuse(&head, &context.options.hosts).filter(|_| !is_probe);
    let operation = matched.as_ref().and_then(|(route, _)| route.operation(head.method.as_str()));
    let is_write = operation.is_some_and(|one| one.while_starting == WhileStarting::RefusesWrite);
    let mut call = Call::new(head, body, (control.clone(), peer.clone()));
    let answer = match refusal {
        // What was not read of it goes with the connection.
        Some(refusal) if has_problems => refusal.problem().closing(),
        Some(refusal) => refusal.answer().closing(),
        None if is_probe => match admit_probe(context, peer, started).await {
            Ok(()) => handle(context, matched, &mut call).await,
            Err(not_taken) => refuse(not_taken, &call, has_problems, is_write),
        },
        None => match admit(context, peer, started).await {
            Ok(place) => {
                call.place = Some(place);
                handle(context, matched, &mut call).await
            }
            Err(not_taken) => refuse(not_taken, &call, has_problems, is_write),
        },
    };
    let mut answer = answer;
    if let Some(body) = call.take_unread().filter(|body| !body.is_end_stream()) {
        let is_http2 = call.head.version == Version::HTTP_2;
        // A client that waits until it is asked for its body need not send it.
        let is_wanted = is_http2 || !(answer.close || call.head.headers.contains_key(EXPECT));
        call.place = None;
        // What is not read of it goes with the connection.
        answer.close |= !(is_wanted && let_come(&context.env, body).await);
    }
    let is_known = call.is_known();
    control.is_known.store(is_known, Ordering::Relaxed);
    let head = call.head;
    let closes = answer.close;
    answer = answer.counted((&context.budget, &peer.account), || match (has_problems, is_write) {
        (false, _) => Answer::no_room(),
        (true, false) => Problem::no_room().answer(),
        // It was carried out, and the answer is lost.
        (true, true) => Problem::no_room().of_unknown_outcome().answer(),
    });
    // Once the cluster is not open, a caller without a name is told nothing of the node.
    if has_problems
        && let Some(facts) = context.started().map(NodeHandle::facts)
        && (is_known || facts.is_open())
    {
        let (term, revision) = (facts.term(), facts.revision());
        answer = answer.by(ServedBy { name: header_value(&facts.name), term, revision });
    }
    let micros = context.env.now().since(started);
    context.requests[place].observe(answer.status.as_u16(), micros);
    // The path has a key in it.
    let route = context.requests[place].name();
    let caller = caller(&head).map(|certificate| certificate.name.as_str());
    tracing::debug!(method = %head.method, route, code = answer.status.as_u16(), micros, caller, "request");
    // A stream of HTTP/2 ends by itself.
    answer.close = (answer.close || closes) && head.version != Version::HTTP_2;
    let close = answer.close;
    Dispatched { response: answer.into_response(head.headers), close }
}

async fn handle<E: Env>(
    context: &Arc<Context<E>>,
    matched: Option<(&Route<E>, Option<Range<usize>>)>,
    call: &mut Call,
) -> Answer {
    let Some((route, variable)) = matched else {
        if is_versioned(call.head.uri.path()) {
            let detail = "there is no such route; GET / lists them, and /openapi.json describes them";
            return Problem::new(StatusCode::NOT_FOUND, "no-such-route", detail).answer();
        }
        return Answer::fixed(StatusCode::NOT_FOUND, "\"Not Found\"\n");
    };
    let Some(operation) = route.operation(call.head.method.as_str()) else {
        let allowed = route.allowed();
        let answer = if route.has_problems() {
            let detail = format!("this route takes {allowed}");
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail).answer()
        } else {
            Answer::fixed(StatusCode::METHOD_NOT_ALLOWED, "\"Method Not Allowed\"\n")
        };
        return answer.allowing(allowed);
    };
    if operation.while_starting != WhileStarting::Answers && context.started().is_none() {
        let repairing = context.metrics.repair.in_words();
        if route.has_problems() {
            let loading = "this node is starting: it is loading its data; try again soon";
            let detail = repairing.unwrap_or_else(|| loading.to_owned());
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting", detail).closing();
            let is_write = operation.while_starting == WhileStarting::RefusesWrite;
            return if is_write { problem.not_applied() } else { problem }.answer();
        }
        return health::starting(operation.while_starting, context.metrics.disk_full.get() != 0, repairing);
    }
    let is_write = operation.while_starting == WhileStarting::RefusesWrite;
    let mut looked = Looked::At;
    if operation.while_starting != WhileStarting::Answers {
        looked = match identify(context, operation.needs, call).await {
            Ok(looked) => looked,
            Err(error) => return refusal(error, route.has_problems(), is_write),
        };
        if !route.is_probe
            && let Err(not_taken) = admit_known(context, call).await
        {
            return refuse(not_taken, call, route.has_problems(), is_write);
        }
    }
    call.variable = variable;
    let answer = (operation.handler)(context, call).await;
    if looked == Looked::Past && answer.status == StatusCode::UNAUTHORIZED {
        let error = not_looked_at();
        let error = if answer.is_of_unknown_outcome { error.of_unknown_outcome() } else { error };
        return refusal(error, route.has_problems(), is_write);
    }
    answer
}

/// In the words of the route.
fn refuse(not_taken: NotTaken, call: &Call, has_problems: bool, is_write: bool) -> Answer {
    let answer = if has_problems {
        let problem = Problem::from(not_taken);
        if is_write { problem.not_applied() } else { problem }.answer()
    } else {
        not_taken.answer(is_write)
    };
    // What was not read of it goes with the connection.
    if call.is_read() { answer } else { answer.closing() }
}
