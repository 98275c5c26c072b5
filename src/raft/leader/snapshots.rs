//! Sends a snapshot, chunk by chunk, to a peer that lacks entries that have left memory (Raft §7).

use crate::raft::api::RaftEvent;
use crate::raft::core::Raft;
use crate::raft::log::snapshot::{SnapshotChunk, SnapshotRead, SnapshotRefusal};
use crate::raft::message::Body;
use crate::raft::state::progress::{ChunkSilence, Peer, PeerState, SnapshotBackoff};
use crate::raft::state::role::Role;
use crate::raft::state::sending::{Budget, SnapshotTransfer};
use crate::raft::state::shared::Shared;
use crate::raft::types::{LogId, LogIndex, NodeId, Session};
use alloc::boxed::Box;

impl Shared {
    /// Whether a transfer that has not begun would be of no use: what comes after the snapshot is
    /// not in memory any more.
    fn is_snapshot_stale(&self, peer: &Peer) -> bool {
        let PeerState::Snapshot(transfer) = &peer.state else { return false };
        !transfer.has_begun() && transfer.snapshot.last.index < self.log.base().index
    }

    /// The peer needs entries that have left memory.
    pub(in crate::raft) fn start_snapshot(&mut self, peer: &mut Peer, last_session: &mut Session) {
        let snapshot = self.snapshot.clone().expect("entries leave memory only once there is a snapshot");
        *last_session = last_session.next();
        peer.session = *last_session;
        let chunk_bytes = self.config.snapshot_chunk_bytes;
        let transfer = SnapshotTransfer::new(snapshot, chunk_bytes, self.now);
        peer.state = PeerState::Snapshot(Box::new(transfer));
    }

    /// Asks the storage for the chunk that comes next in a transfer, if there is room for it. After
    /// a silence what is in flight counts as lost, whether or not the peer is there: what it does
    /// not take must not keep others waiting. A peer that answers, and leaves chunks unanswered
    /// again and again, is sent them more and more seldom. A peer that refused its snapshot is left
    /// alone for a while, and is offered the newest one then.
    pub(in crate::raft) fn continue_snapshot(
        &mut self,
        id: NodeId,
        peer: &mut Peer,
        last: &mut Session,
        budget: &mut Budget,
    ) {
        if peer.refuses_at(self.now) {
            return;
        }
        let patience = self.config.election_timeout_micros;
        let mut unanswered_since = None;
        if let PeerState::Snapshot(transfer) = &mut peer.state {
            let is_silent = self.now.since(transfer.waits_since) >= patience;
            if is_silent && transfer.is_under_way() {
                let is_sent = transfer.next > transfer.acked || transfer.is_last_sent;
                unanswered_since = is_sent.then_some(transfer.waits_since);
                budget.give_back(transfer.bytes_in_flight());
                transfer.go_back(transfer.acked, self.config.snapshot_chunk_bytes);
            }
            let newest = self.snapshot.as_ref().map(|newest| newest.last);
            if !transfer.has_begun() && newest.is_some_and(|newest| newest != transfer.snapshot.last) {
                self.start_snapshot(peer, last);
            }
        }
        if let Some(since) = unanswered_since {
            peer.note_silence(since, self.now, patience);
        }
        // A peer that does not even answer heartbeats is sent nothing.
        if !peer.is_active(self.now, patience) || self.now < peer.silence.retry_at {
            return;
        }
        if self.is_snapshot_stale(peer) {
            if !self.snapshot_wanted {
                self.snapshot_wanted = true;
                self.outbox.events.push(RaftEvent::SnapshotWanted);
            }
            return;
        }
        let session = peer.session;
        let PeerState::Snapshot(transfer) = &mut peer.state else { return };
        if let Some(bytes_max) = budget.take(transfer, self.now) {
            transfer.reading = Some(bytes_max);
            transfer.waits_since = self.now;
            budget.pace.served = id;
            let (snapshot, offset) = (transfer.snapshot.last, transfer.next);
            self.outbox.snapshot_reads.push(SnapshotRead { to: id, session, snapshot, offset, bytes_max });
        }
    }
}

impl Raft {
    /// Peers that are catching up need the entries after this index: after the snapshot that is on
    /// its way to them, or after the prefix that agrees. `None` if this node does not lead, or all
    /// are silent.
    pub(in crate::raft) fn needed_by_laggards(&self) -> Option<LogIndex> {
        let Role::Leader(leader) = &self.role else { return None };
        let micros = self.shared.config.election_timeout_micros;
        let active = leader.peers.values().filter(|peer| peer.is_active(self.shared.now, micros));
        let needs = active.filter_map(|peer| match &peer.state {
            // It is offered the newest snapshot there is by then.
            PeerState::Snapshot(_) if peer.refuses_at(self.shared.now) => None,
            PeerState::Snapshot(transfer) => Some(transfer.snapshot.last.index),
            PeerState::Probe { .. } | PeerState::Replicate(_) => Some(peer.match_index),
        });
        needs.min()
    }

    /// The storage has answered with a chunk, which goes to the peer.
    pub(in crate::raft) fn handle_chunk_read(
        &mut self,
        to: NodeId,
        session: Session,
        chunk: Option<SnapshotChunk>,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let shared = &mut self.shared;
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        if peer.session != session {
            return;
        }
        let PeerState::Snapshot(transfer) = &mut peer.state else { return };
        if transfer.reading.is_none() {
            return;
        }
        let Some(chunk) = chunk else {
            // A newer one took its place; if the core does not know it yet, its marker is on its
            // way.
            if shared.snapshot.as_ref().is_some_and(|newest| newest.last != transfer.snapshot.last) {
                shared.start_snapshot(peer, &mut leader.last_session);
            }
            return;
        };
        if chunk.snapshot.last != transfer.snapshot.last || chunk.offset != transfer.next {
            return;
        }
        if *chunk.snapshot != transfer.snapshot {
            // The state was saved again under the same name, and not by the same bytes.
            **transfer =
                SnapshotTransfer::new(*chunk.snapshot, shared.config.snapshot_chunk_bytes, shared.now);
            return;
        }
        transfer.sent(chunk.data.len() as u64, chunk.done, shared.now);
        peer.last_sent_at = Some(shared.now);
        let SnapshotChunk { snapshot, offset, data, done } = chunk;
        shared.send(to, Body::InstallSnapshot { session, snapshot, offset, data, done });
    }

    /// The peer has the chunks below `next_offset`. If it is lacking, it has taken none of those
    /// that came after.
    pub(in crate::raft) fn handle_snapshot_progress(
        &mut self,
        from: NodeId,
        session: Session,
        snapshot: LogId,
        (next_offset, is_lacking): (u64, bool),
    ) {
        let Some((shared, peer)) = self.answering_peer(from, session) else { return };
        let PeerState::Snapshot(transfer) = &mut peer.state else { return };
        if transfer.snapshot.last != snapshot {
            return;
        }
        if next_offset > transfer.snapshot.bytes {
            return shared.bad_message(from, "it has more of a snapshot than there is");
        }
        peer.silence = ChunkSilence::default();
        if next_offset > transfer.acked {
            transfer.advance(next_offset, shared.config.snapshot_inflight_bytes_max, shared.now);
        }
        // A peer that was started again, or took entries meanwhile, has nothing. Anything else that
        // is less than it had was said before, unless it says so after it was sent again what it
        // lacked: late copies of chunks may have reached it since its start.
        let is_news = next_offset == transfer.acked || next_offset == 0 || transfer.gone_back_to.is_some();
        if is_lacking && is_news && transfer.gone_back_to != Some(next_offset) {
            transfer.go_back(next_offset, shared.config.snapshot_chunk_bytes);
        }
    }

    /// The peer has the snapshot, durably, or had committed all of it.
    pub(in crate::raft) fn handle_snapshot_installed(
        &mut self,
        from: NodeId,
        session: Session,
        match_index: LogIndex,
    ) {
        let Some((shared, peer)) = self.answering_peer(from, session) else { return };
        if match_index > shared.log.last().index {
            return shared.bad_message(from, "it acknowledges entries that were never sent");
        }
        let was_needed = matches!(peer.state, PeerState::Snapshot(_));
        let repeated = if was_needed { peer.note_install(shared.log.last().index) } else { None };
        if let Some(times) = repeated {
            shared.outbox.events.push(RaftEvent::SnapshotRepeated { peer: from, times });
        }
        peer.acknowledge(match_index, shared.config.inflight_messages_max);
    }

    /// The peer cannot take the snapshot: it is left alone, longer each time.
    pub(in crate::raft) fn handle_snapshot_refused(
        &mut self,
        from: NodeId,
        session: Session,
        snapshot: LogId,
        why: SnapshotRefusal,
    ) {
        if self.answering_peer(from, session).is_none() {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let next_session = leader.next_session();
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        let shared = &mut self.shared;
        let PeerState::Snapshot(transfer) = &mut peer.state else { return };
        if transfer.snapshot.last != snapshot {
            return;
        }
        let (snapshot, chunk_bytes) = (transfer.snapshot.clone(), shared.config.snapshot_chunk_bytes);
        **transfer = SnapshotTransfer::new(snapshot, chunk_bytes, shared.now);
        // A second copy of this refusal must not lengthen the pause again.
        peer.session = next_session;
        peer.silence = ChunkSilence::default();
        let times = peer.refusal.map_or(1, |refused| refused.times.saturating_add(1));
        let config = &shared.config;
        let factor = 1_u64.checked_shl(times - 1).unwrap_or(u64::MAX);
        let pause = config.snapshot_backoff_min_micros.saturating_mul(factor);
        let retry_at = shared.now.plus(pause.min(config.snapshot_backoff_max_micros));
        peer.refusal = Some(SnapshotBackoff { why, times, retry_at });
        shared.outbox.events.push(RaftEvent::SnapshotNotTaken { peer: from, why, times });
    }

    /// The peer's disk has room again: it need not wait for the end of its pause. The tries before
    /// count on, in case this is not enough room.
    pub(in crate::raft) fn handle_peer_has_room(&mut self, id: NodeId) {
        let now = self.shared.now;
        let Role::Leader(leader) = &mut self.role else { return };
        let refusal = leader.peers.get_mut(&id).and_then(|peer| peer.refusal.as_mut());
        if let Some(refusal) = refusal.filter(|refusal| refusal.why == SnapshotRefusal::NoRoom) {
            refusal.retry_at = refusal.retry_at.min(now);
        }
    }
}
