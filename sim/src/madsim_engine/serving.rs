//! Whether nodes serve while faults last. A majority *stands* if its members are connected and
//! their disks are sound. Once it has stood for a while, it has to answer its clients.

use crate::madsim_engine::attendance::{Due, Failures, Standing, grace, is_quick};
use crate::madsim_engine::pipes::RETRANSMIT_MICROS;
use crate::madsim_engine::time::now;
use crate::madsim_engine::world::World;
use crate::record::violation::Violation;
use crate::schedule::{MILLI, SECOND};
use infinitystore::raft::{Membership, NodeId};
use std::collections::BTreeSet;

/// From this loss on, links are without use so often that it shows in the answers.
const LOSSY_PPM: u32 = 10_000;

/// How often the engine looks which machines stand.
const LOOK_MICROS: u64 = 50 * MILLI;
/// And how often at what nodes hold: their patience is seconds.
const BUDGETS_MICROS: u64 = 250 * MILLI;

impl World {
    /// Looks which machines stand, now and then.
    pub(super) fn look_who_stands(&mut self) {
        if self.machines.iter().any(|machine| machine.room_at.is_some()) {
            self.full_at = Some(now());
        }
        if now() < self.attendance.look_at {
            return;
        }
        self.attendance.look_at = now() + LOOK_MICROS;
        if now() >= self.attendance.budgets_at {
            self.attendance.budgets_at = now() + BUDGETS_MICROS;
            self.look_at_budgets();
        }
        self.look_who_followed();
        self.look_who_stands_now();
        self.look_who_is_connected();
    }

    /// Whether every voter stands, and has stood long enough for all to have met each other.
    pub(super) fn all_stand(&self) -> bool {
        let Some(standing) = &self.attendance.standing else { return false };
        let stands =
            |id: &NodeId| standing.machines.keys().any(|slot| self.machines[*slot].member == Some(*id));
        standing.voters.iter().all(stands) && now() >= self.attendance.since + 2 * SECOND
    }

    /// Looks which machines stand.
    pub(super) fn look_who_stands_now(&mut self) {
        if let Some(membership) = self.committed_membership(now())
            && self.attendance.membership.as_ref() != Some(membership)
        {
            self.attendance.membership = Some(membership.clone());
        }
        let membership = self.attendance.membership.take();
        let standing = membership.as_ref().and_then(|membership| self.who_stands(membership));
        self.attendance.membership = membership;
        if standing != self.attendance.standing {
            self.attendance.standing = standing;
            self.attendance.disturb();
        }
    }

    fn who_stands(&mut self, membership: &Membership) -> Option<Standing> {
        if membership.outgoing.is_some() {
            return None;
        }
        let at = now();
        let slots = self.machines.len();
        let sound: BTreeSet<usize> = (0..slots).filter(|&slot| self.is_sound(slot)).collect();
        let is_on =
            |world: &Self, slot: usize| world.machines[slot].on && world.machines[slot].paused_until <= at;
        // Machines that reach each other, and that no other machine disturbs.
        let both = |world: &mut Self, one: usize, other: usize| {
            world.network.reaches(at, one, other) && world.network.reaches(at, other, one)
        };
        for &first in &sound {
            let mut side: BTreeSet<usize> = BTreeSet::new();
            for &slot in &sound {
                if slot == first || both(self, first, slot) {
                    side.insert(slot);
                }
            }
            let voters = side.iter().filter_map(|&slot| self.machines[slot].member);
            let voters = voters.filter(|id| membership.voters.contains(id)).count();
            if 2 * voters <= membership.voters.len() {
                continue;
            }
            let whole =
                side.iter().all(|&one| side.iter().all(|&other| one == other || both(self, one, other)));
            let alone = (0..slots).filter(|slot| !side.contains(slot)).all(|other| {
                !is_on(self, other)
                    || side.iter().all(|&one| {
                        !self.network.reaches(at, other, one) && !self.network.reaches(at, one, other)
                    })
            });
            if whole && alone {
                let machines = side.iter().map(|&slot| (slot, self.machines[slot].life)).collect();
                return Some(Standing { machines, voters: membership.voters.clone() });
            }
        }
        None
    }

    /// Whether a machine's process has no reason to end.
    pub(super) fn is_well(&self, slot: usize) -> bool {
        let ended = self.exits.iter().any(|exit| exit.slot == slot);
        self.is_sound(slot) && !ended && !self.machines[slot].disk.is_troubled()
    }

    fn is_sound(&self, slot: usize) -> bool {
        let machine = &self.machines[slot];
        let faults = machine.disk.armed();
        machine.on
            && machine.handle.is_some()
            && machine.paused_until <= now()
            && machine.power_fails_at.is_none()
            && machine.stopping.is_none()
            && machine.no_name_until <= now()
            && machine.no_handles_until <= now()
            && machine.slow_disk.1 <= now()
            && !machine.rotten
            && !faults
            && self.network.extra(now(), slot, slot) == 0
    }

    /// Whether this machine has to answer its clients now.
    pub(super) fn due(&self, slot: usize) -> Option<Due> {
        let settings = &self.schedule.settings;
        let standing = self.attendance.standing.as_ref()?;
        let is_member = self.machines[slot].member.is_some_and(|id| standing.voters.contains(&id));
        let is_due = standing.machines.contains_key(&slot)
            && is_member
            && self.knows_rights(slot)
            && now() >= self.attendance.since + grace(settings)
            && is_quick(settings, self.asking());
        is_due.then_some(Due { epoch: self.attendance.epoch, slot, is_quiet: self.is_quiet() })
    }

    /// What became of a question that was due.
    pub(super) fn served(&mut self, due: Option<Due>, why_not: Option<&str>) {
        let Some(Due { epoch, slot, is_quiet }) = due else { return };
        self.look_who_stands_now();
        // Where few may wait, some have to be told to come again.
        let few = self.limits.are_few() && why_not.is_some_and(|why| why.contains("too much"));
        let full = self.limits.connections.is_some() && why_not.is_some_and(|why| why.contains("too many"));
        // Clients of the keyspace make it small now and then.
        let quota = why_not.is_some_and(|why| why.contains("its quota is"));
        if few || full || quota {
            return;
        }
        let service = &mut self.attendance;
        if epoch != service.epoch {
            return;
        }
        service.asked += 1;
        *self.marks.entry("service was due").or_default() += 1;
        let Some(why) = why_not else {
            service.streaks.remove(&slot);
            return;
        };
        service.failed += 1;
        why.clone_into(&mut service.last_failure);
        *self.marks.entry("service was due and failed").or_default() += 1;
        let streak = service.streaks.entry(slot).or_default();
        if let Some(Failures { count, first }) = streak.failed(is_quiet, now()) {
            let what = format!(
                "machine {slot} has failed {count} requests in a row since {first}; a majority has stood since {}; the last: {why}",
                service.since
            );
            self.judge(Err(Violation { check: "a majority that stands serves", what }));
        }
    }

    /// At the end: most of what was due was answered.
    pub(super) fn judge_service(&mut self) {
        let (asked, failed) = self.attendance.counts();
        let settings = &self.schedule.settings;
        let quiet = settings.loss_ppm == 0 && settings.corrupt_ppm == 0 && settings.straggler_ppm == 0;
        // A lost packet keeps all that follows on its connection waiting. Where clients wait for
        // less than that, a link is as good as cut for as long.
        // Where hardly any packet is lost, that is no excuse.
        let impatient = settings.loss_ppm >= LOSSY_PPM && settings.client_timeout_micros <= RETRANSMIT_MICROS;
        let allowed = match (quiet, impatient) {
            (true, _) => asked / 20,
            (false, false) => asked / 3,
            (false, true) => asked * 3 / 4,
        };
        if asked >= 10 && failed > allowed {
            let last = &self.attendance.last_failure;
            let what =
                format!("of {asked} requests to a majority that stood, {failed} failed; the last: {last}");
            self.judge(Err(Violation { check: "a majority that stands serves", what }));
        }
    }
}
