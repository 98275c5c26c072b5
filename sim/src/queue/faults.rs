//! Faults, as they strike.

use crate::machines::{announce, strike};
use crate::queue::event::SimEvent;
use crate::queue::machine::{Asker, Process};
use crate::queue::simulation::Simulation;
use crate::queue::waiting::Ambush;
use crate::record::violation::Violation;
use crate::schedule::{Cut, DiskTrouble, Fault, MILLI};
use bytes::Bytes;
use infinitystore::kv::Op;
use infinitystore::raft::{Change, ChangeOrder, LogIndex, NodeId, Promotion};
use infinitystore::replica::{ClientRequest, RequestId};
use rand::Rng;
use std::collections::BTreeSet;

/// How long a fault waits for a joint state.
const AMBUSH_MICROS: u64 = 5_000 * MILLI;

/// Operations of the disk that an interrupted batch gets done, at most.
const OPERATIONS_MAX: u32 = 12;

/// Once in this many questions, a learner that was to stay one is promoted.
const PROMOTE: u64 = 3;
/// Once in this many questions, a change is ordered for another configuration than there is.
const STALE: u64 = 11;

impl Simulation {
    /// A fault of the schedule strikes.
    pub(super) fn strike(&mut self, number: usize) -> Result<(), Violation> {
        self.strike_with(self.schedule.faults[number].what.clone())
    }

    /// A fault strikes, at the machine that leads if it is aimed at the leader.
    pub(super) fn strike_with(&mut self, fault: Fault) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let Some(fault) = fault.aimed(self.leader()) else { return Ok(()) };
        let now = self.now;
        announce(&fault, now, &mut self.trace, &mut self.marks);
        strike(&fault, now, &mut self.network, |slot| &mut self.machines[slot]);
        let result = self.carry_out(fault, now);
        self.survey();
        result
    }

    fn carry_out(&mut self, fault: Fault, now: u64) -> Result<(), Violation> {
        match fault {
            Fault::Kill { slot, back_micros } | Fault::Move { slot, back_micros } => {
                self.stop_well(slot);
                self.switch_off(slot, false);
                self.queue.plan(now + back_micros, SimEvent::Start(slot));
            }
            Fault::Release { slot, newest, back_micros } => self.change_release(slot, newest, back_micros),
            Fault::PowerLoss { slot, back_micros } => {
                self.switch_off(slot, true);
                self.queue.plan(now + back_micros, SimEvent::Start(slot));
            }
            Fault::Blackout { back_micros } => {
                for slot in 0..self.machines.len() {
                    self.switch_off(slot, true);
                    self.queue.plan(now + back_micros + slot as u64 * 20 * MILLI, SimEvent::Start(slot));
                }
            }
            Fault::Pause { slot, for_micros } => self.pause(slot, for_micros),
            Fault::Partition { .. } | Fault::FailSync { .. } | Fault::FailWrite { .. } => {}
            Fault::SlowNode { slot, by_micros, for_micros }
            | Fault::SlowDisk { slot, by_micros, for_micros } => {
                self.service.struck(slot, now + for_micros + by_micros);
            }
            Fault::DiskFull { slot, for_micros } => {
                let until = self.full_until.entry(slot).or_default();
                *until = (*until).max(now + for_micros);
                self.queue.plan(now + for_micros, SimEvent::RoomAgain(slot));
            }
            Fault::Rot { slot, file } => self.rot(slot, &file),
            Fault::Misdirect { slot } => {
                if self.may_lose_disk(slot) {
                    self.mark("write misdirected");
                    self.machines[slot].misdirect();
                }
            }
            Fault::Disk { slot, trouble } => self.disk_trouble(slot, trouble),
            Fault::Wipe { slot } => {
                if self.may_lose_disk(slot) {
                    self.mark("disk wiped");
                    self.switch_off(slot, true);
                    self.replace_disk(slot);
                }
            }
            Fault::ClockJump { slot, .. } => {
                self.service.struck(slot, now);
                // By this clock a write that is under way takes as long as the clock has jumped.
                self.service.disk_slow(slot, now);
                return self.give(slot, infinitystore::replica::Event::Wake);
            }
            Fault::Join { slot } => self.join(slot),
            Fault::Exchange { slot, with } => self.exchange(slot, &with),
            Fault::Learn { slot } => self.learn(slot),
            Fault::InJointState { after_micros, what } => {
                self.ambushes.push(Ambush { until: now + AMBUSH_MICROS, after_micros, what: *what });
            }
            Fault::WhenInstalling { after_micros, what } => {
                let ambush = Ambush { until: now + 4 * AMBUSH_MICROS, after_micros, what: *what };
                self.install_ambushes.push(ambush);
            }
            Fault::SplitJoint { shared, for_micros } => self.split_joint(shared, for_micros),
            Fault::Flood { for_micros, every_micros } => {
                self.queue.plan(now, SimEvent::Flood { until: now + for_micros, every: every_micros });
            }
            Fault::Remove { slot } => return self.remove(slot),
            Fault::Transfer { slot } => return self.transfer(slot),
        }
        Ok(())
    }

    /// The process ends; with the power, at any point of the batch that is being written.
    pub(super) fn switch_off(&mut self, slot: usize, power: bool) {
        if self.machines[slot].process.is_some() {
            let steps = self.disk_rng.random_range(0..=OPERATIONS_MAX);
            let machine = &mut self.machines[slot];
            if let Some(process) = machine.process.as_mut().filter(|process| process.busy) {
                machine.under_way = process.sketches();
                machine.hardware.disk.faults(|faults| faults.operations_left = Some(steps));
                // The machine is gone in the middle of it: whether it failed does not matter any
                // more.
                let _ = process.write_batch();
                process.busy = false;
                self.mark("crash in a write");
                if let Some(timeline) = self.trace.timeline() {
                    let what = format!("off within a batch, after {steps} operations of its disk");
                    timeline.note(self.now, Some(slot), "crash in a write", what);
                }
            }
            self.end_process(slot);
        }
        self.machines[slot].disk.faults(|faults| {
            faults.operations_left = None;
            faults.forget_single();
        });
        if power {
            self.machines[slot].disk.power_lost(&mut self.disk_rng);
        }
        let _ = self.machines[slot].disk.troubled();
    }

    fn pause(&mut self, slot: usize, for_micros: u64) {
        let machine = &mut self.machines[slot];
        if machine.process.is_some() {
            machine.paused_until = machine.paused_until.max(self.now + for_micros);
            let (at, life) = (machine.paused_until, machine.life);
            self.queue.plan(at, SimEvent::Resume { slot, life });
        }
    }

    /// A bit flips while the machine is off. The promise that is tested needs a majority of good
    /// copies of each committed entry, so at most one disk at a time is damaged or being replaced.
    fn rot(&mut self, slot: usize, file: &str) {
        if !self.may_lose_disk(slot) {
            return;
        }
        self.stop_well(slot);
        self.switch_off(slot, true);
        if let Some(rot) = self.machines[slot].rot(file, &mut self.disk_rng) {
            self.mark("bit flipped");
            self.trace.line(self.now, Some(slot), "rot", format_args!("{rot:?}"));
            if let Some(timeline) = self.trace.timeline() {
                timeline.note(self.now, Some(slot), "rot", format!("{rot:?}"));
            }
            let machine = &mut self.machines[slot];
            machine.has_older = rot.path.file_name().is_some_and(|name| machine.durable.damaged(name));
            if machine.has_older {
                self.mark("newest of two snapshots damaged");
            }
        }
        self.queue.plan(self.now + 50 * MILLI, SimEvent::Start(slot));
    }

    /// A disk does one thing wrong. What damages it has the bound of
    /// [`Simulation::may_be_damaged`].
    fn disk_trouble(&mut self, slot: usize, trouble: DiskTrouble) {
        let damages =
            matches!(trouble, DiskTrouble::WriteBack | DiskTrouble::WriteLost | DiskTrouble::Rot { .. });
        let runs = self.machines[slot].process.is_some();
        if damages && !(runs && self.may_be_damaged(slot)) {
            return;
        }
        let disk = self.machines[slot].disk.clone();
        match trouble {
            DiskTrouble::ReadFails => disk.faults(|faults| faults.fail_read = true),
            DiskTrouble::NameFails => {
                disk.faults(|faults| faults.fail_name = true);
                if let Some(process) = &mut self.machines[slot].process {
                    process.names_failed = true;
                }
            }
            DiskTrouble::WriteTorn(keeps) => {
                let keeps = usize::try_from(keeps).unwrap_or(usize::MAX);
                disk.faults(|faults| (faults.fail_write, faults.keeps) = (true, keeps));
            }
            DiskTrouble::WriteBack => {
                self.mark("write landed before its place");
                disk.faults(|faults| faults.misdirect_back = true);
            }
            DiskTrouble::WriteLost => disk.faults(|faults| faults.lose_write = true),
            DiskTrouble::Rot { file, after_micros } => {
                let Some(rot) = disk.rot(&file, &mut self.disk_rng) else { return };
                self.mark("bit flipped while running");
                self.trace.line(self.now, Some(slot), "rot", format_args!("{rot:?}"));
                if let Some(name) = rot.path.file_name() {
                    self.machines[slot].durable.damaged(name);
                }
                let kill = Fault::Kill { slot, back_micros: 50 * MILLI };
                self.queue.plan(self.now + after_micros, SimEvent::Ambush(Box::new(kill)));
            }
        }
        if damages {
            self.machines[slot].damage();
        }
        if let Some(process) = self.machines[slot].process.as_mut().filter(|_| damages) {
            process.saved = None;
        }
    }

    fn remove(&mut self, slot: usize) -> Result<(), Violation> {
        let Some(identity) = self.machines[slot].identity else { return Ok(()) };
        // Half of the operators do not wait until the last change is through.
        let is_patient = self.disk_rng.random();
        if !self.no_disk_is_lost() || !self.may_shrink() || is_patient && !self.quiet() {
            return Ok(());
        }
        self.mark("removal asked for");
        self.operator.removal_asked_at = self.now;
        self.ask_removal(identity.id)
    }

    /// Asks the leader to remove a member: of whatever configuration, or of the one that is there.
    pub(super) fn ask_removal(&mut self, member: NodeId) -> Result<(), Violation> {
        let change = Change::Remove { members: [member].into() };
        let expected = self.configuration().filter(|_| self.questions.is_multiple_of(2));
        let id = self.next_request();
        self.operator.removals.insert(id, member);
        let order = ChangeOrder { expected, ..change.into() };
        if let Some(successor) = self.successor_for(member, &order) {
            self.note_transfer(Some(successor));
        }
        self.ask_leader(ClientRequest::ChangeMembership(order))
    }

    /// Whom the leader hands over to before it is removed, if it is the one that an order removes.
    fn successor_for(&self, member: NodeId, order: &ChangeOrder) -> Option<NodeId> {
        let raft = self.machines[self.leader()?].process.as_ref()?.replica.raft();
        let begins = raft.id() == member && raft.judge_change(order).is_ok();
        begins.then(|| raft.successor(&[member].into())).flatten()
    }

    /// Orders changes that are to be refused, or that make a learner a voter.
    pub(super) fn order_changes(&mut self) -> Result<(), Violation> {
        for member in std::mem::take(&mut self.operator.handed_over) {
            if self.no_disk_is_lost() && self.may_shrink() {
                self.ask_removal(member)?;
            }
        }
        let Some(at) = self.configuration().filter(|_| !self.calm) else { return Ok(()) };
        let Some(leader) = self.leader() else { return Ok(()) };
        let Some(process) = &self.machines[leader].process else { return Ok(()) };
        let membership = process.replica.membership();
        let stays = |(_, promotion): &(&NodeId, &Promotion)| **promotion == Promotion::Never;
        let learner = membership.learners.iter().find(stays).map(|(id, _)| *id);
        let own = process.replica.raft().id();
        if let Some(learner) = learner.filter(|_| self.questions.is_multiple_of(PROMOTE)) {
            self.mark("learner to be promoted");
            let change = Change::Promote { members: [learner].into() };
            return self.ask_leader(ClientRequest::ChangeMembership(change.into()));
        }
        if self.questions.is_multiple_of(STALE) {
            self.mark("change of another configuration asked for");
            let id = self.next_request();
            self.operator.stale.insert(id);
            let change = Change::Remove { members: [own].into() };
            let expected = Some(at.previous());
            return self
                .ask_leader(ClientRequest::ChangeMembership(ChangeOrder { expected, ..change.into() }));
        }
        Ok(())
    }

    /// The index of the configuration in force on the leader.
    fn configuration(&self) -> Option<LogIndex> {
        let process = self.machines[self.leader()?].process.as_ref()?;
        Some(process.replica.raft().membership_id().0.index)
    }

    /// The name of the next request.
    fn next_request(&self) -> RequestId {
        RequestId(u64::MAX - self.questions - 1)
    }

    /// A joint state came into force on its leader: faults that waited for one strike.
    pub(super) fn joint_state_begins(&mut self) {
        for Ambush { until, after_micros, what } in std::mem::take(&mut self.ambushes) {
            if self.now <= until {
                self.mark("struck in a joint state");
                self.queue.plan(self.now + after_micros, SimEvent::Ambush(Box::new(what)));
            }
        }
    }

    /// A machine is about to install a snapshot: a fault that waited for that strikes.
    pub(super) fn strike_installs(&mut self, slot: usize) {
        let installs = |process: &Process| process.installs();
        if self.install_ambushes.is_empty() || !self.machines[slot].process.as_ref().is_some_and(installs) {
            return;
        }
        let Ambush { until, after_micros, what } = self.install_ambushes.remove(0);
        if self.now <= until {
            self.mark("struck while a snapshot is installed");
            let what = what.aimed_at_installer(slot);
            self.queue.plan(self.now + after_micros, SimEvent::Ambush(Box::new(what)));
        }
    }

    /// Cuts the machines of the old configuration from those of the new one.
    fn split_joint(&mut self, shared: u64, for_micros: u64) {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let joint = processes.map(|process| process.replica.membership()).find(|it| it.is_joint());
        let Some((old, new)) = joint.and_then(|it| Some((it.outgoing.clone()?, it.voters.clone()))) else {
            return;
        };
        self.mark("old cut from new in a joint state");
        let is_in = |slot: &usize, set: &BTreeSet<NodeId>| {
            self.machines[*slot].identity.is_some_and(|identity| set.contains(&identity.id))
        };
        let side = (0..self.machines.len()).filter(|slot| match (is_in(slot, &old), is_in(slot, &new)) {
            (true, false) => true,
            (false, true) => false,
            _ => shared >> slot & 1 == 1,
        });
        let cut = Cut::Split(side.collect());
        self.network.cut(cut, self.now + for_micros);
    }

    fn transfer(&mut self, slot: Option<usize>) -> Result<(), Violation> {
        let to: Option<NodeId> =
            slot.and_then(|slot| self.machines[slot].identity).map(|identity| identity.id);
        self.note_transfer(to);
        self.ask_leader(ClientRequest::TransferLeadership(to))
    }

    /// The leader is asked for a write, and soon for another one.
    pub(super) fn flood(&mut self, until: u64, every: u64) -> Result<(), Violation> {
        if self.calm || self.now >= until {
            return Ok(());
        }
        self.queue.plan(self.now + every, SimEvent::Flood { until, every });
        let (key, value) = (Bytes::from_static(b"flood"), Bytes::from_static(b"water"));
        self.ask_leader(ClientRequest::write(Op::set(key, value)))
    }

    /// The operator asks the leader for something, and does not wait.
    pub(super) fn ask_leader(&mut self, request: ClientRequest) -> Result<(), Violation> {
        let Some(leader) = self.leader() else { return Ok(()) };
        let id = self.fresh_request();
        self.ask(leader, id, Asker::Operator, request, 2_000 * MILLI)
    }
}
