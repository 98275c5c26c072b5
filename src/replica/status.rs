//! A replica's view of itself and of its cluster, for people and for metrics.

use crate::raft::{Membership, NodeId, Time};
use crate::replica::api::{MemberStatus, Standing, Status};
use crate::replica::replica::Replica;
use alloc::string::ToString;

impl Replica {
    /// This node's view of the cluster. Copies the membership: for status pages, not for every
    /// request.
    #[must_use]
    pub fn status(&self, now: Time) -> Status {
        let hint = self.raft.leader_hint();
        let membership = self.raft.membership();
        let (configuration, configuration_committed) = self.raft.membership_id();
        Status {
            id: self.raft.id(),
            role: self.raft.role(),
            term: hint.term,
            leader: hint.leader,
            last_log: self.raft.last_log(),
            commit_index: self.raft.commit_index(),
            starting: self.is_starting(),
            last_applied: self.last_applied.index,
            configuration: configuration.index,
            configuration_committed,
            snapshot: self.snapshot,
            snapshot_failure: self.policy.failure.clone(),
            disk_slow: self.disk_pace.is_slow,
            disk_write_micros: self.disk_pace.mean_micros,
            keys: self.store.len(),
            store_bytes: self.store.bytes(),
            revision: self.store.revision().0,
            compacted: self.store.compacted().0,
            history_bytes: self.store.history_bytes(),
            answers_bytes: self.store.answers_bytes(),
            oldest_answer_micros: self
                .store
                .oldest_answer()
                .map(|oldest| self.answer_ages.age_micros(oldest, now)),
            leases: self.store.lease_count(),
            state_hash: self.store.state_hash(),
            pending_proposals: self.writes.len(),
            pending_reads: self.reads.len(),
            pending_watches: self.watches.len(),
            withdrawn: self.raft.withdrawn().map(|why| why.to_string()),
            level: self.store.level(),
            speaks: self.config.speaks,
            joint: membership.outgoing.is_some(),
            members: membership.members.keys().map(|&id| self.member_status(membership, id, now)).collect(),
        }
    }

    /// The state has changed: its answers may have.
    pub(super) fn note_answers(&mut self) {
        let Self { answer_ages, store, now, .. } = self;
        answer_ages.note(*now, store.last_answer(), || store.oldest_answer());
    }

    fn member_status(&self, membership: &Membership, id: NodeId, now: Time) -> MemberStatus {
        let progress = self.raft.progress().find(|peer| peer.id == id);
        let last = self.raft.last_log().index;
        let own = self.raft.withdrawn().filter(|_| id == self.raft.id());
        let withdrawn = own.or(progress.and_then(|peer| peer.withdrawn)).map(|why| why.to_string());
        MemberStatus {
            id,
            member: membership.members[&id].clone(),
            standing: standing(membership, id),
            match_index: progress.map(|peer| peer.match_index),
            lag: progress.map(|peer| last.since(peer.match_index)),
            replication: progress.map(|peer| peer.state),
            snapshot_refused: progress.and_then(|peer| peer.snapshot_refused),
            answers: progress.map(|peer| {
                let patience = self.config.raft.election_timeout_micros;
                peer.last_heard.is_some_and(|heard| now.since(heard) <= patience)
            }),
            silent_micros: progress.and_then(|peer| peer.last_heard).map(|heard| now.since(heard)),
            withdrawn,
            speaks: (id == self.raft.id()).then_some(self.config.speaks),
            spoken_level: None,
        }
    }
}

fn standing(membership: &Membership, id: NodeId) -> Standing {
    let incoming = membership.voters.contains(&id);
    match membership.outgoing.as_ref().map(|outgoing| outgoing.contains(&id)) {
        _ if membership.learners.contains_key(&id) => Standing::Learner,
        Some(false) if incoming => Standing::Joining,
        Some(true) if !incoming => Standing::Leaving,
        _ => Standing::Voter,
    }
}
