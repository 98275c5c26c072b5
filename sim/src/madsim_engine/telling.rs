//! What the report shows of connections and disks, which carry bytes and work: the messages and
//! writes in them are read along here. Only where a story is told; nothing of the run depends on
//! it.

use crate::madsim_engine::now;
use crate::madsim_engine::world::{Shared, World};
use crate::story::{Fate, Story, beside_text, write_text};
use bytes::BytesMut;
use infinitystore::codec::decode_frame;
use infinitystore::replica::{PeerMessage, StorageRequest};
use std::collections::{BTreeMap, VecDeque};

/// Longer frames than the transport takes; what announces more is none.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// What replicas have asked for, until a connection or a disk takes it up.
#[derive(Debug, Default)]
pub(in crate::madsim_engine) struct Telling {
    /// By sender and receiver: messages, with their number in the story, oldest first.
    messages: BTreeMap<(usize, usize), VecDeque<(usize, PeerMessage)>>,
    /// By machine: what goes into the log.
    writes: BTreeMap<usize, Vec<String>>,
    /// By machine: work on snapshot files, its kind and text.
    beside: BTreeMap<usize, Vec<(&'static str, String)>>,
}

/// Reads along on one direction of a connection.
#[derive(Debug, Default)]
pub(in crate::madsim_engine) struct Tap {
    /// Whether anything was ever written.
    spoken: bool,
    /// Written, and not a whole message yet.
    bytes: BytesMut,
    /// The place among them at which a bit has flipped.
    damaged_at: Option<usize>,
    /// What is written from now on is no message that anybody reads.
    ended: bool,
    /// Messages on their way by their number in the story, and when each arrives; `None`: held
    /// back.
    flying: Vec<(usize, Option<u64>)>,
}

impl Telling {
    /// A machine sends a message: whether it gets there shows later.
    pub(in crate::madsim_engine) fn sent(
        &mut self,
        story: &mut Story,
        at: u64,
        (from, to): (usize, usize),
        message: &PeerMessage,
    ) {
        let number = story.messages.len();
        story.message(at, from, to, Fate::Lost, message);
        self.messages.entry((from, to)).or_default().push_back((number, message.clone()));
    }

    /// A machine asks its disk for something.
    pub(in crate::madsim_engine) fn asked(&mut self, slot: usize, requests: &[StorageRequest]) {
        for request in requests {
            let (kind, text) = match request {
                StorageRequest::Write(write) => {
                    self.writes.entry(slot).or_default().push(write_text(write.records()));
                    continue;
                }
                StorageRequest::Committed(_) => continue,
                StorageRequest::SaveSnapshot(_) => ("save snapshot", beside_text(request)),
                StorageRequest::ReadChunk(_) => ("read snapshot chunk", beside_text(request)),
            };
            self.beside.entry(slot).or_default().push((kind, text));
        }
    }

    /// A machine's process is gone, and what waited in it.
    pub(in crate::madsim_engine) fn switched_off(&mut self, slot: usize) {
        self.messages.retain(|(from, _), _| *from != slot);
        self.writes.remove(&slot);
        self.beside.remove(&slot);
    }

    /// Which of the sent messages these are that a connection has taken together, and whether each
    /// can be read at the other end.
    fn take(&mut self, link: (usize, usize), taken: Vec<(PeerMessage, bool)>) -> Vec<(usize, bool)> {
        let Some(waiting) = self.messages.get_mut(&link) else { return Vec::new() };
        let (mut before, mut newest, mut found) = (waiting.len(), None, Vec::new());
        for (message, readable) in taken.into_iter().rev() {
            // Of several that are alike it is the last: those that were sent while no node listened
            // have been dropped.
            let alike = waiting.range(..before).rposition(|(_, sent)| *sent == message);
            let Some(position) = alike else { continue };
            found.push((waiting[position].0, readable));
            newest = newest.or(Some(position));
            before = position;
        }
        if let Some(newest) = newest {
            waiting.drain(..=newest);
        }
        found
    }
}

impl Tap {
    /// The messages that are complete with these bytes, and whether each can be read at the other
    /// end.
    fn read(&mut self, bytes: &[u8], damaged_at: Option<usize>) -> Vec<(PeerMessage, bool)> {
        let mut messages = Vec::new();
        if self.ended {
            return messages;
        }
        self.damaged_at = self.damaged_at.or(damaged_at.map(|at| self.bytes.len() + at));
        self.bytes.extend_from_slice(bytes);
        while !self.ended {
            let before = self.bytes.len();
            let frame = match decode_frame(&mut self.bytes, FRAME_BYTES_MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => {
                    self.ended = true;
                    break;
                }
            };
            let length = before - self.bytes.len();
            let damaged = self.damaged_at.is_some_and(|at| at < length);
            self.damaged_at = self.damaged_at.map(|at| at.saturating_sub(length));
            // Whoever receives what is damaged hangs up.
            self.ended = damaged;
            if frame.is_empty() {
                // The writer says that it lives.
                continue;
            }
            match PeerMessage::decode(frame) {
                Ok(message) => messages.push((message, !damaged)),
                // Questions between nodes that are not of one cluster.
                Err(_) => self.ended = true,
            }
        }
        messages
    }

    /// What was held back gets through, and arrives then.
    pub(in crate::madsim_engine) fn released(&mut self, story: Option<&mut Story>, arrives: u64) {
        let Some(story) = story else { return };
        for (number, at) in self.flying.iter_mut().filter(|(_, at)| at.is_none()) {
            *at = Some(arrives);
            story.messages[*number].fate = Fate::Arrives(arrives);
        }
    }

    /// The connection breaks: what has not arrived never will.
    pub(in crate::madsim_engine) fn broken(&mut self, story: Option<&mut Story>, now: u64) {
        let Some(story) = story else { return };
        for (number, at) in self.flying.drain(..) {
            if at.is_none_or(|at| at > now) {
                story.messages[number].fate = Fate::Lost;
            }
        }
    }
}

impl World {
    /// One end of a connection wrote these bytes, one of which was damaged on the way, and the last
    /// parcel holds them.
    pub(in crate::madsim_engine) fn tell_written(
        &mut self,
        id: u64,
        end: usize,
        bytes: &[u8],
        damaged_at: Option<usize>,
    ) {
        let Some(story) = self.trace.story() else { return };
        let Some(pipes) = self.connections.pipes(id) else { return };
        let (Some((from, _)), Some((to, _))) = (pipes[end].from, pipes[1 - end].from) else { return };
        pipes[end].tap.spoken = true;
        // Messages come from the end that called, once its hello was answered.
        if end == 1 || !pipes[1].tap.spoken {
            return;
        }
        let pipe = &mut pipes[end];
        let arrives = pipe.parcels.back().and_then(|(at, _)| *at);
        pipe.tap.flying.retain(|(_, at)| at.is_none_or(|at| at > now()));
        let taken = pipe.tap.read(bytes, damaged_at);
        for (number, readable) in self.telling.take((from, to), taken) {
            if readable {
                pipe.tap.flying.push((number, arrives));
            }
            story.messages[number].fate = match arrives {
                _ if !readable => Fate::Unreadable,
                Some(at) => Fate::Arrives(at),
                None => Fate::Lost,
            };
        }
    }

    /// A worker of a machine took up all that waits for it, and has done it after `micros`.
    pub(in crate::madsim_engine) fn tell_worker(&mut self, slot: usize, worker: &str, micros: u64) {
        let Some(story) = self.trace.story() else { return };
        let (at, clock) = (now(), &self.machines[slot].clock);
        let until = clock.when(clock.read(at).plus(micros), at);
        if worker == "log" {
            match self.telling.writes.remove(&slot) {
                Some(writes) => story.writes(slot, at, until, &writes),
                None => story.disk(slot, at, until, "write and fsync", "a new identity, in another cluster"),
            }
        } else {
            for (kind, text) in self.telling.beside.remove(&slot).unwrap_or_default() {
                story.disk(slot, at, until, kind, text);
            }
        }
    }
}

/// A task of a machine: if it panics, the story says on which.
pub(in crate::madsim_engine) fn witnessed(
    shared: Shared,
    (slot, life): (usize, u32),
    task: impl Future<Output = ()>,
) -> impl Future<Output = ()> {
    let witness = Witness::new(shared, slot, life);
    async move {
        let _witness = witness;
        task.await;
    }
}

/// Lives as long as a task.
struct Witness {
    shared: Shared,
    slot: usize,
    life: u32,
}

impl Witness {
    fn new(shared: Shared, slot: usize, life: u32) -> Self {
        if let Some(machine) = shared.lock().machines.get_mut(slot) {
            let others = if machine.tasks.0 == life { machine.tasks.1 } else { 0 };
            machine.tasks = (life, others + 1);
        }
        Self { shared, slot, life }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(machine) = self.shared.lock().machines.get_mut(self.slot)
            && machine.tasks.0 == self.life
        {
            machine.tasks.1 -= 1;
        }
        // Dropped by the panic itself: tasks of machines that are switched off are dropped in
        // peace.
        if std::thread::panicking()
            && let Some(story) = self.shared.lock().trace.story()
        {
            story.note(now(), Some(self.slot), "assertion failed", "the run ends here");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Tap, Telling};
    use crate::story::{Fate, Story};
    use infinitystore::codec::encode_frame;
    use infinitystore::raft::{Body, Message, NodeId, Term};
    use infinitystore::replica::PeerMessage;

    fn message(term: u64) -> PeerMessage {
        let (from, to, term) = (NodeId::new(1), NodeId::new(2), Term::new(term));
        PeerMessage::Raft(Message { from, to, term, body: Body::TimeoutNow })
    }

    fn bytes(terms: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &term in terms {
            encode_frame(&mut bytes, |payload| message(term).encode(payload));
        }
        bytes
    }

    #[test]
    fn messages_are_read_out_of_pieces() {
        let (all, mut tap, mut read) = (bytes(&[1, 2, 3]), Tap::default(), Vec::new());
        for piece in all.chunks(7) {
            read.extend(tap.read(piece, None));
        }
        assert_eq!(read, [(message(1), true), (message(2), true), (message(3), true)]);
    }

    #[test]
    fn nothing_behind_a_damaged_message_is_read() {
        let (all, mut tap) = (bytes(&[1, 2, 3]), Tap::default());
        let one = bytes(&[1]).len();
        // In two pieces, of which the second has the damage, in the second message.
        assert_eq!(tap.read(&all[..10], None), []);
        assert_eq!(tap.read(&all[10..], Some(one + 3 - 10)), [(message(1), true), (message(2), false)]);
        assert_eq!(tap.read(&bytes(&[4]), None), []);
        // Nor what is no message at all.
        let mut tap = Tap::default();
        assert_eq!(tap.read(b"neither a frame nor its beginning", None), []);
        assert_eq!(tap.read(&all, None), []);
    }

    #[test]
    fn of_messages_that_are_alike_the_earlier_were_dropped() {
        let (mut telling, mut story) = (Telling::default(), Story::default());
        for (at, term) in [(10, 1), (20, 1), (30, 2), (40, 1), (50, 3)] {
            telling.sent(&mut story, at, (0, 1), &message(term));
        }
        // Written together: those of 30 and 40. What was before them is gone, what comes after
        // still waits.
        assert_eq!(
            telling.take((0, 1), vec![(message(2), true), (message(1), true)]),
            [(3, true), (2, true)]
        );
        assert_eq!(telling.take((0, 1), vec![(message(1), true)]), []);
        assert_eq!(telling.take((1, 0), vec![(message(3), true)]), [], "another link");
        assert_eq!(telling.take((0, 1), vec![(message(3), false)]), [(4, false)]);
    }

    #[test]
    fn what_is_on_its_way_dies_with_the_connection() {
        let (mut telling, mut story) = (Telling::default(), Story::default());
        for at in [10, 20, 30] {
            telling.sent(&mut story, at, (0, 1), &message(at));
        }
        let mut tap = Tap { flying: vec![(0, Some(15)), (1, Some(25)), (2, None)], ..Tap::default() };
        story.messages[0].fate = Fate::Arrives(15);
        story.messages[1].fate = Fate::Arrives(25);
        tap.released(Some(&mut story), 35);
        assert_eq!(story.messages[2].fate, Fate::Arrives(35));
        tap.broken(Some(&mut story), 20);
        let fates: Vec<Fate> = story.messages.iter().map(|message| message.fate).collect();
        assert_eq!(fates, [Fate::Arrives(15), Fate::Lost, Fate::Lost]);
    }
}
