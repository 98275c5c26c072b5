//! `POST /join`: adds a node to the cluster.

use crate::api::http::answer::Answer;
use crate::api::http::context::Context;
use crate::api::http::identify::plain_refusal;
use crate::api::http::query::parameter;
use crate::api::http::route::{Call, service};
use crate::api::service::JoinCallError;
use crate::codec::{ADDRESS_BYTES_MAX, HostPort, NAME_BYTES_MAX};
use crate::node::JoinError;
use crate::runtime::Env;
use hyper::StatusCode;

pub(super) async fn handle<E: Env>(context: &Context<E>, call: &Call) -> Answer {
    let (name, addr) = match parse(call.query()) {
        Ok(parsed) => parsed,
        Err(text) => return Answer::message(StatusCode::BAD_REQUEST, &text),
    };
    match service(context, call).join(name, addr).await {
        Ok(()) => Answer::fixed(StatusCode::OK, "\"Voter added\"\n"),
        Err(JoinCallError::Failed(error)) => refused(&error),
        Err(JoinCallError::Denied(error)) => plain_refusal(&error),
    }
}

pub(super) fn refused(error: &JoinError) -> Answer {
    match error {
        JoinError::NoLeader => {
            Answer::fixed(StatusCode::BAD_REQUEST, "\"Not a leader\"\n").because(error.to_string())
        }
        JoinError::BadRequest(text) => Answer::message(StatusCode::BAD_REQUEST, text),
        JoinError::Conflict(text) => Answer::message(StatusCode::CONFLICT, text),
        JoinError::Busy(text) => Answer::message(StatusCode::SERVICE_UNAVAILABLE, text),
        JoinError::Failed(text) => {
            Answer::fixed(StatusCode::INTERNAL_SERVER_ERROR, "\"Failed to add voter \"\n")
                .because(text.clone())
        }
    }
}

/// The node's name and its raft address, or what is wrong.
pub(super) fn parse(query: &str) -> Result<(String, String), String> {
    let text = |name: &str, bytes_max: usize, what: &str| {
        let value = match parameter(query, name) {
            None => return Err(format!("{name} is missing: {what}")),
            Some(value) => value.map_err(|error| format!("{name} {error}"))?,
        };
        if value.is_empty() {
            return Err(format!("{name} is empty: {what}"));
        }
        if value.len() > bytes_max {
            return Err(format!("{name} is longer than {bytes_max} bytes"));
        }
        if value.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(format!("{name} has blanks or control characters in it"));
        }
        Ok(value.into_owned())
    };
    let name = text("nodeid", NAME_BYTES_MAX, "the --node-id of the node to join")?;
    let addr = text("nodeaddr", ADDRESS_BYTES_MAX, "host:port, the --raft-addr of the node to join")?;
    let complete = HostPort::parse(&addr).is_ok_and(|addr| !addr.host.is_empty() && addr.port != 0);
    if complete { Ok((name, addr)) } else { Err("nodeaddr is not host:port".to_owned()) }
}
