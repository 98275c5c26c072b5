//! What else befalls whole nodes: they are told to stop, names cannot be resolved, descriptors run
//! out. All of it is drawn from the seed, and the queue engine has none of it.

use crate::madsim_engine::attendance::way;
use crate::madsim_engine::run::Run;
use crate::madsim_engine::stopping::{HandedOver, STOP_MICROS, Stopping};
use crate::madsim_engine::time::now;
use crate::madsim_engine::world::World;
use crate::record::violation::Violation;
use crate::schedule::{LEADER, MILLI, SECOND, Schedule, Timed};
use crate::schedule::{Stream, stream};
use rand::Rng;

/// Its stream of the seed.
const STREAM: u64 = 3_001;
/// How long it may take to hand over and to finish its log.
const END_MICROS: u64 = 15 * SECOND;

/// How long a stop may take beside what it has to wait for: connections are looked at now and then.
const STOP_SLACK_MICROS: u64 = 3 * SECOND;

/// Something that is done to a node, or befalls it.
#[derive(Clone, Debug)]
pub(super) enum Upkeep {
    /// It is told to stop, and started again.
    Stop { slot: usize, back_micros: u64 },
    /// Its name cannot be resolved.
    NoName { slot: usize, for_micros: u64 },
    /// It has no descriptors left for another connection.
    NoHandles { slot: usize, for_micros: u64 },
    /// It is killed, its data directory copied, and that copy put back when it has been in use
    /// again for a while.
    Revert { slot: usize, after_micros: u64 },
}

/// What befalls the nodes of a seed's run, in order of time.
pub(super) fn upkeep(schedule: &Schedule) -> Vec<Timed<Upkeep>> {
    let mut rng = stream(schedule.seed, Stream::Schedule, STREAM);
    let rng = &mut rng;
    let (slots, mut all) = (schedule.slots(), Vec::new());
    for kind in 0..4 {
        if !rng.random_bool(0.3) {
            continue;
        }
        for _ in 0..rng.random_range(1..=4) {
            let at = rng.random_range(0..schedule.duration_micros.max(1));
            let slot = rng.random_range(0..slots.max(1));
            let long = rng.random_range(100 * MILLI..4 * SECOND);
            let what = match kind {
                0 => {
                    let slot = if rng.random() { LEADER } else { slot };
                    Upkeep::Stop { slot, back_micros: rng.random_range(0..2 * SECOND) }
                }
                1 => Upkeep::NoName { slot, for_micros: long },
                2 => Upkeep::NoHandles { slot, for_micros: long },
                _ => Upkeep::Revert { slot, after_micros: long },
            };
            all.push(Timed { at, what });
        }
    }
    all.sort_by_key(|one| one.at);
    all
}

impl Run {
    /// Does it.
    pub(super) fn maintain(&self, what: Upkeep) {
        let mut world = self.shared.lock();
        world.trace.line(now(), None, "fault", format_args!("{what:?}"));
        if let Some(timeline) = world.trace.timeline() {
            timeline.note(now(), None, "upkeep", format!("{what:?}"));
        }
        match what {
            Upkeep::Revert { slot, after_micros } => {
                drop(world);
                self.copy_disk(slot, after_micros);
            }
            Upkeep::Stop { slot, back_micros } => {
                let leader = world.leader(now()).map(|machine| machine.slot);
                let slot = if slot == LEADER { leader } else { Some(slot) };
                if let Some(slot) = slot {
                    world.stop(slot, back_micros);
                }
            }
            Upkeep::NoName { slot, for_micros } => {
                world.mark("name not resolved for a while");
                world.machines[slot].no_name_until = now() + for_micros;
            }
            Upkeep::NoHandles { slot, for_micros } => {
                world.mark("no descriptors for a while");
                world.machines[slot].no_handles_until = now() + for_micros;
            }
        }
    }
}

impl World {
    /// A node is told to stop.
    pub(super) fn stop(&mut self, slot: usize, back_micros: u64) {
        let machine = &self.machines[slot];
        // One that is joining is left alone, and one that has not come up yet.
        if !machine.on || machine.handle.is_none() || machine.stopping.is_some() || machine.member.is_none() {
            return;
        }
        let led = machine.view.leads.then(|| (machine.view.term, self.due(slot)));
        if let Some(signal) = &machine.stop {
            signal.notify_one();
        }
        self.mark(if led.is_some() { "leader told to stop" } else { "node told to stop" });
        self.machines[slot].stopping = Some(Stopping { since: now(), back_micros, led });
    }

    /// A node is told to stop while all is well. It comes back at once.
    pub(super) fn stop_in_peace(&mut self, slot: usize) {
        self.stop(slot, 0);
        let due = self.attendance.in_peace(slot);
        if let Some(Stopping { led: Some((_, led)), .. }) = &mut self.machines[slot].stopping {
            *led = Some(due);
        }
    }

    /// The leader was told to stop while all was well, closed idle connections, and ended, at these
    /// times. Writes through other members went on; `longest` is the longest time between two that
    /// were done.
    ///
    /// # Errors
    /// It took longer than what it had to wait for: requests that were under way, and a successor.
    pub(super) fn judge_stop(
        &mut self,
        slot: usize,
        [told, closed, ended]: [u64; 3],
        longest: u64,
    ) -> Result<(), String> {
        let settings = &self.schedule.settings;
        let way = way(settings, self.clients.len() as u64 + 2);
        let timeout = settings.election_timeout_micros;
        let (close, end) = (2 * way + STOP_SLACK_MICROS, 2 * way + timeout + STOP_SLACK_MICROS);
        if !self.is_quick() || end >= STOP_MICROS {
            return Ok(());
        }
        self.mark("stop judged by its time");
        if closed - told > close || ended - told > end {
            let what =
                format!("is told to stop, closes after {} µs, ends after {} µs", closed - told, ended - told);
            return Err(format!("machine {slot} {what}"));
        }
        let voters = self.attendance.membership.as_ref().map_or(0, |it| it.voters.len());
        let (gap, quiet) = (6 * way + timeout / 2, self.is_quiet());
        if voters > 2 && quiet && 6 * way < timeout / 4 && longest > gap {
            return Err(format!("machine {slot} hands over, and nobody is served for {longest} µs"));
        }
        Ok(())
    }

    /// A node that was told to stop has ended.
    pub(super) fn stopped(&mut self, slot: usize) {
        let Some(Stopping { back_micros, led, .. }) = self.machines[slot].stopping.take() else { return };
        self.mark("stopped when told");
        self.machines[slot].start_at = Some(now() + back_micros);
        let Some((term, due)) = led else { return };
        // The machines that are left, from now on.
        self.look_who_stands_now();
        let settings = &self.schedule.settings;
        let way = 6 * settings.delay_max_micros * u64::from(settings.link_spread.max(1))
            + 4 * settings.sync_max_micros;
        let by = settings.election_timeout_micros / 2;
        let voters = self.attendance.membership.as_ref().map_or(0, |it| it.voters.len());
        // Where packets were lost, the word to the successor may have been one of them.
        let is_due = due.is_some_and(|due| due.is_quiet) && voters > 2 && way < by;
        let epoch = is_due.then(|| self.attendance.in_peace(slot));
        self.handed_over = Some(HandedOver { slot, term, by: now() + by, epoch });
    }

    /// A leader that stopped has handed over: another leads before a silence could have made it
    /// stand for election.
    pub(super) fn look_who_followed(&mut self) {
        for machine in &self.machines {
            let Some(stopping) = &machine.stopping else { continue };
            let since = stopping.since.max(machine.stands_still_until).max(machine.slow_disk.1);
            if machine.on && now() > since.saturating_add(STOP_MICROS + END_MICROS) {
                let what = format!("machine {} was told at {}", machine.slot, stopping.since);
                return self.judge(Err(Violation { check: "a node that is told to stop ends", what }));
            }
        }
        let Some(HandedOver { slot, term, by, epoch }) = self.handed_over.clone() else { return };
        let successor =
            self.machines.iter().any(|it| it.slot != slot && it.view.leads && it.view.term > term);
        if successor {
            self.mark("leader stopped and handed over");
            self.handed_over = None;
        } else if now() >= by {
            self.handed_over = None;
            if epoch.is_some_and(|due| self.attendance.holds(due)) && self.attendance.stands() {
                let what =
                    format!("machine {slot} was told to stop, led term {term}, and nobody leads after it");
                self.judge(Err(Violation { check: "a leader that stops hands over", what }));
            }
        }
    }
}
