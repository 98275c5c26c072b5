//! Sending a snapshot to a peer that lacks compacted entries (Raft §7), chunk by chunk.

use crate::raft::api::RaftEvent;
use crate::raft::core::Raft;
use crate::raft::log::snapshot::{SnapshotChunk, SnapshotRead, SnapshotRefusal};
use crate::raft::message::Body;
use crate::raft::state::progress::{Peer, PeerState, SnapshotBackoff, SnapshotTransfer, TransferStep};
use crate::raft::state::role::Role;
use crate::raft::state::shared::Shared;
use crate::raft::types::{LogId, LogIndex, NodeId, Session};

impl Shared {
    /// Whether a transfer that has not begun would be of no use: what comes after the snapshot is
    /// not in memory any more.
    fn is_snapshot_stale(&self, peer: &Peer) -> bool {
        let PeerState::Snapshot(transfer) = &peer.state else { return false };
        let has_begun = (transfer.step, transfer.offset) != (TransferStep::Ask, 0);
        !has_begun && transfer.snapshot.last.index < self.log.base().index
    }

    /// The peer needs entries that are compacted away.
    pub(in crate::raft) fn start_snapshot(&mut self, peer: &mut Peer, last_session: &mut Session) {
        let snapshot = self.snapshot.clone().expect("a log is compacted only below a snapshot");
        *last_session = last_session.next();
        peer.session = *last_session;
        peer.state = PeerState::Snapshot(SnapshotTransfer {
            snapshot,
            offset: 0,
            step: TransferStep::Ask,
            waits_since: self.now,
        });
    }

    /// Asks the storage for the chunk that a transfer needs; after a silence it starts over from
    /// there. A peer that refused its snapshot is left alone for a while, and is offered the newest
    /// one then.
    pub(in crate::raft) fn continue_snapshot(&mut self, id: NodeId, peer: &mut Peer, last: &mut Session) {
        if peer.refusal.is_some_and(|refused| self.now < refused.retry_at) {
            return;
        }
        if let PeerState::Snapshot(transfer) = &peer.state
            && (transfer.step, transfer.offset) == (TransferStep::Ask, 0)
            && self.snapshot.as_ref().is_some_and(|newest| newest.last != transfer.snapshot.last)
        {
            self.start_snapshot(peer, last);
        }
        if self.is_snapshot_stale(peer) {
            let answers = peer.is_active(self.now, self.config.election_timeout_micros);
            if answers && !self.snapshot_wanted {
                self.snapshot_wanted = true;
                self.outbox.events.push(RaftEvent::SnapshotWanted);
            }
            return;
        }
        let session = peer.session;
        let is_active = peer.is_active(self.now, self.config.election_timeout_micros);
        let PeerState::Snapshot(transfer) = &mut peer.state else { return };
        let patience = self.config.election_timeout_micros;
        let is_silent = self.now.since(transfer.waits_since) >= patience;
        // A peer that does not even answer heartbeats is sent no chunk again.
        if is_silent && is_active {
            transfer.step = TransferStep::Ask;
        }
        if transfer.step == TransferStep::Ask {
            transfer.step = TransferStep::Read;
            transfer.waits_since = self.now;
            self.outbox.snapshot_reads.push(SnapshotRead {
                to: id,
                session,
                snapshot: transfer.snapshot.last,
                offset: transfer.offset,
                bytes_max: self.config.snapshot_chunk_bytes,
            });
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
            PeerState::Snapshot(_)
                if peer.refusal.is_some_and(|refused| self.shared.now < refused.retry_at) =>
            {
                None
            }
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
        if transfer.step != TransferStep::Read {
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
        if chunk.snapshot.last != transfer.snapshot.last || chunk.offset != transfer.offset {
            return;
        }
        transfer.step = TransferStep::Sent;
        transfer.waits_since = shared.now;
        peer.last_sent_at = Some(shared.now);
        let SnapshotChunk { snapshot, offset, data, done } = chunk;
        shared.send(to, Body::InstallSnapshot { session, snapshot, offset, data, done });
    }

    /// The peer has the chunks below `next_offset`.
    pub(in crate::raft) fn handle_snapshot_progress(
        &mut self,
        from: NodeId,
        session: Session,
        snapshot: LogId,
        next_offset: u64,
    ) {
        let Some((shared, peer)) = self.answering_peer(from, session) else { return };
        let PeerState::Snapshot(transfer) = &mut peer.state else { return };
        if transfer.snapshot.last != snapshot || transfer.step != TransferStep::Sent {
            return;
        }
        if next_offset > transfer.snapshot.bytes {
            return shared.bad_message(from, "it has more of a snapshot than there is");
        }
        transfer.offset = next_offset;
        transfer.step = TransferStep::Ask;
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
        (transfer.offset, transfer.step) = (0, TransferStep::Ask);
        // A second copy of this refusal must not lengthen the pause again.
        peer.session = next_session;
        let times = peer.refusal.map_or(1, |refused| refused.times.saturating_add(1));
        let config = &shared.config;
        let factor = 1_u64.checked_shl(times - 1).unwrap_or(u64::MAX);
        let pause = config.snapshot_backoff_min_micros.saturating_mul(factor);
        let retry_at = shared.now.plus(pause.min(config.snapshot_backoff_max_micros));
        peer.refusal = Some(SnapshotBackoff { why, times, retry_at });
        shared.outbox.events.push(RaftEvent::SnapshotNotTaken { peer: from, why, times });
    }
}
