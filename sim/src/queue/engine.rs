//! The queue engine: replicas over simulated disks, network and clocks, in one thread, one event
//! after the other.

use crate::checks::{Checks, Violation};
use crate::clients::{Clients, check_clients};
use crate::clock::Clock;
use crate::durable::DurableModel;
use crate::elections::Elections;
use crate::network::Network;
use crate::outcome::Outcome;
use crate::queue::changes::Changes;
use crate::queue::faults::Ambush;
use crate::queue::happening::{Happening, OPERATOR_MICROS, Queue};
use crate::queue::machine::{Identity, Machine};
use crate::queue::operator::Operator;
use crate::schedule::{CALM_MICROS, MILLI, RECOVERY_MICROS, SECOND, Schedule};
use crate::service::Service;
use crate::streams::{Stream, stream};
use crate::trace::Trace;
use infinitystore::raft::{
    Entry, EntryKind, HardState, LogId, LogIndex, Membership, NodeId, Promotion, Restored, StoreId, Term,
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
const HAPPENINGS_MAX: u32 = 3_000_000;

/// What is under way when all have recovered is through after this time.
const REST_MICROS: u64 = 20 * SECOND;

/// A simulation.
pub(in crate::queue) struct Engine {
    pub(in crate::queue) schedule: Schedule,
    pub(in crate::queue) now: u64,
    pub(in crate::queue) queue: Queue,
    pub(in crate::queue) machines: Vec<Machine>,
    pub(in crate::queue) network: Network,
    pub(in crate::queue) disk_rng: SmallRng,
    pub(in crate::queue) core_rng: SmallRng,
    /// What is done together, and what waits.
    pub(in crate::queue) batch_rng: SmallRng,
    pub(in crate::queue) clients: Clients,
    pub(in crate::queue) checks: Checks,
    pub(in crate::queue) service: Service,
    pub(in crate::queue) elections: Elections,
    /// What the disks held that were lost, by the member.
    pub(in crate::queue) lost_disks: BTreeMap<NodeId, DurableModel>,
    pub(in crate::queue) operator: Operator,
    /// What changes of membership owe.
    pub(in crate::queue) changes: Changes,
    pub(in crate::queue) trace: Trace,
    pub(in crate::queue) marks: BTreeMap<&'static str, u64>,
    /// Which machine a member id is on.
    pub(in crate::queue) hosts: BTreeMap<NodeId, usize>,
    /// Faults are over.
    pub(in crate::queue) calm: bool,
    /// Machines on which a write was answered in the last phase.
    pub(in crate::queue) wrote: BTreeSet<usize>,
    /// Machines on which a read was.
    pub(in crate::queue) read: BTreeSet<usize>,
    /// When the probes were last sent.
    probed_at: u64,
    /// Since when all is well.
    pub(in crate::queue) recovered_at: Option<u64>,
    /// The last messages that reached each machine, where copies may come late.
    pub(in crate::queue) echoes: Vec<VecDeque<(usize, PeerMessage)>>,
    /// Which of them come again when a machine starts.
    pub(in crate::queue) echo_rng: SmallRng,
    /// Faults that wait for a joint state.
    pub(in crate::queue) ambushes: Vec<Ambush>,
    /// And faults that wait for a machine to install a snapshot.
    pub(in crate::queue) install_ambushes: Vec<Ambush>,
    /// How much the operator and the probes have asked.
    pub(in crate::queue) questions: u64,
    /// The log that the first machines start from.
    first_log: Restored,
    /// Whether the run is over.
    pub(in crate::queue) done: bool,
}

/// Runs a schedule to its end, or to the first violation.
#[must_use]
pub fn run(schedule: Schedule, verbose: bool) -> Outcome {
    let mut engine = Engine::new(schedule, verbose);
    let result = engine.run_caught();
    engine.into_outcome(result)
}

impl Engine {
    fn new(schedule: Schedule, verbose: bool) -> Self {
        let seed = schedule.seed;
        let slots = schedule.slots();
        let mut clocks = stream(seed, Stream::Disk, 1);
        let drift = i64::from(schedule.settings.drift_ppm);
        let machines = (0..slots)
            .map(|slot| {
                let clock =
                    Clock::new(clocks.random_range(-drift..=drift), clocks.random_range(0..1_000 * SECOND));
                Machine::new(slot, clock)
            })
            .collect();
        Self {
            now: 0,
            queue: Queue::default(),
            machines,
            network: Network::new(slots, stream(seed, Stream::Network, 0)),
            disk_rng: stream(seed, Stream::Disk, 0),
            core_rng: stream(seed, Stream::Cores, 0),
            batch_rng: stream(seed, Stream::Cores, 1),
            elections: Elections::default(),
            lost_disks: BTreeMap::new(),
            service: Service::new(&schedule.settings, slots),
            clients: Clients::new(&schedule),
            checks: Checks::default(),
            operator: Operator::default(),
            changes: Changes::default(),
            trace: Trace::new(verbose),
            marks: BTreeMap::new(),
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
        while let Some((at, happening)) = self.queue.pop() {
            self.now = at;
            happened += 1;
            if second != at / SECOND {
                (second, happened) = (at / SECOND, 0);
            }
            if happened > HAPPENINGS_MAX {
                let what = format!("more than {HAPPENINGS_MAX} events in second {second}");
                return Err(Violation { check: "no storm of messages", what });
            }
            self.happen(happening)?;
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
        let operations = self.clients.counts();
        let mut violation = result.err();
        // The story wants to know where each operation took effect, even if another check failed
        // first.
        if violation.is_none() || self.trace.is_verbose() {
            let seen = check_clients(self.clients, self.checks.committed_entries(), self.trace.story());
            violation = violation.or(seen);
        }
        let trace_hash = self.trace.hash();
        Outcome { violation, at: self.now, trace_hash, trace: self.trace, operations, marks: self.marks }
    }

    /// Puts the schedule into the queue.
    fn plan(&mut self) {
        for slot in 0..self.schedule.voters {
            let store = self.fresh_store();
            let id = NodeId::new(slot as u64 + 1);
            self.machines[slot].identity = Some(Identity { id, store });
            self.hosts.insert(id, slot);
            self.queue.plan(0, Happening::Start(slot));
        }
        self.first_log = self.make_first_log();
        for (number, fault) in self.schedule.faults.iter().enumerate() {
            self.queue.plan(fault.at, Happening::Fault(number));
        }
        for client in 0..self.clients.len() {
            self.queue.plan(0, Happening::ClientNext(client));
        }
        self.queue.plan(OPERATOR_MICROS, Happening::Operator);
        self.queue.plan(MILLI, Happening::Watch);
        self.queue.plan(self.schedule.duration_micros, Happening::Calm);
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Arrival { from, slot, message } => self.arrive(from, slot, *message),
            Happening::Alarm { slot, life } => self.alarm(slot, life),
            Happening::BatchDone { slot, life } => self.batch_done(slot, life),
            Happening::Idle { slot, life } => self.idle(slot, life),
            Happening::BesideDone { slot, life, request } => self.beside_done(slot, life, *request),
            Happening::Fault(number) => self.strike(number),
            Happening::Ambush(fault) => self.strike_with(*fault),
            Happening::Flood { until, every } => self.flood(until, every),
            Happening::Start(slot) => self.start(slot),
            Happening::Resume { slot, life } => self.resume(slot, life),
            Happening::RoomAgain(slot) => {
                self.machines[slot].disk.faults(|faults| faults.full = false);
                Ok(())
            }
            Happening::ClientNext(client) => self.client_next(client),
            Happening::ClientGivesUp { client, request } => self.no_answer(client, request),
            Happening::Settle { slot, life } => self.settle_now(slot, life),
            Happening::Receipts { slot, life } => self.receipts(slot, life),
            Happening::Watch => self.watch(),
            Happening::Operator => self.operate(),
            Happening::Calm => self.begin_calm(),
            Happening::Judge => self.judge(),
        }
    }

    /// Counts a fault or a rare path that was met.
    pub(in crate::queue) fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// Names a question of the operator or of a probe; clients number theirs from the other end.
    pub(in crate::queue) fn fresh_request(&mut self) -> RequestId {
        self.questions += 1;
        RequestId(u64::MAX - self.questions)
    }

    pub(in crate::queue) fn fresh_store(&mut self) -> StoreId {
        StoreId(self.core_rng.random())
    }

    /// What a machine starts from if its disk is empty: the first voters know each other; a machine
    /// that joins knows nothing.
    pub(in crate::queue) fn bootstrap(&self, slot: usize, identity: Identity) -> Bootstrap {
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
        Restored {
            hard_state: HardState { term: Term::new(1), voted_for: None },
            snapshot: None,
            entries: vec![entry],
            commit: LogIndex::ZERO,
        }
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
        if let Some(story) = self.trace.story() {
            story.note(self.now, None, "calm", "faults end; the cluster has to recover");
        }
        self.queue.plan(self.now + 100 * MILLI, Happening::Judge);
        Ok(())
    }

    /// Liveness: some time after the last fault the members agree, and each of them serves.
    fn judge(&mut self) -> Result<(), Violation> {
        match self.not_recovered() {
            None => return self.rest(),
            Some(why) if self.now >= self.schedule.duration_micros + RECOVERY_MICROS => {
                let what = format!("{} s after the last fault: {why}", RECOVERY_MICROS / SECOND);
                return Err(Violation { check: "liveness", what });
            }
            Some(_) => {
                // Once a second: what the network of some runs carries is not much more.
                if self.now >= self.probed_at + SECOND {
                    self.probed_at = self.now;
                    self.probe()?;
                }
                self.queue.plan(self.now + 100 * MILLI, Happening::Judge);
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
        self.queue.plan(self.now + 20 * MILLI, Happening::Judge);
        Ok(())
    }

    fn not_recovered(&self) -> Option<String> {
        if self.clients.are_waiting() || self.now < self.schedule.duration_micros + CALM_MICROS {
            return Some("clients go on".to_owned());
        }
        if let Some(slot) = self.operator.busy_with() {
            return Some(format!("machine {slot} is not a voter again"));
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
    pub(in crate::queue) fn leader(&self) -> Option<usize> {
        let leaders =
            self.machines.iter().filter(|machine| machine.paused_until <= self.now).filter_map(|machine| {
                let raft = machine.process.as_ref()?.replica.raft();
                (raft.role() == infinitystore::raft::RoleName::Leader).then_some((raft.term(), machine.slot))
            });
        leaders.max().map(|(_, slot)| slot)
    }
}
