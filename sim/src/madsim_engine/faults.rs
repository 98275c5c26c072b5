//! Faults, as they strike whole nodes.

use crate::machines::{announce, strike};
use crate::madsim_engine::run::Run;
use crate::madsim_engine::time::now;
use crate::schedule::{Fault, MILLI};
use infinitystore::raft::Change;
use infinitystore::replica::ClientRequest;
use rand::Rng;

/// Operations that a disk gets done before its power is gone, at most.
const OPERATIONS_MAX: u32 = 12;
/// Further bits that flip on a disk, at most.
const FLIPS_MAX: usize = 5;
/// The power is gone at the latest this long after the disk began to fail.
const POWER_MICROS: u64 = 20 * MILLI;

impl Run {
    /// A fault of the schedule strikes.
    pub(super) fn strike(&self, fault: Fault) {
        let leader = self.shared.lock().leader(now()).map(|machine| machine.slot);
        let Some(fault) = fault.aimed(leader) else { return };
        {
            let mut world = self.shared.lock();
            let world = &mut *world;
            announce(&fault, now(), &mut world.trace, &mut world.marks);
            strike(&fault, now(), &mut world.network, |slot| &mut world.machines[slot]);
            let brings_change = matches!(
                fault,
                Fault::ClockJump { .. }
                    | Fault::Join { .. }
                    | Fault::Remove { .. }
                    | Fault::Transfer { .. }
                    | Fault::Wipe { .. }
                    | Fault::Move { .. }
                    | Fault::Release { .. }
            );
            if brings_change {
                world.attendance.disturb();
            }
        }
        match fault {
            Fault::Kill { slot, back_micros } => {
                self.switch_off(slot, false);
                self.start_later(slot, back_micros);
            }
            Fault::Move { slot, back_micros } => {
                // Not while a machine joins: it asks the addresses that the others had when it
                // started.
                if self.quiet() && self.operator.borrow().is_empty() {
                    let mut world = self.shared.lock();
                    world.mark("address moved");
                    // One of its addresses, or both.
                    world.machines[slot].is_moved ^= back_micros % 3 != 2;
                    world.machines[slot].is_http_moved ^= back_micros % 3 != 0;
                }
                self.switch_off(slot, false);
                self.start_later(slot, back_micros);
            }
            Fault::Release { slot, newest, back_micros } => self.change_release(slot, newest, back_micros),
            Fault::PowerLoss { slot, back_micros } => {
                self.lose_power(slot);
                self.start_later(slot, POWER_MICROS + back_micros);
            }
            Fault::Blackout { back_micros } => {
                for slot in 0..self.nodes.len() {
                    self.lose_power(slot);
                    self.start_later(slot, POWER_MICROS + back_micros + slot as u64 * 20 * MILLI);
                }
            }
            Fault::Pause { slot, for_micros } => {
                let mut world = self.shared.lock();
                if world.machines[slot].on {
                    let until = world.machines[slot].paused_until.max(now() + for_micros);
                    world.machines[slot].paused_until = until;
                    world.machines[slot].stands_still_until = until;
                    drop(world);
                    self.handle.pause(self.nodes[slot]);
                }
            }
            Fault::Partition { .. }
            | Fault::SlowNode { .. }
            | Fault::SlowDisk { .. }
            | Fault::FailSync { .. }
            | Fault::FailWrite { .. } => {}
            Fault::DiskFull { slot, for_micros } => {
                self.shared.lock().machines[slot].room_at = Some(now() + for_micros);
            }
            Fault::Rot { slot, file } => self.rot(slot, &file),
            Fault::Misdirect { slot } => {
                if self.may_lose_disk(slot) {
                    let mut world = self.shared.lock();
                    world.mark("write misdirected");
                    world.machines[slot].misdirect();
                }
            }
            Fault::Wipe { slot } => {
                if self.may_lose_disk(slot) {
                    self.shared.lock().mark("disk wiped");
                    self.switch_off(slot, true);
                    self.replace_disk(slot);
                }
            }
            Fault::ClockJump { slot, .. } => {
                let mut world = self.shared.lock();
                world.machines[slot].has_jumped = true;
                world.machines[slot].jumped.notify_waiters();
            }
            Fault::Join { slot } | Fault::Exchange { slot, .. } => self.join(slot),
            // Operators join machines over HTTP here, and the engine does not look into a change
            // under way.
            Fault::Disk { .. }
            | Fault::Learn { .. }
            | Fault::InJointState { .. }
            | Fault::WhenInstalling { .. }
            | Fault::Flood { .. }
            | Fault::SplitJoint { .. } => {}
            Fault::Remove { slot } => self.remove(slot),
            Fault::Transfer { slot } => {
                let to = slot.and_then(|slot| self.shared.lock().machines[slot].member);
                self.ask_leader(ClientRequest::TransferLeadership(to));
            }
        }
    }

    /// The power goes: the disk stops first, at any operation, and the process soon after.
    fn lose_power(&self, slot: usize) {
        let mut world = self.shared.lock();
        let world = &mut *world;
        let machine = &mut world.machines[slot];
        if machine.on {
            let operations = world.disk_rng.random_range(0..=OPERATIONS_MAX);
            let after = world.disk_rng.random_range(0..=POWER_MICROS);
            machine.disk.faults(|faults| faults.operations_left = Some(operations));
            machine.power_fails_at = Some(now() + after);
        }
    }

    pub(super) fn start_later(&self, slot: usize, after: u64) {
        // One with a new disk may not have come so far as to have a store.
        let joins = self.operator.borrow().contains_key(&slot);
        let mut world = self.shared.lock();
        let machine = &mut world.machines[slot];
        if machine.store.is_some() || joins {
            machine.start_at = Some(now() + after);
        }
    }

    /// A bit flips while the machine is off; at most one disk at a time is damaged or being
    /// replaced.
    fn rot(&self, slot: usize, file: &str) {
        if !self.may_lose_disk(slot) {
            return;
        }
        self.switch_off(slot, true);
        let mut world = self.shared.lock();
        let world = &mut *world;
        let machine = &mut world.machines[slot];
        // Often more than one: ranges are lost then, and what was before the last entries.
        let more = if world.disk_rng.random() { world.disk_rng.random_range(1..=FLIPS_MAX) } else { 0 };
        let parts = ["wal-", "snapshots-", ""].into_iter().cycle().take(more);
        for part in std::iter::once(file).chain(parts) {
            if let Some(rot) = machine.rot(part, &mut world.disk_rng) {
                *world.marks.entry("bit flipped").or_default() += 1;
                world.trace.line(now(), Some(slot), "rot", format_args!("{rot:?}"));
            }
        }
        if more > 0 {
            *world.marks.entry("several bits flipped").or_default() += 1;
        }
        machine.start_at = Some(now() + 50 * MILLI);
    }

    fn remove(&self, slot: usize) {
        let member = self.shared.lock().machines[slot].member;
        let enough =
            self.shared.lock().committed_membership(now()).is_some_and(|found| found.voters.len() >= 3);
        if let Some(member) = member.filter(|_| enough && self.quiet()) {
            self.shared.lock().mark("removal asked for");
            let change = Change::Remove { members: [member].into() };
            self.ask_leader(ClientRequest::ChangeMembership(change.into()));
        }
    }

    /// The operator asks the leader for something, and does not wait.
    fn ask_leader(&self, request: ClientRequest) {
        let handle = self.shared.lock().leader(now()).and_then(|leader| leader.handle.clone());
        if let Some(handle) = handle {
            madsim::task::spawn(async move {
                handle.request(request).await;
            });
        }
    }
}
