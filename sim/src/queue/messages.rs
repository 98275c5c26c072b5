//! Messages between machines: sent, lost, damaged, late, and arriving once more.

use crate::queue::event::SimEvent;
use crate::queue::simulation::Simulation;
use crate::record::timeline::Fate;
use crate::record::violation::Violation;
use crate::schedule::MILLI;
use bytes::Bytes;
use infinitystore::codec::{decode_frame, encode_frame};
use infinitystore::raft::{Body, Message};
use infinitystore::replica::{Event, PeerMessage};
use rand::Rng;

/// The last messages to each machine that may come again, at most.
const ECHOES_MAX: usize = 16;
/// The probability that each of them does, and the time within which.
const ECHOED: f64 = 0.3;
const ECHO_MICROS: u64 = 1_500 * MILLI;

impl Simulation {
    pub(super) fn arrive(&mut self, from: usize, slot: usize, message: PeerMessage) -> Result<(), Violation> {
        // The hello of the transport: a removed member, and another store under a known id, are not
        // let in. Only a committed membership proves a removal: one that is not committed may be
        // void, and must not keep out the leader that replaces it. A leader that still tells a
        // member of its removal goes on to hear it.
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        let (sender, raft) = (message.from(), process.replica.raft());
        let (committed, _) = raft.membership_at(raft.commit_index());
        let removed = committed.proves_removed(sender)
            && !raft.membership().members.contains_key(&sender)
            && !raft.progress().any(|peer| peer.id == sender);
        let here = self.machines[slot].identity.is_some_and(|identity| identity.id == message.to());
        if !here || removed || self.hosts.get(&sender) != Some(&from) {
            return Ok(());
        }
        if !self.is_understood(from, slot, &message) {
            return Ok(());
        }
        self.greet(from, slot, sender)?;
        self.remember(from, slot, &message);
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        if let PeerMessage::Raft(message) = &message {
            let committed = self.checks.committed_through();
            self.checks.quorums.arrived(message, process.replica.raft(), committed);
        }
        self.trace.line(self.now, Some(slot), "receive", format_args!("{message:?}"));
        self.service.heard(self.now, slot, &message);
        self.give(slot, Event::Peer(message))
    }

    /// In runs in which the network makes second copies, they may come after their receiver or
    /// their sender has restarted.
    fn remember(&mut self, from: usize, slot: usize, message: &PeerMessage) {
        let is_heartbeat = matches!(message, PeerMessage::Raft(raft)
            if matches!(&raft.body, Body::AppendEntries { entries, .. } if entries.is_empty()));
        if self.schedule.settings.duplicate_ppm == 0 || self.calm || is_heartbeat {
            return;
        }
        let last = &mut self.echoes[slot];
        if last.len() == ECHOES_MAX {
            last.pop_front();
        }
        last.push_back((from, message.clone()));
    }

    /// A machine has started: some of what reached it before, and of what it said, comes once more.
    pub(super) fn echo(&mut self, started: usize) {
        if self.calm {
            return;
        }
        for to in 0..self.echoes.len() {
            for (from, message) in self.echoes[to].clone() {
                if (to == started || from == started) && self.echo_rng.random_bool(ECHOED) {
                    self.mark("copy after a restart");
                    let delay = self.echo_rng.random_range(0..ECHO_MICROS);
                    self.plan_arrival(from, to, delay, message);
                }
            }
        }
    }

    pub(super) fn send(&mut self, slot: usize, message: PeerMessage) -> Result<(), Violation> {
        if let PeerMessage::Raft(raft) = &message {
            self.checks.sent(raft, &self.machines[slot].durable)?;
            let (time, timeout) =
                (self.machines[slot].time(self.now), self.schedule.settings.election_timeout_micros);
            if let Some(process) = &self.machines[slot].process {
                self.elections.sent(raft, process.replica.membership(), time, timeout)?;
                self.checks.quorums.sent(raft, process.replica.raft(), self.now)?;
            }
        }
        if let PeerMessage::Forward(forward) = &message {
            self.elections.forwards(forward)?;
        }
        let Some(&to) = self.hosts.get(&message.to()) else { return Ok(()) };
        self.service.said(slot, to, &message);
        if let PeerMessage::Raft(Message { term, body: Body::TimeoutNow, .. }) = &message {
            self.service.orders(self.now, slot, to, *term)?;
        }
        let fate = self.network.fate(self.now, slot, to, &self.schedule.settings);
        self.note_forward(slot, to, &fate, &message);
        let Some(delay) = fate.arrives else {
            self.mark("message lost");
            self.tell(slot, to, Fate::Lost, &message);
            return Ok(());
        };
        let arrives = self.now + delay;
        let (message, told) = if fate.corrupt {
            let Some(altered) = self.corrupted(&message) else {
                self.tell(slot, to, Fate::Unreadable, &message);
                return Ok(());
            };
            (altered, Fate::Altered(arrives))
        } else {
            (message, Fate::Arrives(arrives))
        };
        self.tell(slot, to, told, &message);
        if let Some(delay) = fate.again {
            self.mark("message duplicated");
            self.tell(slot, to, Fate::Duplicate(self.now + delay), &message);
            self.plan_arrival(slot, to, delay, message.clone());
        }
        self.plan_arrival(slot, to, delay, message);
        Ok(())
    }

    fn plan_arrival(&mut self, from: usize, slot: usize, delay: u64, message: PeerMessage) {
        let message = Box::new(message);
        self.queue.plan(self.now + delay, SimEvent::Arrival { from, slot, message });
    }

    fn tell(&mut self, from: usize, to: usize, fate: Fate, message: &PeerMessage) {
        if let Some(timeline) = self.trace.timeline() {
            timeline.message(self.now, from, to, fate, message);
        }
    }

    /// A message some of whose bits flipped on the way, as the receiver decodes it: almost always
    /// as nothing.
    fn corrupted(&mut self, message: &PeerMessage) -> Option<PeerMessage> {
        self.mark("message corrupted");
        let mut frame = Vec::new();
        encode_frame(&mut frame, |payload| message.encode(payload));
        let bits = self.disk_rng.random_range(1..4);
        for _ in 0..bits {
            let position = self.disk_rng.random_range(0..frame.len());
            frame[position] ^= 1 << self.disk_rng.random_range(0..8);
        }
        let mut input = bytes::BytesMut::from(&frame[..]);
        let payload: Bytes = decode_frame(&mut input, 64 << 20).ok()??;
        PeerMessage::decode(payload).ok()
    }
}
