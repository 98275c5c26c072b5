//! When a snapshot is taken, and what follows when one fails.

use crate::raft::{
    Input, LogId, LogIndex, NodeId, ReplicationState, RoleName, Session, SnapshotChunk, SnapshotMeta, Time,
};
use crate::replica::api::{SnapshotSave, StorageRequest, UnreadSnapshot, UnstoredSnapshot};
use crate::replica::notice::Notice;
use crate::replica::replica::Replica;
use crate::replica::snapshot_policy::{Saving, pause_micros};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

/// While a snapshot is being sent, the next one is begun only when the log has grown by this many
/// times as much as usual.
const SNAPSHOT_PATIENCE: u64 = 4;

/// Keys for each entry of the log, at most: a snapshot is not due while the log has fewer entries
/// than this share of the keys. At a start, entries cost more than their bytes do.
const KEYS_PER_ENTRY: u64 = 4;

impl Replica {
    /// The newest snapshot whose marker is durable; [`LogId::ZERO`] without one.
    #[must_use]
    pub const fn snapshot(&self) -> LogId {
        self.snapshot
    }

    /// A node that lost a part of its log needs a newer snapshot than the newest one here.
    pub const fn want_snapshot(&mut self) {
        self.policy.is_newer_wanted = true;
    }

    /// Begins a snapshot when the log has grown enough, or the newest one cannot be read. While one
    /// is being sent to a member, the next is put off for a while. Two files are kept, so if
    /// snapshots came faster than a transfer, the transfer would start over each time.
    pub(super) fn maybe_save_snapshot(&mut self) {
        if !self.policy.may_begin(self.now) {
            return;
        }
        let (applied, newest) = (self.last_applied.index, self.snapshot.index);
        // Nothing new since the last one: index zero is no snapshot at all, and a second file of
        // the same entry is of use only where the first cannot be read. It has the same content
        // then, so that the marker in the log stands for it too.
        let is_wanted = (self.policy.unreadable.is_some() && applied >= newest)
            || (self.policy.is_newer_wanted && applied > newest)
            || self.policy.needed_through.is_some_and(|through| applied >= through && newest < through);
        let is_under_way = self.policy.saving.is_some() || self.raft.awaits_marker();
        if is_under_way || (applied <= newest && !is_wanted) {
            return;
        }
        let patience = if self.is_due(1) && self.sends_snapshot() { SNAPSHOT_PATIENCE } else { 1 };
        if !is_wanted && !self.is_due(patience) {
            return;
        }
        let last = self.last_applied;
        let (membership, membership_id) = self.raft.membership_at(last.index);
        let (log_bytes, log_entries) = (self.policy.log_bytes, self.policy.log_entries);
        let (store_bytes, store_keys) = (self.store.bytes(), self.store.len() as u64);
        self.policy.saving = Some(Saving { last, log_bytes, log_entries, store_bytes, store_keys });
        self.policy.is_newer_wanted = false;
        let membership = membership.clone();
        let save = SnapshotSave { last, membership, membership_id, store: self.store.clone() };
        self.actions.storage.push(StorageRequest::SaveSnapshot(Box::new(save)));
    }

    /// The file is complete: the core writes its marker.
    pub(super) fn handle_snapshot_saved(&mut self, meta: Box<SnapshotMeta>) {
        let policy = &mut self.policy;
        if let Some(saving) = policy.saving.take() {
            (policy.store_bytes, policy.store_keys) = (saving.store_bytes, saving.store_keys);
            // What was installed meanwhile began the count anew.
            policy.log_bytes = policy.log_bytes.saturating_sub(saving.log_bytes);
            policy.log_entries = policy.log_entries.saturating_sub(saving.log_entries);
        }
        policy.failures = 0;
        if meta.last == self.snapshot {
            // It took the place of a file that could not be read. The marker has long been durable.
            policy.succeeded(meta.last);
            self.actions.notices.push(Notice::SnapshotTaken(meta.last));
        }
        self.input(Input::SnapshotStored(meta));
    }

    /// It could not be written; the log has grown by as much as before, so it is tried again soon.
    pub(super) fn handle_snapshot_failed(&mut self, last: LogId, reason: String) {
        let policy = &mut self.policy;
        if policy.saving.is_some_and(|saving| saving.last == last) {
            policy.saving = None;
        }
        policy.failures = policy.failures.saturating_add(1);
        policy.is_newer_wanted = true;
        policy.retry_at = Some(self.now.plus(pause_micros(policy.failures)));
        self.note_failure(format!("a snapshot could not be saved: {reason}"));
    }

    /// A chunk for a peer, or why it cannot be read. In that case no peer can catch up by this
    /// file. The state in memory is sound, and is saved again at once.
    pub(super) fn handle_chunk_read(
        &mut self,
        to: NodeId,
        session: Session,
        chunk: Result<SnapshotChunk, UnreadSnapshot>,
    ) {
        if chunk.as_ref().is_ok_and(|chunk| chunk.done && chunk.snapshot.last == self.snapshot) {
            self.policy.repairs = 0;
        }
        let chunk = chunk.map_err(|unread| self.handle_snapshot_unread(unread)).ok();
        self.input(Input::SnapshotChunkRead { to, session, chunk });
    }

    fn handle_snapshot_unread(&mut self, unread: UnreadSnapshot) {
        let UnreadSnapshot { last, reason } = unread;
        // A newer one has taken its place, or is about to.
        let is_replaced = last != self.snapshot || self.raft.awaits_marker();
        if is_replaced || self.policy.unreadable == Some(last) || self.raft.role() != RoleName::Leader {
            return;
        }
        self.policy.put_off_repair(self.now);
        self.policy.unreadable = Some(last);
        self.note_failure(format!(
            "the snapshot {last} cannot be read, so that it cannot be sent; it is saved again: {reason}"
        ));
    }

    /// A segment of the log is damaged on the disk. What it holds is in the state.
    pub(super) fn handle_segment_damaged(&mut self, through: LogIndex) {
        self.policy.needed_through = self.policy.needed_through.max(Some(through));
    }

    /// A snapshot is damaged on the disk. The newest is saved again: the state in memory is sound.
    /// An older one goes when the next is there. Said again and again as long as it is so.
    pub(super) fn handle_snapshot_damaged(&mut self, last: LogId, reason: &str) {
        let is_newest = last == self.snapshot;
        let is_asked_for =
            if is_newest { self.policy.unreadable == Some(last) } else { self.policy.is_newer_wanted };
        if is_asked_for || self.policy.saving.is_some() || self.raft.awaits_marker() {
            return;
        }
        self.policy.put_off_repair(self.now);
        if is_newest {
            self.policy.unreadable = Some(last);
            self.note_failure(format!("the snapshot {last} is damaged, and is saved again: {reason}"));
        } else {
            self.policy.is_newer_wanted = true;
        }
    }

    /// A chunk of a leader's snapshot could not be stored here, or the whole did not verify.
    pub(super) fn handle_snapshot_unstored(&mut self, unstored: UnstoredSnapshot) {
        let UnstoredSnapshot { last, why, reason } = unstored;
        // Chunks that were on their way behind the first one that failed are refused too.
        if self.raft.is_installing(last) {
            self.note_failure(format!("the leader's snapshot {last} could not be stored: {reason}"));
        }
        self.input(Input::SnapshotRefused(last, why));
    }

    fn note_failure(&mut self, failure: String) {
        self.policy.failure = Some(failure.clone());
        self.actions.notices.push(Notice::SnapshotFailed(failure));
    }

    /// Whether the log has grown by `times` as much as a snapshot needs: by what is configured, or
    /// in proportion to what the last snapshot holds if that is more. So what snapshots write stays
    /// in proportion to what clients write, however large the store is. The log that a start
    /// replays does, too.
    fn is_due(&self, times: u64) -> bool {
        let bytes = self.config.snapshot_log_bytes.max(self.policy.store_bytes);
        let entries = self.config.snapshot_log_entries.max(self.policy.store_keys / KEYS_PER_ENTRY);
        self.policy.log_bytes >= bytes.saturating_mul(times)
            || self.policy.log_entries >= entries.saturating_mul(times)
    }

    /// Whether a snapshot is on its way from here to a member that answers and takes it.
    fn sends_snapshot(&self) -> bool {
        let recently = self.config.raft.election_timeout_micros;
        let answers = |heard: Time| self.now.since(heard) < recently;
        self.raft.progress().any(|peer| {
            let takes = peer.state == ReplicationState::Snapshot && peer.snapshot_refused.is_none();
            takes && peer.last_heard.is_some_and(answers)
        })
    }
}
