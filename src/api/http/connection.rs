//! One connection: hyper's, watched from outside.
//!
//! Each connection shares a [`Control`] with the server. The connection notes there what it waits
//! for and since when; the server's sweep reads it, and tells a connection that is overdue, or not
//! wanted any more, to end.
//!
//! Every connection begins as one of HTTP/1. One that begins with the preface of HTTP/2 is handed
//! on to `http2`. The others pay one comparison for that: nothing is read or copied twice.

use crate::api::http::budget::{MemoryReservation, MemoryUse};
use crate::api::http::context::Context;
use crate::api::http::control::{Control, Phase};
use crate::api::http::dispatch::dispatch;
use crate::api::http::http2::{self, PREFACE};
use crate::api::http::linger::linger;
use crate::api::http::remote_end::RemoteEnd;
use crate::api::http::request_line::RequestLine;
use crate::api::http::secured::{Secured, note_caller};
use crate::api::http::streams::Streams;
use crate::runtime::Env;
use crate::tls::Stream;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Hyper's smallest buffer, bytes.
const HEAD_BYTES_MIN: usize = 8 << 10;
/// A read buffer of that size is part of what every connection needs, and not counted.
const READ_BUFFER_FREE_BYTES: usize = 16 << 10;
/// The answer to a request whose head is so long that there is no memory for it now.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
    retry-after: 1\r\ninfinitystore-outcome: not-appended\r\ncontent-length: 54\r\n\r\n\
    \"too many bytes of requests and answers are held now\"\n";
/// The answer to a request whose target has a `#` in it.
const NUMBER_SIGN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\
    infinitystore-outcome: not-appended\r\ncontent-length: 76\r\n\r\n\
    \"the request line has a # in it: write it as %23 in a key, or leave it out\"\n";

/// Serves a connection to its end.
pub(super) async fn serve<E: Env>(
    context: Arc<Context<E>>,
    (control, streams): (Arc<Control>, Arc<Streams>),
    (stream, shown): Secured<E>,
    peer: Arc<RemoteEnd>,
) {
    let watched = Watched {
        beginning: Beginning::Preface(0),
        stream,
        context: context.clone(),
        peer: peer.clone(),
        control: control.clone(),
        ahead: None,
        head_bytes: 0,
        line: RequestLine::default(),
        last_room: 0,
        held: None,
    };
    let service = service_fn({
        let (context, control) = (context.clone(), control.clone());
        let shown = shown.clone();
        let peer = peer.clone();
        move |mut request| {
            note_caller(&mut request, shown.as_ref());
            let (context, control, peer) = (context.clone(), control.clone(), peer.clone());
            async move {
                // A client that pipelines and does not read is served no faster than it reads.
                poll_fn(|_| control.poll_flushed()).await;
                control.enter(Phase::Answering, context.tick());
                let answer = dispatch(&context, (&peer, &control), request).await;
                if answer.close {
                    control.linger.store(true, Ordering::Relaxed);
                }
                let body = answer.response.body();
                if let Some(stream) = body.stream() {
                    control.begin_streaming(stream.ends_with_client(), context.tick());
                    return Ok::<_, Infallible>(answer.response.map(|body| body.onto(&control)));
                }
                let length = body.bytes.len();
                control.begin_sending(length / context.options.write_bytes_per_second_min, context.tick());
                Ok::<_, Infallible>(answer.response.map(|body| body.onto(&control)))
            }
        }
    });
    let mut connection = http1::Builder::new()
        // Its time-outs are the sweep's; hyper would set up and tear down a timer for each request.
        .header_read_timeout(None)
        .max_header_size(context.options.header_bytes_max)
        .max_buf_size(context.options.header_bytes_max.max(HEAD_BYTES_MIN))
        // A client may close its side after the request and still wait for the answer, as `nc -N`
        // does. Only what waits for something to happen ends then: `Watched::look_for_end`.
        .half_close(true)
        // Answers are small: one copy and one plain write cost less than a vectored one.
        .writev(false)
        .serve_connection(TokioIo::new(watched), service);

    let ended = control.drive(&mut connection, |connection| connection.graceful_shutdown()).await;

    let Watched { mut stream, held, beginning, .. } = connection.into_parts().io.into_inner();
    drop(held);
    if let (Some(_), Beginning::Http2(ahead)) = (&ended, beginning) {
        return http2::serve(context, (control, streams), (ahead, (stream, shown)), peer).await;
    }
    // Hyper answers a head that makes no sense, or is too large, by itself, and ends.
    let unread = match &ended {
        Some(Ok(())) => control.linger.load(Ordering::Relaxed),
        Some(Err(error)) => {
            tracing::debug!(from = %peer.address, %error, "http connection failed");
            error.is_parse()
        }
        None => false,
    };
    let refusal = ended.as_ref().and_then(|_| control.head_refusal.get().copied());
    if unread || refusal.is_some() {
        // After a piece of an answer, another one would be read as a part of it.
        if let Some(refusal) = refusal
            && control.poll_flushed().is_ready()
            && stream.write_all(refusal).await.is_err()
        {
            return;
        }
        linger(&context.env, &mut stream).await;
    }
}

/// A stream that notes its progress in the connection's [`Control`], and counts what hyper's read
/// buffer holds.
struct Watched<E: Env> {
    beginning: Beginning,
    stream: Stream<E::Stream>,
    context: Arc<Context<E>>,
    peer: Arc<RemoteEnd>,
    control: Arc<Control>,
    /// What was read while hyper did not want anything.
    ahead: Option<u8>,
    /// Bytes of the head at hand that were read so far; 0 outside of one.
    head_bytes: usize,
    /// The line of that head.
    line: RequestLine,
    /// The room that hyper offered for the last read, bytes.
    last_room: usize,
    /// The part of the budget for what its buffer takes beyond [`READ_BUFFER_FREE_BYTES`].
    held: Option<MemoryReservation>,
}

/// How a connection begins.
enum Beginning {
    /// So many bytes have come, and all of them are the preface's of HTTP/2. Hyper has not been
    /// given them.
    Preface(usize),
    /// As one of HTTP/1.
    Http1,
    /// As one of HTTP/2; what has come behind the preface.
    Http2(Bytes),
}

impl<E: Env> Watched<E> {
    /// Reads the beginning of a connection, of which `matched` bytes have come. They may come one
    /// by one.
    fn poll_beginning(
        &mut self,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
        mut matched: usize,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut rest = [0; PREFACE.len()];
            let before = buffer.filled().len();
            if matched == 0 {
                ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            } else {
                // Not more, so that all of it fits if it is no preface.
                let mut few = ReadBuf::new(&mut rest[..PREFACE.len() - matched]);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut few))?;
                buffer.put_slice(few.filled());
            }
            let new = &buffer.filled()[before..];
            let same = new.iter().zip(&PREFACE[matched..]).take_while(|(one, other)| one == other).count();
            if matched + same == PREFACE.len() {
                self.beginning = Beginning::Http2(Bytes::copy_from_slice(&new[same..]));
                buffer.set_filled(before);
                // Ends hyper's HTTP/1.
                return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
            }
            if same < new.len() || new.is_empty() {
                self.beginning = Beginning::Http1;
                if matched > 0 {
                    let new = rest;
                    let count = buffer.filled().len() - before;
                    buffer.set_filled(before);
                    buffer.put_slice(&PREFACE[..matched]);
                    buffer.put_slice(&new[..count]);
                }
                return Poll::Ready(Ok(()));
            }
            matched += same;
            self.beginning = Beginning::Preface(matched);
            buffer.set_filled(before);
        }
    }

    /// Looks whether the client has closed its side while it watches, or waits for something to
    /// happen: then it is gone. Hyper reads nothing before an answer has ended, so that a watch
    /// would go on until a write fails, and a candidate for a lock would win it for nobody.
    ///
    /// A byte of a next request ends the looking. Hyper gets it first.
    ///
    /// # Errors
    /// The client is gone.
    fn look_for_end(&mut self, cx: &mut TaskContext<'_>) -> io::Result<()> {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        if self.ahead.is_some() || Pin::new(&mut self.stream).poll_read(cx, &mut byte)?.is_pending() {
            return Ok(());
        }
        self.ahead = byte.filled().first().copied();
        self.ahead.map(|_| ()).ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }

    /// Counts hyper's read buffer, which has `room` left; whether the budget has that much. Nothing
    /// is counted, and no atomic touched, for the small buffers that almost all connections have.
    fn count_buffer(&mut self, room: usize) -> bool {
        // Until this read is over, the buffer may still be the one that the last read was offered.
        let buffer = self.head_bytes + room.max(std::mem::replace(&mut self.last_room, room));
        let bytes = buffer.saturating_sub(READ_BUFFER_FREE_BYTES);
        match &mut self.held {
            None if bytes == 0 => true,
            None => {
                self.held = self.context.budget.reserve(&self.peer.account, MemoryUse::Request, bytes);
                self.held.is_some()
            }
            Some(_) if bytes == 0 => {
                self.held = None;
                true
            }
            Some(held) => held.resize(bytes),
        }
    }
}

impl<E: Env> AsyncRead for Watched<E> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let phase = self.control.phase();
        if phase != Phase::Head {
            self.head_bytes = 0;
            self.line = RequestLine::default();
        }
        // A body is counted by itself, hyper's buffer included.
        if !self.count_buffer(buffer.remaining()) && phase != Phase::Answering {
            let _first = self.control.head_refusal.set(NO_ROOM);
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        let before = buffer.filled().len();
        let polled = match self.beginning {
            _ if self.ahead.is_some() => {
                buffer.put_slice(self.ahead.take().as_slice());
                Poll::Ready(Ok(()))
            }
            Beginning::Preface(matched) => self.poll_beginning(cx, buffer, matched),
            Beginning::Http1 | Beginning::Http2(_) => Pin::new(&mut self.stream).poll_read(cx, buffer),
        };
        if polled.is_ready() || matches!(self.beginning, Beginning::Preface(1..)) {
            self.head_bytes += buffer.filled().len() - before;
            if matches!(phase, Phase::Idle | Phase::Head) && self.line.look_at(&buffer.filled()[before..]) {
                let _first = self.control.head_refusal.set(NUMBER_SIGN);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if phase == Phase::Idle {
                self.control.enter(Phase::Head, self.context.tick());
            }
        }
        polled
    }
}

impl<E: Env> AsyncWrite for Watched<E> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Hyper calls this when its own buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.control.flushed(self.context.tick());
            if self.control.is_watched() {
                self.look_for_end(cx)?;
            }
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        if matches!(self.beginning, Beginning::Http2(_)) || self.control.head_refusal.get().is_some() {
            // It goes on without hyper's HTTP/1, or has to be told something yet.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
