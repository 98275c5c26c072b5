//! `GET /livez` and `GET /readyz`.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::api::http::query::parameter;
use crate::api::http::route::WhileStarting;
use crate::node::NodeStatus;
use crate::raft::Time;
use crate::replica::{ClientReply, ClientRequest};
use crate::runtime::{Env, until};
use hyper::StatusCode;
use std::fmt::Write;

/// A quorum that takes longer than this to confirm that the node is up to date is none.
const QUORUM_TIMEOUT_MICROS: u64 = 1_000_000;
/// For so long what a quorum has said counts, for all callers.
const QUORUM_COUNTS_MICROS: u64 = 100_000;
/// Committed entries that are not applied yet: with more, a node is not caught up.
const BACKLOG_MAX: u64 = 10_000;

/// One thing that a node needs in order to serve; `Err` says what is wrong.
pub(super) type Check = (&'static str, Result<(), String>);

/// The process answers: nothing else is looked at, so that a restart is not asked for where it
/// would not help.
pub(super) fn live() -> Answer {
    Answer::text(StatusCode::OK, "ok\n")
}

/// The answer of a node that is still loading its data: nothing was done with the request.
///
/// `repairing`: what it does about its data directory, if that is damaged.
pub(super) fn starting(answer: WhileStarting, disk_full: bool, repairing: Option<String>) -> Answer {
    if answer == WhileStarting::NotReady {
        let wrong = if disk_full {
            "the disk has no room for a start; make some".to_owned()
        } else {
            repairing.unwrap_or_else(|| "this node is loading its data".to_owned())
        };
        return render(&[("started", Err(wrong))], false);
    }
    let loading = "this node is starting: it is loading its data; try again soon".to_owned();
    let text = repairing.unwrap_or(loading);
    // Whatever is not read of the request goes with the connection.
    let refusal = Answer::message(StatusCode::SERVICE_UNAVAILABLE, &text).because(text).closing();
    if answer == WhileStarting::RefusesWrite { refusal.with_outcome("not-appended") } else { refusal }
}

pub(super) async fn ready<E: Env>(context: &Context<E>, query: &str) -> Answer {
    let status = context.node().status().await;
    let mut checks = local_checks(&status, context.metrics.disk_full.get() != 0);
    checks.push(("quorum", quorum(context).await));
    if !context.node().facts().is_open() {
        withhold_reasons(&mut checks);
    }
    render(&checks, parameter(query, "verbose").is_some())
}

/// Anybody may ask. In a cluster that is not open nobody learns by it what is on this node's disk,
/// or which cluster it is in: the words of these checks are fixed.
pub(super) fn withhold_reasons(checks: &mut [Check]) {
    for (name, result) in checks {
        let words = match *name {
            "storage" => "this node has stopped; its log says why",
            "trusted" => "this node takes no part any more; /v1/status says why",
            "quorum" => "no quorum confirms this node",
            _ => continue,
        };
        *result = std::mem::replace(result, Ok(())).map_err(|_| words.to_owned());
    }
}

/// Whether this node could serve, as far as can be seen from it alone.
pub(super) fn is_ready(status: &NodeStatus, disk_full: bool) -> bool {
    local_checks(status, disk_full).iter().all(|(_, held)| held.is_ok())
}

/// What can be seen from this node alone.
pub(super) fn local_checks(status: &NodeStatus, disk_full: bool) -> Vec<Check> {
    let replica = &status.replica;
    let ensure = |good: bool, wrong: &str| if good { Ok(()) } else { Err(wrong.to_owned()) };
    let backlog = replica.commit_index.since(replica.last_applied);
    vec![
        ("storage", status.stopped.clone().map_or(Ok(()), Err)),
        ("disk-room", ensure(!disk_full, "the disk has no room for the log; make some")),
        ("trusted", replica.withdrawn.clone().map_or(Ok(()), Err)),
        (
            "member",
            ensure(
                !status.removed && replica.members.iter().any(|m| m.id == replica.id),
                if status.removed {
                    "this node was removed from its cluster; stop it, and wipe its data directory before it joins again"
                } else {
                    "this node is no member of its cluster"
                },
            ),
        ),
        ("started", ensure(!replica.starting, "this node has not applied its log yet")),
        ("leader", ensure(replica.leader.is_some(), "no leader is known")),
        (
            "caught-up",
            if backlog <= BACKLOG_MAX {
                Ok(())
            } else {
                Err(format!("{backlog} committed entries are not applied yet"))
            },
        ),
    ]
}

async fn quorum<E: Env>(context: &Context<E>) -> Result<(), String> {
    let mut last = context.quorum.lock().await;
    let counts = |at: Time| context.env.now().since(at) < QUORUM_COUNTS_MICROS;
    if let Some((_, said)) = last.as_ref().filter(|(at, _)| counts(*at)) {
        return said.clone();
    }
    let said = ask_quorum(context).await;
    *last = Some((context.env.now(), said.clone()));
    said
}

async fn ask_quorum<E: Env>(context: &Context<E>) -> Result<(), String> {
    let deadline = context.env.now().plus(QUORUM_TIMEOUT_MICROS);
    match until(&context.env, deadline, context.node().request(ClientRequest::Barrier)).await {
        Some(ClientReply::UpToDate) => Ok(()),
        Some(ClientReply::Failed(error)) => Err(error.to_string()),
        Some(other) => Err(format!("unexpected answer {other:?}")),
        None => Err("no quorum answered in time".to_owned()),
    }
}

/// 200 if all is well, 503 otherwise; what is wrong is always said, what is well with `?verbose`.
pub(super) fn render(checks: &[Check], verbose: bool) -> Answer {
    let ready = checks.iter().all(|(_, result)| result.is_ok());
    let mut text = String::new();
    for (name, result) in checks {
        match result {
            Ok(()) if verbose => writeln!(text, "[+] {name} ok"),
            Ok(()) => Ok(()),
            Err(wrong) => writeln!(text, "[-] {name}: {wrong}"),
        }
        .expect("a String takes everything");
    }
    text.push_str(if ready { "ok\n" } else { "not ready\n" });
    Answer::text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}
