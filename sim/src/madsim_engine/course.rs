//! A run: the cluster is formed, the schedule carried out, calm awaited, and everything judged.

use crate::checks::clients::check_clients;
use crate::madsim_engine::alarms::read_alarms;
use crate::madsim_engine::archivist::keep_backups;
use crate::madsim_engine::client::run_client;
use crate::madsim_engine::http::{Http, Request};
use crate::madsim_engine::inspect::inspect;
use crate::madsim_engine::keyspace::{run_contestant, run_keyspace_client};
use crate::madsim_engine::pipes::PUMP_MICROS;
use crate::madsim_engine::probe::Prober;
use crate::madsim_engine::rights;
use crate::madsim_engine::run::Run;
use crate::madsim_engine::time::{micros, now, sleep_until};
use crate::madsim_engine::upkeep::upkeep;
use crate::madsim_engine::world::Shared;
use crate::record::outcome::Outcome;
use crate::record::violation::Violation;
use crate::schedule::{Fault, MILLI, RECOVERY_MICROS, SECOND, Schedule, Timed};
use infinitystore::kv::{Op, Settings};
use infinitystore::replica::{ClientError, ClientReply, ClientRequest};
use madsim::runtime::{Handle, Runtime};
use madsim::time::TimeHandle;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

/// A run is shorter here: each second costs more.
const DURATION_MICROS: u64 = 20 * SECOND;
/// The cluster has to have formed by then …
const FORM_MICROS: u64 = 60 * SECOND;
/// … or, where a round trip may take as long as an election timeout and no leader lasts, by then.
const FORM_SLOWLY_MICROS: u64 = 300 * SECOND;
/// For so long it is asked to keep a short history.
const HISTORY_MICROS: u64 = 5 * SECOND;
/// Clients with keys of their own.
const PROBERS: u64 = 2;
/// Clients that stand for locks, where there are clients of the keyspace.
const CONTESTANTS: usize = 3;
/// How often the operator looks.
const OPERATOR_MICROS: u64 = 100 * MILLI;

/// Runs the first 20 seconds of a schedule to their end, or to the first violation; an assertion of
/// the product that fails is one too. On a thread of its own, since madsim wants a fresh one for
/// each run.
#[must_use]
pub fn run(schedule: Schedule, verbose: bool) -> Outcome {
    on_a_thread(shortened(schedule), verbose)
}

/// What the engine carries out of a schedule.
fn shortened(mut schedule: Schedule) -> Schedule {
    schedule.duration_micros = schedule.duration_micros.min(DURATION_MICROS);
    let end = schedule.duration_micros;
    schedule.faults.retain(|fault| fault.at < end);
    schedule.clients.iter_mut().for_each(|plan| plan.retain(|operation| operation.at < end));
    schedule.keyspace.iter_mut().for_each(|plan| plan.retain(|operation| operation.at < end));
    schedule
}

fn on_a_thread(schedule: Schedule, verbose: bool) -> Outcome {
    let thread = std::thread::Builder::new().name("madsim".to_owned());
    let joined = thread.spawn(move || simulate(schedule, verbose)).expect("a thread can be started").join();
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn simulate(schedule: Schedule, verbose: bool) -> Outcome {
    let runtime = Runtime::with_seed_and_config(schedule.seed, madsim::Config::default());
    let shared = Shared::new(schedule, verbose);
    let clock = OnceCell::new();
    // madsim hands a panic of any task on to the caller that runs them all.
    let panicked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(&shared, &clock)))).err();
    if let Some(panic) = panicked {
        shared.lock().judge(Err(Violation::of_panic(&*panic)));
    }
    let at = clock.get().map_or(0, micros);
    let mut world = shared.take();
    // Whatever tasks are left go before what they share: without a world they look for nothing,
    // least of all for the time.
    drop(runtime);
    let operations = world.clients.counts();
    let trace_hash = world.trace.hash();
    let seen = world.keyspace.compare(&world.checks.ledger);
    let mut violation = world.violation.or(seen.err());
    if violation.is_none() || world.trace.is_verbose() {
        let seen = check_clients(world.clients, world.checks.committed_entries(), world.trace.timeline());
        violation = violation.or(seen);
    }
    let mut figures = world.figures;
    for (name, amount) in world.scraped.values().flatten().filter_map(|(name, it)| Some((plain(name)?, *it)))
    {
        let amount = if name.contains("_seconds_sum") { 1_000.0 * amount } else { amount };
        figures.add(&name, format!("{amount:.0}").parse().unwrap_or(0));
    }
    for machine in &world.machines {
        let usage = machine.disk.usage();
        figures.add("syncs of disks", machine.disk.syncs());
        figures.add("last bytes on disks", usage.bytes);
        figures.add("last files on disks", usage.files);
    }
    Outcome { violation, at, trace_hash, trace: world.trace, operations, marks: world.marks, figures }
}

/// The name of a metric without what names a member; `None` for a bucket of a distribution.
fn plain(name: &str) -> Option<String> {
    let (family, labels) = name.split_once('{').unwrap_or((name, ""));
    let labels = labels.trim_end_matches('}').split(',');
    let labels: Vec<&str> = labels.filter(|label| !label.starts_with("peer=")).collect();
    (!family.ends_with("_bucket")).then(|| format!("{family} {}", labels.join(",")).trim_end().to_owned())
}

/// The whole of a run; its clock is left behind.
async fn live(shared: &Shared, clock: &OnceCell<TimeHandle>) {
    clock.get_or_init(TimeHandle::current);
    let handle = Handle::current();
    let slots = shared.lock().machines.len();
    let nodes = (0..slots).map(|slot| handle.create_node().name(format!("m{slot}")).build().id()).collect();
    let run = Run {
        shared: shared.clone(),
        handle,
        nodes,
        operator: RefCell::default(),
        revert: RefCell::default(),
    };
    run.carry_out().await;
    (0..slots).for_each(|slot| run.switch_off(slot, false));
}

/// When the cluster has to have formed.
const fn form_micros(settings: &crate::schedule::Settings) -> u64 {
    let is_slow = 2 * settings.delay_max_micros >= settings.election_timeout_micros;
    if is_slow { FORM_SLOWLY_MICROS } else { FORM_MICROS }
}

impl Run {
    async fn carry_out(&self) {
        let pump = self.shared.clone();
        madsim::task::spawn(async move {
            loop {
                sleep_until(now() + PUMP_MICROS).await;
                pump.lock().pump();
            }
        });
        self.form().await;
        let users = self.shared.lock().schedule.users;
        if users {
            rights::enable(&self.shared).await;
        }
        let (began, faults, clients, keyspace) = {
            let mut world = self.shared.lock();
            world.began = now();
            (now(), world.schedule.faults.clone(), world.clients.len(), world.keyspace.len())
        };
        for client in 0..clients {
            madsim::task::spawn(run_client(self.shared.clone(), client));
        }
        for client in 0..keyspace {
            madsim::task::spawn(run_keyspace_client(self.shared.clone(), client));
        }
        for contestant in 0..if keyspace > 0 { CONTESTANTS } else { 0 } {
            madsim::task::spawn(run_contestant(self.shared.clone(), contestant));
        }
        if users {
            rights::begin(&self.shared);
        }
        madsim::task::spawn(keep_backups(self.shared.clone()));
        madsim::task::spawn(read_alarms(self.shared.clone()));
        madsim::task::spawn(inspect(self.shared.clone()));
        for number in 0..PROBERS {
            madsim::task::spawn(Prober::new(self.shared.clone(), number).run());
        }
        let end = began + self.shared.lock().schedule.duration_micros;
        self.live_through(began, end, faults).await;
        if self.shared.lock().violation.is_none() {
            self.calm().await;
        }
    }

    /// The first machines become a cluster, with nothing but `--join`.
    async fn form(&self) {
        let voters = self.shared.lock().schedule.voters;
        (0..voters).for_each(|slot| self.start(slot));
        let formed = |shared: &Shared| {
            let world = shared.lock();
            let membership = world.committed_membership(now());
            membership.is_some_and(|found| found.voters.len() == voters && found.outgoing.is_none())
        };
        let bound = form_micros(&self.shared.lock().schedule.settings);
        while !formed(&self.shared) {
            sleep_until(now() + 10 * MILLI).await;
            self.take_exits();
            if now() >= bound {
                let what = format!("{} s after the first start", bound / SECOND);
                self.shared.lock().judge(Err(Violation { check: "a cluster forms", what }));
            }
            if self.shared.lock().violation.is_some() {
                return;
            }
        }
        bound_history(&self.shared, now() + HISTORY_MICROS).await;
    }

    /// Faults strike when they are due; machines come back; the operator looks after the cluster.
    async fn live_through(&self, began: u64, end: u64, faults: Vec<Timed<Fault>>) {
        let mut faults = faults.into_iter().peekable();
        let mut operate_at = now();
        let mut upkeep = upkeep(&self.shared.lock().schedule).into_iter().peekable();
        while (now() < end || self.is_reverted()) && self.shared.lock().violation.is_none() {
            self.look_at_revert().await;
            // Nothing else goes wrong until an older copy is noticed: a node that has met the later
            // start has to live to tell.
            while let Some(fault) = faults.next_if(|fault| began + fault.at <= now() && !self.is_reverted()) {
                self.strike(fault.what);
            }
            while let Some(one) = upkeep.next_if(|one| began + one.at <= now() && !self.is_reverted()) {
                self.maintain(one.what);
            }
            self.tick();
            if now() >= operate_at {
                operate_at = now() + OPERATOR_MICROS;
                self.operate();
            }
            // One that is held back is looked at with the rest, not every microsecond: each look
            // asks the leader for its status.
            let next = faults.peek().filter(|_| !self.is_reverted());
            let next = next.map_or(u64::MAX, |fault| began + fault.at);
            sleep_until(next.min(now() + 10 * MILLI).max(now() + 1)).await;
        }
    }

    /// What is due at any machine.
    pub(super) fn tick(&self) {
        self.take_exits();
        self.shared.lock().look_who_stands();
        for slot in 0..self.nodes.len() {
            let (fails, starts, resumes) = {
                let mut world = self.shared.lock();
                let machine = &mut world.machines[slot];
                if machine.room_at.is_some_and(|at| at <= now()) {
                    machine.room_at = None;
                    machine.disk.faults(|faults| faults.full = false);
                }
                let resumes = machine.on && machine.paused_until > 0 && machine.paused_until <= now();
                if resumes {
                    machine.paused_until = 0;
                }
                let fails = machine.power_fails_at.is_some_and(|at| at <= now());
                (fails, machine.start_at.is_some_and(|at| at <= now()) && !machine.on, resumes)
            };
            if resumes {
                self.handle.resume(self.nodes[slot]);
            }
            if fails {
                let before = self.shared.lock().machines[slot].under_way.len();
                if before > 0 {
                    self.shared.lock().mark("crash in a write");
                }
                self.switch_off(slot, true);
            }
            if starts {
                self.start(slot);
            }
        }
    }

    /// Faults are over: everything is repaired, and the cluster has to recover and serve.
    async fn calm(&self) {
        let slots = self.nodes.len();
        {
            let mut world = self.shared.lock();
            let world = &mut *world;
            world.calm = true;
            world.network.calm();
            for machine in &mut world.machines {
                machine.slow_disk = (0, 0);
                (machine.no_name_until, machine.no_handles_until) = (0, 0);
                machine.disk.faults(|faults| {
                    (faults.full, faults.fail_sync, faults.fail_write) = (false, false, false);
                });
                machine.paused_until = machine.paused_until.min(now());
                if !machine.on && machine.store.is_some() {
                    machine.start_at = Some(now());
                }
            }
            world.trace.line(now(), None, "calm", "faults end");
            if let Some(timeline) = world.trace.timeline() {
                timeline.note(now(), None, "calm", "faults end; the cluster has to recover");
            }
        }
        if self.shared.lock().token.is_some() {
            let shared = self.shared.clone();
            madsim::task::spawn(async move { rights::disable(&shared).await });
        }
        // Clients of the keyspace may have left small limits behind.
        let shared = self.shared.clone();
        if shared.lock().keyspace.len() > 0 {
            madsim::task::spawn(async move {
                let give_up = now() + RECOVERY_MICROS;
                bound_history(&shared, give_up).await;
                // A command of theirs that is still on its way may come after that, once more.
                while now() < give_up && shared.lock().violation.is_none() {
                    sleep_until(now() + SECOND).await;
                    let is_small = shared.lock().is_quota_small();
                    if is_small {
                        bound_history(&shared, give_up).await;
                    }
                }
            });
        }
        let mut give_up = now() + RECOVERY_MICROS;
        let revert_by = now() + RECOVERY_MICROS / 2;
        let probed: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
        let mut probe_at = now();
        loop {
            self.tick();
            self.operate();
            if self.shared.lock().violation.is_some() {
                return;
            }
            let answered = probed.lock().expect("one thread").clone();
            let why = self.not_recovered(&answered);
            let waits = self.is_reverted() || why.is_none() && self.reverts_still(revert_by);
            if waits {
                // The recovery begins anew when the older copy has been noticed.
                self.look_at_revert().await;
                give_up = now() + RECOVERY_MICROS;
                sleep_until(now() + 20 * MILLI).await;
                continue;
            }
            let Some(why) = why else { break };
            // A member that comes back may need all of a snapshot, however small the chunks are.
            let snapshot_micros = self.shared.lock().snapshot_micros();
            if now() >= give_up + snapshot_micros {
                let waits = (RECOVERY_MICROS + snapshot_micros) / SECOND;
                let what = format!("{waits} s after the last fault: {why}");
                return self.shared.lock().judge(Err(Violation { check: "liveness", what }));
            }
            if now() >= probe_at {
                probe_at = now() + SECOND;
                (0..slots).filter(|slot| !answered.contains(slot)).for_each(|slot| self.probe(slot, &probed));
            }
            sleep_until(now() + 20 * MILLI).await;
        }
        // All have applied that the cluster is open.
        self.shared.lock().token = None;
        // What a stalled disk had begun before the calm is over, too.
        let busy_until = self.shared.lock().machines.iter().map(|machine| machine.disk_busy_until).max();
        sleep_until(busy_until.unwrap_or(0)).await;
        self.shared.lock().look_who_stands_now();
        self.shared.lock().look_at_scrubbing();
        self.examine().await;
        self.shared.lock().judge_service();
    }

    /// Asks a machine to write something, and to read.
    fn probe(&self, slot: usize, probed: &Arc<Mutex<BTreeSet<usize>>>) {
        let (shared, probed) = (self.shared.clone(), probed.clone());
        madsim::task::spawn(async move {
            let give_up = now() + 2 * shared.lock().schedule.settings.client_timeout_micros + SECOND;
            let Some(mut connection) = Http::open(&shared, slot, give_up).await else { return };
            let set = Request::post("/set", "{\"key\":\"probe\",\"value\":\"alive\",\"action\":\"set\"}");
            let get = Request::get("/get?key=probe");
            if connection.ask(&set, give_up).await.is_ok_and(|answer| answer.code == 200)
                && connection.ask(&get, give_up).await.is_ok_and(|answer| answer.code == 200)
            {
                probed.lock().expect("one thread").insert(slot);
            }
        });
    }

    pub(super) fn not_recovered(&self, answered: &BTreeSet<usize>) -> Option<String> {
        if let Some(slot) = self.operator.borrow().keys().next() {
            return Some(format!("machine {slot} is not a voter again"));
        }
        let world = self.shared.lock();
        let Some(leader) = world.leader(now()) else { return Some("nobody leads".to_owned()) };
        let Some(membership) = &leader.view.membership else { return Some("nothing is known".to_owned()) };
        if membership.is_joint() || !membership.learners.is_empty() {
            return Some(format!("a change of membership hangs: {membership:?}"));
        }
        if !leader.view.membership_committed || !leader.view.committed_in_term {
            return Some(format!("it is not committed yet: {membership:?}"));
        }
        for id in membership.members.keys() {
            let Some(machine) = world.machines.iter().find(|machine| machine.member == Some(*id)) else {
                return Some(format!("member {id} is nowhere"));
            };
            let slot = machine.slot;
            if !machine.on {
                return Some(format!("machine {slot} is off"));
            }
            if machine.view.last_applied != leader.view.last_applied {
                let (here, there) = (machine.view.last_applied, leader.view.last_applied);
                return Some(format!("machine {slot} has applied {here}, the leader {there}"));
            }
            if !answered.contains(&slot) {
                return Some(format!("machine {slot} has not answered a probe"));
            }
        }
        if world.checks.ledger.model().rules(usize::MAX).enabled {
            return Some("authentication is enabled".to_owned());
        }
        if world.is_quota_small() {
            return Some("the quota is small".to_owned());
        }
        // Nobody renews them any more.
        world.lease_left().map(|lease| format!("lease {lease} has not ended"))
    }
}

/// The cluster keeps a short history: a snapshot holds all of it, and has to arrive in chunks
/// that may be small. A cluster that cannot take a write of this size keeps what it has.
async fn bound_history(shared: &Shared, give_up: u64) {
    for tries in 0.. {
        if now() >= give_up {
            return;
        }
        let (node, history_bytes) = {
            let mut world = shared.lock();
            if world.violation.is_some() {
                return;
            }
            let members = world.machines.iter().enumerate().filter(|(_, machine)| machine.member.is_some());
            let mut running: Vec<_> = members
                .filter_map(|(slot, machine)| Some(((slot, machine.life), machine.handle.clone()?)))
                .collect();
            // Not always the same one, which may not serve.
            let count = running.len();
            let found = (count > 0).then(|| running.swap_remove(tries % count));
            if let Some((process, _)) = &found {
                world.book.asked_beside(*process);
            }
            (found, world.schedule.settings.history_bytes())
        };
        if let Some((process, node)) = node {
            let asked = now();
            let configure = Op::Configure(Settings { history_bytes, ..Settings::default() });
            let reply = node.request(ClientRequest::write(configure)).await;
            shared.lock().book.answered_beside(process, now() - asked + 1);
            if matches!(reply, ClientReply::Written(_) | ClientReply::Failed(ClientError::Denied(_))) {
                return;
            }
        }
        sleep_until(now() + 10 * MILLI).await;
    }
}
