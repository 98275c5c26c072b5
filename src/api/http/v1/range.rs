//! Ranges: `GET` and `DELETE /v1/kv`, and `POST /v1/range`.

use crate::api::http::answer::Answer;
use crate::api::http::budget::MemoryUse;
use crate::api::http::context::Context;
use crate::api::http::route::{Call, service};
use crate::api::http::v1::cursor::Cursor;
use crate::api::http::v1::input::{Freshness, raw_body, service_call};
use crate::api::http::v1::json::{Json, KEY_VALUE_BYTES};
use crate::api::http::v1::key;
use crate::api::http::v1::parameter_lists;
use crate::api::http::v1::parameters::{Parameters, conflict};
use crate::api::http::v1::problem::Problem;
use crate::kv::{Detail, KEY_BYTES_MAX, KeyRange, PAGE_KEYS_MAX, RangePage, RangeQuery};
use crate::runtime::Env;
use hyper::StatusCode;
use std::sync::Arc;

/// A body of a range is at most this long: a cursor that holds four bounds takes 350 KiB, and one
/// that is written as text with escapes six times its bytes.
const BODY_BYTES_MAX: usize = 2 << 20;
const ONE_KEY: [&str; 2] = ["key", "key64"];
const RANGE: [&str; 6] = ["prefix", "prefix64", "start", "start64", "end", "end64"];
/// What a cursor carries.
const CARRIED: [&str; 5] = ["keys_only", "count_only", "delimiter", "delimiter64", "at"];

/// Lists a range, or reads one key.
pub(super) async fn get<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    if parameters.has_any(&ONE_KEY) {
        refuse(&parameters, "key", &RANGE)?;
        refuse(
            &parameters,
            "key",
            &["cursor", "limit", "keys_only", "count_only", "delimiter", "delimiter64"],
        )?;
        return key::get(context, call, parameters).await;
    }
    for one in ["wait", "after"] {
        if parameters.has(one) {
            let detail = format!("{one} is for one key; to follow a range, ask for /v1/watch");
            return Err(Problem::bad("conflicting-parameters", detail));
        }
    }
    let level = parameters.level()?;
    let (query, known_count) = wanted(&parameters)?;
    let freshness = Freshness::of(context, level);
    let mut page = service(context, call).range(query.clone(), level).await?;
    let at = query.at.unwrap_or(page.revision);
    let count = known_count.or(page.count).unwrap_or_default();
    let next = page.next.take().map(|resume| {
        let query = RangeQuery { resume: Some(resume), at: Some(at), count: false, ..query.clone() };
        Cursor { query, count }.to_text()
    });
    let bytes = page_bytes(&page);
    if !context.budget.has_room(&call.peer.account, MemoryUse::Answer, bytes) {
        return Err(Problem::no_room());
    }
    let mut json = Json::reserving(bytes + next.as_ref().map_or(0, String::len));
    json.number("revision", at.0);
    if query.detail != Detail::Count {
        write_page(&mut json, &page, query.detail, query.delimiter.is_some());
    }
    json.number("count", count).flag("more", next.is_some());
    if let Some(cursor) = next {
        json.text("cursor", &cursor);
    }
    Ok(freshness.told(context, Answer::json(StatusCode::OK, json.end_line()).at(page.revision)))
}

/// The same, with the parameters as the fields of a JSON object: for what does not fit into a URL.
pub(super) async fn ask<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    _: Parameters,
) -> Result<Answer, Problem> {
    let (body, _held) = raw_body(context, call, BODY_BYTES_MAX).await?;
    let parameters = Parameters::parse_json(&body, parameter_lists::GET)?;
    get(context, call, parameters).await
}

/// What [`write_page`] makes of a page, and some more.
pub(super) fn page_bytes(page: &RangePage) -> usize {
    let keys = page
        .kvs
        .iter()
        .map(|found| KEY_VALUE_BYTES + Json::bytes_of(&found.key) + Json::bytes_of(&found.value));
    keys.chain(page.prefixes.iter().map(|prefix| 24 + Json::bytes_of(prefix))).sum()
}

/// The keys, and the prefixes, of a page.
pub(super) fn write_page(json: &mut Json, page: &RangePage, detail: Detail, prefixes: bool) {
    json.list("kvs", &page.kvs, |json, found| {
        match detail {
            Detail::Values => json.key_value(found),
            Detail::Keys | Detail::Count => json.versions(found),
        };
    });
    if prefixes {
        json.list("prefixes", &page.prefixes, |json, prefix| {
            match std::str::from_utf8(prefix) {
                Ok(text) => json.element(text),
                Err(_) => json.within(*b"{}", |json| {
                    json.bytes("prefix", "prefix64", prefix);
                }),
            };
        });
    }
}

/// What is asked, and how many keys there are in all if an earlier page said so.
fn wanted(parameters: &Parameters) -> Result<(RangeQuery, Option<u64>), Problem> {
    let limit = match parameters.number("limit")? {
        None => None,
        Some(0) => {
            return Err(Problem::bad("bad-parameter", "limit is at least 1; to count only, say count_only"));
        }
        Some(limit) => Some(usize::try_from(limit).unwrap_or(usize::MAX).min(PAGE_KEYS_MAX)),
    };
    if let Some(text) = parameters.plain("cursor") {
        refuse(parameters, "cursor", &RANGE)?;
        refuse(parameters, "cursor", &CARRIED)?;
        let bad =
            || Problem::bad("bad-cursor", "this is no cursor of an earlier page; begin again without it");
        let cursor = Cursor::parse(&text).ok_or_else(bad)?;
        let query = RangeQuery { limit: limit.unwrap_or(cursor.query.limit), ..cursor.query };
        check(&query.range)?;
        return Ok((query, Some(cursor.count)));
    }
    let range = parameters.range()?.unwrap_or(KeyRange::all());
    check(&range)?;
    let detail = match (parameters.flag("keys_only")?, parameters.flag("count_only")?) {
        (true, true) => return Err(conflict(&["keys_only", "count_only"])),
        (true, false) => Detail::Keys,
        (false, true) => Detail::Count,
        (false, false) => Detail::Values,
    };
    let delimiter = parameters.bytes("delimiter", "delimiter64")?;
    if delimiter.as_ref().is_some_and(|delimiter| delimiter.is_empty()) {
        return Err(Problem::bad("bad-parameter", "the delimiter is empty; leave it out"));
    }
    let at = parameters.revision("at")?;
    let limit = limit.unwrap_or(0);
    Ok((RangeQuery { range, resume: None, at, limit, detail, delimiter, count: true }, None))
}

/// A range that makes sense.
pub(super) fn check(range: &KeyRange) -> Result<(), Problem> {
    if range.start.len() > KEY_BYTES_MAX
        || range.end.as_ref().is_some_and(|end| end.len() > KEY_BYTES_MAX + 1)
    {
        let detail =
            format!("a bound of the range is longer than a key may be, which is {KEY_BYTES_MAX} bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "key-too-large", detail));
    }
    if range.is_empty() {
        return Err(Problem::bad("empty-range", "the end of the range is not after its start"));
    }
    Ok(())
}

fn refuse(parameters: &Parameters, one: &str, others: &[&str]) -> Result<(), Problem> {
    match others.iter().find(|other| parameters.has(other)) {
        Some(other) => Err(conflict(&[one, other])),
        None => Ok(()),
    }
}

/// Removes the keys of a range, or one key.
pub(super) async fn delete<E: Env>(
    context: &Arc<Context<E>>,
    call: &mut Call,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    if parameters.has_any(&ONE_KEY) {
        refuse(&parameters, "key", &RANGE)?;
        refuse(&parameters, "key", &["all"])?;
        return key::delete(context, call, parameters).await;
    }
    for one in ["if-match", "if-none-match"] {
        if call.header(one).is_some() {
            return Err(Problem::bad(
                "bad-condition",
                "a condition is for one key; for a range, use /v1/txn",
            ));
        }
    }
    let all = parameters.flag("all")?;
    let range = match parameters.range()? {
        None if all => KeyRange::all(),
        None => {
            let detail = "say which keys: key=, prefix=, start= and end=, or all=true";
            return Err(Problem::bad("missing-parameter", detail));
        }
        Some(_) if all => return Err(conflict(&["all", "a range"])),
        // What a script makes of a variable that is not set.
        Some(range) if range == KeyRange::all() => {
            return Err(Problem::bad("missing-parameter", "this is every key; if you mean it, say all=true"));
        }
        Some(range) => range,
    };
    check(&range)?;
    let done = service(context, call).delete_range(&service_call(call)?, range).await?;
    let mut json = Json::object();
    json.number("revision", done.revision.0).number("deleted", done.count);
    Ok(Answer::json(StatusCode::OK, json.end_line()).at(done.revision))
}
