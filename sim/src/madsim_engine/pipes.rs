//! The state of all connections: what travels in each direction, who listens where, and what has
//! passed.

use crate::madsim_engine::time::now;
use crate::madsim_engine::wire_tap::PipeTap;
use crate::schedule::{MILLI, SECOND};
use infinitystore::codec::FRAME_HEADER_BYTES;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::Waker;

/// Bytes on their way in one direction, at most. A sender of more waits.
pub(super) const WINDOW_BYTES: usize = 256 << 10;
/// A lost packet is sent again after this time.
pub(super) const RETRANSMIT_MICROS: u64 = 200 * MILLI;
/// Bytes that could not be delivered for this time break their connection.
pub(super) const GIVE_UP_MICROS: u64 = 10 * SECOND;
/// A connection whose other end is gone without a word is probed after this time (the product asks
/// for keep-alive probes), …
pub(super) const KEEPALIVE_MICROS: u64 = 10 * SECOND;
/// … and given up after this time without an answer.
pub(super) const KEEPALIVE_GIVE_UP_MICROS: u64 = 25 * SECOND;
/// How often held bytes are tried again.
pub(super) const PUMP_MICROS: u64 = 25 * MILLI;

/// What an end has done with bytes.
pub(super) enum Passed<'b> {
    Written(&'b [u8]),
    Read(u64),
}

/// One end's place: a machine and its process, or a client (`None`).
pub(super) type Place = Option<(usize, u32)>;

/// What travels.
#[derive(Debug)]
pub(super) enum Parcel {
    /// Data.
    Bytes(Vec<u8>),
    /// The sender has closed.
    End,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// Where it comes from.
    pub from: Place,
    /// With the time of arrival; `None`: held back, as nothing gets through.
    pub parcels: VecDeque<(Option<u64>, Parcel)>,
    /// Which messages they are, for the timeline.
    pub tap: PipeTap,
    /// Bytes of the first parcel that have been read.
    pub read: usize,
    pub bytes: usize,
    /// No parcel overtakes.
    pub last_at: u64,
    /// Since when parcels are held back.
    pub held_since: Option<u64>,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
    /// Whether the end that reads it still exists.
    pub read_open: bool,
    /// Whether the end that writes it still exists.
    pub write_open: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// `pipes[end]` is written by `end`.
    pub pipes: [Pipe; 2],
    pub broken: bool,
    /// Since when one end is gone without a word.
    pub half_open_since: Option<u64>,
    /// Peers' frames carry checksums; what clients send does not.
    pub checksummed: bool,
    /// It was made to a port that had as many connections of clients as it takes.
    pub met_full: bool,
    /// What the caller has said of what it is for.
    hello: Greeting,
}

/// The bytes of a connection between nodes, as far as they are messages: those after the hello.
#[derive(Debug, Default)]
struct Greeting {
    /// How it begins.
    head: Vec<u8>,
    /// Bytes that the caller has written, and that the called has read.
    written: u64,
    read: u64,
    frames: Frames,
    /// Another block followed the hello: the caller was refused, and says that it has heard so.
    is_refused: bool,
}

/// Frames that were written, one after the other.
#[derive(Debug, Default)]
struct Frames {
    /// The header of one that was begun.
    header: Vec<u8>,
    /// Bytes that are still to come of its payload.
    left: usize,
}

impl Frames {
    /// These bytes come next. How many messages begin in them, as far as their headers are
    /// complete; an empty frame is none.
    fn begun(&mut self, mut bytes: &[u8]) -> u64 {
        let mut count = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = self.left.min(bytes.len());
                self.left -= length;
                bytes = &bytes[length..];
                continue;
            }
            let (header, rest) = bytes.split_at((FRAME_HEADER_BYTES - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(header);
            bytes = rest;
            if self.header.len() == FRAME_HEADER_BYTES
                && let Some(length) = self.header.first_chunk()
            {
                self.left = u32::from_le_bytes(*length) as usize;
                count += u64::from(self.left > 0);
                self.header.clear();
            }
        }
        count
    }
}

/// A hello begins with its magic, version, kind, and length.
const HELLO_HEAD_BYTES: usize = 15;
/// Every block begins with this: magic and version. A frame that did would be far too long.
const BLOCK_MAGIC_BYTES: usize = 10;
/// And ends with a checksum.
const HELLO_SUM_BYTES: u64 = 4;
/// The kind of a hello after which messages follow.
const HELLO_OF_PEER: u8 = 1;

impl Greeting {
    /// How long the hello is, if messages follow.
    fn bytes(&self) -> Option<u64> {
        let head: &[u8; HELLO_HEAD_BYTES] = self.head.as_slice().try_into().ok()?;
        let length = u32::from_le_bytes([head[11], head[12], head[13], head[14]]);
        (head[10] == HELLO_OF_PEER).then(|| HELLO_HEAD_BYTES as u64 + u64::from(length) + HELLO_SUM_BYTES)
    }

    /// The caller has written this; how much of it belongs to messages, and how many of them begin
    /// in it.
    fn note_written(&mut self, bytes: &[u8]) -> (u64, u64) {
        let lacks = HELLO_HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..lacks.min(bytes.len())]);
        let before = self.written;
        self.written += bytes.len() as u64;
        let beyond = self.beyond(before, self.written);
        let hello = bytes.len() - usize::try_from(beyond).unwrap_or(bytes.len());
        // What comes first behind the hello, or the beginning of it.
        if self.bytes().is_some_and(|hello| before <= hello && hello < self.written) {
            let begins = bytes[hello..].iter().zip(&self.head[..BLOCK_MAGIC_BYTES]);
            self.is_refused = begins.into_iter().all(|(one, other)| one == other);
        }
        if self.is_refused {
            return (0, 0);
        }
        (beyond, self.frames.begun(&bytes[hello..]))
    }

    /// The called has read so much; how much of it belongs to messages.
    fn note_read(&mut self, bytes: u64) -> u64 {
        let before = self.read;
        self.read += bytes;
        if self.is_refused { 0 } else { self.beyond(before, self.read) }
    }

    fn beyond(&self, before: u64, after: u64) -> u64 {
        self.bytes().map_or(0, |hello| after.max(hello) - before.max(hello))
    }
}

/// What a process has sent to others and received from them, in bytes of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageBytes {
    /// What its calls took, in bytes and in messages.
    pub sent: u64,
    pub messages: u64,
    /// What it has read from those who called it.
    pub received: u64,
    /// A call of its own has ended: some of what it wanted to send may have got lost before that.
    pub is_cut: bool,
}

/// All connections of a run.
#[derive(Debug)]
pub(super) struct Connections {
    pub rng: SmallRng,
    pub open: BTreeMap<u64, Connection>,
    /// The listeners, by address.
    pub ports: BTreeMap<String, Port>,
    pub next: u64,
    /// What passed between nodes, by process.
    pub traffic: BTreeMap<(usize, u32), MessageBytes>,
    /// How often others have called, by process.
    pub calls: BTreeMap<(usize, u32), u64>,
    /// How many connections were made to a process, or by it.
    ends: BTreeMap<(usize, u32), u64>,
}

impl Connections {
    /// None yet.
    pub(super) fn new(rng: SmallRng) -> Self {
        let (open, ports, traffic, calls, ends) = Default::default();
        Self { rng, open, ports, next: 0, traffic, calls, ends }
    }

    /// What a process has sent and received.
    pub(super) fn traffic(&self, process: (usize, u32)) -> MessageBytes {
        self.traffic.get(&process).copied().unwrap_or_default()
    }

    /// How often others have called a process.
    pub(super) fn calls_to(&self, process: (usize, u32)) -> u64 {
        self.calls.get(&process).copied().unwrap_or(0)
    }

    /// How many connections were made to a process, or by it.
    pub(super) fn ends_at(&self, process: (usize, u32)) -> u64 {
        self.ends.get(&process).copied().unwrap_or(0)
    }

    /// An end has taken or read bytes of a connection between nodes.
    pub(super) fn note(&mut self, id: u64, end: usize, what: Passed<'_>) {
        let Some(connection) = self.open.get_mut(&id).filter(|it| it.checksummed) else { return };
        let Some(process) = connection.pipes[end].from else { return };
        match what {
            Passed::Written(bytes) if end == 0 => {
                let (beyond, messages) = connection.hello.note_written(bytes);
                let traffic = self.traffic.entry(process).or_default();
                (traffic.sent, traffic.messages) = (traffic.sent + beyond, traffic.messages + messages);
            }
            Passed::Read(bytes) if end == 1 => {
                let beyond = connection.hello.note_read(bytes);
                self.traffic.entry(process).or_default().received += beyond;
            }
            Passed::Written(_) | Passed::Read(_) => {}
        }
    }

    /// A connection ends.
    pub(super) fn note_end(&mut self, id: u64) {
        let Some(connection) = self.open.get(&id).filter(|it| it.checksummed) else { return };
        if let Some(process) = connection.pipes[0].from {
            self.traffic.entry(process).or_default().is_cut = true;
        }
    }

    /// A new connection between two places: its number.
    pub(super) fn add(&mut self, from: Place, to: Place) -> u64 {
        let id = self.next;
        self.next += 1;
        let pipe = |from| Pipe { from, read_open: true, write_open: true, ..Pipe::default() };
        let (pipes, checksummed) = ([pipe(from), pipe(to)], from.is_some());
        if let (Some(_), Some(called)) = (from, to) {
            *self.calls.entry(called).or_default() += 1;
        }
        for process in [from, to].into_iter().flatten() {
            *self.ends.entry(process).or_default() += 1;
        }
        let hello = Greeting::default();
        let (broken, half_open_since, met_full) = Default::default();
        let connection = Connection { pipes, broken, half_open_since, checksummed, met_full, hello };
        self.open.insert(id, connection);
        id
    }

    /// Both directions of a connection, as written by its ends.
    pub(super) fn pipes(&mut self, id: u64) -> Option<&mut [Pipe; 2]> {
        self.open.get_mut(&id).map(|connection| &mut connection.pipes)
    }

    /// How many connections of clients a process has: those that it still waits for the end of, and
    /// those that it has not accepted yet, too.
    pub(super) fn to_http(&self, process: (usize, u32)) -> usize {
        let is_open = |it: &&Connection| {
            it.pipes[0].from.is_none() && it.pipes[1].from == Some(process) && it.pipes[0].read_open
        };
        self.open.values().filter(is_open).count()
    }

    /// Which processes have connections to which machines, as far as those that made them know.
    pub(super) fn calls(&self) -> BTreeSet<((usize, u32), usize)> {
        let alive = self.open.values().filter(|it| !it.broken && it.pipes[0].write_open);
        alive.filter_map(|it| Some((it.pipes[0].from?, it.pipes[1].from?.0))).collect()
    }

    /// The processes that a process has called, each as often as it has a connection to it.
    pub(super) fn calls_of(&self, process: (usize, u32)) -> Vec<(usize, u32)> {
        let own = self.open.values().filter(|it| !it.broken && it.pipes[0].from == Some(process));
        let own = own.filter(|it| it.pipes.iter().all(|pipe| pipe.write_open && pipe.read_open));
        let mut called: Vec<_> = own.filter_map(|it| it.pipes[1].from).collect();
        called.sort_unstable();
        called
    }

    /// The processes whose connections a process has not let go, each as often as it has one.
    pub(super) fn callers_of(&self, process: (usize, u32)) -> Vec<(usize, u32)> {
        let to = |it: &&Connection| it.pipes[0].from.is_some() && it.pipes[1].from == Some(process);
        let kept = self.open.values().filter(to).filter(|it| it.pipes[0].read_open);
        kept.filter_map(|it| it.pipes[0].from).collect()
    }

    /// The machine at the far end lost its power before it had accepted the connection.
    pub(super) fn abandon(&mut self, id: u64) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.pipes[0].read_open = false;
            connection.pipes[1].write_open = false;
            connection.half_open_since = Some(now());
        }
    }
}

/// An address at which a process listens.
#[derive(Debug, Default)]
pub(super) struct Port {
    pub slot: usize,
    pub life: u32,
    pub backlog: VecDeque<u64>,
    pub acceptor: Option<Waker>,
}

/// Wakes the task that waits, once.
pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
