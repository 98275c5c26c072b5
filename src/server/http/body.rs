//! Reading a request's body, within its limit and its time.

use crate::server::env::{Env, until};
use crate::server::http::answer::Answer;
use crate::server::http::options::HttpOptions;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};

/// Why a body was not read to its end. The connection ends with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is longer than the limit, bytes.
    TooLarge(usize),
    /// It did not arrive in time.
    Late,
    /// The connection broke, or the chunks make no sense.
    Broken,
}

impl BodyError {
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::TooLarge(limit) => {
                let text = format!("the body is larger than {limit} bytes");
                Answer::message(StatusCode::PAYLOAD_TOO_LARGE, &text)
            }
            Self::Late => Answer::fixed(StatusCode::REQUEST_TIMEOUT, "\"the body did not arrive in time\"\n"),
            Self::Broken => {
                Answer::fixed(StatusCode::BAD_REQUEST, "\"Invalid Body\"\n").because("the body is cut short")
            }
        }
        .closing()
    }
}

/// The whole body. One that arrives in one piece, as almost all do, is not copied.
pub(super) async fn read<E: Env>(
    env: &E,
    options: &HttpOptions,
    mut body: Incoming,
) -> Result<Bytes, BodyError> {
    let limit = options.body_bytes_max;
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge(limit));
    }
    let deadline = env.now().plus(options.body_timeout_seconds * 1_000_000);
    let first = next(env, deadline, &mut body).await?.unwrap_or_default();
    if first.len() > limit {
        return Err(BodyError::TooLarge(limit));
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    while let Some(piece) = next(env, deadline, &mut body).await? {
        if whole.len() + piece.len() > limit {
            return Err(BodyError::TooLarge(limit));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The next piece, or `None` at the end. Trailers are skipped.
async fn next<E: Env>(
    env: &E,
    deadline: crate::raft::Time,
    body: &mut Incoming,
) -> Result<Option<Bytes>, BodyError> {
    loop {
        match until(env, deadline, body.frame()).await {
            None => return Err(BodyError::Late),
            Some(None) => return Ok(None),
            Some(Some(Err(_))) => return Err(BodyError::Broken),
            Some(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
