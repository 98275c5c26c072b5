//! `/v1/leases`.

use crate::api::http::answer::Answer;
use crate::api::http::budget::MemoryUse;
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::input::{self, Freshness, service_call};
use crate::api::http::v1::json::Json;
use crate::api::http::v1::parameters::{Parameters, number_in_path};
use crate::api::http::v1::problem::Problem;
use crate::api::service::strange;
use crate::kv::{Found, LEASE_ID_CHOSEN_MIN, LeaseId, Op, Outcome, PAGE_KEYS_MAX, Query};
use crate::replica::{LeaseTime, Level};
use crate::runtime::Env;
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// Leases, or keys of a lease, in one answer, if the client does not say.
const LIMIT: u64 = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    ttl: u64,
    #[serde(default)]
    id: u64,
}

/// Makes a lease.
pub(super) async fn grant<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let GrantBody { ttl, id } = input::json_body(context, call).await?;
    let otherwise = "keys that are not to end are put without a lease";
    let ttl = input::time_to_live(ttl, ("bad-field", otherwise))?;
    if (1..LEASE_ID_CHOSEN_MIN).contains(&id) {
        let detail = format!(
            "ids below {LEASE_ID_CHOSEN_MIN} are the store's to choose, so that none comes twice; \
             choose a greater one, or 0"
        );
        return Err(Problem::bad("bad-parameter", detail));
    }
    let grant = Op::Grant { id: LeaseId(id), ttl_seconds: ttl };
    match service(context, call).write(&service_call(call)?, grant).await? {
        Outcome::Granted { id, ttl_seconds } => {
            let mut json = Json::object();
            json.number("id", id.0).number("ttl", ttl_seconds);
            Ok(Answer::json(StatusCode::OK, json.end_line()))
        }
        other => Err(strange(&other).into()),
    }
}

/// Lists the leases.
pub(super) async fn list<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let from = parameters.lease("from")?.unwrap_or(LeaseId::NONE);
    let limit = limit_of(&parameters)?;
    let query = Query::Leases(from, limit.saturating_add(1));
    let level = parameters.level()?;
    let freshness = Freshness::of(context, level);
    let answer = service(context, call).read(query, level).await?;
    let Found::Leases(mut leases) = answer.found else { return Err(strange(&answer.found).into()) };
    let next = leases.get(limit).map(|lease| lease.id);
    leases.truncate(limit);
    let mut json = Json::object();
    json.number("revision", answer.revision.0);
    json.list("leases", &leases, |json, lease| {
        json.within(*b"{}", |json| {
            json.number("id", lease.id.0).number("ttl", lease.ttl_seconds).number("keys", lease.keys);
        });
    });
    json.flag("more", next.is_some());
    if let Some(next) = next {
        json.number("next", next.0);
    }
    Ok(freshness.told(context, Answer::json(StatusCode::OK, json.end_line()).at(answer.revision)))
}

/// One lease: its time, and its keys.
pub(super) async fn get<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let id = id_of(call)?;
    let limit = limit_of(&parameters)?;
    let after = parameters.bytes("from", "from64")?.unwrap_or_default();
    let query = Query::LeaseKeys(id, after, limit);
    let answer = service(context, call).read(query, Level::Linearizable).await?;
    // Last: one that has ended meanwhile is told of as ended.
    let time = service(context, call).lease_time(id, false).await?;
    let Found::LeaseKeys { keys, next } = answer.found else { return Err(strange(&answer.found).into()) };
    let bytes = keys.iter().chain(&next).map(|key| 16 + Json::bytes_of(key)).sum();
    if !context.budget.has_room(&call.peer.account, MemoryUse::Answer, bytes) {
        return Err(Problem::no_room());
    }
    let mut json = Json::reserving(bytes + 128);
    write_time(&mut json, &time);
    json.number("count", time.keys).list("keys", &keys, |json, key: &Bytes| {
        json.key(key);
    });
    json.flag("more", next.is_some());
    if let Some(next) = next {
        json.bytes("next", "next64", &next);
    }
    Ok(Answer::json(StatusCode::OK, json.end_line()).at(answer.revision))
}

/// Its time begins anew.
pub(super) async fn keep_alive<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let time = service(context, call).lease_time(id_of(call)?, true).await?;
    let mut json = Json::object();
    write_time(&mut json, &time);
    Ok(Answer::json(StatusCode::OK, json.end_line()))
}

/// Ends it, and removes its keys.
pub(super) async fn revoke<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let id = id_of(call)?;
    match service(context, call).write(&service_call(call)?, Op::Revoke(id)).await? {
        Outcome::Revoked { revision, keys } => {
            let mut json = Json::object();
            json.number("revision", revision.0).number("deleted", keys);
            Ok(Answer::json(StatusCode::OK, json.end_line()).at(revision))
        }
        other => Err(strange(&other).into()),
    }
}

fn write_time(json: &mut Json, time: &LeaseTime) {
    json.number("id", time.id.0).number("ttl", time.ttl_seconds).seconds("left", time.left_micros);
}

fn id_of(call: &Call) -> Result<LeaseId, Problem> {
    number_in_path("the lease in the path", call.variable()).map(LeaseId)
}

fn limit_of(parameters: &Parameters) -> Result<usize, Problem> {
    match parameters.number("limit")?.unwrap_or(LIMIT) {
        limit if (1..PAGE_KEYS_MAX as u64).contains(&limit) => {
            Ok(usize::try_from(limit).unwrap_or(PAGE_KEYS_MAX))
        }
        _ => Err(Problem::bad("bad-parameter", format!("limit is from 1 to {}", PAGE_KEYS_MAX - 1))),
    }
}
