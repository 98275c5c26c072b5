//! What an answer under `/v1` has to be, written once more from docs/api: as JSON, not as bytes.

use crate::madsim_engine::http::Answer;
use crate::madsim_engine::laws::same;
use infinitystore::codec::to_base64;
use infinitystore::kv::{
    BadCommand, Detail, KeyValue, Outcome, RangePage, Refusal, Revision, Settings, Txn, TxnOp, TxnResult,
};
use serde_json::{Map, Value, json};

pub(super) const JSON: &str = "application/json";
pub(super) const PROBLEM: &str = "application/problem+json";
pub(super) const RAW: &str = "application/octet-stream";

/// An answer as it has to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Right {
    pub code: u16,
    /// `Null`: there is no body, or it is compared elsewhere.
    pub body: Value,
    /// Of a problem: its code.
    pub problem: Option<&'static str>,
    /// The header `etag`, where it is promised.
    pub etag: Option<u64>,
    /// The header `infinitystore-revision`, where it is known.
    pub revision: Option<u64>,
}

impl Right {
    fn done(body: Value) -> Self {
        Self { code: 200, body, ..Self::default() }
    }

    fn at(self, revision: Revision) -> Self {
        Self { revision: Some(revision.0), ..self }
    }

    /// A problem of a write that has not happened.
    fn refused(code: u16, problem: &'static str) -> Self {
        Self { code, problem: Some(problem), body: json!({ "outcome": "not-applied" }), ..Self::default() }
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        self.body[name] = value;
        self
    }

    /// Whether an answer is this one.
    pub(super) fn is(&self, answer: &Answer) -> Result<(), String> {
        same("the status", &answer.code, &self.code)?;
        if let Some(code) = self.problem {
            let found = problem(answer)?;
            same("the code", &found.code.as_str(), &code)?;
            for name in ["outcome", "revision", "present"] {
                same(name, &found.body[name], &self.body[name])?;
            }
        } else if !self.body.is_null() {
            same("the content type", &answer.header("content-type"), &Some(JSON))?;
            same("the body", &parsed(answer)?, &self.body)?;
        }
        let etag = self.etag.map(|etag| format!("\"{etag}\""));
        same("the ETag", &answer.header("etag").map(str::to_owned), &etag)?;
        match self.revision {
            Some(revision) => same("infinitystore-revision", &header_number(answer, REVISION)?, &revision),
            None => Ok(()),
        }
    }
}

pub(super) const REVISION: &str = "infinitystore-revision";

/// A header that is a number.
pub(super) fn header_number(answer: &Answer, name: &str) -> Result<u64, String> {
    let found = answer.header(name);
    let number = found.and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{name} is {found:?} of {} {}", answer.code, brief(&answer.text())))
}

/// A body that is one JSON value, and a newline.
pub(super) fn parsed(answer: &Answer) -> Result<Value, String> {
    let text = answer.body.strip_suffix(b"\n").ok_or("the body does not end with a newline")?;
    if text.contains(&b'\n') {
        return Err("the body has several lines".to_owned());
    }
    serde_json::from_slice(text)
        .map_err(|error| format!("the body is no JSON: {error}: {}", brief(&answer.text())))
}

pub(super) fn brief(text: &str) -> String {
    text.chars().take(300).collect()
}

/// An answer that says what went wrong.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub code: String,
    pub detail: String,
    pub outcome: Option<String>,
    pub body: Value,
}

/// The statuses that answers may have, and the codes that go with each.
const CODES: [(u16, &[&str]); 15] = [
    (
        400,
        &[
            "bad-encoding",
            "bad-base64",
            "bad-json",
            "bad-field",
            "bad-parameter",
            "bad-condition",
            "bad-cursor",
            "bad-event-id",
            "bad-name",
            "bad-idempotency-key",
            "bad-idempotency-since",
            "body-broken",
            "unknown-parameter",
            "repeated-parameter",
            "missing-parameter",
            "conflicting-parameters",
            "empty-key",
            "empty-range",
            "too-many-steps",
            "too-deep",
            "put-twice",
            "put-into-deleted",
        ],
    ),
    (403, &["other-origin"]),
    (404, &["no-such-route", "key-not-found", "no-lease", "no-holder", "not-holder"]),
    (405, &["method-not-allowed"]),
    (408, &["body-late"]),
    (409, &["held", "lease-exists", "not-a-number", "overflow", "future-revision", "answer-forgotten"]),
    (410, &["compacted"]),
    (412, &["condition-failed"]),
    (
        413,
        &[
            "body-too-large",
            "key-too-large",
            "value-too-large",
            "command-too-large",
            "too-many-changes",
            "revision-too-large",
        ],
    ),
    (415, &["unsupported-encoding"]),
    (421, &["misdirected"]),
    (422, &["idempotency-key-reused"]),
    (
        503,
        &[
            "no-leader",
            "no-quorum",
            "overloaded",
            "no-memory",
            "starting",
            "stopping",
            "stale",
            "joining",
            "removed",
            "refused",
        ],
    ),
    (504, &["outcome-unknown"]),
    (507, &["quota-exceeded", "disk-full"]),
];

/// Reads a problem, which has all that RFC 9457 and docs/api ask for, and nothing else.
pub(super) fn problem(answer: &Answer) -> Result<Problem, String> {
    same("the content type", &answer.header("content-type"), &Some(PROBLEM))?;
    let body = parsed(answer)?;
    let text = |name: &str| body[name].as_str().map(str::to_owned).unwrap_or_default();
    same("the type", &text("type").as_str(), &"about:blank")?;
    same("the status in the body", &body["status"].as_u64(), &Some(u64::from(answer.code)))?;
    let (code, detail, title) = (text("code"), text("detail"), text("title"));
    if detail.is_empty() || title.is_empty() {
        return Err(format!("a problem says nothing: {body}"));
    }
    let known = CODES.iter().find(|(status, _)| *status == answer.code).map_or(&[][..], |(_, codes)| *codes);
    if !known.contains(&code.as_str()) {
        return Err(format!("the code of a {} is {code:?}: {detail}", answer.code));
    }
    let retry = answer.header("retry-after");
    same("retry-after", &retry, &(answer.code == 503).then_some("1"))?;
    let names = ["type", "title", "status", "code", "detail", "outcome", "revision", "present"];
    let fields = body.as_object().cloned().unwrap_or_default();
    if let Some(name) = fields.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("a problem has the field {name}"));
    }
    let outcome = body["outcome"].as_str().map(str::to_owned);
    // Only one that nobody knows the end of may be unknown.
    if !matches!(outcome.as_deref(), None | Some("not-applied" | "unknown")) {
        return Err(format!("the outcome is {outcome:?}"));
    }
    same("infinitystore-outcome", &answer.header("infinitystore-outcome"), &outcome.as_deref())?;
    Ok(Problem { code, detail, outcome, body })
}

/// Adds bytes to an object: as text, if they are text.
pub(super) fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}64"), to_base64(bytes).into()),
    };
}

/// A key with its numbers, and with its value if that is wanted.
pub(super) fn key_value(kv: &KeyValue, has_key: bool, has_value: bool) -> Value {
    let mut object = Map::new();
    if has_key {
        put_bytes(&mut object, "key", &kv.key);
    }
    if has_value {
        put_bytes(&mut object, "value", &kv.value);
    }
    object.insert("create_revision".to_owned(), kv.create_revision.0.into());
    object.insert("mod_revision".to_owned(), kv.mod_revision.0.into());
    object.insert("version".to_owned(), kv.version.into());
    object.insert("lease".to_owned(), kv.lease.0.into());
    Value::Object(object)
}

/// A page of a range. Of its cursor only that it is there is known: `true`.
pub(super) fn page(page: &RangePage, revision: u64, count: u64, detail: Detail, prefixes: bool) -> Value {
    let mut body = json!({ "revision": revision, "count": count, "more": page.next.is_some() });
    if detail != Detail::Count {
        let kvs = page.kvs.iter().map(|kv| key_value(kv, true, detail == Detail::Values));
        body["kvs"] = kvs.collect();
        if prefixes {
            let each = page.prefixes.iter().map(|prefix| match std::str::from_utf8(prefix) {
                Ok(text) => Value::from(text),
                Err(_) => json!({ "prefix64": to_base64(prefix) }),
            });
            body["prefixes"] = each.collect();
        }
    }
    body
}

fn results(txn: &Txn, succeeded: bool, told: &[TxnResult]) -> Value {
    let steps = if succeeded { &txn.success } else { &txn.failure };
    let each = steps.iter().zip(told).map(|(step, result)| match (step, result) {
        (_, TxnResult::Put { version }) => json!({ "put": { "version": version } }),
        (_, TxnResult::Deleted { count }) => json!({ "delete": { "deleted": count } }),
        (TxnOp::Get(query), TxnResult::Range(found)) => {
            let count = found.count.unwrap_or_default();
            json!({ "get": page(found, found.revision.0, count, query.detail, false) })
        }
        (TxnOp::Txn(inner), TxnResult::Txn { succeeded, results: inside }) => {
            json!({ "txn": { "succeeded": succeeded, "results": results(inner, *succeeded, inside) } })
        }
        (step, result) => json!(format!("{step:?} and {result:?}")),
    });
    each.collect()
}

pub(super) fn settings(settings: &Settings) -> Value {
    json!({
        "history_bytes": settings.history_bytes,
        "quota_bytes": settings.quota_bytes,
        "answers_bytes": settings.answers_bytes,
    })
}

/// The answer to a write with this outcome. `txn`: the transaction that was asked for, if it was
/// one.
pub(super) fn written(outcome: &Outcome, txn: Option<&Txn>) -> Right {
    match outcome {
        Outcome::Put { revision, version } => {
            let right = Right::done(json!({ "revision": revision.0, "version": version })).at(*revision);
            Right { etag: Some(revision.0), ..right }
        }
        Outcome::Deleted { revision, count } => {
            Right::done(json!({ "revision": revision.0, "deleted": count })).at(*revision)
        }
        Outcome::Txn { revision, succeeded, results: inside } => {
            let none = Txn::default();
            let results = results(txn.unwrap_or(&none), *succeeded, inside);
            let body = json!({ "revision": revision.0, "succeeded": succeeded, "results": results });
            Right::done(body).at(*revision)
        }
        Outcome::Incremented { revision, version, value } => {
            let body = json!({ "revision": revision.0, "version": version, "value": value });
            Right { etag: Some(revision.0), ..Right::done(body).at(*revision) }
        }
        Outcome::Compacted(revision) => Right::done(json!({ "compacted": revision.0 })),
        Outcome::Granted { id, ttl_seconds } => Right::done(json!({ "id": id.0, "ttl": ttl_seconds })),
        Outcome::Revoked { revision, keys } => {
            Right::done(json!({ "revision": revision.0, "deleted": keys })).at(*revision)
        }
        Outcome::Configured(now) => Right::done(settings(now)),
        Outcome::Secured(revision) => Right::done(json!({ "revision": revision })),
        Outcome::Refused(refusal) => refused(refusal),
    }
}

fn refused(refusal: &Refusal) -> Right {
    match refusal {
        Refusal::Quota { .. } | Refusal::TooManyLeases { .. } => Right::refused(507, "quota-exceeded"),
        Refusal::NoLease(_) => Right::refused(404, "no-lease"),
        Refusal::LeaseExists(_) => Right::refused(409, "lease-exists"),
        Refusal::Compacted(oldest) => Right::refused(410, "compacted").with("revision", oldest.0.into()),
        Refusal::Future(newest) => Right::refused(409, "future-revision").with("revision", newest.0.into()),
        Refusal::TooManyChanges { .. } => Right::refused(413, "too-many-changes"),
        Refusal::NotANumber => Right::refused(409, "not-a-number"),
        Refusal::Overflow => Right::refused(409, "overflow"),
        Refusal::KeyReused => Right::refused(422, "idempotency-key-reused"),
        // It may have been done before.
        Refusal::AnswerForgotten(why) => Right::refused(409, "answer-forgotten")
            .with("outcome", "unknown".into())
            .with("revision", why.through.0.into()),
        Refusal::Denied { .. } => Right::refused(403, "forbidden"),
        // No schedule changes users.
        Refusal::Security(_) => Right::refused(409, "would-lock-out"),
    }
}

/// The answer to a condition that did not hold of this key, when the store had this revision.
pub(super) fn condition_failed(revision: Revision, present: Option<&KeyValue>) -> Right {
    let right = Right::refused(412, "condition-failed").with("revision", revision.0.into()).at(revision);
    match present {
        Some(kv) => {
            let etag = Some(kv.mod_revision.0);
            Right { etag, ..right.with("present", key_value(kv, true, false)) }
        }
        None => right,
    }
}

/// The code of a command that is larger than what may be appended.
pub(super) fn too_large() -> Right {
    Right::refused(413, "command-too-large")
}

/// A body with a field that makes no sense.
pub(super) fn bad_field() -> Right {
    Right::refused(400, "bad-field")
}

/// The code of a command that makes no sense.
pub(super) fn senseless(bad: BadCommand) -> Right {
    let (status, code) = match bad {
        BadCommand::EmptyKey => (400, "empty-key"),
        BadCommand::LongKey(_) => (413, "key-too-large"),
        BadCommand::LongValue(_) => (413, "value-too-large"),
        BadCommand::Long(_) => (413, "command-too-large"),
        BadCommand::EmptyRange => (400, "empty-range"),
        BadCommand::ManySteps(_) => (400, "too-many-steps"),
        BadCommand::Deep => (400, "too-deep"),
        BadCommand::PutTwice => (400, "put-twice"),
        BadCommand::PutIntoDeleted => (400, "put-into-deleted"),
        BadCommand::IdempotencyKey => (400, "bad-idempotency-key"),
        BadCommand::Since => (400, "bad-idempotency-since"),
        BadCommand::SecurityName => (400, "bad-name"),
        BadCommand::LongList(_) => (507, "security-full"),
        BadCommand::PasswordHash => (400, "bad-password"),
    };
    Right::refused(status, code)
}
