//! Connections between machines, and from clients: byte streams. They take a part of a write, carry
//! bytes late and at different speeds, hold them back while the network is cut, and break. They
//! stay half open when the other end lost its power.

use crate::madsim_engine::listening::Port;
use crate::madsim_engine::telling::Tap;
use crate::madsim_engine::world::{Shared, World};
use crate::madsim_engine::{now, sleep_until};
use crate::schedule::{MILLI, SECOND};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes on their way in one direction, at most. A sender of more waits.
const WINDOW_BYTES: usize = 256 << 10;
/// A lost packet is sent again after this time.
pub(in crate::madsim_engine) const RETRANSMIT_MICROS: u64 = 200 * MILLI;
/// Bytes that could not be delivered for this time break their connection.
pub(in crate::madsim_engine) const GIVE_UP_MICROS: u64 = 10 * SECOND;
/// A connection whose other end is gone without a word is probed after this time (the product asks
/// for keep-alive probes), …
const KEEPALIVE_MICROS: u64 = 10 * SECOND;
/// … and given up after this time without an answer.
const KEEPALIVE_GIVE_UP_MICROS: u64 = 25 * SECOND;
/// How often held bytes are tried again.
pub(in crate::madsim_engine) const PUMP_MICROS: u64 = 25 * MILLI;

/// What an end has done with bytes.
enum Passed<'b> {
    Written(&'b [u8]),
    Read(u64),
}

/// One end's place: a machine and its process, or a client (`None`).
pub(in crate::madsim_engine) type Place = Option<(usize, u32)>;

/// What travels.
#[derive(Debug)]
pub(in crate::madsim_engine) enum Parcel {
    /// Data.
    Bytes(Vec<u8>),
    /// The sender has closed.
    End,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(in crate::madsim_engine) struct Pipe {
    /// Where it comes from.
    pub from: Place,
    /// With the time of arrival; `None`: held back, as nothing gets through.
    pub parcels: VecDeque<(Option<u64>, Parcel)>,
    /// Which messages they are, for the story.
    pub tap: Tap,
    /// Bytes of the first parcel that have been read.
    read: usize,
    bytes: usize,
    /// No parcel overtakes.
    last_at: u64,
    /// Since when parcels are held back.
    held_since: Option<u64>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Whether the end that reads it still exists.
    read_open: bool,
    /// Whether the end that writes it still exists.
    write_open: bool,
}

#[derive(Debug)]
struct Connection {
    /// `pipes[end]` is written by `end`.
    pipes: [Pipe; 2],
    broken: bool,
    /// Since when one end is gone without a word.
    half_open_since: Option<u64>,
    /// Peers' frames carry checksums; what clients send does not.
    checksummed: bool,
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
}

/// A hello begins with its magic, version, kind, and length.
const HELLO_HEAD_BYTES: usize = 15;
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

    /// The caller has written this; how much of it belongs to messages.
    fn note_written(&mut self, bytes: &[u8]) -> u64 {
        let lacks = HELLO_HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..lacks.min(bytes.len())]);
        let before = self.written;
        self.written += bytes.len() as u64;
        self.beyond(before, self.written)
    }

    /// The called has read so much; how much of it belongs to messages.
    fn note_read(&mut self, bytes: u64) -> u64 {
        let before = self.read;
        self.read += bytes;
        self.beyond(before, self.read)
    }

    fn beyond(&self, before: u64, after: u64) -> u64 {
        self.bytes().map_or(0, |hello| after.max(hello) - before.max(hello))
    }
}

/// What a process has sent to others and received from them, in bytes of messages.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::madsim_engine) struct Traffic {
    /// What its calls took.
    pub sent: u64,
    /// What it has read from those who called it.
    pub received: u64,
    /// A call of its own has ended: some of what it wanted to send may have got lost before that.
    pub is_cut: bool,
}

/// All connections of a run.
#[derive(Debug)]
pub(in crate::madsim_engine) struct Connections {
    rng: SmallRng,
    open: BTreeMap<u64, Connection>,
    /// The listeners, by address.
    pub ports: BTreeMap<String, Port>,
    next: u64,
    /// When a process last had as many clients' connections as it takes, and another.
    pub full_at: BTreeMap<(usize, u32), u64>,
    /// What passed between nodes, by process.
    traffic: BTreeMap<(usize, u32), Traffic>,
    /// How often others have called, by process.
    calls: BTreeMap<(usize, u32), u64>,
}

impl Connections {
    /// None yet.
    pub(in crate::madsim_engine) fn new(rng: SmallRng) -> Self {
        let (open, ports, full_at, traffic, calls) = Default::default();
        Self { rng, open, ports, next: 0, full_at, traffic, calls }
    }

    /// What a process has sent and received.
    pub(in crate::madsim_engine) fn traffic(&self, process: (usize, u32)) -> Traffic {
        self.traffic.get(&process).copied().unwrap_or_default()
    }

    /// How often others have called a process.
    pub(in crate::madsim_engine) fn calls_to(&self, process: (usize, u32)) -> u64 {
        self.calls.get(&process).copied().unwrap_or(0)
    }

    /// An end has taken or read bytes of a connection between nodes.
    fn note(&mut self, id: u64, end: usize, what: Passed<'_>) {
        let Some(connection) = self.open.get_mut(&id).filter(|it| it.checksummed) else { return };
        let Some(process) = connection.pipes[end].from else { return };
        match what {
            Passed::Written(bytes) if end == 0 => {
                let beyond = connection.hello.note_written(bytes);
                self.traffic.entry(process).or_default().sent += beyond;
            }
            Passed::Read(bytes) if end == 1 => {
                let beyond = connection.hello.note_read(bytes);
                self.traffic.entry(process).or_default().received += beyond;
            }
            Passed::Written(_) | Passed::Read(_) => {}
        }
    }

    /// A connection ends.
    fn note_end(&mut self, id: u64) {
        let Some(connection) = self.open.get(&id).filter(|it| it.checksummed) else { return };
        if let Some(process) = connection.pipes[0].from {
            self.traffic.entry(process).or_default().is_cut = true;
        }
    }

    /// A new connection between two places: its number.
    pub(in crate::madsim_engine) fn add(&mut self, from: Place, to: Place) -> u64 {
        let id = self.next;
        self.next += 1;
        let pipe = |from| Pipe { from, read_open: true, write_open: true, ..Pipe::default() };
        let (pipes, checksummed) = ([pipe(from), pipe(to)], from.is_some());
        if let (Some(_), Some(called)) = (from, to) {
            *self.calls.entry(called).or_default() += 1;
        }
        let hello = Greeting::default();
        self.open.insert(id, Connection { pipes, broken: false, half_open_since: None, checksummed, hello });
        id
    }

    /// Both directions of a connection, as written by its ends.
    pub(in crate::madsim_engine) fn pipes(&mut self, id: u64) -> Option<&mut [Pipe; 2]> {
        self.open.get_mut(&id).map(|connection| &mut connection.pipes)
    }

    /// How many connections of clients a process has: those that it still waits for the end of, and
    /// those that it has not accepted yet, too.
    pub(in crate::madsim_engine) fn to_http(&self, process: (usize, u32)) -> usize {
        let is_open = |it: &&Connection| {
            it.pipes[0].from.is_none() && it.pipes[1].from == Some(process) && it.pipes[0].read_open
        };
        self.open.values().filter(is_open).count()
    }

    /// Which processes have connections to which machines, as far as those that made them know.
    pub(in crate::madsim_engine) fn calls(&self) -> BTreeSet<((usize, u32), usize)> {
        let alive = self.open.values().filter(|it| !it.broken && it.pipes[0].write_open);
        alive.filter_map(|it| Some((it.pipes[0].from?, it.pipes[1].from?.0))).collect()
    }

    /// The processes that a process has called, each as often as it has a connection to it.
    pub(in crate::madsim_engine) fn calls_of(&self, process: (usize, u32)) -> Vec<(usize, u32)> {
        let own = self.open.values().filter(|it| !it.broken && it.pipes[0].from == Some(process));
        let own = own.filter(|it| it.pipes.iter().all(|pipe| pipe.write_open && pipe.read_open));
        let mut called: Vec<_> = own.filter_map(|it| it.pipes[1].from).collect();
        called.sort_unstable();
        called
    }

    /// How many connections of other nodes a process has not let go.
    pub(in crate::madsim_engine) fn callers_of(&self, process: (usize, u32)) -> usize {
        let to = |it: &&Connection| it.pipes[0].from.is_some() && it.pipes[1].from == Some(process);
        self.open.values().filter(to).filter(|it| it.pipes[0].read_open).count()
    }

    /// The machine at the far end lost its power before it had accepted the connection.
    pub(in crate::madsim_engine) fn abandon(&mut self, id: u64) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.pipes[0].read_open = false;
            connection.pipes[1].write_open = false;
            connection.half_open_since = Some(now());
        }
    }
}

impl World {
    /// Whether bytes get from one place to another now.
    pub(in crate::madsim_engine) fn reaches(&mut self, from: Place, to: Place) -> bool {
        match (from, to) {
            (Some((from, _)), Some((to, _))) => self.network.reaches(now(), from, to),
            _ => true,
        }
    }

    /// How long a parcel takes.
    pub(in crate::madsim_engine) fn delay(&mut self, from: Place, to: Place) -> u64 {
        let settings = &self.schedule.settings;
        let rng = &mut self.connections.rng;
        let usual = rng.random_range(settings.delay_min_micros..=settings.delay_max_micros);
        let (Some((from, _)), Some((to, _))) = (from, to) else { return settings.delay_min_micros };
        let factor = self.network.factor(from, to, settings.link_spread);
        let mut chance = |ppm: u32| !self.calm && ppm > 0 && rng.random_range(0..1_000_000) < ppm;
        let straggles = if chance(settings.straggler_ppm) { 9 * usual } else { 0 };
        let lost = chance(settings.loss_ppm);
        if lost {
            *self.marks.entry("packet lost").or_default() += 1;
        }
        let again = if lost { RETRANSMIT_MICROS } else { 0 };
        factor * usual + straggles + again + self.network.extra(now(), from, to)
    }

    /// Sends a parcel from `end` of a connection.
    fn send_parcel(&mut self, id: u64, end: usize, parcel: Parcel) {
        let Some(connection) = self.connections.open.get(&id) else { return };
        let (from, to) = (connection.pipes[end].from, connection.pipes[1 - end].from);
        let gone = !connection.pipes[end].read_open;
        let held = connection.pipes[end].held_since.is_some();
        if held || gone || !self.reaches(from, to) {
            if !held {
                self.mark("bytes held back");
            }
            let Some(connection) = self.connections.open.get_mut(&id) else { return };
            let pipe = &mut connection.pipes[end];
            pipe.held_since.get_or_insert(now());
            pipe.parcels.push_back((None, parcel));
            return;
        }
        let at = now() + self.delay(from, to);
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        let pipe = &mut connection.pipes[end];
        pipe.last_at = pipe.last_at.max(at);
        pipe.parcels.push_back((Some(pipe.last_at), parcel));
        wake(&mut pipe.reader);
    }

    /// Tries again what is held back. Breaks connections that were held back for too long, or whose
    /// other end is gone.
    pub(in crate::madsim_engine) fn pump(&mut self) {
        let waits = |connection: &Connection| {
            let is_held = |pipe: &Pipe| pipe.held_since.is_some();
            connection.half_open_since.is_some() || connection.pipes.iter().any(is_held)
        };
        let waiting = self.connections.open.iter().filter(|(_, connection)| waits(connection));
        let ids: Vec<u64> = waiting.map(|(id, _)| *id).collect();
        for id in ids {
            self.probe_half_open(id);
            for end in 0..2 {
                let Some(connection) = self.connections.open.get(&id) else { continue };
                let Some(since) = connection.pipes[end].held_since else { continue };
                let (from, to) = (connection.pipes[end].from, connection.pipes[1 - end].from);
                let gone = !connection.pipes[end].read_open;
                let answers = to.is_none_or(|(slot, _)| self.machines[slot].powered);
                let through = answers && self.reaches(from, to);
                if now() >= since + GIVE_UP_MICROS || gone && through {
                    // Given up, or answered with a reset by a machine that knows nothing of the
                    // connection.
                    self.mark(if gone { "connection reset" } else { "connection timed out" });
                    self.break_connection(id);
                } else if through {
                    let at = now() + self.delay(from, to);
                    let Some(connection) = self.connections.open.get_mut(&id) else { continue };
                    let pipe = &mut connection.pipes[end];
                    pipe.held_since = None;
                    pipe.last_at = pipe.last_at.max(at);
                    for (arrival, _) in pipe.parcels.iter_mut().filter(|(arrival, _)| arrival.is_none()) {
                        *arrival = Some(pipe.last_at);
                    }
                    pipe.tap.released(self.trace.story(), pipe.last_at);
                    wake(&mut pipe.reader);
                }
            }
        }
        self.connections
            .open
            .retain(|_, connection| connection.pipes.iter().any(|pipe| pipe.read_open || pipe.write_open));
    }

    /// A keep-alive probe finds out that the other end is gone.
    fn probe_half_open(&mut self, id: u64) {
        let Some(connection) = self.connections.open.get(&id) else { return };
        let Some(since) = connection.half_open_since.filter(|since| now() >= since + KEEPALIVE_MICROS) else {
            return;
        };
        let places = [connection.pipes[0].from, connection.pipes[1].from];
        let answers = places.iter().flatten().all(|(slot, _)| self.machines[*slot].powered)
            && self.reaches(places[0], places[1])
            && self.reaches(places[1], places[0]);
        if answers || now() >= since + KEEPALIVE_GIVE_UP_MICROS {
            self.mark("keep-alive found a dead end");
            self.break_connection(id);
            if let Some(connection) = self.connections.open.get_mut(&id) {
                connection.half_open_since = None;
            }
        }
    }

    /// Both ends find out that it is over; what was on its way is gone.
    pub(in crate::madsim_engine) fn break_connection(&mut self, id: u64) {
        self.connections.note_end(id);
        if let Some(connection) = self.connections.open.get_mut(&id) {
            connection.broken = true;
            for pipe in &mut connection.pipes {
                pipe.tap.broken(self.trace.story(), now());
                pipe.parcels.clear();
                pipe.held_since = None;
                wake(&mut pipe.reader);
                wake(&mut pipe.writer);
            }
        }
    }

    /// Chances that a write meets: the connection breaks, part of it is taken, a bit flips. What is
    /// taken, and where it is damaged.
    fn meddle(&mut self, id: u64, bytes: &[u8]) -> io::Result<(Vec<u8>, Option<usize>)> {
        let Some(connection) = self.connections.open.get(&id) else { return Err(reset()) };
        let checksummed = connection.checksummed;
        let settings = &self.schedule.settings;
        let rng = &mut self.connections.rng;
        let mut chance = |ppm: u32| !self.calm && ppm > 0 && rng.random_range(0..1_000_000) < ppm;
        let breaks = chance(settings.loss_ppm / 10);
        let partial = bytes.len() > 1 && chance(settings.duplicate_ppm);
        let corrupt = checksummed && chance(settings.corrupt_ppm / 10);
        if breaks {
            self.mark("connection broken");
            self.break_connection(id);
            return Err(reset());
        }
        let mut bytes = bytes.to_vec();
        if partial {
            self.mark("write taken in part");
            let length = self.connections.rng.random_range(1..bytes.len());
            bytes.truncate(length);
        }
        let mut damaged_at = None;
        if corrupt {
            self.mark("bytes corrupted");
            let position = self.connections.rng.random_range(0..bytes.len());
            bytes[position] ^= 1 << self.connections.rng.random_range(0..8);
            damaged_at = Some(position);
        }
        Ok((bytes, damaged_at))
    }
}

/// Wakes the task that waits, once.
pub(in crate::madsim_engine) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn reset() -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, "the simulated connection broke")
}

/// A wait.
type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One end of a connection.
pub(in crate::madsim_engine) struct SimStream {
    shared: Shared,
    id: u64,
    end: usize,
    /// Until the next parcel arrives, and when that is.
    sleep: Option<(u64, Sleep)>,
}

impl SimStream {
    /// That end.
    pub(in crate::madsim_engine) const fn new(shared: Shared, id: u64, end: usize) -> Self {
        Self { shared, id, end, sleep: None }
    }

    /// Whether this end can know that the connection is over: it broke, or the other end has closed
    /// it.
    pub(in crate::madsim_engine) fn is_over(&self) -> bool {
        let world = self.shared.lock();
        world.connections.open.get(&self.id).is_none_or(|connection| {
            let first = connection.pipes[1 - self.end].parcels.front();
            connection.broken || matches!(first, Some((Some(at), Parcel::End)) if *at <= now())
        })
    }

    /// Breaks the connection, as a process does that ends without having read what came.
    pub(in crate::madsim_engine) fn reset(self) {
        self.shared.lock().break_connection(self.id);
    }

    /// Which process of its machine is at the other end.
    pub(in crate::madsim_engine) fn far_life(&self) -> Option<u32> {
        let mut world = self.shared.lock();
        let pipes = world.connections.pipes(self.id)?;
        pipes[1 - self.end].from.map(|(_, life)| life)
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let arrival = {
                let mut world = this.shared.lock();
                let Some(connection) = world.connections.open.get_mut(&this.id) else {
                    return Poll::Ready(Err(reset()));
                };
                if connection.broken {
                    return Poll::Ready(Err(reset()));
                }
                let pipe = &mut connection.pipes[1 - this.end];
                match pipe.parcels.front() {
                    Some((Some(at), parcel)) if *at <= now() => {
                        let Parcel::Bytes(bytes) = parcel else { return Poll::Ready(Ok(())) };
                        let length = buf.remaining().min(bytes.len() - pipe.read);
                        buf.put_slice(&bytes[pipe.read..pipe.read + length]);
                        pipe.read += length;
                        pipe.bytes -= length;
                        if pipe.read == bytes.len() {
                            pipe.read = 0;
                            pipe.parcels.pop_front();
                        }
                        wake(&mut pipe.writer);
                        world.connections.note(this.id, this.end, Passed::Read(length as u64));
                        return Poll::Ready(Ok(()));
                    }
                    Some((Some(at), _)) => {
                        pipe.reader = Some(cx.waker().clone());
                        *at
                    }
                    Some((None, _)) | None => {
                        pipe.reader = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                }
            };
            let (planned, sleep) =
                this.sleep.get_or_insert_with(|| (arrival, Box::pin(sleep_until(arrival))));
            if *planned != arrival {
                (*planned, *sleep) = (arrival, Box::pin(sleep_until(arrival)));
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.sleep = None;
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut world = this.shared.lock();
        let Some(connection) = world.connections.open.get_mut(&this.id) else {
            return Poll::Ready(Err(reset()));
        };
        if connection.broken {
            return Poll::Ready(Err(reset()));
        }
        let pipe = &mut connection.pipes[this.end];
        let room = WINDOW_BYTES.saturating_sub(pipe.bytes);
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let (bytes, damaged_at) = world.meddle(this.id, &buf[..buf.len().min(room)])?;
        let length = bytes.len();
        if let Some(connection) = world.connections.open.get_mut(&this.id) {
            connection.pipes[this.end].bytes += length;
        }
        world.connections.note(this.id, this.end, Passed::Written(&buf[..length]));
        world.send_parcel(this.id, this.end, Parcel::Bytes(bytes));
        world.tell_written(this.id, this.end, &buf[..length], damaged_at);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().close_writing(self.id, self.end);
        Poll::Ready(Ok(()))
    }
}

impl World {
    fn close_writing(&mut self, id: u64, end: usize) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        if std::mem::take(&mut connection.pipes[end].write_open) {
            self.send_parcel(id, end, Parcel::End);
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut world = self.shared.lock();
        world.connections.note_end(self.id);
        let Some(connection) = world.connections.open.get_mut(&self.id) else { return };
        connection.pipes[1 - self.end].read_open = false;
        let place = connection.pipes[self.end].from;
        // A machine without power says nothing: the other end finds out when it speaks.
        if place.is_some_and(|(slot, _)| !world.machines[slot].powered) {
            if let Some(connection) = world.connections.open.get_mut(&self.id) {
                connection.pipes[self.end].write_open = false;
                connection.half_open_since.get_or_insert(now());
            }
            world.mark("connection half open");
        } else {
            world.close_writing(self.id, self.end);
        }
    }
}
