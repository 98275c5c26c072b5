//! `POST /v1/txn`.

use crate::api::http::answer::Answer;
use crate::api::http::budget::MemoryUse;
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::input::{self, service_call};
use crate::api::http::v1::json::Json;
use crate::api::http::v1::parameters::Parameters;
use crate::api::http::v1::problem::Problem;
use crate::api::http::v1::range::{page_bytes, write_page};
use crate::api::http::v1::txn_body;
use crate::api::service::strange;
use crate::kv::{Detail, Op, Outcome, PAGE_BYTES_MAX, Txn, TxnOp, TxnResult};
use crate::runtime::Env;
use hyper::StatusCode;
use std::sync::Arc;

/// Compares, and does one thing or the other.
pub(super) async fn handle<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let (body, _held) = input::raw_body(context, call, context.options.body_bytes_max).await?;
    let txn = txn_body::parse(&body)?;
    drop(body);
    // Before it is done: a refusal then leaves nothing behind.
    let room = PAGE_BYTES_MAX.min(context.budget.answer_bytes_max() / 2);
    if reads(&txn) && !context.budget.has_room(&call.peer.account, MemoryUse::Answer, room) {
        return Err(Problem::no_room());
    }
    let op = Op::Txn(Box::new(txn.clone()));
    match service(context, call).write(&service_call(call)?, op).await? {
        Outcome::Txn { revision, succeeded, results } => {
            let bytes = results_bytes(&results);
            if !context.budget.has_room(&call.peer.account, MemoryUse::Answer, bytes) {
                // It was carried out, and the answer is lost.
                return Err(Problem::no_room().of_unknown_outcome());
            }
            let mut json = Json::reserving(bytes);
            json.number("revision", revision.0);
            write_results(&mut json, &txn, succeeded, &results);
            Ok(Answer::json(StatusCode::OK, json.end_line()).at(revision))
        }
        other => Err(strange(&other).into()),
    }
}

/// Whether it reads anything, in a branch of it.
fn reads(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|step| match step {
        TxnOp::Get(_) => true,
        TxnOp::Txn(inner) => reads(inner),
        TxnOp::Put(_) | TxnOp::Delete(_) => false,
    })
}

/// What [`write_results`] makes of them, and some more.
fn results_bytes(results: &[TxnResult]) -> usize {
    let bytes = results.iter().map(|result| match result {
        TxnResult::Put { .. } | TxnResult::Deleted { .. } => 48,
        TxnResult::Range(page) => 128 + page_bytes(page),
        TxnResult::Txn { results, .. } => 64 + results_bytes(results),
    });
    bytes.sum()
}

fn write_results(json: &mut Json, txn: &Txn, succeeded: bool, results: &[TxnResult]) {
    let steps = if succeeded { &txn.success } else { &txn.failure };
    json.flag("succeeded", succeeded);
    json.list("results", steps.iter().zip(results), |json, (step, result)| {
        json.within(*b"{}", |json| write_result(json, step, result));
    });
}

fn write_result(json: &mut Json, step: &TxnOp, result: &TxnResult) {
    match (step, result) {
        (_, TxnResult::Put { version }) => json.field("put").within(*b"{}", |json| {
            json.number("version", *version);
        }),
        (_, TxnResult::Deleted { count }) => json.field("delete").within(*b"{}", |json| {
            json.number("deleted", *count);
        }),
        (step, TxnResult::Range(page)) => json.field("get").within(*b"{}", |json| {
            let detail = if let TxnOp::Get(query) = step { query.detail } else { Detail::Values };
            json.number("revision", page.revision.0);
            if detail != Detail::Count {
                write_page(json, page, detail, false);
            }
            json.number("count", page.count.unwrap_or_default()).flag("more", page.next.is_some());
        }),
        (TxnOp::Txn(inner), TxnResult::Txn { succeeded, results }) => {
            json.field("txn").within(*b"{}", |json| write_results(json, inner, *succeeded, results))
        }
        (_, TxnResult::Txn { .. }) => json,
    };
}
