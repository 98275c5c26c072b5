//! An answer's body on its way to hyper: in pieces, each when the one before has left.
//!
//! Hyper copies what it is given into a buffer that it keeps for as long as the connection lasts. A
//! large body that it got at once would be held twice while the client takes its time, and its room
//! for ever.

use crate::api::http::budget::MemoryReservation;
use crate::api::http::control::Control;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes of a piece, at most.
const PIECE_BYTES: usize = 32 << 10;

/// A body that is given out in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    rest: Bytes,
    /// Whether a piece was given out.
    begun: bool,
    control: Arc<Control>,
    /// The body's part of the budget, until the last piece is given out.
    _held: Option<MemoryReservation>,
}

impl Pieces {
    pub(super) fn new(body: Bytes, control: Arc<Control>, held: Option<MemoryReservation>) -> Self {
        Self { rest: body, begun: false, control, _held: held }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        if self.begun && self.control.poll_flushed().is_pending() {
            return Poll::Pending;
        }
        self.begun = true;
        let piece = if self.rest.len() > PIECE_BYTES {
            self.rest.split_to(PIECE_BYTES)
        } else {
            std::mem::take(&mut self.rest)
        };
        self.control.hold(!self.rest.is_empty());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
