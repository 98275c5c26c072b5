//! Machines at work: events in, actions out, and everything the actions ask for.

use crate::checks::Violation;
use crate::durable::WriteSketch;
use crate::queue::engine::Engine;
use crate::queue::happening::{Happening, IDLE_MICROS};
use crate::queue::machine::{Asker, StartError};
use crate::schedule::{MILLI, SECOND};
use crate::story::{self, Fate, Status};
use bytes::Bytes;
use infinitystore::codec::{decode_frame, encode_frame};
use infinitystore::raft::{Body, RoleName, SnapshotRefusal};
use infinitystore::replica::{Actions, Event, Notice, PeerMessage, StorageEvent, StorageRequest};
use rand::Rng;

/// An entry is no longer than its value and this, unless it is one of the membership.
const ENTRY_BYTES_MAX: u64 = 150;
/// Time between a process' end by an error and its next start, as a supervisor would have it.
const SUPERVISOR_MICROS: u64 = 300 * MILLI;
/// And after a start that failed.
const START_AGAIN_MICROS: u64 = SECOND;
/// The share of starts that are interrupted, and the operations of the disk before that, at most.
const START_INTERRUPTED: f64 = 0.05;
const START_OPERATIONS_MAX: u32 = 60;

/// The last messages to each machine that may come again, at most.
const ECHOES_MAX: usize = 16;
/// The probability that each of them does, and the time within which.
const ECHOED: f64 = 0.3;
const ECHO_MICROS: u64 = 1_500 * MILLI;

impl Engine {
    /// Switches a machine on, if it is off and belongs to the cluster.
    pub(in crate::queue) fn start(&mut self, slot: usize) -> Result<(), Violation> {
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
                if let Some(story) = self.trace.story() {
                    story.note(now, Some(slot), "start", format!("as member {}", identity.id));
                }
                if let Some(process) = &self.machines[slot].process {
                    self.checks.same_membership(&process.replica)?;
                    self.checks.starts_from(&process.replica)?;
                }
                self.check_directory(slot)?;
                self.elections.started(identity.id);
                self.service.started(identity.id);
                self.service.struck(slot, now);
                self.survey();
                self.echo(slot);
                self.settle(slot)
            }
            Err(StartError::Violation(violation)) => Err(violation),
            Err(StartError::Refused(why)) => {
                self.trace.line(now, Some(slot), "refused", &why);
                if let Some(story) = self.trace.story() {
                    story.note(now, Some(slot), "refuses to start", why.as_str());
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
                self.queue.plan(now + START_AGAIN_MICROS, Happening::Start(slot));
                Ok(())
            }
        }
    }

    /// The power went, or the process was killed, in the middle of a start.
    fn start_interrupted(&mut self, slot: usize) {
        self.mark("crash in a start");
        self.trace.line(self.now, Some(slot), "interrupted", "off within a start");
        if let Some(story) = self.trace.story() {
            story.note(self.now, Some(slot), "crash in a start", "off while it read and rewrote its log");
        }
        let disk = &self.machines[slot].disk;
        if self.disk_rng.random() {
            disk.power_lost(&mut self.disk_rng);
        } else {
            disk.process_died();
        }
        let _ = disk.troubled();
        self.queue.plan(self.now + SUPERVISOR_MICROS, Happening::Start(slot));
    }

    /// Gives an event to a machine's process; it waits if the machine stands still.
    pub(in crate::queue) fn give(&mut self, slot: usize, event: Event) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        if machine.process.is_none() {
            return Ok(());
        }
        if machine.paused_until > self.now {
            machine.inbox.push(event);
            return Ok(());
        }
        self.step(slot, event);
        self.settle_soon(slot)
    }

    /// A process that runs takes an event in.
    fn step(&mut self, slot: usize, event: Event) {
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
        let raft = process.replica.raft();
        self.elections.stepped(raft.id(), raft.role(), raft.term(), time);
        if process.disk_full && raft.role() == RoleName::Leader {
            self.service.full(self.now);
        }
        self.note_load(slot);
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
        let waits = raft.last_log().index.since(done) + 1;
        let bytes = waits * (settings.value_bytes as u64 + ENTRY_BYTES_MAX);
        if raft.role() == RoleName::Leader && bytes > settings.uncommitted_bytes_max / 2 {
            self.service.loaded(self.now);
        }
    }

    /// What the event brings about is carried out: at once, or together with what comes soon, as a
    /// busy driver does.
    fn settle_soon(&mut self, slot: usize) -> Result<(), Violation> {
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
        self.queue.plan(at, Happening::Settle { slot, life: machine.life });
        Ok(())
    }

    pub(in crate::queue) fn settle_now(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        let Some(process) = machine.process.as_mut().filter(|_| machine.life == life) else { return Ok(()) };
        // It may have been done meanwhile, with other events.
        if !std::mem::take(&mut process.settle_planned) || machine.paused_until > self.now {
            return Ok(());
        }
        self.settle(slot)
    }

    /// A machine that stood still goes on: with everything that came meanwhile.
    pub(in crate::queue) fn resume(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        if machine.life != life || machine.paused_until > self.now {
            return Ok(());
        }
        let inbox = std::mem::take(&mut machine.inbox);
        // It may look at the clock first, or at what came.
        if self.disk_rng.random() {
            self.step(slot, Event::Wake);
        }
        for event in inbox {
            self.step(slot, event);
        }
        self.survey();
        self.settle(slot)
    }

    /// An alarm rings. The replica is woken if that is what it wants now: with most of its steps it
    /// puts the time off.
    pub(in crate::queue) fn alarm(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        let Some(process) = machine.process.as_mut().filter(|_| machine.life == life) else { return Ok(()) };
        // An earlier one was planned since, and has rung already.
        if process.alarm != Some(self.now) {
            return Ok(());
        }
        process.alarm = None;
        if process.wake_at == Some(self.now) {
            process.wake_at = None;
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
            self.queue.plan(at, Happening::Alarm { slot, life: machine.life });
        }
    }

    pub(in crate::queue) fn arrive(
        &mut self,
        from: usize,
        slot: usize,
        message: PeerMessage,
    ) -> Result<(), Violation> {
        // The hello of the transport: a removed member, and another store under a known id, are not
        // let in.
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        let (sender, membership) = (message.from(), process.replica.membership());
        let removed = sender < membership.next_member_id && !membership.members.contains_key(&sender);
        let here = self.machines[slot].identity.is_some_and(|identity| identity.id == message.to());
        if !here || removed || self.hosts.get(&sender) != Some(&from) {
            return Ok(());
        }
        self.remember(from, slot, &message);
        let Some(process) = &self.machines[slot].process else { return Ok(()) };
        if let PeerMessage::Raft(message) = &message {
            let committed = self.checks.committed_through();
            self.checks.quorums.arrived(message, process.replica.raft(), committed);
        }
        self.trace.line(self.now, Some(slot), "receive", format_args!("{message:?}"));
        self.service.heard(&message);
        self.give(slot, Event::Peer(message))
    }

    /// In runs in which the network makes second copies, they may come after their receiver or
    /// their sender has restarted.
    fn remember(&mut self, from: usize, slot: usize, message: &PeerMessage) {
        let is_heartbeat = matches!(message, PeerMessage::Raft(raft)
            if matches!(&raft.body, Body::AppendEntries { entries, .. } if entries.is_empty()));
        if self.schedule.settings.duplicate_ppm == 0 || self.calm || is_heartbeat {
            return;
        }
        let last = &mut self.echoes[slot];
        if last.len() == ECHOES_MAX {
            last.pop_front();
        }
        last.push_back((from, message.clone()));
    }

    /// A machine has started: some of what reached it before, and of what it said, comes once more.
    fn echo(&mut self, started: usize) {
        if self.calm {
            return;
        }
        for to in 0..self.echoes.len() {
            for (from, message) in self.echoes[to].clone() {
                if (to == started || from == started) && self.echo_rng.random_bool(ECHOED) {
                    self.mark("copy after a restart");
                    let delay = self.echo_rng.random_range(0..ECHO_MICROS);
                    self.plan_arrival(from, to, delay, message);
                }
            }
        }
    }

    /// Takes a process' actions and carries them out.
    fn settle(&mut self, slot: usize) -> Result<(), Violation> {
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
        let Actions { messages, storage, replies, notices: _, wake_at } = actions;
        for message in messages {
            self.send(slot, message)?;
        }
        self.check_saves(slot, &storage)?;
        self.ask_storage(slot, storage);
        for (request, reply) in replies {
            self.reply(slot, request, &reply)?;
        }
        let machine = &mut self.machines[slot];
        if let Some(process) = &mut machine.process {
            process.wake_at = wake_at.map(|at| machine.clock.when(at, self.now));
        }
        self.set_alarm(slot);
        Ok(())
    }

    /// The checks that look at one machine after each of its steps.
    fn look(&mut self, slot: usize, actions: &Actions) -> Result<(), Violation> {
        let Some(process) = &mut self.machines[slot].process else { return Ok(()) };
        for notice in &actions.notices {
            self.trace.line(self.now, Some(slot), "notice", format_args!("{notice:?}"));
        }
        if let Some(story) = self.trace.story() {
            story.status(self.now, slot, Some(Status::of(&process.replica)));
            story.notices(self.now, slot, &actions.notices);
        }
        let leads = |notice: &Notice| matches!(notice, Notice::RoleChanged { role: RoleName::Leader, .. });
        if actions.notices.iter().any(leads) && process.replica.raft().role() == RoleName::Leader {
            self.checks.quorums.elected(process.replica.raft())?;
        }
        self.checks.stepped(slot, &process.replica, &actions.notices, &mut process.shown, &mut self.marks)?;
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

    fn send(&mut self, slot: usize, message: PeerMessage) -> Result<(), Violation> {
        if let PeerMessage::Raft(raft) = &message {
            self.checks.sent(raft, &self.machines[slot].durable)?;
            if let Some(process) = &self.machines[slot].process {
                self.elections.sent(raft, process.replica.membership())?;
                self.checks.quorums.sent(raft, process.replica.raft())?;
            }
        }
        if let PeerMessage::Forward(forward) = &message {
            self.elections.forwards(forward)?;
        }
        let Some(&to) = self.hosts.get(&message.to()) else { return Ok(()) };
        self.service.said(slot, to, &message);
        let fate = self.network.fate(self.now, slot, to, &self.schedule.settings);
        self.note_forward(slot, to, &fate, &message);
        let Some(delay) = fate.arrives else {
            self.mark("message lost");
            self.tell(slot, to, Fate::Lost, &message);
            return Ok(());
        };
        let arrives = self.now + delay;
        let (message, told) = if fate.corrupt {
            let Some(altered) = self.corrupted(&message) else {
                self.tell(slot, to, Fate::Unreadable, &message);
                return Ok(());
            };
            (altered, Fate::Altered(arrives))
        } else {
            (message, Fate::Arrives(arrives))
        };
        self.tell(slot, to, told, &message);
        if let Some(delay) = fate.again {
            self.mark("message duplicated");
            self.tell(slot, to, Fate::Duplicate(self.now + delay), &message);
            self.plan_arrival(slot, to, delay, message.clone());
        }
        self.plan_arrival(slot, to, delay, message);
        Ok(())
    }

    fn plan_arrival(&mut self, from: usize, slot: usize, delay: u64, message: PeerMessage) {
        let message = Box::new(message);
        self.queue.plan(self.now + delay, Happening::Arrival { from, slot, message });
    }

    fn tell(&mut self, from: usize, to: usize, fate: Fate, message: &PeerMessage) {
        if let Some(story) = self.trace.story() {
            story.message(self.now, from, to, fate, message);
        }
    }

    /// A message some of whose bits flipped on the way, as the receiver decodes it: almost always
    /// as nothing.
    fn corrupted(&mut self, message: &PeerMessage) -> Option<PeerMessage> {
        self.mark("message corrupted");
        let mut frame = Vec::new();
        encode_frame(&mut frame, |payload| message.encode(payload));
        let bits = self.disk_rng.random_range(1..4);
        for _ in 0..bits {
            let position = self.disk_rng.random_range(0..frame.len());
            frame[position] ^= 1 << self.disk_rng.random_range(0..8);
        }
        let mut input = bytes::BytesMut::from(&frame[..]);
        let payload: Bytes = decode_frame(&mut input, 64 << 20).ok()??;
        PeerMessage::decode(payload).ok()
    }

    /// What is to be written as a snapshot is what was committed.
    fn check_saves(&mut self, slot: usize, requests: &[StorageRequest]) -> Result<(), Violation> {
        self.check_need(slot, requests)?;
        let Some(identity) = self.machines[slot].identity else { return Ok(()) };
        for request in requests {
            if let StorageRequest::SaveSnapshot(save) = request {
                let (last, membership) = (save.last, (save.membership_id, &save.membership));
                self.checks.snapshot(identity.id, last, membership, &save.store)?;
            }
        }
        Ok(())
    }

    /// And so is what came from a leader.
    fn check_installed(&self, slot: usize, event: &StorageEvent) -> Result<(), Violation> {
        let StorageEvent::Durable { installed: Some(installed), .. } = event else { return Ok(()) };
        let Some(identity) = self.machines[slot].identity else { return Ok(()) };
        let (meta, store) = &**installed;
        self.checks.snapshot(identity.id, meta.last, (meta.membership_id, &meta.membership), store)
    }

    fn ask_storage(&mut self, slot: usize, requests: Vec<StorageRequest>) {
        for request in requests {
            match request {
                StorageRequest::Write(_) => {
                    if let Some(process) = &mut self.machines[slot].process {
                        process.queue.push(request);
                    }
                }
                StorageRequest::Committed(index) => {
                    self.machines[slot].durable.note_commit(index);
                    if let Some(process) = &mut self.machines[slot].process {
                        process.queue.push(request);
                    }
                    self.plan_idle(slot, IDLE_MICROS);
                }
                StorageRequest::SaveSnapshot(_) | StorageRequest::ReadChunk(_) => {
                    let (at, life) = (self.now + self.disk_delay(slot), self.machines[slot].life);
                    if let Some(story) = self.trace.story() {
                        let kind = match &request {
                            StorageRequest::ReadChunk(_) => "read snapshot chunk",
                            _ => "save snapshot",
                        };
                        story.disk(slot, self.now, at, kind, story::beside_text(&request));
                    }
                    self.queue.plan(at, Happening::BesideDone { slot, life, request: Box::new(request) });
                }
            }
        }
        self.begin_batch(slot);
    }

    fn disk_delay(&mut self, slot: usize) -> u64 {
        let settings = &self.schedule.settings;
        let usual = self.disk_rng.random_range(settings.sync_min_micros..=settings.sync_max_micros);
        let (by, until) = self.machines[slot].slow_disk;
        usual + if until > self.now { by } else { 0 }
    }

    /// What waits becomes one batch, if none is under way. It reaches the disk when its time has
    /// passed: until then the machine goes on, and may be switched off with any part of the batch
    /// written.
    fn begin_batch(&mut self, slot: usize) {
        let idle =
            self.machines[slot].process.as_ref().is_some_and(|process| !process.busy && process.has_writes());
        if !idle {
            return;
        }
        let (at, life) = (self.now + self.disk_delay(slot), self.machines[slot].life);
        let machine = &mut self.machines[slot];
        if let Some(process) = &mut machine.process {
            process.busy = true;
            process.busy_since = machine.clock.read(self.now);
            // Writes share a sync as it comes.
            let count = match self.schedule.settings.settle_max_micros {
                0 => process.queue.len(),
                _ => self.batch_rng.random_range(1..=process.queue.len()),
            };
            process.batch = process.queue.drain(..count).collect();
            if let Some(story) = self.trace.story() {
                story.batch(slot, self.now, at, &process.batch);
            }
        }
        self.queue.plan(at, Happening::BatchDone { slot, life });
    }

    pub(in crate::queue) fn batch_done(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        if machine.life != life {
            return Ok(());
        }
        let Some(process) = &mut machine.process else { return Ok(()) };
        process.busy = false;
        let mut sketches = process.sketches();
        match process.write_batch() {
            Ok(events) => {
                for event in &events {
                    self.check_installed(slot, event)?;
                }
                let machine = &mut self.machines[slot];
                let Some(process) = &mut machine.process else { return Ok(()) };
                for event in &events {
                    if let StorageEvent::Durable { refused: Some(refused), .. } = event {
                        if refused.why != SnapshotRefusal::Content {
                            self.service.snapshot_refused(slot);
                        }
                        sketches
                            .iter_mut()
                            .filter(|s| s.snapshot() == Some(refused.last))
                            .for_each(WriteSketch::without_snapshot);
                    }
                }
                for sketch in &sketches {
                    machine.durable.apply(sketch);
                }
                for event in events {
                    if let StorageEvent::DiskFull(full) = event {
                        process.disk_full = full;
                        *self.marks.entry("disk full noticed").or_default() += u64::from(full);
                    }
                    process.receipts.push_back(event);
                }
                let life = machine.life;
                match self.schedule.settings.settle_max_micros {
                    0 => self.receipts(slot, life)?,
                    most => {
                        let at = self.now + self.batch_rng.random_range(0..=most);
                        self.queue.plan(at, Happening::Receipts { slot, life });
                    }
                }
                self.begin_batch(slot);
                self.plan_idle(slot, IDLE_MICROS);
                Ok(())
            }
            Err(why) => {
                machine.under_way = sketches;
                self.process_failed(slot, &why)
            }
        }
    }

    /// A process is told what the storage has said: all of it, or some now and the rest a little
    /// later.
    pub(in crate::queue) fn receipts(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let most = self.schedule.settings.settle_max_micros;
        let machine = &mut self.machines[slot];
        if machine.life != life {
            return Ok(());
        }
        let (time, paused) = (machine.time(self.now), machine.paused_until > self.now);
        let Some(process) = &mut machine.process else { return Ok(()) };
        let count = match (most, process.receipts.len()) {
            (_, 0) => return Ok(()),
            (0, all) => all,
            (_, all) => self.batch_rng.random_range(1..=all),
        };
        for event in process.receipts.drain(..count) {
            if paused {
                machine.inbox.push(Event::Storage(event));
            } else {
                process.replica.step(time, Event::Storage(event));
            }
        }
        let raft = process.replica.raft();
        self.elections.stepped(raft.id(), raft.role(), raft.term(), time);
        if !process.receipts.is_empty() {
            let at = self.now + self.batch_rng.random_range(0..=most);
            self.queue.plan(at, Happening::Receipts { slot, life });
        }
        if paused { Ok(()) } else { self.settle_soon(slot) }
    }

    fn plan_idle(&mut self, slot: usize, after: u64) {
        let machine = &mut self.machines[slot];
        if let Some(process) =
            machine.process.as_mut().filter(|process| !process.busy && !process.idle_planned)
        {
            process.idle_planned = true;
            self.queue.plan(self.now + after, Happening::Idle { slot, life: machine.life });
        }
    }

    pub(in crate::queue) fn idle(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        if machine.life != life {
            return Ok(());
        }
        let Some(process) = &mut machine.process else { return Ok(()) };
        process.idle_planned = false;
        if process.busy {
            return Ok(());
        }
        // An event of the idle storage must not overtake earlier ones: one thread sends both.
        if !process.receipts.is_empty() {
            self.plan_idle(slot, self.schedule.settings.settle_max_micros.max(1));
            return Ok(());
        }
        match process.idle() {
            Ok(events) => {
                for event in events {
                    if let (StorageEvent::DiskFull(full), Some(process)) =
                        (&event, &mut self.machines[slot].process)
                    {
                        process.disk_full = *full;
                    }
                    self.give(slot, Event::Storage(event))?;
                }
                if self.machines[slot].process.as_ref().is_some_and(|process| process.disk_full) {
                    self.plan_idle(slot, SECOND);
                }
                Ok(())
            }
            Err(why) => self.process_failed(slot, &why),
        }
    }

    pub(in crate::queue) fn beside_done(
        &mut self,
        slot: usize,
        life: u32,
        request: StorageRequest,
    ) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        let (true, Some(process)) = (machine.life == life, &mut machine.process) else { return Ok(()) };
        let armed = machine.disk.armed();
        let event = match request {
            StorageRequest::SaveSnapshot(save) => {
                let last = save.last;
                match process.snapshots.save(*save) {
                    Ok(meta) => {
                        process.saved = (!armed).then_some(meta.last);
                        StorageEvent::SnapshotSaved(Box::new(meta))
                    }
                    Err(error) => {
                        process.saves_failed += 1;
                        self.mark("snapshot failed");
                        StorageEvent::SnapshotFailed { last, reason: error.to_string() }
                    }
                }
            }
            StorageRequest::ReadChunk(read) => {
                let answer = process.snapshots.answer_read(&read);
                self.check_read(slot, read.snapshot, &answer)?;
                answer
            }
            StorageRequest::Write(_) | StorageRequest::Committed(_) => return Ok(()),
        };
        self.give(slot, Event::Storage(event))
    }

    /// The storage latched shut: the process ends, and its supervisor starts it again.
    fn process_failed(&mut self, slot: usize, why: &str) -> Result<(), Violation> {
        self.trace.line(self.now, Some(slot), "failed", why);
        if let Some(story) = self.trace.story() {
            story.note(self.now, Some(slot), "disk error", why);
        }
        if !self.machines[slot].disk.troubled() {
            return Err(Violation {
                check: "a sound disk is enough",
                what: format!("machine {slot}: {why}"),
            });
        }
        self.mark("process ended by disk error");
        self.end_process(slot);
        self.queue.plan(self.now + SUPERVISOR_MICROS, Happening::Start(slot));
        Ok(())
    }

    /// A process ends: its clients learn that the connection broke.
    pub(in crate::queue) fn end_process(&mut self, slot: usize) {
        let sketches = match &self.machines[slot].process {
            Some(process) if process.busy => process.sketches(),
            _ => Vec::new(),
        };
        if !sketches.is_empty() {
            self.machines[slot].under_way = sketches;
        }
        if self.machines[slot].disk.settle_lost_write() {
            self.mark("acknowledged write lost");
        }
        let Some(process) = self.machines[slot].stop() else { return };
        self.service.struck(slot, self.now);
        self.survey();
        self.checks.quorums.ended(process.replica.raft().id());
        if let Some(story) = self.trace.story() {
            story.status(self.now, slot, None);
        }
        for (request, asker) in process.askers {
            self.service.forget(request);
            if let Asker::Client(client) = asker
                && self.clients.give_up(client, request)
            {
                self.plan_client(client);
            }
        }
    }
}
