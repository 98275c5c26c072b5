//! `GET /get`: reads a key.

use crate::api::http::answer::{Answer, write_json_string};
use crate::api::http::budget::MemoryUse;
use crate::api::http::context::Context;
use crate::api::http::identify::plain_refusal;
use crate::api::http::query::parameter;
use crate::api::http::route::{Call, service};
use crate::kv::{self, Found, KEY_BYTES_MAX};
use crate::replica::{ClientError, ClientReply, ClientRequest, Level};
use crate::runtime::Env;
use bytes::Bytes;
use hyper::StatusCode;
use std::borrow::Cow;

/// What a query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GetQuery<'q> {
    pub(super) key: Cow<'q, str>,
    pub(super) level: Level,
}

pub(super) async fn handle<E: Env>(context: &Context<E>, call: &Call) -> Answer {
    let GetQuery { key, level } = match parse(call.query()) {
        Ok(parsed) => parsed,
        Err(answer) => return answer,
    };
    let request = ClientRequest::read(Bytes::copy_from_slice(key.as_bytes()), level);
    let found = match service(context, call).ask(request).await {
        ClientReply::Answer(kv::QueryAnswer { found: Found::Key(found), .. }) => found,
        ClientReply::Failed(ClientError::Denied(denial)) => return plain_refusal(&denial.into()),
        ClientReply::Failed(error) => {
            return Answer::message(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
        }
        other => {
            debug_assert!(false, "a read was answered {other:?}");
            return Answer::fixed(StatusCode::SERVICE_UNAVAILABLE, "\"the read was not answered\"\n");
        }
    };
    match found {
        // Before the work, so that a refusal costs little.
        Some(found) if !context.budget.has_room(&call.peer.account, MemoryUse::Answer, found.value.len()) => {
            Answer::no_room()
        }
        Some(found) => Answer::json(StatusCode::OK, render(&key, &found.value)),
        None => Answer::fixed(StatusCode::NOT_FOUND, "\"Key does not exist\"\n"),
    }
}

/// What the query asks, or the answer to one that makes no sense.
pub(super) fn parse(query: &str) -> Result<GetQuery<'_>, Answer> {
    let bad = |text: String| Answer::message(StatusCode::BAD_REQUEST, &text);
    let key = match parameter(query, "key") {
        None => Cow::Borrowed(""),
        Some(key) => key.map_err(|error| bad(format!("key {error}")))?,
    };
    if key.is_empty() {
        return Err(Answer::fixed(StatusCode::BAD_REQUEST, "\"Missing Key\"\n"));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(bad(format!("key is larger than {KEY_BYTES_MAX} bytes")));
    }
    let level = match parameter(query, "level").transpose().map_err(|error| bad(format!("level {error}")))? {
        None => Level::Linearizable,
        Some(level) => match &*level {
            "linearizable" => Level::Linearizable,
            "local" => Level::Local,
            _ => return Err(bad("level is neither linearizable nor local".to_owned())),
        },
    };
    Ok(GetQuery { key, level })
}

/// `{"key":K,"value":V}` and a newline. A value that is not UTF-8 (none comes from `/set`) is shown
/// with U+FFFD.
pub(super) fn render(key: &str, value: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(key.len() + value.len() + 32);
    json.extend_from_slice(b"{\"key\":");
    write_json_string(&mut json, key);
    json.extend_from_slice(b",\"value\":");
    match std::str::from_utf8(value) {
        // Checked first: the lossy conversion is several times as slow even where nothing is lost.
        Ok(text) => write_json_string(&mut json, text),
        Err(_) => write_json_string(&mut json, &String::from_utf8_lossy(value)),
    }
    json.extend_from_slice(b"}\n");
    // Text that had to be escaped has made the buffer grow, by doubling.
    if json.len() > 4096 && json.capacity() - json.len() > json.len() / 8 {
        json.shrink_to_fit();
    }
    json
}
