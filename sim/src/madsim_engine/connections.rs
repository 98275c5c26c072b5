//! Connections between machines, and from clients: byte streams. They take a part of a write, carry
//! bytes late and at different speeds, hold them back while the network is cut, and break. They
//! stay half open when the other end lost its power.

use crate::madsim_engine::pipes::{
    Connection, GIVE_UP_MICROS, KEEPALIVE_GIVE_UP_MICROS, KEEPALIVE_MICROS, Parcel, Passed, Pipe, Place,
    RETRANSMIT_MICROS, WINDOW_BYTES, wake,
};
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::world::{Shared, World};
use rand::Rng;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

impl World {
    /// Whether bytes get from one place to another now.
    pub(super) fn reaches(&mut self, from: Place, to: Place) -> bool {
        match (from, to) {
            (Some((from, _)), Some((to, _))) => self.network.reaches(now(), from, to),
            _ => true,
        }
    }

    /// How long a parcel takes.
    pub(super) fn delay(&mut self, from: Place, to: Place) -> u64 {
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
    pub(super) fn pump(&mut self) {
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
                    pipe.tap.released(self.trace.timeline(), pipe.last_at);
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
    pub(super) fn break_connection(&mut self, id: u64) {
        self.connections.note_end(id);
        if let Some(connection) = self.connections.open.get_mut(&id) {
            connection.broken = true;
            for pipe in &mut connection.pipes {
                pipe.tap.broken(self.trace.timeline(), now());
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
        let checksummed = connection.checksummed && !self.limits.secured;
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

fn reset() -> io::Error {
    io::Error::new(ErrorKind::ConnectionReset, "the simulated connection broke")
}

/// A wait.
type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One end of a connection.
pub(super) struct SimStream {
    shared: Shared,
    id: u64,
    end: usize,
    /// Until the next parcel arrives, and when that is.
    sleep: Option<(u64, Sleep)>,
}

impl SimStream {
    /// That end.
    pub(super) const fn new(shared: Shared, id: u64, end: usize) -> Self {
        Self { shared, id, end, sleep: None }
    }

    /// For asking whether the connection is over, without the stream.
    pub(super) fn far_end(&self) -> FarEnd {
        FarEnd { shared: self.shared.clone(), id: self.id, end: self.end }
    }

    /// Breaks the connection, as a process does that ends without having read what came.
    pub(super) fn reset(self) {
        self.shared.lock().break_connection(self.id);
    }

    /// Which process of its machine is at the other end.
    pub(super) fn far_life(&self) -> Option<u32> {
        let mut world = self.shared.lock();
        let pipes = world.connections.pipes(self.id)?;
        pipes[1 - self.end].from.map(|(_, life)| life)
    }

    /// Whether the port had as many connections of clients as it takes when this one was made.
    pub(super) fn met_full(&self) -> bool {
        self.shared.lock().connections.open.get(&self.id).is_some_and(|connection| connection.met_full)
    }
}

/// What one end of a connection can know of the other.
pub(super) struct FarEnd {
    shared: Shared,
    id: u64,
    end: usize,
}

impl FarEnd {
    /// Whether the connection broke, or the other end has closed it. With TLS whatever has come
    /// says so, where no answer is waited for.
    pub(super) fn is_over(&self, is_secured: bool) -> bool {
        let world = self.shared.lock();
        world.connections.open.get(&self.id).is_none_or(|connection| {
            let first = connection.pipes[1 - self.end].parcels.front();
            let is_end = |parcel: &Parcel| is_secured || matches!(parcel, Parcel::End);
            connection.broken || matches!(first, Some((Some(at), parcel)) if *at <= now() && is_end(parcel))
        })
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
        world.tap_written(this.id, this.end, &buf[..length], damaged_at);
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
