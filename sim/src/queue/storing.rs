//! What machines ask of their disks, and what becomes of it.

use crate::queue::event::{IDLE_MICROS, SimEvent};
use crate::queue::simulation::Simulation;
use crate::record::violation::{Violation, check};
use crate::record::words::beside_text;
use crate::schedule::SECOND;
use infinitystore::raft::SnapshotRefusal;
use infinitystore::replica::{Event, StorageEvent, StorageRequest};
use rand::Rng;

/// A storage may look whether there is room once a second, and prepares a segment then.
const IDLE_LOOKS: u32 = 4;

impl Simulation {
    /// What is to be written as a snapshot is what was committed.
    pub(super) fn check_saves(&mut self, slot: usize, requests: &[StorageRequest]) -> Result<(), Violation> {
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

    pub(super) fn ask_storage(&mut self, slot: usize, requests: Vec<StorageRequest>) {
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
                    if let Some(timeline) = self.trace.timeline() {
                        let kind = match &request {
                            StorageRequest::ReadChunk(_) => "read snapshot chunk",
                            _ => "save snapshot",
                        };
                        timeline.disk(slot, self.now, at, kind, beside_text(&request));
                    }
                    self.queue.plan(at, SimEvent::BesideDone { slot, life, request: Box::new(request) });
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
            process.busy_since = machine.hardware.clock.read(self.now);
            // Writes share a sync as it comes.
            let count = match self.schedule.settings.settle_max_micros {
                0 => process.queue.len(),
                _ => self.batch_rng.random_range(1..=process.queue.len()),
            };
            process.batch = process.queue.drain(..count).collect();
            if let Some(timeline) = self.trace.timeline() {
                timeline.batch(slot, self.now, at, &process.batch);
            }
        }
        self.queue.plan(at, SimEvent::BatchDone { slot, life });
    }

    pub(super) fn batch_done(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        if machine.life != life {
            return Ok(());
        }
        let Some(process) = &mut machine.process else { return Ok(()) };
        process.busy = false;
        match process.write_batch() {
            Ok(events) => {
                for event in &events {
                    self.check_installed(slot, event)?;
                }
                let machine = &mut self.machines[slot];
                let Some(process) = &mut machine.process else { return Ok(()) };
                for event in &events {
                    if let StorageEvent::Durable { refused: Some(refused), .. } = event
                        && refused.why != SnapshotRefusal::Content
                    {
                        self.service.snapshot_refused(slot);
                    }
                }
                for sketch in process.answered(&events) {
                    machine.hardware.durable.apply(&sketch);
                }
                for event in events {
                    process.note_room(&event);
                    if let StorageEvent::DiskFull(full) = event {
                        *self.marks.entry("disk full noticed").or_default() += u64::from(full);
                    }
                    if let StorageEvent::LogFull(true) = event {
                        *self.marks.entry("log without room").or_default() += 1;
                    }
                    process.receipts.push_back(event);
                }
                let life = machine.life;
                match self.schedule.settings.settle_max_micros {
                    0 => self.receipts(slot, life)?,
                    most => {
                        let at = self.now + self.batch_rng.random_range(0..=most);
                        self.queue.plan(at, SimEvent::Receipts { slot, life });
                    }
                }
                self.begin_batch(slot);
                self.plan_idle(slot, IDLE_MICROS);
                Ok(())
            }
            Err(why) => {
                machine.under_way = process.sketches();
                self.process_failed(slot, &why)
            }
        }
    }

    /// A process is told what the storage has said: all of it, or some now and the rest a little
    /// later.
    pub(super) fn receipts(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
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
                machine.inbox.push_back(Event::Storage(event));
            } else {
                process.replica.step(time, Event::Storage(event));
            }
        }
        self.note_leader(slot, time);
        let Some(process) = &mut self.machines[slot].process else { return Ok(()) };
        let raft = process.replica.raft();
        self.elections.stepped(raft.id(), raft.membership(), (raft.role(), raft.term()), time);
        if !process.receipts.is_empty() {
            let at = self.now + self.batch_rng.random_range(0..=most);
            self.queue.plan(at, SimEvent::Receipts { slot, life });
        }
        if paused { Ok(()) } else { self.settle_soon(slot) }
    }

    fn plan_idle(&mut self, slot: usize, after: u64) {
        let machine = &mut self.machines[slot];
        if let Some(process) =
            machine.process.as_mut().filter(|process| !process.busy && !process.idle_planned)
        {
            process.idle_planned = true;
            self.queue.plan(self.now + after, SimEvent::Idle { slot, life: machine.life });
        }
    }

    pub(super) fn idle(&mut self, slot: usize, life: u32) -> Result<(), Violation> {
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
        let sound = !machine.hardware.disk.is_full() && !machine.hardware.disk.armed();
        process.idle_with_room = if sound { process.idle_with_room + 1 } else { 0 };
        match process.idle() {
            Ok(events) => {
                for event in &events {
                    self.check_installed(slot, event)?;
                }
                let machine = &mut self.machines[slot];
                let Some(process) = &mut machine.process else { return Ok(()) };
                for sketch in process.answered(&events) {
                    machine.hardware.durable.apply(&sketch);
                }
                for event in events {
                    if let Some(process) = &mut self.machines[slot].process {
                        process.note_room(&event);
                    }
                    self.give(slot, Event::Storage(event))?;
                }
                // A log may lack room without a segment that could not be made: for its identity.
                let waits = |it: &&crate::queue::machine::Process| it.disk_full || it.log_full;
                let Some(process) = self.machines[slot].process.as_ref().filter(waits) else {
                    return Ok(());
                };
                check!(
                    "a disk that has room again is not taken for full",
                    process.idle_with_room <= IDLE_LOOKS,
                    "machine {slot} had time to look at its disk {} times since there is room",
                    process.idle_with_room
                );
                self.plan_idle(slot, SECOND);
                Ok(())
            }
            Err(why) => self.process_failed(slot, &why),
        }
    }

    pub(super) fn beside_done(
        &mut self,
        slot: usize,
        life: u32,
        request: StorageRequest,
    ) -> Result<(), Violation> {
        let machine = &mut self.machines[slot];
        let (true, Some(process)) = (machine.life == life, &mut machine.process) else { return Ok(()) };
        let armed = machine.hardware.disk.armed();
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
}
