//! What the core costs: three nodes in memory, with disks that are always done at once.
//!
//! An element is one entry, proposed at the leader, committed and applied on all three nodes: the
//! CPU of three nodes together, without encoding, sockets and disks.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use infinitystore::raft::{
    Config, Entry, EntryKind, HardState, Incarnation, Input, LogId, LogIndex, Member, Membership, Message,
    NodeId, Raft, ReadId, Restored, RoleName, Setup, SnapshotMeta, StoreId, Term, Time,
};
use std::collections::{BTreeMap, VecDeque};

const NODES: u64 = 3;
const DATA_BYTES: usize = 256;
/// The log in memory is compacted after so many entries, as a replica does.
const COMPACT_ENTRIES: u64 = 50_000;

struct Cluster {
    nodes: Vec<Raft>,
    messages: VecDeque<Message>,
    now: u64,
    applied: u64,
    reads: usize,
}

impl Cluster {
    fn new() -> Self {
        let member = |id: u64| Member {
            name: format!("n{id}"),
            raft_addr: format!("n{id}:1"),
            http_addr: format!("n{id}:2"),
            store_id: StoreId(u128::from(id)),
        };
        let membership = Membership {
            voters: (1..=NODES).map(NodeId::new).collect(),
            outgoing: None,
            learners: BTreeMap::new(),
            members: (1..=NODES).map(|id| (NodeId::new(id), member(id))).collect(),
            next_member_id: NodeId::new(NODES + 1),
        };
        let first = LogId::new(Term::new(1), LogIndex::new(1));
        let restored = Restored {
            hard_state: HardState { term: Term::new(1), voted_for: None },
            snapshot: None,
            entries: vec![Entry::new(first, EntryKind::Membership, &membership.encode())],
            commit: LogIndex::ZERO,
            promised_micros: 0,
        };
        let start = |id| {
            let life = Incarnation::new(1);
            Raft::new(Setup {
                id: NodeId::new(id),
                incarnation: life,
                seed: id,
                config: Config::default(),
                restored: restored.clone(),
                now: Time::new(0),
            })
            .expect("the state is sound")
        };
        let nodes = (1..=NODES).map(start).collect();
        let mut cluster = Self { nodes, messages: VecDeque::new(), now: 0, applied: 0, reads: 0 };
        cluster.now = 2 * Config::default().election_timeout_micros;
        cluster.step(0, Input::Wake);
        cluster.settle(0);
        cluster.run();
        assert_eq!(cluster.nodes[0].role(), RoleName::Leader);
        cluster
    }

    fn step(&mut self, at: usize, input: Input) {
        self.nodes[at].step(Time::new(self.now), input).expect("nothing is refused here");
    }

    /// Carries a node's output out until it has none; its disk is done at once.
    fn settle(&mut self, at: usize) {
        loop {
            let output = self.nodes[at].take_output();
            self.messages.extend(output.messages);
            self.reads += output.reads.len();
            let mut settled = true;
            if let Some(last) = output.committed.last() {
                if at == 0 {
                    self.applied += output.committed.len() as u64;
                }
                self.step(at, Input::Applied(last.index()));
                settled = false;
            }
            if let Some(write) = output.write {
                self.step(at, Input::Durable(write.into_durable()));
                settled = false;
            }
            if settled {
                return;
            }
        }
    }

    fn run(&mut self) {
        while let Some(message) = self.messages.pop_front() {
            let at = usize::try_from(message.to.get() - 1).expect("three nodes");
            self.step(at, Input::Message(message));
            self.settle(at);
        }
    }

    fn propose(&mut self, data: &Bytes, count: u64) {
        for _ in 0..count {
            self.nodes[0].propose(Time::new(self.now), data).expect("it leads");
        }
        self.settle(0);
        self.run();
        if self.applied > COMPACT_ENTRIES {
            self.compact();
        }
    }

    fn read(&mut self, at: usize, count: u64) {
        for id in 0..count {
            self.step(at, Input::Read(ReadId::new(id)));
        }
        self.settle(at);
        self.run();
    }

    fn compact(&mut self) {
        self.applied = 0;
        for at in 0..self.nodes.len() {
            let raft = &self.nodes[at];
            let index = raft.commit_index();
            let (membership, membership_id) = raft.membership_at(index);
            let last = LogId::new(raft.term_at(index).expect("it was just applied"), index);
            let membership = membership.clone();
            let meta = SnapshotMeta { last, membership, membership_id, bytes: 1, hash: 0 };
            self.step(at, Input::SnapshotStored(Box::new(meta)));
            self.settle(at);
        }
        self.run();
    }
}

fn raft(criterion: &mut Criterion) {
    let data = Bytes::from(vec![7; DATA_BYTES]);
    let mut group = criterion.benchmark_group("three nodes in memory");
    for batch in [1, 16, 256] {
        let mut cluster = Cluster::new();
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("writes in batches of {batch}"), |bencher| {
            bencher.iter(|| cluster.propose(&data, batch));
        });
    }
    for (place, at) in [("leader", 0), ("follower", 1)] {
        let mut cluster = Cluster::new();
        group.throughput(Throughput::Elements(64));
        group.bench_function(format!("64 reads at the {place}"), |bencher| {
            bencher.iter(|| cluster.read(at, 64));
        });
        assert!(cluster.reads >= 64, "they were served");
    }
    group.finish();
}

criterion_group!(benches, raft);
criterion_main!(benches);
