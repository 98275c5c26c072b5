//! What all tasks of a run share: the machines, the surroundings, and what has been seen.

use crate::checks::bounds::Bounds;
use crate::checks::clients::Clients;
use crate::checks::durable::{DurableModel, WriteSketch};
use crate::checks::freshness::Freshness;
use crate::checks::observed::Observed;
use crate::checks::safety::Checks;
use crate::hardware::network::Network;
use crate::machines::Machine;
use crate::madsim_engine::attendance::{Attendance, is_quick};
use crate::madsim_engine::book::Book;
use crate::madsim_engine::book::ProcessId;
use crate::madsim_engine::certificate_files::Files;
use crate::madsim_engine::keyspace::book::Keyspace;
use crate::madsim_engine::limits::Limits;
use crate::madsim_engine::pipes::Connections;
use crate::madsim_engine::stopping::{HandedOver, Stopping};
use crate::madsim_engine::store_figures::StoreFigures;
use crate::madsim_engine::time::now;
use crate::madsim_engine::wire_tap::WireTap;
use crate::madsim_engine::written::Written;
use crate::record::figures::Figures;
use crate::record::trace::Trace;
use crate::record::violation::Violation;
use crate::schedule::{SECOND, Schedule, Stream, stream};
use infinitystore::codec::FeatureLevel;
use infinitystore::node::{NodeExit, NodeHandle};
use infinitystore::raft::{ClusterId, LogId, LogIndex, Membership, NodeId, RoleName, StoreId, Term};
use infinitystore::runtime::ScrubProgress;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Steps that a node takes in a simulated second, at most. A node that takes one after the other
/// without an end lets no time go by, so no other check could notice it.
pub(super) const STEPS_MAX: u32 = 300_000;

/// A driver looks at its clock a little before its replica is stepped.
const LEASE_SLACK_MICROS: u64 = 1_000;

/// Marks that a copy was put back.
pub(super) const PUT_BACK: &str = "older copy put back";

/// A machine, its disk, and what was seen of the node on it.
pub(super) struct NodeHost {
    /// The machine.
    pub hardware: Machine,
    /// Whether its clock has jumped.
    pub has_jumped: bool,
    /// Told when the clock has jumped.
    pub jumped: Arc<Notify>,
    /// Whether a process runs.
    pub on: bool,
    /// Whether the machine itself runs: one that lost its power does not even refuse a connection.
    pub powered: bool,
    /// When the next process starts.
    pub start_at: Option<u64>,
    /// The end of the latest pause, over or not.
    pub stands_still_until: u64,
    /// The power goes at this time at the latest: the disk is about to stop in the middle of
    /// something.
    pub power_fails_at: Option<u64>,
    /// Until when its disk is busy with what it has begun.
    pub disk_busy_until: u64,
    /// When its disk has room again.
    pub room_at: Option<u64>,
    /// A copy of its data directory was put back: it has lost what it acknowledged since that was
    /// made.
    pub is_reverted: bool,
    /// Whether its replica had withdrawn when it was last stepped.
    pub is_withdrawn: bool,
    /// Whether its node asks others for membership when it starts.
    pub joins: bool,
    /// The generation of directories that its node used last; another one for the same store says
    /// that the node mended its data.
    pub generation: u32,
    /// The machine whose name its node has been given by mistake.
    pub namesake: Option<usize>,
    /// Whether it is at the second of its two addresses.
    pub is_moved: bool,
    /// And whether its HTTP port is.
    pub is_http_moved: bool,
    /// The last second in which its node took a step, and how many it took in that.
    pub steps: (u64, u32),
    /// How many steps its nodes have taken in all.
    pub steps_taken: u64,
    /// For telling its process to stop.
    pub stop: Option<Arc<Notify>>,
    /// It was told to stop.
    pub stopping: Option<Stopping>,
    /// Until when its name cannot be resolved.
    pub no_name_until: u64,
    /// Until when it has no descriptors for connections.
    pub no_handles_until: u64,
    /// For asking the node.
    pub handle: Option<NodeHandle>,
    /// The store that its disk was last seen with.
    pub store: Option<StoreId>,
    /// Its id in the cluster under test; `None` while it is a cluster of its own.
    pub member: Option<NodeId>,
    /// Writes that were asked for and not acknowledged.
    pub under_way: VecDeque<(u64, WriteSketch)>,
    /// What its process has found of what is at rest.
    pub scrub: Option<ScrubProgress>,
    /// What the checks have seen of its replica.
    pub shown: Observed,
    /// What the replica showed last.
    pub view: View,
    /// What its process has done.
    pub done: Done,
    /// What it has written.
    pub written: Written,
    /// When its process started.
    pub started_at: u64,
    /// When its replica last had something to say to another.
    pub spoke_at: u64,
    /// The certificate files of its ports for peers and for clients, where those speak TLS.
    pub certificates: [Option<Arc<Files>>; 2],
    /// When its store came to which revision, since its process started.
    pub revisions: Vec<(u64, u64)>,
    /// The term in which it last led, and the last entry that was looked at for ends of leases.
    pub proposed: Option<(Term, LogIndex)>,
    /// How many tasks of which of its processes live.
    pub tasks: (u32, usize),
}

/// What a process has done, as its metrics should say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Elections it stood in.
    pub elections: u64,
    /// How often its role, its term or its leader changed.
    pub role_changes: u64,
    /// Snapshots that it wrote.
    pub taken: u64,
    /// Snapshots that it installed.
    pub installed: u64,
    /// Snapshots that it could not write.
    pub failed: u64,
    /// Snapshots that members needed before they had caught up after the one before.
    pub repeated: u64,
    /// Log segments that could not be prepared.
    pub segments_failed: u64,
    /// Calls of leases that it had too much to do for.
    pub lease_calls_refused: u64,
    /// Repairs of its data directory.
    pub repaired: u64,
    /// Whether its disk is slow, and how often that has changed.
    pub is_slow: bool,
    pub slow_turns: u64,
    /// Whether its disk is full, and how often that has changed.
    pub is_full: bool,
    pub full_turns: u64,
    /// The last one was written.
    pub last_succeeded: bool,
    /// Writes to the log that were asked for.
    pub writes: u64,
    /// Messages to others that its replica wanted sent.
    pub messages: u64,
    /// Messages that its replica found to make no sense.
    pub senseless: u64,
    /// Steps with which it applied entries.
    pub applies: u64,
    /// The replica, and how far it had applied.
    pub applied: Option<(NodeId, LogIndex)>,
    /// The newest snapshot that it said it had; `None`: the one that it found at its start.
    pub snapshot: Option<LogId>,
}

/// What a replica showed at its last step.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// Of which process that is. One that loads its data shows nothing yet.
    pub life: u32,
    /// Whether it leads.
    pub leads: bool,
    /// Its term.
    pub term: Term,
    /// Whether it has committed an entry of its term.
    pub committed_in_term: bool,
    /// What it has applied.
    pub last_applied: LogId,
    /// And what it had applied when it could be asked first.
    pub first_applied: Option<LogIndex>,
    /// Whether that is all that it knew to be committed when it started.
    pub knows_its_rules: bool,
    /// What it is.
    pub role: Option<RoleName>,
    /// The leader that it follows.
    pub leader: Option<NodeId>,
    /// How often term, role or leader have changed: they may be again what they were.
    pub turns: u64,
    /// What it knows to be committed.
    pub commit: LogIndex,
    /// Where its log ends.
    pub last_log: LogId,
    /// The membership in force.
    pub membership: Option<Membership>,
    /// Whether that is known to be committed.
    pub membership_committed: bool,
    /// Where that stands in the log.
    pub configuration: LogIndex,
    /// What its members have of its log, while it leads.
    pub matched: Vec<(NodeId, LogIndex)>,
    /// Whether it has applied all that it knew to be committed when it started, and anything.
    pub has_started: bool,
    /// The level of the cluster, as far as it has applied its log.
    pub level: FeatureLevel,
}

/// Everything of a run.
pub(super) struct World {
    pub schedule: Schedule,
    /// When the schedule's zero was.
    pub began: u64,
    pub machines: Vec<NodeHost>,
    pub network: Network,
    pub connections: Connections,
    pub disk_rng: SmallRng,
    pub core_rng: SmallRng,
    pub clients: Clients,
    /// Clients of the keyspace.
    pub keyspace: Keyspace,
    /// What all requests show that show nothing else, while authentication is enabled.
    pub token: Option<&'static str>,
    /// The entry that enabled it.
    pub enabled_at: usize,
    /// What was asked and answered over HTTP.
    pub book: Book,
    /// Since when two machines that reach each other have had no connection, and the processes that
    /// this counts for.
    pub apart: BTreeMap<(usize, usize), ((u32, u32), u64)>,
    /// Since when a machine has had a connection to another.
    pub joined: BTreeMap<(usize, usize), u64>,
    /// When a connection broke that had stood for a while, between two machines that are well.
    pub broke: BTreeMap<(usize, usize), u64>,
    /// When that was looked at last.
    pub looked_at: u64,
    /// A leader has stopped.
    pub handed_over: Option<HandedOver>,
    /// What the nodes are started with.
    pub limits: Limits,
    /// Whether clients are served.
    pub attendance: Attendance,
    /// By applied index: what stores show that have applied so much.
    pub stores: BTreeMap<LogIndex, StoreFigures>,
    /// When how much was committed.
    pub freshness: Freshness,
    /// When a disk was full last, or could not be written to as its machine loses power.
    pub full_at: Option<u64>,
    pub checks: Checks,
    /// What the disks held that were lost, by the member: a member has no other until it is
    /// removed.
    pub lost_disks: BTreeMap<NodeId, DurableModel>,
    /// Machines whose node gave its damaged directory up by itself, and the members that they were.
    pub given_up: Vec<(usize, Option<NodeId>)>,
    pub trace: Trace,
    pub wire_tap: WireTap,
    pub marks: BTreeMap<&'static str, u64>,
    pub figures: Figures,
    /// What each process last said of itself.
    pub scraped: BTreeMap<ProcessId, Vec<(String, f64)>>,
    /// The first violation.
    pub violation: Option<Violation>,
    /// The cluster under test.
    pub cluster: Option<ClusterId>,
    /// Nodes that ended, or did not start.
    pub exits: Vec<Exit>,
    /// Faults are over.
    pub calm: bool,
}

/// A node's end.
pub(super) struct Exit {
    /// On which machine.
    pub slot: usize,
    /// Which of its processes.
    pub life: u32,
    /// How: it would not start, or ended.
    pub how: Result<NodeExit, String>,
}

/// The world, shared. The lock is never held across a wait, nor while a task is killed (what it
/// drops may want it).
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// The world of a schedule, all machines off.
    pub(super) fn new(schedule: Schedule, verbose: bool) -> Self {
        let (seed, slots) = (schedule.seed, schedule.slots());
        let machines = Machine::all(&schedule)
            .into_iter()
            .map(|hardware| NodeHost {
                joins: hardware.slot != 0,
                generation: 0,
                hardware,
                has_jumped: false,
                jumped: Arc::new(Notify::new()),
                on: false,
                powered: true,
                start_at: None,
                stands_still_until: 0,
                power_fails_at: None,
                disk_busy_until: 0,
                room_at: None,
                is_reverted: false,
                is_withdrawn: false,
                namesake: None,
                is_moved: false,
                is_http_moved: false,
                steps: (0, 0),
                steps_taken: 0,
                stop: None,
                stopping: None,
                no_name_until: 0,
                no_handles_until: 0,
                handle: None,
                store: None,
                member: None,
                under_way: VecDeque::new(),
                scrub: None,
                shown: Observed::default(),
                view: View::default(),
                done: Done::default(),
                written: Written::default(),
                started_at: 0,
                spoke_at: 0,
                certificates: [None, None],
                revisions: Vec::new(),
                proposed: None,
                tasks: (0, 0),
            })
            .collect();
        Self(Arc::new(Mutex::new(World {
            began: 0,
            machines,
            network: Network::new(slots, stream(seed, Stream::Network, 0)),
            connections: Connections::new(stream(seed, Stream::Network, 1)),
            disk_rng: stream(seed, Stream::Disk, 0),
            core_rng: stream(seed, Stream::Cores, 0),
            clients: Clients::new(&schedule),
            keyspace: Keyspace::new(&schedule),
            token: None,
            enabled_at: 0,
            book: Book::default(),
            apart: BTreeMap::new(),
            joined: BTreeMap::new(),
            broke: BTreeMap::new(),
            looked_at: 0,
            handed_over: None,
            limits: Limits::of(seed),
            attendance: Attendance::default(),
            stores: BTreeMap::new(),
            freshness: Freshness::default(),
            full_at: None,
            checks: Checks::for_run(LEASE_SLACK_MICROS, &schedule.settings),
            lost_disks: BTreeMap::new(),
            given_up: Vec::new(),
            trace: Trace::new(verbose),
            wire_tap: WireTap::default(),
            marks: BTreeMap::new(),
            figures: Figures::default(),
            scraped: BTreeMap::new(),
            violation: None,
            cluster: None,
            exits: Vec::new(),
            calm: false,
            schedule,
        })))
    }

    /// For a moment. After a panic too: what is left of the world is still to be told, and tasks
    /// that are dropped look at it.
    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world at the end. Tasks that still hold it see nothing any more.
    pub(super) fn take(&self) -> World {
        let empty = Schedule { voters: 0, spares: 0, clients: Vec::new(), ..self.lock().schedule.clone() };
        let Ok(nothing) = Arc::try_unwrap(Self::new(empty, false).0) else {
            unreachable!("nobody else has it yet")
        };
        std::mem::replace(&mut *self.lock(), nothing.into_inner().expect("nobody has held it"))
    }
}

impl Deref for NodeHost {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.hardware
    }
}

impl DerefMut for NodeHost {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.hardware
    }
}

impl NodeHost {
    /// Where its peers find it.
    pub(super) fn raft_addr(&self) -> String {
        format!("m{}:{}", self.slot, if self.is_moved { 8002 } else { 8000 })
    }

    /// Where clients find it.
    pub(super) fn http_addr(&self) -> String {
        format!("m{}:{}", self.slot, if self.is_http_moved { 8003 } else { 8001 })
    }

    /// Its node took a step. Whether it took too many in a second.
    pub(super) fn count_step(&mut self, now: u64) -> bool {
        self.steps_taken += 1;
        let (second, count) = self.steps;
        self.steps = if second == now / SECOND { (second, count + 1) } else { (now / SECOND, 1) };
        self.steps.1 > STEPS_MAX
    }
}

impl World {
    /// Counts a fault or a rare path that was met.
    pub(super) fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// Keeps the first violation.
    pub(super) fn judge(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.violation.get_or_insert(violation);
        }
    }

    /// Whether answers come in a fraction of the time that clients wait.
    pub(super) fn is_quick(&self) -> bool {
        is_quick(&self.schedule.settings, self.asking())
    }

    /// How long the longest snapshot that there is takes to another machine.
    pub(super) fn snapshot_micros(&self) -> u64 {
        let bytes = self.machines.iter().map(|machine| machine.disk.snapshot_bytes()).max().unwrap_or(0);
        Bounds::of_snapshot(&self.schedule.settings, bytes)
    }

    /// How many clients ask.
    pub(super) const fn asking(&self) -> u64 {
        (self.clients.len() + self.keyspace.len()) as u64 + 2
    }

    /// Whether an older copy of a data directory was ever put back.
    pub(super) fn has_reverted(&self) -> bool {
        self.marks.contains_key(PUT_BACK)
    }

    /// Whether a client of the keyspace has left a quota that refuses others.
    pub(super) fn is_quota_small(&self) -> bool {
        self.checks.ledger.model().now().settings.quota_bytes
            < infinitystore::kv::Settings::default().quota_bytes
    }

    /// Whether nothing is lost or damaged on the way.
    pub(super) const fn is_quiet(&self) -> bool {
        let settings = &self.schedule.settings;
        self.calm || settings.loss_ppm == 0 && settings.corrupt_ppm == 0 && settings.straggler_ppm == 0
    }

    /// A request was refused: what is wrong with the reason, if something is.
    pub(super) fn unjustified(&self, slot: usize, why: &str) -> Option<String> {
        let settings = &self.schedule.settings;
        let machine = &self.machines[slot];
        let is_right = if why.contains("disk is full") {
            // The storage looks after its room once a second, and a member hears of its leader's
            // later.
            let late = settings.client_timeout_micros + 10 * SECOND;
            self.full_at.is_some_and(|at| now() <= at + late)
        } else if why.contains("joining another cluster") {
            machine.joins
        } else {
            // Whether there were too many connections, the client of each knows (`Http`).
            true
        };
        (!is_right).then(|| format!("{why:?}, and nothing is so"))
    }

    /// A client that asked this process at `asked` gives up now, without an answer. Nodes answer
    /// each question when its time is up, if only with that: it is due a little later, unless the
    /// process has ended or stood still since.
    pub(super) fn judge_lateness(&mut self, (slot, life): (usize, u32), asked: u64, who: &str) {
        let (machine, settings) = (&self.machines[slot], &self.schedule.settings);
        let runs = machine.on
            && machine.life == life
            && machine.power_fails_at.is_none()
            && machine.stopping.is_none()
            && (machine.no_handles_until == 0 || machine.no_handles_until + SECOND < asked);
        let due = asked + settings.client_timeout_micros * 11 / 10 + 4 * settings.delay_min_micros;
        if runs && machine.stands_still_until < asked && !self.calm && now() >= due {
            let what = format!("machine {slot} has not answered {who}, who asked at {asked}");
            self.judge(Err(Violation { check: "a node that runs answers in time", what }));
        }
    }

    /// The machine that leads the cluster under test, as far as one can tell from outside.
    pub(super) fn leader(&self, now: u64) -> Option<&NodeHost> {
        let running =
            |machine: &&NodeHost| machine.on && machine.member.is_some() && machine.paused_until <= now;
        self.machines.iter().filter(running).filter(|machine| machine.view.leads).max_by_key(|m| m.view.term)
    }

    /// The leader's committed membership, once it has committed in its own term.
    pub(super) fn committed_membership(&self, now: u64) -> Option<&Membership> {
        let view = &self.leader(now)?.view;
        view.membership.as_ref().filter(|_| view.committed_in_term && view.membership_committed)
    }
}

/// Whether a role leads.
pub(super) fn leads(role: RoleName) -> bool {
    role == RoleName::Leader
}
