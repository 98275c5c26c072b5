//! What operators order: changes of membership, and transfers of leadership. Only the leader takes
//! them.

use crate::raft::{Change, ChangeOrder, Input, NodeId, RoleName, Time};
use crate::replica::api::{ClientError, ClientReply, RequestId};
use crate::replica::replica::{PendingChange, PendingTransfer, Replica};
use crate::replica::requests::refusal;
use alloc::collections::BTreeSet;

impl PendingTransfer {
    /// The answer when another node leads.
    pub(super) const fn done(self, leader: Option<NodeId>) -> ClientReply {
        match (leader, self.to) {
            _ if self.is_for_removal => ClientReply::Failed(ClientError::NotLeader(leader)),
            // An election came between.
            (Some(leader), Some(to)) if leader.get() != to.get() => {
                ClientReply::Failed(ClientError::AnotherLeads(leader))
            }
            _ => ClientReply::Transferred,
        }
    }
}

impl Replica {
    /// Begins a change of membership. A leader that is to be removed hands over first, so that no
    /// client has to wait for an election: the client is told who leads, and asks there.
    pub(super) fn handle_order(&mut self, id: RequestId, deadline: Time, order: ChangeOrder) {
        if self.is_reserved() {
            return self.fail(id, ClientError::Reserved);
        }
        if let Some(leaving) = self.would_remove_itself(&order) {
            // A change that would be refused is no reason to hand over.
            if let Err(error) = self.raft.judge_change(&order) {
                return self.fail(id, refusal(&error));
            }
            if let Some(successor) = self.fittest_successor(&leaving) {
                return self.begin_transfer(id, deadline, Some(successor), true);
            }
            // Nobody can take over now: it leads until it is removed.
        }
        let next_member_id = self.raft.membership().next_member_id;
        match self.raft.step(self.now, Input::ChangeMembership(order)) {
            Ok(()) => {
                let change = PendingChange { request: id, deadline, entry: None, next_member_id };
                self.replace_change(Some(change));
            }
            Err(error) => self.fail(id, refusal(&error)),
        }
    }

    /// Hands leadership over.
    pub(super) fn handle_transfer(&mut self, id: RequestId, deadline: Time, to: Option<NodeId>) {
        let to = to.or_else(|| self.fittest_successor(&BTreeSet::new()));
        self.begin_transfer(id, deadline, to, false);
    }

    /// Answers a client whose transfer the leader has given up, or that has waited for too long.
    pub(super) fn expire_transfer(&mut self) {
        let Some(transfer) = self.transfer else { return };
        let is_given_up = self.raft.role() == RoleName::Leader && !self.raft.is_handing_over();
        if is_given_up || transfer.deadline <= self.now {
            self.transfer = None;
            let error = match (transfer.is_for_removal, is_given_up) {
                // Nothing of the change was appended.
                (true, _) => ClientError::NoLeader,
                (false, true) => ClientError::NotHandedOver,
                (false, false) => ClientError::Unknown,
            };
            self.fail(transfer.request, error);
        }
    }

    fn begin_transfer(&mut self, id: RequestId, deadline: Time, to: Option<NodeId>, is_for_removal: bool) {
        match self.raft.step(self.now, Input::TransferLeadership(to)) {
            Ok(()) => {
                let transfer = PendingTransfer { request: id, deadline, to, is_for_removal };
                if let Some(earlier) = self.transfer.replace(transfer) {
                    self.fail(earlier.request, ClientError::Unknown);
                }
            }
            Err(error) => self.fail(id, refusal(&error)),
        }
    }

    /// Whom a change removes, if this node leads and is among them.
    fn would_remove_itself(&self, order: &ChangeOrder) -> Option<BTreeSet<NodeId>> {
        let Change::Remove { members } = &order.change else { return None };
        let leads = self.raft.role() == RoleName::Leader;
        (leads && members.contains(&self.raft.id())).then(|| members.clone())
    }
}
