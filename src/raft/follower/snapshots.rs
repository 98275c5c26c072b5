//! A snapshot from the leader (Raft figure 13): stored chunk by chunk, then installed.

use crate::raft::api::RaftEvent;
use crate::raft::core::Raft;
use crate::raft::log::memberships::Memberships;
use crate::raft::log::restore::INDEX_MAX;
use crate::raft::log::snapshot::{SnapshotChunk, SnapshotMeta, SnapshotRefusal};
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::{Body, Chunk};
use crate::raft::state::shared::{Install, Shared};
use crate::raft::types::{LogId, LogIndex, NodeId, ReadRound, Term, Time};

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

impl Raft {
    /// One chunk from the leader of this term.
    pub(in crate::raft) fn handle_install_snapshot(&mut self, from: NodeId, chunk: Chunk) {
        if !self.follow(from) {
            return;
        }
        let shared = &mut self.shared;
        let last = chunk.snapshot.last;
        if let Err(reason) = check_chunk(&chunk, shared.term()) {
            return shared.bad_message(from, reason);
        }
        // Every answer to a chunk waits for the disk, and some chunks get none.
        let clock = self.shared.answer_clock(Time::new(0));
        self.answer_heard(from, ReadRound::ZERO, clock, false);
        let shared = &mut self.shared;
        if let Some(install) = shared.install.as_ref().filter(|install| install.pending.is_some()) {
            // Another leader has to hear of it too, and one that sends another snapshot has to send
            // it again.
            let session = chunk.session;
            let body = if install.snapshot == chunk.snapshot {
                Body::SnapshotInstalled { session, match_index: last.index }
            } else {
                Body::SnapshotProgress { session, snapshot: last, next_offset: 0, is_lacking: true }
            };
            return shared.hold(from, body);
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

    /// Puts the chunk into the stream of writes if it is the next one, and there is room for it.
    /// Otherwise tells the leader which one is.
    fn store_chunk(&mut self, from: NodeId, chunk: Chunk) {
        let Chunk { session, snapshot, offset, data, done } = chunk;
        let known = self.install.as_ref().filter(|install| install.snapshot == snapshot);
        let expected = known.map_or(0, |install| install.next_offset);
        let last = snapshot.last;
        let progress = |next_offset, is_lacking| Body::SnapshotProgress {
            session,
            snapshot: last,
            next_offset,
            is_lacking,
        };
        let next_offset = offset.saturating_add(data.len() as u64);
        let chunk = SnapshotChunk { snapshot: snapshot.clone(), offset, data, done };
        if offset != expected || !self.has_room_for(&chunk) {
            // One that came before is of no harm.
            return self.hold(from, progress(expected, offset >= expected));
        }
        let records = &mut self.writes.pending;
        records.snapshot_chunks.push(chunk);
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
            progress(next_offset, false)
        };
        self.hold(from, body);
    }

    /// Whether the write that is pending can carry the chunk, too: behind others of its snapshot,
    /// as many as the leader may send at once. The last chunk shares no write with changes of the
    /// log, and none shares one with the marker of another snapshot.
    fn has_room_for(&self, chunk: &SnapshotChunk) -> bool {
        let records = &self.writes.pending;
        let has_log_changes = !records.entries.is_empty() || records.truncate_from.is_some();
        if records.snapshot.is_some() || (chunk.done && has_log_changes) {
            return false;
        }
        let chunks = &records.snapshot_chunks;
        let Some(before) = chunks.last() else { return true };
        let follows =
            before.snapshot == chunk.snapshot && before.offset + before.data.len() as u64 == chunk.offset;
        let bytes: usize = chunks.iter().chain([chunk]).map(|chunk| chunk.data.len()).sum();
        follows && bytes as u64 <= self.config.snapshot_inflight_bytes_max
    }

    /// The installed snapshot is the state now. Nothing could be appended since its last chunk
    /// came.
    pub(in crate::raft) fn finish_install(&mut self, snapshot: SnapshotMeta) {
        let last = snapshot.last;
        assert!(last.index > self.commit_index, "an installed snapshot is ahead of what was committed here");
        self.log.reset(last);
        self.writes.log_replaced(last.index);
        self.memberships = Memberships::new(Some((snapshot.membership_id, snapshot.membership.clone())));
        self.commit_index = last.index;
        self.handed_out = last.index;
        // Its content replaces all that was applied, and nothing comes between.
        self.last_applied = last.index;
        self.snapshot = Some(snapshot.clone());
        self.snapshot_wanted = false;
        self.outbox.events.push(RaftEvent::SnapshotInstalled(snapshot));
        self.report_membership();
    }
}

/// Checks that the chunk is one of a correct leader.
fn check_chunk(chunk: &Chunk, term: Term) -> Result<(), &'static str> {
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
    if chunk.snapshot.last.term > term {
        return Err("a snapshot of a later term than its leader");
    }
    if chunk.snapshot.last.index > INDEX_MAX {
        return Err("a snapshot that ends where no log can reach");
    }
    Ok(())
}
