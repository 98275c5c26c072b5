//! A machine: hardware that outlives processes.

use crate::checks::durable::DurableModel;
use crate::hardware::clock::Clock;
use crate::hardware::disk::{Rot, SimDisk};
use crate::schedule::{SECOND, Schedule, Stream, stream};
use infinitystore::codec::{FeatureLevel, FeatureLevels};
use infinitystore::raft::NodeId;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

/// A machine, and what its disk has to hold.
#[derive(Debug)]
pub struct Machine {
    /// Its number.
    pub slot: usize,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clock.
    pub clock: Clock,
    /// Counts starts and ends of processes: what was meant for an earlier one is dropped.
    pub life: u32,
    /// Its process stands still until then.
    pub paused_until: u64,
    /// How much longer each batch of its disk takes, and until when.
    pub slow_disk: (u64, u64),
    /// A bit of its disk has flipped, and the disk has not been read since: it may refuse to start.
    pub rotten: bool,
    /// It was damaged since it was empty. A start need not read all that is there: it passes over
    /// an older snapshot, and over what a snapshot covers. So damage may be found long after.
    pub was_damaged: bool,
    /// The life in which its disk was damaged last.
    rotten_in: u32,
    /// What its disk has to hold.
    pub durable: DurableModel,
    /// The feature levels that the release on it speaks.
    pub speaks: FeatureLevels,
}

impl Machine {
    /// The machines of a run, all off. Their clocks differ in start and rate.
    #[must_use]
    pub fn all(schedule: &Schedule) -> Vec<Self> {
        let mut clocks = stream(schedule.seed, Stream::Disk, 1);
        let drift = i64::from(schedule.settings.drift_ppm);
        let machine = |slot| Self {
            slot,
            disk: SimDisk::default(),
            clock: Clock::new(clocks.random_range(-drift..=drift), clocks.random_range(0..1_000 * SECOND)),
            life: 0,
            paused_until: 0,
            slow_disk: (0, 0),
            rotten: false,
            was_damaged: false,
            rotten_in: 0,
            durable: DurableModel::default(),
            speaks: schedule.first_levels(),
        };
        (0..schedule.slots()).map(machine).collect()
    }

    /// It is given another release. Whether it has another one then.
    pub fn give_release(&mut self, newest: bool) -> bool {
        let levels = if newest { FeatureLevels::OF_THIS_RELEASE } else { FeatureLevels::OF_THE_OLDEST };
        std::mem::replace(&mut self.speaks, levels) != levels
    }

    /// Whether its release speaks a level.
    #[must_use]
    pub fn can_speak(&self, level: FeatureLevel) -> bool {
        self.speaks.contains(level)
    }

    /// Its disk is damaged, or a write that comes will damage it.
    pub fn damage(&mut self) {
        (self.rotten, self.was_damaged, self.rotten_in) = (true, true, self.life);
    }

    /// A process starts. A fault that is armed may strike while the process opens the disk.
    pub fn starts(&mut self) {
        self.life += 1;
        if self.disk.will_misplace() {
            self.damage();
        }
    }

    /// The process has read its disk: earlier damage is known. What struck during the opening, or
    /// will strike, is not.
    pub fn opened(&mut self) {
        self.rotten &= self.rotten_in == self.life || self.disk.will_misplace();
    }

    /// A write of its disk will land a block too far.
    pub fn misdirect(&mut self) {
        self.disk.faults(|faults| faults.misdirect = true);
        self.damage();
    }

    /// A bit of its disk flips, in a file of which `file` is a part of the path.
    pub fn rot(&mut self, file: &str, rng: &mut SmallRng) -> Option<Rot> {
        let rot = self.disk.rot(file, rng)?;
        self.damage();
        Some(rot)
    }

    /// It gets an empty disk. What the old one had to hold is lost, with the member `was` on it.
    pub fn wipe(&mut self, was: Option<NodeId>, lost_disks: &mut BTreeMap<NodeId, DurableModel>) {
        self.disk.wipe();
        (self.rotten, self.was_damaged) = (false, false);
        let lost = std::mem::take(&mut self.durable);
        if let Some(was) = was {
            lost_disks.insert(was, lost);
        }
    }
}
