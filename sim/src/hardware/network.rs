//! The simulated network: which machines reach each other, and how long a message takes.

use crate::schedule::{Cut, Settings};
use rand::Rng;
use rand::rngs::SmallRng;

/// A cut that is in force.
#[derive(Clone, Debug)]
struct ActiveCut {
    cut: Cut,
    until: u64,
}

/// Links between machines.
#[derive(Debug)]
pub struct Network {
    rng: SmallRng,
    slots: usize,
    cuts: Vec<ActiveCut>,
    /// Extra delay of each machine, and until when.
    slow: Vec<(u64, u64)>,
    /// How much slower than the fastest each link is, by sender and receiver; drawn when it is
    /// first needed.
    factors: Vec<u64>,
    /// Faults are over.
    calm: bool,
}

/// What becomes of one message: the delays of its copies, and whether each is damaged.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// Microseconds until it arrives; `None` if it is lost.
    pub arrives: Option<u64>,
    /// And until its second copy does, if there is one.
    pub again: Option<u64>,
    /// Bits flip on the way.
    pub corrupt: bool,
}

impl Network {
    /// A network without faults.
    #[must_use]
    pub fn new(slots: usize, rng: SmallRng) -> Self {
        Self { rng, slots, cuts: Vec::new(), slow: vec![(0, 0); slots], factors: Vec::new(), calm: false }
    }

    /// Cuts it.
    pub fn cut(&mut self, cut: Cut, until: u64) {
        self.cuts.push(ActiveCut { cut, until });
    }

    /// Slows a machine down.
    pub fn slow(&mut self, slot: usize, by: u64, until: u64) {
        self.slow[slot] = (by, until);
    }

    /// Ends all faults.
    pub fn calm(&mut self) {
        self.cuts.clear();
        self.slow.fill((0, 0));
        self.calm = true;
    }

    /// Whether a message leaves `from` for `to` now.
    #[must_use]
    pub fn reaches(&mut self, now: u64, from: usize, to: usize) -> bool {
        self.cuts.retain(|cut| cut.until > now);
        !self.cuts.iter().any(|active| severs(&active.cut, self.slots, from, to))
    }

    /// For each machine the machines that its messages do not reach now, as bits.
    #[must_use]
    pub fn severed(&mut self, now: u64) -> Vec<u32> {
        self.cuts.retain(|cut| cut.until > now);
        if self.cuts.is_empty() {
            return vec![0; self.slots];
        }
        let of = |from: usize| {
            let severs =
                |to: &usize| *to != from && self.cuts.iter().any(|it| severs(&it.cut, self.slots, from, *to));
            (0..self.slots).filter(severs).fold(0, |set, to| set | 1 << to)
        };
        (0..self.slots).map(of).collect()
    }

    /// Whether a machine is slowed down now.
    #[must_use]
    pub fn is_slow(&self, now: u64, slot: usize) -> bool {
        self.slow[slot].1 > now
    }

    /// How much longer a message takes because of slow machines.
    #[must_use]
    pub fn extra(&self, now: u64, from: usize, to: usize) -> u64 {
        [from, to].iter().map(|&slot| self.slow[slot]).filter(|slow| slow.1 > now).map(|slow| slow.0).sum()
    }

    /// How much slower than the fastest this link is.
    pub fn factor(&mut self, from: usize, to: usize, spread: u32) -> u64 {
        if spread <= 1 || self.calm {
            return 1;
        }
        if self.factors.is_empty() {
            let rng = &mut self.rng;
            self.factors =
                (0..self.slots * self.slots).map(|_| u64::from(rng.random_range(1..=spread))).collect();
        }
        self.factors[from * self.slots + to]
    }

    /// How long a copy of a message takes; some take much longer.
    fn delay(&mut self, settings: &Settings, factor: u64, straggles: bool) -> u64 {
        let delay = self.rng.random_range(settings.delay_min_micros..=settings.delay_max_micros);
        let late = match (straggles, settings.straggler_max_micros) {
            (false, _) => 0,
            (true, 0) => 9 * delay,
            (true, max) => self.rng.random_range(0..=max),
        };
        factor * delay + late
    }

    /// Decides what becomes of a message.
    pub fn fate(&mut self, now: u64, from: usize, to: usize, settings: &Settings) -> Delivery {
        if !self.reaches(now, from, to) {
            return Delivery::default();
        }
        let mut chance = |ppm: u32| ppm > 0 && !self.calm && self.rng.random_range(0..1_000_000) < ppm;
        let (lost, twice, corrupt) =
            (chance(settings.loss_ppm), chance(settings.duplicate_ppm), chance(settings.corrupt_ppm));
        let straggles = chance(settings.straggler_ppm);
        if lost {
            return Delivery::default();
        }
        let extra = self.extra(now, from, to);
        let factor = self.factor(from, to, settings.link_spread);
        let arrives = Some(extra + self.delay(settings, factor, straggles));
        // The second copy may be long out of date.
        let again = twice.then(|| {
            extra
                + self.delay(settings, factor, straggles)
                + self.rng.random_range(0..=settings.straggler_max_micros)
        });
        Delivery { arrives, again, corrupt }
    }
}

fn severs(cut: &Cut, slots: usize, from: usize, to: usize) -> bool {
    match cut {
        Cut::Split(side) => side.contains(&from) != side.contains(&to),
        Cut::Mute(slot) => from == *slot,
        Cut::Deaf(slot) => to == *slot,
        Cut::Bridge(bridge) => {
            let half = |slot: usize| slot * 2 / slots.max(1);
            from != *bridge && to != *bridge && half(from) != half(to)
        }
        Cut::Ring => {
            let distance = from.abs_diff(to);
            distance != 1 && distance != slots - 1
        }
        Cut::OneWay(a, b) => from == *a && to == *b,
    }
}
