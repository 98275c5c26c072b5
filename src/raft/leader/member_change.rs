//! Changes of membership: joint consensus for any of them (Raft §6, D §4.3).

use crate::raft::api::InputError;
use crate::raft::core::Raft;
use crate::raft::log::entry::EntryKind;
use crate::raft::membership::members::{ChangeOrder, Membership};
use crate::raft::quorum;
use crate::raft::state::progress::{Leaving, Peer, PeerState};
use crate::raft::state::role::{Leader, Role};
use crate::raft::state::shared::Shared;
use crate::raft::types::{LogIndex, NodeId};
use alloc::vec::Vec;

impl Raft {
    /// A change as an operator orders it.
    pub(in crate::raft) fn handle_change(&mut self, order: &ChangeOrder) -> Result<(), InputError> {
        let next = self.judge_change(order)?;
        self.append_membership(&next);
        Ok(())
    }

    /// The membership with which a change that is ordered would begin now. Changes nothing.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn judge_change(&self, order: &ChangeOrder) -> Result<Membership, InputError> {
        let hint = self.leader_hint();
        let Role::Leader(leader) = &self.role else { return Err(InputError::NotLeader(hint)) };
        if leader.transfer.is_some() {
            return Err(InputError::Transferring);
        }
        if !self.shared.may_change(leader) || self.shared.membership().is_joint() {
            return Err(InputError::ChangePending);
        }
        let (at, membership) = self.shared.memberships.latest();
        if order.expected.is_some_and(|expected| expected != at.index) {
            return Err(InputError::OtherMembership { index: at.index });
        }
        let (next, added) = membership.apply_change(&order.change).map_err(InputError::BadChange)?;
        // New members that replace others: what counts is who decides once they are promoted.
        let promoted = added.first().and_then(|id| next.promote(*id));
        let silent = self.shared.silent(leader, promoted.as_ref().unwrap_or(&next), &added);
        if !order.force && !silent.is_empty() {
            return Err(InputError::QuorumAtRisk { silent });
        }
        Ok(next)
    }

    /// Steps that follow from the membership in force by themselves. The joint state ends once it
    /// is committed, by any leader of that time. Learners that have caught up become voters. A
    /// leader that is no voter steps down.
    pub(in crate::raft) fn maybe_change(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let shared = &self.shared;
        if !shared.may_change(leader) {
            return;
        }
        let membership = shared.membership();
        if membership.is_joint() {
            let next = membership.leave_joint();
            self.append_membership(&next);
        } else if !membership.is_voter(shared.id) {
            self.hand_over_and_step_down();
        } else if leader.transfer.is_none()
            && let Some(next) = shared.promotion(leader)
        {
            self.append_membership(&next);
        }
    }

    /// Appends a membership; it is in force at once.
    fn append_membership(&mut self, membership: &Membership) {
        let index = self.append_own(EntryKind::Membership, &membership.encode());
        let Role::Leader(leader) = &mut self.role else { return };
        self.shared.meet_peers(leader, index);
    }
}

impl Shared {
    /// Whether a membership may be appended: none is pending, and the leader has committed in its
    /// term. A leader that has not may not know of a membership that its predecessor committed (the
    /// bug of the single-server change, 2015).
    fn may_change(&self, leader: &Leader) -> bool {
        self.commit_index >= leader.term_start && self.memberships.latest().0.index <= self.commit_index
    }

    /// The joint state in which the first learners that have caught up become voters.
    fn promotion(&self, leader: &Leader) -> Option<Membership> {
        let membership = self.membership();
        let last = self.log.last().index;
        let caught_up = |peer: &Peer| {
            // One that has acknowledged no entry yet (it may have to get a snapshot first) lacks
            // everything, however short the log is.
            matches!(peer.state, PeerState::Replicate(_))
                && peer.match_index > LogIndex::ZERO
                && last.since(peer.match_index) <= self.config.promote_lag_entries
                && peer.last_heard.is_some()
                && peer.is_active(self.now, self.config.election_timeout_micros)
        };
        let is_ready = |id: &NodeId| leader.peers.get(id).is_some_and(caught_up);
        // Those that are promoted together wait for the last of them.
        let mut ready = membership.learners.keys().filter(|id| {
            let promoted = membership.promoted_with(**id);
            !promoted.is_empty() && promoted.iter().all(is_ready)
        });
        ready.find_map(|id| membership.promote(*id).filter(|next| self.could_decide(leader, next)))
    }

    /// Whether the members that answer are a quorum of the voters of `next`. Otherwise a change of
    /// the voters would stop the cluster for good: to leave the joint state or to undo it takes
    /// both quorums.
    fn could_decide(&self, leader: &Leader, next: &Membership) -> bool {
        self.silent(leader, next, &[]).is_empty()
    }

    /// The voters of `next` that do not answer, if the others are no quorum of a change of the
    /// voters. Members that are new count as answering.
    fn silent(&self, leader: &Leader, next: &Membership, new: &[NodeId]) -> Vec<NodeId> {
        let answers = |id: NodeId| new.contains(&id) || self.answers(leader, id);
        if next.outgoing.is_none() || quorum::reached(&next.voters, None, answers) {
            return Vec::new();
        }
        next.voters.iter().copied().filter(|id| !answers(*id)).collect()
    }

    /// Whether a member has answered lately. The leader itself does.
    fn answers(&self, leader: &Leader, id: NodeId) -> bool {
        let answers = |peer: &Peer| {
            peer.last_heard.is_some() && peer.is_active(self.now, self.config.election_timeout_micros)
        };
        id == self.id || leader.peers.get(&id).is_some_and(answers)
    }

    /// Begins relations with new members, and prepares to end those with members that left at
    /// `index`.
    fn meet_peers(&self, leader: &mut Leader, index: LogIndex) {
        let members = &self.membership().members;
        for id in members.keys().filter(|id| **id != self.id) {
            if !leader.peers.contains_key(id) {
                let session = leader.next_session();
                leader.peers.insert(*id, Peer::new(session, index, self.now));
            }
        }
        for (_, peer) in leader.peers.iter_mut().filter(|(id, _)| !members.contains_key(id)) {
            peer.leaving.get_or_insert(Leaving { removed_at: index, until: None });
        }
    }
}
