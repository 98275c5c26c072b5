//! `/v1/alarms`: what befell this node's data, until a person has seen it.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::input;
use crate::api::http::v1::json::Json;
use crate::api::http::v1::parameters::Parameters;
use crate::api::http::v1::problem::Problem;
use crate::api::service::{ErrorCode, ServiceError};
use crate::runtime::{Alarm, Env};
use hyper::StatusCode;
use std::sync::Arc;

/// The alarms of this node.
pub(super) async fn list<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    // As with the status: the caller has to be known.
    service(context, call).status().await?;
    let mut json = Json::object();
    json.text("node", &context.node().facts().name);
    json.list("alarms", &context.metrics.alarm_board.list(), |json, alarm| {
        json.within(*b"{}", |json| write(json, alarm));
    });
    Ok(Answer::json(StatusCode::OK, json.end_line()))
}

/// A person has seen it.
pub(super) async fn acknowledge<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let bytes = input::path_variable(call)?;
    let id = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<u64>().ok());
    let find = || {
        let found = id.and_then(|id| context.metrics.alarm_board.acknowledge(id));
        let missing = || ServiceError::new(ErrorCode::NoAlarm, "this node has no alarm of that number");
        found.ok_or_else(missing)
    };
    let alarm = service(context, call).acknowledge(id.unwrap_or_default(), find).await?;
    context.node().note_alarms().await;
    let mut json = Json::object();
    write(&mut json, &alarm);
    Ok(Answer::json(StatusCode::OK, json.end_line()))
}

fn write(json: &mut Json, alarm: &Alarm) {
    json.number("id", alarm.id).text("kind", &alarm.kind).text("text", &alarm.text);
    json.number("raised_at", alarm.raised_at);
}
