//! What a node runs on in the madsim engine.

use crate::checks::durable::{DurableModel, WriteSketch};
use crate::checks::observed::{Observed, mark_recovery};
use crate::checks::safety::is_silent;
use crate::hardware::disk::SimDisk;
use crate::madsim_engine::connections::SimStream;
use crate::madsim_engine::listening::{SimListener, connect, listen};
use crate::madsim_engine::store_figures::StoreFigures;
use crate::madsim_engine::time::{now, sleep_until};
use crate::madsim_engine::witness::witnessed;
use crate::madsim_engine::world::{Done, NodeHost, STEPS_MAX, Shared, View, leads};
use crate::record::timeline::Status;
use crate::record::violation::Violation;
use crate::schedule::SECOND;
use infinitystore::raft::{LogId, LogIndex, NodeId, RoleName, Time};
use infinitystore::replica::{Actions, Notice, PeerMessage, Replica, StorageEvent, StorageRequest};
use infinitystore::runtime::work::{WorkQueue, Worker};
use infinitystore::runtime::{Env, run_as_task};
use infinitystore::storage::Opened;
use rand::Rng;
use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::sync::Arc;

/// A start takes so many hundredths of a sync until the data directory is read.
const OPENING_PERCENT: u64 = 500;
/// Beyond this a deadline never comes in a run, microseconds.
const NEVER: u64 = 10_000 * SECOND;

/// One process on one machine.
#[derive(Clone, Debug)]
pub(super) struct SimEnv {
    pub shared: Shared,
    pub slot: usize,
    pub life: u32,
    pub disk: SimDisk,
}

impl Env for SimEnv {
    type Stream = SimStream;
    type Listener = SimListener;
    type Disk = SimDisk;
    const THREADS: bool = false;

    fn now(&self) -> Time {
        self.shared.lock().machines[self.slot].clock.read(now())
    }

    fn wall_micros(&self) -> u64 {
        self.now().get()
    }

    fn sleep_until(&self, deadline: Time) -> impl Future<Output = ()> + Send + 'static {
        let env = self.clone();
        async move {
            loop {
                let (at, jumped) = {
                    let world = env.shared.lock();
                    let machine: &NodeHost = &world.machines[env.slot];
                    let here = machine.clock.read(now());
                    if here >= deadline {
                        return;
                    }
                    let far = deadline.since(here) > NEVER;
                    ((!far).then(|| machine.clock.when(deadline, now())), machine.jumped.clone())
                };
                let passed = async {
                    match at {
                        Some(at) => sleep_until(at).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = passed => {}
                    () = jumped.notified() => {}
                }
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        madsim::task::spawn(witnessed(self.shared.clone(), (self.slot, self.life), task));
    }

    fn start_worker<W: Worker>(
        &self,
        name: &str,
        worker: W,
        queue: Arc<WorkQueue<W::Job>>,
    ) -> io::Result<()> {
        let (env, name) = (self.clone(), name.to_owned());
        let micros = move || {
            let mut world = env.shared.lock();
            if name == "past-reads" || name == "past-changes" {
                // It reads memory alone.
                return world.disk_rng.random_range(10..300);
            }
            let settings = &world.schedule.settings;
            let range = settings.sync_min_micros..=settings.sync_max_micros;
            let (by, until) = world.machines[env.slot].slow_disk;
            let by = if until > now() { by } else { 0 };
            // Nothing says which of the two is the faster.
            let percent = match &*name {
                "log" => 100,
                // It reads all that there is.
                "opening" => OPENING_PERCENT,
                _ => world.limits.snapshot_worker_percent,
            };
            let percent = if world.calm { percent.min(100) } else { percent };
            let micros = world.disk_rng.random_range(range) * percent / 100 + by;
            let machine = &mut world.machines[env.slot];
            // Its clock may be slower than ours.
            machine.disk_busy_until = machine.disk_busy_until.max(now() + micros + micros / 10);
            world.tap_worker(env.slot, &name, micros);
            micros
        };
        self.spawn(run_as_task(self.clone(), worker, queue, micros));
        Ok(())
    }

    async fn connect(&self, addr: &str) -> io::Result<SimStream> {
        connect(&self.shared, Some((self.slot, self.life)), addr).await
    }

    async fn listen(&self, addr: &str) -> io::Result<SimListener> {
        listen(&self.shared, self.slot, self.life, addr)
    }

    async fn host_name(&self) -> String {
        format!("m{}", self.slot)
    }

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn seed(&self) -> u64 {
        self.shared.lock().core_rng.random()
    }

    fn watch_opened(&self, opened: &Opened) {
        let mut world = self.shared.lock();
        let world = &mut *world;
        let identity = &opened.identity;
        if self.slot == 0 && world.cluster.is_none() {
            world.cluster = Some(identity.cluster);
        }
        let machine = &mut world.machines[self.slot];
        // What was said of the disk was said of the log that it has left.
        (machine.done.is_full, machine.done.full_turns) = (false, machine.done.full_turns + 1);
        let under_way: Vec<WriteSketch> = machine.under_way.drain(..).map(|(_, sketch)| sketch).collect();
        if machine.store == Some(identity.store) {
            let is_mended = machine.generation != identity.generation;
            let checked = if is_mended {
                *world.marks.entry("data directory mended").or_default() += 1;
                machine.done.repaired += 1;
                machine.durable.check_repair(&under_way, &opened.restored)
            } else {
                machine.durable.check_recovery(&under_way, &opened.restored)
            };
            match checked {
                Ok(durable) => machine.durable = durable,
                Err(what) => {
                    let what = format!("machine {}: {what}", self.slot);
                    let violation = Violation { check: "acknowledged is recovered", what };
                    world.violation.get_or_insert(violation);
                }
            }
        } else {
            let lost = std::mem::replace(&mut machine.durable, DurableModel::of(&opened.restored));
            if machine.rotten && machine.store.is_some() {
                // It set its damaged directory aside, to join anew. Its old place is lost.
                *world.marks.entry("damaged member joined anew").or_default() += 1;
                // Which mends it, too.
                machine.done.repaired += 1;
                world.lost_disks.extend(machine.member.map(|was| (was, lost)));
                world.given_up.push((self.slot, machine.member));
                machine.joins = true;
            }
            machine.store = Some(identity.store);
        }
        machine.generation = identity.generation;
        machine.opened();
        // The checks cannot count on a member that has lost what it acknowledged.
        let is_member = world.cluster == Some(identity.cluster) && !machine.is_reverted;
        machine.member = is_member.then_some(identity.member);
        // The replica starts from its snapshot: what lies before was applied in an earlier life.
        let snapshot = opened.restored.snapshot.as_ref();
        machine.shown = Observed::at_start(snapshot.map_or(LogIndex::ZERO, |meta| meta.last.index));
        machine.done.applied = Some((identity.member, machine.shown.applied));
        // What was said of another cluster's log and its disk is not true of this one.
        machine.done.is_slow = false;
        machine.done.snapshot = Some(snapshot.map_or(LogId::ZERO, |meta| meta.last));
        mark_recovery(&opened.notes, &mut world.marks);
        machine.view = View { life: self.life, ..View::default() };
        world.trace.line(now(), Some(self.slot), "opened", format_args!("{identity:?}"));
    }

    fn watch_stored(&self, event: &StorageEvent) {
        let mut world = self.shared.lock();
        let world = &mut *world;
        let machine = &mut world.machines[self.slot];
        match event {
            StorageEvent::Durable { receipt, refused, .. } => {
                let through = receipt.sequence().get();
                while machine.under_way.front().is_some_and(|(sequence, _)| *sequence <= through) {
                    let Some((_, mut sketch)) = machine.under_way.pop_front() else { break };
                    let refused = refused.as_ref().map(|refused| refused.last);
                    if sketch.snapshot().is_some() && sketch.snapshot() == refused {
                        sketch.without_snapshot();
                    }
                    machine.durable.apply(&sketch);
                }
            }
            StorageEvent::DiskFull(is_full) => {
                (machine.done.is_full, machine.done.full_turns) = (*is_full, machine.done.full_turns + 1);
                if !is_full {
                    return;
                }
                *world.marks.entry("disk full noticed").or_default() += 1;
                // No segment can be prepared on a disk without power either. A real machine would
                // be gone by now; here it still answers for some milliseconds, and so do those who
                // asked it.
                if machine.power_fails_at.is_some() {
                    world.full_at = Some(now());
                }
            }
            StorageEvent::SegmentNotReady { .. } => machine.done.segments_failed += 1,
            StorageEvent::SnapshotFailed { .. } => *world.marks.entry("snapshot failed").or_default() += 1,
            _ => {}
        }
    }

    fn watch_stepped(&self, replica: &Replica, actions: &Actions) {
        let now = now();
        let mut world = self.shared.lock();
        let world = &mut *world;
        let hosts: BTreeMap<NodeId, usize> = match world.trace.timeline() {
            Some(_) => {
                let members = world.machines.iter().enumerate();
                members.filter_map(|(slot, machine)| Some((machine.member?, slot))).collect()
            }
            None => BTreeMap::new(),
        };
        let machine = &mut world.machines[self.slot];
        if machine.count_step(now) {
            let what = format!("machine {}: more than {STEPS_MAX} in a second", self.slot);
            world.judge(Err(Violation { check: "no storm of steps", what }));
            // Nothing else ends a run in which no time goes by.
            panic!("the node does not come to rest");
        }
        world.figures.stepped(actions);
        for request in &actions.storage {
            match request {
                StorageRequest::Write(write) => {
                    machine.done.writes += 1;
                    let bytes =
                        write.records().entries.iter().map(|entry| entry.encoded().len() as u64).sum();
                    machine.written.write(bytes);
                    machine.under_way.push_back((write.sequence().get(), WriteSketch::of(write.records())));
                }
                StorageRequest::Committed(index) => {
                    machine.written.write(0);
                    machine.durable.note_commit(*index);
                }
                StorageRequest::SaveSnapshot(_) | StorageRequest::ReadChunk(_) => {}
            }
        }
        let raft = replica.raft();
        machine.done.messages += actions.messages.len() as u64;
        if actions.messages.iter().any(|message| matches!(message, PeerMessage::Raft(_))) {
            machine.spoke_at = now;
        }
        let applied = (raft.id(), replica.last_applied().index);
        if machine.done.applied.replace(applied).is_some_and(|(id, at)| id == applied.0 && at != applied.1) {
            machine.done.applies += 1;
        }
        world.trace.step([now, self.slot as u64, raft.term().get(), raft.commit_index().get()]);
        for notice in &actions.notices {
            world.trace.line(now, Some(self.slot), "notice", format_args!("{notice:?}"));
            machine.done.count(notice);
            if matches!(notice, Notice::SnapshotTaken(_) | Notice::SnapshotInstalled(_)) {
                machine.written.snapshot();
            }
        }
        if let Some(timeline) = world.trace.timeline() {
            timeline.status(now, self.slot, Some(Status::of(replica)));
            timeline.notices(now, self.slot, &actions.notices);
            world.wire_tap.asked(self.slot, &actions.storage);
        }
        let was_withdrawn = std::mem::replace(&mut machine.is_withdrawn, raft.withdrawn().is_some());
        if let Err(violation) = is_silent(self.slot, was_withdrawn, &actions.messages) {
            world.judge(Err(violation));
            return;
        }
        // A node that has not joined is a cluster of its own, which no client asks.
        if machine.member != Some(raft.id()) {
            return;
        }
        machine.look(replica, actions);
        let store = replica.store();
        let (revision, time) = (store.revision().0, machine.clock.read(now));
        machine.shown.answers.note(time, store);
        world.stores.insert(replica.last_applied().index, StoreFigures::of(store));
        if machine.revisions.last().is_none_or(|(_, last)| *last < revision) {
            machine.revisions.push((now, revision));
        }
        let mut result =
            world.checks.stepped(self.slot, replica, &actions.notices, &mut machine.shown, &mut world.marks);
        world.freshness.committed(now, world.checks.committed_through());
        for message in &actions.messages {
            world.trace.line(now, Some(self.slot), "send", format_args!("{message:?}"));
            if let (Some(timeline), Some(to)) = (world.trace.timeline(), hosts.get(&message.to())) {
                world.wire_tap.sent(timeline, now, (self.slot, *to), message);
            }
            if let PeerMessage::Raft(message) = message {
                result = result.and_then(|()| world.checks.sent(message, &machine.durable));
            }
        }
        let (machines, lost) = (&world.machines, &world.lost_disks);
        let disk_of = |id| machines.iter().find(|machine| machine.member == Some(id));
        let durable = |id| disk_of(id).map_or_else(|| lost.get(&id), |machine| Some(&machine.durable));
        let result = result.and_then(|()| world.checks.replicated(replica, durable));
        let result = result.and_then(|()| world.look_at_leases(self.slot, replica));
        world.judge(result);
    }
}

impl Done {
    fn count(&mut self, notice: &Notice) {
        self.role_changes += u64::from(matches!(notice, Notice::RoleChanged { .. }));
        match notice {
            Notice::RoleChanged { role: RoleName::Candidate, .. } => self.elections += 1,
            Notice::SnapshotTaken(last) => {
                (self.taken, self.last_succeeded, self.snapshot) = (self.taken + 1, true, Some(*last));
            }
            Notice::SnapshotInstalled(last) => {
                (self.installed, self.snapshot) = (self.installed + 1, Some(*last));
            }
            Notice::BadMessage { .. } => self.senseless += 1,
            Notice::SnapshotRepeated { .. } => self.repeated += 1,
            Notice::LeaseCallsRefused { count, .. } => self.lease_calls_refused += count,
            Notice::DiskSlow { is_slow, .. } => {
                (self.is_slow, self.slow_turns) = (*is_slow, self.slow_turns + 1);
            }
            Notice::SnapshotFailed(_) | Notice::SnapshotNotTaken { .. } => {
                (self.failed, self.last_succeeded) = (self.failed + 1, false);
            }
            _ => {}
        }
    }
}

impl NodeHost {
    /// Remembers what the replica shows.
    fn look(&mut self, replica: &Replica, actions: &Actions) {
        let (raft, view) = (replica.raft(), &mut self.view);
        if view.membership.is_none() {
            let membership = replica.membership().clone();
            view.membership_committed = *raft.membership_at(raft.commit_index()).0 == membership;
            view.membership = Some(membership);
        }
        for notice in &actions.notices {
            if let Notice::MembershipChanged { membership, committed } = notice {
                view.membership = Some(membership.clone());
                view.membership_committed = *committed;
            }
        }
        let is = (raft.term(), Some(raft.role()), raft.leader_hint().leader);
        view.turns += u64::from(is != (view.term, view.role, view.leader));
        view.leads = leads(raft.role());
        view.level = replica.store().level();
        (view.term, view.role, view.leader) = is;
        view.committed_in_term = raft.term_at(raft.commit_index()) == Some(raft.term());
        view.last_applied = replica.last_applied();
        view.first_applied.get_or_insert(view.last_applied.index);
        view.knows_its_rules = replica.knows_its_rules();
        (view.commit, view.last_log) = (raft.commit_index(), raft.last_log());
        (view.configuration, view.has_started) = (raft.membership_id().0.index, !replica.is_starting());
        view.matched.clear();
        view.matched.extend(raft.progress().map(|peer| (peer.id, peer.match_index)));
    }
}
