//! A request as this client makes it, and what it takes for an answer.

use crate::client::connection::ReceivedAnswer;
use crate::client::credentials::Credentials;
use crate::client::endpoint::Endpoint;
use crate::client::error::{CallFailure, RefusedCall, WriteOutcome, quote};
use crate::client::json::ProblemBody;
use crate::kv::Revision;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::http::uri::Uri;
use hyper::{Method, Request};
use std::time::Duration;

/// The name under which a write is done at most once.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What was seen of the store before the write was asked for the first time.
const IDEMPOTENCY_SINCE: HeaderName = HeaderName::from_static("idempotency-since");

/// A request, to whichever node.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: Method,
    target: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// Statuses that are no refusal.
    accepted: &'static [u16],
    /// How long the node may wait before it answers, as it was asked to. The time for an answer
    /// begins after it.
    wait: Duration,
    /// Whether it changes something.
    is_write: bool,
    /// Which revision of the store had been seen before this was asked for the first time.
    since: Option<Revision>,
    /// Whether that first time may have been before this call.
    is_repetition: bool,
}

impl Ask {
    /// A question that changes nothing.
    pub(super) fn get(target: String, accepted: &'static [u16]) -> Result<Self, CallFailure> {
        Self::new(Method::GET, target, Bytes::new(), accepted)
    }

    /// Something to be done.
    pub(super) fn post(target: String, body: impl Into<Bytes>) -> Result<Self, CallFailure> {
        Self::new(Method::POST, target, body.into(), &[200])
    }

    /// A value to be put somewhere.
    pub(super) fn put(target: String, body: impl Into<Bytes>) -> Result<Self, CallFailure> {
        Self::new(Method::PUT, target, body.into(), &[200])
    }

    /// Something to be removed.
    pub(super) fn delete(target: String) -> Result<Self, CallFailure> {
        Self::new(Method::DELETE, target, Bytes::new(), &[200])
    }

    fn new(
        method: Method,
        target: String,
        body: Bytes,
        accepted: &'static [u16],
    ) -> Result<Self, CallFailure> {
        let target = Uri::try_from(target).map_err(|error| CallFailure::Unaskable(error.to_string()))?;
        let is_write = method != Method::GET;
        let wait = Duration::ZERO;
        let (headers, since, is_repetition) = (Vec::new(), None, false);
        Ok(Self { method, target, headers, body, accepted, wait, is_write, since, is_repetition })
    }

    /// With a header more.
    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Result<Self, CallFailure> {
        let value = HeaderValue::from_str(value);
        let value = value.map_err(|_| CallFailure::Unaskable(format!("no value of the header {name}")))?;
        self.headers.push((name, value));
        Ok(self)
    }

    /// Done at most once under that name, however often it is asked.
    pub(super) fn once_as(self, key: Option<&str>) -> Result<Self, CallFailure> {
        match key {
            Some(key) => self.with_header(IDEMPOTENCY_KEY, key),
            None => Ok(self),
        }
    }

    /// It may have been asked before under its name, after that revision had been seen.
    pub(super) fn repeated_since(mut self, since: Option<Revision>) -> Self {
        (self.since, self.is_repetition) = (since, since.is_some());
        self
    }

    /// That revision had been seen when this was about to be asked for the first time.
    pub(super) fn first_asked_after(&mut self, seen: Option<Revision>) {
        if !self.is_repetition {
            self.since = seen;
        }
    }

    /// Whether it is to be done once, and it is not known yet since when its answer counts.
    pub(super) fn lacks_since(&self) -> bool {
        self.is_write && self.is_named() && self.since.is_none()
    }

    /// The node may take so much longer to answer.
    pub(super) fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// It does no harm to do it twice, although it is no GET.
    pub(super) fn harmless(mut self) -> Self {
        self.is_write = false;
        self
    }

    /// With other statuses that are no refusal.
    pub(super) fn accepting(mut self, accepted: &'static [u16]) -> Self {
        self.accepted = accepted;
        self
    }

    /// How long the node may wait before it answers.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// Whether it changes something.
    pub(super) fn is_write(&self) -> bool {
        self.is_write
    }

    /// Whether it may be asked again although it may have been carried out: it changes nothing, or
    /// it is done once however often it is asked. A name alone does not make sure of that: the
    /// cluster may have forgotten the answer.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.is_write || self.is_named() && self.since.is_some()
    }

    fn is_named(&self) -> bool {
        self.headers.iter().any(|(name, _)| *name == IDEMPOTENCY_KEY)
    }

    /// Whether it may be asked again, of another node, after that failure.
    pub(super) fn may_follow(&self, failure: &CallFailure) -> bool {
        failure.is_of_the_node() && (self.is_repeatable() || failure.outcome() == WriteOutcome::NotApplied)
    }

    /// As hyper sends it; `maybe_done`: it may have been carried out before.
    pub(super) fn to_http(
        &self,
        endpoint: &Endpoint,
        credentials: Option<&Credentials>,
        maybe_done: bool,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, endpoint.host());
        if let Some(credentials) = credentials {
            headers.insert(AUTHORIZATION, credentials.header());
        }
        if self.body.is_empty() && (self.method == Method::POST || self.method == Method::PUT) {
            // Hyper says the length of a body only if there is one.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        // A first attempt says nothing: it must not be refused because its client was idle.
        if let Some(since) = self.since.filter(|_| maybe_done || self.is_repetition) {
            headers.insert(IDEMPOTENCY_SINCE, HeaderValue::from(since.0));
        }
        request
    }

    /// The answer, or what is wrong with it.
    pub(super) fn judge(&self, answer: ReceivedAnswer) -> Result<ReceivedAnswer, CallFailure> {
        let status = answer.status();
        if self.accepted.contains(&status) {
            return Ok(answer);
        }
        let text = quote(&answer.body);
        if !(400..600).contains(&status) {
            return Err(CallFailure::Nonsense(format!("{status} {text}")));
        }
        let is_problem = answer.header(&CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
        let problem =
            if is_problem { serde_json::from_slice::<ProblemBody>(&answer.body).ok() } else { None };
        // A node says that in a problem. A page of a proxy says nothing of a key or of a lease.
        let is_of_v1 = self.target.path().starts_with("/v1/");
        if is_of_v1 && problem.is_none() && matches!(status, 404 | 410 | 412) {
            return Err(CallFailure::Nonsense(format!("{status} {text}")));
        }
        let outcome = problem.as_ref().and_then(|problem| problem.outcome.as_deref());
        let outcome = match outcome.or_else(|| answer.text("infinitystore-outcome")) {
            Some("not-applied" | "not-appended") => WriteOutcome::NotApplied,
            // What the node could not read or would not take, it has not done.
            None if status < 500 => WriteOutcome::NotApplied,
            Some(_) | None => WriteOutcome::Unknown,
        };
        let reason = answer.text("infinitystore-reason").map(|reason| quote(reason.as_bytes()));
        let refusal =
            RefusedCall { status, text, reason, outcome, code: None, revision: None, present: None };
        Err(CallFailure::Refused(match problem {
            None => refusal,
            Some(problem) => RefusedCall {
                text: quote(problem.detail.as_bytes()),
                code: Some(quote(problem.code.as_bytes())),
                revision: problem.revision.map(Revision),
                present: problem.present.and_then(|present| present.try_into().ok()).map(Box::new),
                ..refusal
            },
        }))
    }
}
