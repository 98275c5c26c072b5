//! A stream of bytes between two ends: as it is, or encrypted.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

/// A stream of bytes: as it is, or encrypted. Without TLS it costs one comparison a call.
#[derive(Debug)]
pub enum Stream<S> {
    /// As it is.
    Plain(S),
    /// Encrypted.
    Tls(Box<TlsStream<Begun<S>>>),
}

/// A stream of which the first byte may have been read already.
#[derive(Debug)]
pub struct Begun<S> {
    first: Option<u8>,
    stream: S,
    /// Until the handshake has ended, where it is bounded.
    bounds: Option<HandshakeBounds>,
}

/// What the other end may still send of a handshake.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandshakeBounds {
    /// Bytes before it is answered; `None`: it was answered.
    pub(super) hello: Option<usize>,
    /// Bytes in all.
    pub(super) all: usize,
}

/// The other end sends more than anybody needs before it is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it sends more bytes than a TLS handshake takes")]
struct TooLong;

impl<S> Begun<S> {
    /// With the byte that was read of it.
    pub(super) fn new(first: Option<u8>, stream: S) -> Self {
        Self { first, stream, bounds: None }
    }

    /// What comes before [`Self::end_handshake`] is bounded from now on.
    pub(super) fn within(self, bounds: HandshakeBounds) -> Self {
        Self { bounds: Some(bounds), ..self }
    }

    /// What comes now may go on for ever.
    pub(super) fn end_handshake(&mut self) {
        self.bounds = None;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    #[inline]
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_some() && buffer.remaining() > 0 {
            buffer.put_slice(self.first.take().as_slice());
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(bounds) = &mut self.bounds {
            bounds.count(buffer.filled().len() - before)?;
        }
        polled
    }
}

impl HandshakeBounds {
    /// So many bytes more have come.
    fn count(&mut self, bytes: usize) -> io::Result<()> {
        let fits = bytes <= self.all && self.hello.is_none_or(|left| bytes <= left);
        self.all = self.all.saturating_sub(bytes);
        self.hello = self.hello.map(|left| left.saturating_sub(bytes));
        if fits { Ok(()) } else { Err(io::Error::other(TooLong)) }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(bounds) = &mut self.bounds {
            bounds.hello = None;
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(bounds) = &mut self.bounds {
            bounds.hello = None;
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
