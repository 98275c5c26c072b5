//! Reading a request's body, within its limit, its time and the budget of memory.

use crate::api::http::admission::go_on;
use crate::api::http::answer::Answer;
use crate::api::http::budget::{MemoryReservation, MemoryUse};
use crate::api::http::context::Context;
use crate::api::http::crowd::Crowd;
use crate::api::http::not_taken::NotTaken;
use crate::api::http::route::Call;
use crate::raft::Time;
use crate::runtime::{Env, until};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;

/// How often a body is counted: as it is held here, and as the command that is made of it.
const COPIES: usize = 2;
/// What a request needs beside its body's bytes: the buffer that hyper reads into, and its place in
/// the queues.
const OVERHEAD_BYTES: usize = 4 << 10;
/// Room for a body that does not come in one piece, at first.
const FIRST_BYTES: usize = 16 << 10;

/// A body of a refused request is waited for if it is this small, …
const SMALL_BYTES: u64 = 64 << 10;
/// … and no longer than this, microseconds.
const SMALL_MICROS: u64 = 1_000_000;

/// Why a body was not read to its end. The connection ends with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is longer than the limit, bytes.
    TooLarge(usize),
    /// There is no room for it now.
    NoRoom,
    /// It did not arrive in time.
    Late,
    /// The connection broke, or the chunks make no sense.
    Broken,
    /// The request's turn has not come.
    NotTaken(NotTaken),
}

impl BodyError {
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::TooLarge(limit) => {
                let text = format!("the body is larger than {limit} bytes");
                Answer::message(StatusCode::PAYLOAD_TOO_LARGE, &text)
            }
            Self::NoRoom => Answer::no_room().with_outcome("not-appended"),
            Self::Late => Answer::fixed(StatusCode::REQUEST_TIMEOUT, "\"the body did not arrive in time\"\n"),
            Self::Broken => {
                Answer::fixed(StatusCode::BAD_REQUEST, "\"Invalid Body\"\n").because("the body is cut short")
            }
            Self::NotTaken(not_taken) => return not_taken.answer(true),
        }
        .closing()
    }
}

/// The whole body of a call, of at most `limit` bytes, and its part of the budget, to be kept until
/// the request is answered. One that arrives in one piece, as almost all do, is not copied.
///
/// A request whose body is not there yet is not under way until it is.
pub(super) async fn read<E: Env>(
    context: &Context<E>,
    call: &mut Call,
    limit: usize,
) -> Result<(Bytes, MemoryReservation), BodyError> {
    let body = call.take_body();
    let place = call.place.take();
    let (read, place) = {
        let mut reading = pin!(read_whole(context, call, body, limit));
        match poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
            Poll::Ready(read) => (read?, place),
            Poll::Pending => {
                drop(place);
                let read = reading.await?;
                (read, Some(go_on(context, &call.peer).await.map_err(BodyError::NotTaken)?))
            }
        }
    };
    call.place = place;
    Ok(read)
}

async fn read_whole<E: Env>(
    context: &Context<E>,
    call: &Call,
    mut body: Incoming,
    limit: usize,
) -> Result<(Bytes, MemoryReservation), BodyError> {
    let account = &call.peer.account;
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        return Err(BodyError::TooLarge(limit));
    }
    let announced = hint.exact().and_then(|length| usize::try_from(length).ok());
    // One that certainly does not fit is refused at once. But room is taken as the body comes: a
    // client that announces a lot and sends little holds little.
    let longest = announced.unwrap_or(limit);
    if !context.budget.has_room(account, MemoryUse::Request, cost(announced.unwrap_or_default())) {
        return Err(BodyError::NoRoom);
    }
    let first_bytes = longest.min(FIRST_BYTES);
    let mut held =
        context.budget.reserve(account, MemoryUse::Request, cost(first_bytes)).ok_or(BodyError::NoRoom)?;
    let crowd = Crowd { crowded: context.crowded.load(Ordering::Relaxed), is_known: call.is_known() };
    let patience_seconds = crowd.part_of(context.options.body_timeout_seconds);
    let deadline = context.env.now().plus(patience_seconds * 1_000_000);
    let first = next(&context.env, deadline, &mut body).await?.unwrap_or_default();
    if first.len() > limit {
        return Err(BodyError::TooLarge(limit));
    }
    if body.is_end_stream() {
        return if held.resize(cost(first.len())) { Ok((first, held)) } else { Err(BodyError::NoRoom) };
    }
    let mut whole = BytesMut::new();
    // The first piece may be longer than what was reserved for it.
    let room = first_bytes.max(first.len());
    if !held.resize(cost(room)) {
        return Err(BodyError::NoRoom);
    }
    whole.reserve(room);
    let mut piece = Some(first);
    while let Some(bytes) = piece {
        let length = whole.len() + bytes.len();
        if length > limit {
            return Err(BodyError::TooLarge(limit));
        }
        if length > whole.capacity() {
            // Counted twice, which covers the old memory beside the new while it moves.
            let room = length.max(2 * whole.capacity()).min(longest.max(length));
            if !held.resize(cost(room)) {
                return Err(BodyError::NoRoom);
            }
            whole.reserve(room - whole.len());
        }
        whole.extend_from_slice(&bytes);
        piece = next(&context.env, deadline, &mut body).await?;
    }
    Ok((whole.freeze(), held))
}

/// Lets a small body come that nobody reads. A stream of HTTP/2 whose request is answered before is
/// called back, and clients that are still sending take that for a failure. One of HTTP/1 would end
/// the connection.
///
/// Whether all of it has come.
pub(super) async fn let_come<E: Env>(env: &E, mut body: Incoming) -> bool {
    if body.size_hint().exact().is_none_or(|bytes| bytes > SMALL_BYTES) {
        return body.is_end_stream();
    }
    let deadline = env.now().plus(SMALL_MICROS);
    while let Ok(Some(_)) = next(env, deadline, &mut body).await {}
    body.is_end_stream()
}

fn cost(body_bytes: usize) -> usize {
    COPIES * body_bytes + OVERHEAD_BYTES
}

/// The next piece, or `None` at the end. Trailers are skipped.
async fn next<E: Env>(env: &E, deadline: Time, body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
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
