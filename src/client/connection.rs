//! One connection to a node, on hyper's client.
//!
//! Hyper's connection is a future that somebody has to poll. Here the task that waits for the
//! answer polls it, and no task of its own does. So a request costs no switch between tasks, and
//! dropping a [`NodeConnection`] closes it. The price is that an idle connection notices its end
//! only when it is used again: [`NodeConnection::is_ready`] finds that out before anything is sent.

use crate::client::error::CallFailure;
use crate::tls::{ClientTls, Stream, refusal_in};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, Builder, SendRequest};
use hyper::header::{AsHeaderName, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use hyper::http::response::Parts;
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Bytes of an answer's head, at most, and of what is read ahead.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// A name may have several addresses. When one has not answered for so long, the next is tried
/// beside it (RFC 8305 §5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// A connection to a node: one request at a time.
#[derive(Debug)]
pub(super) struct NodeConnection {
    sender: SendRequest<Full<Bytes>>,
    driver: ConnectionIo,
}

/// The part of the connection that reads and writes.
#[derive(Debug)]
struct ConnectionIo {
    inner: Box<http1::Connection<TokioIo<Stream<TcpStream>>, Full<Bytes>>>,
    /// It has finished, and is not polled again.
    ended: bool,
    /// Why the node did not want it, if that was it.
    refused: Option<String>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection had ended. Nothing was sent.
    Unsent,
    /// It was sent, at least in part.
    Failed(CallFailure),
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct ReceivedAnswer {
    head: Parts,
    pub(super) body: Bytes,
}

/// An answer whose body comes piece by piece. Dropping it closes its connection.
#[derive(Debug)]
pub(super) struct StreamedAnswer {
    connection: NodeConnection,
    head: Parts,
    body: Incoming,
}

impl ReceivedAnswer {
    pub(super) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// A header, if it is there.
    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&HeaderValue> {
        self.head.headers.get(name)
    }

    /// A header that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.header(name)?.to_str().ok()
    }

    /// A header that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

impl StreamedAnswer {
    pub(super) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// What the body is.
    pub(super) fn content_type(&self) -> Option<&HeaderValue> {
        self.head.headers.get(CONTENT_TYPE)
    }

    /// The next piece of the body; `None`: it has ended. Nothing is lost if the caller does not
    /// wait for it to the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, CallFailure> {
        let Self { connection, body, .. } = self;
        loop {
            let mut frame = body.frame();
            let frame =
                poll_fn(|cx| connection.driver.poll_for(cx, |cx| Pin::new(&mut frame).poll(cx))).await;
            match frame {
                Some(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
                Some(Some(Err(error))) => return Err(failure(&error)),
                Some(None) => return Ok(None),
                None => return Err(connection.driver.gone()),
            }
        }
    }

    /// All of it, which has at most `body_bytes_max` bytes.
    pub(super) async fn whole(self, body_bytes_max: usize) -> Result<ReceivedAnswer, CallFailure> {
        let Self { mut connection, head, body } = self;
        let mut whole = pin!(receive(head, body, body_bytes_max));
        let answer = poll_fn(|cx| connection.driver.poll_for(cx, |cx| whole.as_mut().poll(cx))).await;
        answer.unwrap_or_else(|| Err(connection.driver.gone()))
    }
}

impl NodeConnection {
    /// Connects, over TLS if that is given. `name_timeout` is for its name to be looked up,
    /// `connect_timeout` for all that follows.
    pub(super) async fn open(
        address: &str,
        tls: Option<&ClientTls>,
        (name_timeout, connect_timeout): (Duration, Duration),
    ) -> io::Result<Self> {
        let found = timeout(name_timeout, lookup_host(address))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "its name was not looked up in time"))??;
        let connected = timeout(connect_timeout, Self::connect(address, found.collect(), tls)).await;
        connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn connect(address: &str, found: Vec<SocketAddr>, tls: Option<&ClientTls>) -> io::Result<Self> {
        let stream = first_of(found, TcpStream::connect).await?;
        stream.set_nodelay(true)?;
        let stream = match tls {
            None => Stream::Plain(stream),
            Some(tls) => tls.connect(address, stream).await?,
        };
        let (sender, driver) = Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_header_size(BUFFER_BYTES_MAX)
            // One buffer for head and body: requests are small, and one write is cheaper than a
            // vectored one.
            .writev(false)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Self { sender, driver: ConnectionIo { inner: Box::new(driver), ended: false, refused: None } })
    }

    /// Whether the connection takes another request: it has not ended.
    ///
    /// # Errors
    /// Why it was not let in.
    pub(super) async fn is_ready(&mut self) -> Result<bool, CallFailure> {
        let Self { sender, driver } = self;
        let ready = poll_fn(|cx| driver.poll_for(cx, |cx| sender.poll_ready(cx))).await;
        match (ready, driver.refused.take()) {
            (Some(Ok(())), _) => Ok(true),
            (_, Some(why)) => Err(refused(why)),
            _ => Ok(false),
        }
    }

    /// Sends a request and takes in its answer, whose body has at most `body_bytes_max` bytes.
    /// After any trouble the connection is of no use.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
    ) -> Result<ReceivedAnswer, Trouble> {
        let sent = self.sender.try_send_request(request);
        let mut exchange = pin!(async {
            let response = sent.await.map_err(|mut error| match error.take_message() {
                Some(_) => Trouble::Unsent,
                None => Trouble::Failed(failure(error.error())),
            })?;
            let (head, body) = response.into_parts();
            receive(head, body, body_bytes_max).await.map_err(Trouble::Failed)
        });
        let answer = poll_fn(|cx| self.driver.poll_for(cx, |cx| exchange.as_mut().poll(cx))).await;
        answer.unwrap_or_else(|| Err(Trouble::Failed(self.driver.gone())))
    }

    /// Sends a request, and hands its answer on piece by piece.
    pub(super) async fn stream(
        mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<StreamedAnswer, CallFailure> {
        let mut sent = pin!(self.sender.send_request(request));
        let response = poll_fn(|cx| self.driver.poll_for(cx, |cx| sent.as_mut().poll(cx))).await;
        let response = response.ok_or_else(|| self.driver.gone())?;
        let (head, body) = response.map_err(|error| failure(&error))?.into_parts();
        Ok(StreamedAnswer { connection: self, head, body })
    }
}

impl ConnectionIo {
    /// Polls the connection, and then what waits for it. `None`: it has ended, and that still
    /// waits.
    ///
    /// What waits is woken by the connection alone, so it needs no waker: it is polled after every
    /// poll of the connection. In the first turn the connection needs none either, since there is a
    /// second one. So neither wakes the task that is polling them, as they would with every piece
    /// that they hand on.
    fn poll_for<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut waiting: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Option<T>> {
        let mut nobody = Context::from_waker(Waker::noop());
        self.poll(&mut nobody);
        if let Poll::Ready(done) = waiting(&mut nobody) {
            return Poll::Ready(Some(done));
        }
        self.poll(cx);
        match waiting(&mut nobody) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if self.ended => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// What it means that it has ended.
    fn gone(&self) -> CallFailure {
        match &self.refused {
            Some(why) => refused(why.clone()),
            None => CallFailure::Lost("the node closed it".to_owned()),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            // An error of an idle connection is its end. Any other comes with the answer too.
            if let Poll::Ready(done) = Pin::new(&mut *self.inner).poll(cx) {
                self.ended = true;
                self.refused = done.err().and_then(|error| refusal_in(&error));
            }
        }
    }
}

/// The first connection that there is to any of these addresses: one that does not answer must not
/// cost the time of the others.
pub(super) async fn first_of<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    if let [only] = *addresses {
        return connect(only).await;
    }
    let mut attempts = JoinSet::new();
    let mut rest = addresses.into_iter();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    loop {
        match rest.next() {
            Some(address) => drop(attempts.spawn(connect(address))),
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            },
            () = sleep(NEXT_ADDRESS_AFTER), if rest.len() > 0 => {}
        }
    }
}

/// Takes in the body. One that comes in one piece, as almost all do, is not copied.
async fn receive(
    head: Parts,
    mut body: Incoming,
    body_bytes_max: usize,
) -> Result<ReceivedAnswer, CallFailure> {
    let too_long = || CallFailure::Nonsense(format!("it is longer than {body_bytes_max} bytes"));
    let length = body.size_hint();
    if length.exact().is_none() && !head.headers.contains_key(TRANSFER_ENCODING) {
        // Its end would be the connection's, and a broken connection looks the same.
        return Err(CallFailure::Nonsense("it does not say how long it is".to_owned()));
    }
    if length.lower() > body_bytes_max as u64 {
        return Err(too_long());
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let Ok(piece) = frame.map_err(|error| failure(&error))?.into_data() else { continue };
        if first.len() + whole.len() + piece.len() > body_bytes_max {
            return Err(too_long());
        }
        if first.is_empty() && whole.is_empty() {
            first = piece;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&piece);
        }
    }
    Ok(ReceivedAnswer { head, body: if whole.is_empty() { first } else { whole.freeze() } })
}

/// The node has not let this client in. It has read nothing of what was sent.
fn refused(why: String) -> CallFailure {
    CallFailure::Unreachable(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// What hyper's error means: bytes that are no HTTP, or a connection that broke.
fn failure(error: &hyper::Error) -> CallFailure {
    if let Some(why) = refusal_in(error) {
        return refused(why);
    }
    let mut text = error.to_string();
    let mut source = error.source();
    let mut is_format = error.is_parse() || error.is_parse_too_large();
    while let Some(inner) = source {
        // Hyper reports bad chunks as errors of the stream.
        let kind = inner.downcast_ref::<io::Error>().map(io::Error::kind);
        is_format |= matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData));
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    if is_format { CallFailure::Nonsense(text) } else { CallFailure::Lost(text) }
}
