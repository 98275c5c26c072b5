//! The simulated operator: lets machines join, and replaces those that lost their disk.

use crate::checks::Violation;
use crate::queue::engine::Engine;
use crate::queue::happening::{Happening, OPERATOR_MICROS};
use crate::queue::machine::Identity;
use infinitystore::raft::{Change, Membership, NodeId, StoreId};
use infinitystore::replica::ClientRequest;
use std::collections::{BTreeMap, BTreeSet};

/// A machine that is to become a voter.
#[derive(Clone, Debug)]
struct Joining {
    /// The store that it has now.
    store: StoreId,
    /// The members that it was, and that leave with its promotion.
    replaces: BTreeSet<NodeId>,
    /// Whether it lost its disk: then no other may.
    damaged: bool,
}

/// What the operator has in hand.
#[derive(Clone, Debug, Default)]
pub(in crate::queue) struct Operator {
    joining: BTreeMap<usize, Joining>,
}

impl Operator {
    /// A machine that is to become a voter, and is not yet.
    #[must_use]
    pub(in crate::queue) fn busy_with(&self) -> Option<usize> {
        self.joining.keys().next().copied()
    }
}

impl Engine {
    /// Looks after the cluster, now and then.
    pub(in crate::queue) fn operate(&mut self) -> Result<(), Violation> {
        self.queue.plan(self.now + OPERATOR_MICROS, Happening::Operator);
        for slot in self.operator.joining.keys().copied().collect::<Vec<_>>() {
            self.help(slot)?;
        }
        Ok(())
    }

    fn help(&mut self, slot: usize) -> Result<(), Violation> {
        let Some(joining) = self.operator.joining.get(&slot).cloned() else { return Ok(()) };
        let Some(committed) = self.committed_membership() else { return Ok(()) };
        let found = committed.members.iter().find(|(_, member)| member.store_id == joining.store);
        match found.map(|(id, _)| *id) {
            Some(id) => {
                if self.machines[slot].identity.is_none() {
                    self.machines[slot].identity = Some(Identity { id, store: joining.store });
                    self.hosts.insert(id, slot);
                    self.start(slot)?;
                }
                let settled = committed.outgoing.is_none() && committed.voters.contains(&id);
                if settled && joining.replaces.iter().all(|old| !committed.members.contains_key(old)) {
                    self.operator.joining.remove(&slot);
                    self.mark("machine joined");
                }
                Ok(())
            }
            // It was removed before it became a voter: it comes back with an empty disk, as any removed node has to.
            None if self.machines[slot].identity.is_some() => {
                // A leader that does not know that its id was given leads no longer.
                let given = self.machines[slot].identity.is_some_and(|it| it.id < committed.next_member_id);
                if given {
                    self.give_new_disk(slot, joining.replaces, joining.damaged);
                }
                Ok(())
            }
            None => {
                let replaces = joining
                    .replaces
                    .iter()
                    .filter(|id| committed.members.contains_key(id))
                    .copied()
                    .collect();
                let member = self.machines[slot].member(joining.store);
                self.ask_leader(ClientRequest::ChangeMembership(Change::AddMember {
                    member,
                    replaces,
                    promote: true,
                }))
            }
        }
    }

    /// A machine that is no member joins.
    pub(in crate::queue) fn join(&mut self, slot: usize) {
        let known = self.committed_membership().is_none_or(|membership| {
            self.machines[slot].identity.is_some_and(|identity| membership.members.contains_key(&identity.id))
        });
        if known || self.operator.joining.contains_key(&slot) {
            return;
        }
        self.mark("join begun");
        self.give_new_disk(slot, BTreeSet::new(), false);
    }

    /// A machine lost its disk: it comes back with an empty one, as another member.
    pub(in crate::queue) fn replace_disk(&mut self, slot: usize) {
        #[cfg(feature = "mutants")]
        if infinitystore::mutants::planted(infinitystore::mutants::Mutant::WipedKeepsId) {
            return self.forget_disk(slot);
        }
        let was: BTreeSet<NodeId> = self.machines[slot].identity.iter().map(|identity| identity.id).collect();
        self.give_new_disk(slot, was, true);
    }

    /// What no operator may do: the machine comes back as the member it was, and has forgotten everything.
    #[cfg(feature = "mutants")]
    fn forget_disk(&mut self, slot: usize) {
        self.end_process(slot);
        let store = self.fresh_store();
        let machine = &mut self.machines[slot];
        machine.disk.wipe();
        machine.durable = crate::durable::DurableModel::default();
        machine.under_way.clear();
        machine.rotten = false;
        machine.identity = machine.identity.map(|identity| Identity { store, ..identity });
        self.queue.plan(self.now + OPERATOR_MICROS, Happening::Start(slot));
    }

    fn give_new_disk(&mut self, slot: usize, mut replaces: BTreeSet<NodeId>, damaged: bool) {
        self.end_process(slot);
        if let Some(earlier) = self.operator.joining.get(&slot) {
            replaces.extend(earlier.replaces.iter().copied());
        }
        let store = self.fresh_store();
        let machine = &mut self.machines[slot];
        machine.disk.wipe();
        let lost = std::mem::take(&mut machine.durable);
        if let Some(was) = machine.identity.take() {
            self.lost_disks.insert(was.id, lost);
        }
        machine.under_way.clear();
        machine.rotten = false;
        self.hosts.retain(|_, host| *host != slot);
        self.operator.joining.insert(slot, Joining { store, replaces, damaged });
    }

    /// Whether a machine may lose what its disk holds: nobody else is losing theirs, and the others are a majority that knows everything.
    pub(in crate::queue) fn may_lose_disk(&self, slot: usize) -> bool {
        let Some(identity) = self.machines[slot].identity else { return false };
        let Some(membership) = self.committed_membership() else { return false };
        let member = membership.voters.contains(&identity.id);
        member && membership.voters.len() >= 3 && self.quiet()
    }

    /// Nothing is being replaced or changed, as far as any machine that runs knows.
    pub(in crate::queue) fn quiet(&self) -> bool {
        let Some(committed) = self.committed_membership() else { return false };
        let members = || {
            let is_member = |identity: Identity| committed.members.contains_key(&identity.id);
            self.machines.iter().filter(move |machine| machine.identity.is_some_and(is_member))
        };
        let agreed = members()
            .filter_map(|machine| machine.process.as_ref())
            .all(|process| *process.replica.membership() == committed);
        let damaged = self.operator.joining.values().any(|joining| joining.damaged);
        let off = members().any(|machine| machine.process.is_none());
        agreed && !damaged && !off && !self.machines.iter().any(|machine| machine.rotten)
    }

    /// Whether every machine has its disk, whole: then members may be removed, even if the cluster has to refuse or to wait.
    pub(in crate::queue) fn no_disk_is_lost(&self) -> bool {
        !self.operator.joining.values().any(|joining| joining.damaged)
            && !self.machines.iter().any(|machine| machine.rotten)
    }

    /// Whether there are enough voters to let one go.
    pub(in crate::queue) fn may_shrink(&self) -> bool {
        self.committed_membership().is_some_and(|membership| membership.voters.len() >= 2)
    }

    /// The leader's committed membership, once it has committed in its own term: before that it may know less than was committed.
    fn committed_membership(&self) -> Option<Membership> {
        let raft = self.machines[self.leader()?].process.as_ref()?.replica.raft();
        if raft.term_at(raft.commit_index()) != Some(raft.term()) {
            return None;
        }
        let (membership, _) = raft.membership_at(raft.commit_index());
        Some(membership.clone())
    }
}
