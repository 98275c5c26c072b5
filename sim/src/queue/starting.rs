//! Processes start, are interrupted while they start, and end by themselves.

use crate::queue::event::SimEvent;
use crate::queue::machine::{Asker, Process, StartError};
use crate::queue::simulation::Simulation;
use crate::record::violation::Violation;
use crate::schedule::{MILLI, SECOND};
use rand::Rng;

/// Time between a process' end by an error and its next start, as a supervisor would have it.
const SUPERVISOR_MICROS: u64 = 300 * MILLI;
/// And after a start that failed.
const START_AGAIN_MICROS: u64 = SECOND;
/// The share of starts that are interrupted, and the operations of the disk before that, at most.
const START_INTERRUPTED: f64 = 0.05;
const START_OPERATIONS_MAX: u32 = 60;

impl Simulation {
    /// Switches a machine on, if it is off and belongs to the cluster.
    pub(super) fn start(&mut self, slot: usize) -> Result<(), Violation> {
        let Some(identity) = self.machines[slot].identity else { return Ok(()) };
        if self.machines[slot].process.is_some() {
            return Ok(());
        }
        let seed = self.core_rng.random();
        let bootstrap = self.bootstrap(slot, identity);
        let rotten = self.machines[slot].rotten;
        let now = self.now;
        let interrupted = !self.calm && self.disk_rng.random_bool(START_INTERRUPTED);
        let steps = interrupted.then(|| self.disk_rng.random_range(0..START_OPERATIONS_MAX));
        self.machines[slot].disk.faults(|faults| faults.operations_left = steps);
        let result =
            self.machines[slot].start(now, &self.schedule.settings, seed, bootstrap, &mut self.marks);
        let power_gone = self.machines[slot].disk.power_gone();
        self.machines[slot].disk.faults(|faults| faults.operations_left = None);
        match result {
            Err(StartError::Refused(_)) if power_gone => {
                self.start_interrupted(slot);
                Ok(())
            }
            Ok(()) => {
                self.trace.line(now, Some(slot), "start", format_args!("{identity:?}"));
                if let Some(timeline) = self.trace.timeline() {
                    timeline.note(now, Some(slot), "start", format!("as member {}", identity.id));
                }
                if let Some(process) = &self.machines[slot].process {
                    self.checks.same_membership(&process.replica)?;
                    self.checks.starts_from(&process.replica)?;
                }
                self.check_directory(slot)?;
                self.elections.started(identity.id);
                let highest = self.machines[slot].speaks.highest();
                self.checks.levels.started(slot, highest);
                self.service.started(identity.id);
                self.service.struck(slot, now);
                self.survey();
                self.echo(slot);
                self.settle(slot)
            }
            Err(StartError::TooOld(why)) => self.is_left_behind(slot, &why),
            Err(StartError::Violation(violation)) => Err(violation),
            Err(StartError::Refused(why)) => {
                self.trace.line(now, Some(slot), "refused", &why);
                if let Some(timeline) = self.trace.timeline() {
                    timeline.note(now, Some(slot), "refuses to start", why.as_str());
                }
                let has_older = std::mem::take(&mut self.machines[slot].has_older);
                if has_older && !self.machines[slot].disk.is_troubled() {
                    return Err(Violation {
                        check: "an older snapshot is enough",
                        what: format!("machine {slot}: {why}"),
                    });
                }
                if rotten {
                    // The simulated operator: a node that refuses to start is wiped, and joins
                    // anew.
                    self.mark("damage reported");
                    self.replace_disk(slot);
                    return Ok(());
                }
                let trouble = self.machines[slot].disk.troubled();
                if !trouble {
                    return Err(Violation {
                        check: "a sound disk is accepted",
                        what: format!("machine {slot}: {why}"),
                    });
                }
                self.mark("start failed by disk");
                self.queue.plan(now + START_AGAIN_MICROS, SimEvent::Start(slot));
                Ok(())
            }
        }
    }

    /// The power went, or the process was killed, in the middle of a start.
    fn start_interrupted(&mut self, slot: usize) {
        // It may have written some of the log anew.
        self.machines[slot].durable.reopened();
        self.mark("crash in a start");
        self.trace.line(self.now, Some(slot), "interrupted", "off within a start");
        if let Some(timeline) = self.trace.timeline() {
            timeline.note(self.now, Some(slot), "crash in a start", "off while it read and rewrote its log");
        }
        let disk = &self.machines[slot].disk;
        if self.disk_rng.random() {
            disk.power_lost(&mut self.disk_rng);
        } else {
            disk.process_died();
        }
        let _ = disk.troubled();
        self.queue.plan(self.now + SUPERVISOR_MICROS, SimEvent::Start(slot));
    }

    /// The storage latched shut: the process ends, and its supervisor starts it again.
    pub(super) fn process_failed(&mut self, slot: usize, why: &str) -> Result<(), Violation> {
        self.trace.line(self.now, Some(slot), "failed", why);
        if let Some(timeline) = self.trace.timeline() {
            timeline.note(self.now, Some(slot), "disk error", why);
        }
        if !self.machines[slot].disk.troubled() {
            return Err(Violation {
                check: "a sound disk is enough",
                what: format!("machine {slot}: {why}"),
            });
        }
        self.mark("process ended by disk error");
        self.end_process(slot);
        self.queue.plan(self.now + SUPERVISOR_MICROS, SimEvent::Start(slot));
        Ok(())
    }

    /// A process ends: its clients learn that the connection broke.
    pub(super) fn end_process(&mut self, slot: usize) {
        self.end_with(slot, false);
    }

    /// A process is told to stop, while its disk is well and has nothing to write, in half of the
    /// cases: then it writes down what is committed. (Where writes wait for room, it may find some
    /// and write them, or write nothing at all.)
    pub(super) fn stop_well(&mut self, slot: usize) {
        let machine = &self.machines[slot];
        let is_apt = |process: &Process| !process.busy && !process.has_writes() && !process.log_full;
        let is_whole = !machine.rotten && !machine.disk.armed() && machine.paused_until <= self.now;
        if is_whole && machine.process.as_ref().is_some_and(is_apt) && self.stop_rng.random() {
            self.end_with(slot, true);
        }
    }

    fn end_with(&mut self, slot: usize, closes: bool) {
        let sketches = match &self.machines[slot].process {
            // One that was switched off within a batch has set this.
            Some(process) if process.busy || self.machines[slot].under_way.is_empty() => process.sketches(),
            _ => Vec::new(),
        };
        if !sketches.is_empty() {
            self.machines[slot].under_way = sketches;
        }
        if self.machines[slot].disk.settle_lost_write() {
            self.mark("acknowledged write lost");
        }
        let Some(mut process) = self.machines[slot].stop() else { return };
        let askers = std::mem::take(&mut process.askers);
        self.service.struck(slot, self.now);
        self.checks.levels.ended(slot, self.now);
        self.survey();
        self.checks.quorums.ended(process.replica.raft().id());
        if let Some(timeline) = self.trace.timeline() {
            timeline.status(self.now, slot, None);
        }
        if closes && process.close().is_ok() {
            self.mark("stopped well");
            self.machines[slot].durable.closed();
        }
        for (request, asker) in askers {
            self.service.forget(request);
            if let Asker::Keyspace { client, .. } = asker {
                self.checks.watching.forget(request);
                self.checks.leases.forget(request);
                self.watch_deadlines.remove(&request);
                if self.keyspace.gave_up(client, request) {
                    self.plan_keyspace(client);
                }
            }
            if let Asker::Client(client) = asker
                && self.clients.give_up(client, request)
            {
                self.plan_client(client);
            }
        }
    }
}
