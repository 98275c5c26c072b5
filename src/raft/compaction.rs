//! What a snapshot lets go of (Raft §7): the entries that it covers, once its marker is durable.

use crate::raft::api::RaftEvent;
use crate::raft::config::{LOG_BYTES_MIN, LOG_PART_OF_SNAPSHOT};
use crate::raft::core::Raft;
use crate::raft::log::snapshot::SnapshotMeta;
use crate::raft::state::shared::Shared;
use crate::raft::types::LogIndex;
use alloc::boxed::Box;

impl Raft {
    /// The state machine's snapshot is on disk: its marker goes into the stream of writes.
    pub(super) fn handle_snapshot_stored(&mut self, snapshot: Box<SnapshotMeta>) {
        let shared = &mut self.shared;
        let newest = shared.markers.back().map(|(_, meta)| meta).or(shared.snapshot.as_ref());
        let is_new = newest.is_none_or(|newest| newest.last.index < snapshot.last.index);
        // Two at once would share a write. A snapshot that arrives from the leader is ahead of this
        // one.
        if !is_new || shared.writes.pending.snapshot.is_some() || shared.is_install_pending() {
            shared.outbox.events.push(RaftEvent::SnapshotUnmarked(snapshot.last));
            return;
        }
        assert!(snapshot.last.index <= shared.handed_out, "a state machine has applied what was handed out");
        shared.writes.pending.snapshot = Some(snapshot.clone());
        let sequence = shared.writes.stamp();
        shared.markers.push_back((sequence, *snapshot));
    }

    /// Keeps the log in memory below its bound, even if the log on disk is much longer. It trims to
    /// half of the bound, so that this happens seldom. What active peers need stays too, up to a
    /// bound of its own.
    pub(super) fn maybe_trim(&mut self) {
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
        shared.memberships.compact(base);
    }
}

impl Shared {
    /// A receipt came: a snapshot whose marker is durable now replaces what it covers. `needed`:
    /// the laggards need what comes after it.
    pub(super) fn finish_snapshots(&mut self, needed: Option<LogIndex>) {
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
            } else {
                self.outbox.events.push(RaftEvent::SnapshotUnmarked(snapshot.last));
            }
        }
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
        self.memberships.compact(through);
        self.snapshot = Some(snapshot);
        self.snapshot_wanted = false;
        // What was trimmed beyond the snapshot is still needed on disk.
        let through = through.min(last.index);
        self.outbox.events.push(RaftEvent::Compacted { through, snapshot: last });
    }
}
