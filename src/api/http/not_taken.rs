//! Why a request is not taken now.

use crate::api::http::answer::Answer;
use hyper::StatusCode;

/// Why a request is not taken now. Nothing was done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// Its address makes more requests than it may.
    Address,
    /// Its user does.
    User,
    /// Its turn has not come.
    Crowded,
}

impl NotTaken {
    /// For a route of the original.
    pub(super) fn answer(self, is_write: bool) -> Answer {
        let (status, _, detail) = self.words();
        let answer = Answer::message(status, detail).retrying();
        if is_write { answer.with_outcome("not-appended") } else { answer }
    }

    /// What the log calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Address => "--http-rate-per-address",
            Self::User => "--http-rate-per-user",
            Self::Crowded => "--http-requests",
        }
    }

    /// The status, a code for programs, and what to do.
    pub(super) const fn words(self) -> (StatusCode, &'static str, &'static str) {
        let (status, code) = match self {
            Self::Address | Self::User => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests"),
            Self::Crowded => (StatusCode::SERVICE_UNAVAILABLE, "crowded"),
        };
        let detail = match self {
            Self::Address => {
                "your address makes more requests than --http-rate-per-address allows; send fewer, and try again in a second"
            }
            Self::User => {
                "your user, token or certificate makes more requests than --http-rate-per-user allows; send fewer, and try again in a second"
            }
            Self::Crowded => {
                "your address has many requests under way, and so have others; send fewer at a time, and try again"
            }
        };
        (status, code, detail)
    }
}
