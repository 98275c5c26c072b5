//! What went wrong, as `application/problem+json` (RFC 9457).

use crate::api::http::answer::Answer;
use crate::api::http::body::BodyError;
use crate::api::http::not_taken::NotTaken;
use crate::api::http::v1::json::Json;
use crate::api::service::{ErrorCode, ServiceError, WriteOutcome};
use crate::kv::{KeyValue, Revision};
use hyper::StatusCode;
use std::borrow::Cow;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api::http) struct Problem {
    pub(in crate::api::http) status: StatusCode,
    /// Names the kind of problem, for programs.
    pub(super) code: &'static str,
    /// What to do, for people.
    pub(super) detail: Cow<'static, str>,
    /// What is known of the write; `None` for a read.
    outcome: Option<WriteOutcome>,
    /// What stands in the way.
    present: Option<Box<KeyValue>>,
    /// What the code is about.
    revision: Option<Revision>,
    /// The configuration as it is, where another one was expected.
    configuration: Option<u64>,
    /// Whether the connection ends, since the request was not read to its end.
    close: bool,
}

impl Problem {
    pub(in crate::api::http) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            outcome: None,
            present: None,
            revision: None,
            configuration: None,
            close: false,
        }
    }

    /// 400.
    pub(super) fn bad(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// Of a write that has not happened, unless it is known better.
    #[must_use]
    pub(in crate::api::http) fn not_applied(mut self) -> Self {
        self.outcome.get_or_insert(WriteOutcome::NotApplied);
        self
    }

    /// Marks the problem of a write that may have happened.
    #[must_use]
    pub(in crate::api::http) fn of_unknown_outcome(mut self) -> Self {
        self.outcome = Some(WriteOutcome::Unknown);
        self
    }

    #[must_use]
    pub(in crate::api::http) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// No memory for the request, or for its answer.
    pub(in crate::api::http) fn no_room() -> Self {
        let detail = "too many bytes of requests and answers are held now; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no-memory", detail)
    }

    /// As it is sent.
    pub(in crate::api::http) fn answer(self) -> Answer {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut json = Json::object();
        json.text("type", "about:blank").text("title", title);
        json.number("status", u64::from(self.status.as_u16())).text("code", self.code);
        json.text("detail", &self.detail);
        if let Some(outcome) = self.outcome {
            json.text("outcome", outcome.name());
        }
        if let Some(revision) = self.revision {
            json.number("revision", revision.0);
        }
        if let Some(configuration) = self.configuration {
            json.number("configuration", configuration);
        }
        if let Some(present) = &self.present {
            json.field("present").versions(present);
        }
        let mut answer = Answer::problem(self.status, json.end_line());
        if let Some(outcome) = self.outcome {
            answer = answer.with_outcome(outcome.name());
        }
        // Here it is the store's, as of which the condition did not hold.
        if let (StatusCode::PRECONDITION_FAILED, Some(revision)) = (self.status, self.revision) {
            answer = answer.at(revision);
        }
        // The present ETag of a failed condition. Of a lock's holder it would say nothing.
        if let Some(present) = self.present.filter(|_| self.status == StatusCode::PRECONDITION_FAILED) {
            answer = answer.tagged(present.mod_revision);
        }
        if let Some(configuration) = self.configuration {
            answer = answer.tagged(Revision(configuration));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            answer = answer.challenging();
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS {
            answer = answer.retrying();
        }
        if self.close { answer.closing() } else { answer }
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        Self {
            outcome: error.outcome,
            present: error.present,
            revision: error.revision,
            configuration: error.configuration,
            ..Self::new(status_of(error.code), error.code.name(), error.detail)
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let problem = match error {
            BodyError::TooLarge(limit) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                format!("the body is larger than {limit} bytes"),
            ),
            BodyError::NoRoom => Self::no_room(),
            BodyError::Late => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "body-late", "the body did not arrive in time")
            }
            BodyError::Broken => Self::bad("body-broken", "the body is cut short"),
            BodyError::NotTaken(not_taken) => return not_taken.into(),
        };
        problem.closing()
    }
}

impl From<NotTaken> for Problem {
    fn from(not_taken: NotTaken) -> Self {
        let (status, code, detail) = not_taken.words();
        Self::new(status, code, detail)
    }
}

/// The status of a code.
fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::EmptyKey
        | ErrorCode::EmptyRange
        | ErrorCode::TooManySteps
        | ErrorCode::TooDeep
        | ErrorCode::PutTwice
        | ErrorCode::PutIntoDeleted
        | ErrorCode::BadIdempotencyKey
        | ErrorCode::BadIdempotencySince
        | ErrorCode::BadOrder
        | ErrorCode::WrongName
        | ErrorCode::BadPassword
        | ErrorCode::BadName => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::NoLease
        | ErrorCode::NotHolder
        | ErrorCode::NoMember
        | ErrorCode::NoUser
        | ErrorCode::NoRole
        | ErrorCode::NoToken
        | ErrorCode::NoGrant
        | ErrorCode::NoAlarm => StatusCode::NOT_FOUND,
        ErrorCode::LeaseExists
        | ErrorCode::FutureRevision
        | ErrorCode::AnswerForgotten
        | ErrorCode::NotANumber
        | ErrorCode::Overflow
        | ErrorCode::NameTaken
        | ErrorCode::NodeHasData
        | ErrorCode::NodeUnreachable
        | ErrorCode::AmbiguousMember
        | ErrorCode::BadChange
        | ErrorCode::WouldLoseQuorum
        | ErrorCode::CannotLead
        | ErrorCode::UserExists
        | ErrorCode::RoleExists
        | ErrorCode::TokenExists
        | ErrorCode::WouldLockOut
        | ErrorCode::NoAdministrator
        | ErrorCode::BuiltIn
        | ErrorCode::Held => StatusCode::CONFLICT,
        ErrorCode::Compacted => StatusCode::GONE,
        ErrorCode::ConditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorCode::KeyTooLarge
        | ErrorCode::ValueTooLarge
        | ErrorCode::CommandTooLarge
        | ErrorCode::RevisionTooLarge
        | ErrorCode::TooManyChanges => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::QuotaExceeded | ErrorCode::DiskFull | ErrorCode::SecurityFull => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        ErrorCode::NoLeader
        | ErrorCode::Overloaded
        | ErrorCode::Stopping
        | ErrorCode::Removed
        | ErrorCode::Joining
        | ErrorCode::Starting
        | ErrorCode::Refused
        | ErrorCode::Stale
        | ErrorCode::ChangePending
        | ErrorCode::NoQuorum => StatusCode::SERVICE_UNAVAILABLE,
    }
}
