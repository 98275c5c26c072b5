//! Snapshots (Raft §7): recording this node's own, sending one to a peer that lacks compacted
//! entries, installing one.

use crate::raft::api::RaftEvent;
use crate::raft::config::{LOG_BYTES_MIN, LOG_PART_OF_SNAPSHOT};
use crate::raft::core::Raft;
use crate::raft::leader::progress::{Peer, PeerState, Refused, SnapshotTransfer, TransferStep};
use crate::raft::log::restore::INDEX_MAX;
use crate::raft::log::snapshot::{SnapshotChunk, SnapshotMeta, SnapshotRead, SnapshotRefusal};
use crate::raft::membership::history::Configurations;
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{Body, Chunk};
use crate::raft::role::Role;
use crate::raft::shared::{Install, Shared};
use crate::raft::types::{LogId, LogIndex, NodeId, ReadRound, Session};
use alloc::boxed::Box;

/// What to do with an offered snapshot, given the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::raft) enum Decision {
    /// Everything it covers is committed here.
    Known,
    /// Its last entry is in the log: everything up to there is committed, and what follows stays.
    FastForward,
    /// The log is shorter than the snapshot, or contradicts it: all of it goes.
    Install,
}

impl Shared {
    /// The table: what to do with a snapshot whose last entry is `last` (Raft figure 13, steps 6 to
    /// 8).
    pub(in crate::raft) fn decide_snapshot(&self, last: LogId) -> Decision {
        if last.index <= self.commit_index {
            Decision::Known
        } else if self.log.contains(last) {
            Decision::FastForward
        } else {
            Decision::Install
        }
    }

    /// Whether a complete snapshot is being written, so that the log is about to be replaced.
    pub(in crate::raft) fn is_install_pending(&self) -> bool {
        self.install.as_ref().is_some_and(|install| install.pending.is_some())
    }

    /// A receipt came: a snapshot whose marker is durable now replaces what it covers. `needed`:
    /// the laggards need what comes after it.
    pub(in crate::raft) fn finish_snapshots(&mut self, needed: Option<LogIndex>) {
        let pending = self.install.as_ref().and_then(|install| install.pending);
        if pending.is_some_and(|sequence| self.writes.is_durable(sequence)) {
            let install = self.install.take().expect("it is pending");
            self.finish_install(*install.snapshot);
        }
        while let Some((sequence, _)) = self.markers.front()
            && self.writes.is_durable(*sequence)
        {
            let (_, snapshot) = self.markers.pop_front().expect("it was there above");
            if self.snapshot.as_ref().is_none_or(|newest| newest.last.index < snapshot.last.index) {
                self.compact(snapshot, needed);
            }
        }
    }

    /// The installed snapshot is the state now. Nothing could be appended since its last chunk
    /// came.
    fn finish_install(&mut self, snapshot: SnapshotMeta) {
        let last = snapshot.last;
        assert!(last.index > self.commit_index, "an installed snapshot is ahead of what was committed here");
        self.log.reset(last);
        self.writes.log_replaced(last.index);
        self.configurations =
            Configurations::new(Some((snapshot.membership_id, snapshot.membership.clone())));
        self.commit_index = last.index;
        self.handed_out = last.index;
        // Its content replaces all that was applied, and nothing comes between.
        self.last_applied = last.index;
        self.snapshot = Some(snapshot.clone());
        self.snapshot_wanted = false;
        self.outbox.events.push(RaftEvent::SnapshotInstalled(snapshot));
        self.report_membership();
    }

    /// The marker of this node's own snapshot is durable. What it covers leaves the memory, except
    /// a tail that spares laggards the snapshot.
    fn compact(&mut self, snapshot: SnapshotMeta, needed: Option<LogIndex>) {
        let last = snapshot.last;
        let (entries_max, bytes_max) = (self.config.log_tail_entries, self.config.log_tail_bytes);
        let mut through = self.log.before_tail(last.index, entries_max, bytes_max);
        if self.log.bytes() <= self.config.laggard_log_bytes_max {
            through = needed.map_or(through, |needed| through.min(needed));
        }
        let through = through.max(self.log.base().index);
        self.log.compact(through);
        self.configurations.compact(through);
        self.snapshot = Some(snapshot);
        self.snapshot_wanted = false;
        // What was trimmed beyond the snapshot is still needed on disk.
        let through = through.min(last.index);
        self.outbox.events.push(RaftEvent::Compacted { through, snapshot: last });
    }

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
        *last_session += 1;
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
        if peer.refused.is_some_and(|refused| self.now < refused.retry_at) {
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
                if peer.refused.is_some_and(|refused| self.shared.now < refused.retry_at) =>
            {
                None
            }
            PeerState::Snapshot(transfer) => Some(transfer.snapshot.last.index),
            PeerState::Probe { .. } | PeerState::Replicate(_) => Some(peer.match_index),
        });
        needs.min()
    }

    /// Keeps the log in memory below its bound, even if the log on disk is much longer. It trims to
    /// half of the bound, so that this happens seldom. What active peers need stays too, up to a
    /// bound of its own.
    pub(in crate::raft) fn maybe_trim(&mut self) {
        let config = &self.shared.config;
        // Without a snapshot there would be nothing to send to a peer that needs the entries.
        let Some(snapshot) = &self.shared.snapshot else { return };
        let worth = (snapshot.bytes / LOG_PART_OF_SNAPSHOT).max(LOG_BYTES_MIN);
        let (bytes, bound) = (self.shared.log.bytes(), config.log_bytes_max.min(worth));
        if bytes <= bound {
            return;
        }
        let needed = if bytes <= config.laggard_log_bytes_max { self.needed_by_laggards() } else { None };
        let shared = &mut self.shared;
        let through = shared.last_applied.min(shared.log.durable());
        shared.log.trim(needed.map_or(through, |needed| needed.min(through)), bound / 2);
        let base = shared.log.base().index;
        shared.configurations.compact(base);
    }

    /// The state machine's snapshot is on disk: its marker goes into the log.
    pub(in crate::raft) fn handle_snapshot_stored(&mut self, snapshot: Box<SnapshotMeta>) {
        let shared = &mut self.shared;
        let newest = shared.markers.back().map(|(_, meta)| meta).or(shared.snapshot.as_ref());
        let is_new = newest.is_none_or(|newest| newest.last.index < snapshot.last.index);
        // Two at once would share a write. A snapshot that arrives from the leader is ahead of this
        // one.
        if !is_new || shared.writes.pending.snapshot.is_some() || shared.is_install_pending() {
            return;
        }
        assert!(snapshot.last.index <= shared.handed_out, "a state machine has applied what was handed out");
        shared.writes.pending.snapshot = Some(snapshot.clone());
        let sequence = shared.writes.stamp();
        shared.markers.push_back((sequence, *snapshot));
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
        peer.told_at = Some(shared.now);
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
        let times = peer.refused.map_or(1, |refused| refused.times.saturating_add(1));
        let config = &shared.config;
        let factor = 1_u64.checked_shl(times - 1).unwrap_or(u64::MAX);
        let pause = config.snapshot_backoff_min_micros.saturating_mul(factor);
        let retry_at = shared.now.plus(pause.min(config.snapshot_backoff_max_micros));
        peer.refused = Some(Refused { why, times, retry_at });
        shared.outbox.events.push(RaftEvent::SnapshotNotTaken { peer: from, why, times });
    }

    /// One chunk from the leader of this term.
    pub(in crate::raft) fn handle_install_snapshot(&mut self, from: NodeId, chunk: Chunk) {
        if !self.follow(from) {
            return;
        }
        let shared = &mut self.shared;
        let last = chunk.snapshot.last;
        if let Err(reason) = check_chunk(&chunk) {
            return shared.bad_message(from, reason);
        }
        // Every answer to a chunk waits for the disk, and some chunks get none.
        self.answer_heard(from, ReadRound::ZERO, false);
        let shared = &mut self.shared;
        if shared.is_install_pending() {
            return;
        }
        match shared.decide_snapshot(last) {
            Decision::Known if shared.contradicts(last) => {
                let committed = LogId::new(shared.log.term_at(last.index).unwrap_or_default(), last.index);
                return self.withdraw(Withdrawal::Contradicted { committed });
            }
            Decision::Known => {}
            Decision::FastForward => shared.commit_to(last.index),
            Decision::Install => return shared.store_chunk(from, chunk),
        }
        shared.install = None;
        let match_index = shared.commit_index;
        shared.hold(from, Body::SnapshotInstalled { session: chunk.session, match_index });
    }

    /// The storage could not store a chunk, or not verify the whole: no marker was written, and the
    /// log is as it was. Later chunks of the same transfer find no snapshot that they belong to.
    pub(in crate::raft) fn handle_snapshot_unstored(&mut self, last: LogId, why: SnapshotRefusal) {
        let shared = &mut self.shared;
        let refused = shared.install.take_if(|install| install.snapshot.last == last);
        if let Some(install) = refused {
            shared.writes.forget_snapshot_answers();
            // The message says nothing of durable state, so a full disk must not hold it up.
            let body = Body::SnapshotRefused { session: install.session, snapshot: last, why };
            shared.hold_for_term(install.from, body);
        }
    }
}

impl Shared {
    /// Puts the chunk into the stream of writes if it is the next one. Otherwise tells the leader
    /// which one is.
    fn store_chunk(&mut self, from: NodeId, chunk: Chunk) {
        let Chunk { session, snapshot, offset, data, done } = chunk;
        let known = self.install.as_ref().filter(|install| install.snapshot == snapshot);
        let expected = known.map_or(0, |install| install.next_offset);
        let last = snapshot.last;
        if offset != expected {
            return self
                .hold(from, Body::SnapshotProgress { session, snapshot: last, next_offset: expected });
        }
        let records = &mut self.writes.pending;
        let has_log_changes = !records.entries.is_empty() || records.truncate_from.is_some();
        let is_taken = records.snapshot_chunk.is_some() || records.snapshot.is_some();
        if is_taken || (done && has_log_changes) {
            // The write that is pending cannot carry this chunk too. The leader sends it again.
            return;
        }
        let next_offset = offset + data.len() as u64;
        records.snapshot_chunk = Some(SnapshotChunk { snapshot: snapshot.clone(), offset, data, done });
        if done {
            // Only if the chunk verifies: the whole log is void, and the marker takes its place.
            records.truncate_from = Some(LogIndex::new(1));
            records.snapshot = Some(snapshot.clone());
        }
        let pending = done.then(|| self.writes.stamp());
        self.install = Some(Install { snapshot, next_offset, pending, from, session });
        let body = if done {
            Body::SnapshotInstalled { session, match_index: last.index }
        } else {
            Body::SnapshotProgress { session, snapshot: last, next_offset }
        };
        self.hold(from, body);
    }
}

/// Checks that the chunk is one of a correct leader.
fn check_chunk(chunk: &Chunk) -> Result<(), &'static str> {
    let end = chunk.offset.checked_add(chunk.data.len() as u64);
    let bytes = chunk.snapshot.bytes;
    if end.is_none_or(|end| end > bytes) || chunk.done != (end == Some(bytes)) {
        return Err("a chunk that does not fit into its snapshot");
    }
    if chunk.data.is_empty() && !chunk.done {
        return Err("an empty chunk");
    }
    if chunk.snapshot.last.index == LogIndex::ZERO || chunk.snapshot.membership.validate().is_err() {
        return Err("a snapshot that makes no sense");
    }
    if chunk.snapshot.last.index > INDEX_MAX {
        return Err("a snapshot that ends where no log can reach");
    }
    Ok(())
}
