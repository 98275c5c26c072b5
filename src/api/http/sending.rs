//! An answer's body on its way to hyper: in pieces, each when the one before has left.
//!
//! Hyper copies what it is given into a buffer that it keeps for as long as the connection lasts. A
//! large body that it got at once would be held twice while the client takes its time, and its room
//! for ever.

use crate::api::http::budget::MemoryReservation;
use crate::api::http::control::{Control, Order, Phase};
use crate::api::http::stream::EventStream;
use crate::api::http::streams::StreamPlace;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes of a piece, at most.
const PIECE_BYTES: usize = 32 << 10;

/// The rest of an answer does not come. Hyper ends the connection, or the stream, so that the
/// client does not take what it has for the whole.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer is cut short")]
pub(super) struct CutShort;

/// A body that is given out in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    rest: Bytes,
    /// What comes after `rest`, until it ends.
    stream: Option<Box<dyn EventStream>>,
    /// Whether a piece was given out, or a head that has to leave before a stream begins.
    begun: bool,
    control: Arc<Control>,
    /// HTTP/2: the stream, which is told when a piece has left.
    place: Option<Arc<StreamPlace>>,
    /// The body's part of the budget, until the last piece is given out.
    _held: Option<MemoryReservation>,
}

impl Pieces {
    pub(super) fn new(
        body: Bytes,
        control: Arc<Control>,
        held: Option<MemoryReservation>,
        stream: Option<Box<dyn EventStream>>,
    ) -> Self {
        Self { rest: body, begun: false, stream, control, place: None, _held: held }
    }

    /// The same for a stream of HTTP/2, which holds the part of the budget until all has left.
    pub(super) fn of_stream(
        body: Bytes,
        place: &Arc<StreamPlace>,
        held: Option<MemoryReservation>,
        stream: Option<Box<dyn EventStream>>,
    ) -> Self {
        if let Some(held) = held {
            place.hold(held);
        }
        let control = place.control().clone();
        Self { rest: body, begun: false, stream, control, place: Some(place.clone()), _held: None }
    }

    /// Waits for the stream's next piece; whether there is one.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, CutShort>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(false)) };
        // Hyper asks again whenever the connection's task is woken, as an order does.
        let next =
            if self.control.order() == Order::Serve { std::task::ready!(stream.poll_next(cx)) } else { None };
        match next {
            Some(bytes) => self.rest = bytes,
            None => {
                self.control.enter(Phase::Sending, stream.tick());
                let is_whole = stream.is_whole();
                self.stream = None;
                self.control.end_streaming();
                if !is_whole {
                    return Poll::Ready(Err(CutShort));
                }
            }
        }
        Poll::Ready(Ok(self.stream.is_some()))
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if self.rest.is_empty() && self.stream.is_none() {
            return Poll::Ready(None);
        }
        if self.begun && self.control.poll_flushed().is_pending() {
            return Poll::Pending;
        }
        self.begun = true;
        if self.rest.is_empty() {
            match std::task::ready!(self.poll_stream(cx)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(None),
                Err(cut) => return Poll::Ready(Some(Err(cut))),
            }
        }
        let piece = if self.rest.len() > PIECE_BYTES {
            self.rest.split_to(PIECE_BYTES)
        } else {
            std::mem::take(&mut self.rest)
        };
        if let Some(stream) = &self.stream {
            // Each piece has its time, also one of many that the stream gave at once.
            self.control.enter(Phase::Sending, stream.tick());
        }
        self.control.hold(!self.rest.is_empty() || self.stream.is_some());
        let piece = match &self.place {
            Some(place) => place.piece(piece),
            None => piece,
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.stream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.stream.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.rest.len() as u64) }
    }
}
