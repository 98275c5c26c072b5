//! What happens when: the event queue.

use crate::schedule::{Fault, MILLI};
use infinitystore::replica::{PeerMessage, RequestId, StorageRequest};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// After this time without a write the storage is told so.
pub(super) const IDLE_MICROS: u64 = 20 * MILLI;
/// How often the operator looks after the cluster.
pub(super) const OPERATOR_MICROS: u64 = 250 * MILLI;

/// Something that happens.
#[derive(Debug)]
pub(super) enum SimEvent {
    /// A message arrives.
    Arrival {
        /// The machine that sent it.
        from: usize,
        /// The machine at which it arrives.
        slot: usize,
        /// The message.
        message: Box<PeerMessage>,
    },
    /// The leader is asked for one more write of many.
    Flood {
        /// Until when.
        until: u64,
        /// The time between two.
        every: u64,
    },
    /// A replica may want to be woken.
    Alarm {
        /// The machine.
        slot: usize,
        /// Its process.
        life: u32,
    },
    /// A batch has been written and synced.
    BatchDone {
        /// The machine.
        slot: usize,
        /// Its process.
        life: u32,
    },
    /// Nothing was written for a while.
    Idle {
        /// The machine.
        slot: usize,
        /// Its process.
        life: u32,
    },
    /// Work beside the log has been done: a snapshot written, or a chunk read.
    BesideDone {
        /// The machine.
        slot: usize,
        /// Its process.
        life: u32,
        /// The work.
        request: Box<StorageRequest>,
    },
    /// A fault of the schedule strikes.
    Fault(usize),
    /// A fault strikes that waited for its moment.
    Ambush(Box<Fault>),
    /// A machine is switched on.
    Start(usize),
    /// A machine that stood still goes on.
    Resume {
        /// The machine.
        slot: usize,
        /// Its process.
        life: u32,
    },
    /// A disk has room again.
    RoomAgain(usize),
    /// A client's next operation may be due.
    ClientNext(usize),
    /// A client has waited long enough.
    ClientGivesUp {
        /// The client.
        client: usize,
        /// The request.
        request: RequestId,
    },
    /// A keyspace client's next operation may be due.
    KeyspaceNext(usize),
    /// A client of the keyspace has waited long enough.
    KeyspaceGivesUp {
        /// The client.
        client: usize,
        /// The request.
        request: RequestId,
    },
    /// The operator looks after the cluster.
    Operator,
    /// What a process has to do after events is carried out.
    Settle {
        /// The machine.
        slot: usize,
        /// Its process.
        life: u32,
    },
    /// A process is told of writes that are durable.
    Receipts {
        /// The machine.
        slot: usize,
        /// Its process.
        life: u32,
    },
    /// Everything is looked at.
    Watch,
    /// Faults end.
    Calm,
    /// Has the cluster recovered?
    Judge,
}

struct Queued {
    at: u64,
    number: u64,
    event: SimEvent,
}

/// What is to happen, in order of time; at the same time in the order in which it was planned.
#[derive(Default)]
pub(super) struct EventQueue {
    heap: BinaryHeap<Reverse<Queued>>,
    planned: u64,
}

impl EventQueue {
    /// Plans something.
    pub(super) fn plan(&mut self, at: u64, event: SimEvent) {
        self.planned += 1;
        self.heap.push(Reverse(Queued { at, number: self.planned, event }));
    }

    /// What happens next, and when.
    pub(super) fn pop(&mut self) -> Option<(u64, SimEvent)> {
        self.heap.pop().map(|Reverse(queued)| (queued.at, queued.event))
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
