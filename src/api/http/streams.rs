//! The streams of a connection that speaks HTTP/2. Each is watched as a connection of HTTP/1 is,
//! and has a part of the budget of memory.

use crate::api::http::budget::MemoryReservation;
use crate::api::http::control::{Control, Order, Phase};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The streams that are open.
#[derive(Debug)]
pub(super) struct Streams {
    /// The connection.
    control: Arc<Control>,
    /// The sweep's clock, seconds.
    tick: Arc<AtomicU32>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    controls: BTreeMap<u64, Arc<Control>>,
    next_id: u64,
    /// The stream that was opened last, until its task takes it.
    latest: Option<Arc<Control>>,
}

/// A stream's place among those that are open: until its request is answered, and the client has
/// been sent all of the answer, or the stream has ended otherwise.
#[derive(Debug)]
pub(super) struct StreamPlace {
    streams: Arc<Streams>,
    id: u64,
    control: Arc<Control>,
    /// Its parts of the budget.
    held: Mutex<Vec<MemoryReservation>>,
}

/// A piece of an answer, from when hyper has it to when it was sent.
struct Piece {
    bytes: Bytes,
    place: Arc<StreamPlace>,
}

impl Streams {
    pub(super) fn new(control: Arc<Control>, tick: Arc<AtomicU32>) -> Arc<Self> {
        Arc::new(Self { control, tick, open: Mutex::default() })
    }

    /// A stream more.
    pub(super) fn open(self: &Arc<Self>) -> Arc<StreamPlace> {
        let tick = self.tick();
        let control = Arc::new(Control::new(tick));
        control.enter(Phase::Answering, tick);
        let mut open = self.lock();
        let id = open.next_id;
        open.next_id += 1;
        open.controls.insert(id, control.clone());
        open.latest = Some(control.clone());
        self.control.enter(Phase::Answering, tick);
        drop(open);
        // An order that came before is in there; one that comes later finds it among the others.
        control.tell(self.control.order());
        Arc::new(StreamPlace { streams: self.clone(), id, control, held: Mutex::default() })
    }

    /// The stream that was opened last, for its task.
    pub(super) fn take_latest(&self) -> Option<Arc<Control>> {
        self.lock().latest.take()
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.lock().controls.len()
    }

    /// Tells all of them.
    pub(super) fn tell(&self, order: Order) {
        self.lock().controls.values().for_each(|control| control.tell(order));
    }

    /// Tells those that `is_overdue` picks to end. If one is still there that was told so before,
    /// the connection has to end.
    ///
    /// Its task has heard it, or has ended before: hyper gives the last piece of an answer to h2,
    /// and is done with it. Then h2 holds the piece until the client makes room for it, and nothing
    /// but the end of the connection takes it away.
    pub(super) fn end_overdue(&self, is_overdue: impl Fn(&Control) -> bool) {
        let mut is_stuck = false;
        for one in self.lock().controls.values() {
            if one.order() == Order::Abort {
                is_stuck = true;
            } else if is_overdue(one) {
                one.tell(Order::Abort);
            }
        }
        if is_stuck {
            self.control.tell(Order::Abort);
        }
    }

    fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamPlace {
    pub(super) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Keeps a part of the budget for as long as the stream is there.
    pub(super) fn hold(&self, part: MemoryReservation) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(part);
    }

    /// A piece of the answer, that says when it was sent.
    pub(super) fn piece(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Piece { bytes, place: self.clone() })
    }

    /// Its request was judged: whether its client is known holds for the connection.
    pub(super) fn judged(&self) {
        let is_known = self.control.is_known.load(Ordering::Relaxed);
        self.streams.control.is_known.store(is_known, Ordering::Relaxed);
    }

    /// All that hyper has of the answer was sent.
    pub(super) fn flushed(&self) {
        self.control.flushed(self.streams.tick());
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        open.controls.remove(&self.id);
        if open.controls.is_empty() {
            self.streams.control.enter(Phase::Idle, self.streams.tick());
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.place.flushed();
    }
}
