//! One key: `PUT`, `GET`, `HEAD` and `DELETE /v1/kv/{key}`, and `POST /v1/incr/{key}`.

use crate::api::http::answer::Answer;
use crate::api::http::budget::MemoryUse;
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::conditions;
use crate::api::http::v1::input::{self, Freshness, service_call};
use crate::api::http::v1::json::{Json, KEY_VALUE_BYTES};
use crate::api::http::v1::parameters::Parameters;
use crate::api::http::v1::problem::Problem;
use crate::api::http::v1::questions;
use crate::api::service::{Condition, LeaseChoice, PutCall, ServiceError, condition_failed, strange};
use crate::kv::{ChangesQuery, KeyRange, KeyValue, Op, Outcome, Query, Revision};
use crate::replica::Level;
use crate::runtime::Env;
use bytes::Bytes;
use hyper::StatusCode;
use std::sync::Arc;

/// A client waits for a change of a key at most this long, microseconds.
const WAIT_MICROS_MAX: u64 = 600_000_000;

/// Sets a key.
pub(super) async fn put<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let key = input::key(call, &parameters)?;
    input::refuse_with(&parameters, "ttl", &["lease"])?;
    let lease = match (
        input::ttl(&parameters, "leave it out for a key that does not end")?,
        parameters.lease("lease")?,
    ) {
        (Some(ttl_seconds), _) => LeaseChoice::New(ttl_seconds),
        (None, Some(lease)) => LeaseChoice::Given(lease),
        (None, None) => LeaseChoice::None,
    };
    let condition = conditions::of(call)?;
    let (value, _held) = input::value_body(context, call).await?;
    let wanted = PutCall { key, value, lease, condition };
    let done = service(context, call).put(&service_call(call)?, wanted).await?;
    let mut json = Json::object();
    json.number("revision", done.revision.0).number("version", done.version);
    if let Some((lease, ttl_seconds)) = done.granted {
        json.number("lease", lease.0).number("ttl", ttl_seconds);
    }
    Ok(Answer::json(StatusCode::OK, json.end_line()).tagged(done.revision).at(done.revision))
}

/// Removes a key.
pub(super) async fn delete<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let key = input::key(call, &parameters)?;
    let condition = conditions::of(call)?;
    let done = service(context, call).delete(&service_call(call)?, key, condition).await?;
    let mut json = Json::object();
    json.number("revision", done.revision.0).number("deleted", done.count);
    Ok(Answer::json(StatusCode::OK, json.end_line()).at(done.revision))
}

/// Reads a key, or waits until it changes.
pub(super) async fn get<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let key = input::key(call, &parameters)?;
    let condition = conditions::of(call)?;
    let level = parameters.level()?;
    let (wait, after) = (parameters.duration("wait")?, parameters.revision("after")?);
    let at = parameters.revision("at")?;
    input::refuse_with(&parameters, "at", &["wait", "after"])?;
    if after.is_some() && wait.is_none() {
        return Err(Problem::bad("missing-parameter", "after goes with wait: how long to wait for a change"));
    }
    // A poll with `after` is answered from what is here, however old that is.
    let is_proven = after.is_none() || level == Level::Linearizable;
    let freshness = Freshness::of(context, if is_proven { level } else { Level::Local });
    let mut after = after;
    if let (Some(_), None, Some(condition)) = (wait, after, condition) {
        // A client that shows the ETag of what it has is answered at once if something else is
        // there.
        let (revision, found) = service(context, call).get(key.clone(), at, level).await?;
        let has = |known| found.as_ref().is_some_and(|found| found.mod_revision == known);
        if !matches!(condition, Condition::IsNot(known) if has(known)) {
            return answer(context, call, (revision, found), Some(condition));
        }
        after = Some(revision);
    }
    let (revision, found) = match wait {
        None => service(context, call).get(key, at, level).await?,
        Some(wait) => {
            let micros = wait.min(WAIT_MICROS_MAX);
            call.watch_client();
            let changed = tokio::select! {
                biased;
                changed = changed(context, call, &key, (after, level, micros)) => changed?,
                () = context.until_stopping() => return Err(ServiceError::stopping().into()),
            };
            match changed {
                Ok(changed) => changed,
                Err(revision) => return Ok(Answer::empty(StatusCode::NOT_MODIFIED).at(revision)),
            }
        }
    };
    Ok(freshness.told(context, answer(context, call, (revision, found), condition)?))
}

/// Waits for the key's next change after a revision: what it is then. `Err`: it has not changed up
/// to that revision.
async fn changed<E: Env>(
    context: &Arc<Context<E>>,
    call: &Call,
    key: &Bytes,
    (after, level, micros): (Option<Revision>, Level, u64),
) -> Result<Result<(Revision, Option<KeyValue>), Revision>, Problem> {
    let after = match after {
        Some(after) => after,
        // From now on.
        None => service(context, call).read(Query::Settings, level).await?.revision,
    };
    let range = KeyRange::one(key.clone());
    let deadline = context.env.now().plus(micros);
    let mut from = after.next();
    loop {
        // What is there when this is asked is looked at before it is said that nothing has changed.
        let newest = context.node().facts().revision();
        let query = ChangesQuery { range: range.clone(), from, puts: true, deletions: true, previous: false };
        let left = deadline.since(context.env.now());
        let changes = questions::ask_for(context, call, query, left).await?;
        if let Some(last) = changes.revisions.last() {
            let now = last.events.last().and_then(|event| event.now.clone());
            return Ok(Ok((last.revision, now)));
        }
        // One answer looks at so much of the history, and the change may be further on.
        if context.env.now() >= deadline && changes.next > newest {
            return Ok(Err(Revision(changes.next.0.saturating_sub(1))));
        }
        from = changes.next;
    }
}

fn answer<E: Env>(
    context: &Arc<Context<E>>,
    call: &Call,
    (revision, found): (Revision, Option<KeyValue>),
    condition: Option<Condition>,
) -> Result<Answer, Problem> {
    match condition {
        Some(condition) if condition.holds(found.as_ref()) => {}
        Some(Condition::IsMissing | Condition::IsNot(_)) if found.is_some() => {
            let tag = found.map_or(Revision(0), |found| found.mod_revision);
            return Ok(Answer::empty(StatusCode::NOT_MODIFIED).tagged(tag).at(revision).varying());
        }
        Some(_) => return Err(condition_failed(revision, found).into()),
        None => {}
    }
    let Some(found) = found else {
        let problem = Problem::new(StatusCode::NOT_FOUND, "key-not-found", "the key does not exist");
        return Ok(problem.answer().at(revision));
    };
    // Before the work, so that a refusal costs little.
    let is_json = input::wants_json(call);
    let bytes = if is_json { Json::bytes_of(&found.value) } else { found.value.len() };
    if !context.budget.has_room(&call.peer.account, MemoryUse::Answer, bytes) {
        return Err(Problem::no_room());
    }
    let answer = if is_json {
        let mut json = Json::reserving(bytes + Json::bytes_of(&found.key) + KEY_VALUE_BYTES);
        json.bytes("key", "key64", &found.key).bytes("value", "value64", &found.value).numbers(&found);
        Answer::json(StatusCode::OK, json.end_line())
    } else {
        let answer = Answer::raw(found.value.clone())
            .with_number("infinitystore-create-revision", found.create_revision.0)
            .with_number("infinitystore-version", found.version);
        if found.lease.is_none() { answer } else { answer.with_number("infinitystore-lease", found.lease.0) }
    };
    Ok(answer.tagged(found.mod_revision).at(revision).varying())
}

/// Adds to a number.
pub(super) async fn increment<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let key = input::key(call, &parameters)?;
    let by = parameters.signed("by")?.unwrap_or(1);
    match service(context, call).write(&service_call(call)?, Op::Increment { key, by }).await? {
        Outcome::Incremented { revision, version, value } => {
            let mut json = Json::object();
            json.number("revision", revision.0).number("version", version).signed("value", value);
            Ok(Answer::json(StatusCode::OK, json.end_line()).tagged(revision).at(revision))
        }
        other => Err(strange(&other).into()),
    }
}
