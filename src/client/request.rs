//! A request as this client makes it, and what it takes for an answer.

use crate::client::connection::ReceivedAnswer;
use crate::client::endpoint::Endpoint;
use crate::client::error::{CallFailure, RefusedCall, WriteOutcome, quote};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue};
use hyper::http::uri::Uri;
use hyper::{Method, Request};

/// A request, to whichever node.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    method: Method,
    target: Uri,
    body: Bytes,
    /// Statuses that are no refusal.
    accepted: &'static [u16],
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

    fn new(
        method: Method,
        target: String,
        body: Bytes,
        accepted: &'static [u16],
    ) -> Result<Self, CallFailure> {
        let target = Uri::try_from(target).map_err(|error| CallFailure::Unaskable(error.to_string()))?;
        Ok(Self { method, target, body, accepted })
    }

    /// Whether it may be asked again although it may have been answered.
    pub(super) fn is_safe(&self) -> bool {
        self.method == Method::GET
    }

    /// Whether it may be asked again, of another node, after that failure.
    pub(super) fn may_follow(&self, failure: &CallFailure) -> bool {
        failure.is_of_the_node() && (self.is_safe() || failure.outcome() == WriteOutcome::NotApplied)
    }

    /// As hyper sends it.
    pub(super) fn to_http(&self, endpoint: &Endpoint) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        request.headers_mut().insert(HOST, endpoint.host());
        if self.method == Method::POST && self.body.is_empty() {
            // Hyper says the length of a body only if there is one.
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        request
    }

    /// The status and the body of an answer, or what is wrong with it.
    pub(super) fn judge(&self, answer: ReceivedAnswer) -> Result<(u16, Bytes), CallFailure> {
        let status = answer.head.status.as_u16();
        if self.accepted.contains(&status) {
            return Ok((status, answer.body));
        }
        let text = quote(&answer.body);
        if !(400..600).contains(&status) {
            return Err(CallFailure::Nonsense(format!("{status} {text}")));
        }
        let header = |name: &str| answer.head.headers.get(name);
        let outcome = match header("infinitystore-outcome") {
            Some(outcome) if outcome == "not-appended" => WriteOutcome::NotApplied,
            // What the node could not read or would not take, it has not done.
            None if status < 500 => WriteOutcome::NotApplied,
            Some(_) | None => WriteOutcome::Unknown,
        };
        let reason = header("infinitystore-reason").map(|reason| quote(reason.as_bytes()));
        Err(CallFailure::Refused(RefusedCall { status, text, reason, outcome }))
    }
}
