//! Replicas wired together in virtual time: a network that can be cut, and storage that is durable
//! at once.

mod agreement;
mod disk_pace;
mod failover;
mod full_disk;
mod leases;
mod levels;
mod requests;
mod security;
mod snapshots;
mod watches;

use crate::kv::{Op, Store};
use crate::raft::{
    Change, Entry, EntryKind, HardState, Incarnation, LogId, LogIndex, Member, Membership, NodeId, Restored,
    RoleName, SnapshotMeta, StoreId, Term, Time,
};
use crate::replica::{
    Actions, ClientReply, ClientRequest, Event, Level, Notice, PeerMessage, Replica, ReplicaConfig,
    ReplicaStart, RequestId, StorageEvent, StorageRequest, UnreadSnapshot,
};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use bytes::Bytes;

/// Some replicas, and what is on its way between them.
struct Cluster {
    now: Time,
    replicas: BTreeMap<NodeId, Replica>,
    network: VecDeque<PeerMessage>,
    /// Messages from the first to the second are lost.
    cut: BTreeSet<(NodeId, NodeId)>,
    replies: BTreeMap<RequestId, ClientReply>,
    last_request: u64,
    /// Whether writes become durable; otherwise they wait in `unsynced`.
    disks_work: bool,
    unsynced: VecDeque<(NodeId, StorageRequest)>,
    /// Disks that take so long, microseconds.
    slow: BTreeMap<NodeId, u64>,
    /// When the last go of a slow disk begins, and ends.
    goes: BTreeMap<NodeId, (Time, Time)>,
    /// What they will have done, and when.
    delayed: VecDeque<(Time, NodeId, StorageRequest)>,
    /// What each storage was told to be committed.
    noted: Vec<(NodeId, LogIndex)>,
    /// Snapshots are not saved.
    saves_fail: bool,
    /// Saves so far: whose, when, and of which entry.
    saves: Vec<(NodeId, Time, LogId)>,
    /// Snapshots that cannot be read, until they are saved again.
    unreadable: BTreeSet<LogId>,
    /// What the replicas had to say.
    notices: Vec<(NodeId, Notice)>,
    /// Forwards sent so far.
    forwards: usize,
}

fn id(number: u64) -> NodeId {
    NodeId::new(number)
}

fn member(number: u64) -> Member {
    let (raft_addr, http_addr) = (format!("n{number}:8000"), format!("n{number}:8001"));
    Member { name: format!("node{number}"), raft_addr, http_addr, store_id: StoreId(u128::from(number)) }
}

fn set(key: &str, value: &str) -> Op {
    Op::set(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
}

impl Cluster {
    /// A cluster of `count` voters, with a leader.
    fn new(count: u64) -> Self {
        let mut cluster = Self::without_leader(count, &ReplicaConfig::default());
        cluster.elect();
        cluster
    }

    fn without_leader(count: u64, config: &ReplicaConfig) -> Self {
        let members: BTreeMap<NodeId, Member> =
            (1..=count).map(|number| (id(number), member(number))).collect();
        let membership = Membership {
            voters: members.keys().copied().collect(),
            outgoing: None,
            learners: BTreeMap::new(),
            next_member_id: id(count + 1),
            members,
        };
        let first = LogId::new(Term::new(1), LogIndex::new(1));
        let entries = vec![Entry::new(first, EntryKind::Membership, &membership.encode())];
        let restored = Restored {
            hard_state: HardState { term: Term::new(1), voted_for: None },
            snapshot: None,
            entries,
            commit: LogIndex::ZERO,
            promised_micros: 0,
        };
        let replicas =
            (1..=count).map(|number| (id(number), start(id(number), config, restored.clone(), 1))).collect();
        Self {
            now: Time::new(0),
            replicas,
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            replies: BTreeMap::new(),
            last_request: 0,
            disks_work: true,
            unsynced: VecDeque::new(),
            slow: BTreeMap::new(),
            goes: BTreeMap::new(),
            delayed: VecDeque::new(),
            noted: Vec::new(),
            saves_fail: false,
            saves: Vec::new(),
            unreadable: BTreeSet::new(),
            notices: Vec::new(),
            forwards: 0,
        }
    }

    fn elect(&mut self) -> NodeId {
        self.run_until(|cluster| cluster.leader().is_some());
        self.run(50_000);
        self.leader().expect("it was there")
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |replica: &Replica| replica.raft().role() == RoleName::Leader;
        let leaders = self.replicas.iter().filter(|(_, replica)| leads(replica));
        leaders.max_by_key(|(_, replica)| replica.raft().term()).map(|(id, _)| *id)
    }

    /// Waits for a leader other than `old`.
    fn run_until_succeeded(&mut self, old: NodeId) -> NodeId {
        self.run_until(|cluster| cluster.leader().is_some_and(|leader| leader != old));
        self.leader().expect("it was there")
    }

    fn follower(&self) -> NodeId {
        *self.replicas.keys().find(|id| Some(**id) != self.leader()).expect("there is more than one")
    }

    /// Cuts a node off, both ways.
    fn isolate(&mut self, node: NodeId) {
        for other in self.replicas.keys().copied().collect::<Vec<_>>() {
            self.cut.extend([(node, other), (other, node)]);
        }
    }

    /// Ends a node's process and starts it again, on all that it wrote.
    fn restart(&mut self, node: NodeId) {
        let raft = self.replicas[&node].raft();
        let hard_state = HardState { term: raft.term(), voted_for: Some(node) };
        let entries = raft.log_after(LogIndex::ZERO);
        let restored = Restored { hard_state, entries, commit: raft.commit_index(), ..Restored::default() };
        self.replicas.insert(node, start(node, &ReplicaConfig::default(), restored, 2));
    }

    fn heal(&mut self) {
        self.cut.clear();
    }

    fn ask(&mut self, node: NodeId, request: ClientRequest) -> RequestId {
        self.last_request += 1;
        let request_id = RequestId(self.last_request);
        let deadline = self.now.plus(5_000_000);
        self.give(node, Event::Client { id: request_id, deadline, by: None, request });
        request_id
    }

    fn write(&mut self, node: NodeId, key: &str, value: &str) -> RequestId {
        self.ask(node, ClientRequest::write(set(key, value)))
    }

    fn read(&mut self, node: NodeId, key: &str, level: Level) -> RequestId {
        self.ask(node, ClientRequest::read(Bytes::copy_from_slice(key.as_bytes()), level))
    }

    fn reply(&self, request: RequestId) -> Option<&ClientReply> {
        self.replies.get(&request)
    }

    /// The value that a read was answered with.
    fn value(&self, request: RequestId) -> Option<String> {
        let found = self.reply(request)?.key()?;
        let value = found.as_ref().map(|found| String::from_utf8(found.value.to_vec()).unwrap());
        Some(value.unwrap_or_else(|| "nothing".into()))
    }

    fn give(&mut self, node: NodeId, event: Event) {
        let now = self.now;
        let Some(replica) = self.replicas.get_mut(&node) else { return };
        replica.step(now, event);
        let actions = replica.take_actions();
        self.carry_out(node, actions);
    }

    fn carry_out(&mut self, node: NodeId, actions: Actions) {
        let is_forward = |message: &&PeerMessage| matches!(message, PeerMessage::Forward(_));
        self.forwards += actions.messages.iter().filter(is_forward).count();
        self.network.extend(actions.messages);
        self.replies.extend(actions.replies);
        self.notices.extend(actions.notices.into_iter().map(|notice| (node, notice)));
        self.unsynced.extend(actions.storage.into_iter().map(|request| (node, request)));
        while self.disks_work
            && let Some((node, request)) = self.unsynced.pop_front()
        {
            match self.due(node) {
                Some(due) => self.delayed.push_back((due, node, request)),
                None => self.store(node, request),
            }
        }
    }

    /// When a slow disk is done with what it is asked now. It writes all that waits in one go, and
    /// begins with that when the go before it is over.
    fn due(&mut self, node: NodeId) -> Option<Time> {
        let is_busy = self.delayed.iter().any(|(_, other, _)| *other == node);
        let micros = self.slow.get(&node).copied().or(is_busy.then_some(0))?;
        let (begins, due) = self.goes.get(&node).copied().unwrap_or_default();
        if !(is_busy && begins > self.now) {
            let begins = if is_busy { due } else { self.now };
            self.goes.insert(node, (begins, begins.plus(micros)));
        }
        Some(self.goes[&node].1)
    }

    fn store(&mut self, node: NodeId, request: StorageRequest) {
        let event = match request {
            StorageRequest::Write(write) => {
                assert!(write.records().snapshot_chunks.is_empty(), "these tests install no snapshots");
                StorageEvent::Durable { receipt: write.into_durable(), installed: None, refused: None }
            }
            StorageRequest::Committed(index) => return self.noted.push((node, index)),
            StorageRequest::SaveSnapshot(save) if self.saves_fail => {
                self.saves.push((node, self.now, save.last));
                StorageEvent::SnapshotFailed { last: save.last, reason: "no room".into() }
            }
            StorageRequest::SaveSnapshot(save) => {
                self.saves.push((node, self.now, save.last));
                self.unreadable.remove(&save.last);
                StorageEvent::SnapshotSaved(Box::new(SnapshotMeta {
                    last: save.last,
                    membership: save.membership,
                    membership_id: save.membership_id,
                    bytes: 0,
                    hash: 0,
                }))
            }
            StorageRequest::ReadChunk(read) => {
                if !self.unreadable.contains(&read.snapshot) {
                    // Chunks never arrive: the storage of these tests has none.
                    return;
                }
                let unread = UnreadSnapshot { last: read.snapshot, reason: "a bad sector".into() };
                StorageEvent::ChunkRead { to: read.to, session: read.session, chunk: Err(unread) }
            }
        };
        self.give(node, Event::Storage(event));
    }

    /// Lets `micros` pass, a millisecond at a time; everything that is sent arrives at once.
    fn run(&mut self, micros: u64) {
        let end = self.now.plus(micros);
        while self.now < end {
            self.now = self.now.plus(1_000);
            let (due, later) =
                std::mem::take(&mut self.delayed).into_iter().partition(|(due, ..)| *due <= self.now);
            self.delayed = later;
            let due: VecDeque<_> = due;
            due.into_iter().for_each(|(_, node, request)| self.store(node, request));
            for node in self.replicas.keys().copied().collect::<Vec<_>>() {
                self.give(node, Event::Wake);
            }
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        while let Some(message) = self.network.pop_front() {
            if !self.cut.contains(&(message.from(), message.to())) {
                self.give(message.to(), Event::Peer(message));
            }
        }
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..30_000 {
            if done(self) {
                return;
            }
            self.run(1_000);
        }
        panic!("it did not happen within 30 s");
    }

    fn run_until_answered(&mut self, request: RequestId) -> ClientReply {
        self.deliver();
        self.run_until(|cluster| cluster.reply(request).is_some());
        self.reply(request).cloned().expect("it was there")
    }
}

fn start(id: NodeId, config: &ReplicaConfig, restored: Restored, incarnation: u64) -> Replica {
    let incarnation = Incarnation::new(incarnation);
    let start = ReplicaStart { id, incarnation, seed: id.get(), restored, store: Store::new() };
    Replica::new(config.clone(), start, Time::new(0)).unwrap()
}

fn add_member(number: u64) -> ClientRequest {
    change(Change::AddMembers { members: vec![member(number)], replaces: BTreeSet::new(), promote: true })
}

fn change(change: Change) -> ClientRequest {
    ClientRequest::ChangeMembership(change.into())
}
