//! The exhaustive model: three real cores, every order of events within bounds, every reachable
//! state checked.
//!
//! What surrounds the cores is as bad as Raft allows. Messages stay on their way for ever: each
//! arrives at any time, any number of times, or never. So loss, reordering and duplication without
//! bound need no actions of their own. A write handed out is durable when its action comes; a crash
//! keeps any number of the oldest of those that are not. Time stands still: a node's clock moves
//! only within the action in which it finds that it heard nothing for long, and is set back
//! ([`Raft::forget_time`]). A node that asks for pre-votes may be granted them at any time,
//! whatever the others think. After each input the node's output is taken and carried out,
//! committed entries are applied.
//!
//! What does not count is cut away, none of which hides a state from the properties: a message that
//! can have no effect any more ([`Exhaustive::cut`]); that a message which only makes its addressee
//! say something has not arrived yet ([`Exhaustive::saturate`]); which node is which (the first to
//! do anything is node 1, the next is node 2); time, randomness and the numbers of writes. Left
//! out: snapshots, reads, transfers and changes of membership; several inputs before an output.
//!
//! [`Raft::forget_time`]: infinitystore::raft::Raft::forget_time

mod cuts;
mod interned;
mod node;
mod properties;

use clap::{Args, ValueEnum};
use infinitystore::raft::{Config, Entry, Message, NodeId, RoleName, Term};
use interned::{Interned, Interner};
use node::{Node, Said, position_of};
use properties::Breach;
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

const NODES: usize = 3;
/// The term of the entry that made the cluster.
const FIRST_TERM: u64 = 1;

/// How far the state space reaches: how often each thing happens in one run, at most.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Bounds {
    /// Terms in which a node stands for election.
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
    /// Heartbeats, of any leaders.
    #[arg(long, default_value_t = 0)]
    pub(crate) heartbeats: u8,
    /// Whether pre-votes are asked for and answered by messages. Otherwise a node that asks may be
    /// granted one at any later time, even if all would refuse it: an answer changes nothing at the
    /// node that gives it (D §9.6).
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
    cuts: Cuts,
    tables: Arc<Tables>,
}

/// Which differences in the network are cut away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cuts {
    /// None.
    Nothing,
    /// Whether a message that leaves its addressee as it is has arrived.
    Arrivals,
    /// That, and messages that can change nothing any more.
    #[default]
    Everything,
}

/// What states have in common.
#[derive(Default)]
struct Tables {
    nodes: Interner<Known>,
    messages: Interner<Message>,
    histories: Interner<History>,
    effects: AtomicUsize,
}

/// A node, and what is known of what events do to it.
#[derive(Debug)]
pub(crate) struct Known {
    node: Node,
    /// By [`Event::key`].
    effects: RwLock<Vec<(u64, &'static Effect)>>,
    /// [`Node::essence`].
    essence: OnceLock<u64>,
}

/// What a node is after an event, and what it wants done.
#[derive(Debug)]
struct Effect {
    node: Interned<Known>,
    messages: Vec<Interned<Message>>,
    committed: Vec<Entry>,
    breach: Option<Breach>,
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
    nodes: [Interned<Known>; NODES],
    /// On their way, in the order of their hashes; none twice.
    network: Vec<Interned<Message>>,
    history: Interned<History>,
    campaigns: u8,
    entries: u8,
    crashes: u8,
    heartbeats: u8,
    /// Nodes that have done anything: those below.
    moved: usize,
    /// What a step did that it must not do.
    breach: Option<Breach>,
}

/// What can happen next, and to which node (by position).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    position: usize,
    event: Event,
}

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It has heard nothing for long: it stops leading, if it does, and asks for pre-votes.
    Campaign,
    /// It is granted a pre-vote, and stands for election.
    Stand,
    /// It leads, and has said nothing for a while.
    Heartbeat,
    /// A client's command.
    Propose(u8),
    /// The message arrives.
    Deliver(Interned<Message>),
    /// This many of the oldest writes become durable, with one receipt.
    Persist(usize),
    /// It crashes, and starts again. This many of the oldest writes had become durable without a
    /// receipt.
    Crash(usize),
}

impl Event {
    /// Another one for each event that may happen to a node.
    fn key(self) -> u64 {
        let numbered = |kind: u64, number: usize| kind << 32 | number as u64;
        match self {
            Self::Deliver(message) => message.key(),
            Self::Campaign => numbered(0, 0),
            Self::Stand => numbered(1, 0),
            Self::Heartbeat => numbered(2, 0),
            Self::Propose(number) => numbered(3, usize::from(number)),
            Self::Persist(count) => numbered(4, count),
            Self::Crash(count) => numbered(5, count),
        }
    }
}

impl Bounds {
    fn config(&self) -> Config {
        let default = Config::default();
        if self.single_entries { Config { append_bytes_max: 1, ..default } } else { default }
    }

    fn last_term(&self) -> Term {
        Term::new(FIRST_TERM + self.terms)
    }
}

impl Exhaustive {
    pub(crate) fn new(bounds: Bounds, disk: Disk) -> Self {
        Self { bounds, disk, ..Self::default() }
    }

    /// The same, but only those cuts are made, to see that they make no difference.
    pub(crate) fn cutting(cuts: Cuts, bounds: Bounds, disk: Disk) -> Self {
        Self { bounds, disk, cuts, ..Self::default() }
    }

    /// The [`World::essence`] of every state, and how many states there are. All that properties
    /// speak of is in there.
    pub(crate) fn essences(&self) -> (BTreeSet<u64>, usize) {
        let mut waiting = self.init_states();
        let (mut essences, mut states) = (BTreeSet::new(), HashSet::new());
        while let Some(world) = waiting.pop() {
            if states.insert(hash_of(&world)) {
                essences.insert(world.essence());
                waiting.extend(self.next_states(&world));
            }
        }
        (essences, states.len())
    }

    /// Different nodes with different events so far.
    pub(crate) fn effects(&self) -> usize {
        self.tables.effects.load(Ordering::Relaxed)
    }

    /// What the node may do of itself.
    fn events(&self, position: usize, world: &World, mut may_happen: impl FnMut(Event)) {
        let node = world.node(position);
        let leads = node.raft.role() == RoleName::Leader;
        // One that asks has no more to gain from asking again than from an answer that comes late.
        let asks = node.raft.role() == RoleName::PreCandidate && !self.bounds.pre_votes;
        if asks {
            may_happen(Event::Stand);
        } else if node.raft.term() < self.bounds.last_term() && world.campaigns < self.bounds.campaigns {
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

    fn known(&self, node: Node) -> Interned<Known> {
        self.tables.nodes.intern(Known { node, effects: RwLock::default(), essence: OnceLock::new() })
    }

    /// What the event does to the node: worked out once, since many states share the node.
    fn effect(&self, before: Interned<Known>, event: Event) -> &'static Effect {
        let key = event.key();
        let find = |effects: &[(u64, &'static Effect)]| {
            effects.iter().find(|(known, _)| *known == key).map(|(_, effect)| *effect)
        };
        if let Some(effect) = find(&before.effects.read().expect("no panic while it is held")) {
            return effect;
        }
        let mut effects = before.effects.write().expect("no panic while it is held");
        if let Some(effect) = find(&effects) {
            return effect;
        }
        let (mut node, mut said) = (before.node.clone(), Said::default());
        let happen = || node.happen(&event, &self.bounds, self.disk, &mut said);
        let breach = catch_unwind(AssertUnwindSafe(happen)).unwrap_or(Err(Breach::Panicked)).err();
        let effect: &'static Effect = Box::leak(Box::new(Effect {
            node: self.known(node),
            messages: said.messages.into_iter().map(|message| self.tables.messages.intern(message)).collect(),
            committed: said.committed,
            breach,
        }));
        effects.push((key, effect));
        self.tables.effects.fetch_add(1, Ordering::Relaxed);
        effect
    }
}

impl Model for Exhaustive {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let nodes = std::array::from_fn(|position| self.known(Node::new(position, self.bounds.config())));
        vec![World {
            nodes,
            network: Vec::new(),
            history: self.tables.histories.intern(History::default()),
            campaigns: 0,
            entries: 0,
            crashes: 0,
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
            let position = position_of(message.to);
            if position < may_move && (self.cuts == Cuts::Nothing || !self.is_saturated(world, *message)) {
                actions.push(Action { position, event: Event::Deliver(*message) });
            }
        }
    }

    fn next_state(&self, world: &World, Action { position, event }: Action) -> Option<World> {
        let effect = self.effect(world.nodes[position], event);
        let mut next = world.clone();
        next.moved = next.moved.max(position + 1);
        match event {
            Event::Campaign => next.campaigns += 1,
            Event::Stand | Event::Persist(_) | Event::Deliver(_) => {}
            Event::Heartbeat => next.heartbeats += 1,
            Event::Propose(_) => next.entries += 1,
            Event::Crash(_) => next.crashes += 1,
        }
        next.nodes[position] = effect.node;
        let news = next.send(&effect.messages);
        let remembered = self.remember(&mut next, &effect.node.node, &effect.committed);
        next.breach = effect.breach.or(remembered.err());
        if self.cuts != Cuts::Nothing {
            self.saturate(&mut next, position, news);
        }
        if self.cuts == Cuts::Everything {
            let cut = self.cut(&mut next);
            next.breach = next.breach.or(cut.err());
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Exhaustive {
    /// Remembers the leader, and what is committed.
    fn remember(&self, world: &mut World, node: &Node, committed: &[Entry]) -> Result<(), Breach> {
        let known = &*world.history;
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
        world.history = self.tables.histories.intern(history);
        Ok(())
    }
}

impl World {
    /// All but messages, on their way or waiting for a write.
    fn essence(&self) -> u64 {
        let nodes = self.nodes.map(|known| *known.essence.get_or_init(|| known.node.essence()));
        let Self { history, campaigns, entries, crashes, heartbeats, moved, breach, .. } = self;
        hash_of(&(nodes, history, campaigns, entries, crashes, heartbeats, moved, breach))
    }

    fn node(&self, position: usize) -> &Node {
        &self.nodes[position].node
    }

    /// Puts the messages on their way. Those that were not.
    fn send(&mut self, messages: &[Interned<Message>]) -> Vec<Interned<Message>> {
        let mut news = Vec::new();
        for message in messages {
            if let Err(place) = self.network.binary_search(message) {
                self.network.insert(place, *message);
                news.push(*message);
            }
        }
        news
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Hash for Known {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.node.hash(hasher);
    }
}
