//! From a request's head to the caller's identity.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::api::http::credentials::{self, BadCredentials};
use crate::api::http::route::{Call, Needs};
use crate::api::http::secured::caller;
use crate::api::http::v1::problem::Problem;
use crate::api::service::{Asker, Credentials, ErrorCode, Identity, ServiceError, Shown, WriteOutcome};
use crate::kv::Denial;
use crate::replica::ClientRequest;
use crate::runtime::Env;
use hyper::StatusCode;
use hyper::header::AUTHORIZATION;
use std::sync::Arc;

/// What is known of a caller's credentials before its request is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// The node looked at them, or there are none.
    At,
    /// The caller shows some, and the node takes its cluster for an open one.
    Past,
}

/// Finds out who asks, and keeps it with the call. Costs nothing where the cluster is open and
/// nothing is written down.
pub(super) async fn identify<E: Env>(
    context: &Arc<Context<E>>,
    needs: Needs,
    call: &mut Call,
) -> Result<Looked, ServiceError> {
    let node = context.node();
    let shows = call.head.headers.contains_key(AUTHORIZATION);
    if node.facts().is_open() && matches!(needs, Needs::Right(_)) && shows {
        // Somebody shows credentials to administer an open cluster. It may be open no more, and
        // this node not know it yet: then they are to count. If nobody answers, the request will
        // fail.
        node.request(ClientRequest::Barrier).await;
    }
    let is_open = node.facts().is_open();
    let looked = if is_open && shows { Looked::Past } else { Looked::At };
    if needs == Needs::Nothing || (is_open && context.options.audit.is_none()) {
        return Ok(looked);
    }
    let certificate = caller(&call.head).filter(|shown| !shown.name.is_empty());
    let origin = Identity {
        address: call.peer.address.clone(),
        certificate: certificate
            .map(|shown| Shown { name: shown.name.clone(), ends_at: shown.certificate.not_after }),
        ..Identity::default()
    };
    let audit = context.options.audit.clone();
    let found = if is_open { Ok(origin.clone()) } else { check(context, needs, call, origin.clone()).await };
    match found {
        Ok(who) => {
            call.asker = Asker { who: Some(Arc::new(who)), audit };
            Ok(looked)
        }
        Err(error) => {
            if let Some(audit) = audit {
                audit.note_refused(&context.env, &origin, &error);
            }
            Err(error)
        }
    }
}

async fn check<E: Env>(
    context: &Arc<Context<E>>,
    needs: Needs,
    call: &Call,
    origin: Identity,
) -> Result<Identity, ServiceError> {
    let shown = shown(call)?;
    let node = context.node();
    let wanted = needs != Needs::CredentialsForAll;
    let authenticator = &context.authenticator;
    let who = authenticator.authenticate(&context.env, node, shown.as_ref(), wanted, origin).await?;
    // Before its body is read. The store would refuse it as well.
    if who.by.is_none() && wanted && node.facts().security().is_enabled() {
        return Err(no_credentials(who.certificate.as_ref(), context.env.wall_micros() / 1_000_000));
    }
    Ok(who)
}

/// A refusal that says what is wrong with the certificate, if there is one.
fn no_credentials(shown: Option<&Shown>, now: u64) -> ServiceError {
    let mut error = ServiceError::from(Denial::NoCredentials);
    if let Some(Shown { name, ends_at }) = shown {
        let remedy = if *ends_at <= now {
            "your certificate has ended: connect again with a new one".to_owned()
        } else {
            format!("your certificate is of {name:?}, and no user is called so: have it added")
        };
        error.detail = format!("{}; {remedy}", error.detail);
    }
    error
}

/// What the request shows.
fn shown(call: &Call) -> Result<Option<Credentials>, ServiceError> {
    let mut headers = call.head.headers.get_all(AUTHORIZATION).iter();
    let Some(header) = headers.next() else { return Ok(None) };
    let bad = || {
        let detail =
            "the header Authorization is neither `Bearer TOKEN` nor `Basic` with base64 of NAME:PASSWORD";
        ServiceError::new(ErrorCode::Unauthenticated, detail)
    };
    if headers.next().is_some() {
        return Err(bad());
    }
    credentials::parse(header.as_bytes()).map(Some).map_err(|BadCredentials| bad())
}

/// The answer to a caller whose credentials were not looked at, and then wanted: authentication was
/// enabled since this node last looked.
pub(super) fn not_looked_at() -> ServiceError {
    let detail = "authentication was enabled just now, before this node had learnt of it, so that it did not look at \
                  your credentials: ask again";
    ServiceError::new(ErrorCode::Stale, detail)
}

/// A refusal, in the words of the route.
pub(super) fn refusal(error: ServiceError, has_problems: bool, is_write: bool) -> Answer {
    let error = if is_write && error.outcome.is_none() { error.not_applied() } else { error };
    if has_problems {
        return Problem::from(error).closing().answer();
    }
    plain_refusal(&error).closing()
}

/// The same, for the routes of the original.
pub(super) fn plain_refusal(error: &ServiceError) -> Answer {
    let problem = Problem::from(error.clone());
    let answer = Answer::message(problem.status, &error.detail);
    let answer = match problem.status {
        StatusCode::UNAUTHORIZED => answer.challenging(),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => answer.retrying(),
        _ => answer,
    };
    match error.outcome {
        Some(WriteOutcome::NotApplied) => answer.with_outcome("not-appended"),
        Some(WriteOutcome::Unknown) => answer.with_outcome("unknown"),
        None => answer,
    }
}
