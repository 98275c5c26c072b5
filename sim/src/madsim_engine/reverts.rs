//! An older copy of a data directory is put back: the member has lost what it acknowledged since,
//! and its names for proposals and starts are used again. The others have to notice, and to say so;
//! then the operator wipes it and joins it anew.

use crate::madsim_engine::attendance::grace;
use crate::madsim_engine::run::{Revert, Run};
use crate::madsim_engine::time::now;
use crate::madsim_engine::world::PUT_BACK;
use crate::record::violation::Violation;
use crate::schedule::{MILLI, SECOND};

/// A machine is off for so long while its directory is copied, or put back.
const OFF_MICROS: u64 = 200 * MILLI;
/// Beside an election, connections may need a few attempts until everybody has met the other start.
const NOTICE_MICROS: u64 = 10 * SECOND;

impl Run {
    /// Whether an older copy is in use that nobody has noticed.
    pub(super) fn is_reverted(&self) -> bool {
        self.revert.borrow().as_ref().is_some_and(|revert| revert.copy.is_none())
    }

    /// Whether a copy is still to be put back, or to be noticed. Where too few are voters, none
    /// ever is.
    pub(super) fn reverts_still(&self, give_up: u64) -> bool {
        let waits = self.revert.borrow().is_some();
        waits && (self.is_reverted() || now() < give_up)
    }

    /// A machine's process is killed, and its directory copied.
    pub(super) fn copy_disk(&self, slot: usize, after_micros: u64) {
        let (member, store) = {
            let world = self.shared.lock();
            (world.machines[slot].member, world.machines[slot].store)
        };
        let (Some(member), Some(store)) = (member, store) else { return };
        if self.revert.borrow().is_some() || !self.shared.lock().machines[slot].on {
            return;
        }
        self.switch_off(slot, false);
        let mut world = self.shared.lock();
        world.mark("data directory copied");
        let machine = &mut world.machines[slot];
        machine.start_at = Some(now() + OFF_MICROS);
        let (copy, at) = (Some(machine.disk.copy()), now() + OFF_MICROS + after_micros);
        *self.revert.borrow_mut() = Some(Revert { slot, member, store, copy, at, noticed_until: None });
    }

    /// Puts the copy back when that is due, and sees to it that this is noticed.
    pub(super) async fn look_at_revert(&self) {
        let Some((slot, member, at)) =
            self.revert.borrow().as_ref().map(|revert| (revert.slot, revert.member, revert.at))
        else {
            return;
        };
        if !self.is_reverted() {
            if now() >= at {
                self.put_back(slot);
            }
            return;
        }
        let noticed = self.revert.borrow().as_ref().and_then(|revert| revert.noticed_until);
        if let Some(until) = noticed {
            if now() >= until {
                *self.revert.borrow_mut() = None;
                self.replace_copy(slot, member);
            }
            return;
        }
        let leader = self.shared.lock().leader(now()).map(|leader| (leader.slot, leader.handle.clone()));
        if let Some((leads, Some(leader))) = leader {
            let members = leader.status().await.replica.members;
            let is_told = members.iter().any(|one| one.id == member && one.withdrawn.is_some());
            if is_told {
                return self.noticed(leads);
            }
        }
        if now() >= at {
            let what = format!(
                "machine {slot} has an older copy of member {member}'s directory, and no leader says so"
            );
            self.shared.lock().judge(Err(Violation { check: "an older copy is noticed", what }));
        }
    }

    /// The copy was noticed. In half of the runs the leader stops, so that the others elect one
    /// while the member is still there, and it is wiped only then.
    fn noticed(&self, leader: usize) {
        let mut world = self.shared.lock();
        world.mark("older copy noticed");
        let settings = &world.schedule.settings;
        let waits = 2 * grace(settings);
        let (stops, waits) = if world.schedule.seed.is_multiple_of(2) { (true, waits) } else { (false, 0) };
        if stops {
            world.mark("an election beside an older copy");
            world.stop(leader, 0);
        }
        if let Some(revert) = self.revert.borrow_mut().as_mut() {
            revert.noticed_until = Some(now() + waits);
        }
    }

    /// Puts the copy back where all others are up, in touch and agreed, and have met the member
    /// since.
    fn put_back(&self, slot: usize) {
        let (is_same, is_due) = {
            let world = self.shared.lock();
            let revert = self.revert.borrow();
            let Some(revert) = revert.as_ref() else { return };
            let machine = &world.machines[slot];
            (machine.store == Some(revert.store), machine.member == Some(revert.member) && world.all_stand())
        };
        if !is_same {
            *self.revert.borrow_mut() = None;
            return;
        }
        if !is_due || !self.may_lose_disk(slot) {
            return;
        }
        self.switch_off(slot, false);
        let mut world = self.shared.lock();
        let world = &mut *world;
        world.mark(PUT_BACK);
        world.trace.line(now(), Some(slot), "fault", "an older copy of its data directory is put back");
        if let Some(timeline) = world.trace.timeline() {
            timeline.note(now(), Some(slot), "fault", "an older copy of its data directory is put back");
        }
        world.attendance.disturb();
        let deadline = now() + grace(&world.schedule.settings) + NOTICE_MICROS;
        let machine = &mut world.machines[slot];
        let mut revert = self.revert.borrow_mut();
        let Some(revert) = revert.as_mut() else { return };
        if let Some(copy) = revert.copy.take() {
            machine.disk.put_back(copy);
        }
        revert.at = deadline;
        let lost = std::mem::take(&mut machine.durable);
        world.lost_disks.insert(revert.member, lost);
        machine.under_way.clear();
        (machine.store, machine.member, machine.is_reverted) = (None, None, true);
        machine.start_at = Some(now() + OFF_MICROS);
    }
}
