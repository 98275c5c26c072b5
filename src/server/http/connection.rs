//! One connection: hyper's, watched from outside.
//!
//! Each connection shares a [`Control`] with the server. The connection notes there what it waits for and since when;
//! the server's sweep reads it, and tells a connection that is overdue, or not wanted any more, to end.

use crate::server::env::{Env, until};
use crate::server::http::context::Context;
use crate::server::http::control::{Control, Order, Phase};
use crate::server::http::route::dispatch;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// After an answer that was given before the request had been read, at most so much of its rest is taken in, …
const LINGER_BYTES_MAX: usize = 64 << 20;
/// … for at most so long. Closing at once would make the client's system throw the answer away unread.
const LINGER_MICROS: u64 = 2_000_000;

/// Serves a connection to its end.
pub(super) async fn serve<E: Env>(
    context: Arc<Context<E>>,
    control: Arc<Control>,
    stream: E::Stream,
    from: String,
) {
    let watched = Watched { io: TokioIo::new(stream), context: context.clone(), control: control.clone() };
    let service = service_fn({
        let (context, control) = (context.clone(), control.clone());
        move |request| {
            let (context, control) = (context.clone(), control.clone());
            async move {
                control.enter(Phase::Answering, context.tick());
                let (response, close) = dispatch(&context, request).await;
                control.enter(Phase::Idle, context.tick());
                if close {
                    control.linger.store(true, Ordering::Relaxed);
                }
                Ok::<_, Infallible>(response)
            }
        }
    });
    let mut connection = http1::Builder::new()
        // Its time-outs are the sweep's; hyper would set up and tear down a timer for each request.
        .header_read_timeout(None)
        .max_header_size(context.options.header_bytes_max)
        .max_buf_size(2 * context.options.header_bytes_max.max(8192))
        // A client may close its side after the request and still wait for the answer, as `nc -N` does.
        .half_close(true)
        // Answers are small: one copy and one plain write cost less than a vectored one.
        .writev(false)
        .serve_connection(watched, service);

    let mut told = Order::Serve;
    let mut registered: Option<Waker> = None;
    let ended = poll_fn(|cx| {
        register(&control, &mut registered, cx.waker());
        let order = control.order();
        if order > told {
            told = order;
            match order {
                Order::Serve => {}
                Order::Finish => Pin::new(&mut connection).graceful_shutdown(),
                Order::Abort => return Poll::Ready(None),
            }
        }
        Pin::new(&mut connection).poll(cx).map(Some)
    })
    .await;

    // Hyper answers a head that makes no sense, or is too large, by itself, and ends.
    let unread = match &ended {
        Some(Ok(())) => control.linger.load(Ordering::Relaxed),
        Some(Err(error)) => {
            tracing::debug!(%from, %error, "http connection failed");
            error.is_parse()
        }
        None => false,
    };
    if unread {
        let mut stream = connection.into_parts().io.io.into_inner();
        linger(&context.env, &mut stream).await;
    }
}

/// Makes the connection's task known to those who tell it something. Once, unless the executor changes wakers.
fn register(control: &Control, registered: &mut Option<Waker>, waker: &Waker) {
    if registered.as_ref().is_some_and(|known| known.will_wake(waker)) {
        return;
    }
    *control.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    *registered = Some(waker.clone());
}

/// Ends our side, and takes in what the client still sends, so that it gets to read the answer.
pub(super) async fn linger<E: Env>(env: &E, stream: &mut E::Stream) {
    let deadline = env.now().plus(LINGER_MICROS);
    let drain = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut scratch = vec![0; 16 << 10];
        let mut taken = 0;
        while taken < LINGER_BYTES_MAX {
            match stream.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(count) => taken += count,
            }
        }
    };
    // Whether it was drained or given up makes no difference: the connection is closed now.
    let _ = until(env, deadline, drain).await;
}

/// A stream that notes its progress in the connection's [`Control`].
struct Watched<E: Env> {
    io: TokioIo<E::Stream>,
    context: Arc<Context<E>>,
    control: Arc<Control>,
}

impl<E: Env> Read for Watched<E> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if polled.is_ready() && self.control.phase() == Phase::Idle {
            self.control.enter(Phase::Head, self.context.tick());
        }
        polled
    }
}

impl<E: Env> Write for Watched<E> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        if polled.is_ready() && self.control.phase() == Phase::Idle {
            self.control.enter(Phase::Idle, self.context.tick());
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
