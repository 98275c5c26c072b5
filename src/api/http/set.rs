//! `POST /set`: sets or deletes a key.

use crate::api::http::answer::Answer;
use crate::api::http::body;
use crate::api::http::context::Context;
use crate::kv::{KEY_BYTES_MAX, Op, Outcome, VALUE_BYTES_MAX};
use crate::replica::{ClientError, ClientReply, ClientRequest};
use crate::runtime::Env;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use serde::Deserialize;
use std::borrow::Cow;

/// The body, as it arrives. Fields that are not listed are ignored, as the original did.
#[derive(Deserialize)]
struct SetBody<'b> {
    #[serde(borrow)]
    key: Option<Text<'b>>,
    #[serde(borrow)]
    value: Option<Text<'b>>,
    #[serde(borrow)]
    action: Option<Text<'b>>,
}

/// A string, borrowed from the body unless it has escapes (serde would copy a plain
/// `Option<Cow<str>>`).
#[derive(Deserialize)]
struct Text<'b>(#[serde(borrow)] Cow<'b, str>);

/// A body that makes no command, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadSet {
    /// 400.
    Invalid(Cow<'static, str>),
    /// 413.
    TooLarge(String),
}

pub(super) async fn handle<E: Env>(context: &Context<E>, incoming: Incoming) -> Answer {
    // Held until the answer: until then the command may wait, here or at the leader.
    let (body, _held) = match body::read(context, incoming).await {
        Ok(read) => read,
        Err(error) => return error.answer(),
    };
    let op = parse(&body);
    drop(body);
    let op = match op {
        Ok(op) => op,
        Err(BadSet::Invalid(reason)) => {
            return Answer::fixed(StatusCode::BAD_REQUEST, "\"Invalid Body\"\n").because(reason);
        }
        Err(BadSet::TooLarge(text)) => return Answer::message(StatusCode::PAYLOAD_TOO_LARGE, &text),
    };
    match context.node().request(ClientRequest::write(op)).await {
        ClientReply::Written(Outcome::Refused(refusal)) => {
            Answer::fixed(StatusCode::INTERNAL_SERVER_ERROR, "\"Couldn't Add to store\"\n")
                .because(refusal.to_string())
                .with_outcome("not-appended")
        }
        ClientReply::Written(_) => Answer::fixed(StatusCode::OK, "\"Set Successfull\"\n"),
        ClientReply::Failed(error) => failed(&error),
        other => {
            debug_assert!(false, "a write was answered {other:?}");
            failed(&ClientError::Unknown)
        }
    }
}

fn failed(error: &ClientError) -> Answer {
    let outcome = if matches!(error, ClientError::Unknown) { "unknown" } else { "not-appended" };
    Answer::fixed(StatusCode::INTERNAL_SERVER_ERROR, "\"Couldn't Add to store\"\n")
        .because(error.to_string())
        .with_outcome(outcome)
}

/// The command that a body asks for. Its strings share the body's memory where they can.
pub(super) fn parse(body: &Bytes) -> Result<Op, BadSet> {
    let invalid = |reason: &'static str| BadSet::Invalid(Cow::Borrowed(reason));
    // A derived struct would also be read from an array of its fields.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(invalid("the body is not a JSON object"));
    }
    let parsed: SetBody<'_> =
        serde_json::from_slice(body).map_err(|error| BadSet::Invalid(Cow::Owned(error.to_string())))?;
    let share = |text: Cow<'_, str>| match text {
        Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    let key = share(parsed.key.ok_or_else(|| invalid("the key is missing"))?.0);
    if key.is_empty() {
        return Err(invalid("the key is empty"));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(BadSet::TooLarge(format!("the key is larger than {KEY_BYTES_MAX} bytes")));
    }
    match parsed.action.as_ref().map(|action| &*action.0) {
        Some("set") => {
            let value = share(parsed.value.ok_or_else(|| invalid("the value is missing"))?.0);
            if value.len() > VALUE_BYTES_MAX {
                return Err(BadSet::TooLarge(format!("the value is larger than {VALUE_BYTES_MAX} bytes")));
            }
            Ok(Op::set(key, value))
        }
        Some("delete") => Ok(Op::delete(key)),
        Some(_) => Err(invalid("the action is neither \"set\" nor \"delete\"")),
        None => Err(invalid("the action is missing")),
    }
}
