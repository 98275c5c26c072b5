//! Cores in a row, with a disk, a network and a clock that a test moves by hand; after each step
//! the safety properties of Raft (figure 3) and the promises of this core (persist before send,
//! match index truth) are checked.

use crate::codec::Reader;
use crate::raft::tests::script::checks::Truth;
use crate::raft::tests::script::describe;
use crate::raft::{
    Config, Entry, Incarnation, Input, InputError, LogId, LogIndex, LogWrite, Message, NodeId, Output, Raft,
    RaftEvent, Restored, RoleName, Setup, SnapshotChunk, SnapshotMeta, SnapshotRead, SnapshotRefusal, Time,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

/// One node: a core, what is on its disk, and its state machine, which remembers every entry
/// applied.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// `None` while it is down.
    pub(super) raft: Option<Raft>,
    pub(super) now: Time,
    pub(super) wake_at: Option<Time>,
    /// What a restart would find.
    pub(super) durable: Restored,
    /// Writes handed out and not durable.
    pub(super) writes: VecDeque<LogWrite>,
    /// Whether writes wait for `persist`.
    pub(super) holds_writes: bool,
    pub(super) applied: Vec<Entry>,
    /// Snapshot files, complete ones.
    pub(super) files: BTreeMap<LogId, Bytes>,
    /// The two newest with a marker, oldest first: older ones are removed.
    pub(super) snapshots: Vec<SnapshotMeta>,
    /// A snapshot file that arrives.
    pub(super) incoming: Vec<u8>,
    pub(super) incarnation: u64,
    pub(super) commit_seen: LogIndex,
}

/// All nodes, and the messages between them.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) config: Config,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Sent and not delivered, in the order in which they were sent.
    pub(super) network: VecDeque<Message>,
    /// Set aside by `delay`.
    pub(super) delayed: Vec<Message>,
    /// Links that lose everything.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// Damages the next complete snapshot that arrives at this node.
    pub(super) spoils: BTreeSet<NodeId>,
    pub(super) truth: Truth,
    /// What happened, in words.
    pub(super) transcript: String,
    pub(super) seed: u64,
}

/// A line of the transcript.
macro_rules! say {
    ($cluster:expr, $($format:tt)*) => {
        writeln!($cluster.transcript, $($format)*).expect("a string takes everything")
    };
}
impl Cluster {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            nodes: BTreeMap::new(),
            network: VecDeque::new(),
            delayed: Vec::new(),
            cut: BTreeSet::new(),
            spoils: BTreeSet::new(),
            truth: Truth::default(),
            transcript: String::new(),
            seed: 0,
        }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    pub(super) fn raft(&self, id: NodeId) -> &Raft {
        self.node(id).raft.as_ref().unwrap_or_else(|| panic!("node {id} is down"))
    }

    /// Starts a node from its disk.
    pub(super) fn start(&mut self, id: NodeId) {
        let (config, seed) = (self.config.clone(), self.seed);
        let node = self.nodes.entry(id).or_default();
        assert!(node.raft.is_none(), "node {id} is up");
        node.incarnation += 1;
        let restored = node.durable.clone();
        node.applied =
            restored.snapshot.as_ref().map_or(Vec::new(), |meta| entries_of(&node.files[&meta.last]));
        let seed = seed ^ (id.get() * 1_000 + node.incarnation);
        let incarnation = Incarnation::new(node.incarnation);
        let raft = Raft::new(Setup { id, incarnation, seed, config, restored, now: node.now });
        node.commit_seen = LogIndex::ZERO;
        node.raft = Some(raft.expect("what was durable makes sense"));
        self.settle(id);
    }

    /// Stops a node at once: what is not durable is lost.
    pub(super) fn crash(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        assert!(node.raft.take().is_some(), "node {id} is down already");
        node.writes.clear();
        node.incoming.clear();
        node.wake_at = None;
    }

    /// Hands an input to a node and carries out what follows.
    pub(super) fn step(&mut self, id: NodeId, input: Input) -> Result<(), InputError> {
        let result = self.running(id, |raft, now| raft.step(now, input));
        self.settle(id);
        result
    }

    /// Proposes a command and settles it.
    pub(super) fn propose(&mut self, id: NodeId, command: &Bytes) -> Result<(), InputError> {
        let result = self.running(id, |raft, now| raft.propose(now, command).map(drop));
        self.settle(id);
        result
    }

    fn running(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Raft, Time) -> Result<(), InputError>,
    ) -> Result<(), InputError> {
        let node = self.node_mut(id);
        let now = node.now;
        let result = act(node.raft.as_mut().unwrap_or_else(|| panic!("node {id} is down")), now);
        if let Err(error) = &result {
            say!(self, "  {id}: refused: {error}");
        }
        result
    }

    /// Carries outputs out until there is nothing more to do without time, disk or network.
    pub(super) fn settle(&mut self, id: NodeId) {
        for round in 0.. {
            assert!(round < 1_000, "node {id} never comes to rest");
            let node = self.node_mut(id);
            let Some(raft) = node.raft.as_mut() else { return };
            let output = raft.take_output();
            let rests =
                output.write.is_none() && output.committed.is_empty() && output.snapshot_reads.is_empty();
            node.wake_at = output.wake_at;
            self.carry_out(id, output);
            if rests && (self.node(id).holds_writes || self.node(id).writes.is_empty()) {
                break;
            }
            if !self.node(id).holds_writes {
                self.persist(id, usize::MAX);
            }
        }
        self.check(id);
    }

    fn carry_out(&mut self, id: NodeId, output: Output) {
        let Output { messages, write, committed, reads, snapshot_reads, events, wake_at: _ } = output;
        for event in events {
            self.note(id, event);
        }
        for message in messages {
            self.truth.check_message(&message, &self.nodes);
            self.network.push_back(message);
        }
        if let Some(write) = write {
            say!(self, "  {id}: writes {}", describe::records(write.records()));
            self.node_mut(id).writes.push_back(write);
        }
        let commit = self.raft(id).commit_index();
        if commit > self.node(id).commit_seen {
            say!(self, "  {id}: commit {commit}");
            self.node_mut(id).commit_seen = commit;
        }
        if let Some(last) = committed.last().map(Entry::index) {
            let node = self.node_mut(id);
            for entry in committed {
                let before = node.applied.last().map_or(LogIndex::ZERO, Entry::index);
                assert!(entry.index() == before.next(), "node {id} applies {} after {before}", entry.index());
                node.applied.push(entry);
            }
            let now = node.now;
            let raft = node.raft.as_mut().expect("it is up");
            raft.step(now, Input::Applied(last)).expect("always taken in");
        }
        for ready in reads {
            say!(self, "  {id}: read {} at {}", ready.id, ready.index);
            self.truth.check_read(ready);
        }
        for read in snapshot_reads {
            self.read_chunk(id, read);
        }
    }

    fn note(&mut self, id: NodeId, event: RaftEvent) {
        match event {
            RaftEvent::RoleChanged { role, hint } => {
                let leader = hint.leader.map_or(String::new(), |leader| format!(" of {leader}"));
                let of = if role == RoleName::Follower { leader } else { String::new() };
                say!(self, "  {id}: {}{of} in term {}", format!("{role:?}").to_lowercase(), hint.term);
            }
            RaftEvent::MembershipChanged { membership, id: at, committed } => {
                let state = if committed { "committed" } else { "in force" };
                say!(self, "  {id}: membership {at} {state}: {}", describe::membership(&membership));
            }
            RaftEvent::MembershipCommitted { membership, id: at } => {
                let membership = describe::membership(&membership);
                say!(self, "  {id}: membership {at} committed, not in force: {membership}");
            }
            RaftEvent::SnapshotUnmarked(last) => say!(self, "  {id}: snapshot {last} is not needed"),
            RaftEvent::ReadsRefused(reads) => say!(self, "  {id}: reads refused: {reads:?}"),
            RaftEvent::SnapshotRepeated { peer, times } => {
                say!(self, "  {id}: {peer} needs one snapshot after the other: {times}");
            }
            RaftEvent::ReadsPutOff { reads, why } => say!(self, "  {id}: reads put off: {reads:?}, {why:?}"),
            RaftEvent::SnapshotInstalled(meta) => {
                say!(self, "  {id}: snapshot {} installed", meta.last);
                let node = self.node_mut(id);
                node.applied = entries_of(&node.files[&meta.last]);
            }
            RaftEvent::Compacted { through, snapshot } => {
                say!(self, "  {id}: log starts after {through}, snapshot {snapshot}");
                self.node_mut(id).durable.entries.retain(|entry| entry.index() > through);
            }
            RaftEvent::SnapshotWanted => say!(self, "  {id}: a newer snapshot is wanted"),
            RaftEvent::SnapshotNotTaken { peer, why, times } => {
                say!(self, "  {id}: snapshot refused by {peer}, time {times}: {why}");
            }
            RaftEvent::Withdrawn(why) => say!(self, "  {id}: withdraws: {why:?}"),
            RaftEvent::PeerWithdrew { peer, why } => say!(self, "  {id}: {peer} withdrew: {why:?}"),
            RaftEvent::BadMessage { from, reason } => say!(self, "  {id}: bad message from {from}: {reason}"),
        }
    }

    fn read_chunk(&mut self, id: NodeId, read: SnapshotRead) {
        let node = self.node_mut(id);
        let meta = node.snapshots.iter().find(|meta| meta.last == read.snapshot).cloned();
        let chunk = meta.map(|meta| {
            let file = &node.files[&meta.last];
            let from = usize::try_from(read.offset).expect("small");
            let to = file.len().min(from + usize::try_from(read.bytes_max).expect("small"));
            SnapshotChunk {
                snapshot: Box::new(meta),
                offset: read.offset,
                data: file.slice(from..to),
                done: to == file.len(),
            }
        });
        let now = node.now;
        let input = Input::SnapshotChunkRead { to: read.to, session: read.session, chunk };
        node.raft.as_mut().expect("it is up").step(now, input).expect("always taken in");
    }

    /// Makes up to `count` writes durable, in order, each with its receipt.
    pub(super) fn persist(&mut self, id: NodeId, count: usize) {
        for _ in 0..count {
            let spoils = self.spoils.remove(&id);
            let node = self.node_mut(id);
            let Some(write) = node.writes.pop_front() else { break };
            let refused = node.store(&write, spoils);
            let now = node.now;
            let raft = node.raft.as_mut().expect("it is up");
            if let Some(last) = refused {
                raft.step(now, Input::SnapshotRefused(last, SnapshotRefusal::Content))
                    .expect("always taken in");
            }
            raft.step(now, Input::Durable(write.into_durable())).expect("always taken in");
        }
    }

    /// Writes a snapshot of what the node has applied, and says so.
    pub(super) fn snapshot(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let last = node.applied.last().expect("a snapshot of something").id();
        let body: Vec<u8> = node.applied.iter().flat_map(|entry| entry.encoded().to_vec()).collect();
        let (membership, membership_id) = node.raft.as_ref().expect("it is up").membership_at(last.index);
        let membership = membership.clone();
        let meta =
            SnapshotMeta { last, membership, membership_id, bytes: body.len() as u64, hash: hash(&body) };
        node.files.insert(last, Bytes::from(body));
        let _ = self.step(id, Input::SnapshotStored(Box::new(meta)));
    }

    /// Delivers the message at `position` of the network, through its encoding.
    pub(super) fn deliver_at(&mut self, position: usize) {
        let message = self.network.remove(position).expect("it is there");
        let (from, to) = (message.from, message.to);
        let is_up = self.nodes.get(&to).is_some_and(|node| node.raft.is_some());
        if self.cut.contains(&(from, to)) || !is_up {
            say!(self, "{} (lost)", describe::message(&message));
            return;
        }
        say!(self, "{}", describe::message(&message));
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let received = Message::decode(Bytes::from(bytes));
        assert_eq!(received.as_ref(), Ok(&message), "what is sent can be received");
        self.step(to, Input::Message(message)).expect("messages are always taken in");
    }

    /// Delivers everything, and what is sent in answer, until the network is silent.
    pub(super) fn deliver_all(&mut self) {
        for count in 0.. {
            assert!(count < 10_000, "the network is never silent");
            if self.network.is_empty() {
                break;
            }
            self.deliver_at(0);
        }
    }

    /// Moves a node's clock, waking it whenever it asked to be woken.
    pub(super) fn tick(&mut self, id: NodeId, micros: u64) {
        let until = self.node(id).now.plus(micros);
        let mut idle = 0;
        while let Some(at) = self.node(id).wake_at
            && at <= until
            && self.node(id).raft.is_some()
        {
            let node = self.node_mut(id);
            idle = if at <= node.now { idle + 1 } else { 0 };
            assert!(idle < 3, "node {id} asks to be woken without end");
            node.now = node.now.max(at);
            self.step(id, Input::Wake).expect("always taken in");
        }
        self.node_mut(id).now = until;
    }

    /// Moves all clocks together and delivers at once whatever is sent.
    pub(super) fn run(&mut self, micros: u64) {
        let until: BTreeMap<NodeId, Time> =
            self.nodes.iter().map(|(id, node)| (*id, node.now.plus(micros))).collect();
        let mut left = micros;
        self.deliver_all();
        loop {
            let due = self.nodes.values().filter(|node| node.raft.is_some());
            let next = due.filter_map(|node| node.wake_at.map(|at| at.since(node.now))).min();
            let Some(step) = next.filter(|step| *step <= left) else { break };
            left -= step.max(1).min(left);
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            for id in &ids {
                self.tick(*id, step.max(1));
            }
            self.deliver_all();
            if left == 0 {
                break;
            }
        }
        for (id, until) in until {
            let node = self.node_mut(id);
            node.now = node.now.max(until);
        }
    }

    fn check(&mut self, id: NodeId) {
        let Self { truth, nodes, .. } = self;
        truth.check_node(id, nodes);
        let node = self.node_mut(id);
        let commit = node.raft.as_ref().map_or(LogIndex::ZERO, Raft::commit_index);
        assert!(commit >= node.commit_seen, "the commit index of {id} goes back");
        node.commit_seen = commit;
    }
}

impl Node {
    /// Carries a write out on the disk. Names the snapshot that did not verify, if one did not.
    fn store(&mut self, write: &LogWrite, spoils: bool) -> Option<LogId> {
        let records = write.records();
        if let Some(hard_state) = records.hard_state {
            assert!(hard_state.term >= self.durable.hard_state.term, "a term on disk goes back");
            self.durable.hard_state = hard_state;
        }
        for chunk in &records.snapshot_chunks {
            if chunk.offset == 0 {
                self.incoming.clear();
            }
            assert_eq!(chunk.offset, self.incoming.len() as u64, "chunks follow each other");
            self.incoming.extend_from_slice(&chunk.data);
            if chunk.done {
                let body = std::mem::take(&mut self.incoming);
                if spoils || body.len() as u64 != chunk.snapshot.bytes || hash(&body) != chunk.snapshot.hash {
                    return Some(chunk.snapshot.last);
                }
                self.files.insert(chunk.snapshot.last, Bytes::from(body));
            }
        }
        if let Some(from) = records.truncate_from {
            self.durable.entries.retain(|entry| entry.index() < from);
        }
        if let Some(meta) = &records.snapshot {
            assert!(self.files.contains_key(&meta.last), "a marker for a file that is there");
            self.durable.snapshot = Some((**meta).clone());
            self.snapshots.push((**meta).clone());
            if self.snapshots.len() > 2 {
                self.snapshots.remove(0);
            }
            if self.durable.entries.last().is_some_and(|last| last.index() < meta.last.index) {
                self.durable.entries.clear();
            }
        }
        for entry in &records.entries {
            let log = &mut self.durable;
            let base = log.snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index);
            let last = log.entries.last().map_or(base, Entry::index);
            assert!(entry.index() == last.next(), "{} is written after {last}", entry.index());
            log.entries.push(entry.clone());
        }
        None
    }

    /// The entry on disk at `index`; `None` if it is below the log, or beyond it.
    pub(super) fn durable_entry(&self, index: LogIndex) -> Option<&Entry> {
        self.durable.entries.iter().find(|entry| entry.index() == index)
    }
}

/// The entries of a snapshot file.
pub(super) fn entries_of(body: &Bytes) -> Vec<Entry> {
    let mut reader = Reader::new(body.clone());
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push(Entry::decode(&mut reader).expect("written whole"));
    }
    entries
}

/// Any function that tells bodies apart.
fn hash(body: &[u8]) -> u128 {
    body.iter().fold(7, |hash: u128, byte| hash.wrapping_mul(0x100_0000_01b3).wrapping_add(u128::from(*byte)))
}
