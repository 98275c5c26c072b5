//! A forward that nobody answers is sent again.
//!
//! A forward may be lost on its way, or before: this node itself drops it when the connection to
//! the leader has just broken. So after a silence the newest is sent again, under its number and in
//! its term: if it had arrived, the leader drops the copy. The newest is enough. Once it is applied
//! here, it is proven which of those before it were lost (`client_writes.rs`).

use crate::raft::{NodeId, Time};
use crate::replica::client_writes::ForwardAgain;
use crate::replica::message::{Forward, PeerMessage};
use crate::replica::proposal::{self, ProposalId};
use crate::replica::replica::Replica;
use alloc::vec;

/// The first silence, in heartbeat intervals. Each further one is twice as long, up to an election
/// timeout.
const HEARTBEATS: u64 = 2;

impl Replica {
    /// Writes have just been forwarded.
    pub(super) fn note_forwarded(&mut self) {
        let pause_micros = HEARTBEATS * self.config.raft.heartbeat_interval_micros;
        self.forward_again = Some(ForwardAgain { at: self.now.plus(pause_micros), pause_micros });
    }

    /// Sends the newest forward of this term again, if it is time to.
    pub(super) fn maybe_forward_again(&mut self) {
        let Some(again) = self.forward_again else { return };
        let (id, term) = (self.raft.id(), self.raft.term());
        let Some((write, sequence)) = self.writes.newest_sent(term) else {
            self.forward_again = None;
            return;
        };
        let Some(leader) = self.takes_forwards().filter(|_| again.at <= self.now) else { return };
        let name = ProposalId { origin: id, incarnation: self.incarnation, sequence };
        let commands = vec![proposal::encode(name, &write.command)];
        let (incarnation, first_sequence) = (self.incarnation, sequence);
        let forward = Forward { from: id, to: leader, term, incarnation, first_sequence, commands };
        self.actions.messages.push(PeerMessage::Forward(forward));
        let pause_micros = (2 * again.pause_micros).min(self.config.raft.election_timeout_micros);
        self.forward_again = Some(ForwardAgain { at: self.now.plus(pause_micros), pause_micros });
    }

    /// When the newest forward is sent again, if there is a leader to send it to.
    pub(super) fn forward_again_at(&self) -> Option<Time> {
        self.forward_again.filter(|_| self.takes_forwards().is_some()).map(|again| again.at)
    }

    /// The member that leads this term and takes forwards, as far as this node knows.
    pub(super) fn takes_forwards(&self) -> Option<NodeId> {
        let leader = self.raft.leader_hint().leader.filter(|leader| *leader != self.raft.id())?;
        (self.raft.term() > self.leaderless_term).then_some(leader)
    }
}
