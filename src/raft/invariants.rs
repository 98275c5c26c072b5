//! What holds between any two inputs, checked in production too.
//!
//! A core that finds itself in a state that no sequence of inputs may lead to stops with a panic.
//! Its node ends with it, before anything that rests on that state leaves: nothing that was
//! acknowledged is lost by a member that stops, and everything may be by one that goes on. The
//! state is not made durable either, since a write leaves with the output that is not returned.
//!
//! Each input is checked in O(1), each output in O(members), which it takes anyway. What would take
//! longer (that logs match, that entries are contiguous) is asserted where it is made, and checked
//! for whole clusters by the simulator.

use crate::raft::core::Raft;
use crate::raft::state::progress::{Peer, PeerState};
use crate::raft::state::role::{Leader, Role};
use crate::raft::state::shared::Shared;
use crate::raft::types::{LogIndex, NodeId};

impl Raft {
    /// # Panics
    /// If an invariant does not hold. That is a bug of the core, or of a driver that broke its
    /// contract.
    pub(super) fn assert_invariants(&self) {
        self.shared.assert_invariants();
        let (id, hard_state) = (self.shared.id, self.shared.hard_state);
        match &self.role {
            Role::Follower(follower) => {
                assert!(follower.leader != Some(id), "a follower does not follow itself");
                return;
            }
            Role::PreCandidate(_) => {}
            Role::Candidate(candidate) => {
                assert!(hard_state.voted_for == Some(id), "a candidate voted for itself");
                assert!(candidate.vote_at <= self.shared.writes.stamp(), "a candidate's vote is written");
            }
            Role::Leader(leader) => self.shared.assert_leader(leader),
        }
        // All roles but the follower's.
        assert!(self.shared.withdrawn.is_none(), "a member that withdrew only follows");
        assert!(!self.shared.is_install_pending(), "only a follower has its log replaced");
    }

    /// The invariants of a leader's peers: before an output acts on what is known of them, and
    /// after it.
    ///
    /// # Panics
    /// As [`Self::assert_invariants`].
    pub(super) fn assert_peers(&self) {
        let Role::Leader(leader) = &self.role else { return };
        leader.peers.iter().for_each(|(id, peer)| self.shared.assert_peer(leader, *id, peer));
    }
}

impl Shared {
    fn assert_invariants(&self) {
        let (applied, handed_out, commit) = (self.last_applied, self.handed_out, self.commit_index);
        let (base, last, term) = (self.log.base().index, self.log.last(), self.term());
        assert!(applied <= handed_out, "applied up to {applied}, but handed out only up to {handed_out}");
        assert!(handed_out <= commit, "handed out up to {handed_out}, but committed only up to {commit}");
        assert!(commit <= last.index, "committed up to {commit}, but the log ends at {}", last.index);
        assert!(base <= handed_out, "entries up to {base} left the log, handed out only up to {handed_out}");
        assert!(last.term <= term, "the log ends in term {}, after the current term {term}", last.term);
        let snapshot = self.snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index);
        let newest = self.markers.back().map_or(snapshot, |(_, meta)| meta.last.index);
        assert!(snapshot.max(newest) <= handed_out, "a snapshot holds entries that were not handed out");
        let pending = self.install.as_ref().filter(|install| install.pending.is_some());
        let installs = pending.map(|install| install.snapshot.last.index);
        assert!(installs.is_none_or(|last| last > commit), "a snapshot replaces what is committed");
        self.log.assert_invariants();
        self.memberships.assert_invariants(handed_out, last.index);
        self.writes.assert_invariants(term, last.index);
    }

    fn assert_leader(&self, leader: &Leader) {
        assert!(self.hard_state.voted_for == Some(self.id), "a leader voted for itself");
        assert!(self.writes.is_term_durable(), "a leader's term is durable");
        let (start, last) = (leader.term_start, self.log.last().index);
        assert!(start <= last, "a leader's first entry {start} is in its log, which ends at {last}");
        let begun = leader.reads.unconfirmed_round();
        assert!(begun <= leader.reads.last_round, "a round of reads waits that has not begun");
    }

    fn assert_peer(&self, leader: &Leader, id: NodeId, peer: &Peer) {
        let (last, matched, next) = (self.log.last().index, peer.match_index, peer.next_index);
        assert!(matched < next, "member {id} has entries up to {matched}, but {next} is sent next");
        let is_within = matched <= last && next <= last.next();
        assert!(is_within, "member {id} is at {matched}, next {next}, beyond the last entry {last}");
        let knows_no_more = peer.sent_commit <= self.commit_index;
        assert!(knows_no_more, "member {id} was told more than is committed");
        let rounds = peer.sent_round.max(peer.confirmed_round);
        let has_begun = rounds <= leader.reads.last_round;
        assert!(has_begun, "member {id} has a round of reads that has not begun");
        assert!(peer.session <= leader.last_session, "member {id} has a session that was not given");
        if let PeerState::Snapshot(transfer) = &peer.state {
            let (acked, next, bytes) = (transfer.acked, transfer.next, transfer.snapshot.bytes);
            let is_ordered = acked <= next && next <= bytes;
            assert!(is_ordered, "member {id} has {acked} and is sent {next}, of a snapshot of {bytes} bytes");
        }
    }
}
