//! Whether a request is taken now: whether it is its caller's turn.
//!
//! One that is refused has waited before, so that a caller that passes refusals over is no faster
//! than one that heeds them.

use crate::api::http::context::Context;
use crate::api::http::not_taken::NotTaken;
use crate::api::http::rates::{Empty, WAIT_MICROS_MAX};
use crate::api::http::remote_end::RemoteEnd;
use crate::api::http::route::Call;
use crate::api::http::secured::caller;
use crate::api::http::turns::TurnPlace;
use crate::raft::Time;
use crate::runtime::Env;
use crate::runtime::door::Caller;
use std::num::NonZeroU32;

/// Probes that an address may make a second, where its requests are limited. Nobody who looks after
/// a node makes more.
const PROBES_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).expect("it is not 0");

/// Takes a request of that caller, perhaps after a while. Its name is not known yet.
pub(super) async fn admit<E: Env>(
    context: &Context<E>,
    peer: &RemoteEnd,
    now: Time,
) -> Result<TurnPlace, NotTaken> {
    if let Some(rate) = context.options.rate_per_address {
        let turn = peer.account.take_request(now, rate);
        pace(context, (now, turn), (NotTaken::Address, peer)).await?;
    }
    go_on(context, peer).await
}

/// Takes a probe, perhaps after a while: a node that is crowded can be looked at all the same.
/// Where the requests of an address are limited, so are its probes, by themselves.
pub(super) async fn admit_probe<E: Env>(
    context: &Context<E>,
    peer: &RemoteEnd,
    now: Time,
) -> Result<(), NotTaken> {
    if context.options.rate_per_address.is_none() {
        return Ok(());
    }
    let turn = peer.account.take_probe(now, PROBES_PER_SECOND);
    pace(context, (now, turn), (NotTaken::Address, peer)).await
}

/// Takes a request that makes work, perhaps after a while.
pub(super) async fn go_on<E: Env>(context: &Context<E>, peer: &RemoteEnd) -> Result<TurnPlace, NotTaken> {
    if let Some(place) = context.turns.try_take(&peer.account) {
        return Ok(place);
    }
    context.metrics.requests_delayed.inc();
    let place = context.turns.wait(&context.env, &peer.account).await;
    place.ok_or_else(|| refuse(context, NotTaken::Crowded, peer))
}

/// Takes a request whose caller is known, perhaps after a while.
///
/// One that waits for that makes no work meanwhile, and has no place among those under way.
pub(super) async fn admit_known<E: Env>(context: &Context<E>, call: &mut Call) -> Result<(), NotTaken> {
    let Some(rate) = context.options.rate_per_user else { return Ok(()) };
    let now = context.env.now();
    let who = call.asker.who.as_ref().and_then(|who| who.by);
    let turn = match (who, caller(&call.head)) {
        (Some(principal), _) => context.users.take(principal.subject, now, rate),
        (None, Some(shown)) => context.users.take_of_certificate(&shown.name, now, rate),
        (None, None) => return Ok(()),
    };
    let waits = turn.is_err() || turn.is_ok_and(|at| at > now);
    let gave_up = waits && call.place.take().is_some();
    pace(context, (now, turn), (NotTaken::User, &call.peer)).await?;
    if gave_up {
        call.place = Some(go_on(context, &call.peer).await?);
    }
    Ok(())
}

async fn pace<E: Env>(
    context: &Context<E>,
    (now, turn): (Time, Result<Time, Empty>),
    (reason, peer): (NotTaken, &RemoteEnd),
) -> Result<(), NotTaken> {
    let at = turn.unwrap_or_else(|Empty| now.plus(WAIT_MICROS_MAX));
    if at > now {
        context.metrics.requests_delayed.inc();
        context.env.sleep_until(at).await;
    }
    turn.map(|_| ()).map_err(|Empty| refuse(context, reason, peer))
}

/// Counts it, and logs it once in a while for each caller.
fn refuse<E: Env>(context: &Context<E>, reason: NotTaken, peer: &RemoteEnd) -> NotTaken {
    context.metrics.requests_refused.inc();
    let caller = Caller::of(&peer.address);
    let due = context.connections().refused.is_due(context.env.now(), caller, reason.name());
    if let Some(left_out) = due {
        tracing::warn!(from = %peer.address, reason = reason.name(), left_out, "requests of an address are refused");
    }
    reason
}
