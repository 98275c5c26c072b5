//! Answers: a status, one body, and the few headers that some of them carry.

use crate::api::http::account::Account;
use crate::api::http::budget::{Budget, MemoryReservation, MemoryUse};
use crate::api::http::control::Control;
use crate::api::http::sending::Pieces;
use crate::api::http::stream::EventStream;
use crate::api::http::streams::StreamPlace;
use crate::kv::Revision;
use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use std::borrow::Cow;
use std::sync::Arc;

/// A body of that size is part of what every connection needs, and not counted.
const BODY_FREE_BYTES: usize = 8 << 10;

/// Says why a request was refused. The body is fixed by compatibility.
const REASON: HeaderName = HeaderName::from_static("infinitystore-reason");
/// Says of a write that failed whether it may still happen: `unknown`, or that it never will
/// (`not-applied` under `/v1`, `not-appended` elsewhere).
const OUTCOME: HeaderName = HeaderName::from_static("infinitystore-outcome");

/// The store's revision, as of the answer.
const REVISION: HeaderName = HeaderName::from_static("infinitystore-revision");
/// The node's term.
const TERM: HeaderName = HeaderName::from_static("infinitystore-term");
/// The node that answered.
const SERVED_BY: HeaderName = HeaderName::from_static("infinitystore-served-by");

/// Which pages a browser may show an answer to. Whatever it is, it is for none of another origin.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What a client may show (RFC 9110 §11.6.1).
const CHALLENGE: &str = "Bearer realm=\"infinitystore\", Basic realm=\"infinitystore\", charset=\"UTF-8\"";

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Json,
    Problem,
    Raw,
    Text,
    OpenMetrics,
    Events,
}

/// What every answer of the versioned API tells of the node.
#[derive(Debug)]
pub(super) struct ServedBy {
    pub(super) name: HeaderValue,
    pub(super) term: u64,
    /// The store's revision, where the answer itself tells none.
    pub(super) revision: Revision,
}

/// An answer on its way to the client.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content: Content,
    pub(super) body: Bytes,
    /// The header `infinitystore-reason`.
    pub(super) reason: Option<Cow<'static, str>>,
    /// The header `infinitystore-outcome`.
    pub(super) outcome: Option<&'static str>,
    /// Of a write that may have happened, in whatever words that is told.
    pub(super) is_of_unknown_outcome: bool,
    /// The header `retry-after`, one second.
    pub(super) retry: bool,
    /// What few answers have.
    extra: Option<Box<Extra>>,
    /// Its body's part of the budget, if it is large.
    pub(super) held: Option<MemoryReservation>,
    /// Its body is there once, for all clients.
    is_shared: bool,
    /// Whether the connection ends with this answer, since the request was not read to its end.
    pub(super) close: bool,
}

/// What few answers have.
#[derive(Debug, Default)]
struct Extra {
    /// The header `allow`.
    allow: Option<String>,
    /// The header `etag`: a key's revision, or the index of the configuration.
    tag: Option<Revision>,
    /// The header `infinitystore-revision`.
    revision: Option<Revision>,
    /// The node that answers.
    served_by: Option<ServedBy>,
    /// Headers that few answers have.
    more: Vec<(HeaderName, HeaderValue)>,
    /// What follows the body, as it happens.
    stream: Option<Box<dyn EventStream>>,
}

impl Answer {
    fn new(status: StatusCode, content: Content, body: Bytes) -> Self {
        Self {
            status,
            content,
            body,
            reason: None,
            outcome: None,
            is_of_unknown_outcome: false,
            retry: false,
            extra: None,
            held: None,
            is_shared: false,
            close: false,
        }
    }

    /// A JSON body that is known when this is compiled; its newline included.
    pub(super) fn fixed(status: StatusCode, json: &'static str) -> Self {
        Self::new(status, Content::Json, Bytes::from_static(json.as_bytes()))
    }

    /// A JSON body; its newline included.
    pub(super) fn json(status: StatusCode, json: Vec<u8>) -> Self {
        Self::new(status, Content::Json, Bytes::from(json))
    }

    /// `text` as one JSON string and a newline.
    pub(super) fn message(status: StatusCode, text: &str) -> Self {
        let mut json = Vec::with_capacity(text.len() + 3);
        write_json_string(&mut json, text);
        json.push(b'\n');
        Self::json(status, json)
    }

    /// To a request for which there is no memory now.
    pub(super) fn no_room() -> Self {
        Self::fixed(
            StatusCode::SERVICE_UNAVAILABLE,
            "\"too many bytes of requests and answers are held now; try again\"\n",
        )
        .retrying()
    }

    pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::new(status, Content::Text, text.into())
    }

    /// A problem's body.
    pub(super) fn problem(status: StatusCode, json: Vec<u8>) -> Self {
        Self::new(status, Content::Problem, Bytes::from(json))
    }

    /// Bytes of a client.
    pub(super) fn raw(bytes: Bytes) -> Self {
        let is_empty = bytes.is_empty();
        let answer = Self::new(StatusCode::OK, Content::Raw, bytes);
        // Hyper says the length of nothing too, but not to HEAD: there it cannot tell that from a
        // length that is not known.
        if is_empty { answer.with_number("content-length", 0) } else { answer }
    }

    /// What comes piece by piece. An answer to HEAD has nothing of it.
    pub(super) fn streaming(content: Content, stream: Option<Box<dyn EventStream>>) -> Self {
        let mut answer = Self::new(StatusCode::OK, content, Bytes::new());
        answer.extra().stream = stream;
        answer
    }

    /// An answer without a body.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self::new(status, Content::Raw, Bytes::new())
    }

    /// A page that is made once and kept. It takes no memory of a request, however many clients are
    /// sent it.
    pub(super) fn page(content: Content, page: Bytes) -> Self {
        let mut answer = Self::new(StatusCode::OK, content, page);
        answer.is_shared = true;
        answer
    }

    pub(super) fn open_metrics(text: String) -> Self {
        Self::new(StatusCode::OK, Content::OpenMetrics, Bytes::from(text))
    }

    pub(super) fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    pub(super) fn with_outcome(mut self, outcome: &'static str) -> Self {
        self.outcome = Some(outcome);
        self.is_of_unknown_outcome = outcome == "unknown";
        self
    }

    /// With a key's revision as its ETag.
    pub(super) fn tagged(mut self, revision: Revision) -> Self {
        self.extra().tag = Some(revision);
        self
    }

    /// Of what the request accepts, it depends what stands in the body.
    pub(super) fn varying(mut self) -> Self {
        self.extra().more.push((VARY, HeaderValue::from_static("accept")));
        self
    }

    /// As of a revision of the store.
    pub(super) fn at(mut self, revision: Revision) -> Self {
        self.extra().revision = Some(revision);
        self
    }

    /// With a header that is a number.
    pub(super) fn with_number(mut self, name: &'static str, number: u64) -> Self {
        self.extra().more.push((HeaderName::from_static(name), HeaderValue::from(number)));
        self
    }

    /// With what a client may show to say who it is.
    pub(super) fn challenging(mut self) -> Self {
        let challenge = HeaderValue::from_static(CHALLENGE);
        self.extra().more.push((WWW_AUTHENTICATE, challenge));
        self
    }

    pub(super) fn allowing(mut self, methods: String) -> Self {
        self.extra().allow = Some(methods);
        self
    }

    pub(super) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    pub(super) fn retrying(mut self) -> Self {
        self.retry = true;
        self
    }

    /// With its body counted, if that is large; an answer for which there is no room becomes a
    /// refusal.
    pub(super) fn counted(
        mut self,
        (budget, account): (&Arc<Budget>, &Arc<Account>),
        no_room: impl FnOnce() -> Self,
    ) -> Self {
        if self.body.len() > BODY_FREE_BYTES && !self.is_shared {
            match budget.reserve(account, MemoryUse::Answer, self.body.len()) {
                Some(held) => self.held = Some(held),
                None => return no_room(),
            }
        }
        self
    }

    /// From this node.
    pub(super) fn by(mut self, served_by: ServedBy) -> Self {
        self.extra().served_by = Some(served_by);
        self
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// As hyper sends it. `headers` is any map, best the request's own: its memory is used again,
    /// here and by hyper for the next request, so that headers cost no allocation.
    pub(super) fn into_response(self, mut headers: HeaderMap) -> Response<AnswerBody> {
        headers.clear();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(match self.content {
                Content::Json => "application/json",
                Content::Problem => "application/problem+json",
                Content::Raw => "application/octet-stream",
                Content::Events => "text/event-stream",
                Content::Text => "text/plain; charset=utf-8",
                Content::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            }),
        );
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        if let Some(reason) = self.reason {
            headers.insert(REASON, header_value(&reason));
        }
        if let Some(outcome) = self.outcome {
            headers.insert(OUTCOME, HeaderValue::from_static(outcome));
        }
        if self.retry {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let stream = self.extra.and_then(|extra| extra.write(&mut headers));
        if self.content == Content::Events {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if self.status == StatusCode::NOT_MODIFIED {
            headers.remove(CONTENT_TYPE);
        }
        let mut response = Response::new(AnswerBody { bytes: self.body, held: self.held, stream });
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }
}

impl Extra {
    /// Writes the headers; what is left is the stream.
    fn write(self, headers: &mut HeaderMap) -> Option<Box<dyn EventStream>> {
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, header_value(&methods));
        }
        if let Some(tag) = self.tag {
            headers.insert(ETAG, header_value(&format!("\"{tag}\"")));
        }
        if let Some(served_by) = self.served_by {
            headers.insert(REVISION, HeaderValue::from(self.revision.unwrap_or(served_by.revision).0));
            headers.insert(TERM, HeaderValue::from(served_by.term));
            headers.insert(SERVED_BY, served_by.name);
        }
        for (name, value) in self.more {
            headers.insert(name, value);
        }
        self.stream
    }
}

/// A reason may quote what a client sent. Characters that no header may hold become spaces.
pub(super) fn header_value(reason: &str) -> HeaderValue {
    let clean = |byte: u8| if byte.is_ascii_control() { b' ' } else { byte };
    HeaderValue::from_str(reason)
        .or_else(|_| HeaderValue::from_bytes(&reason.bytes().map(clean).collect::<Vec<u8>>()))
        .expect("without control characters every byte may stand in a header")
}

/// A body, and its part of the budget.
#[derive(Debug)]
pub(super) struct AnswerBody {
    pub(super) bytes: Bytes,
    held: Option<MemoryReservation>,
    stream: Option<Box<dyn EventStream>>,
}

impl AnswerBody {
    /// What comes as things happen.
    pub(super) fn stream(&self) -> Option<&dyn EventStream> {
        self.stream.as_deref()
    }

    /// The same answer without its body, as HEAD asks for.
    pub(super) fn without_bytes(self) -> Self {
        Self { bytes: Bytes::new(), ..self }
    }

    /// To be given out on a connection.
    pub(super) fn onto(self, control: &Arc<Control>) -> Pieces {
        Pieces::new(self.bytes, control.clone(), self.held, self.stream)
    }

    /// To be given out on a stream of HTTP/2.
    pub(super) fn onto_stream(self, place: &Arc<StreamPlace>) -> Pieces {
        Pieces::of_stream(self.bytes, place, self.held, self.stream)
    }
}

/// Appends `text` as a JSON string, with its quotes.
pub(super) fn write_json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is always JSON, and a Vec takes all of it");
}
