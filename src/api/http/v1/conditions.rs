//! `If-Match` and `If-None-Match`: compare-and-set with a key's ETag.

use crate::api::http::route::Call;
use crate::api::http::v1::problem::Problem;
use crate::api::service::Condition;
use crate::kv::Revision;
use hyper::Method;

/// The condition that a request's headers make.
pub(super) fn of(call: &Call) -> Result<Option<Condition>, Problem> {
    parse(call.header("if-match"), call.header("if-none-match"))
}

/// Refuses a condition where the operation looks at none such: a write that passed it over would be
/// carried out whether it holds or not. A read loses nothing by it, and caches send conditions by
/// themselves.
///
/// A header that comes twice is refused in any case: one of the two would be passed over.
pub(in crate::api::http) fn refuse_others(call: &Call, looked_at: &[&str]) -> Result<(), Problem> {
    let comes_twice = |name: &&str| call.head.headers.get_all(*name).iter().nth(1).is_some();
    let once = ["If-Match", "If-None-Match", "Idempotency-Key", "Idempotency-Since"];
    if let Some(name) = once.into_iter().find(comes_twice) {
        let detail = format!("{name} comes more than once: nothing was done; send one line with one value");
        return Err(Problem::bad("bad-condition", detail));
    }
    if matches!(call.head.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let is_passed_over = |name: &&str| !looked_at.contains(name) && call.header(name).is_some();
    match ["If-Match", "If-None-Match"].into_iter().find(is_passed_over) {
        Some(name) => {
            let detail = format!(
                "{name} is no condition of this request: nothing was done; PUT and DELETE of a key take it, \
                 and /v1/txn compares"
            );
            Err(Problem::bad("bad-condition", detail))
        }
        None => Ok(()),
    }
}

/// The condition that the two headers make.
pub(in crate::api::http) fn parse(
    if_match: Option<&[u8]>,
    if_none_match: Option<&[u8]>,
) -> Result<Option<Condition>, Problem> {
    Ok(match (if_match, if_none_match) {
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err(Problem::bad("bad-condition", "If-Match and If-None-Match do not go together"));
        }
        (Some(tag), None) => Some(match revision_of(tag, "If-Match")? {
            None => Condition::Exists,
            Some(revision) => Condition::Is(revision),
        }),
        (None, Some(tag)) => Some(match revision_of(tag, "If-None-Match")? {
            None => Condition::IsMissing,
            Some(revision) => Condition::IsNot(revision),
        }),
    })
}

/// `"17"`, or 17 alone; `None`: `*`.
fn revision_of(tag: &[u8], name: &str) -> Result<Option<Revision>, Problem> {
    let tag = tag.trim_ascii();
    if tag == b"*" {
        return Ok(None);
    }
    let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
    let digits = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\"")).unwrap_or(tag);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let parsed = std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
    match parsed {
        Some(revision) => Ok(Some(Revision(revision))),
        None => {
            let detail = format!("{name} is * or one ETag of this API: \"17\", the key's mod_revision");
            Err(Problem::bad("bad-condition", detail))
        }
    }
}
