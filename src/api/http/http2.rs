//! A connection that speaks HTTP/2: hyper's, watched from outside as one of HTTP/1 is.
//!
//! Requests are the same, and so are handlers, budget, time-outs and the end of a server. What is
//! different: several requests are under way at once, each in a task of its own, and a client can
//! make work with frames that are no requests. `streams` watches the former, `frames` the latter.

use crate::api::http::answer::{Answer, AnswerBody};
use crate::api::http::budget::{MemoryReservation, MemoryUse};
use crate::api::http::context::Context;
use crate::api::http::control::{Control, Order, Phase};
use crate::api::http::dispatch::dispatch;
use crate::api::http::frames::{FrameLimits, Frames};
use crate::api::http::linger::linger;
use crate::api::http::remote_end::RemoteEnd;
use crate::api::http::route::is_versioned;
use crate::api::http::secured::{Secured, note_caller};
use crate::api::http::sending::Pieces;
use crate::api::http::streams::{StreamPlace, Streams};
use crate::api::http::v1::problem::Problem;
use crate::runtime::Env;
use crate::tls::Stream;
use bytes::{Buf, Bytes};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How every connection of HTTP/2 begins (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a stream takes beside its body and its answer: its task, its headers, a small answer. The
/// first of a connection is part of what every connection needs, and not counted.
const STREAM_BYTES: usize = 16 << 10;
/// Headers up to so many bytes are part of that.
const HEAD_FREE_BYTES: usize = 8 << 10;
/// What a header takes beside its name and its value: a place in a map that doubles when it is
/// full.
const HEADER_BYTES: usize = 192;
/// So many times the bytes of a head, as HTTP/2 counts them (32 for a header beside its name and
/// its value), is what h2 may make of it.
const HEAD_FACTOR: usize = 8;
/// So much of a body may be on its way before anybody reads it.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same, of all bodies of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of an answer that h2 asks for in advance. A stream has one piece on its way at a time.
const SEND_BUFFER_BYTES: usize = 16 << 10;

/// Serves a connection, whose preface has been read, to its end. `ahead` is what was read of it
/// beyond that.
pub(super) async fn serve<E: Env>(
    context: Arc<Context<E>>,
    (control, streams): (Arc<Control>, Arc<Streams>),
    (ahead, (stream, shown)): (Bytes, Secured<E>),
    peer: Arc<RemoteEnd>,
) {
    control.enter(Phase::Idle, context.tick());
    let back = Arc::new(Mutex::new(None));
    let limits = FrameLimits {
        resets_max: context.options.http2_resets_per_second_max,
        others_max: context.options.http2_frames_per_second_max,
    };
    let watched = Watched {
        preface: Bytes::from_static(PREFACE),
        ahead,
        stream: Some(stream),
        frames: Frames::new(limits),
        unfinished_head: None,
        context: context.clone(),
        peer: peer.clone(),
        control: control.clone(),
        is_flooded: false,
        back: back.clone(),
    };
    let service = service_fn({
        let (context, streams) = (context.clone(), streams.clone());
        let peer = peer.clone();
        // Not in the future: the stream is open before its task begins.
        move |mut request| {
            note_caller(&mut request, shown.as_ref());
            answer((context.clone(), peer.clone()), streams.open(), streams.count(), request)
        }
    });
    let tasks = StreamTasks { context: context.clone(), peer: peer.clone(), streams: streams.clone() };
    let header_bytes_max = u32::try_from(context.options.header_bytes_max).unwrap_or(u32::MAX);
    let mut connection = http2::Builder::new(tasks)
        .max_concurrent_streams(context.options.http2_streams_max)
        .max_header_list_size(header_bytes_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .serve_connection(TokioIo::new(watched), service);

    let finish = |connection: Pin<&mut http2::Connection<_, _, _>>| {
        connection.graceful_shutdown();
        streams.tell(Order::Finish);
    };
    let ended = control.drive(&mut connection, finish).await;
    if let Some(Err(error)) = &ended {
        tracing::debug!(from = %peer.address, error = error as &dyn std::error::Error, "http/2 connection failed");
    }
    drop(connection);
    streams.tell(Order::Abort);
    let stream = back.lock().unwrap_or_else(PoisonError::into_inner).take();
    // What the client still sends, a window's update say, must not make the system throw away what
    // it was sent last.
    if let (Some(_), Some(mut stream)) = (ended, stream) {
        linger(&context.env, &mut stream).await;
    }
}

/// Answers one request. `open` streams are there, with this one.
async fn answer<E: Env>(
    (context, peer): (Arc<Context<E>>, Arc<RemoteEnd>),
    place: Arc<StreamPlace>,
    open: usize,
    request: Request<Incoming>,
) -> Result<Response<Pieces>, Infallible> {
    let control = place.control();
    let beside = head_bytes(&request).saturating_sub(HEAD_FREE_BYTES);
    let stream_bytes = if open > 1 { STREAM_BYTES } else { 0 } + beside;
    let body = request.body();
    // What h2 may hold of it until the handler reads it, which counts by itself.
    let window_bytes = if body.is_end_stream() {
        0
    } else {
        let window = u64::from(STREAM_WINDOW_BYTES);
        usize::try_from(body.size_hint().exact().unwrap_or(window).min(window)).unwrap_or_default()
    };
    let part = |bytes| (bytes > 0).then(|| context.budget.reserve(&peer.account, MemoryUse::Request, bytes));
    let (stream, window) = (part(stream_bytes), part(window_bytes));
    let is_head = request.method() == Method::HEAD;
    let mut response = if matches!(stream, Some(None)) || matches!(window, Some(None)) {
        no_room(&request).into_response(HeaderMap::new())
    } else {
        if let Some(part) = stream.flatten() {
            place.hold(part);
        }
        let dispatched = dispatch(&context, (&peer, control), request).await;
        place.judged();
        dispatched.response
    };
    drop(window);
    if is_head && !response.body().bytes.is_empty() {
        // Hyper leaves a body out for HTTP/1 alone.
        let length = HeaderValue::from(response.body().bytes.len());
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response = response.map(AnswerBody::without_bytes);
    }
    let body = response.body();
    if body.stream().is_some() {
        // Hyper goes on reading a connection of HTTP/2: it notices by itself that a client is gone.
        control.begin_streaming(false, context.tick());
        // Nobody waits for its head to leave: the first piece follows at once.
        place.flushed();
    } else {
        let allowance = body.bytes.len() / context.options.write_bytes_per_second_min;
        control.begin_sending(allowance, context.tick());
    }
    Ok(response.map(|body| body.onto_stream(&place)))
}

/// In the words of the route.
fn no_room(request: &Request<Incoming>) -> Answer {
    if !is_versioned(request.uri().path()) {
        return Answer::no_room().with_outcome("not-appended");
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let problem = Problem::no_room();
    if is_read { problem } else { problem.not_applied() }.answer()
}

/// What a request's headers take.
fn head_bytes(request: &Request<Incoming>) -> usize {
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, str::len);
    let header = |(name, value): (&hyper::header::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_BYTES
    };
    target + request.headers().iter().map(header).sum::<usize>()
}

/// Starts a task for each stream, that ends when the stream is told to.
struct StreamTasks<E: Env> {
    context: Arc<Context<E>>,
    peer: Arc<RemoteEnd>,
    streams: Arc<Streams>,
}

impl<E: Env> Clone for StreamTasks<E> {
    fn clone(&self) -> Self {
        Self { context: self.context.clone(), peer: self.peer.clone(), streams: self.streams.clone() }
    }
}

impl<E: Env, F: Future<Output = ()> + Send + 'static> Executor<F> for StreamTasks<E> {
    fn execute(&self, stream: F) {
        // Hyper has it begun right after the service was called for it.
        let Some(control) = self.streams.take_latest() else { return self.context.env.spawn(stream) };
        let mut stream = Box::pin(stream);
        let told = control.clone();
        let is_told_to_end = move || told.order() == Order::Abort;
        let line = self.peer.account.line();
        self.context.env.spawn(self.context.rounds.take_part(line, is_told_to_end, async move {
            let mut registered = None;
            poll_fn(|cx| {
                control.register(&mut registered, cx.waker());
                if control.order() == Order::Abort {
                    return Poll::Ready(());
                }
                stream.as_mut().poll(cx)
            })
            .await;
        }));
    }
}

/// A stream of bytes whose frames are looked at as they come.
struct Watched<E: Env> {
    /// What is left of the preface: it has been read already, and h2 wants it.
    preface: Bytes,
    /// What was read behind it.
    ahead: Bytes,
    /// There until the end.
    stream: Option<Stream<E::Stream>>,
    frames: Frames,
    /// The part of the budget for a block of headers that has begun and not ended. h2 reads what
    /// has come of it at once.
    unfinished_head: Option<MemoryReservation>,
    context: Arc<Context<E>>,
    peer: Arc<RemoteEnd>,
    control: Arc<Control>,
    /// The client sends too many frames: it is not listened to any more.
    is_flooded: bool,
    /// Where the stream goes at the end.
    back: Arc<Mutex<Option<Stream<E::Stream>>>>,
}

impl<E: Env> Watched<E> {
    fn stream(&mut self) -> Pin<&mut Stream<E::Stream>> {
        Pin::new(self.stream.as_mut().expect("it is there until this is dropped"))
    }

    /// Looks at what was read just now.
    fn look_at(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(flood) = self.frames.look_at(bytes, self.context.tick()) {
            self.is_flooded = true;
            return Err(io::Error::other(flood));
        }
        self.control.set_incomplete_since(self.frames.incomplete_since());
        if !self.frames.is_within_headers() {
            self.unfinished_head = None;
        } else if self.unfinished_head.is_none() {
            let bytes = HEAD_FACTOR * self.context.options.header_bytes_max;
            let held = self.context.budget.reserve(&self.peer.account, MemoryUse::Request, bytes);
            self.unfinished_head = Some(held.ok_or(io::ErrorKind::OutOfMemory)?);
        }
        Ok(())
    }
}

/// Moves what fits.
fn take_ahead(from: &mut Bytes, buffer: &mut ReadBuf<'_>) {
    let count = from.len().min(buffer.remaining());
    buffer.put_slice(&from[..count]);
    from.advance(count);
}

impl<E: Env> AsyncRead for Watched<E> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.preface.is_empty() {
            take_ahead(&mut self.preface, buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if self.ahead.is_empty() {
            ready!(self.stream().poll_read(cx, buffer))?;
        } else {
            take_ahead(&mut self.ahead, buffer);
        }
        Poll::Ready(self.look_at(&buffer.filled()[before..]))
    }
}

impl<E: Env> AsyncWrite for Watched<E> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream().poll_write(cx, bytes))?;
        self.frames.note_sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream().poll_write_vectored(cx, slices))?;
        self.frames.note_sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

impl<E: Env> Drop for Watched<E> {
    fn drop(&mut self) {
        if !self.is_flooded {
            *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.take();
        }
    }
}
