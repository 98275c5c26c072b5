//! The simulated operator: lets machines join, and replaces those that lost their disk, with
//! nothing but `--join`.

use crate::madsim_engine::run::{Newcomer, Run};
use crate::madsim_engine::time::now;
use infinitystore::raft::NodeId;

impl Run {
    /// Looks after the cluster, now and then.
    pub(super) fn operate(&self) {
        self.upgrade_left_behind();
        let given_up = std::mem::take(&mut self.shared.lock().given_up);
        for (slot, was) in given_up {
            self.operator.borrow_mut().insert(slot, Newcomer { was, damaged: true });
        }
        let world = self.shared.lock();
        let Some(committed) = world.committed_membership(now()).cloned() else { return };
        let mut operator = self.operator.borrow_mut();
        let before = operator.len();
        operator.retain(|&slot, joining| {
            let machine = &world.machines[slot];
            let voter = machine.member.is_some_and(|id| committed.voters.contains(&id));
            let gone = joining.was.is_none_or(|was| !committed.members.contains_key(&was));
            !(voter && gone && committed.outgoing.is_none())
        });
        let joined = before - operator.len();
        // Removed before it became a voter: it comes back with an empty disk, as any removed node
        // has to.
        let removed: Vec<(usize, Newcomer)> = operator
            .iter()
            .filter(|(slot, _)| {
                let member = world.machines[**slot].member;
                member.is_some_and(|id| id < committed.next_member_id && !committed.members.contains_key(&id))
            })
            .map(|(slot, joining)| (*slot, joining.clone()))
            .collect();
        drop((world, operator));
        for _ in 0..joined {
            self.shared.lock().mark("machine joined");
        }
        for (slot, joining) in removed {
            self.give_new_disk(slot, joining.was, joining.damaged);
        }
    }

    /// A machine that is no member joins.
    pub(super) fn join(&self, slot: usize) {
        let known = {
            let world = self.shared.lock();
            let Some(committed) = world.committed_membership(now()).cloned() else { return };
            world.machines[slot].member.is_some_and(|id| committed.members.contains_key(&id))
        };
        if known || self.operator.borrow().contains_key(&slot) {
            return;
        }
        self.shared.lock().mark("join begun");
        self.give_new_disk(slot, None, false);
    }

    /// A machine lost its disk: it comes back with an empty one, under its old name.
    pub(super) fn replace_disk(&self, slot: usize) {
        let was = self.shared.lock().machines[slot].member;
        self.give_new_disk(slot, was, true);
    }

    /// The operator wipes what was reported to be an older copy of the member's directory, and
    /// joins the node anew.
    pub(super) fn replace_copy(&self, slot: usize, was: NodeId) {
        self.give_new_disk(slot, Some(was), true);
    }

    fn give_new_disk(&self, slot: usize, was: Option<NodeId>, damaged: bool) {
        self.switch_off(slot, true);
        let earlier = self.operator.borrow().get(&slot).and_then(|joining| joining.was);
        {
            let mut world = self.shared.lock();
            let world = &mut *world;
            let machine = &mut world.machines[slot];
            let was = machine.member.take();
            machine.wipe(was, &mut world.lost_disks);
            (machine.store, machine.joins) = (None, true);
            machine.is_reverted = false;
            machine.under_way.clear();
        }
        self.operator.borrow_mut().insert(slot, Newcomer { was: was.or(earlier), damaged });
        self.start(slot);
    }

    /// Whether a machine may lose what its disk holds: nobody else is losing theirs, and the others
    /// are a majority that knows everything.
    pub(super) fn may_lose_disk(&self, slot: usize) -> bool {
        let world = self.shared.lock();
        let (Some(id), Some(committed)) =
            (world.machines[slot].member, world.committed_membership(now()).cloned())
        else {
            return false;
        };
        drop(world);
        committed.voters.contains(&id) && committed.voters.len() >= 3 && self.quiet()
    }

    /// Nothing is being replaced or changed, as far as any machine knows.
    pub(super) fn quiet(&self) -> bool {
        let world = self.shared.lock();
        let Some(committed) = world.committed_membership(now()).cloned() else { return false };
        let agreed = committed.members.keys().all(|id| {
            let hosts = |machine: &&crate::madsim_engine::world::NodeHost| machine.member == Some(*id);
            world.machines.iter().find(hosts).is_some_and(|machine| {
                machine.on
                    && machine.power_fails_at.is_none()
                    && machine.view.membership_committed
                    && machine.view.membership.as_ref() == Some(&committed)
                    && committed.members[id].raft_addr == machine.raft_addr()
                    && committed.members[id].http_addr == machine.http_addr()
            })
        });
        let damaged = self.operator.borrow().values().any(|joining| joining.damaged);
        agreed && !damaged && !world.machines.iter().any(|machine| machine.rotten)
    }
}
