//! What an answer has to be, byte by byte: docs/http-api.md, held against every answer of a run.

#[cfg(test)]
mod tests;

use crate::madsim_engine::http::Answer;
use serde::Deserialize;
use std::fmt::Debug;

/// What a write or a read was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The write is done.
    Done,
    /// What the key holds.
    Value(Option<String>),
    /// The write did not happen and will not, and why.
    NotAppended(String),
    /// The write may have happened.
    Unknown(String),
    /// The read cannot be answered, and why; or there is no room for the request.
    Unavailable(String),
}

const JSON: &str = "application/json";

/// What is found, and may be anything: the whole body is compared afterwards.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    value: String,
}

/// An answer of `/set` to a request that is well formed.
pub(super) fn set(answer: &Answer) -> Result<Told, String> {
    let reason = answer.header("infinitystore-reason").unwrap_or("").to_owned();
    let outcome = answer.header("infinitystore-outcome");
    match answer.code {
        200 => {
            exactly(answer, 200, JSON, "\"Set Successfull\"\n")?;
            same("headers of a success", &(reason.as_str(), outcome), &("", None))?;
            Ok(Told::Done)
        }
        500 => {
            exactly(answer, 500, JSON, "\"Couldn't Add to store\"\n")?;
            if reason.is_empty() {
                return Err("a write fails without a reason".to_owned());
            }
            match outcome {
                Some("not-appended") => Ok(Told::NotAppended(reason)),
                Some("unknown") => Ok(Told::Unknown(reason)),
                other => Err(format!("the outcome of a write is {other:?}")),
            }
        }
        503 => {
            let told = busy(answer)?;
            // A caller that is turned away at the door has not said what it wants.
            let is_at_door =
                matches!(&told, Told::Unavailable(why) if why.starts_with("too many connections"));
            if !is_at_door {
                same("the outcome of a write that is refused", &outcome, &Some("not-appended"))?;
            }
            Ok(told)
        }
        code => Err(format!("a write in good order is answered {code} {}", answer.text())),
    }
}

/// An answer of `/get` for `key` to a request that is well formed.
pub(super) fn get(key: &str, answer: &Answer) -> Result<Told, String> {
    match answer.code {
        200 => {
            let body: Body = serde_json::from_slice(&answer.body)
                .map_err(|error| format!("a value is no JSON: {error}"))?;
            let value = body.value;
            let right = format!("{{\"key\":{},\"value\":{}}}\n", quoted(key), quoted(&value));
            exactly(answer, 200, JSON, &right)?;
            Ok(Told::Value(Some(value)))
        }
        404 => {
            exactly(answer, 404, JSON, "\"Key does not exist\"\n")?;
            Ok(Told::Value(None))
        }
        503 => busy(answer),
        code => Err(format!("a read in good order is answered {code} {}", answer.text())),
    }
}

fn busy(answer: &Answer) -> Result<Told, String> {
    let text = answer.text();
    let told: String =
        serde_json::from_str(&text).map_err(|error| format!("a 503 says {text:?}: {error}"))?;
    exactly(answer, 503, JSON, &format!("{}\n", quoted(&told)))?;
    if told.is_empty() { Err("a 503 says nothing".to_owned()) } else { Ok(Told::Unavailable(told)) }
}

/// Code, content type and body are these.
pub(super) fn exactly(answer: &Answer, code: u16, content: &str, body: &str) -> Result<(), String> {
    same("the code", &answer.code, &code)?;
    same("the content type", &answer.header("content-type"), &Some(content))?;
    if answer.body == body.as_bytes() {
        return Ok(());
    }
    let brief = |text: &str| text.chars().take(200).collect::<String>();
    Err(format!("the body is {:?}, not {:?}", brief(&answer.text()), brief(body)))
}

pub(super) fn same<T: PartialEq + Debug>(what: &str, found: &T, right: &T) -> Result<(), String> {
    if found == right { Ok(()) } else { Err(format!("{what}: {found:?}, not {right:?}")) }
}

/// As a JSON string, escaped only where JSON demands it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string can be written as JSON")
}
