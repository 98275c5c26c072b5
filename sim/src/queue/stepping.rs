//! Machines at work: events in, actions out.

use crate::checks::safety::is_silent;
use crate::queue::event::SimEvent;
use crate::queue::simulation::Simulation;
use crate::record::timeline::Status;
use crate::record::violation::{Violation, check};
use crate::schedule::STALL_MICROS;
use infinitystore::raft::{RoleName, Time};
use infinitystore::replica::{Actions, Event, Notice, PeerMessage, RequestId};
use rand::Rng;

/// An entry is no longer than its value and this, unless it is one of the membership.
const ENTRY_BYTES_MAX: u64 = 150;

impl Simulation {
    /// Gives an event to a machine's process; it waits if the machine stands still.
    pub(super) fn give(&mut self, slot: usize, event: Event) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        if machine.process.is_none() {
            return Ok(());
        }
        if machine.paused_until > self.now {
            machine.inbox.push_back(event);
            return Ok(());
        }
        self.step(slot, event);
        self.settle_soon(slot)
    }

    /// A process that runs takes an event in.
    pub(super) fn step(&mut self, slot: usize, event: Event) {
        let machine = &mut self.machines[slot];
        let time = machine.time(self.now);
        let Some(process) = &mut machine.process else { return };
        let raft = process.replica.raft();
        if let Event::Peer(PeerMessage::Raft(message)) = &event {
            let timeout = self.schedule.settings.election_timeout_micros;
            self.elections.taken_in(message, time, (raft.term(), raft.role()), timeout);
        }
        if let Event::Peer(PeerMessage::ForwardRefused(refused)) = &event {
            self.elections.refused(refused);
        }
        process.replica.step(time, event);
        self.note_leader(slot, time);
        let Some(process) = &self.machines[slot].process else { return };
        let raft = process.replica.raft();
        self.elections.stepped(raft.id(), raft.membership(), (raft.role(), raft.term()), time);
        self.note_full(slot);
        self.note_load(slot);
    }

    /// Did a leader that is heard give up, and has no other reason? Late copies are no answers.
    pub(super) fn note_leader(&mut self, slot: usize, time: Time) {
        self.note_storage(slot, time);
        let settings = &self.schedule.settings;
        let Some(process) = &self.machines[slot].process else { return };
        // A write may have waited through all of this time: the leader takes its disk for stalled.
        let hangs = process.occupied_since.is_some_and(|since| 2 * time.since(since) >= STALL_MICROS);
        let raft = process.replica.raft();
        let is_voter = raft.membership().voters.contains(&raft.id());
        if settings.duplicate_ppm == 0 && !hangs && is_voter && raft.withdrawn().is_none() {
            let (shows, within) = ((raft.role(), raft.term()), settings.election_timeout_micros / 2);
            self.elections.led_on(raft.id(), raft.membership(), shows, time, within);
        }
    }

    /// Since when has something waited for the storage, whenever it was looked at?
    fn note_storage(&mut self, slot: usize, time: Time) {
        let machine = &mut self.machines[slot];
        let Some(process) = &mut machine.process else { return };
        // What the storage says to a machine that stands still, that machine takes in later.
        let untold = machine.inbox.iter().any(|event| matches!(event, Event::Storage(_)));
        let waits_for_room = process.disk_full || process.log_full;
        let occupied = waits_for_room
            || process.busy
            || !process.queue.is_empty()
            || !process.receipts.is_empty()
            || untold;
        process.occupied_since = process.occupied_since.filter(|_| occupied).or(occupied.then_some(time));
    }

    /// Has a leader so much to commit, or to sync, that it refuses more?
    fn note_load(&mut self, slot: usize) {
        let settings = &self.schedule.settings;
        let machine = &self.machines[slot];
        let Some(process) = machine.process.as_ref().filter(|_| settings.uncommitted_bytes_max > 0) else {
            return;
        };
        let raft = process.replica.raft();
        let done = raft.commit_index().min(machine.durable.last().index);
        let waits = raft.log_range(done, raft.last_log().index);
        let least = settings.value_bytes as u64 + ENTRY_BYTES_MAX;
        let bytes =
            waits.map(|entry| entry.encoded_bytes() as u64).fold(least, |sum, it| sum + it.max(least));
        if raft.role() == RoleName::Leader && bytes > settings.uncommitted_bytes_max / 2 {
            self.service.loaded(self.now);
        }
    }

    /// What the event brings about is carried out: at once, or together with what comes soon, as a
    /// busy driver does.
    pub(super) fn settle_soon(&mut self, slot: usize) -> Result<(), Violation> {
        let most = self.schedule.settings.settle_max_micros;
        if most == 0 || self.batch_rng.random_bool(0.3) {
            return self.settle(slot);
        }
        let machine = &mut self.machines[slot];
        let Some(process) = machine.process.as_mut().filter(|process| !process.settle_planned) else {
            return Ok(());
        };
        process.settle_planned = true;
        let at = self.now + self.batch_rng.random_range(0..=most);
        self.queue.plan(at, SimEvent::Settle { slot, life: machine.life });
        Ok(())
    }

    pub(super) fn settle_now(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        let Some(process) = machine.process.as_mut().filter(|_| machine.hardware.life == life) else {
            return Ok(());
        };
        // It may have been done meanwhile, with other events.
        if !std::mem::take(&mut process.settle_planned) || machine.paused_until > self.now {
            return Ok(());
        }
        self.settle(slot)
    }

    /// A machine that stood still goes on: with everything that came meanwhile.
    pub(super) fn resume(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        if machine.life != life || machine.paused_until > self.now {
            return Ok(());
        }
        // It may look at the clock first, or at what came.
        if self.disk_rng.random() {
            self.step(slot, Event::Wake);
        }
        while let Some(event) = self.machines[slot].inbox.pop_front() {
            self.step(slot, event);
        }
        self.survey();
        self.settle(slot)
    }

    /// An alarm rings. The replica is woken if that is what it wants now: with most of its steps it
    /// puts the time off.
    pub(super) fn alarm(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        let Some(process) = machine.process.as_mut().filter(|_| machine.hardware.life == life) else {
            return Ok(());
        };
        // An earlier one was planned since, and has rung already.
        if process.alarm != Some(self.now) {
            return Ok(());
        }
        process.alarm = None;
        if process.wake_at == Some(self.now) {
            process.wake_at = None;
            self.figures.add("wakes", 1);
            self.give(slot, Event::Wake)?;
            return self.check_leadership(slot);
        }
        self.set_alarm(slot);
        Ok(())
    }

    /// A leader that has looked at the clock leads on only if it is heard.
    fn check_leadership(&self, slot: usize) -> Result<(), Violation> {
        let machine = &self.machines[slot];
        let Some(process) = machine.process.as_ref().filter(|_| machine.paused_until <= self.now) else {
            return Ok(());
        };
        self.check_stall(slot)?;
        let within = 2 * self.schedule.settings.election_timeout_micros;
        let replica = &process.replica;
        self.elections.leads_on(replica.raft().id(), replica.membership(), machine.time(self.now), within)
    }

    /// Plans an alarm for when the replica wants to be woken, unless one will ring before.
    fn set_alarm(&mut self, slot: usize) {
        let machine = &mut self.machines[slot];
        let Some(process) = &mut machine.process else { return };
        let Some(at) = process.wake_at else { return };
        if process.alarm.is_none_or(|alarm| at < alarm) {
            process.alarm = Some(at);
            self.queue.plan(at, SimEvent::Alarm { slot, life: machine.life });
        }
    }

    /// Takes a process' actions and carries them out.
    pub(super) fn settle(&mut self, slot: usize) -> Result<(), Violation> {
        let Some(process) = &mut self.machines[slot].process else { return Ok(()) };
        process.settle_planned = false;
        let applied = process.replica.last_applied().index;
        let settings = &self.schedule.settings;
        if settings.log_bytes_max > 0 {
            process.shown.ahead = process.replica.raft().log_after(applied);
        }
        let actions = process.replica.take_actions();
        if (settings.apply_entries_max > 0 || settings.apply_bytes_max > 0)
            && process.replica.raft().commit_index() > process.replica.last_applied().index
            && process.replica.last_applied().index > applied
        {
            *self.marks.entry("applied in slices").or_default() += 1;
        }
        self.note_load(slot);
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        let (term, commit) = (process.replica.raft().term(), process.replica.raft().commit_index());
        self.trace.step([self.now, slot as u64, term.get(), commit.get()]);
        self.look(slot, &actions)?;
        self.look_at_leases(slot);
        self.look_at_levels(slot)?;
        self.look_at_commits()?;
        self.freshness.committed(self.now, self.checks.committed_through());
        let installed = actions.notices.iter().any(|notice| matches!(notice, Notice::SnapshotInstalled(_)));
        if installed {
            self.checks.watching.replaced(slot);
        }
        self.figures.stepped(&actions);
        let Actions { messages, storage, replies, notices: _, replaced: _, wake_at } = actions;
        for message in messages {
            self.send(slot, message)?;
        }
        self.check_saves(slot, &storage)?;
        self.ask_storage(slot, storage);
        self.note_storage(slot, self.machines[slot].time(self.now));
        for (request, reply) in replies {
            self.reply(slot, request, &reply.worked_out())?;
        }
        self.look_at_watches(slot)?;
        let machine = &mut self.machines[slot];
        if let Some(process) = &mut machine.process {
            process.wake_at = wake_at.map(|at| machine.hardware.clock.when(at, self.now));
        }
        self.set_alarm(slot);
        Ok(())
    }

    /// The checks that look at one machine after each of its steps.
    fn look(&mut self, slot: usize, actions: &Actions) -> Result<(), Violation> {
        self.elections.judge_leaders()?;
        let time = self.machines[slot].time(self.now);
        let Some(process) = &mut self.machines[slot].process else { return Ok(()) };
        process.shown.answers.note(time, process.replica.store());
        for notice in &actions.notices {
            self.trace.line(self.now, Some(slot), "notice", format_args!("{notice:?}"));
        }
        if let Some(timeline) = self.trace.timeline() {
            timeline.status(self.now, slot, Some(Status::of(&process.replica)));
            timeline.notices(self.now, slot, &actions.notices);
        }
        let leads = |notice: &Notice| matches!(notice, Notice::RoleChanged { role: RoleName::Leader, .. });
        if actions.notices.iter().any(leads) && process.replica.raft().role() == RoleName::Leader {
            self.checks.quorums.elected(process.replica.raft())?;
        }
        self.checks.stepped(slot, &process.replica, &actions.notices, &mut process.shown, &mut self.marks)?;
        let withdrawn = process.replica.raft().withdrawn().is_some();
        is_silent(slot, std::mem::replace(&mut process.is_withdrawn, withdrawn), &actions.messages)?;
        let answered = |id: &RequestId| actions.replies.iter().any(|(request, _)| request == id);
        let holds = process.writes_waiting.iter().any(|id| !answered(id));
        let alone = process.replica.membership().members.len() == 1;
        check!(
            "a node that holds a write is not pristine",
            !(alone && holds && process.replica.is_pristine()),
            "machine {slot} holds {:?} and counts as untouched",
            process.writes_waiting
        );
        let (role, term) = (process.replica.raft().role(), process.replica.raft().term());
        self.service.stepped(self.now, slot, role, term)?;
        if actions.notices.iter().any(|notice| matches!(notice, Notice::SnapshotInstalled(_))) {
            self.service.installed(slot, self.now);
        }
        for notice in &actions.notices {
            if let Notice::SnapshotNotTaken { peer, times, .. } = notice
                && let Some(&peer) = self.hosts.get(peer)
            {
                self.service.snapshot_not_taken(self.now, peer, *times);
            }
        }
        self.check_chunks(slot)?;
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        let durable = |id| match self.hosts.get(&id) {
            Some(slot) => Some(&self.machines[*slot].durable),
            None => self.lost_disks.get(&id),
        };
        self.checks.replicated(&process.replica, durable)?;
        self.check_install(slot)?;
        self.check_temporaries(slot)?;
        self.check_log(slot)?;
        let begins = |notice: &Notice| matches!(notice, Notice::MembershipChanged { membership, committed: false } if membership.is_joint());
        let leads = process.replica.raft().role() == RoleName::Leader;
        if leads && actions.notices.iter().any(begins) {
            self.check_change(slot)?;
            if !self.ambushes.is_empty() {
                self.joint_state_begins();
            }
        }
        self.note_snapshots(slot, &actions.notices);
        self.strike_installs(slot);
        Ok(())
    }

    /// A leader has begun a change of membership.
    fn check_change(&self, slot: usize) -> Result<(), Violation> {
        let machine = &self.machines[slot];
        let Some(process) = &machine.process else { return Ok(()) };
        let settings = &self.schedule.settings;
        let within = settings.election_timeout_micros + 2 * settings.settle_max_micros;
        let raft = process.replica.raft();
        self.elections.begins_change(raft.id(), &raft.membership().voters, machine.time(self.now), within)
    }
}
