//! What a connection and the server share: what it waits for, and what it is told. Each stream of a
//! connection that speaks HTTP/2 has one of its own.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// For a request.
    Idle,
    /// For the rest of a request's line and headers.
    Head,
    /// For the node, or for the body (which has a time-out of its own).
    Answering,
    /// For the client to take an answer.
    Sending,
}

/// How much of an answer has left the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Sent {
    /// All of it.
    Whole,
    /// All that hyper was given; there is more.
    Piece,
    /// Hyper holds a piece, and there is more.
    HeldPiece,
    /// Hyper holds the end.
    HeldEnd,
}

/// What a connection was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Nothing: go on.
    Serve,
    /// End after the request at hand, or now if there is none.
    Finish,
    /// End now.
    Abort,
}

/// Shared by a connection, or a stream of HTTP/2, and the server. Plain atomics: each is written by
/// one side and only looked at by the other.
#[derive(Debug)]
pub(super) struct Control {
    /// A [`Phase`].
    phase: AtomicU8,
    /// The server's tick when that phase began.
    since: AtomicU32,
    /// What the answer at hand gets beyond the write time-out, seconds.
    allowance: AtomicU32,
    /// How much of the answer at hand has left: a [`Sent`].
    sent: AtomicU8,
    /// The answer at hand is a stream: between two pieces, nobody waits for the client.
    is_stream: AtomicBool,
    /// The request at hand ends when the client closes its side.
    ends_with_client: AtomicBool,
    /// A task waits until what was handed to hyper has left.
    waits_for_flush: AtomicBool,
    /// An [`Order`].
    order: AtomicU8,
    /// The task that drives it.
    waker: Mutex<Option<Waker>>,
    /// The request at hand was answered before it had been read: linger before closing.
    pub(super) linger: AtomicBool,
    /// The client has shown who it is, with the request at hand.
    pub(super) is_known: AtomicBool,
    /// How the head at hand is refused, which hyper is not given.
    pub(super) head_refusal: OnceLock<&'static [u8]>,
    /// HTTP/2: the tick, and one, since when a frame or a block of headers is incomplete; 0: none
    /// is.
    incomplete_since: AtomicU32,
}

impl Control {
    pub(super) fn new(tick: u32) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU32::new(tick),
            allowance: AtomicU32::new(0),
            sent: AtomicU8::new(Sent::Whole as u8),
            is_stream: AtomicBool::new(false),
            ends_with_client: AtomicBool::new(false),
            waits_for_flush: AtomicBool::new(false),
            order: AtomicU8::new(Order::Serve as u8),
            waker: Mutex::new(None),
            linger: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            head_refusal: OnceLock::new(),
            incomplete_since: AtomicU32::new(0),
        }
    }

    /// What the connection waits for, and since which tick.
    pub(super) fn waits(&self) -> (Phase, u32) {
        (self.phase(), self.since.load(Ordering::Relaxed))
    }

    /// Tells the connection, and wakes it. Orders only get stronger.
    pub(super) fn tell(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::SeqCst) < order as u8 {
            self.wake();
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Answering,
            _ => Phase::Sending,
        }
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Relaxed) {
            0 => Order::Serve,
            1 => Order::Finish,
            _ => Order::Abort,
        }
    }

    pub(super) fn enter(&self, phase: Phase, tick: u32) {
        // In this order: a sweep that sees the new phase must not take the old one's time for its.
        self.since.store(tick, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// HTTP/2: since which tick the frame, or the block of headers, at hand is incomplete.
    pub(super) fn incomplete_since(&self) -> Option<u32> {
        self.incomplete_since.load(Ordering::Relaxed).checked_sub(1)
    }

    /// HTTP/2: a frame, or a block of headers, has begun and not ended, since that tick.
    pub(super) fn set_incomplete_since(&self, tick: Option<u32>) {
        self.incomplete_since.store(tick.map_or(0, |tick| tick.saturating_add(1)), Ordering::Relaxed);
    }

    /// What the answer at hand gets beyond the write time-out, seconds.
    pub(super) fn allowance(&self) -> u64 {
        u64::from(self.allowance.load(Ordering::Relaxed))
    }

    /// An answer is on its way to hyper. It gets `allowance` seconds beyond the write time-out.
    pub(super) fn begin_sending(&self, allowance: usize, tick: u32) {
        let allowance = u32::try_from(allowance).unwrap_or(u32::MAX);
        self.allowance.store(allowance, Ordering::Relaxed);
        self.ends_with_client.store(false, Ordering::Relaxed);
        self.sent.store(Sent::HeldEnd as u8, Ordering::Relaxed);
        self.enter(Phase::Sending, tick);
    }

    /// A stream is on its way to hyper, its head first. Whether it ends when the client closes its
    /// side.
    pub(super) fn begin_streaming(&self, ends_with_client: bool, tick: u32) {
        self.begin_sending(0, tick);
        self.ends_with_client.store(ends_with_client, Ordering::Relaxed);
        self.sent.store(Sent::HeldPiece as u8, Ordering::Relaxed);
        self.is_stream.store(true, Ordering::Relaxed);
    }

    /// The stream has ended: what hyper holds now is its end.
    pub(super) fn end_streaming(&self) {
        self.is_stream.store(false, Ordering::Relaxed);
        self.ends_with_client.store(false, Ordering::Relaxed);
        self.hold(false);
    }

    /// The answer at hand waits for something to happen, and is not wanted once the client has
    /// closed its side.
    pub(super) fn watch_client(&self) {
        self.ends_with_client.store(true, Ordering::Relaxed);
    }

    /// Whether the request at hand ends when the client closes its side.
    pub(super) fn is_watched(&self) -> bool {
        self.ends_with_client.load(Ordering::Relaxed)
    }

    /// Hyper was given a piece of the answer; whether there is more.
    pub(super) fn hold(&self, more: bool) {
        let sent = if more { Sent::HeldPiece } else { Sent::HeldEnd };
        self.sent.store(sent as u8, Ordering::Relaxed);
    }

    /// Everything that hyper was given has left.
    pub(super) fn flushed(&self, tick: u32) {
        match self.sent() {
            Sent::Whole | Sent::Piece => {}
            Sent::HeldPiece => {
                self.sent.store(Sent::Piece as u8, Ordering::SeqCst);
                if self.is_stream.load(Ordering::Relaxed) {
                    self.enter(Phase::Answering, tick);
                }
            }
            Sent::HeldEnd => {
                self.sent.store(Sent::Whole as u8, Ordering::SeqCst);
                if self.phase() == Phase::Sending {
                    self.enter(Phase::Idle, tick);
                }
            }
        }
        if self.waits_for_flush.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Ready when hyper holds nothing of an answer. The task alone asks that `waker` is of.
    pub(super) fn poll_flushed(&self) -> Poll<()> {
        if self.holds_nothing() {
            return Poll::Ready(());
        }
        self.waits_for_flush.store(true, Ordering::SeqCst);
        // A stream of HTTP/2 is flushed by another task, perhaps just now.
        if self.holds_nothing() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn holds_nothing(&self) -> bool {
        matches!(self.sent(), Sent::Whole | Sent::Piece)
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Polls hyper's `connection` to its end, and passes on what it is told: `finish` ends it
    /// gracefully. `None` if it was told to end at once.
    pub(super) async fn drive<C: Future + Unpin>(
        &self,
        connection: &mut C,
        mut finish: impl FnMut(Pin<&mut C>),
    ) -> Option<C::Output> {
        let (mut told, mut registered) = (Order::Serve, None);
        poll_fn(|cx| {
            self.register(&mut registered, cx.waker());
            let order = self.order();
            if order > told {
                told = order;
                match order {
                    Order::Serve => {}
                    Order::Finish => finish(Pin::new(connection)),
                    Order::Abort => return Poll::Ready(None),
                }
            }
            Pin::new(&mut *connection).poll(cx).map(Some)
        })
        .await
    }

    /// Makes the task known that drives this, so that orders can wake it. Once, unless the executor
    /// changes wakers.
    pub(super) fn register(&self, registered: &mut Option<Waker>, waker: &Waker) {
        if registered.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        *registered = Some(waker.clone());
    }

    fn sent(&self) -> Sent {
        match self.sent.load(Ordering::SeqCst) {
            0 => Sent::Whole,
            1 => Sent::Piece,
            2 => Sent::HeldPiece,
            _ => Sent::HeldEnd,
        }
    }
}
