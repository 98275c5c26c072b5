//! Machines are given other releases, and the level of the cluster follows.

use crate::madsim_engine::run::Run;
use crate::madsim_engine::time::now;
use crate::schedule::MILLI;
use infinitystore::codec::{FeatureLevel, FeatureLevels};
use infinitystore::node::NodeExit;

/// A machine whose release was left behind comes back with the newest one this much later.
const LEFT_BEHIND_MICROS: u64 = 50 * MILLI;

impl Run {
    /// A machine comes back with another release.
    pub(super) fn change_release(&self, slot: usize, newest: bool, back_micros: u64) {
        let (is_other, is_dying) = {
            let mut world = self.shared.lock();
            let machine = &mut world.machines[slot];
            let is_dying = machine.power_fails_at.is_some();
            (!is_dying && machine.give_release(newest), is_dying)
        };
        if is_other && !is_dying {
            self.switch_off(slot, false);
            self.start_later(slot, back_micros);
        }
    }

    /// Whether a node ended, or did not start, since its release is too old for the cluster: the
    /// operator gives it the newest one.
    pub(super) fn was_left_behind(&self, slot: usize, how: &Result<NodeExit, String>) -> bool {
        let is_too_old = match how {
            Ok(NodeExit::Outgrown(_)) => true,
            Ok(_) => false,
            Err(why) => why.contains("start the version that wrote it"),
        };
        {
            let mut world = self.shared.lock();
            let machine = &mut world.machines[slot];
            let is_older = machine.speaks == FeatureLevels::OF_THE_OLDEST;
            if !is_too_old || !is_older || machine.power_fails_at.is_some() {
                return false;
            }
            machine.give_release(true);
            world.mark("older release refuses a newer directory");
        }
        self.switch_off(slot, false);
        self.shared.lock().machines[slot].start_at = Some(now() + LEFT_BEHIND_MICROS);
        true
    }

    /// The operator upgrades what cannot take part any more: the cluster is at a level that it does
    /// not speak.
    pub(super) fn upgrade_left_behind(&self) {
        let left: Vec<usize> = {
            let world = self.shared.lock();
            let members = world.machines.iter().filter(|machine| machine.member.is_some());
            let level = members.map(|machine| machine.view.level).max().unwrap_or(FeatureLevel::OLDEST);
            let left = world.machines.iter().filter(|machine| !machine.can_speak(level));
            left.map(|machine| machine.slot).collect()
        };
        for slot in left {
            self.shared.lock().mark("machine left behind upgraded");
            self.change_release(slot, true, LEFT_BEHIND_MICROS);
        }
    }
}
