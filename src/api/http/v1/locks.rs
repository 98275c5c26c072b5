//! `/v1/locks/{name}` and `/v1/elections/{name}`.

use crate::api::http::answer::Answer;
use crate::api::http::budget::MemoryReservation;
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::input::{self, Freshness, service_call};
use crate::api::http::v1::json::Json;
use crate::api::http::v1::parameters::{Parameters, conflict};
use crate::api::http::v1::problem::Problem;
use crate::api::http::v1::questions::too_many;
use crate::api::service::{Candidacy, Contest, ContestKind, LeaseChoice, Service, ServiceError, Won};
use crate::kv::{Denial, KeyRange, LeaseId};
use crate::runtime::Env;
use hyper::StatusCode;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A lease's time, if the client does not say.
const TTL_SECONDS: u64 = 10;
/// A client waits for its turn at most this long, microseconds.
const WAIT_MICROS_MAX: u64 = 600_000_000;

/// Takes the lock, or wins the election. The body is the holder's value.
pub(super) async fn take<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    (kind, parameters): (ContestKind, Parameters),
) -> Result<Answer, Problem> {
    let contest = contest(kind, call)?;
    let lease = match (some_lease(&parameters)?, input::ttl(&parameters, "leave it out for 10 s")?) {
        (Some(_), Some(_)) => return Err(conflict(&["ttl", "lease"])),
        (Some(lease), None) => LeaseChoice::Given(lease),
        (None, ttl_seconds) => LeaseChoice::New(ttl_seconds.unwrap_or(TTL_SECONDS)),
    };
    let stays = parameters.flag("stay")?;
    if stays && matches!(lease, LeaseChoice::New(_)) {
        let detail = "stay goes with lease: nobody else would renew a new one";
        return Err(Problem::bad("missing-parameter", detail));
    }
    let wait = parameters.duration("wait")?.unwrap_or(0).min(WAIT_MICROS_MAX);
    let (value, held) = input::value_body(context, call).await?;
    let deadline = context.env.now().plus(wait);
    let mut waiting = None;
    if wait > 0 {
        call.watch_client();
        let range = KeyRange::one(contest.key(LeaseId::NONE));
        let room = context.questions.reserve_question(&call.peer.account, &range);
        waiting = Some(room.ok_or_else(too_many)?);
    }
    let candidacy = Candidacy { lease, value, deadline, stays };
    let won = stand(context, call, contest.clone(), candidacy, (held, waiting)).await?;
    let mut json = Json::object();
    json.number("lease", won.lease.0).number("fence", won.fence.0);
    if let Some(ttl_seconds) = won.ttl_seconds {
        json.number("ttl", ttl_seconds);
    }
    json.bytes("key", "key64", &contest.key(won.lease));
    Ok(Answer::json(StatusCode::OK, json.end_line()))
}

/// Stands for it in a task of its own. A client that goes away ends the handler at any point, and
/// the task does in order what is to be done then.
async fn stand<E: Env>(
    context: &Arc<Context<E>>,
    call: &Call,
    contest: Contest,
    candidacy: Candidacy,
    held: (MemoryReservation, Option<MemoryReservation>),
) -> Result<Won, Problem> {
    let (mut reply, won) = oneshot::channel();
    let (asker, call) = (call.asker.clone(), service_call(call)?);
    let (own, denied) = (context.clone(), naming_keys(&contest));
    context.env.spawn(async move {
        let service = Service::new(&own.env, own.node(), asker);
        let interrupted = async {
            tokio::select! {
                () = own.until_stopping() => {}
                () = reply.closed() => {}
            }
        };
        let won = service.campaign(&call, &contest, candidacy, interrupted).await;
        drop(held);
        if let Err(Ok(won)) = reply.send(won) {
            service.abandon(&call, won).await;
        }
    });
    // Dropped unsaid only with the runtime.
    let won = won.await.unwrap_or_else(|_| Err(ServiceError::stopping().of_unknown_outcome()));
    Ok(won.map_err(denied)?)
}

/// Its holder.
pub(super) async fn get<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    (kind, parameters): (ContestKind, Parameters),
) -> Result<Answer, Problem> {
    let contest = contest(kind, call)?;
    let level = parameters.level()?;
    let freshness = Freshness::of(context, level);
    let Some(holder) = service(context, call).holder(&contest, level).await.map_err(naming_keys(&contest))?
    else {
        let detail = match kind {
            ContestKind::Lock => "nobody holds the lock",
            ContestKind::Election => "nobody leads",
        };
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-holder", detail));
    };
    let mut json = Json::reserving(holder.key.bytes() + 128);
    json.number("lease", holder.key.lease.0).number("fence", holder.key.create_revision.0);
    json.bytes("value", "value64", &holder.key.value).number("waiting", holder.waiting as u64);
    json.bytes("key", "key64", &holder.key.key);
    Ok(freshness.told(context, Answer::json(StatusCode::OK, json.end_line()).at(holder.revision)))
}

/// Gives it up.
pub(super) async fn release<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    (kind, parameters): (ContestKind, Parameters),
) -> Result<Answer, Problem> {
    let contest = contest(kind, call)?;
    let lease = lease_of(&parameters)?;
    let done = service(context, call).resign(&service_call(call)?, &contest, lease).await;
    let done = done.map_err(naming_keys(&contest))?;
    let mut json = Json::object();
    json.number("revision", done.revision.0);
    Ok(Answer::json(StatusCode::OK, json.end_line()).at(done.revision))
}

/// Gives the one that leads another value.
pub(super) async fn proclaim<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    (kind, parameters): (ContestKind, Parameters),
) -> Result<Answer, Problem> {
    let contest = contest(kind, call)?;
    let lease = lease_of(&parameters)?;
    let (value, _held) = input::value_body(context, call).await?;
    let done = service(context, call).proclaim(&service_call(call)?, &contest, lease, value).await;
    let revision = done.map_err(naming_keys(&contest))?;
    let mut json = Json::object();
    json.number("revision", revision.0);
    Ok(Answer::json(StatusCode::OK, json.end_line()).at(revision))
}

/// A caller that may not do it is told which keys it takes: nobody guesses them from a name.
fn naming_keys(contest: &Contest) -> impl FnOnce(ServiceError) -> ServiceError + use<> {
    let beginning = contest.beginning_of_keys();
    move |mut error| {
        if [Denial::MayNotRead, Denial::MayNotWrite].iter().any(|denial| error.detail == denial.to_string()) {
            error.detail.push_str(
                "; locks and elections take read and write access to their keys, here those that begin with ",
            );
            error.detail.push_str(&beginning);
        }
        error
    }
}

fn contest(kind: ContestKind, call: &Call) -> Result<Contest, Problem> {
    Ok(Contest::new(kind, &input::path_variable(call)?)?)
}

fn lease_of(parameters: &Parameters) -> Result<LeaseId, Problem> {
    let missing = || Problem::bad("missing-parameter", "lease is missing: the one that holds it");
    some_lease(parameters)?.ok_or_else(missing)
}

/// A lease. 0 stands for none elsewhere, and nobody holds anything without one.
fn some_lease(parameters: &Parameters) -> Result<Option<LeaseId>, Problem> {
    match parameters.lease("lease")? {
        Some(lease) if lease.is_none() => {
            Err(Problem::bad("bad-parameter", "lease is 0, which is no lease; make one, or leave it out"))
        }
        lease => Ok(lease),
    }
}
