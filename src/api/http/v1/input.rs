//! What handlers take out of a request.

use crate::api::http::answer::Answer;
use crate::api::http::body;
use crate::api::http::budget::MemoryReservation;
use crate::api::http::context::Context;
use crate::api::http::route::Call;
use crate::api::http::v1::object::parse_json;
use crate::api::http::v1::parameters::{Parameters, conflict, decode};
use crate::api::http::v1::problem::Problem;
use crate::api::service;
use crate::codec::COUNTER_MAX;
use crate::kv::{KEY_BYTES_MAX, Revision, VALUE_BYTES_MAX};
use crate::raft::Time;
use crate::replica::Level;
use crate::runtime::Env;
use bytes::Bytes;
use hyper::StatusCode;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::sync::Arc;

/// A JSON body of a small request is at most this long.
pub(super) const SMALL_BODY_BYTES_MAX: usize = 64 << 10;

/// Answers a read.
pub(super) async fn read(answer: impl Future<Output = Result<Answer, Problem>>) -> Answer {
    answer.await.unwrap_or_else(Problem::answer)
}

/// Answers a write: what is refused before it was tried has not happened.
pub(super) async fn write(answer: impl Future<Output = Result<Answer, Problem>>) -> Answer {
    answer.await.unwrap_or_else(|problem| problem.not_applied().answer())
}

/// How the service is called.
pub(super) fn service_call(call: &Call) -> Result<service::Call, Problem> {
    let idempotency_key = call.header("idempotency-key").map(Bytes::copy_from_slice);
    let Some(since) = call.header("idempotency-since") else {
        return Ok(service::Call { idempotency_key, since: None });
    };
    let bad = |detail: &'static str| Problem::bad("bad-idempotency-since", detail);
    if idempotency_key.is_none() {
        return Err(bad("Idempotency-Since goes with an Idempotency-Key"));
    }
    match number_of(since).filter(|number| *number <= COUNTER_MAX) {
        Some(number) => Ok(service::Call { idempotency_key, since: Some(Revision(number)) }),
        None => Err(bad(
            "Idempotency-Since is a revision of the store: a whole number, as infinitystore-revision has it",
        )),
    }
}

/// Decimal digits, and nothing else.
fn number_of(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

/// How old what a request reads may be, by what was known when it began to read. The state goes on
/// meanwhile, and so may what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freshness {
    level: Level,
    /// When this node's state was that of a leader.
    known: Option<Time>,
    /// The node serves the read only if its state is at least as new; `None`: however old it is.
    bound: Option<Time>,
}

impl Freshness {
    /// To be taken before the read.
    pub(super) fn of<E: Env>(context: &Arc<Context<E>>, level: Level) -> Self {
        let bound = match level {
            Level::Fresh { max_staleness_micros } => {
                Some(Time::new(context.env.now().get().saturating_sub(max_staleness_micros)))
            }
            Level::Linearizable | Level::Local => None,
        };
        Self { level, known: context.node().facts().fresh_at(), bound }
    }

    /// Whether this node's state is as new as the level wants it.
    pub(super) fn suffices(self) -> bool {
        self.known >= self.bound
    }

    /// With how old what is served may be, if it is what this node has.
    pub(super) fn told<E: Env>(self, context: &Arc<Context<E>>, answer: Answer) -> Answer {
        match (self.level, self.known.max(self.bound)) {
            (Level::Linearizable, _) | (_, None) => answer,
            (_, Some(at)) => {
                let micros = context.env.now().since(at);
                answer.with_number("infinitystore-age-ms", micros.div_ceil(1000))
            }
        }
    }
}

/// What stands in the path for the route's `{name}`, decoded.
pub(super) fn path_variable(call: &Call) -> Result<Bytes, Problem> {
    let decoded = decode(call.variable(), false).ok_or_else(|| {
        Problem::bad("bad-encoding", "the path is not percent-encoded; write each % as %25".to_owned())
    })?;
    Ok(Bytes::from(decoded))
}

/// A lease's time to live, seconds. One of 0 is no wish for a lease that ends at once: it is most
/// often meant for one that never ends. `code` and `otherwise` are of the route.
pub(super) fn time_to_live(
    seconds: u64,
    (code, otherwise): (&'static str, &'static str),
) -> Result<u64, Problem> {
    if seconds == 0 {
        return Err(Problem::bad(code, format!("ttl is 0, and a lease lives for 2 s at least; {otherwise}")));
    }
    Ok(seconds)
}

/// The parameter `ttl` of a request, seconds; `otherwise` is what is to be done instead of a 0.
pub(super) fn ttl(parameters: &Parameters, otherwise: &'static str) -> Result<Option<u64>, Problem> {
    let given = parameters.seconds("ttl")?;
    given.map(|seconds| time_to_live(seconds, ("bad-parameter", otherwise))).transpose()
}

/// The key of a request: the rest of its path, or a parameter.
pub(super) fn key(call: &Call, parameters: &Parameters) -> Result<Bytes, Problem> {
    if call.variable.is_some() {
        return checked_key(path_variable(call)?);
    }
    match parameters.bytes("key", "key64")? {
        Some(key) => checked_key(key),
        None => Err(empty_key()),
    }
}

fn checked_key(key: Bytes) -> Result<Bytes, Problem> {
    if key.is_empty() {
        return Err(empty_key());
    }
    if key.len() > KEY_BYTES_MAX {
        let detail = format!("a key is {} bytes long; the limit is {KEY_BYTES_MAX}", key.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "key-too-large", detail));
    }
    Ok(key)
}

fn empty_key() -> Problem {
    let detail = "the key is empty: it stands behind /v1/kv/, or in key= or key64=; to list keys, ask for /v1/kv?prefix=";
    Problem::bad("empty-key", detail)
}

/// Refuses parameters that go with others only.
pub(super) fn refuse_with(
    parameters: &Parameters,
    one: &'static str,
    others: &[&'static str],
) -> Result<(), Problem> {
    match others.iter().find(|other| parameters.has(other)) {
        Some(other) if parameters.has(one) => Err(conflict(&[one, other])),
        _ => Ok(()),
    }
}

/// The body, as it is, of at most `limit` bytes.
pub(super) async fn raw_body<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    limit: usize,
) -> Result<(Bytes, MemoryReservation), Problem> {
    if let Some(encoding) = call.header("content-encoding")
        && !encoding.eq_ignore_ascii_case(b"identity")
    {
        let detail = "the body has a content-encoding; send it as it is";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "unsupported-encoding", detail).closing());
    }
    Ok(body::read(context, call, limit).await?)
}

/// The body as a value.
pub(super) async fn value_body<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
) -> Result<(Bytes, MemoryReservation), Problem> {
    raw_body(context, call, VALUE_BYTES_MAX).await.map_err(|problem| match problem.code {
        "body-too-large" => {
            let detail = format!("the value is larger than {VALUE_BYTES_MAX} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "value-too-large", detail).closing()
        }
        _ => problem,
    })
}

/// The body as JSON.
pub(super) async fn json_body<E: Env, T: DeserializeOwned>(
    context: &Arc<Context<E>>,
    call: &mut Call,
) -> Result<T, Problem> {
    let (body, _held) = raw_body(context, call, SMALL_BODY_BYTES_MAX).await?;
    parse_json(&body)
}

/// The same, of something secret: what is wrong with it is told without quoting it.
pub(super) async fn secret_body<E: Env, T: DeserializeOwned>(
    context: &Arc<Context<E>>,
    call: &mut Call,
) -> Result<T, Problem> {
    json_body(context, call).await.map_err(|problem| match problem.code {
        "bad-json" | "bad-field" => Problem::bad(
            problem.code,
            "the body is not the JSON object that this route takes; see docs/api/auth.md",
        ),
        _ => problem,
    })
}

/// Whether the client wants JSON, and not the value as it is.
pub(super) fn wants_json(call: &Call) -> bool {
    call.header("accept").is_some_and(|accept| {
        let accept = String::from_utf8_lossy(accept);
        accept.split(',').any(|kind| {
            let kind = kind.split(';').next().unwrap_or("").trim();
            kind.eq_ignore_ascii_case("application/json")
        })
    })
}
