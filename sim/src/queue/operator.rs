//! The simulated operator: lets machines join, and replaces those that lost their disk.

use crate::queue::event::{OPERATOR_MICROS, SimEvent};
use crate::queue::machine::Identity;
use crate::queue::simulation::Simulation;
use crate::queue::waiting::Joining;
use crate::record::violation::Violation;
use infinitystore::kv::{Op, Settings};
use infinitystore::raft::{Change, Membership, NodeId};
use infinitystore::replica::ClientRequest;
use std::collections::BTreeSet;

/// A removal may begin this long after it was asked for.
const REMOVAL_MICROS: u64 = 4_000_000;

impl Simulation {
    /// Looks after the cluster, now and then.
    pub(super) fn operate(&mut self) -> Result<(), Violation> {
        self.queue.plan(self.now + OPERATOR_MICROS, SimEvent::Operator);
        for slot in self.operator.joining.keys().copied().collect::<Vec<_>>() {
            self.help(slot)?;
        }
        self.upgrade_left_behind();
        if self.recovered_at.is_some() {
            return Ok(());
        }
        self.ask_absurdly()?;
        self.order_changes()?;
        self.bound_history()?;
        self.look_around()
    }

    /// Asks for a short history, until the leader has one.
    fn bound_history(&mut self) -> Result<(), Violation> {
        let leader = self.leader().and_then(|leader| self.machines[leader].process.as_ref());
        let Some(process) = leader else { return Ok(()) };
        let history_bytes = self.schedule.settings.history_bytes();
        let is = *process.replica.store().settings();
        if is.history_bytes <= history_bytes {
            return Ok(());
        }
        self.ask_leader(ClientRequest::write(Op::Configure(Settings { history_bytes, ..is })))
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
                let is_settled = match joining.learns {
                    // It may have been promoted since.
                    true => committed.contains(id),
                    false => committed.voters.contains(&id),
                };
                let settled = committed.outgoing.is_none() && is_settled;
                if settled && joining.replaces.iter().all(|old| !committed.members.contains_key(old)) {
                    self.operator.joining.remove(&slot);
                    self.mark("machine joined");
                }
                Ok(())
            }
            // It was removed before it became a voter: it comes back with an empty disk, as any
            // removed node has to.
            None if self.machines[slot].identity.is_some() => {
                // A leader that does not know that this id was given has been deposed.
                let given = self.machines[slot].identity.is_some_and(|it| it.id < committed.next_member_id);
                if given {
                    self.give_new_disk(slot, joining);
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
                let change = Change::AddMembers { members: vec![member], replaces, promote: !joining.learns };
                self.ask_leader(ClientRequest::ChangeMembership(change.into()))
            }
        }
    }

    /// A machine that is no member joins.
    pub(super) fn join(&mut self, slot: usize) {
        if !self.is_stranger(slot) {
            return;
        }
        self.mark("join begun");
        self.give_new_disk(slot, Joining::default());
    }

    /// A machine that is no member joins, and stays a learner.
    pub(super) fn learn(&mut self, slot: usize) {
        if self.is_stranger(slot) {
            self.mark("learner begun");
            self.give_new_disk(slot, Joining { learns: true, ..Joining::default() });
        }
    }

    /// A machine that is no member joins, and takes the places of voters that are well.
    pub(super) fn exchange(&mut self, slot: usize, with: &[usize]) {
        let Some(committed) = self.committed_membership() else { return };
        if !self.is_stranger(slot) || !self.no_disk_is_lost() || self.is_exchanging() {
            return;
        }
        let others = with.iter().filter(|other| **other != slot);
        let ids = others.filter_map(|other| self.machines[*other].identity).map(|identity| identity.id);
        let replaces: BTreeSet<NodeId> = ids.filter(|id| committed.voters.contains(id)).collect();
        if !replaces.is_empty() {
            let all = replaces.len() == committed.voters.len();
            self.mark(if all { "all voters exchanged" } else { "voters exchanged" });
            self.give_new_disk(slot, Joining { replaces, ..Joining::default() });
        }
    }

    /// Whether voters are to leave for another that has not taken their place yet.
    fn is_exchanging(&self) -> bool {
        self.operator.joining.values().any(|joining| !joining.replaces.is_empty())
    }

    /// Whether a machine is no member, nor about to be one.
    fn is_stranger(&self, slot: usize) -> bool {
        let known = self.committed_membership().is_none_or(|membership| {
            self.machines[slot].identity.is_some_and(|identity| membership.members.contains_key(&identity.id))
        });
        !known && !self.operator.joining.contains_key(&slot)
    }

    /// A machine lost its disk: it comes back with an empty one, as another member.
    pub(super) fn replace_disk(&mut self, slot: usize) {
        let was: BTreeSet<NodeId> = self.machines[slot].identity.iter().map(|identity| identity.id).collect();
        self.give_new_disk(slot, Joining { replaces: was, damaged: true, ..Joining::default() });
    }

    fn give_new_disk(&mut self, slot: usize, mut joining: Joining) {
        self.end_process(slot);
        if let Some(earlier) = self.operator.joining.get(&slot) {
            joining.replaces.extend(earlier.replaces.iter().copied());
            joining.damaged |= earlier.damaged;
        }
        let store = self.fresh_store();
        let machine = &mut self.machines[slot];
        let was = machine.identity.take().map(|identity| identity.id);
        machine.wipe(was, &mut self.lost_disks);
        machine.under_way.clear();
        self.hosts.retain(|_, host| *host != slot);
        self.operator.joining.insert(slot, Joining { store, ..joining });
    }

    /// Whether a machine may lose what its disk holds: no other disk is being lost, and the others
    /// are a majority that knows everything.
    pub(super) fn may_lose_disk(&self, slot: usize) -> bool {
        let Some(identity) = self.machines[slot].identity else { return false };
        let Some(membership) = self.committed_membership() else { return false };
        let member = membership.voters.contains(&identity.id);
        member && membership.voters.len() >= 3 && self.quiet()
    }

    /// Whether a machine's disk may be damaged while others lag, are off, or the membership
    /// changes: the others whose disks are whole are a majority of each set of voters, in what is
    /// committed and in what is in force.
    pub(super) fn may_be_damaged(&self, slot: usize) -> bool {
        let Some(identity) = self.machines[slot].identity else { return false };
        let (Some(committed), Some(leader)) = (self.committed_membership(), self.leader()) else {
            return false;
        };
        let Some(process) = &self.machines[leader].process else { return false };
        // A removal that is on its way may leave too few.
        let removes =
            self.operator.removal_asked_at > 0 && self.now < self.operator.removal_asked_at + REMOVAL_MICROS;
        if removes || !self.no_disk_is_lost() || self.is_exchanging() || !committed.is_voter(identity.id) {
            return false;
        }
        [&committed, process.replica.membership()].into_iter().all(|membership| {
            std::iter::once(&membership.voters).chain(&membership.outgoing).all(|voters| {
                let whole = voters.iter().filter(|id| **id != identity.id && self.hosts.contains_key(id));
                2 * whole.count() > voters.len()
            })
        })
    }

    /// Nothing is being replaced or changed, as far as any machine that runs knows.
    pub(super) fn quiet(&self) -> bool {
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
        agreed
            && !damaged
            && !off
            && !self.is_exchanging()
            && !self.machines.iter().any(|machine| machine.rotten)
    }

    /// Whether every machine has its disk, undamaged. Then members may be removed, even if the
    /// cluster has to refuse or to wait.
    pub(super) fn no_disk_is_lost(&self) -> bool {
        !self.operator.joining.values().any(|joining| joining.damaged)
            && !self.machines.iter().any(|machine| machine.rotten)
    }

    /// Whether there are enough voters to let one go.
    pub(super) fn may_shrink(&self) -> bool {
        self.committed_membership().is_some_and(|membership| membership.voters.len() >= 2)
    }

    /// The leader's committed membership, once it has committed in its own term: before that it may
    /// know less than was committed.
    fn committed_membership(&self) -> Option<Membership> {
        let raft = self.machines[self.leader()?].process.as_ref()?.replica.raft();
        if raft.term_at(raft.commit_index()) != Some(raft.term()) {
            return None;
        }
        let (membership, _) = raft.membership_at(raft.commit_index());
        Some(membership.clone())
    }
}
