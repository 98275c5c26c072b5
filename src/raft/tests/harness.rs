//! A small deterministic cluster in memory: cores, a message queue, and disks that lose what was
//! not synced.
//!
//! Nothing happens by itself. [`Cluster::step`] feeds one input to one node and settles it; its
//! messages go to [`Cluster::network`], its writes to the node's queue. [`Cluster::run`] delivers
//! and syncs until nothing is left to do; [`Cluster::advance`] moves the clock. Every output is
//! checked against what all nodes have done before ([`Cluster::check`]): election safety, log
//! matching, leader completeness, state machine safety.

use crate::raft::{
    AppendClock, Body, Change, Config, Durable, Entry, EntryKind, HardState, Incarnation, Input, InputError,
    LogId, LogIndex, LogRecords, LogWrite, Member, Membership, Message, NodeId, Raft, RaftEvent, ReadId,
    ReadReady, ReadRound, Restored, RoleName, Session, Setup, SnapshotChunk, SnapshotMeta, SnapshotRead,
    SnapshotRefusal, StoreId, Term, Time,
};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

/// A node's id.
pub(in crate::raft) fn id(number: u64) -> NodeId {
    NodeId::new(number)
}

/// An index.
pub(in crate::raft) fn index(number: u64) -> LogIndex {
    LogIndex::new(number)
}

/// A log id, written as the paper does: index and term.
pub(in crate::raft) fn log_id(number: u64, term: u64) -> LogId {
    LogId::new(Term::new(term), LogIndex::new(number))
}

/// A command entry.
pub(in crate::raft) fn entry(number: u64, term: u64) -> Entry {
    Entry::new(log_id(number, term), EntryKind::Command, format!("{number}@{term}").as_bytes())
}

/// A member's description.
pub(in crate::raft) fn member(number: u64) -> Member {
    Member {
        name: format!("n{number}"),
        raft_addr: format!("n{number}:1"),
        http_addr: format!("n{number}:2"),
        store_id: StoreId(u128::from(number)),
    }
}

/// A membership of these voters alone.
pub(in crate::raft) fn voters(numbers: impl IntoIterator<Item = u64>) -> Membership {
    let numbers: Vec<u64> = numbers.into_iter().collect();
    Membership {
        voters: numbers.iter().map(|number| id(*number)).collect(),
        outgoing: None,
        learners: BTreeMap::new(),
        members: numbers.iter().map(|number| (id(*number), member(*number))).collect(),
        next_member_id: id(numbers.iter().max().copied().unwrap_or(0) + 1),
    }
}

/// The durable state of a cluster that was made with this membership: one entry, 1@1.
pub(in crate::raft) fn made_with(membership: &Membership) -> Restored {
    Restored {
        hard_state: HardState { term: Term::new(1), voted_for: None },
        snapshot: None,
        entries: vec![Entry::new(log_id(1, 1), EntryKind::Membership, &membership.encode())],
        commit: LogIndex::ZERO,
        promised_micros: 0,
    }
}

/// What is durable on a node: what a restart finds.
#[derive(Clone, Debug, Default)]
pub(in crate::raft) struct Disk {
    /// Term, vote, snapshot marker and log.
    pub restored: Restored,
    /// Bytes of the snapshot that is arriving.
    pub incoming: Vec<u8>,
    /// How many bytes of a snapshot have been there since the start, at most.
    pub arrived: BTreeMap<LogId, usize>,
    /// Snapshot files, by their last entry.
    pub files: BTreeMap<LogId, (SnapshotMeta, Vec<u8>)>,
    /// The next complete snapshot does not verify.
    pub refuses_snapshot: bool,
    /// So many chunks of a snapshot fit on it; `None`: all.
    pub stores_chunks: Option<usize>,
    /// Chunks of the incoming snapshot so far.
    chunks: usize,
}

impl Disk {
    /// Carries a write out; the last entry of a complete snapshot that did not verify, if one did
    /// not.
    pub(in crate::raft) fn write(&mut self, records: &LogRecords) -> Option<(LogId, SnapshotRefusal)> {
        let mut refused = None;
        if let Some(hard_state) = records.hard_state {
            assert!(hard_state.term >= self.restored.hard_state.term, "the term on disk went back");
            self.restored.hard_state = hard_state;
        }
        for chunk in &records.snapshot_chunks {
            if chunk.offset == 0 {
                self.incoming.clear();
            }
            self.chunks = if chunk.offset == 0 { 1 } else { self.chunks + 1 };
            let fits = refused.is_none() && self.stores_chunks.is_none_or(|most| self.chunks <= most);
            if fits {
                assert!(chunk.snapshot == records.snapshot_chunks[0].snapshot, "chunks of one snapshot");
                assert_eq!(self.incoming.len() as u64, chunk.offset, "chunks are contiguous");
                self.incoming.extend_from_slice(&chunk.data);
                let arrived = self.arrived.entry(chunk.snapshot.last).or_default();
                *arrived = (*arrived).max(self.incoming.len());
            } else {
                refused = Some((chunk.snapshot.last, SnapshotRefusal::NoRoom));
            }
            if chunk.done && core::mem::take(&mut self.refuses_snapshot) {
                refused = Some((chunk.snapshot.last, SnapshotRefusal::Content));
            }
            if chunk.done && refused.is_some() {
                assert!(records.entries.is_empty());
                return refused;
            }
            if chunk.done {
                let body = core::mem::take(&mut self.incoming);
                self.files.insert(chunk.snapshot.last, ((*chunk.snapshot).clone(), body));
            }
        }
        let entries = &mut self.restored.entries;
        if let Some(from) = records.truncate_from {
            entries.retain(|entry| entry.index() < from);
        }
        if let Some(snapshot) = &records.snapshot {
            assert!(self.files.contains_key(&snapshot.last), "a marker only for a complete file");
            self.restored.snapshot = Some((**snapshot).clone());
        }
        for entry in &records.entries {
            let before = entries.last().map(Entry::index);
            let before = before.or(self.restored.snapshot.as_ref().map(|meta| meta.last.index));
            assert_eq!(
                entry.index(),
                before.unwrap_or(LogIndex::ZERO).next(),
                "the log on disk is contiguous"
            );
            entries.push(entry.clone());
        }
        refused
    }
}

/// A node: its core while it runs, its disk, and what it was told.
#[derive(Debug, Default)]
pub(in crate::raft) struct Node {
    /// `None` while it is down.
    pub raft: Option<Raft>,
    /// What is durable.
    pub disk: Disk,
    /// Handed out, not synced.
    pub writes: VecDeque<LogWrite>,
    /// Whether [`Cluster::run`] leaves its writes alone.
    pub disk_held: bool,
    /// Entries applied since the last start, or since a snapshot was installed.
    pub applied: Vec<Entry>,
    /// The last index applied, snapshots included.
    pub applied_index: LogIndex,
    /// Reads that may be served.
    pub reads: Vec<ReadReady>,
    /// Its core asked for a newer snapshot.
    pub wants_snapshot: bool,
    /// Events since the last start.
    pub events: Vec<RaftEvent>,
    /// Chunks that it was asked to read, unanswered.
    pub snapshot_reads: Vec<SnapshotRead>,
    /// When it wants to be woken.
    pub wake_at: Option<Time>,
    incarnation: u64,
}

/// A cluster in memory.
#[derive(Debug, Default)]
pub(in crate::raft) struct Cluster {
    /// Every node, by its number.
    pub nodes: BTreeMap<u64, Node>,
    /// Messages on their way, oldest first.
    pub network: VecDeque<Message>,
    /// Pairs (from, to) whose messages are lost.
    pub cut: BTreeSet<(u64, u64)>,
    /// Messages delivered so far.
    pub delivered: u64,
    /// The true time, microseconds.
    pub now: u64,
    /// By how many millionths the clocks of nodes are too fast (or too slow); the others are right.
    pub drift_ppm: BTreeMap<u64, i64>,
    /// Used for nodes that start from here on.
    pub config: Config,
    /// Nodes whose disks do not hold what they acknowledged, because the test took it from them.
    pub robbed: BTreeSet<u64>,
    /// Who led which term.
    leaders: BTreeMap<Term, NodeId>,
    /// What any node committed at each index.
    committed: BTreeMap<LogIndex, Entry>,
    /// When the first node applied each index. From then on its client may know of it.
    pub first_applied: BTreeMap<LogIndex, u64>,
    /// What was known to be committed when a read began: the least it has to see. Reads of
    /// [`Cluster::read`] only.
    reads: BTreeMap<ReadId, LogIndex>,
}

impl Cluster {
    /// Voters 1 to `count`. They run, have entry 1@1, and none leads.
    pub(in crate::raft) fn new(count: u64) -> Self {
        Self::with(count, Config::default())
    }

    /// The same with other limits.
    pub(in crate::raft) fn with(count: u64, config: Config) -> Self {
        let mut cluster = Self { config, now: 1_000_000, ..Self::default() };
        for number in 1..=count {
            cluster.add(number, made_with(&voters(1..=count)));
        }
        cluster
    }

    /// Adds a node with this on its disk, and starts it.
    pub(in crate::raft) fn add(&mut self, number: u64, restored: Restored) {
        let disk = Disk { restored, ..Disk::default() };
        self.nodes.insert(number, Node { disk, ..Node::default() });
        self.restart(number);
    }

    /// What a node's clock shows.
    pub(in crate::raft) fn clock(&self, number: u64) -> Time {
        let rate = 1_000_000 + self.drift_ppm.get(&number).copied().unwrap_or_default();
        Time::new(self.now * rate.unsigned_abs() / 1_000_000)
    }

    /// The running core of a node.
    pub(in crate::raft) fn raft(&self, number: u64) -> &Raft {
        self.nodes[&number].raft.as_ref().expect("it runs")
    }

    /// A node.
    pub(in crate::raft) fn node(&mut self, number: u64) -> &mut Node {
        self.nodes.get_mut(&number).expect("there is such a node")
    }

    /// Stops a node; what was not synced is lost.
    pub(in crate::raft) fn crash(&mut self, number: u64) {
        let node = self.node(number);
        let (disk, incarnation, disk_held) =
            (core::mem::take(&mut node.disk), node.incarnation, node.disk_held);
        *node = Node { disk, incarnation, disk_held, ..Node::default() };
    }

    /// Stops a node if it runs, and starts it from its disk.
    pub(in crate::raft) fn restart(&mut self, number: u64) {
        self.crash(number);
        let (config, now) = (self.config.clone(), self.clock(number));
        let node = self.node(number);
        node.incarnation += 1;
        node.disk.incoming.clear();
        node.disk.arrived.clear();
        let incarnation = Incarnation::new(node.incarnation);
        let restored = node.disk.restored.clone();
        // The next start keeps what this one promises.
        node.disk.restored.promised_micros = config.promise_micros();
        node.applied_index = restored.snapshot.as_ref().map_or(LogIndex::ZERO, |meta| meta.last.index);
        let seed = number * 1000 + node.incarnation;
        let raft = Raft::new(Setup { id: id(number), incarnation, seed, config, restored, now });
        node.raft = Some(raft.expect("what was durable can be restored"));
        self.settle(number);
    }

    /// Feeds one input to a node and settles it.
    pub(in crate::raft) fn step(&mut self, number: u64, input: Input) -> Result<(), InputError> {
        let now = self.clock(number);
        let result = self.feed(number, now, input);
        self.settle(number);
        result
    }

    /// Feeds one input without settling it: several may be settled at once.
    pub(in crate::raft) fn feed(&mut self, number: u64, now: Time, input: Input) -> Result<(), InputError> {
        let node = self.node(number);
        node.raft.as_mut().map_or(Ok(()), |raft| raft.step(now, input))
    }

    /// Takes a node's output: messages to the network, writes to its queue; applies what is
    /// committed.
    pub(in crate::raft) fn settle(&mut self, number: u64) {
        let now = self.clock(number);
        loop {
            let node = self.nodes.get_mut(&number).expect("there is such a node");
            let Some(raft) = &mut node.raft else { return };
            let output = raft.take_output();
            node.writes.extend(output.write);
            for read in &output.reads {
                let least = self.reads.get(&read.id).copied().unwrap_or_default();
                assert!(read.index >= least, "linearizability: a read sees {} and not {least}", read.index);
            }
            node.reads.extend(output.reads);
            node.snapshot_reads.extend(output.snapshot_reads);
            node.wake_at = output.wake_at;
            for event in output.events {
                if let RaftEvent::SnapshotInstalled(meta) = &event {
                    node.applied.clear();
                    node.applied_index = meta.last.index;
                }
                if let RaftEvent::Compacted { through, .. } = &event {
                    node.disk.restored.entries.retain(|entry| entry.index() > *through);
                }
                node.wants_snapshot |= event == RaftEvent::SnapshotWanted;
                node.events.push(event);
            }
            for message in &output.messages {
                check_said(message, &node.disk);
            }
            self.network.extend(output.messages);
            for entry in &output.committed {
                assert_eq!(entry.index(), node.applied_index.next(), "entries are applied in order");
                node.applied_index = entry.index();
                self.first_applied.entry(entry.index()).or_insert(self.now);
                let known = self.committed.entry(entry.index()).or_insert_with(|| entry.clone());
                assert_eq!(known, entry, "state machine safety: node {number} applies another entry");
            }
            let progressed = !output.committed.is_empty();
            node.applied.extend(output.committed);
            if progressed {
                let applied = node.applied_index;
                node.raft.as_mut().expect("it runs").step(now, Input::Applied(applied)).unwrap();
            }
            self.check(number);
            if !progressed {
                return;
            }
        }
    }

    /// Makes a node's oldest write durable and hands the receipt back; `false` if there is none.
    pub(in crate::raft) fn sync_one(&mut self, number: u64) -> bool {
        let node = self.node(number);
        let Some(write) = node.writes.pop_front() else { return false };
        let refused = node.disk.write(write.records());
        if let Some((last, why)) = refused {
            let now = self.clock(number);
            self.feed(number, now, Input::SnapshotRefused(last, why)).unwrap();
        }
        self.step(number, Input::Durable(write.into_durable())).unwrap();
        true
    }

    /// Makes all of a node's writes durable, with one receipt for the newest.
    pub(in crate::raft) fn sync(&mut self, number: u64) -> bool {
        let mut receipt: Option<Durable> = None;
        while let Some(write) = self.node(number).writes.pop_front() {
            let refused = self.node(number).disk.write(write.records());
            if let Some((last, why)) = refused {
                let now = self.clock(number);
                self.feed(number, now, Input::SnapshotRefused(last, why)).unwrap();
            }
            receipt = Some(write.into_durable());
        }
        let Some(receipt) = receipt else { return false };
        self.step(number, Input::Durable(receipt)).unwrap();
        true
    }

    /// Delivers a message, unless it is cut off or its addressee is down.
    pub(in crate::raft) fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from.get(), message.to.get());
        let is_up = self.nodes.get(&to).is_some_and(|node| node.raft.is_some());
        if !self.cut.contains(&(from, to)) && is_up {
            self.delivered += 1;
            self.step(to, Input::Message(message)).unwrap();
        }
    }

    /// A message from anybody, delivered at once.
    pub(in crate::raft) fn say(&mut self, from: u64, to: u64, term: u64, body: Body) {
        self.deliver(Message { from: id(from), to: id(to), term: Term::new(term), body });
    }

    /// An AppendEntries from anybody (session 1, no round), delivered at once.
    pub(in crate::raft) fn append(
        &mut self,
        (from, to, term): (u64, u64, u64),
        prev: LogId,
        entries: Vec<Entry>,
        commit: u64,
    ) {
        let (commit, round) = (index(commit), ReadRound::ZERO);
        let acknowledged = LogId::ZERO;
        let (session, clock) = (Session::new(1), AppendClock::default());
        let body = Body::AppendEntries { session, prev, acknowledged, entries, commit, round, clock };
        self.say(from, to, term, body);
    }

    /// The last thing that one node said to another, of what is still on its way.
    pub(in crate::raft) fn last_said(&self, from: u64, to: u64) -> Option<&Body> {
        self.between(from, to).last().copied()
    }

    /// The whole log of a node, as far as it is in memory.
    pub(in crate::raft) fn log(&self, number: u64) -> Vec<LogId> {
        self.raft(number).log_after(LogIndex::ZERO).iter().map(Entry::id).collect()
    }

    /// Answers the chunk reads of a node from its snapshot files.
    pub(in crate::raft) fn serve_snapshot_reads(&mut self, number: u64) -> bool {
        let reads = core::mem::take(&mut self.node(number).snapshot_reads);
        let progressed = !reads.is_empty();
        for SnapshotRead { to, session, snapshot, offset, bytes_max } in reads {
            let chunk = self.node(number).disk.files.get(&snapshot).map(|(meta, body)| {
                let from = usize::try_from(offset).unwrap();
                let length = usize::try_from(bytes_max).unwrap().min(body.len() - from);
                let data = Bytes::copy_from_slice(&body[from..from + length]);
                SnapshotChunk {
                    snapshot: Box::new(meta.clone()),
                    offset,
                    data,
                    done: from + length == body.len(),
                }
            });
            self.step(number, Input::SnapshotChunkRead { to, session, chunk }).unwrap();
        }
        progressed
    }

    /// Syncs and delivers, in order, until nothing is left to do. The clock stands still.
    pub(in crate::raft) fn run(&mut self) {
        for _ in 0..100_000 {
            let numbers: Vec<u64> = self.nodes.keys().copied().collect();
            let mut progressed = false;
            for number in numbers {
                progressed |= !self.nodes[&number].disk_held && self.sync(number);
                progressed |= self.serve_snapshot_reads(number);
                if core::mem::take(&mut self.node(number).wants_snapshot) {
                    self.snapshot(number, 30);
                    progressed = true;
                }
            }
            if let Some(message) = self.network.pop_front() {
                self.deliver(message);
                progressed = true;
            }
            if !progressed {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Moves the clock on by `micros`, in steps of a millisecond. Wakes the nodes that want to be
    /// woken, and runs.
    pub(in crate::raft) fn advance(&mut self, micros: u64) {
        let end = self.now + micros;
        while self.now < end {
            self.now = (self.now + 1_000).min(end);
            let due = |(number, node): &(&u64, &Node)| {
                node.raft.is_some() && node.wake_at.is_some_and(|at| at <= self.clock(**number))
            };
            let numbers: Vec<u64> = self.nodes.iter().filter(due).map(|(number, _)| *number).collect();
            for number in numbers {
                self.step(number, Input::Wake).unwrap();
            }
            self.run();
        }
    }

    /// Has this node's election timeout pass, and runs: it leads afterwards.
    pub(in crate::raft) fn elect(&mut self, number: u64) {
        self.now += 2 * self.config.election_timeout_micros;
        self.step(number, Input::Wake).unwrap();
        self.run();
        assert_eq!(self.raft(number).role(), RoleName::Leader, "node {number} was elected");
    }

    /// Has this node's election timeout pass; its messages and writes wait.
    pub(in crate::raft) fn time_out(&mut self, number: u64) {
        self.now += 2 * self.config.election_timeout_micros;
        self.step(number, Input::Wake).unwrap();
    }

    /// Proposes a command at a node.
    pub(in crate::raft) fn propose(&mut self, number: u64, data: &str) -> Result<(), InputError> {
        let (now, data) = (self.clock(number), Bytes::copy_from_slice(data.as_bytes()));
        let raft = &mut self.node(number).raft;
        let result = raft.as_mut().map_or(Ok(()), |raft| raft.propose(now, &data).map(drop));
        self.settle(number);
        result
    }

    /// Asks a node for a change of membership.
    pub(in crate::raft) fn change(&mut self, number: u64, change: Change) -> Result<(), InputError> {
        self.step(number, Input::ChangeMembership(change.into()))
    }

    /// Takes a snapshot of what a node has applied, of `bytes` bytes, and tells the core.
    pub(in crate::raft) fn snapshot(&mut self, number: u64, bytes: usize) {
        let applied = self.nodes[&number].applied_index;
        let raft = self.raft(number);
        let Some(term) = raft.term_at(applied) else { return };
        let (membership, membership_id) = raft.membership_at(applied);
        let last = LogId::new(term, applied);
        let membership = membership.clone();
        let meta = SnapshotMeta { last, membership, membership_id, bytes: bytes as u64, hash: 0 };
        // The same state again is the same file.
        let file = self.node(number).disk.files.entry(last).or_insert_with(|| (meta, vec![7; bytes]));
        let meta = file.0.clone();
        self.step(number, Input::SnapshotStored(Box::new(meta))).unwrap();
    }

    /// Cuts a node off from all others.
    pub(in crate::raft) fn isolate(&mut self, number: u64) {
        for other in self.nodes.keys().filter(|other| **other != number) {
            self.cut.insert((number, *other));
            self.cut.insert((*other, number));
        }
    }

    /// Restores all connections.
    pub(in crate::raft) fn heal(&mut self) {
        self.cut.clear();
    }

    /// The node that leads in the highest term.
    pub(in crate::raft) fn leader(&self) -> Option<u64> {
        let running = self.nodes.iter().filter_map(|(number, node)| Some((*number, node.raft.as_ref()?)));
        let leading = running.filter(|(_, raft)| raft.role() == RoleName::Leader);
        leading.max_by_key(|(_, raft)| raft.term()).map(|(number, _)| number)
    }

    /// The commands that a node has applied since it started.
    pub(in crate::raft) fn commands(&self, number: u64) -> Vec<Bytes> {
        let applied = self.nodes[&number].applied.iter();
        applied.filter(|entry| entry.kind() == EntryKind::Command).map(Entry::data).collect()
    }

    /// The network's messages from one node to another, in words that fit the assertion at hand.
    pub(in crate::raft) fn between(&self, from: u64, to: u64) -> Vec<&Body> {
        let matches = self.network.iter().filter(|m| m.from == id(from) && m.to == id(to));
        matches.map(|message| &message.body).collect()
    }

    /// Loses everything that is on its way.
    pub(in crate::raft) fn lose_messages(&mut self) {
        self.network.clear();
    }

    /// Checks the four safety properties of figure 3 as far as this node's state concerns them.
    pub(in crate::raft) fn check(&mut self, number: u64) {
        self.check_freshness(number);
        let raft = self.nodes[&number].raft.as_ref().expect("it runs");
        if raft.role() == RoleName::Leader {
            let known = *self.leaders.entry(raft.term()).or_insert_with(|| raft.id());
            assert_eq!(known, raft.id(), "election safety: two leaders in term {}", raft.term());
            // Leader completeness: whatever was committed in earlier terms is in its log.
            for (at, committed) in self.committed.range(raft.shared.log.base().index.next()..) {
                if committed.term() < raft.term() {
                    assert_eq!(
                        raft.term_at(*at),
                        Some(committed.term()),
                        "leader completeness: {number} lacks {at}"
                    );
                }
            }
            for peer in raft.progress() {
                let matched =
                    LogId::new(raft.term_at(peer.match_index).unwrap_or_default(), peer.match_index);
                let disk = self.nodes.get(&peer.id.get()).map(|node| &node.disk.restored);
                let at = raft.shared.log.base().index.max(LogIndex::new(1));
                if matched.index >= at && !self.robbed.contains(&peer.id.get()) {
                    assert!(
                        disk.is_some_and(|disk| is_on(disk, matched)),
                        "{} does not have {matched} on disk",
                        peer.id
                    );
                }
            }
        }
    }

    /// Begins a read at a node, and remembers what it has to see.
    pub(in crate::raft) fn read(&mut self, number: u64, read: u64) -> Result<(), InputError> {
        let least = self.committed.keys().next_back().copied().unwrap_or_default();
        self.reads.insert(ReadId::new(read), least);
        self.step(number, Input::Read(ReadId::new(read)))
    }

    /// Log matching between all pairs of running nodes: where index and term agree, everything
    /// before agrees.
    pub(in crate::raft) fn check_log_matching(&self) {
        let running: Vec<&Raft> = self.nodes.values().filter_map(|node| node.raft.as_ref()).collect();
        for (position, left) in running.iter().enumerate() {
            for right in &running[position + 1..] {
                let left_log = left.log_after(LogIndex::ZERO);
                let right_log = right.log_after(LogIndex::ZERO);
                let first = left_log.first().map(Entry::index).max(right_log.first().map(Entry::index));
                let Some(first) = first else { continue };
                let upper = |log: &[Entry]| -> Vec<Entry> {
                    log.iter().filter(|entry| entry.index() >= first).cloned().collect()
                };
                let (left_log, right_log) = (upper(&left_log), upper(&right_log));
                let agrees = |(a, b): &(&Entry, &Entry)| a.id() == b.id();
                let pairs: Vec<_> = left_log.iter().zip(&right_log).collect();
                let last_agreeing = pairs.iter().rposition(agrees);
                for (a, b) in &pairs[..last_agreeing.map_or(0, |last| last + 1)] {
                    assert_eq!(a, b, "log matching between {} and {}", left.id(), right.id());
                }
            }
        }
    }
}

/// Whether this entry is durable here, in the log or under a snapshot.
fn is_on(disk: &Restored, id: LogId) -> bool {
    disk.snapshot.as_ref().is_some_and(|meta| meta.last.index >= id.index)
        || disk.entries.iter().any(|entry| entry.id() == id)
}

/// Persist before send: what a message says of its sender's durable state is on the sender's disk.
fn check_said(message: &Message, Disk { restored: disk, arrived, .. }: &Disk) {
    let HardState { term, voted_for } = disk.hard_state;
    match &message.body {
        Body::VoteGranted => {
            assert!(
                term > message.term || (term, voted_for) == (message.term, Some(message.to)),
                "{message:?}"
            );
        }
        Body::RequestVote { .. } => {
            assert!(
                term > message.term || (term, voted_for) == (message.term, Some(message.from)),
                "{message:?}"
            );
        }
        Body::AppendEntries { .. } | Body::AppendRejected { .. } | Body::VoteRejected => {
            assert!(term >= message.term, "{message:?} rests on a term that is not durable");
        }
        Body::AppendAccepted { match_index, .. } | Body::SnapshotInstalled { match_index, .. } => {
            assert!(term >= message.term, "{message:?}");
            let last = disk.entries.last().map(Entry::index);
            let covered = disk.snapshot.as_ref().map(|meta| meta.last.index);
            assert!(*match_index <= last.max(covered).unwrap_or_default(), "{message:?} is not on disk");
        }
        Body::SnapshotProgress { snapshot, next_offset, .. } => {
            let there = arrived.get(snapshot).copied().unwrap_or_default();
            assert!(*next_offset <= there as u64, "{message:?}, and {there} were there");
        }
        _ => {}
    }
}
