//! A member with proof that it cannot be relied on takes no part any more. It gives no vote,
//! acknowledges nothing and confirms nothing. It says why to every member that asks it for
//! something. The core does not remember it. The driver notes the reason in the data directory, and
//! gives it to the core of the next start ([`Input::Withdraw`](crate::raft::Input)).
//!
//! The papers assume that what was synced stays. If it does not (an older copy of a disk is put
//! back, memory or software fails), a member that goes on has forgotten votes and acknowledgements
//! that others rely on.

use crate::raft::api::RaftEvent;
use crate::raft::core::Raft;
use crate::raft::membership::withdrawal::Withdrawal;
use crate::raft::message::Body;
use crate::raft::state::role::Role;
use crate::raft::types::NodeId;

impl Raft {
    /// Takes no part any more. The first reason stays.
    pub(in crate::raft) fn withdraw(&mut self, why: Withdrawal) {
        if self.shared.withdrawn.is_some() {
            return;
        }
        self.shared.withdrawn = Some(why);
        self.become_follower(self.shared.term(), None);
        self.shared.writes.forget_held();
        self.shared.outbox.messages.clear();
        self.shared.outbox.events.push(RaftEvent::Withdrawn(why));
    }

    /// A message to a member that has withdrawn: a node that asks for something is told why it gets
    /// no answer.
    pub(in crate::raft) fn answer_withdrawn(&mut self, from: NodeId, body: &Body, why: Withdrawal) {
        let asks = matches!(
            body,
            Body::PreVote { .. }
                | Body::RequestVote { .. }
                | Body::AppendEntries { .. }
                | Body::InstallSnapshot { .. }
        );
        if asks {
            self.shared.send(from, Body::Withdrawn(why));
        }
    }

    /// A peer takes no part any more: what it acknowledged does not count. Reported once, until it
    /// answers again.
    pub(in crate::raft) fn handle_withdrawn(&mut self, from: NodeId, why: Withdrawal) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        if peer.withdrawn.replace(why).is_none() {
            self.shared.outbox.events.push(RaftEvent::PeerWithdrew { peer: from, why });
        }
    }
}
