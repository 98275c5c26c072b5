//! Leadership on its way to another member (D §3.10).

use crate::raft::api::InputError;
use crate::raft::core::Raft;
use crate::raft::message::Body;
use crate::raft::state::progress::{Peer, PeerState};
use crate::raft::state::role::{Leader, Role, Transfer};
use crate::raft::state::shared::Shared;
use crate::raft::types::NodeId;
use alloc::collections::BTreeSet;

impl Raft {
    /// Hands over to `target`, or to the most advanced voter.
    pub(in crate::raft) fn handle_transfer(&mut self, target: Option<NodeId>) -> Result<(), InputError> {
        let hint = self.leader_hint();
        let Role::Leader(leader) = &mut self.role else { return Err(InputError::NotLeader(hint)) };
        if leader.transfer.is_some() {
            return Err(InputError::Transferring);
        }
        let shared = &self.shared;
        let chosen = target
            .or_else(|| shared.most_advanced(leader, &BTreeSet::new()))
            .ok_or(InputError::BadTransferTarget)?;
        let able = leader.peers.get(&chosen).is_some_and(|peer| shared.can_take_over(chosen, peer));
        if !able {
            return Err(InputError::BadTransferTarget);
        }
        let deadline = shared.now.plus(shared.config.election_timeout_micros);
        leader.transfer = Some(Transfer { target: chosen, deadline, is_target_told: false });
        Ok(())
    }

    /// Tells the target to campaign once it has every entry: no new ones come meanwhile.
    pub(in crate::raft) fn continue_transfer(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let (target, last) = (transfer.target, self.shared.log.last().index);
        let ready = leader.peers.get(&target).is_some_and(|peer| peer.match_index == last);
        if ready && !transfer.is_target_told {
            transfer.is_target_told = true;
            leader.has_told_successor = true;
            self.shared.send(target, Body::TimeoutNow);
        }
    }

    /// For a leader that has to step down: it names a successor if one is ready, and steps down.
    pub(in crate::raft) fn hand_over_and_step_down(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let successor = self.shared.most_advanced(leader, &BTreeSet::new());
        if let Some(successor) = successor {
            self.shared.send(successor, Body::TimeoutNow);
        }
        self.become_follower(self.shared.term(), None);
    }

    /// The voter that would lead best after this leader: the most advanced one that could take
    /// over now, and is not among `leaving`. `None` elsewhere, or if there is none.
    #[must_use]
    pub fn successor(&self, leaving: &BTreeSet<NodeId>) -> Option<NodeId> {
        let Role::Leader(leader) = &self.role else { return None };
        self.shared.most_advanced(leader, leaving)
    }

    /// Whether leadership is on its way to another member.
    #[must_use]
    pub const fn is_handing_over(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.transfer.is_some())
    }
}

impl Shared {
    /// The voter with the most entries among the voters that could take over and are to stay.
    fn most_advanced(&self, leader: &Leader, leaving: &BTreeSet<NodeId>) -> Option<NodeId> {
        let stays = leader.peers.iter().filter(|(id, _)| !leaving.contains(id));
        let able = stays.filter(|(id, peer)| self.can_take_over(**id, peer));
        able.max_by_key(|(id, peer)| (peer.match_index, core::cmp::Reverse(**id))).map(|(id, _)| *id)
    }

    /// Whether a peer could lead soon: a voter that answers, and lacks no more than it can get
    /// within the time that a transfer has.
    fn can_take_over(&self, id: NodeId, peer: &Peer) -> bool {
        self.membership().voters.contains(&id)
            && matches!(peer.state, PeerState::Replicate(_))
            && peer.is_active(self.now, self.config.election_timeout_micros)
            && self.log.last().index.since(peer.match_index) <= self.config.promote_lag_entries
    }
}
