//! Questions to the node that wait for a change, each counted for the caller.
//!
//! The node has room for so many. A caller that has more than an eighth gets three quarters of it
//! at most, so that no caller keeps others from waiting. One for which there is no room is told
//! what has changed already.

use crate::api::http::account::Account;
use crate::api::http::context::Context;
use crate::api::http::route::Call;
use crate::api::service::{Asker, ErrorCode, Service, ServiceError};
use crate::kv::{Changes, ChangesQuery};
use crate::runtime::Env;
use std::sync::Arc;
use tokio::sync::oneshot;

/// If nothing changes for so long, it is told how far that was looked at.
pub(super) const PROGRESS_MICROS: u64 = 10_000_000;

/// Asks what has changed, and waits for it. The question counts until the node has answered: the
/// caller goes on with this for as long.
pub(super) async fn ask<E: Env>(
    context: &Arc<Context<E>>,
    (asker, account): (Asker, &Arc<Account>),
    query: ChangesQuery,
    micros: u64,
) -> Result<Arc<Changes>, ServiceError> {
    let starting = || ServiceError::new(ErrorCode::Overloaded, "this node is starting");
    let node = context.slot.get().ok_or_else(starting)?;
    let held = if micros > 0 { context.questions.reserve_question(account, &query.range) } else { None };
    let (from, waits) = (query.from, held.is_some());
    let patience = if waits { micros.min(PROGRESS_MICROS) } else { 0 };
    let changes = Service::new(&context.env, node, asker).changes(query, patience).await?;
    drop(held);
    if micros > 0 && !waits && changes.revisions.is_empty() && changes.next <= from {
        return Err(too_many());
    }
    Ok(changes)
}

/// The same for a request, whose client may go away before the node has answered.
pub(super) async fn ask_for<E: Env>(
    context: &Arc<Context<E>>,
    call: &Call,
    query: ChangesQuery,
    micros: u64,
) -> Result<Arc<Changes>, ServiceError> {
    let (reply, answer) = oneshot::channel();
    let (own, asker, account) = (context.clone(), call.asker.clone(), call.peer.account.clone());
    context.env.spawn(async move {
        let _gone = reply.send(ask(&own, (asker, &account), query, micros).await);
    });
    // Dropped unsaid only with the runtime.
    answer.await.unwrap_or_else(|_| Err(ServiceError::stopping()))
}

/// There is no room for one more that waits.
pub(super) fn too_many() -> ServiceError {
    ServiceError::new(ErrorCode::Overloaded, "too many wait for a change; try again")
}
