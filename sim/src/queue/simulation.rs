//! The queue engine: replicas over simulated disks, network and clocks, in one thread, one event
//! after the other.

use crate::checks::bounds::Bounds;
use crate::checks::clients::{Clients, check_clients};
use crate::checks::durable::DurableModel;
use crate::checks::elections::Elections;
use crate::checks::freshness::Freshness;
use crate::checks::keyspace::clients::KeyspaceClients;
use crate::checks::safety::Checks;
use crate::checks::service::Service;
use crate::hardware::network::Network;
use crate::machines::Machine;
use crate::queue::event::{EventQueue, OPERATOR_MICROS, SimEvent};
use crate::queue::machine::{Identity, ReplicaHost};
use crate::queue::waiting::{Ambush, Changes, Operator};
use crate::record::figures::Figures;
use crate::record::outcome::Outcome;
use crate::record::trace::Trace;
use crate::record::violation::Violation;
use crate::schedule::{CALM_MICROS, MILLI, RECOVERY_MICROS, SECOND, Schedule};
use crate::schedule::{Stream, stream};
use infinitystore::codec::FeatureLevel;
use infinitystore::raft::{
    Entry, EntryKind, HardState, LogId, LogIndex, Membership, NodeId, Promotion, Restored, StoreId, Term,
    Time,
};
use infinitystore::replica::{PeerMessage, RequestId};
use infinitystore::storage::Bootstrap;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Events in a simulated second, at most. If messages overtake each other, appends that are
/// pipelined one entry at a time are sent again and again until a member has caught up. That alone
/// has made 300,000.
const EVENTS_MAX: u32 = 3_000_000;

/// What is under way when all have recovered is through after this time.
const REST_MICROS: u64 = 20 * SECOND;
/// For so long of the calm the members are probed often.
const PROBED_OFTEN_MICROS: u64 = 20 * SECOND;

/// A simulation.
pub(super) struct Simulation {
    pub(super) schedule: Schedule,
    pub(super) now: u64,
    pub(super) queue: EventQueue,
    pub(super) machines: Vec<ReplicaHost>,
    pub(super) network: Network,
    pub(super) disk_rng: SmallRng,
    /// Which processes are told to stop, and not killed.
    pub(super) stop_rng: SmallRng,
    pub(super) core_rng: SmallRng,
    /// What is done together, and what waits.
    pub(super) batch_rng: SmallRng,
    pub(super) clients: Clients,
    pub(super) keyspace: KeyspaceClients,
    /// When the time of those that wait for a change is up, by the clock of their machine.
    pub(super) watch_deadlines: BTreeMap<RequestId, Time>,
    /// How many committed entries have been looked at for leases.
    pub(super) commits_seen: usize,
    pub(super) checks: Checks,
    pub(super) service: Service,
    pub(super) elections: Elections,
    pub(super) freshness: Freshness,
    /// What the disks held that were lost, by the member.
    pub(super) lost_disks: BTreeMap<NodeId, DurableModel>,
    pub(super) operator: Operator,
    /// What changes of membership owe.
    pub(super) changes: Changes,
    pub(super) trace: Trace,
    pub(super) marks: BTreeMap<&'static str, u64>,
    pub(super) figures: Figures,
    /// When each question that waits was asked.
    pub(super) asked_at: BTreeMap<RequestId, u64>,
    /// Which machine a member id is on.
    pub(super) hosts: BTreeMap<NodeId, usize>,
    /// Faults are over.
    pub(super) calm: bool,
    /// Machines on which a write was answered in the last phase.
    pub(super) wrote: BTreeSet<usize>,
    /// Machines on which a read was.
    pub(super) read: BTreeSet<usize>,
    /// When the probes were last sent.
    probed_at: u64,
    /// Since when all is well.
    pub(super) recovered_at: Option<u64>,
    /// The last messages that reached each machine, where copies may come late.
    pub(super) echoes: Vec<VecDeque<(usize, PeerMessage)>>,
    /// Which of them come again when a machine starts.
    pub(super) echo_rng: SmallRng,
    /// Faults that wait for a joint state.
    pub(super) ambushes: Vec<Ambush>,
    /// And faults that wait for a machine to install a snapshot.
    pub(super) install_ambushes: Vec<Ambush>,
    /// Until when the disk of a machine is full.
    pub(super) full_until: BTreeMap<usize, u64>,
    /// A leader without room, its term, and since when which machine could lead in its place.
    pub(super) without_room: Option<(usize, Term, usize, u64)>,
    /// How much the operator and the probes have asked.
    pub(super) questions: u64,
    /// The log that the first machines start from.
    first_log: Restored,
    /// Whether the run is over.
    pub(super) done: bool,
}

/// Runs a schedule to its end, or to the first violation.
#[must_use]
pub fn run(schedule: Schedule, verbose: bool) -> Outcome {
    let mut simulation = Simulation::new(schedule, verbose);
    let result = simulation.run_caught();
    simulation.into_outcome(result)
}

impl Simulation {
    fn new(schedule: Schedule, verbose: bool) -> Self {
        let seed = schedule.seed;
        let slots = schedule.slots();
        let machines = Machine::all(&schedule).into_iter().map(ReplicaHost::new).collect();
        Self {
            now: 0,
            queue: EventQueue::default(),
            machines,
            network: Network::new(slots, stream(seed, Stream::Network, 0)),
            disk_rng: stream(seed, Stream::Disk, 0),
            stop_rng: stream(seed, Stream::Disk, 2),
            without_room: None,
            full_until: BTreeMap::new(),
            core_rng: stream(seed, Stream::Cores, 0),
            batch_rng: stream(seed, Stream::Cores, 1),
            elections: Elections::default(),
            freshness: Freshness::default(),
            lost_disks: BTreeMap::new(),
            service: Service::new(&schedule.settings, slots),
            clients: Clients::new(&schedule),
            keyspace: KeyspaceClients::new(&schedule),
            watch_deadlines: BTreeMap::new(),
            commits_seen: 0,
            checks: Checks::for_run(schedule.settings.settle_max_micros, &schedule.settings),
            operator: Operator::default(),
            changes: Changes::default(),
            trace: Trace::new(verbose),
            marks: BTreeMap::new(),
            figures: Figures::default(),
            asked_at: BTreeMap::new(),
            hosts: BTreeMap::new(),
            calm: false,
            wrote: BTreeSet::new(),
            read: BTreeSet::new(),
            probed_at: 0,
            recovered_at: None,
            install_ambushes: Vec::new(),
            echoes: vec![VecDeque::new(); slots],
            echo_rng: stream(seed, Stream::Network, 1),
            ambushes: Vec::new(),
            questions: 0,
            first_log: Restored::default(),
            done: false,
            schedule,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        self.plan();
        let (mut second, mut happened) = (0, 0);
        while let Some((at, event)) = self.queue.pop() {
            self.now = at;
            happened += 1;
            if second != at / SECOND {
                (second, happened) = (at / SECOND, 0);
            }
            if happened > EVENTS_MAX {
                let what = format!("more than {EVENTS_MAX} events in second {second}");
                return Err(Violation { check: "no storm of messages", what });
            }
            self.happen(event)?;
            if self.done {
                break;
            }
        }
        Ok(())
    }

    /// Runs it, and makes a panic a violation: then it has a time, the report can show what led to
    /// it, and its schedule can be made small.
    fn run_caught(&mut self) -> Result<(), Violation> {
        catch_unwind(AssertUnwindSafe(|| self.run()))
            .unwrap_or_else(|panic| Err(Violation::of_panic(&*panic)))
    }

    fn into_outcome(mut self, result: Result<(), Violation>) -> Outcome {
        self.add_last_figures();
        let operations = self.clients.counts();
        let mut violation = result.err();
        // The timeline wants to know where each operation took effect, even if another check failed
        // first.
        if violation.is_none() || self.trace.is_verbose() {
            let seen = check_clients(self.clients, self.checks.committed_entries(), self.trace.timeline());
            violation = violation.or(seen);
        }
        let trace_hash = self.trace.hash();
        Outcome {
            violation,
            at: self.now,
            trace_hash,
            trace: self.trace,
            operations,
            marks: self.marks,
            figures: self.figures,
        }
    }

    /// What machines have come to by the end.
    fn add_last_figures(&mut self) {
        for machine in &self.machines {
            let disk = &machine.hardware.disk;
            self.figures.add("syncs of disks", disk.syncs());
            let usage = disk.usage();
            self.figures.add("last bytes on disks", usage.bytes);
            self.figures.add("last files on disks", usage.files);
            let Some(process) = &machine.process else { continue };
            let raft = process.replica.raft();
            self.figures.add("last term", raft.term().get());
            self.figures.add("last commit index", raft.commit_index().get());
            self.figures.add("last bytes of the log in memory", raft.log_bytes().0);
        }
    }

    /// Puts the schedule into the queue.
    fn plan(&mut self) {
        for slot in 0..self.schedule.voters {
            let store = self.fresh_store();
            let id = NodeId::new(slot as u64 + 1);
            self.machines[slot].identity = Some(Identity { id, store });
            self.hosts.insert(id, slot);
            self.queue.plan(0, SimEvent::Start(slot));
        }
        self.first_log = self.make_first_log();
        for (number, fault) in self.schedule.faults.iter().enumerate() {
            self.queue.plan(fault.at, SimEvent::Fault(number));
        }
        for client in 0..self.clients.len() {
            self.queue.plan(0, SimEvent::ClientNext(client));
        }
        for client in 0..self.keyspace.len() {
            self.queue.plan(0, SimEvent::KeyspaceNext(client));
        }
        self.queue.plan(OPERATOR_MICROS, SimEvent::Operator);
        self.queue.plan(MILLI, SimEvent::Watch);
        self.queue.plan(self.schedule.duration_micros, SimEvent::Calm);
    }

    fn happen(&mut self, event: SimEvent) -> Result<(), Violation> {
        match event {
            SimEvent::Arrival { from, slot, message } => self.arrive(from, slot, *message),
            SimEvent::Alarm { slot, life } => self.alarm(slot, life),
            SimEvent::BatchDone { slot, life } => self.batch_done(slot, life),
            SimEvent::Idle { slot, life } => self.idle(slot, life),
            SimEvent::BesideDone { slot, life, request } => self.beside_done(slot, life, *request),
            SimEvent::Fault(number) => self.strike(number),
            SimEvent::Ambush(fault) => self.strike_with(*fault),
            SimEvent::Flood { until, every } => self.flood(until, every),
            SimEvent::Start(slot) => self.start(slot),
            SimEvent::Resume { slot, life } => self.resume(slot, life),
            SimEvent::RoomAgain(slot) => {
                if self.full_until.get(&slot).is_none_or(|until| *until <= self.now) {
                    self.machines[slot].disk.faults(|faults| faults.full = false);
                }
                Ok(())
            }
            SimEvent::ClientNext(client) => self.client_next(client),
            SimEvent::ClientGivesUp { client, request } => self.no_answer(client, request),
            SimEvent::KeyspaceNext(client) => self.keyspace_next(client),
            SimEvent::KeyspaceGivesUp { client, request } => self.keyspace_no_answer(client, request),
            SimEvent::Settle { slot, life } => self.settle_now(slot, life),
            SimEvent::Receipts { slot, life } => self.receipts(slot, life),
            SimEvent::Watch => self.watch(),
            SimEvent::Operator => self.operate(),
            SimEvent::Calm => self.begin_calm(),
            SimEvent::Judge => self.judge(),
        }
    }

    /// Counts a fault or a rare path that was met.
    pub(super) fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// Names a question of the operator or of a probe; clients number theirs from the other end.
    pub(super) fn fresh_request(&mut self) -> RequestId {
        self.questions += 1;
        RequestId(u64::MAX - self.questions)
    }

    pub(super) fn fresh_store(&mut self) -> StoreId {
        StoreId(self.core_rng.random())
    }

    /// What a machine starts from if its disk is empty: the first voters know each other; a machine
    /// that joins knows nothing.
    pub(super) fn bootstrap(&self, slot: usize, identity: Identity) -> Bootstrap {
        let first = identity.id.get() <= self.schedule.voters as u64;
        let initial = if first { self.first_log.clone() } else { Restored::default() };
        Bootstrap {
            name: self.machines[slot].name(),
            cluster: super::machine::cluster_id(),
            member: identity.id,
            store: identity.store,
            initial,
        }
    }

    /// The first configuration: all first machines are voters.
    fn make_first_log(&self) -> Restored {
        let voters = self.schedule.voters;
        let members: BTreeMap<NodeId, _> = (0..voters)
            .filter_map(|slot| {
                let machine = &self.machines[slot];
                let store = machine.identity.map(|identity| identity.store)?;
                Some((NodeId::new(slot as u64 + 1), machine.member(store)))
            })
            .collect();
        let membership = Membership {
            voters: members.keys().copied().collect(),
            outgoing: None,
            learners: BTreeMap::new(),
            next_member_id: NodeId::new(voters as u64 + 1),
            members,
        };
        let id = LogId::new(Term::new(1), LogIndex::new(1));
        let entry = Entry::new(id, EntryKind::Membership, &membership.encode());
        let mut first = Restored {
            hard_state: HardState { term: Term::new(1), voted_for: None },
            snapshot: None,
            entries: vec![entry],
            commit: LogIndex::ZERO,
            promised_micros: 0,
        };
        // As a new node begins its log.
        let highest = self.schedule.first_levels().highest();
        if highest > FeatureLevel::OLDEST {
            first.raise_level(highest);
        }
        first
    }

    /// Faults are over: everything is repaired, and the cluster has to recover.
    fn begin_calm(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.network.calm();
        for slot in 0..self.machines.len() {
            self.machines[slot].slow_disk = (0, 0);
            self.machines[slot].disk.faults(|faults| {
                faults.full = false;
                faults.forget_single();
            });
            if self.machines[slot].process.is_none() && self.machines[slot].identity.is_some() {
                self.start(slot)?;
            }
            if self.machines[slot].paused_until > self.now {
                self.machines[slot].paused_until = self.now;
                let life = self.machines[slot].life;
                self.resume(slot, life)?;
            }
        }
        self.service.calm(self.now);
        self.survey();
        self.trace.line(self.now, None, "calm", "faults end");
        if let Some(timeline) = self.trace.timeline() {
            timeline.note(self.now, None, "calm", "faults end; the cluster has to recover");
        }
        self.queue.plan(self.now + 100 * MILLI, SimEvent::Judge);
        Ok(())
    }

    /// Liveness: some time after the last fault the members agree, and each of them serves.
    fn judge(&mut self) -> Result<(), Violation> {
        // A member that comes back may need all of a snapshot, however small the chunks are.
        let bytes = self.machines.iter().map(|machine| machine.disk.snapshot_bytes()).max().unwrap_or(0);
        let allowed = RECOVERY_MICROS + Bounds::of_snapshot(&self.schedule.settings, bytes);
        match self.not_recovered() {
            None => return self.rest(),
            Some(why) if self.now >= self.schedule.duration_micros + allowed => {
                let what = format!("{} s after the last fault: {why}", allowed / SECOND);
                return Err(Violation { check: "liveness", what });
            }
            Some(_) => {
                // Once a second: what the network of some runs carries is not much more. Later
                // seldom: a probe is a write, too. Where the log is cut after a few entries and
                // snapshots go in small chunks, probes alone would keep ahead of a member that
                // catches up.
                let is_late = self.now >= self.schedule.duration_micros + CALM_MICROS + PROBED_OFTEN_MICROS;
                let pause = if is_late { 10 * SECOND } else { SECOND };
                if self.now >= self.probed_at + pause {
                    self.probed_at = self.now;
                    self.probe()?;
                }
                self.queue.plan(self.now + 100 * MILLI, SimEvent::Judge);
            }
        }
        Ok(())
    }

    /// No client asks any more, and every member has everything: soon nothing is held.
    fn rest(&mut self) -> Result<(), Violation> {
        let Some(what) = self.held_at_rest() else {
            self.done = true;
            return Ok(());
        };
        let since = *self.recovered_at.get_or_insert(self.now);
        if self.now >= since + REST_MICROS {
            return Err(Violation { check: "at rest nothing is kept", what });
        }
        self.queue.plan(self.now + 20 * MILLI, SimEvent::Judge);
        Ok(())
    }

    fn not_recovered(&self) -> Option<String> {
        if self.clients.are_waiting()
            || self.keyspace.are_waiting()
            || self.now < self.schedule.duration_micros + CALM_MICROS
        {
            return Some("clients go on".to_owned());
        }
        if let Some(slot) = self.operator.busy_with() {
            return Some(format!("machine {slot} is not a voter again"));
        }
        if let Some(lease) = self.lease_left() {
            return Some(format!("lease {lease} has not ended"));
        }
        let Some(leader) = self.leader() else { return Some("nobody leads".to_owned()) };
        let replica = &self.machines[leader].process.as_ref()?.replica;
        let membership = replica.membership();
        let waits = |promotion: &Promotion| *promotion != Promotion::Never;
        if membership.is_joint() || membership.learners.values().any(waits) {
            return Some(format!("a change of membership hangs: {membership:?}"));
        }
        for id in membership.members.keys() {
            let Some(&slot) = self.hosts.get(id) else { return Some(format!("member {id} is nowhere")) };
            let Some(process) = &self.machines[slot].process else {
                return Some(format!("machine {slot} is off"));
            };
            if process.replica.last_applied() != replica.last_applied() {
                let (here, there) = (process.replica.last_applied(), replica.last_applied());
                return Some(format!("machine {slot} has applied {here}, the leader {there}"));
            }
            let status = process.replica.status(self.machines[slot].time(self.now));
            let unsaved = status.last_applied.since(status.snapshot.index);
            // One may be under way, and due again meanwhile; after one that failed, the next is due
            // as much later.
            let times = 4 + process.saves_failed;
            if unsaved > times * self.schedule.settings.snapshot_log_entries + 50 {
                return Some(format!("machine {slot} has applied {unsaved} entries since its last snapshot"));
            }
            for (probed, what) in [(&self.wrote, "write"), (&self.read, "read")] {
                if !probed.contains(&slot) {
                    return Some(format!("machine {slot} has not answered a {what}"));
                }
            }
        }
        None
    }

    /// The machine that leads, as far as one can tell from outside: the leader of the highest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let leaders =
            self.machines.iter().filter(|machine| machine.paused_until <= self.now).filter_map(|machine| {
                let raft = machine.process.as_ref()?.replica.raft();
                (raft.role() == infinitystore::raft::RoleName::Leader).then_some((raft.term(), machine.slot))
            });
        leaders.max().map(|(_, slot)| slot)
    }
}
