//! What a core holds for requests that wait, and for things under way. A simulation looks at it to
//! see whether anything is left behind.

use crate::raft::core::Raft;
use crate::raft::state::progress::PeerState;
use crate::raft::state::role::Role;
use crate::raft::types::LogIndex;
use alloc::vec::Vec;

impl Raft {
    /// What is held, by name. At rest all of it is zero: nothing is under way, no request waits,
    /// and every peer has everything.
    #[must_use]
    pub fn held(&self) -> Vec<(&'static str, u64)> {
        let shared = &self.shared;
        let (reads, log) = (&shared.reads, &shared.log);
        let mut held = Vec::from([
            ("writes that are not durable", shared.writes.under_way() as u64),
            ("bytes that are not durable", shared.writes.unsynced_bytes()),
            ("messages that wait for a write", shared.writes.held_len() as u64),
            ("markers of snapshots", shared.markers.len() as u64),
            ("snapshots that arrive", u64::from(shared.install.is_some())),
            ("reads without an answer", reads.len() as u64),
            ("questions for a read index", u64::from(reads.question.is_some())),
            ("entries that are not applied", log.last().index.since(shared.last_applied)),
        ]);
        if let Role::Leader(leader) = &self.role {
            let peers = leader.peers.values();
            let members = &shared.membership().members;
            let strangers = leader.peers.keys().filter(|id| !members.contains_key(id)).count();
            let inflight = peers.clone().map(|peer| match &peer.state {
                PeerState::Replicate(inflight) => inflight.len() as u64 + inflight.bytes(),
                PeerState::Probe { .. } | PeerState::Snapshot(_) => 1,
            });
            held.extend([
                ("bytes that are not committed", leader.uncommitted_bytes),
                ("reads that wait for a round", leader.reads.len() as u64),
                ("transfers of leadership", u64::from(leader.transfer.is_some())),
                ("peers that are no members", strangers as u64),
                ("appends in flight", inflight.sum()),
                ("peers that take no snapshot", peers.filter(|peer| peer.refusal.is_some()).count() as u64),
            ]);
        }
        held
    }

    /// Bytes that the entries take in memory, and how many of them may not be given up yet: their
    /// entries are not applied, or not durable, or there is no snapshot to send to a peer that
    /// needs them.
    #[must_use]
    pub fn log_bytes(&self) -> (u64, u64) {
        let log = &self.shared.log;
        if self.shared.snapshot.is_none() {
            return (log.bytes(), log.bytes());
        }
        let done = self.shared.last_applied.min(log.durable()).max(log.base().index);
        (log.bytes(), log.bytes_after(done))
    }

    /// Where the log in memory begins: after this entry.
    #[must_use]
    pub fn log_base(&self) -> LogIndex {
        self.shared.log.base().index
    }
}
