//! What the report shows of connections and disks, which carry bytes and work: the messages and
//! writes in them are read along here. Only where a timeline is told; nothing of the run depends on
//! it.

#[cfg(test)]
mod tests;

use crate::record::timeline::{Fate, Timeline};
use crate::record::words::{beside_text, write_text};
use bytes::BytesMut;
use infinitystore::codec::decode_frame;
use infinitystore::replica::{PeerMessage, StorageRequest};
use std::collections::{BTreeMap, VecDeque};

/// Longer frames than the transport takes; what announces more is none.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// What replicas have asked for, until a connection or a disk takes it up.
#[derive(Debug, Default)]
pub(super) struct WireTap {
    /// By sender and receiver: messages, with their number in the timeline, oldest first.
    pub messages: BTreeMap<(usize, usize), VecDeque<(usize, PeerMessage)>>,
    /// By machine: what goes into the log.
    pub writes: BTreeMap<usize, Vec<String>>,
    /// By machine: work on snapshot files, its kind and text.
    pub beside: BTreeMap<usize, Vec<(&'static str, String)>>,
}

/// Reads along on one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct PipeTap {
    /// Whether anything was ever written.
    pub spoken: bool,
    /// Written, and not a whole message yet.
    pub bytes: BytesMut,
    /// The place among them at which a bit has flipped.
    pub damaged_at: Option<usize>,
    /// What is written from now on is no message that anybody reads.
    pub ended: bool,
    /// Messages on their way by their number in the timeline, and when each arrives; `None`: held
    /// back.
    pub flying: Vec<(usize, Option<u64>)>,
}

impl WireTap {
    /// A machine sends a message: whether it gets there shows later.
    pub(super) fn sent(
        &mut self,
        timeline: &mut Timeline,
        at: u64,
        (from, to): (usize, usize),
        message: &PeerMessage,
    ) {
        let number = timeline.messages.len();
        timeline.message(at, from, to, Fate::Lost, message);
        self.messages.entry((from, to)).or_default().push_back((number, message.clone()));
    }

    /// A machine asks its disk for something.
    pub(super) fn asked(&mut self, slot: usize, requests: &[StorageRequest]) {
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
    pub(super) fn switched_off(&mut self, slot: usize) {
        self.messages.retain(|(from, _), _| *from != slot);
        self.writes.remove(&slot);
        self.beside.remove(&slot);
    }

    /// Which of the sent messages these are that a connection has taken together, and whether each
    /// can be read at the other end.
    pub(super) fn take(
        &mut self,
        link: (usize, usize),
        taken: Vec<(PeerMessage, bool)>,
    ) -> Vec<(usize, bool)> {
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

impl PipeTap {
    /// The messages that are complete with these bytes, and whether each can be read at the other
    /// end.
    pub(super) fn read(&mut self, bytes: &[u8], damaged_at: Option<usize>) -> Vec<(PeerMessage, bool)> {
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
            // A node that receives a damaged frame hangs up.
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
    pub(super) fn released(&mut self, timeline: Option<&mut Timeline>, arrives: u64) {
        let Some(timeline) = timeline else { return };
        for (number, at) in self.flying.iter_mut().filter(|(_, at)| at.is_none()) {
            *at = Some(arrives);
            timeline.messages[*number].fate = Fate::Arrives(arrives);
        }
    }

    /// The connection breaks: what has not arrived never will.
    pub(super) fn broken(&mut self, timeline: Option<&mut Timeline>, now: u64) {
        let Some(timeline) = timeline else { return };
        for (number, at) in self.flying.drain(..) {
            if at.is_none_or(|at| at > now) {
                timeline.messages[number].fate = Fate::Lost;
            }
        }
    }
}
