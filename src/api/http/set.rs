//! `POST /set`: sets or deletes a key.

use crate::api::http::answer::Answer;
use crate::api::http::body;
use crate::api::http::context::Context;
use crate::api::http::identify::plain_refusal;
use crate::api::http::route::{Call, service};
use crate::api::service::ServiceError;
use crate::kv::{KEY_BYTES_MAX, Op, Outcome, Refusal, VALUE_BYTES_MAX};
use crate::replica::{ClientError, ClientReply, ClientRequest};
use crate::runtime::Env;
use bytes::Bytes;
use hyper::StatusCode;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// The body, as it arrives. Fields that are not listed are ignored, as the original did. Their
/// names are taken in any letter case, as Go's decoder took them.
#[derive(Default)]
struct SetBody<'b> {
    key: Option<Text<'b>>,
    value: Option<Text<'b>>,
    action: Option<Text<'b>>,
}

impl<'de> Deserialize<'de> for SetBody<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = SetBody<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SetBody<'de>, A::Error> {
        let (mut body, mut seen) = (SetBody::default(), [false; 3]);
        while let Some(Text(name)) = map.next_key()? {
            let fields = [&mut body.key, &mut body.value, &mut body.action];
            let known = ["key", "value", "action"].into_iter().zip(fields).zip(&mut seen);
            match known.into_iter().find(|((field, _), _)| is_named(&name, field)) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(((field, _), true)) => return Err(de::Error::duplicate_field(field)),
                Some(((_, value), seen)) => {
                    *value = map.next_value()?;
                    *seen = true;
                }
            }
        }
        Ok(body)
    }
}

/// Whether a field has that name, in whatever letter case. The Kelvin sign is a K, too.
fn is_named(name: &str, field: &str) -> bool {
    let fold = |c: char| if c == '\u{212a}' { 'k' } else { c.to_ascii_lowercase() };
    name == field || name.chars().map(fold).eq(field.chars())
}

/// A string, borrowed from the body unless it has escapes (serde would copy a plain
/// `Option<Cow<str>>`).
#[derive(serde::Deserialize)]
struct Text<'b>(#[serde(borrow)] Cow<'b, str>);

/// A body that makes no command, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadSet {
    /// 400.
    Invalid(Cow<'static, str>),
    /// 413.
    TooLarge(String),
}

pub(super) async fn handle<E: Env>(context: &Context<E>, call: &mut Call) -> Answer {
    // Held until the answer: until then the command may wait, here or at the leader.
    let (body, _held) = match body::read(context, call, context.options.body_bytes_max).await {
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
    match service(context, call).ask(ClientRequest::write(op)).await {
        ClientReply::Written(Outcome::Refused(refusal @ Refusal::Denied { .. })) => {
            plain_refusal(&refusal.into())
        }
        ClientReply::Failed(ClientError::Denied(denial)) => {
            plain_refusal(&ServiceError::from(denial).not_applied())
        }
        ClientReply::Written(Outcome::Refused(refusal)) => {
            Answer::fixed(StatusCode::INTERNAL_SERVER_ERROR, "\"Couldn't Add to store\"\n")
                .because(refusal.to_string())
                .with_outcome("not-appended")
        }
        ClientReply::Written(_) => Answer::fixed(StatusCode::OK, "\"Set Successfull\"\n"),
        ClientReply::Failed(error @ ClientError::CommandTooLarge { .. }) => {
            Answer::message(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()).with_outcome("not-appended")
        }
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
