//! Machines are given other releases, and the level of the cluster follows.

use crate::queue::event::SimEvent;
use crate::queue::machine::Process;
use crate::queue::simulation::Simulation;
use crate::record::violation::Violation;
use crate::schedule::MILLI;
use infinitystore::codec::FeatureLevel;
use infinitystore::raft::{LogIndex, NodeId, RoleName};
use infinitystore::replica::{Event, PeerMessage};

/// A machine whose release was left behind comes back with the newest one this much later.
const LEFT_BEHIND_MICROS: u64 = 50 * MILLI;

impl Simulation {
    /// A machine comes back with another release.
    pub(super) fn change_release(&mut self, slot: usize, newest: bool, back_micros: u64) {
        if !self.machines[slot].give_release(newest) {
            return;
        }
        self.stop_well(slot);
        self.switch_off(slot, false);
        self.queue.plan(self.now + back_micros, SimEvent::Start(slot));
    }

    /// A release does not open the directory: it was written for a higher level.
    ///
    /// # Errors
    /// [`Violation`], if no level was ever raised.
    pub(super) fn is_left_behind(&mut self, slot: usize, why: &str) -> Result<(), Violation> {
        self.trace.line(self.now, Some(slot), "too old", why);
        if let Some(timeline) = self.trace.timeline() {
            timeline.note(self.now, Some(slot), "release too old", why);
        }
        self.checks.levels.refuses(slot)?;
        self.mark("older release refuses a newer directory");
        self.machines[slot].give_release(true);
        self.queue.plan(self.now + LEFT_BEHIND_MICROS, SimEvent::Start(slot));
        Ok(())
    }

    /// The operator upgrades what cannot take part any more: the cluster is at a level that it does
    /// not speak.
    pub(super) fn upgrade_left_behind(&mut self) {
        let Some(level) = self.level() else { return };
        for slot in 0..self.machines.len() {
            if !self.machines[slot].can_speak(level) {
                self.mark("machine left behind upgraded");
                self.change_release(slot, true, LEFT_BEHIND_MICROS);
            }
        }
    }

    /// The highest level that any machine has applied; in the calm, that any has in its log: what
    /// is not committed then may wait for the member that does not speak it.
    fn level(&self) -> Option<FeatureLevel> {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let level = |process: &Process| {
            let raft = process.replica.raft();
            let logged = || raft.log_range(raft.commit_index(), raft.last_log().index);
            let waiting = self.calm.then(|| logged().filter_map(|entry| entry.level()).max()).flatten();
            waiting.max(Some(process.replica.store().level()))
        };
        processes.filter_map(level).max()
    }

    /// Whether a connection carries a message: the two machines have a level in common that has
    /// words for it.
    pub(super) fn is_understood(&mut self, from: usize, to: usize, message: &PeerMessage) -> bool {
        if !self.schedule.mixed {
            return true;
        }
        let level = |slot: usize| {
            let process = self.machines[slot].process.as_ref();
            process.map_or(FeatureLevel::OLDEST, |process| process.replica.store().level())
        };
        let needs = level(from).max(level(to));
        let common = self.machines[from].speaks.common(self.machines[to].speaks, needs);
        let is_understood = common.is_some_and(|level| message.is_sayable_at(level));
        if !is_understood {
            self.mark(if common.is_some() { "no words for a message" } else { "refused for its level" });
            for slot in [from, to] {
                if !self.machines[slot].can_speak(FeatureLevel::NEWEST) {
                    self.service.struck(slot, self.now);
                }
            }
        }
        is_understood
    }

    /// A member of another release than before connects, and says which levels it speaks.
    pub(super) fn greet(&mut self, from: usize, to: usize, member: NodeId) -> Result<(), Violation> {
        let speaks = self.machines[from].speaks;
        let Some(process) = &mut self.machines[to].process else { return Ok(()) };
        if !self.schedule.mixed || process.met.insert(member, speaks) == Some(speaks) {
            return Ok(());
        }
        self.give(to, Event::PeerSpeaks(member, speaks))
    }

    /// A leader's log: it raises the level of the cluster when all members speak a higher one.
    pub(super) fn look_at_levels(&mut self, slot: usize) -> Result<(), Violation> {
        let Some(process) = &mut self.machines[slot].process else { return Ok(()) };
        let raft = process.replica.raft();
        let (term, last) = (raft.term(), raft.last_log().index);
        let (looked_in, through) = process.looked_at;
        let from = if looked_in == term { through } else { raft.log_base().max(LogIndex::ZERO) };
        process.looked_at = (term, last);
        if raft.role() != RoleName::Leader || from >= last {
            return Ok(());
        }
        let raised: Vec<_> = raft
            .log_range(from, last)
            .filter(|entry| entry.term() == term)
            .filter_map(|entry| entry.level())
            .collect();
        if raised.is_empty() {
            return Ok(());
        }
        let ids = raft.membership().members.keys();
        let members: Vec<usize> = ids.clone().filter_map(|id| self.hosts.get(id).copied()).collect();
        let met = ids.filter_map(|id| Some((*id, *process.met.get(id)?))).collect::<Vec<_>>();
        for level in raised {
            self.mark("level raised");
            self.checks.levels.raised(level, &members, self.now)?;
            self.checks.levels.raised_after(level, &met)?;
        }
        Ok(())
    }
}
