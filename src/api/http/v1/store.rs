//! The store as a whole: `POST /v1/compact`, and `GET` and `PUT /v1/settings`.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::input::{self, Freshness, service_call};
use crate::api::http::v1::json::Json;
use crate::api::http::v1::parameters::Parameters;
use crate::api::http::v1::problem::Problem;
use crate::api::service::strange;
use crate::kv::{Found, Op, Outcome, Query, Revision, Settings};
use crate::runtime::Env;
use hyper::StatusCode;
use serde::Deserialize;
use std::sync::Arc;

/// No limit is larger: sums of a few stay far from the end of 64 bits.
const LIMIT_BYTES_MAX: u64 = 1 << 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompactBody {
    revision: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsBody {
    history_bytes: u64,
    quota_bytes: u64,
    answers_bytes: u64,
}

/// Forgets what was before a revision.
pub(super) async fn compact<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let CompactBody { revision } = input::json_body(context, call).await?;
    match service(context, call).write(&service_call(call)?, Op::Compact(Revision(revision))).await? {
        Outcome::Compacted(oldest) => {
            let mut json = Json::object();
            json.number("compacted", oldest.0);
            Ok(Answer::json(StatusCode::OK, json.end_line()))
        }
        other => Err(strange(&other).into()),
    }
}

/// The limits that the cluster shares.
pub(in crate::api::http) async fn settings<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let level = parameters.level()?;
    let freshness = Freshness::of(context, level);
    let answer = service(context, call).read(Query::Settings, level).await?;
    match answer.found {
        Found::Settings(settings) => Ok(freshness.told(context, render(&settings).at(answer.revision))),
        other => Err(strange(&other).into()),
    }
}

/// Changes them, all at once.
pub(super) async fn configure<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let SettingsBody { history_bytes, quota_bytes, answers_bytes } = input::json_body(context, call).await?;
    let settings = Settings { history_bytes, quota_bytes, answers_bytes };
    check(&settings, &context.options.settings_min)?;
    match service(context, call).write(&service_call(call)?, Op::Configure(settings)).await? {
        Outcome::Configured(settings) => Ok(render(&settings)),
        other => Err(strange(&other).into()),
    }
}

fn check(settings: &Settings, least: &Settings) -> Result<(), Problem> {
    let limits = [
        ("history_bytes", settings.history_bytes, least.history_bytes),
        ("quota_bytes", settings.quota_bytes, least.quota_bytes),
        ("answers_bytes", settings.answers_bytes, least.answers_bytes),
    ];
    match limits.into_iter().find(|(_, bytes, least)| !(*least..=LIMIT_BYTES_MAX).contains(bytes)) {
        Some((name, _, least)) => {
            let detail = format!("{name} is from {least} to {LIMIT_BYTES_MAX}");
            Err(Problem::bad("bad-parameter", detail))
        }
        None => Ok(()),
    }
}

fn render(settings: &Settings) -> Answer {
    let mut json = Json::object();
    json.number("history_bytes", settings.history_bytes)
        .number("quota_bytes", settings.quota_bytes)
        .number("answers_bytes", settings.answers_bytes);
    Answer::json(StatusCode::OK, json.end_line())
}
