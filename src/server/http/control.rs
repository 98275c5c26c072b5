//! What a connection and the server share: what it waits for, and what it is told.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// For a request, or for the client to read an answer.
    Idle,
    /// For the rest of a request's line and headers.
    Head,
    /// For the node, or for the body (which has a time-out of its own).
    Answering,
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

/// Shared by a connection and the server. Plain atomics: each is written by one side and only looked at by the other.
#[derive(Debug)]
pub(super) struct Control {
    /// A [`Phase`].
    phase: AtomicU8,
    /// The server's tick when that phase began, or last made progress.
    since: AtomicU32,
    /// An [`Order`].
    order: AtomicU8,
    /// The connection's task.
    pub(super) waker: Mutex<Option<Waker>>,
    /// The request at hand was answered before it had been read: linger before closing.
    pub(super) linger: AtomicBool,
}

impl Control {
    pub(super) fn new(tick: u32) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU32::new(tick),
            order: AtomicU8::new(Order::Serve as u8),
            waker: Mutex::new(None),
            linger: AtomicBool::new(false),
        }
    }

    /// What the connection waits for, and since which tick.
    pub(super) fn waits(&self) -> (Phase, u32) {
        (self.phase(), self.since.load(Ordering::Relaxed))
    }

    /// Tells the connection, and wakes it. Orders only get stronger.
    pub(super) fn tell(&self, order: Order) {
        let stronger = self.order.fetch_max(order as u8, Ordering::SeqCst) < order as u8;
        if stronger && let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Answering,
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
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since.store(tick, Ordering::Relaxed);
    }
}
