//! The exhaustive model: three real cores, every order of events within bounds, every reachable state checked.
//!
//! What surrounds the cores is as bad as Raft allows. Messages arrive in any order, some twice, and a message that is never
//! delivered is a lost one, so loss needs no action of its own. A write handed out is durable when its action comes; a
//! crash keeps any number of the oldest of those that are not. Time stands still: a node's clock moves only within the
//! action in which it finds that it heard nothing for long, and is set back ([`Raft::forget_time`]). After each input the
//! node's output is taken and carried out, committed entries are applied.
//!
//! What does not count is cut away, none of which hides a state from the properties: a message that can have no effect any
//! more ([`Exhaustive::is_spent`]); which node is which (the first to do anything is node 1, the next is node 2); time, randomness and
//! the numbers of writes. Left out: snapshots, reads, transfers and changes of membership; several inputs before an output.

mod cuts;
mod properties;

use clap::{Args, ValueEnum};
use infinitystore::raft::{
    Body, Config, Entry, EntryKind, HardState, Incarnation, Input, LogId, LogIndex, LogWrite, Member,
    Membership, Message, NodeId, Raft, RaftEvent, Restored, RoleName, StoreId, Term, Time,
};
use properties::Breach;
use stateright::{Model, Property};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, RwLock};

const NODES: usize = 3;
/// The term of the entry that made the cluster.
const FIRST_TERM: u64 = 1;

/// How far the state space reaches: how often each thing happens in one run, at most.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Bounds {
    /// Terms in which somebody stands for election.
    #[arg(long, default_value_t = 2)]
    pub(crate) terms: u64,
    /// Campaigns, of all nodes together.
    #[arg(long, default_value_t = 2)]
    pub(crate) campaigns: u8,
    /// Commands that leaders append, beside the empty entry of each.
    #[arg(long, default_value_t = 1)]
    pub(crate) entries: u8,
    /// Crashes, of any nodes.
    #[arg(long, default_value_t = 0)]
    pub(crate) crashes: u8,
    /// Messages that are delivered and stay on their way.
    #[arg(long, default_value_t = 0)]
    pub(crate) duplicates: u8,
    /// Heartbeats, of any leaders.
    #[arg(long, default_value_t = 0)]
    pub(crate) heartbeats: u8,
    /// Whether pre-votes are asked for and answered. Otherwise a node that stands for election is granted one at once by
    /// whomever: pre-votes only keep nodes from standing, so that every election with them is among those without.
    #[arg(long)]
    pub(crate) pre_votes: bool,
    /// Whether an append carries one entry at most; otherwise, all that there are.
    #[arg(long)]
    pub(crate) single_entries: bool,
}

/// What the disks are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Disk {
    /// What is acknowledged survives.
    #[default]
    Sound,
    /// The vote is gone after a crash, as if it had been acknowledged and not written.
    ForgetsVotes,
    /// The newest entry is gone after a crash.
    ForgetsAnEntry,
}

/// The model: what [`stateright`] explores.
#[derive(Clone, Default)]
pub(crate) struct Exhaustive {
    pub(crate) bounds: Bounds,
    pub(crate) disk: Disk,
    effects: Arc<RwLock<Effects>>,
}

/// By the hashes of node and event.
type Effects = HashMap<(u64, u64), Arc<Effect>>;

/// A value that is compared, and hashed, by a hash made once: three cores in a state differ in one from the state before.
pub(crate) struct Hashed<T>(Arc<(u64, T)>);

/// One core, its disk and the writes on their way there.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    raft: Raft,
    /// The core's log, to look at. Derived.
    log: Vec<Entry>,
    durable: HardState,
    durable_log: Vec<Entry>,
    writes: VecDeque<LogWrite>,
}

/// What happened so far, as far as properties speak of it.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct History {
    leaders: BTreeMap<Term, NodeId>,
    /// From index 1: what was committed first, and in which leader's term.
    committed: Vec<(Entry, Term)>,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    nodes: [Hashed<Node>; NODES],
    /// On their way, in the order of their hashes; none twice.
    network: Vec<Hashed<Message>>,
    history: Hashed<History>,
    campaigns: u8,
    entries: u8,
    crashes: u8,
    duplicates: u8,
    heartbeats: u8,
    /// Nodes that have done anything: those below.
    moved: usize,
    /// What a step did that it must not do.
    breach: Option<Breach>,
}

/// What can happen next, and to which node (by position).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    position: usize,
    event: Event,
}

/// What happens to a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// It has heard nothing for long: it stops to lead, if it does, and campaigns.
    Campaign,
    /// It leads, and has said nothing for a while.
    Heartbeat,
    /// A client's command.
    Propose(u8),
    /// The message arrives.
    Deliver(Hashed<Message>),
    /// The message arrives, and will arrive again.
    Duplicate(Hashed<Message>),
    /// So many of the oldest writes are durable, which one receipt says.
    Persist(usize),
    /// It stops, so many of the oldest writes having become durable unnoticed, and starts again.
    Crash(usize),
}

/// What a node is after an event, and what it wants done.
struct Effect {
    node: Hashed<Node>,
    messages: Vec<Hashed<Message>>,
    committed: Vec<Entry>,
    breach: Option<Breach>,
}

impl Exhaustive {
    pub(crate) fn new(bounds: Bounds, disk: Disk) -> Self {
        Self { bounds, disk, effects: Arc::default() }
    }

    /// Different nodes with different events so far.
    pub(crate) fn effects(&self) -> usize {
        self.effects.read().expect("no panic while it is held").len()
    }

    fn config(&self) -> Config {
        let default = Config::default();
        if self.bounds.single_entries { Config { append_bytes_max: 1, ..default } } else { default }
    }

    /// When everything happens.
    fn now() -> Time {
        Time::new(Config::default().election_timeout_micros)
    }

    fn last_term(&self) -> Term {
        Term::new(FIRST_TERM + self.bounds.terms)
    }

    /// What the node may do of itself.
    fn events(&self, position: usize, world: &World, mut may_happen: impl FnMut(Event)) {
        let node = world.nodes[position].get();
        let leads = node.raft.role() == RoleName::Leader;
        if node.raft.term() < self.last_term() && world.campaigns < self.bounds.campaigns {
            may_happen(Event::Campaign);
        }
        if leads && world.heartbeats < self.bounds.heartbeats {
            may_happen(Event::Heartbeat);
        }
        if leads && world.entries < self.bounds.entries {
            may_happen(Event::Propose(world.entries + 1));
        }
        (1..=node.writes.len()).map(Event::Persist).for_each(&mut may_happen);
        if position < world.moved && world.crashes < self.bounds.crashes {
            (0..=node.writes.len()).map(Event::Crash).for_each(&mut may_happen);
        }
    }

    /// What the event does to the node: worked out once, since many states share the node.
    fn effect(&self, before: &Hashed<Node>, event: &Event) -> Arc<Effect> {
        let key = (before.hash(), Hashed::new(event.clone()).hash());
        if let Some(known) = self.effects.read().expect("no panic while it is held").get(&key) {
            return Arc::clone(known);
        }
        let mut node = before.get().clone();
        let (mut messages, mut committed) = (Vec::new(), Vec::new());
        let happen = || self.happen(&mut node, event, &mut messages, &mut committed);
        let breach = catch_unwind(AssertUnwindSafe(happen)).unwrap_or(Err(Breach::Panicked)).err();
        node.log = node.raft.log_after(LogIndex::ZERO);
        let messages = messages.into_iter().map(Hashed::new).collect();
        let effect = Arc::new(Effect { node: Hashed::new(node), messages, committed, breach });
        self.effects.write().expect("no panic while it is held").insert(key, Arc::clone(&effect));
        effect
    }

    /// Steps the node and takes its output. `Err` if it does what it must not do.
    fn happen(
        &self,
        node: &mut Node,
        event: &Event,
        messages: &mut Vec<Message>,
        committed: &mut Vec<Entry>,
    ) -> Result<(), Breach> {
        let (mut at, config) = (Self::now(), self.config());
        let before = node.raft.commit_index();
        match event {
            Event::Campaign => {
                at = at.plus(config.election_timeout_micros);
                let stops_to_lead = node.raft.role() == RoleName::Leader;
                node.step(at, Input::Wake);
                if stops_to_lead {
                    node.settle(at, messages, committed)?;
                    node.step(at, Input::Wake);
                }
                if !self.bounds.pre_votes {
                    let grant = pre_vote_granted(&node.raft);
                    node.step(at, Input::Message(grant));
                }
            }
            Event::Heartbeat => {
                at = at.plus(config.heartbeat_interval_micros);
                node.step(at, Input::Wake);
            }
            Event::Propose(number) => node.step(at, Input::Propose(vec![*number].into())),
            Event::Deliver(message) | Event::Duplicate(message) => {
                node.step(at, Input::Message(message.get().clone()));
            }
            Event::Persist(count) => {
                let receipt = node.write(*count)?.expect("one at least");
                node.step(at, Input::Durable(receipt));
            }
            Event::Crash(count) => {
                let _lost_with_the_core = node.write(*count)?;
                node.restart(config, self.disk);
            }
        }
        node.settle(at, messages, committed)?;
        if !self.bounds.pre_votes {
            messages.retain(|message| !matches!(message.body, Body::PreVote { .. }));
        }
        let is_crash = matches!(event, Event::Crash(_));
        if node.raft.commit_index() < before && !is_crash { Err(Breach::CommitWentBack) } else { Ok(()) }
    }
}

impl Model for Exhaustive {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let nodes = std::array::from_fn(|position| Hashed::new(Node::new(position, self.config())));
        vec![World {
            nodes,
            network: Vec::new(),
            history: Hashed::new(History::default()),
            campaigns: 0,
            entries: 0,
            crashes: 0,
            duplicates: 0,
            heartbeats: 0,
            moved: 0,
            breach: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // What comes after a breach is of no interest.
        if world.breach.is_some() {
            return;
        }
        // Nodes are alike: the next to do anything for the first time is the next by number.
        let may_move = (world.moved + 1).min(NODES);
        for position in 0..may_move {
            self.events(position, world, |event| actions.push(Action { position, event }));
        }
        for message in &world.network {
            let position = position_of(message.get().to);
            if position < may_move {
                actions.push(Action { position, event: Event::Deliver(message.clone()) });
                if world.duplicates < self.bounds.duplicates {
                    actions.push(Action { position, event: Event::Duplicate(message.clone()) });
                }
            }
        }
    }

    fn next_state(&self, world: &World, Action { position, event }: Action) -> Option<World> {
        let effect = self.effect(&world.nodes[position], &event);
        let mut next = world.clone();
        next.moved = next.moved.max(position + 1);
        match event {
            Event::Campaign => next.campaigns += 1,
            Event::Persist(_) => {}
            Event::Heartbeat => next.heartbeats += 1,
            Event::Propose(_) => next.entries += 1,
            Event::Deliver(message) => next.network.retain(|other| *other != message),
            Event::Duplicate(_) => next.duplicates += 1,
            Event::Crash(_) => next.crashes += 1,
        }
        next.nodes[position] = effect.node.clone();
        for message in &effect.messages {
            if let Err(place) = next.network.binary_search(message) {
                next.network.insert(place, message.clone());
            }
        }
        let remembered = next.remember(effect.node.get(), &effect.committed);
        let cut = self.cut(&mut next);
        next.breach = effect.breach.or(remembered.err()).or(cut.err());
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl World {
    /// Who leads, and what is committed.
    fn remember(&mut self, node: &Node, committed: &[Entry]) -> Result<(), Breach> {
        let known = self.history.get();
        let (id, term) = (node.raft.id(), node.raft.term());
        let leads = node.raft.role() == RoleName::Leader;
        let is_first = leads && !known.leaders.contains_key(&term);
        if leads && known.leaders.get(&term).is_some_and(|leader| *leader != id) {
            return Err(Breach::TwoLeaders);
        }
        if !is_first && committed.is_empty() {
            return Ok(());
        }
        let mut history = known.clone();
        if is_first {
            history.leaders.insert(term, id);
        }
        for entry in committed {
            let position = usize::try_from(entry.index().get()).expect("logs are short") - 1;
            match history.committed.get(position) {
                Some((known, _)) if known == entry => {}
                None if position == history.committed.len() => history.committed.push((entry.clone(), term)),
                _ => return Err(Breach::CommittedChanged),
            }
        }
        self.history = Hashed::new(history);
        Ok(())
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.raft, self.durable, &self.durable_log, &self.writes).hash(hasher);
    }
}

impl Node {
    /// As the cluster was made.
    fn new(position: usize, config: Config) -> Self {
        let ids = || (1..=NODES as u64).map(NodeId::new);
        let member = |id: NodeId| Member {
            name: id.to_string(),
            raft_addr: String::new(),
            http_addr: String::new(),
            store_id: StoreId(u128::from(id.get())),
        };
        let membership = Membership {
            voters: ids().collect(),
            outgoing: None,
            learners: BTreeMap::new(),
            members: ids().map(|id| (id, member(id))).collect(),
            next_member_id: NodeId::new(NODES as u64 + 1),
        };
        let id = LogId::new(Term::new(FIRST_TERM), LogIndex::new(1));
        let durable = HardState { term: id.term, voted_for: None };
        let durable_log = vec![Entry::new(id, EntryKind::Membership, &membership.encode())];
        let raft = start(position, config, durable, &durable_log);
        Self { raft, log: durable_log.clone(), durable, durable_log, writes: VecDeque::new() }
    }

    fn step(&mut self, at: Time, input: Input) {
        self.raft.step(at, input).expect("only leaders are asked to lead");
    }

    /// Takes its output until there is none, and applies what is committed.
    fn settle(
        &mut self,
        at: Time,
        messages: &mut Vec<Message>,
        committed: &mut Vec<Entry>,
    ) -> Result<(), Breach> {
        loop {
            let output = self.raft.take_output();
            for message in &output.messages {
                properties::said(message, self)?;
            }
            messages.extend(output.messages);
            self.writes.extend(output.write);
            if output.events.iter().any(|event| matches!(event, RaftEvent::BadMessage { .. })) {
                return Err(Breach::BadMessage);
            }
            let Some(last) = output.committed.last().map(Entry::index) else { break };
            committed.extend(output.committed);
            self.step(at, Input::Applied(last));
        }
        self.raft.forget_time(Exhaustive::now(), self.writes.iter_mut());
        Ok(())
    }

    /// Makes the oldest writes durable; the receipt of the newest of them.
    fn write(&mut self, count: usize) -> Result<Option<infinitystore::raft::Durable>, Breach> {
        let mut receipt = None;
        for write in self.writes.drain(..count) {
            let records = write.records();
            if let Some(hard_state) = records.hard_state {
                let before = std::mem::replace(&mut self.durable, hard_state);
                let revoted = before.term == hard_state.term
                    && before.voted_for.is_some()
                    && before.voted_for != hard_state.voted_for;
                if hard_state.term < before.term || revoted {
                    return Err(Breach::DurableWentBack);
                }
            }
            if let Some(from) = records.truncate_from {
                self.durable_log.retain(|entry| entry.index() < from);
            }
            self.durable_log.extend(records.entries.iter().cloned());
            receipt = Some(write.into_durable());
        }
        Ok(receipt)
    }

    /// Starts from what is durable.
    fn restart(&mut self, config: Config, disk: Disk) {
        match disk {
            Disk::Sound => {}
            Disk::ForgetsVotes => self.durable.voted_for = None,
            Disk::ForgetsAnEntry => {
                if self.durable_log.len() > 1 {
                    self.durable_log.pop();
                }
            }
        }
        self.writes.clear();
        self.raft = start(position_of(self.raft.id()), config, self.durable, &self.durable_log);
    }
}

/// A core from this durable state. A receipt of an earlier life cannot come, so that lives need no numbers.
fn start(position: usize, config: Config, hard_state: HardState, entries: &[Entry]) -> Raft {
    let restored = Restored { hard_state, snapshot: None, entries: entries.to_vec() };
    let id = NodeId::new(position as u64 + 1);
    let raft = Raft::new(id, Incarnation::new(1), 0, config, restored, Exhaustive::now());
    let mut raft = raft.expect("what was durable can be restored");
    raft.forget_time(Exhaustive::now(), std::iter::empty());
    raft
}

/// What lets a node that asks for pre-votes stand for election.
fn pre_vote_granted(asks: &Raft) -> Message {
    let (from, to) = (NodeId::new(asks.id().get() % NODES as u64 + 1), asks.id());
    let campaign_term = Term::new(asks.term().get() + 1);
    Message { from, to, term: asks.term(), body: Body::PreVoteGranted { campaign_term } }
}

fn position_of(id: NodeId) -> usize {
    usize::try_from(id.get()).expect("ids are small") - 1
}

impl<T: Hash> Hashed<T> {
    fn new(value: T) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(Arc::new((hasher.finish(), value)))
    }
}

impl<T> Hashed<T> {
    fn hash(&self) -> u64 {
        self.0.0
    }

    fn get(&self) -> &T {
        &self.0.1
    }
}

impl<T> Clone for Hashed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0
    }
}

impl<T> Eq for Hashed<T> {}

impl<T> PartialOrd for Hashed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Hashed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.0.cmp(&other.0.0)
    }
}

impl<T> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.0.hash(hasher);
    }
}

impl<T: fmt::Debug> fmt::Debug for Hashed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
